"""Speech to text's graph: what `build` returns."""

import keras
import numpy as np
import pytest

from mmkeras.speech_to_text import build

TINY = {"units": 16, "embedding_dim": 8, "bands": 16, "encoder_layers": 1}
HEADS = ("attention", "ctc")


def batch(head, lengths=(20_000, 9_000, 30_000), tokens=5):
    rng = np.random.default_rng(0)
    audio = np.zeros((len(lengths), max(lengths)), "float32")
    for row, length in zip(audio, lengths, strict=True):
        row[:length] = rng.normal(size=length) * 0.1
    inputs = {"audio": audio, "length": np.array(lengths, "int32")}
    if head == "attention":
        inputs["tokens"] = rng.integers(4, 20, (len(lengths), tokens)).astype("int32")
    return inputs


@pytest.mark.parametrize("head", HEADS)
def test_logits_do_not_depend_on_other_clips_of_the_batch(head):
    model = build("toy", vocabulary=20, head=head, **TINY)
    inputs = batch(head)
    logits = model.predict_on_batch(inputs)
    for i, length in enumerate(inputs["length"]):
        one = {name: value[i : i + 1] for name, value in inputs.items()}
        (expected,) = model.predict_on_batch(one | {"audio": one["audio"][:, :length]})
        np.testing.assert_allclose(logits[i, : len(expected)], expected, atol=1e-4)


def test_a_time_step_is_40_ms():
    logits = build("toy", vocabulary=20, head="ctc", **TINY).predict_on_batch(batch("ctc", (16_000,)))
    assert (logits[0].max(axis=-1) < 1e8).all()
    assert (logits[0, :, 1] > -1e8).sum() == 25  # valid steps in one second


def test_a_label_longer_than_its_clip_gives_no_nan():
    model = build("toy", vocabulary=20, head="ctc", **TINY)
    targets = np.tile(np.arange(4, 20), 4)[None].repeat(3, axis=0)  # 64 tokens, clips of at most 47 steps
    for _ in range(2):
        assert np.isfinite(model.train_on_batch(batch("ctc"), targets)).all()
    assert all(np.isfinite(w).all() for w in model.get_weights())


@pytest.mark.parametrize("head", HEADS)
def test_the_document_preset_needs_no_arguments(head):
    model = build("document", head=head)
    assert model.output_shape == (None, None, 10_000)
    assert model.get_layer("encoder").get_layer("log_mel").bands == 80


def test_spectrogram_and_logits_are_float32_in_half_precision():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = build("toy", vocabulary=20, head="ctc", **TINY)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert model.get_layer("encoder").get_layer("log_mel").compute_dtype == "float32"
    assert model.get_layer("encoder").get_layer("lstm_0").compute_dtype == "float16"
    assert model.predict_on_batch(batch("ctc")).dtype == np.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "huge"}, "preset='huge'"),
        ({"head": "transducer"}, "head='transducer'"),
        ({"speling": 1}, "speling"),
        ({"vocabulary": 3}, "vocabulary=3"),
        ({"hop_ms": 50}, "hop_ms=50"),
        ({"bands": 0}, "bands=0"),
        ({"encoder_layers": 0}, "encoder_layers=0"),
        ({"units": 2.5}, "units=2.5"),
    ],
)
def test_invalid_arguments_are_named(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build(**arguments)
