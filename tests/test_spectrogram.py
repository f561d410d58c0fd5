"""What a sound looks like: padding, loudness and silence change nothing, and a tone lies in its band."""

import keras
import numpy as np
import pytest

from mmkeras.nn.spectrogram import LogMel, SpecAugment, mel_matrix

RNG = np.random.default_rng(0)


def numpy(x):
    return keras.ops.convert_to_numpy(x)


def test_padding_changes_no_real_frame_whatever_it_holds():
    clip = RNG.normal(size=(1, 16_123)).astype("float32")
    layer = LogMel(bands=20)
    alone, is_real = map(numpy, layer(clip, np.array([16_123])))
    padded = np.pad(clip, ((0, 0), (0, 5 * 16_000)), constant_values=0.3)
    beside, beside_real = map(numpy, layer(padded, np.array([16_123])))
    count = int(is_real.sum())
    assert count == 101 == beside_real.sum()  # a frame starts every 160 samples
    np.testing.assert_allclose(beside[:, :count], alone[:, :count], atol=1e-5)
    assert not beside[:, count:].any()


def test_real_frames_have_mean_0_and_variance_1_in_each_band():
    clips = RNG.normal(size=(2, 16_000)).astype("float32")
    spectrogram, is_real = map(numpy, LogMel(bands=10)(clips, np.array([16_000, 7_000])))
    for frames, real in zip(spectrogram, is_real, strict=True):
        np.testing.assert_allclose(frames[real].mean(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(frames[real].std(axis=0), 1, atol=0.05)


def test_loudness_does_not_matter():
    clip = RNG.normal(size=(1, 8_000)).astype("float32")
    layer = LogMel(bands=20)
    loud, quiet = (numpy(layer(clip * gain, np.array([8_000]))[0]) for gain in (0.5, 0.005))
    np.testing.assert_allclose(loud, quiet, atol=1e-3)


def test_silence_and_the_shortest_clip_give_numbers():
    for samples, length in ((np.zeros((1, 4_000)), 4_000), (np.ones((1, 1)), 1)):
        spectrogram, is_real = LogMel(bands=5)(samples.astype("float32"), np.array([length]))
        assert np.isfinite(numpy(spectrogram)).all() and numpy(is_real).any()


@pytest.mark.parametrize("hz", [200, 1_000, 4_000])
def test_a_tone_lies_in_its_band(hz):
    bins = np.fft.rfftfreq(512, 1 / 16_000)
    spectrum = (np.abs(bins - hz) == np.abs(bins - hz).min()).astype("float32")
    band = int((spectrum @ mel_matrix(257, 40, 16_000)).argmax())

    def mel(f):
        return 2595 * np.log10(1 + f / 700)

    center = mel(20) + (band + 1) * (mel(8_000) - mel(20)) / 41
    assert abs(center - mel(hz)) < (mel(8_000) - mel(20)) / 41


def test_no_band_is_empty():
    assert (mel_matrix(257, 128, 16_000).sum(axis=0) > 0).all()


def test_the_longest_clip_of_training_is_remembered_and_saved(tmp_path):
    audio, length = keras.Input((None,)), keras.Input((), dtype="int32")
    layer = LogMel(bands=5, hop_ms=20, name="log_mel")
    model = keras.Model([audio, length], layer(audio, length)[0])
    model([np.zeros((2, 32_000)), np.array([16_000, 24_000])], training=True)
    model([np.zeros((1, 64_000)), np.array([64_000])], training=False)
    assert layer.longest_seconds == 1.5
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").get_layer("log_mel")
    assert loaded.longest_seconds == 1.5 and loaded.hop_ms == 20 and loaded.bands == 5


def test_frames_that_overlap_less_than_nothing_are_refused():
    with pytest.raises(ValueError, match="hop_ms=30"):
        LogMel(frame_ms=25, hop_ms=30)


def test_spec_augment_hides_bands_and_times_in_training_alone():
    x = np.ones((8, 100, 40), "float32")
    layer = SpecAugment(band_masks=1, band_share=0.5, time_masks=1, time_share=0.2, seed=1)
    np.testing.assert_array_equal(numpy(layer(x, training=False)), x)
    hidden = numpy(layer(x, training=True)) == 0
    bands, times = hidden.all(axis=1).sum(axis=1), hidden.all(axis=2).sum(axis=1)
    assert 0 < bands.max() <= 20 and len(set(bands)) > 1
    assert 0 < times.max() <= 20 and len(set(times)) > 1
    again = SpecAugment.from_config(layer.get_config())
    assert (again.band_masks, again.time_share) == (1, 0.2)
