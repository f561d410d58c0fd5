"""Sound from anywhere comes out as mono float32 at the rate asked for, or with an error that names it."""

import ctypes
import glob
import itertools
import sys

import numpy as np
import pytest
import soundfile

from mmkeras._utils import terminal
from mmkeras.media import audio


def tone(hz=440.0, seconds=0.5, rate=16_000):
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def loudest_hz(samples, rate):
    return np.fft.rfftfreq(len(samples), 1 / rate)[np.abs(np.fft.rfft(samples)).argmax()]


@pytest.mark.parametrize(
    ("name", "subtype", "rate", "closeness"),
    [
        ("8_bit.wav", "PCM_U8", 8_000, 0.02),
        ("16_bit.wav", "PCM_16", 16_000, 1e-3),
        ("24_bit.wav", "PCM_24", 48_000, 1e-3),
        ("float.wav", "FLOAT", 22_050, 1e-3),
        ("lossless.flac", "PCM_16", 44_100, 1e-3),
        ("vorbis.ogg", "VORBIS", 44_100, 0.05),
        ("mpeg.mp3", None, 44_100, 0.05),
    ],
)
def test_every_kind_of_file_gives_the_same_sound(tmp_path, name, subtype, rate, closeness):
    soundfile.write(tmp_path / name, tone(rate=rate), rate, subtype=subtype)
    samples = audio.read(tmp_path / name, 16_000)
    assert samples.dtype == np.float32 and samples.ndim == 1
    assert abs(len(samples) - 8_000) < 1_600  # mp3 pads
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    assert abs(loudest_hz(middle, 16_000) - 440) < 5
    assert abs(np.abs(middle).max() - 0.5) < closeness + 0.02
    assert audio.check(tmp_path / name).sample_rate_hz == rate


def test_stereo_becomes_the_mean_of_its_channels(tmp_path):
    left, right = tone(300), tone(500)
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, right], axis=1), 16_000, subtype="FLOAT")
    assert audio.check(tmp_path / "stereo.wav").channels == 2
    np.testing.assert_allclose(audio.read(tmp_path / "stereo.wav", 16_000), (left + right) / 2, atol=1e-6)


def test_of_channels_that_cancel_each_other_the_loudest_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "_BLOCK", 1_000)
    channels = np.stack([0.9 * tone(), -tone()], axis=1)
    soundfile.write(tmp_path / "antiphase.wav", channels, 16_000, subtype="FLOAT")
    for samples in (audio.read(tmp_path / "antiphase.wav", 16_000), audio.read(channels, 16_000, 16_000)):
        np.testing.assert_array_equal(samples, -tone())


@pytest.mark.parametrize("name", ["clip.wav", "clip.flac", "clip.ogg", "clip.mp3"])
def test_blocks_make_no_difference(tmp_path, monkeypatch, name):
    soundfile.write(tmp_path / name, np.stack([tone(300), tone(500)], axis=1), 16_000)
    whole = audio.read(tmp_path / name, 16_000)
    monkeypatch.setattr(audio, "_BLOCK", 1_001)
    np.testing.assert_array_equal(audio.read(tmp_path / name, 16_000), whole)


@pytest.mark.parametrize("peak", [1.5, 7.9])
def test_an_overshoot_scales_the_whole_clip(tmp_path, peak):
    loud = tone() / np.abs(tone()).max()
    soundfile.write(tmp_path / "loud.wav", peak * loud, 16_000, subtype="FLOAT")
    for samples in (audio.read(tmp_path / "loud.wav", 16_000), audio.read(peak * loud, 16_000, 16_000)):
        np.testing.assert_allclose(samples, loud, atol=1e-6)
        assert np.abs(samples).max() == 1


def test_floats_in_the_range_of_ints_are_refused(tmp_path):
    loud = 32_768 * tone()
    soundfile.write(tmp_path / "scipy.wav", loud, 16_000, subtype="FLOAT")
    for sound, name in ((tmp_path / "scipy.wav", "scipy.wav"), (loud, "the array")):
        with pytest.raises(ValueError, match=f"{name} with a peak of 1.638e.04.*divide them by 32768"):
            audio.read(sound, 16_000, 16_000)


@pytest.mark.parametrize(
    ("dtype", "full_scale"),
    [("float32", 1), ("float64", 1), ("int16", 2**15), ("int32", 2**31), ("int8", 2**7)],
)
def test_an_array_is_scaled_by_its_dtype(dtype, full_scale):
    samples = (tone() * full_scale).astype(dtype)
    np.testing.assert_allclose(audio.read(samples, 16_000, 16_000), tone(), atol=1e-2)


