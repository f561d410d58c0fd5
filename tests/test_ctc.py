"""CTC against cases done by hand, all paths counted one by one, and a second implementation."""

import itertools

import keras
import numpy as np
import pytest

from mmkeras.data.vocabulary import END
from mmkeras.decoding import ctc

V = 7  # 0 is the blank, 1 to 3 are never said
A, B, C = 4, 5, 6


def numpy(x):
    return keras.ops.convert_to_numpy(x)


def log_softmax(x):
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def collapsed(path):
    """A path's label: neighbours that are equal count once, blanks not at all."""
    merged = [token for token, _ in itertools.groupby(path)]
    return tuple(token for token in merged if token != ctc.BLANK)


def nll_by_all_paths(log_probs, label):
    """The definition: the sum over every path that collapses to the label."""
    steps, vocabulary = log_probs.shape
    total = sum(
        np.exp(sum(log_probs[s, t] for s, t in enumerate(path)))
        for path in itertools.product(range(vocabulary), repeat=steps)
        if collapsed(path) == tuple(label)
    )
    return -np.log(total)


def nll_by_forward_variables(log_probs, label):
    """The recursion of Graves et al. 2006, section 4.1, written out in probabilities."""
    extended = [0]
    for token in label:
        extended += [token, 0]
    probs = np.exp(log_probs.astype(np.float64))
    alpha = np.zeros(len(extended))
    alpha[:2] = probs[0, extended[:2]]
    for step in range(1, len(probs)):
        before, alpha = alpha, np.zeros(len(extended))
        for i, token in enumerate(extended):
            reached = before[i] + (before[i - 1] if i else 0)
            if i > 1 and token != 0 and token != extended[i - 2]:
                reached += before[i - 2]
            alpha[i] = reached * probs[step, token]
    return -np.log(alpha[-1] + (alpha[-2] if len(alpha) > 1 else 0))


def with_lengths(logits, steps):
    is_real = np.arange(logits.shape[1])[None] < np.array(steps)[:, None]
    return ctc.OnlyBlank()(logits, is_real)


def loss(labels, logits):
    return float(ctc.CTC()(np.array(labels), logits))


def test_two_steps_by_hand():
    probs = np.full((1, 2, V), 0.02)
    probs[0, 0, [0, A]] = 0.3, 0.6
    probs[0, 1, [0, A]] = 0.5, 0.4
    # "A" is said by A A, A blank, blank A
    expected = -np.log(0.6 * 0.4 + 0.6 * 0.5 + 0.3 * 0.4)
    logits = np.log(probs).astype("float32")
    normalised = log_softmax(logits)
    shift = (np.log(probs) - normalised).sum(axis=1)[0, 0]  # these do not sum to 1
    assert loss([[A]], with_lengths(logits, [2])) == pytest.approx(expected + shift, abs=1e-5)


@pytest.mark.parametrize("label", [[A], [A, B], [A, A], [B, A, B], []])
def test_all_paths_counted_one_by_one(label):
    logits = np.random.default_rng(1).normal(size=(1, 4, V)).astype("float32")
    expected = nll_by_all_paths(log_softmax(logits)[0], label)
    found = loss([label + [END] + [0] * (3 - len(label))], with_lengths(logits, [4]))
    assert found == pytest.approx(expected / max(len(label), 1), rel=1e-5)


def test_lengths_that_differ_against_a_second_implementation():
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(4, 30, V)).astype("float32")
    steps, labels = [30, 17, 9, 5], [[A, B, B, C, A], [C, C, C], [A, B, A, B], [B]]
    padded = np.array([label + [END] + [0] * (6 - len(label)) for label in labels])
    expected = sum(
        nll_by_forward_variables(log_softmax(row[:n]), label)
        for row, n, label in zip(logits, steps, labels, strict=True)
    )
    count = sum(map(len, labels))
    assert loss(padded, with_lengths(logits, steps)) == pytest.approx(expected / count, rel=1e-5)


def test_more_padding_changes_nothing():
    logits = np.random.default_rng(3).normal(size=(2, 8, V)).astype("float32")
    longer = np.pad(logits, ((0, 0), (0, 20), (0, 0)), constant_values=3.0)
    labels = [[A, B], [C, 0]]
    short = loss(labels, with_lengths(logits, [8, 5]))
    assert loss(labels, with_lengths(longer, [8, 5])) == pytest.approx(short, rel=1e-6)


def test_a_label_that_does_not_fit_adds_nothing():
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(2, 3, V)).astype("float32")
    labels = [[A, A, A], [B, C, 0]]  # "AAA" needs five steps
    alone = loss(labels[1:], with_lengths(logits[1:], [3]))
    assert loss(labels, with_lengths(logits, [3, 3])) == pytest.approx(alone, rel=1e-6)
    assert loss(labels[:1], with_lengths(logits[:1], [3])) == 0


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the gradient is taken with TensorFlow's tape"
)
def test_a_label_that_does_not_fit_leaves_no_nan_in_the_gradient():
    import tensorflow as tf

    variable = tf.Variable(np.random.default_rng(4).normal(size=(2, 3, V)).astype("float32"))
    with tf.GradientTape() as tape:
        value = ctc.CTC()(np.array([[A, A, A], [B, C, 0]]), with_lengths(variable, [3, 3]))
    gradient = tape.gradient(value, variable).numpy()
    assert np.isfinite(gradient).all() and not gradient[0].any() and gradient[1].any()


@pytest.mark.parametrize(
    ("label", "steps"), [([A, 0, 0], 1), ([A, B, 0], 2), ([A, A, 0], 3), ([A, A, A], 5), ([0, 0, 0], 0)]
)
def test_the_fewest_steps_of_a_label(label, steps):
    assert numpy(ctc.steps_needed(np.array([label]))).tolist() == [steps]


def path_logits(*paths, sure=10.0):
    logits = np.zeros((len(paths), max(map(len, paths)), V), "float32")
    for row, path in zip(logits, paths, strict=True):
        row[np.arange(len(path)), path] = sure
    return with_lengths(logits, [len(path) for path in paths])


@pytest.mark.parametrize("beams", [1, 4])
def test_decoding_merges_neighbours_and_drops_blanks(beams):
    logits = path_logits([A, A, 0, A, B, B, 0], [0, C, C])
    tokens, log_probability = ctc.decode(logits, beams)
    assert numpy(tokens)[:, :3].tolist() == [[A, A, B], [C, 0, 0]]
    assert not numpy(tokens)[:, 3:].any()
    assert (numpy(log_probability) < 0).all() and (numpy(log_probability) > -0.05).all()


def test_a_beam_sums_paths_where_the_best_path_is_wrong():
    probs = np.full((1, 2, V), 1e-6)
    probs[0, :, 0], probs[0, :, A] = 0.6, 0.4  # blank blank: 0.36; A: 0.16 + 0.24 + 0.24 = 0.64
    logits = with_lengths(np.log(probs).astype("float32"), [2])
    assert not numpy(ctc.decode(logits, 1)[0]).any()
    tokens, log_probability = ctc.decode(logits, 4)
    assert numpy(tokens)[0].tolist() == [A, 0]
    assert np.exp(numpy(log_probability))[0] == pytest.approx(0.64, abs=1e-3)


def test_special_tokens_are_never_said():
    logits = path_logits([1, 2, 3])
    assert not set(numpy(ctc.decode(logits, 1)[0]).ravel()) & {1, 2, 3}
