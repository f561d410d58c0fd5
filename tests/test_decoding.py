"""Decoding knows no task: it is tested with models that are tables."""

import contextlib
import itertools

import keras
import numpy as np
import pytest
from keras import ops

from mmkeras.decoding import search

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
    """Random chains of second order, one for each sequence. The state holds which chain it is and the token
    before: where it is lost, or goes to the wrong beam, the probabilities become others."""
    logits = 2 * np.random.default_rng(seed).normal(size=(batch_size, SIZE, SIZE, SIZE)).astype("float32")

    def next(tokens, state):
        chain, before = state
        rows = (chain * SIZE + before) * SIZE + tokens
        return ops.take(ops.convert_to_tensor(logits.reshape(-1, SIZE)), rows, axis=0), (chain, tokens)

    state = (ops.arange(batch_size, dtype="int32"), ops.zeros((batch_size,), "int32"))
    table = np.where(np.isin(np.arange(SIZE), [0, START]), search.NEVER, logits)
    return next, state, table - np.log(np.exp(table).sum(axis=-1, keepdims=True))


def chain(probabilities):
    """A model without a state: for each token the probabilities of those that may follow it."""
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
    """The same model, which notes in `calls` that it was asked."""

    def counting(tokens, state):
        calls.append(1)
        return next(tokens, state)

    return counting