def test_unsigned_bytes_have_their_zero_in_the_middle():
    assert audio.read(np.full(100, 128, np.uint8), 16_000, 16_000).max() == 0


def test_resampling_keeps_pitch_and_duration():
    samples = audio.resample(tone(1_000, seconds=1, rate=48_000), 48_000, 16_000)
    assert len(samples) == 16_000
    assert loudest_hz(samples, 16_000) == pytest.approx(1_000, abs=1)


def no_sound(path):
    path.write_text("this is a text")


def no_samples(path):
    soundfile.write(path, np.zeros(0, np.float32), 16_000)


def holds_nan(path):
    soundfile.write(path, np.array([0.1, np.nan, 0.2] * 100, np.float32), 16_000, subtype="FLOAT")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (None, "There is no file"),
        (no_sound, "is no sound file"),
        (no_samples, "lasts 0 seconds"),
        (holds_nan, "holds NaN or infinity, first at 1"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, write, message):
    path = tmp_path / "clip.wav"
    if write:
        write(path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        audio.read(path, 16_000)
    assert "clip.wav" in str(caught.value)


def test_the_length_in_a_header_is_not_believed(tmp_path):
    path = tmp_path / "clip.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 8_000), 16_000)
    header = bytearray(path.read_bytes())
    header[21] |= 0x0F
    header[22:26] = b"\xff" * 4  # 2**36 - 1 samples
    path.write_bytes(header)
    assert soundfile.info(path).frames == 2**36 - 1
    assert len(audio.read(path, 16_000)) == 8_000
    assert audio.check(path).seconds == 0.5


def test_a_clip_of_many_hours_is_refused(tmp_path):
    soundfile.write(tmp_path / "slow.wav", tone(seconds=1), 1)  # 16,000 seconds
    for read in (audio.check, lambda path: audio.read(path, 16_000)):
        with pytest.raises(ValueError, match="at most 4 hours.*slow.wav.*1 samples a second"):
            read(tmp_path / "slow.wav")
    with pytest.raises(ValueError, match="at most 4 hours.*the array"):
        audio.read(tone(), 16_000, 0.1)


def test_of_a_file_cut_short_flac_alone_complains(tmp_path):
    for name in ("clip.wav", "clip.ogg", "clip.flac"):
        path = tmp_path / name
        soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 64_000), 16_000)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        if name == "clip.flac":
            with pytest.raises(ValueError, match="clip.flac is damaged and cannot be read to its end"):
                audio.read(path, 16_000)
        else:
            assert 8_000 < len(audio.read(path, 16_000)) < 48_000


@pytest.mark.parametrize(
    ("array", "rate", "message"),
    [
        (np.zeros(100, np.int16), None, "sample_rate_hz=None"),
        (np.zeros(100, np.int64), 16_000, "dtype=int64"),
        (np.array(["a"]), 16_000, "dtype="),
        (np.zeros(0), 16_000, r"shape=\(0,\)"),
        (np.zeros((2, 100)), 16_000, "transpose"),
        (np.zeros((2, 2, 2)), 16_000, r"shape=\(2, 2, 2\)"),
        (np.array([0.0, np.inf]), 16_000, "first at 1"),
        (np.zeros(100), -1, "sample_rate_hz=-1"),
        (np.zeros(100), np.inf, "sample_rate_hz=inf"),
        (np.zeros(100), "16k", "sample_rate_hz='16k'"),
    ],
)
def test_an_array_that_cannot_be_used_is_described(array, rate, message):
    with pytest.raises(ValueError, match=message):
        audio.read(array, 16_000, rate)


def test_a_long_clip_is_cut_where_it_is_quiet():
    rate, pause = 16_000, np.zeros(6_400, np.float32)
    clip = np.concatenate([tone(seconds=2), pause, tone(seconds=2), pause, tone(seconds=2)])
    pieces = audio.cut(clip, rate, 3.0)
    assert pieces[0][0] == 0 and pieces[-1][1] == len(clip)
    assert all(stop == start for (_, stop), (start, _) in itertools.pairwise(pieces))
    assert all(stop - start <= 3.0 * rate for start, stop in pieces)
    for (_, stop), middle in zip(pieces, (2.2, 4.6), strict=False):
        assert abs(stop / rate - middle) < 0.2


