"""Reading audio files and arrays, and splitting long clips."""

import ctypes
import io
import itertools
import sys

import numpy as np
import pytest
import soundfile

from mmkeras._utils import terminal
from mmkeras.media import audio, long_form


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
        ("opus.opus", "OPUS", 48_000, 0.05),
        ("mpeg.mp3", None, 44_100, 0.05),
    ],
)
def test_files_of_all_formats_are_read(tmp_path, name, subtype, rate, closeness):
    format = "OGG" if name.endswith("opus") else None
    soundfile.write(tmp_path / name, tone(rate=rate), rate, subtype=subtype, format=format)
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


def test_loudest_of_canceling_channels_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "_BLOCK", 1_000)
    channels = np.stack([0.9 * tone(), -tone()], axis=1)
    soundfile.write(tmp_path / "antiphase.wav", channels, 16_000, subtype="FLOAT")
    with_offset = channels + np.array([0.05, -0.2])
    for clip in (tmp_path / "antiphase.wav", channels, with_offset):
        np.testing.assert_allclose(audio.read(clip, 16_000, 16_000), -tone(), atol=1e-6)


@pytest.mark.parametrize("offset", [0.02, -0.4])
def test_constant_offset_is_removed(tmp_path, offset):
    clip = np.pad(0.5 * tone(), 8_000)
    soundfile.write(tmp_path / "offset.wav", clip + offset, 16_000, subtype="FLOAT")
    expected = audio.read(clip, 16_000, 16_000)
    for shifted in (tmp_path / "offset.wav", clip + offset, ((clip + offset) * 2**15).astype(np.int16)):
        samples = audio.read(shifted, 16_000, 16_000)
        np.testing.assert_allclose(samples, expected, atol=1e-4)
        assert long_form.trim(samples, 16_000) == long_form.trim(expected, 16_000) != (0, len(clip))
    assert np.abs(audio.without_offset(np.array([2**15 - 1, 2**15 - 3], np.int16))).max() == 1


@pytest.mark.parametrize("name", ["clip.wav", "clip.flac", "clip.ogg", "clip.mp3"])
def test_block_size_does_not_change_samples(tmp_path, monkeypatch, name):
    soundfile.write(tmp_path / name, np.stack([tone(300), tone(500)], axis=1), 16_000)
    samples = audio.read(tmp_path / name, 16_000)
    monkeypatch.setattr(audio, "_BLOCK", 1_001)
    np.testing.assert_array_equal(audio.read(tmp_path / name, 16_000), samples)


@pytest.mark.parametrize("peak", [1.5, 7.9])
def test_clip_that_peaks_above_one_is_scaled_down(tmp_path, peak):
    loud = tone() / np.abs(tone()).max()
    soundfile.write(tmp_path / "loud.wav", peak * loud, 16_000, subtype="FLOAT")
    for samples in (audio.read(tmp_path / "loud.wav", 16_000), audio.read(peak * loud, 16_000, 16_000)):
        np.testing.assert_allclose(samples, loud, atol=1e-6)
        assert np.abs(samples).max() == 1


def test_floats_in_the_range_of_ints_raise(tmp_path):
    loud = 32_768 * tone()
    soundfile.write(tmp_path / "scipy.wav", loud, 16_000, subtype="FLOAT")
    for clip, name in ((tmp_path / "scipy.wav", "scipy.wav"), (loud, "array")):
        with pytest.raises(ValueError, match=f"{name}.*32768.*peak=1.638e.04"):
            audio.read(clip, 16_000, 16_000)


@pytest.mark.parametrize(
    ("dtype", "full_scale"),
    [("float32", 1), ("float64", 1), ("int16", 2**15), ("int32", 2**31), ("int8", 2**7)],
)
def test_array_is_scaled_by_its_dtype(dtype, full_scale):
    samples = (tone() * full_scale).astype(dtype)
    np.testing.assert_allclose(audio.read(samples, 16_000, 16_000), tone(), atol=1e-2)


def test_zero_of_uint8_is_128():
    assert audio.read(np.full(100, 128, np.uint8), 16_000, 16_000).max() == 0


def test_pair_of_rate_and_array_equals_array_and_rate():
    stereo = np.stack([tone(300, rate=44_100), tone(500, rate=44_100)], axis=1)
    stereo = (2**15 * stereo).astype(np.int16)  # as Gradio returns a recording
    expected = audio.read(stereo, 16_000, 44_100)
    for pair in ((44_100, stereo), (np.int64(44_100), stereo)):
        np.testing.assert_array_equal(audio.read(pair, 16_000), expected)
        np.testing.assert_array_equal(audio.read(pair, 16_000, 8_000), expected)


@pytest.mark.parametrize(
    ("clip", "received"),
    [
        ((tone(), 16_000), "clip=tuple of ndarray, int"),
        ((16_000.0, tone()), "clip=tuple of float, ndarray"),
        ((True, tone()), "clip=tuple of bool, ndarray"),
        ((0, tone()), "sample_rate_hz=0"),
        ((16_000, "a.wav"), "shape="),
        (["a.wav"], "clip=list of str"),
        (io.BytesIO(b"RIFF"), "clip=BytesIO.*soundfile.read"),
        (b"RIFF", "clip=bytes"),
    ],
)
def test_other_pairs_raise(clip, received):
    with pytest.raises(ValueError, match=received):
        audio.read(clip, 16_000)


