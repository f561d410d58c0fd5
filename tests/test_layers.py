"""Losses, metrics and layers that the graphs are made of."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

import mmkeras
from mmkeras.data.vocabulary import Vocabulary
from mmkeras.nn import layers, losses
from mmkeras.nn.attention_decoder import attention_decoder

LOGITS = np.log([[[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25]]]).astype("float32")


@pytest.mark.parametrize(
    ("tokens", "probabilities", "right"),
    [
        ([[3, 1, 2]], [0.4, 0.1, 0.25], 1),
        ([[3, 2, 0]], [0.4, 0.1], 1),
        ([[2, 0, 0]], [0.3], 0),
    ],
)
def test_loss_and_accuracy_count_real_tokens_alone(tokens, probabilities, right):
    loss = losses.TokenCrossentropy()(np.array(tokens), LOGITS)
    assert float(loss) == pytest.approx(-np.log(probabilities).mean(), rel=1e-5)
    accuracy = losses.TokenAccuracy()
    accuracy.update_state(np.array(tokens), LOGITS)
    assert float(accuracy.result()) == pytest.approx(right / len(probabilities))


def test_accuracy_counts_tokens_and_not_batches():
    accuracy = losses.TokenAccuracy()
    accuracy.update_state(np.array([[3, 1, 2]]), LOGITS)  # one of three
    accuracy.update_state(np.array([[3, 0, 0]]), LOGITS)  # one of one
    accuracy.update_state(np.zeros((0, 3), int), LOGITS[:0])
    assert float(accuracy.result()) == pytest.approx(2 / 4)


def test_label_smoothing_asks_all_words_for_their_share():
    probabilities = np.exp(LOGITS[0, 0])  # 0.1 0.2 0.3 0.4
    expected = -(0.8 * np.log(0.4) + 0.2 * np.log(probabilities).mean())
    loss = losses.TokenCrossentropy(0.2)(np.array([[3, 0, 0]]), LOGITS)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="label_smoothing=1"):
        losses.TokenCrossentropy(1)


def test_a_batch_of_padding_alone_is_no_nan():
    assert float(losses.TokenCrossentropy()(np.zeros((1, 3), int), LOGITS)) == 0


def test_more_padding_changes_no_loss():
    longer = np.concatenate([LOGITS, 7 * np.ones((1, 5, 4), "float32")], axis=1)
    short, long = np.array([[3, 2, 0]]), np.array([[3, 2, 0, 0, 0, 0, 0, 0]])
    assert float(losses.TokenCrossentropy()(short, LOGITS)) == pytest.approx(
        float(losses.TokenCrossentropy()(long, longer))
    )


@pytest.fixture
def decoder():
    return attention_decoder(Vocabulary.of(12), memory_dim=8, embedding_dim=6, units=10, dropout=0.5)


def decoder_inputs(tokens):
    rng = np.random.default_rng(0)
    memory, hidden, cell = (rng.normal(size=s).astype("float32") for s in ((2, 5, 8), (2, 10), (2, 10)))
    return [ops.convert_to_tensor(x) for x in (np.array(tokens, "int32"), memory, hidden, cell)]


def test_one_step_at_a_time_gives_the_logits_of_the_whole_sequence(decoder):
    tokens, memory, hidden, cell = decoder_inputs([[2, 5, 6, 7], [2, 9, 4, 4]])
    whole = ops.convert_to_numpy(decoder([tokens, memory, hidden, cell])[0])
    for t in range(4):
        step, hidden, cell, attention = decoder([tokens[:, t : t + 1], memory, hidden, cell])
        np.testing.assert_allclose(ops.convert_to_numpy(step)[:, 0], whole[:, t], atol=1e-5)
        np.testing.assert_allclose(ops.convert_to_numpy(attention).sum(axis=-1), 1, rtol=1e-5)


def test_a_later_token_or_padding_changes_no_earlier_logits(decoder):
    a = ops.convert_to_numpy(decoder(decoder_inputs([[2, 5, 6, 7], [2, 9, 4, 4]]))[0])
    b = ops.convert_to_numpy(decoder(decoder_inputs([[2, 5, 6, 0, 0], [2, 9, 4, 0, 0]]))[0])
    np.testing.assert_allclose(a[:, :3], b[:, :3], atol=1e-6)


def test_grids_pass_through_and_pictures_do_not():
    network = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(6, 3, strides=2)])
    layer = layers.GridFeatures(network, 8)
    picture = np.ones((2, 8, 8, 3), "float32")
    grid = ops.convert_to_numpy(layer(picture))
    assert grid.shape == (2, 3, 3, 6) == layer.compute_output_shape(picture.shape)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(grid)), grid)


@pytest.mark.parametrize("make", [mmkeras.speech_to_text.build, mmkeras.text_to_image.build])
def test_masked_calls_warn_of_nothing_in_keras_3_16(make, monkeypatch, tmp_path):
    """Where recurrent layers have `supports_masking` off, here by a shim."""

    def without_masking(init):
        def shim(self, *args, **kwargs):
            init(self, *args, **kwargs)
            self.supports_masking = False

        return shim

    for layer in (keras.layers.RNN, keras.layers.Bidirectional):
        monkeypatch.setattr(layer, "__init__", without_masking(layer.__init__))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*mask")
        model = make("toy", vocabulary=9, units=4, embedding_dim=4)
        model.save(tmp_path / "model.keras")
        keras.saving.load_model(tmp_path / "model.keras")


def test_imagenet_means_are_those_of_keras_applications():
    picture = np.random.default_rng(0).uniform(0, 255, (1, 4, 4, 3)).astype("float32")
    expected = keras.applications.vgg16.preprocess_input(picture.copy())
    np.testing.assert_allclose(layers.ImageNetMeans()(picture), expected, atol=1e-4)