def test_a_clip_without_any_pause_is_cut_all_the_same():
    pieces = audio.cut(np.ones(160_000, np.float32), 16_000, 3.0)
    assert pieces[-1][1] == 160_000 and all(0 < stop - start <= 48_000 for start, stop in pieces)


@pytest.mark.parametrize("sound", [np.ones, np.random.default_rng(0).standard_normal], ids=["tone", "noise"])
@pytest.mark.parametrize("beyond", [1, 159, 160, 161, 1_600, 15_999, 16_001, 47_999, 48_001])
def test_no_piece_is_a_sliver(sound, beyond):
    lengths = [stop - start for start, stop in audio.cut(sound(48_000 + beyond), 16_000, 3.0)]
    assert sum(lengths) == 48_000 + beyond
    assert min(lengths) >= 16_000 and max(lengths) <= 48_000


@pytest.mark.parametrize("samples", [161, 319, 320, 321, 1_000])
def test_pieces_may_be_as_short_as_a_hop(samples):
    pieces = audio.cut(np.ones(samples), 16_000, 0.01)
    assert pieces[-1][1] == samples and all(0 < stop - start <= 160 for start, stop in pieces)


def amid_quiet(noise):
    """A tone of a second that swells and fades, half a second of quiet on either side, noise under it all."""
    swelling = tone(seconds=1) * np.hanning(16_000) ** 0.5
    clip = np.pad(swelling, 8_000) + noise * np.random.default_rng(0).standard_normal(32_000)
    return clip.astype(np.float32)


@pytest.mark.parametrize("noise", [0, 1e-4, 1e-2])
def test_quiet_before_and_behind_is_found(noise):
    start, stop = audio.trim(amid_quiet(noise), 16_000)
    assert 0.45 < start / 16_000 < 0.55 and 1.45 < stop / 16_000 < 1.55


def test_a_whisper_far_below_a_click_counts_as_quiet():
    for loudness, is_lost in ((0.02, False), (0.002, True)):  # -28 and -48 dB of the click
        clip = np.concatenate([np.zeros(8_000), tone(seconds=0.1), np.zeros(8_000), tone(seconds=1) * loudness])
        _, stop = audio.trim(np.pad(clip, (0, 8_000)).astype(np.float32), 16_000)
        assert (stop < 12_000) == is_lost


@pytest.mark.parametrize(
    "clip",
    [
        amid_quiet(0.2),  # its ends are lost in the noise
        tone(),
        np.zeros(16_000, np.float32),
        np.random.default_rng(0).uniform(-0.5, 0.5, 16_000).astype(np.float32),
        np.ones(1, np.float32),
    ],
    ids=["loud noise", "tone", "silence", "noise alone", "one sample"],
)
def test_where_no_quiet_can_be_told_a_clip_stays_whole(clip):
    assert audio.trim(clip, 16_000) == (0, len(clip))


@pytest.mark.skipif(
    not glob.glob("/usr/share/sounds/alsa/*.wav"), reason="Debian's alsa-utils is not installed"
)
def test_recorded_words_are_read():
    for path in glob.glob("/usr/share/sounds/alsa/*.wav"):
        samples = audio.read(path, 16_000)
        assert len(samples) > 8_000 and 0 < np.abs(samples).max() <= 1


def test_a_clip_too_short_for_the_other_rate_is_named(tmp_path):
    soundfile.write(tmp_path / "click.wav", np.ones(1, "float32") / 2, 48_000)
    with pytest.raises(ValueError, match="click.wav is too short"):
        audio.read(tmp_path / "click.wav", 16_000)


def test_a_damaged_mp3_prints_nothing(tmp_path, capfd):
    path = tmp_path / "clip.mp3"
    soundfile.write(path, tone(seconds=2), 16_000)
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2 :: 100] = whole[len(whole) // 3 :: 100][: len(whole[len(whole) // 2 :: 100])]
    path.write_bytes(whole)
    audio.read(path, 16_000)
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(sys.platform == "win32", reason="C's stderr cannot be set there")
def test_what_c_prints_is_dropped_and_what_python_prints_appears(capfd):
    with terminal.quiet_c_stderr():
        with terminal.quiet_c_stderr():
            pass
        ctypes.CDLL(None).perror(b"dropped")
        print("ours", file=sys.stderr)
    ctypes.CDLL(None).perror(b"theirs")
    assert [line.partition(":")[0] for line in capfd.readouterr().err.splitlines()] == ["ours", "theirs"]