def test_resampling_keeps_pitch_and_duration():
    samples = audio.resample(tone(1_000, seconds=1, rate=48_000), 48_000, 16_000)
    assert len(samples) == 16_000
    assert loudest_hz(samples, 16_000) == pytest.approx(1_000, abs=1)


def write_text(path):
    path.write_text("this is a text")


def write_no_samples(path):
    soundfile.write(path, np.zeros(0, np.float32), 16_000)


def write_size_zero(path):
    """As a program that was stopped before it wrote the size of the data into the header."""
    soundfile.write(path, tone(), 16_000)
    content = bytearray(path.read_bytes())
    start = content.index(b"data") + 4
    content[start : start + 4] = bytes(4)
    path.write_bytes(content)


def write_nan(path):
    soundfile.write(path, np.array([0.1, np.nan, 0.2] * 100, np.float32), 16_000, subtype="FLOAT")


@pytest.mark.parametrize(
    ("write", "error", "message"),
    [
        (lambda path: None, FileNotFoundError, "clip.wav"),
        (write_text, ValueError, "libsndfile"),
        (lambda path: path.touch(), ValueError, "0 bytes"),
        (write_no_samples, ValueError, "seconds=0$"),
        (write_size_zero, ValueError, "seconds=0 .* 16044 bytes.* ffmpeg -i '.*clip.wav'"),
        (write_nan, ValueError, "NaN or infinity at sample 1"),
    ],
)
def test_unreadable_files_raise(tmp_path, write, error, message):
    write(tmp_path / "clip.wav")
    with pytest.raises(error, match=message) as caught:
        audio.read(tmp_path / "clip.wav", 16_000)
    assert "clip.wav" in str(caught.value)


@pytest.mark.parametrize("suffix", ["m4a", "aac", "wma", "mp4", "webm"])
def test_other_formats_raise_with_a_command_that_converts_them(tmp_path, suffix):
    path = tmp_path / f"a clip.{suffix}"
    heads = {"aac": b"\xff\xf1\x50\x80", "wma": b"\x30\x26\xb2\x75", "webm": b"\x1a\x45\xdf\xa3"}
    path.write_bytes(heads.get(suffix, b"\0\0\0\x20ftypM4A ") + bytes(2_000))
    for function in (audio.check, lambda path: audio.read(path, 16_000)):
        with pytest.raises(ValueError, match=f"ffmpeg -i '.*a clip.{suffix}' '.*a clip.wav'"):
            function(path)


def test_wrong_length_in_a_header_is_ignored(tmp_path):
    path = tmp_path / "clip.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 8_000), 16_000)
    header = bytearray(path.read_bytes())
    header[21] |= 0x0F
    header[22:26] = b"\xff" * 4  # 2**36 - 1 samples
    path.write_bytes(header)
    assert soundfile.info(path).frames == 2**36 - 1
    assert len(audio.read(path, 16_000)) == 8_000
    assert audio.check(path).seconds == 0.5


def test_clip_of_more_than_four_hours_raises(tmp_path):
    soundfile.write(tmp_path / "slow.wav", tone(seconds=1), 1)  # 16,000 seconds
    for read in (audio.check, lambda path: audio.read(path, 16_000)):
        with pytest.raises(ValueError, match="slow.wav.*4 hours.* 1 Hz"):
            read(tmp_path / "slow.wav")
    with pytest.raises(ValueError, match="array.*4 hours"):
        audio.read(tone(), 16_000, 0.1)


@pytest.mark.parametrize("name", ["clip.wav", "clip.ogg", "clip.flac"])
def test_truncated_file_is_read_up_to_its_end_except_flac(tmp_path, name):
    path = tmp_path / name
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 64_000), 16_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if name == "clip.flac":
        with pytest.raises(ValueError, match="clip.flac"):
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
        (np.zeros((2, 100)), 16_000, r"transpose.*shape=\(2, 100\)"),
        (np.zeros((2, 2, 2)), 16_000, r"shape=\(2, 2, 2\)"),
        (np.array([0.0, np.inf]), 16_000, "sample 1"),
        (np.zeros(100), -1, "sample_rate_hz=-1"),
        (np.zeros(100), np.inf, "sample_rate_hz=inf"),
        (np.zeros(100), "16k", "sample_rate_hz='16k'"),
    ],
)
def test_invalid_arrays_raise(array, rate, message):
    with pytest.raises(ValueError, match=message):
        audio.read(array, 16_000, rate)