def eagerly():
    """Where rounds are counted: JAX would trace the body of a loop once, however often it runs."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.disable_jit()
    return contextlib.nullcontext()


def uniform(*shape):
    return np.random.default_rng(0).random(shape).astype("float32")


def numpy(results):
    return [ops.convert_to_numpy(r) for r in results]


COMMON = {**EDGES, "max_length": 6, "forbidden": (0, START)}


@pytest.mark.parametrize("method", [search.greedy, search.beam])
def test_known_sentences_are_spelled_and_padded(method):
    next, state = speller(SENTENCES)
    how = {"beams": 3} if method is search.beam else {}
    tokens, log_probs = numpy(method(next, state, batch_size=3, **COMMON, **how))
    np.testing.assert_array_equal(tokens, SENTENCES)
    each = 3 - np.log(np.exp(3) + 2)  # of three allowed tokens one has logit 3
    np.testing.assert_allclose(log_probs, each * (SENTENCES != 0).sum(axis=1), rtol=1e-4)


@pytest.mark.parametrize("method", [search.greedy, search.sample, search.beam])
def test_tokens_are_int32_and_log_probabilities_float32(method):
    next, state, _ = markov(0, 3)
    how = {search.greedy: {}, search.sample: {"noise": uniform(3, 6)}, search.beam: {"beams": 2}}[method]
    tokens, found = method(next, state, batch_size=ops.convert_to_tensor(3), **COMMON, **how)
    assert (tuple(tokens.shape), keras.backend.standardize_dtype(tokens.dtype)) == ((3, 6), "int32")
    assert (tuple(found.shape), keras.backend.standardize_dtype(found.dtype)) == ((3,), "float32")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_probabilities_of_half_precision_logits_are_summed_in_float32(dtype):
    next, state, _ = markov(2, 8)

    def half(tokens, state):
        logits, state = next(tokens, state)
        return ops.cast(logits, dtype), state

    def rounded(tokens, state):
        logits, state = half(tokens, state)
        return ops.cast(logits, "float32"), state

    found = numpy(search.greedy(half, state, batch_size=8, **COMMON))
    for half_result, full_result in zip(
        found, numpy(search.greedy(rounded, state, batch_size=8, **COMMON)), strict=True
    ):
        np.testing.assert_array_equal(half_result, full_result)


@pytest.mark.parametrize("method", [search.greedy, search.beam])
def test_decoding_stops_when_every_sequence_has_ended(method):
    next, state = speller(SENTENCES[:2])
    calls, how = [], {"beams": 2} if method is search.beam else {}
    with eagerly():
        tokens, _ = method(counted(next, calls), state, batch_size=2, **{**COMMON, "max_length": 500}, **how)
    assert len(calls) == 4  # the longer of the two sentences, with its end
    assert tokens.shape == (2, 500)


def test_a_beam_stops_when_no_open_prefix_can_still_win():
    next = chain({START: {END: 0.9, A: 0.1}, A: {A: 0.9, B: 0.1}, B: {B: 1.0}})  # A and B never end
    calls = []
    with eagerly():
        found = search.beam(counted(next, calls), (), batch_size=1, beams=2, **{**COMMON, "max_length": 500})
    assert len(calls) == 1
    assert numpy(found)[0][0, :2].tolist() == [END, 0]


def test_a_length_penalty_keeps_a_beam_going_while_a_longer_sentence_may_win():
    next = chain({START: {END: 0.6, A: 0.4}, A: {B: 1.0}, B: {END: 1.0}})
    short, long = (
        numpy(search.beam(next, (), batch_size=1, beams=2, length_penalty=penalty, **COMMON))
        for penalty in (0.0, 1.0)
    )
    assert short[0][0].tolist() == [END, 0, 0, 0, 0, 0]  # log 0.6 = -0.51
    assert long[0][0].tolist() == [A, B, END, 0, 0, 0]  # log 0.4 / 3 = -0.31
    np.testing.assert_allclose([short[1][0], long[1][0]], np.log([0.6, 0.4]), rtol=1e-5)


def test_a_tie_is_not_won_by_a_sentence_that_was_cut_off():
    next = chain({START: {B: 0.5, A: 0.5}, A: {END: 1.0}, B: {B: 1.0}})
    tokens, _ = numpy(
        search.beam(next, (), batch_size=1, beams=2, start=START, end=B, max_length=6, forbidden=(0,))
    )
    assert tokens[0].tolist() == [B, 0, 0, 0, 0, 0]


def test_a_beam_of_one_equals_greedy():
    next, state, _ = markov(0, 100)
    alone = numpy(search.greedy(next, state, batch_size=100, **COMMON))
    beam = numpy(search.beam(next, state, batch_size=100, beams=1, **COMMON))
    np.testing.assert_array_equal(alone[0], beam[0])
    np.testing.assert_allclose(alone[1], beam[1], rtol=1e-5)


def test_log_probabilities_are_those_of_the_chain():
    next, state, log_probs = markov(3, 20)
    for method, how in (
        (search.greedy, {}),
        (search.beam, {"beams": 4}),
        (search.sample, {"noise": uniform(20, 6), "temperature": 2.0, "top_p": 0.9}),
    ):
        tokens, found = numpy(method(next, state, batch_size=20, **COMMON, **how))
        true = [log_probability(log_probs[i], tokens[i]) for i in range(20)]
        np.testing.assert_allclose(found, true, rtol=1e-4)


def test_a_beam_escapes_the_garden_path():
    next = chain({START: {A: 0.6, B: 0.4}, A: {A: 0.4, B: 0.3, END: 0.3}, B: {END: 1.0}})
    how = {**COMMON, "max_length": 2, "batch_size": 1}
    tokens, found = numpy(search.greedy(next, (), **how))
    assert tokens[0].tolist() == [A, A]
    np.testing.assert_allclose(found, np.log([0.6 * 0.4]), rtol=1e-5)
    tokens, found = numpy(search.beam(next, (), beams=2, **how))
    assert tokens[0].tolist() == [B, END]
    np.testing.assert_allclose(found, np.log([0.4]), rtol=1e-5)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_wide_beam_finds_the_best_of_all_sentences(penalty):
    every = [(*body, END) for length in range(4) for body in itertools.product((A, B), repeat=length)]
    every += itertools.product((A, B), repeat=4)
    next, state, log_probs = markov(0, 20)
    how = {**COMMON, "max_length": 4, "batch_size": 20}
    tokens, found = numpy(search.beam(next, state, beams=len(every), length_penalty=penalty, **how))
    for i in range(20):
        best = max(every, key=lambda words: log_probability(log_probs[i], words) / len(words) ** penalty)
        assert tuple(t for t in tokens[i] if t) == best
        np.testing.assert_allclose(found[i], log_probability(log_probs[i], best), rtol=1e-4)
    if penalty == 0:
        _, greedily = numpy(search.greedy(next, state, **how))
        assert (found > greedily + 1e-4).any()  # some chains hold a garden path


def test_a_length_penalty_favours_longer_sentences():
    next, state, _ = markov(0, 20)
    lengths = []
    for penalty in (0.0, 1.0, 3.0):
        tokens, _ = search.beam(next, state, batch_size=20, beams=8, length_penalty=penalty, **COMMON)
        lengths.append((ops.convert_to_numpy(tokens) != 0).sum())
    assert lengths[0] < lengths[1] < lengths[2]


def test_beams_of_a_batch_do_not_mix():
    next, state, _ = markov(5, 4)
    together = numpy(search.beam(next, state, batch_size=4, beams=3, **COMMON))
    for i in (0, 3):
        one = tuple(s[i : i + 1] for s in state)
        alone = numpy(search.beam(next, one, batch_size=1, beams=3, **COMMON))
        np.testing.assert_array_equal(together[0][i], alone[0][0])


def test_forbidden_tokens_are_never_written():
    next, state, _ = markov(0, 64)
    how = {**COMMON, "batch_size": 64, "forbidden": (0, START, A)}
    for tokens, _ in (
        search.greedy(next, state, **how),
        search.beam(next, state, beams=4, **how),
        search.sample(next, state, noise=uniform(64, 6), temperature=5.0, **how),
    ):
        assert set(np.unique(ops.convert_to_numpy(tokens))) <= {0, END, B}


def test_samples_come_as_often_as_they_are_probable():
    count = 4000
    next, _, log_probs = markov(1)
    first = log_probs[0, 0, START]
    grid = ((np.arange(count) + 0.5) / count).astype("float32")[:, None]
    state = (ops.zeros((count,), "int32"), ops.zeros((count,), "int32"))

    def shares(**how):
        common = {**COMMON, "max_length": 1, "batch_size": count, "noise": grid}
        tokens, found = numpy(search.sample(next, state, **common, **how))
        np.testing.assert_allclose(found, first[tokens[:, 0]], rtol=1e-4)  # whatever the temperature
        return np.bincount(tokens[:, 0], minlength=SIZE) / count

    np.testing.assert_allclose(shares(), np.exp(first), atol=1e-3)
    sharper = np.exp(2 * first)
    np.testing.assert_allclose(shares(temperature=0.5), sharper / sharper.sum(), atol=1e-3)
    # the nucleus: the least probable of the three is left out
    nucleus = np.where(np.exp(first) >= np.sort(np.exp(first))[-2], np.exp(first), 0)
    np.testing.assert_allclose(shares(top_p=nucleus.sum() - 1e-3), nucleus / nucleus.sum(), atol=1e-3)


def test_a_tiny_nucleus_equals_greedy():
    next, state, _ = markov(4, 20)
    alone = numpy(search.greedy(next, state, batch_size=20, **COMMON))
    drawn = numpy(search.sample(next, state, batch_size=20, noise=uniform(20, 6), top_p=1e-6, **COMMON))
    np.testing.assert_array_equal(alone[0], drawn[0])
    np.testing.assert_allclose(alone[1], drawn[1], rtol=1e-5)


@pytest.mark.parametrize("draw", [0.0, 1.0])  # a float64 just below 1 is 1 as float32
def test_the_ends_of_the_noise_draw_possible_tokens(draw):
    next, state, log_probs = markov(6, 20)
    noise = np.full((20, 1), draw, "float32")
    tokens, _ = numpy(search.sample(next, state, batch_size=20, noise=noise, **{**COMMON, "max_length": 1}))
    wanted = log_probs[:, 0, START].argmax(-1) if draw == 0 else log_probs[:, 0, START, 2:].argmin(-1) + 2
    np.testing.assert_array_equal(tokens[:, 0], wanted)


def test_a_draw_on_the_border_takes_the_next_token():
    """Of two equal tokens, noise in [0, 0.5) draws the one and in [0.5, 1) the other."""
    next = chain({START: {A: 0.5, B: 0.5}})
    noise = np.array([[0.0], [0.5]], "float32")
    tokens, _ = numpy(search.sample(next, (), batch_size=2, noise=noise, **{**COMMON, "max_length": 1}))
    assert set(tokens[:, 0]) == {A, B}


SEARCHES = [
    (search.greedy, {}),
    (search.beam, {"beams": 3, "length_penalty": 0.7}),
    (search.sample, {"noise": uniform(3, 6)}),
]


@pytest.mark.parametrize(("search", "how"), SEARCHES)
def test_a_compiled_graph_gives_the_same(search, how):
    next, state, _ = markov(7, 3)

    def run(state):
        return search(next, state, batch_size=ops.shape(state[0])[0], **COMMON, **how)

    for eager, graph in zip(numpy(run(state)), numpy(compiled(run)(state)), strict=True):
        np.testing.assert_allclose(eager, graph, rtol=1e-5)


def test_temperature_and_nucleus_may_be_tensors_of_a_graph():
    next, state, _ = markov(7, 30)

    def run(temperature, top_p):
        options = {"noise": uniform(30, 6), "temperature": temperature, "top_p": top_p}
        return search.sample(next, state, batch_size=30, **COMMON, **options)

    tensors = (ops.convert_to_tensor(0.7), ops.convert_to_tensor(0.8))
    for eager, graph in zip(numpy(run(0.7, 0.8)), numpy(compiled(run)(*tensors)), strict=True):
        np.testing.assert_allclose(eager, graph, rtol=1e-5)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only TensorFlow's graphs have an unknown batch"
)
@pytest.mark.parametrize(
    ("rows", "known", "jit_compile"), [(1, True, False), (3, False, False), (3, False, True)]
)
@pytest.mark.parametrize(("search", "how"), SEARCHES)
def test_a_graph_of_unknown_batch_gives_the_same(search, how, rows, known, jit_compile):
    import tensorflow as tf

    next, state, _ = markov(8, rows)

    def run(noise, *state):
        given = {**how, "noise": noise} if "noise" in how else how
        return search(next, state, batch_size=rows if known else ops.shape(noise)[0], **COMMON, **given)

    shapes = [tf.TensorSpec([None, 6]), *[tf.TensorSpec([None], "int32")] * 2]
    graph = tf.function(run, shapes, jit_compile=jit_compile)
    inputs = (uniform(rows, 6), *state)
    for eager, found in zip(numpy(run(*inputs)), numpy(graph(*inputs)), strict=True):
        np.testing.assert_allclose(eager, found, rtol=1e-5)


def test_repeat_lays_the_copies_of_a_row_side_by_side():
    nest = {"memory": ops.reshape(ops.arange(4), (2, 2)), "state": (ops.arange(2),)}
    found = search.repeat(nest, 2)
    assert ops.convert_to_numpy(found["memory"]).tolist() == [[0, 1], [0, 1], [2, 3], [2, 3]]
    assert ops.convert_to_numpy(found["state"][0]).tolist() == [0, 0, 1, 1]


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
def test_bad_arguments_are_named(search, wrong):
    next, state, _ = markov(0)
    name = [key for key in wrong if key not in ("beams", "noise")] or list(wrong)
    with pytest.raises(ValueError, match=f"Received: {name[0]}"):
        search(next, state, **{**COMMON, "batch_size": 1, **wrong})
