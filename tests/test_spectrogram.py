"""Log-mel spectrograms and SpecAugment."""

import keras
import numpy as np
import pytest

from mmkeras.nn.spectrogram import LogMel, SpecAugment, mel_matrix

RNG = np.random.default_rng(0)


def numpy(x):
    return keras.ops.convert_to_numpy(x)


def test_valid_frames_do_not_depend_on_padding():
    clip = RNG.normal(size=(1, 16_123)).astype("float32")
    layer = LogMel(bands=20)
    expected, mask = map(numpy, layer(clip, np.array([16_123])))
    padded = np.pad(clip, ((0, 0), (0, 5 * 16_000)), constant_values=0.3)
    spectrogram, padded_mask = map(numpy, layer(padded, np.array([16_123])))
    count = int(mask.sum())
    assert count == 101 == padded_mask.sum()  # a frame starts every 160 samples
    np.testing.assert_allclose(spectrogram[:, :count], expected[:, :count], atol=1e-5)
    assert not spectrogram[:, count:].any()


def test_each_band_has_mean_0_and_variance_1():
    clips = RNG.normal(size=(2, 16_000)).astype("float32")
    spectrogram, mask = map(numpy, LogMel(bands=10)(clips, np.array([16_000, 7_000])))
    for frames, valid in zip(spectrogram, mask, strict=True):
        np.testing.assert_allclose(frames[valid].mean(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(frames[valid].std(axis=0), 1, atol=0.05)


def test_the_spectrogram_does_not_depend_on_loudness():
    clip = RNG.normal(size=(1, 8_000)).astype("float32")
    layer = LogMel(bands=20)
    loud, quiet = (numpy(layer(clip * gain, np.array([8_000]))[0]) for gain in (0.5, 0.005))
    np.testing.assert_allclose(loud, quiet, atol=1e-3)


@pytest.mark.parametrize("clip", [np.zeros((1, 4_000)), np.ones((1, 1))], ids=["silence", "one sample"])
def test_the_spectrogram_is_finite(clip):
    spectrogram, mask = LogMel(bands=5)(clip.astype("float32"), np.array([clip.shape[1]]))
    assert np.isfinite(numpy(spectrogram)).all() and numpy(mask).any()


@pytest.mark.parametrize("hz", [200, 1_000, 4_000])
def test_a_tone_is_in_its_band(hz):
    bins = np.fft.rfftfreq(512, 1 / 16_000)
    spectrum = (np.abs(bins - hz) == np.abs(bins - hz).min()).astype("float32")
    band = int((spectrum @ mel_matrix(257, 40, 16_000)).argmax())

    def mel(f):
        return 2595 * np.log10(1 + f / 700)

    center = mel(20) + (band + 1) * (mel(8_000) - mel(20)) / 41
    assert abs(center - mel(hz)) < (mel(8_000) - mel(20)) / 41


def test_no_band_is_empty():
    assert (mel_matrix(257, 128, 16_000).sum(axis=0) > 0).all()


def test_the_longest_training_clip_is_saved(tmp_path):
    audio, length = keras.Input((None,)), keras.Input((), dtype="int32")
    layer = LogMel(bands=5, hop_ms=20, name="log_mel")
    model = keras.Model([audio, length], layer(audio, length)[0])
    model([np.zeros((2, 32_000)), np.array([16_000, 24_000])], training=True)
    model([np.zeros((1, 64_000)), np.array([64_000])], training=False)
    assert layer.longest_seconds == 1.5
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").get_layer("log_mel")
    assert loaded.longest_seconds == 1.5 and loaded.hop_ms == 20 and loaded.bands == 5


def test_a_hop_longer_than_a_frame_is_refused():
    with pytest.raises(ValueError, match="hop_ms=30"):
        LogMel(frame_ms=25, hop_ms=30)


def test_spec_augment_masks_bands_and_frames_in_training_only():
    x = np.ones((8, 100, 40), "float32")
    layer = SpecAugment(band_masks=1, band_share=0.5, time_masks=1, time_share=0.2, seed=1)
    np.testing.assert_array_equal(numpy(layer(x, training=False)), x)
    masked = numpy(layer(x, training=True)) == 0
    bands, frames = masked.all(axis=1).sum(axis=1), masked.all(axis=2).sum(axis=1)
    assert 0 < bands.max() <= 20 and len(set(bands)) > 1
    assert 0 < frames.max() <= 20 and len(set(frames)) > 1
    restored = SpecAugment.from_config(layer.get_config())
    assert (restored.band_masks, restored.time_share) == (1, 0.2)