def test_long_clip_is_split_at_pauses():
    rate, pause = 16_000, np.zeros(6_400, np.float32)
    clip = np.concatenate([tone(seconds=2), pause, tone(seconds=2), pause, tone(seconds=2)])
    segments = long_form.split(clip, rate, 3.0)
    assert segments[0][0] == 0 and segments[-1][1] == len(clip)
    assert all(stop == start for (_, stop), (start, _) in itertools.pairwise(segments))
    assert all(stop - start <= 3.0 * rate for start, stop in segments)
    for (_, stop), middle in zip(segments, (2.2, 4.6), strict=False):
        assert abs(stop / rate - middle) < 0.2


@pytest.mark.parametrize("signal", [np.ones, np.random.default_rng(0).standard_normal], ids=["tone", "noise"])
@pytest.mark.parametrize("beyond", [1, 159, 160, 161, 1_600, 15_999, 16_001, 47_999, 48_001, 112_000])
def test_segments_have_at_least_a_third_of_the_longest(signal, beyond):
    lengths = [stop - start for start, stop in long_form.split(signal(48_000 + beyond), 16_000, 3.0)]
    assert sum(lengths) == 48_000 + beyond
    assert min(lengths) >= 16_000 and max(lengths) <= 48_000


@pytest.mark.parametrize("samples", [161, 319, 320, 321, 1_000])
def test_segments_may_be_as_short_as_a_hop(samples):
    segments = long_form.split(np.ones(samples), 16_000, 0.01)
    assert segments[-1][1] == samples and all(0 < stop - start <= 160 for start, stop in segments)


def test_segments_of_a_long_clip_are_trimmed_and_silent_ones_left_out():
    silence = np.zeros(16_000, np.float32)
    clip = np.concatenate([tone(seconds=1), silence, tone(seconds=1), silence, silence, silence])
    segments = long_form.segments(clip, 16_000, 1.5)
    assert len(segments) == 2
    assert sum(stop - start for start, stop in segments) < 2.2 * 16_000
    assert long_form.segments(clip, 16_000, 0) == [long_form.trim(clip, 16_000)]
    assert long_form.segments(np.zeros(60 * 16_000, np.float32), 16_000, 1.5) == []


def test_merge_joins_the_texts_of_each_clip():
    assert long_form.merge(["a", "", "b", "c"], [3, 0, 1], " ") == ["a b", "", "c"]


def with_silence(noise):
    """A tone of one second that fades in and out, half a second of silence on both sides, and noise."""
    fading = tone(seconds=1) * np.hanning(16_000) ** 0.5
    clip = np.pad(fading, 8_000) + noise * np.random.default_rng(0).standard_normal(32_000)
    return clip.astype(np.float32)


@pytest.mark.parametrize("noise", [0, 1e-4, 1e-2])
def test_silence_is_trimmed(noise):
    start, stop = long_form.trim(with_silence(noise), 16_000)
    assert 0.45 < start / 16_000 < 0.55 and 1.45 < stop / 16_000 < 1.55


@pytest.mark.parametrize(("loudness", "is_lost"), [(0.02, False), (0.002, True)])  # -28 and -48 dB of the click
def test_whisper_40_db_below_a_click_is_trimmed(loudness, is_lost):
    clip = np.concatenate([np.zeros(8_000), tone(seconds=0.1), np.zeros(8_000), tone(seconds=1) * loudness])
    _, stop = long_form.trim(np.pad(clip, (0, 8_000)).astype(np.float32), 16_000)
    assert (stop < 12_000) == is_lost


@pytest.mark.parametrize(
    "clip",
    [
        with_silence(0.2),  # its ends are lost in the noise
        tone(),
        np.zeros(16_000, np.float32),
        np.random.default_rng(0).uniform(-0.5, 0.5, 16_000).astype(np.float32),
        np.ones(1, np.float32),
    ],
    ids=["loud noise", "tone", "silence", "only noise", "one sample"],
)
def test_clip_is_not_trimmed_if_silence_cannot_be_distinguished(clip):
    assert long_form.trim(clip, 16_000) == (0, len(clip))


def test_clip_without_a_sample_at_the_target_rate_raises(tmp_path):
    soundfile.write(tmp_path / "click.wav", np.ones(1, "float32") / 2, 48_000)
    with pytest.raises(ValueError, match="click.wav.*48000 Hz"):
        audio.read(tmp_path / "click.wav", 16_000)


def test_damaged_mp3_prints_nothing(tmp_path, capfd):
    path = tmp_path / "clip.mp3"
    soundfile.write(path, tone(seconds=2), 16_000)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :: 100] = data[len(data) // 3 :: 100][: len(data[len(data) // 2 :: 100])]
    path.write_bytes(data)
    audio.read(path, 16_000)
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(sys.platform == "win32", reason="C's stderr cannot be set there")
def test_quiet_c_stderr_drops_only_what_c_prints(capfd):
    with terminal.quiet_c_stderr():
        with terminal.quiet_c_stderr():
            pass
        ctypes.CDLL(None).perror(b"dropped")
        print("ours", file=sys.stderr)
    ctypes.CDLL(None).perror(b"theirs")
    assert [line.partition(":")[0] for line in capfd.readouterr().err.splitlines()] == ["ours", "theirs"]
