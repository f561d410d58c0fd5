"""Decoding knows no task: it is tested with models that are tables."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from mmkeras import decoding

START, END, A, B = 1, 2, 3, 4
SIZE = 5
EDGES = {"start": START, "end": END}
SENTENCES = np.array([[A, B, A, END, 0, 0], [B, END, 0, 0, 0, 0], [A, A, A, A, B, END]])


def compiled(function):
    """The function as one graph, as the backend makes it."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    if backend == "jax":
        import jax

        return jax.jit(function)
    return function


def speller(sentences):
    """A model that spells sentences: its state is the position, so a lost state spells something else."""

    def next(tokens, state):
        wanted = ops.take_along_axis(state["sentence"], state["position"][:, None], axis=1)[:, 0]
        logits = 3.0 * ops.one_hot(wanted, SIZE)
        return logits, {"sentence": state["sentence"], "position": state["position"] + 1}

    position = ops.zeros((len(sentences),), "int32")
    return next, {"sentence": ops.convert_to_tensor(sentences, "int32"), "position": position}


def markov(seed, batch_size=1):
    """A random chain; each sequence has its own table, chosen by its state."""
    logits = 2 * np.random.default_rng(seed).normal(size=(batch_size, SIZE, SIZE)).astype("float32")

    def next(tokens, state):
        rows = state * SIZE + tokens
        return ops.take(ops.convert_to_tensor(logits.reshape(-1, SIZE)), rows, axis=0), state

    table = np.where(np.isin(np.arange(SIZE), [0, START]), decoding.NEVER, logits)
    log_probs = table - np.log(np.exp(table).sum(axis=-1, keepdims=True))
    return next, ops.arange(batch_size, dtype="int32"), log_probs


def log_probability(log_probs, sentence):
    total, before = 0.0, START
    for token in sentence:
        if token == 0:
            break
        total += log_probs[before, token]
        before = token
    return total


def numpy(results):
    return [ops.convert_to_numpy(r) for r in results]


COMMON = {**EDGES, "max_length": 6, "forbidden": (0, START)}


@pytest.mark.parametrize("search", [decoding.greedy, decoding.beam])
def test_known_sentences_are_spelled_and_padded(search):
    next, state = speller(SENTENCES)
    how = {"beams": 3} if search is decoding.beam else {}
    tokens, log_probs = numpy(search(next, state, batch_size=3, **COMMON, **how))
    np.testing.assert_array_equal(tokens, SENTENCES)
    each = 3 - np.log(np.exp(3) + 2)  # of three allowed tokens one has logit 3
    np.testing.assert_allclose(log_probs, each * (SENTENCES != 0).sum(axis=1), rtol=1e-4)


def test_decoding_stops_when_every_sequence_has_ended():
    """Another loop round would take one more step of the state, and is seen in eager mode."""
    for search, how in ((decoding.greedy, {}), (decoding.beam, {"beams": 2})):
        next, state = speller(SENTENCES[:2])
        calls = []

        def counting(tokens, state, next=next, calls=calls):
            calls.append(1)
            return next(tokens, state)

        many = {**COMMON, "max_length": 500}
        if keras.backend.backend() == "jax":
            pytest.skip("jax traces the step once, whatever the number of rounds")
        tokens, _ = numpy(search(counting, state, batch_size=2, **many, **how))
        assert len(calls) <= 5, search
        assert tokens.shape == (2, 500)


def test_a_beam_of_one_equals_greedy():
    for seed in range(20):
        next, state, _ = markov(seed, 3)
        alone = numpy(decoding.greedy(next, state, batch_size=3, **COMMON))
        beam = numpy(decoding.beam(next, state, batch_size=3, beams=1, **COMMON))
        np.testing.assert_array_equal(alone[0], beam[0])
        np.testing.assert_allclose(alone[1], beam[1], rtol=1e-5)


def test_log_probabilities_are_those_of_the_chain():
    next, state, log_probs = markov(3, 4)
    for search, how in ((decoding.greedy, {}), (decoding.beam, {"beams": 4})):
        tokens, found = numpy(search(next, state, batch_size=4, **COMMON, **how))
        true = [log_probability(log_probs[i], tokens[i]) for i in range(4)]
        np.testing.assert_allclose(found, true, rtol=1e-4)


