"""Search over models that are tables of probabilities."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from mmkeras.decoding import search

START, END, A, B = 1, 2, 3, 4
SIZE = 5
EDGES = {"start": START, "end": END}
SENTENCES = np.array([[A, B, A, END, 0, 0], [B, END, 0, 0, 0, 0], [A, A, A, A, B, END]])


def speller(sentences):
    """A model that outputs given sentences. Its state has the position, so a wrong state gives other tokens."""

    def next(tokens, state):
        target = ops.take_along_axis(state["sentence"], state["position"][:, None], axis=1)[:, 0]
        logits = 3.0 * ops.one_hot(target, SIZE)
        return logits, {"sentence": state["sentence"], "position": state["position"] + 1}

    position = ops.zeros((len(sentences),), "int32")
    return next, {"sentence": ops.convert_to_tensor(sentences, "int32"), "position": position}


def markov(seed, batch_size=1):
    """Random second-order Markov chains, one per sequence. The state is the number of the chain and the last
    token, so the state of another beam gives other probabilities."""
    logits = 2 * np.random.default_rng(seed).normal(size=(batch_size, SIZE, SIZE, SIZE)).astype("float32")

    def next(tokens, state):
        chain, before = state
        rows = (chain * SIZE + before) * SIZE + tokens
        return ops.take(ops.convert_to_tensor(logits.reshape(-1, SIZE)), rows, axis=0), (chain, tokens)

    state = (ops.arange(batch_size, dtype="int32"), ops.zeros((batch_size,), "int32"))
    table = np.where(np.isin(np.arange(SIZE), [0, START]), search.NEVER, logits)
    return next, state, table - np.log(np.exp(table).sum(axis=-1, keepdims=True))


def chain(probabilities):
    """A first-order Markov chain: {token: {next token: probability}}."""
    logits = np.full((SIZE, SIZE), search.NEVER, "float32")
    for token, following in probabilities.items():
        for after, probability in following.items():
            logits[token, after] = np.log(probability)
    return lambda tokens, state: (ops.take(ops.convert_to_tensor(logits), tokens, axis=0), state)


def log_probability(log_probs, sentence):
    total, before, token = 0.0, 0, START
    for after in sentence:
        if after == 0:
            break
        total += log_probs[before, token, after]
        before, token = token, after
    return total


def counted(next, calls):
    """The same model, with a note of each call in `calls`."""
    return lambda tokens, state: calls.append(1) or next(tokens, state)


def uniform(*shape):
    return np.random.default_rng(0).random(shape).astype("float32")


def numpy(results):
    return [ops.convert_to_numpy(r) for r in results]


COMMON = {**EDGES, "max_length": 6, "forbidden": (0, START)}


SEARCHES = [
    (search.greedy, {}),
    (search.beam, {"beams": 3, "length_penalty": 0.7}),
    (search.sample, {"noise": uniform(3, 6)}),
]


@pytest.mark.parametrize(("method", "options"), [(search.greedy, {}), (search.beam, {"beams": 3})])
def test_sentences_are_padded_after_their_end(method, options):
    next, state = speller(SENTENCES)
    tokens, log_probs = numpy(method(next, state, batch_size=3, **COMMON, **options))
    np.testing.assert_array_equal(tokens, SENTENCES)
    each = 3 - np.log(np.exp(3) + 2)  # of three allowed tokens one has logit 3
    np.testing.assert_allclose(log_probs, each * (SENTENCES != 0).sum(axis=1), rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_log_probabilities_of_half_precision_logits_are_float32(dtype):
    next, state, _ = markov(2, 8)

    def rounded(to_dtype):
        def model(tokens, state):
            logits, state = next(tokens, state)
            return ops.cast(ops.cast(logits, dtype), to_dtype), state

        return numpy(search.greedy(model, state, batch_size=8, **COMMON))

    for half, full in zip(rounded(dtype), rounded("float32"), strict=True):
        np.testing.assert_array_equal(half, full)


@pytest.mark.parametrize(("method", "options"), [(search.greedy, {}), (search.beam, {"beams": 2})])
def test_decoding_stops_when_every_sequence_has_ended(method, options):
    next, state = speller(SENTENCES[:2])
    calls = []
    tokens, _ = method(counted(next, calls), state, batch_size=2, **{**COMMON, "max_length": 500}, **options)
    assert len(calls) == 4  # tokens of the longer sentence, its end included
    assert tokens.shape == (2, 500)


def test_beam_search_stops_when_no_open_prefix_can_win():
    next = chain({START: {END: 0.9, A: 0.1}, A: {A: 0.9, B: 0.1}, B: {B: 1.0}})  # A and B never end
    calls = []
    tokens, _ = search.beam(counted(next, calls), (), batch_size=1, beams=2, **{**COMMON, "max_length": 500})
    assert len(calls) == 1
    assert ops.convert_to_numpy(tokens)[0, :2].tolist() == [END, 0]


def test_length_penalty_continues_while_a_longer_sentence_can_win():
    next = chain({START: {END: 0.6, A: 0.4}, A: {B: 1.0}, B: {END: 1.0}})
    short, long = (
        numpy(search.beam(next, (), batch_size=1, beams=2, length_penalty=penalty, **COMMON))
        for penalty in (0.0, 1.0)
    )
    assert short[0][0].tolist() == [END, 0, 0, 0, 0, 0]  # log 0.6 = -0.51
    assert long[0][0].tolist() == [A, B, END, 0, 0, 0]  # log 0.4 / 3 = -0.31
    np.testing.assert_allclose([short[1][0], long[1][0]], np.log([0.6, 0.4]), rtol=1e-5)


def test_ended_sentence_wins_a_tie_with_a_truncated_one():
    next = chain({START: {B: 0.5, A: 0.5}, A: {END: 1.0}, B: {B: 1.0}})
    tokens, _ = numpy(
        search.beam(next, (), batch_size=1, beams=2, start=START, end=B, max_length=6, forbidden=(0,))
    )
    assert tokens[0].tolist() == [B, 0, 0, 0, 0, 0]


def test_beam_of_one_equals_greedy():
    next, state, _ = markov(0, 100)
    alone = numpy(search.greedy(next, state, batch_size=100, **COMMON))
    beam = numpy(search.beam(next, state, batch_size=100, beams=1, **COMMON))
    np.testing.assert_array_equal(alone[0], beam[0])
    np.testing.assert_allclose(alone[1], beam[1], rtol=1e-5)


def test_log_probabilities_equal_those_of_the_chain():
    next, state, log_probs = markov(3, 20)
    for method, options in (
        (search.greedy, {}),
        (search.beam, {"beams": 4}),
        (search.sample, {"noise": uniform(20, 6), "temperature": 2.0, "top_p": 0.9}),
    ):
        tokens, totals = method(next, state, batch_size=ops.convert_to_tensor(20), **COMMON, **options)
        assert (tuple(tokens.shape), keras.backend.standardize_dtype(tokens.dtype)) == ((20, 6), "int32")
        assert (tuple(totals.shape), keras.backend.standardize_dtype(totals.dtype)) == ((20,), "float32")
        tokens, totals = numpy((tokens, totals))
        expected = [log_probability(log_probs[i], tokens[i]) for i in range(20)]
        np.testing.assert_allclose(totals, expected, rtol=1e-4)


def test_beam_search_finds_a_sentence_that_greedy_search_misses():
    next = chain({START: {A: 0.6, B: 0.4}, A: {A: 0.4, B: 0.3, END: 0.3}, B: {END: 1.0}})
    options = {**COMMON, "max_length": 2, "batch_size": 1}
    tokens, totals = numpy(search.greedy(next, (), **options))
    assert tokens[0].tolist() == [A, A]
    np.testing.assert_allclose(totals, np.log([0.6 * 0.4]), rtol=1e-5)
    tokens, totals = numpy(search.beam(next, (), beams=2, **options))
    assert tokens[0].tolist() == [B, END]
    np.testing.assert_allclose(totals, np.log([0.4]), rtol=1e-5)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_wide_beam_equals_exhaustive_search(penalty):
    every = [(*body, END) for length in range(4) for body in itertools.product((A, B), repeat=length)]
    every += itertools.product((A, B), repeat=4)
    next, state, log_probs = markov(0, 20)
    options = {**COMMON, "max_length": 4, "batch_size": 20}
    tokens, totals = numpy(search.beam(next, state, beams=len(every), length_penalty=penalty, **options))
    for i in range(20):
        best = max(every, key=lambda words: log_probability(log_probs[i], words) / len(words) ** penalty)
        assert tuple(t for t in tokens[i] if t) == best
        np.testing.assert_allclose(totals[i], log_probability(log_probs[i], best), rtol=1e-4)
    if penalty == 0:
        _, greedy = numpy(search.greedy(next, state, **options))
        assert (totals > greedy + 1e-4).any()  # greedy search misses some


def test_batching_does_not_change_beam_search():
    next, state, _ = markov(5, 4)
    together = numpy(search.beam(next, state, batch_size=4, beams=3, **COMMON))
    for i in (0, 3):
        one = tuple(s[i : i + 1] for s in state)
        alone = numpy(search.beam(next, one, batch_size=1, beams=3, **COMMON))
        np.testing.assert_array_equal(together[0][i], alone[0][0])


def test_forbidden_tokens_are_never_generated():
    next, state, _ = markov(0, 64)
    options = {**COMMON, "batch_size": 64, "forbidden": (0, START, A)}
    for tokens, _ in (
        search.greedy(next, state, **options),
        search.beam(next, state, beams=4, **options),
        search.sample(next, state, noise=uniform(64, 6), temperature=5.0, **options),
    ):
        assert set(np.unique(ops.convert_to_numpy(tokens))) <= {0, END, B}


def test_sample_frequencies_equal_probabilities():
    count = 4000
    next, _, log_probs = markov(1)
    first = log_probs[0, 0, START]
    grid = ((np.arange(count) + 0.5) / count).astype("float32")[:, None]
    state = (ops.zeros((count,), "int32"), ops.zeros((count,), "int32"))

    def shares(**options):
        common = {**COMMON, "max_length": 1, "batch_size": count, "noise": grid}
        tokens, totals = numpy(search.sample(next, state, **common, **options))
        np.testing.assert_allclose(totals, first[tokens[:, 0]], rtol=1e-4)  # at any temperature
        return np.bincount(tokens[:, 0], minlength=SIZE) / count

    np.testing.assert_allclose(shares(), np.exp(first), atol=1e-3)
    sharper = np.exp(2 * first)
    np.testing.assert_allclose(shares(temperature=0.5), sharper / sharper.sum(), atol=1e-3)
    # a nucleus without the least probable of the three tokens
    nucleus = np.where(np.exp(first) >= np.sort(np.exp(first))[-2], np.exp(first), 0)
    np.testing.assert_allclose(shares(top_p=nucleus.sum() - 1e-3), nucleus / nucleus.sum(), atol=1e-3)


def test_tiny_nucleus_equals_greedy():
    next, state, _ = markov(4, 20)
    greedy = numpy(search.greedy(next, state, batch_size=20, **COMMON))
    sampled = numpy(search.sample(next, state, batch_size=20, noise=uniform(20, 6), top_p=1e-6, **COMMON))
    np.testing.assert_array_equal(greedy[0], sampled[0])
    np.testing.assert_allclose(greedy[1], sampled[1], rtol=1e-5)


@pytest.mark.parametrize("draw", [0.0, 1.0])  # float64 noise just below 1 is 1 in float32
def test_extreme_noise_draws_possible_tokens(draw):
    next, state, log_probs = markov(6, 20)
    noise = np.full((20, 1), draw, "float32")
    tokens, _ = numpy(search.sample(next, state, batch_size=20, noise=noise, **{**COMMON, "max_length": 1}))
    expected = log_probs[:, 0, START].argmax(-1) if draw == 0 else log_probs[:, 0, START, 2:].argmin(-1) + 2
    np.testing.assert_array_equal(tokens[:, 0], expected)


def test_noise_on_a_boundary_draws_the_next_token():
    """With two equal probabilities, noise in [0, 0.5) draws one token and in [0.5, 1) the other."""
    next = chain({START: {A: 0.5, B: 0.5}})
    noise = np.array([[0.0], [0.5]], "float32")
    tokens, _ = numpy(search.sample(next, (), batch_size=2, noise=noise, **{**COMMON, "max_length": 1}))
    assert set(tokens[:, 0]) == {A, B}


@pytest.mark.parametrize(
    ("rows", "known", "jit_compile"), [(1, True, False), (3, False, False), (3, False, True)]
)
@pytest.mark.parametrize(("search", "options"), SEARCHES)
def test_graph_of_unknown_batch_size_equals_eager(search, options, rows, known, jit_compile):
    next, state, _ = markov(8, rows)

    def run(noise, *state):
        noisy = {**options, "noise": noise} if "noise" in options else options
        return search(next, state, batch_size=rows if known else ops.shape(noise)[0], **COMMON, **noisy)

    shapes = [tf.TensorSpec([None, 6]), *[tf.TensorSpec([None], "int32")] * 2]
    graph = tf.function(run, shapes, jit_compile=jit_compile)
    inputs = (uniform(rows, 6), *state)
    for eager, totals in zip(numpy(run(*inputs)), numpy(graph(*inputs)), strict=True):
        np.testing.assert_allclose(eager, totals, rtol=1e-5)


def test_repeat_keeps_copies_of_a_row_together():
    nest = {"memory": ops.reshape(ops.arange(4), (2, 2)), "state": (ops.arange(2),)}
    totals = search.repeat(nest, 2)
    assert ops.convert_to_numpy(totals["memory"]).tolist() == [[0, 1], [0, 1], [2, 3], [2, 3]]
    assert ops.convert_to_numpy(totals["state"][0]).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("search", "wrong"),
    [
        (search.greedy, {"max_length": 0}),
        (search.beam, {"beams": 0}),
        (search.beam, {"beams": 2, "length_penalty": -1.0}),
        (search.sample, {"temperature": 0.0, "noise": None}),
        (search.sample, {"top_p": 0.0, "noise": None}),
        (search.sample, {"top_p": 1.5, "noise": None}),
        (search.sample, {"noise": uniform(1, 5)}),
    ],
)
def test_invalid_arguments_raise(search, wrong):
    next, state, _ = markov(0)
    name = [key for key in wrong if key not in ("beams", "noise")] or list(wrong)
    with pytest.raises(ValueError, match=f"Received: {name[0]}"):
        search(next, state, **{**COMMON, "batch_size": 1, **wrong})
