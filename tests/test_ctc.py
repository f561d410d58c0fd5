"""CTC against the sum over all paths and hand-computed cases."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from mmkeras.decoding import ctc
from mmkeras.text.vocabulary import END

V = 7  # 0 is the blank, 1 to 3 are never generated
A, B, C = 4, 5, 6


def numpy(x):
    return keras.ops.convert_to_numpy(x)


def log_softmax(x):
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def collapsed(path):
    """The labels of a path: repeats are merged, blanks removed."""
    merged = [token for token, _ in itertools.groupby(path)]
    return tuple(token for token in merged if token != ctc.BLANK)


def nll_by_all_paths(log_probs, label):
    """The definition: the sum over all paths that collapse to the label."""
    steps, vocabulary = log_probs.shape
    total = sum(
        np.exp(sum(log_probs[s, t] for s, t in enumerate(path)))
        for path in itertools.product(range(vocabulary), repeat=steps)
        if collapsed(path) == tuple(label)
    )
    return -np.log(total)


def with_lengths(logits, steps):
    mask = np.arange(logits.shape[1])[None] < np.array(steps)[:, None]
    return ctc.OnlyBlank()(logits, mask)


def loss(labels, logits):
    return float(ctc.CTC()(np.array(labels), logits))


def test_loss_equals_the_sum_over_all_paths():
    labels, steps = [[A], [A, B], [A, A], [B, A, B], [], [C, C]], [4, 4, 3, 4, 2, 4]
    logits = np.random.default_rng(1).normal(size=(len(labels), 4, V)).astype("float32")
    rows = zip(logits, steps, labels, strict=True)
    expected = [nll_by_all_paths(log_softmax(row[:n]), label) for row, n, label in rows]
    padded = np.array([label + [END] + [0] * (3 - len(label)) for label in labels])
    value = loss(padded, with_lengths(logits, steps))
    assert value == pytest.approx(sum(expected) / sum(map(len, labels)), rel=1e-5)


def test_padding_does_not_change_the_loss():
    logits = np.random.default_rng(3).normal(size=(2, 8, V)).astype("float32")
    longer = np.pad(logits, ((0, 0), (0, 20), (0, 0)), constant_values=3.0)
    labels = [[A, B], [C, 0]]
    short = loss(labels, with_lengths(logits, [8, 5]))
    assert loss(labels, with_lengths(longer, [8, 5])) == pytest.approx(short, rel=1e-6)


def test_weights_of_examples_weigh_their_tokens():
    logits = with_lengths(np.random.default_rng(3).normal(size=(3, 4, V)).astype("float32"), [4, 4, 4])
    labels = np.array([[A, B], [C, 0], [B, 0]])
    first, last = (loss(labels[i : i + 1], logits[i : i + 1]) for i in (0, 2))
    weighted = float(ctc.CTC()(labels, logits, np.array([1.0, 0.0, 2.0])))
    assert weighted == pytest.approx((2 * first + 2 * last) / 4, rel=1e-5)


def test_label_that_does_not_fit_has_no_loss():
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(2, 3, V)).astype("float32")
    labels = [[A, A, A], [B, C, 0]]  # A A A needs five steps
    alone = loss(labels[1:], with_lengths(logits[1:], [3]))
    assert loss(labels, with_lengths(logits, [3, 3])) == pytest.approx(alone, rel=1e-6)
    assert loss(labels[:1], with_lengths(logits[:1], [3])) == 0


def test_label_that_does_not_fit_has_a_finite_gradient():
    variable = tf.Variable(np.random.default_rng(4).normal(size=(2, 3, V)).astype("float32"))
    with tf.GradientTape() as tape:
        value = ctc.CTC()(np.array([[A, A, A], [B, C, 0]]), with_lengths(variable, [3, 3]))
    gradient = tape.gradient(value, variable).numpy()
    assert np.isfinite(gradient).all() and not gradient[0].any() and gradient[1].any()


@pytest.mark.parametrize(
    ("label", "steps"), [([A, 0, 0], 1), ([A, B, 0], 2), ([A, A, 0], 3), ([A, A, A], 5), ([0, 0, 0], 0)]
)
def test_steps_needed(label, steps):
    assert numpy(ctc.steps_needed(np.array([label]))).tolist() == [steps]


def path_logits(*paths, sure=10.0):
    logits = np.zeros((len(paths), max(map(len, paths)), V), "float32")
    for row, path in zip(logits, paths, strict=True):
        row[np.arange(len(path)), path] = sure
    return with_lengths(logits, [len(path) for path in paths])


@pytest.mark.parametrize("beams", [1, 4])
def test_decoding_merges_repeats_and_removes_blanks(beams):
    logits = path_logits([A, A, 0, A, B, B, 0], [0, C, C])
    tokens, log_probability = ctc.decode(logits, beams)
    assert numpy(tokens)[:, :3].tolist() == [[A, A, B], [C, 0, 0]]
    assert not numpy(tokens)[:, 3:].any()
    assert (numpy(log_probability) < 0).all() and (numpy(log_probability) > -0.05).all()


def test_beam_search_sums_paths():
    probs = np.full((1, 2, V), 1e-6)
    probs[0, :, 0], probs[0, :, A] = 0.6, 0.4  # blank blank: 0.36; A: 0.16 + 0.24 + 0.24 = 0.64
    logits = with_lengths(np.log(probs).astype("float32"), [2])
    assert not numpy(ctc.decode(logits, 1)[0]).any()
    tokens, log_probability = ctc.decode(logits, 4)
    assert numpy(tokens)[0].tolist() == [A, 0]
    assert np.exp(numpy(log_probability))[0] == pytest.approx(0.64, abs=1e-3)


def test_special_tokens_are_never_generated():
    logits = path_logits([1, 2, 3])
    assert not set(numpy(ctc.decode(logits, 1)[0]).ravel()) & {1, 2, 3}