def test_a_wide_beam_finds_the_best_of_all_sentences():
    every = [(*body, END) for length in range(4) for body in itertools.product((A, B), repeat=length)] + list(
        itertools.product((A, B), repeat=4)
    )
    better_than_greedy = 0
    for seed in range(10):
        next, state, log_probs = markov(seed)
        how = {**COMMON, "max_length": 4, "batch_size": 1}
        tokens, found = numpy(decoding.beam(next, state, beams=31, **how))
        best = max(every, key=lambda sentence: log_probability(log_probs[0], sentence))
        np.testing.assert_allclose(found[0], log_probability(log_probs[0], best), rtol=1e-4)
        assert tuple(t for t in tokens[0] if t) == best
        _, greedily = numpy(decoding.greedy(next, state, **how))
        better_than_greedy += found[0] > greedily[0] + 1e-4
    assert better_than_greedy  # the chains hold a garden path


def test_a_length_penalty_favours_longer_sentences():
    lengths = []
    for penalty in (0.0, 1.0, 3.0):
        total = 0
        for seed in range(10):
            next, state, _ = markov(seed, 2)
            tokens, _ = numpy(
                decoding.beam(next, state, batch_size=2, beams=8, length_penalty=penalty, **COMMON)
            )
            total += (tokens != 0).sum()
        lengths.append(total)
    assert lengths[0] < lengths[1] < lengths[2]


def test_beams_of_a_batch_do_not_mix():
    next, state, _ = markov(5, 4)
    together = numpy(decoding.beam(next, state, batch_size=4, beams=3, **COMMON))
    for i in range(4):
        alone = numpy(decoding.beam(next, state[i : i + 1], batch_size=1, beams=3, **COMMON))
        np.testing.assert_array_equal(together[0][i], alone[0][0])


def test_forbidden_tokens_are_never_written():
    noise = np.random.default_rng(0).random((64, 6)).astype("float32")
    next, state, _ = markov(0, 64)
    how = {**COMMON, "batch_size": 64, "forbidden": (0, START, A)}
    for tokens, _ in (
        decoding.greedy(next, state, **how),
        decoding.beam(next, state, beams=4, **how),
        decoding.sample(next, state, noise=noise, temperature=5.0, **how),
    ):
        assert set(np.unique(ops.convert_to_numpy(tokens))) <= {0, END, B}


def test_samples_come_as_often_as_they_are_probable():
    count = 4000
    next, _, log_probs = markov(1)
    noise = ((np.arange(count) + 0.5) / count).astype("float32")[:, None]
    how = {**COMMON, "max_length": 1, "batch_size": count, "noise": noise}
    state = ops.zeros((count,), "int32")

    tokens, found = numpy(decoding.sample(next, state, **how))
    share = np.bincount(tokens[:, 0], minlength=SIZE) / count
    np.testing.assert_allclose(share, np.exp(log_probs[0, START]), atol=1e-3)
    np.testing.assert_allclose(found, log_probs[0, START][tokens[:, 0]], rtol=1e-4)

    tokens, _ = numpy(decoding.sample(next, state, temperature=0.5, **how))
    share = np.bincount(tokens[:, 0], minlength=SIZE) / count
    sharper = np.exp(2 * log_probs[0, START])
    np.testing.assert_allclose(share, sharper / sharper.sum(), atol=1e-3)

    tokens, _ = numpy(decoding.sample(next, state, top_p=0.01, **how))
    assert set(tokens[:, 0]) == {log_probs[0, START].argmax()}


def test_a_compiled_graph_gives_the_same():
    next, state, _ = markov(7, 3)
    noise = np.random.default_rng(0).random((3, 6)).astype("float32")
    for search, how in (
        (decoding.greedy, {}),
        (decoding.beam, {"beams": 3, "length_penalty": 0.7}),
        (decoding.sample, {"noise": noise}),
    ):

        def run(state, search=search, how=how):
            return search(next, state, batch_size=ops.shape(state)[0], **COMMON, **how)

        for eager, graph in zip(numpy(run(state)), numpy(compiled(run)(state)), strict=True):
            np.testing.assert_allclose(eager, graph, rtol=1e-5)


@pytest.mark.parametrize(
    ("search", "wrong"),
    [
        (decoding.greedy, {"max_length": 0}),
        (decoding.beam, {"beams": 0}),
        (decoding.beam, {"beams": 2, "length_penalty": -1.0}),
        (decoding.sample, {"temperature": 0.0, "noise": None}),
        (decoding.sample, {"top_p": 0.0, "noise": None}),
        (decoding.sample, {"top_p": 1.5, "noise": None}),
    ],
)
def test_bad_arguments_are_named(search, wrong):
    next, state, _ = markov(0)
    name = [key for key in wrong if key not in ("beams", "noise")] or ["beams"]
    with pytest.raises(ValueError, match=f"Received: {name[0]}="):
        search(next, state, **{**COMMON, "batch_size": 1, **wrong})
