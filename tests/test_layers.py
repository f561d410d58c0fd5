"""Losses, metrics, layers, and the attention decoder."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import mmkeras
from mmkeras.nn import layers, losses, optimizers
from mmkeras.nn.attention_decoder import attention_decoder
from mmkeras.text.vocabulary import Vocabulary

LOGITS = np.log([[[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25]]]).astype("float32")


@pytest.mark.parametrize(
    ("tokens", "probabilities", "correct"),
    [
        ([[3, 1, 2]], [0.4, 0.1, 0.25], 1),
        ([[3, 2, 0]], [0.4, 0.1], 1),
        ([[2, 0, 0]], [0.3], 0),
    ],
)
def test_loss_and_accuracy_ignore_padding(tokens, probabilities, correct):
    loss = losses.TokenCrossentropy()(np.array(tokens), LOGITS)
    assert float(loss) == pytest.approx(-np.log(probabilities).mean(), rel=1e-5)
    accuracy = losses.TokenAccuracy()
    accuracy.update_state(np.array(tokens), LOGITS)
    assert float(accuracy.result()) == pytest.approx(correct / len(probabilities))


def test_accuracy_is_averaged_over_tokens():
    accuracy = losses.TokenAccuracy()
    accuracy.update_state(np.array([[3, 1, 2]]), LOGITS)  # one of three is correct
    accuracy.update_state(np.array([[3, 0, 0]]), LOGITS)  # one of one
    accuracy.update_state(np.zeros((0, 3), int), LOGITS[:0])
    assert float(accuracy.result()) == pytest.approx(2 / 4)


def test_label_smoothing_spreads_probability_over_all_words():
    probabilities = np.exp(LOGITS[0, 0])  # 0.1 0.2 0.3 0.4
    expected = -(0.8 * np.log(0.4) + 0.2 * np.log(probabilities).mean())
    loss = losses.TokenCrossentropy(0.2)(np.array([[3, 0, 0]]), LOGITS)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="label_smoothing=1"):
        losses.TokenCrossentropy(1)


@pytest.mark.parametrize("weights", [[0, 1, 0.5], [[0], [1], [0.5]], [[0, 0], [1, 1], [0.5, 0.5]]])
def test_weights_of_examples_weigh_their_tokens_in_loss_and_accuracy(weights):
    rng = np.random.default_rng(0)
    tokens, logits = np.array([[1, 2], [3, 0], [2, 2]]), rng.normal(size=(3, 2, 4)).astype("float32")
    each = -np.take_along_axis(logits - np.log(np.exp(logits).sum(-1, keepdims=True)), tokens[..., None], -1)
    expected = (each[1, 0, 0] + each[2].sum() / 2) / 2
    loss, accuracy = losses.TokenCrossentropy(), losses.TokenAccuracy()
    for scale in (1, 0.01):
        scaled = scale * np.array(weights)
        assert float(loss(tokens, logits, scaled)) == pytest.approx(expected, rel=1e-5)
        accuracy.reset_state()
        accuracy.update_state(tokens, logits, scaled)
        correct = logits.argmax(-1) == tokens
        assert float(accuracy.result()) == pytest.approx((correct[1, 0] + correct[2].sum() / 2) / 2)


def test_weights_of_examples_weigh_their_pixels():
    image, target = np.random.default_rng(0).random((2, 3, 4, 4, 3)).astype("float32")
    loss = losses.PixelCrossentropy()
    expected = (loss(target[:1], image[:1]) + 3 * loss(target[2:], image[2:])) / 4
    assert float(loss(target, image, np.array([1, 0, 3]))) == pytest.approx(float(expected), rel=1e-5)


def test_the_loss_of_padding_only_is_zero():
    assert float(losses.TokenCrossentropy()(np.zeros((1, 3), int), LOGITS)) == 0


def test_the_loss_does_not_depend_on_the_amount_of_padding():
    padded = np.concatenate([LOGITS, 7 * np.ones((1, 5, 4), "float32")], axis=1)
    loss = losses.TokenCrossentropy()
    expected = loss(np.array([[3, 2, 0]]), LOGITS)
    assert float(loss(np.array([[3, 2, 0, 0, 0, 0, 0, 0]]), padded)) == pytest.approx(float(expected))


@pytest.fixture
def decoder():
    return attention_decoder(Vocabulary.of(12), memory_dim=8, embedding_dim=6, units=10, dropout=0.5)


def decoder_inputs(tokens):
    rng = np.random.default_rng(0)
    memory, hidden, cell = (rng.normal(size=s).astype("float32") for s in ((2, 5, 8), (2, 10), (2, 10)))
    return [ops.convert_to_tensor(x) for x in (np.array(tokens, "int32"), memory, hidden, cell)]


def test_step_by_step_decoding_equals_teacher_forcing(decoder):
    tokens, memory, hidden, cell = decoder_inputs([[2, 5, 6, 7], [2, 9, 4, 4]])
    expected = ops.convert_to_numpy(decoder([tokens, memory, hidden, cell])[0])
    for t in range(4):
        step, hidden, cell, attention = decoder([tokens[:, t : t + 1], memory, hidden, cell])
        np.testing.assert_allclose(ops.convert_to_numpy(step)[:, 0], expected[:, t], atol=1e-5)
        np.testing.assert_allclose(ops.convert_to_numpy(attention).sum(axis=-1), 1, rtol=1e-5)


def test_logits_do_not_depend_on_later_tokens_or_padding(decoder):
    a = ops.convert_to_numpy(decoder(decoder_inputs([[2, 5, 6, 7], [2, 9, 4, 4]]))[0])
    b = ops.convert_to_numpy(decoder(decoder_inputs([[2, 5, 6, 0, 0], [2, 9, 4, 0, 0]]))[0])
    np.testing.assert_allclose(a[:, :3], b[:, :3], atol=1e-6)


def test_grid_features_encode_images_and_return_grids_unchanged():
    network = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(6, 3, strides=2)])
    layer = layers.GridFeatures(network, 8)
    image = np.ones((2, 8, 8, 3), "float32")
    grid = ops.convert_to_numpy(layer(image))
    assert grid.shape == (2, 3, 3, 6) == layer.compute_output_shape(image.shape)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(grid)), grid)


@pytest.mark.parametrize("build", [mmkeras.speech_to_text.build, mmkeras.text_to_image.build])
def test_masks_cause_no_warning_in_keras_3_16(build, monkeypatch, tmp_path):
    """Keras 3.16 sets `supports_masking` to False for recurrent layers; a shim does the same here."""

    def without_masking(init):
        def shim(self, *args, **kwargs):
            init(self, *args, **kwargs)
            self.supports_masking = False

        return shim

    for layer in (keras.layers.RNN, keras.layers.Bidirectional):
        monkeypatch.setattr(layer, "__init__", without_masking(layer.__init__))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*mask")
        model = build("toy", vocabulary=9, units=4, embedding_dim=4)
        model.save(tmp_path / "model.keras")
        keras.saving.load_model(tmp_path / "model.keras")


def test_imagenet_means_equal_keras_preprocessing():
    image = np.random.default_rng(0).uniform(0, 255, (1, 4, 4, 3)).astype("float32")
    expected = keras.applications.vgg16.preprocess_input(image.copy())
    np.testing.assert_allclose(layers.ImageNetMeans()(image), expected, atol=1e-4)


def attend(**penalties):
    """Runs the attention once in training: its weights (1, T, N), and the loss that it adds."""
    layer = layers.GuidedAttention(**penalties)
    rng = np.random.default_rng(0)
    query, memory = (ops.convert_to_tensor(rng.normal(size=(1, n, 4)).astype("float32")) for n in (3, 6))
    masks = [ops.convert_to_tensor([[True, True, False]]), ops.convert_to_tensor([[True] * 4 + [False] * 2])]
    _, weights = layer([query, memory], mask=masks, return_attention_scores=True, training=True)
    losses = [float(loss) for loss in layer.losses]
    layer([query, memory], mask=masks)
    return ops.convert_to_numpy(weights)[0], losses


def test_guided_attention_penalizes_entropy_and_distance_from_the_diagonal():
    assert attend()[1] == []
    weights, (entropy,) = attend(entropy_penalty=2.0)
    assert entropy == pytest.approx(-2 * (weights * np.log(weights + 1e-8)).sum(axis=1).mean(), rel=1e-4)
    weights, (distance,) = attend(diagonal_penalty=2.0)
    # two valid queries, four valid positions
    far = 1 - np.exp(-((np.array([[1 / 2], [1]]) - np.array([1, 2, 3, 4]) / 4) ** 2) / (2 * 0.2**2))
    assert distance == pytest.approx(2 * (weights[:2, :4] * far).sum(axis=1).mean(), rel=1e-4)


def test_position_embedding_adds_a_vector_per_position():
    layer = layers.PositionEmbedding()
    x = np.ones((2, 3, 4), "float32")
    np.testing.assert_allclose(
        ops.convert_to_numpy(layer(x)) - x, ops.convert_to_numpy(layer.positions)[None] + 0 * x, atol=1e-6
    )


@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_fused_batch_normalization_equals_that_of_keras(dtype, learned):
    x = np.random.default_rng(0).normal(3, 2, (4, 5, 6, 7)).astype("float32")
    results = []
    for kind in (layers.BatchNormalization, keras.layers.BatchNormalization):
        layer = kind(momentum=0.9, dtype=dtype, scale=learned, center=learned)
        layer.build(x.shape)
        if learned:
            layer.gamma.assign(np.arange(7) + 1.0)
        with tf.GradientTape() as tape:
            inputs = tf.Variable(x)
            outputs = layer(inputs, training=True)
            loss = tf.reduce_sum(tf.cast(outputs, "float32") ** 3)
        gradients = tape.gradient(loss, [inputs, *layer.trainable_variables])
        results.append([outputs, *gradients, *layer.non_trainable_variables])
    assert results[0][0].dtype == results[1][0].dtype
    for one, other in zip(*results, strict=True):
        one, other = (np.asarray(tf.cast(value, "float32")) for value in (one, other))
        scale = np.abs(other).max()
        np.testing.assert_allclose(one, other, atol=scale * (1e-5 if dtype == "float32" else 0.02))


@pytest.mark.parametrize("lengths", [None, (7, 4, 1)])
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("backwards", [False, True, "both"])
@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_the_lstm_on_cpus_equals_that_of_keras(dtype, backwards, sequences, lengths):
    x = np.random.default_rng(0).normal(size=(3, 7, 5)).astype("float32")
    mask = None if lengths is None else np.arange(7) < np.array(lengths)[:, None]
    results = []
    for kind, both in (
        (layers.MaskedLSTM, layers.MaskedBidirectional),
        (keras.layers.LSTM, keras.layers.Bidirectional),
    ):
        keras.utils.set_random_seed(0)
        layer = kind(4, return_sequences=sequences, go_backwards=backwards is True, dtype=dtype)
        layer = both(layer, dtype=dtype) if backwards == "both" else layer
        with tf.GradientTape() as tape:
            inputs = tf.Variable(x)
            outputs = layer(inputs, mask=mask, training=True)
            loss = tf.reduce_sum(tf.cast(outputs, "float32") ** 3)
        results.append([outputs, *tape.gradient(loss, [inputs, *layer.trainable_variables])])
    assert results[0][0].dtype == results[1][0].dtype
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 if dtype == "float32" else 0.02)


@pytest.mark.parametrize("kind", [optimizers.Adam, optimizers.AveragedAdam])
def test_fused_adam_equals_that_of_keras(kind, monkeypatch):
    rng = np.random.default_rng(0)
    tokens, targets = rng.integers(0, 9, (6, 8, 4)), rng.normal(size=(6, 8, 3))

    def weights():
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.layers.Embedding(9, 5), keras.layers.Flatten(), keras.layers.Dense(3)])
        rate = optimizers.cosine_decay(0.1, 10)
        model.compile(kind(rate, global_clipnorm=1.0, weight_decay=0.1), "mse")  # sparse gradients, too
        for x, y in zip(tokens, targets, strict=True):
            model.train_on_batch(x, y)
        model.optimizer.finalize_variable_values(model.trainable_variables)
        return [variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]

    fused = weights()
    monkeypatch.setattr(optimizers.Adam, "update_step", keras.optimizers.Adam.update_step)
    for one, other in zip(fused, weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
