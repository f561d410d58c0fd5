"""Reading audio: mono, float32 in -1..1, at one sample rate.

    read("speech.mp3", 16_000)              # (n,) float32
    read(array, 16_000, sample_rate_hz=44_100)
    read((44_100, array), 16_000)           # as Gradio returns a recording

Files are read by libsndfile (wav, flac, ogg, opus, mp3, aiff ...) and resampled by the SoX resampler.
"""

import contextlib
import itertools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from mmkeras._utils import terminal

# Longer than lectures and most audio books. Some damaged headers state days, or a rate so low that the clip,
# resampled to a usual one, would need gigabytes.
MAX_HOURS = 4

# MP3 decoders and resamplers overshoot full scale by a few dB, and float recordings may peak above it, hardly
# by 18 dB. 16-bit ints that were converted to floats without a division peak far higher.
_MAX_PEAK = 8

# The mean of two unrelated channels has half of their power, of sixteen 6 %. If one channel is the other with
# its sign changed, as with a balanced cable or a swapped plug, next to nothing remains.
_CANCELED = 0.03

_BLOCK = 2**18  # samples of all channels together: 1 MiB

_FULL_SCALE = {"int16": 2**15, "int32": 2**31, "uint8": 2**7, "int8": 2**7}


@dataclass(frozen=True)
class Info:
    """The header of a file."""

    seconds: float
    sample_rate_hz: int
    channels: int


def check(path: str | os.PathLike) -> Info:
    """Reads the header of a file.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if libsndfile cannot read it, or it lasts 0 seconds.
    """
    import soundfile

    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"Expected a file. Received: {path}, which does not exist")
    try:
        with terminal.quiet_c_stderr():
            info = soundfile.info(path)
    except soundfile.LibsndfileError as error:
        if not os.path.getsize(path):
            raise ValueError(f"Expected {path} to be audio. Received: an empty file (0 bytes)") from None
        converted = Path(path).with_suffix(".flac" if Path(path).suffix == ".wav" else ".wav")
        raise ValueError(
            f"Expected {path} to be audio that libsndfile reads (wav, flac, ogg, opus, mp3 ...). Convert other "
            f"formats (m4a, aac, wma, video): ffmpeg -i {path!r} {str(converted)!r}. Received: "
            f"{error.error_string}"
        ) from None
    frames = info.frames
    if _too_long(frames, info.samplerate):  # a damaged header or a very long clip: only decoding shows which
        frames = len(_mono(lambda: _open(path), info.samplerate, path))
    if frames <= 0:
        size, hint = os.path.getsize(path), ""
        if size > 1000:  # more than a header
            hint = f" in the header of {size} bytes. Repair it: ffmpeg -i {path!r} repaired.wav"
        raise ValueError(f"Expected {path} to have samples. Received: seconds=0{hint}")
    return Info(frames / info.samplerate, info.samplerate, info.channels)


def is_pair(clip: Any) -> bool:
    """Whether this is one clip, given as (sample_rate_hz, array), and not a tuple of clips."""
    return isinstance(clip, tuple) and len(clip) == 2 and any(isinstance(part, Real) for part in clip)


def read(clip: Any, target_rate_hz: int, sample_rate_hz: int | None = None) -> np.ndarray:
    """Reads a clip as mono.

    The channels are averaged. If they cancel each other (less than 3 % of their power remains in the mean), the
    loudest channel is taken. The constant offset is removed. A clip that peaks above 1, as decoded MP3 may, is
    scaled down.

    Args:
        clip: Path; array (n,) or (n, channels) of floats in -1..1 or of 8-, 16- or 32-bit ints; or a pair
            (sample_rate_hz, array).
        target_rate_hz: int. Sample rate of the result.
        sample_rate_hz: int. Sample rate of an array. Defaults to None, for files and pairs.

    Returns:
        (m,) float32 in -1..1.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if a clip cannot be read, lasts 0 seconds or more than 4 hours, has NaN, or peaks above 8
            (as ints that were converted to floats); for an array of another shape or dtype, or without sample
            rate. A truncated file is read up to its end, except flac.
    """
    if isinstance(clip, str | os.PathLike):
        name, rate = os.fspath(clip), check(clip).sample_rate_hz
        samples = _mono(lambda: _open(name), rate, name)
    else:
        if isinstance(clip, list | tuple):
            if not is_pair(clip) or isinstance(clip[0], bool) or not isinstance(clip[0], Integral):
                parts = ", ".join(type(part).__name__ for part in clip[:3])
                raise ValueError(
                    f"Expected clip to be a path, an array, or a pair (sample_rate_hz, array), its rate first "
                    f"and an int. Received: clip={type(clip).__name__} of {parts}"
                )
            sample_rate_hz, clip = clip
        array = _array(clip, sample_rate_hz)
        name, rate = "the array", sample_rate_hz
        samples = _mono(lambda: contextlib.nullcontext([array]), rate, name)
    samples = resample(samples, rate, target_rate_hz)
    if not len(samples):
        raise ValueError(
            f"Expected {name} to have a sample at {target_rate_hz} Hz. Received: {name} at {rate} Hz"
        )
    return samples / max(np.abs(samples).max(), np.float32(1))


def resample(samples: np.ndarray, from_hz: float, to_hz: float) -> np.ndarray:
    """Changes the sample rate: (n,) float32 or int16 → (n * to_hz / from_hz,) of the same dtype."""
    if from_hz == to_hz:
        return samples
    import soxr

    # "MQ" is the 16-bit quality of SoX; the noise of any recording is above its error.
    if samples.dtype != np.int16:
        return soxr.resample(samples, from_hz, to_hz, quality="MQ")
    # SoX adds dither to 16-bit samples, with other noise each time.
    resampled = soxr.resample(samples.astype(np.float32), from_hz, to_hz, quality="MQ")
    return np.clip(np.rint(resampled), -(2**15), 2**15 - 1).astype(np.int16)


def without_offset(samples: np.ndarray) -> np.ndarray:
    """Removes the mean of float32 or int16 samples: (n,) → (n,) of the same dtype.

    Cheap microphones add a constant. It is inaudible, but its power hides where speech starts and ends.
    """
    centered = samples - samples.mean(dtype=np.float64)
    if samples.dtype == np.int16:
        centered = np.clip(np.rint(centered), -(2**15), 2**15 - 1)
    return centered.astype(samples.dtype)


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Converts floats in -1..1 to int16, and clips louder ones."""
    return np.round(np.clip(samples, -1, 1) * (2**15 - 1)).astype(np.int16)


def _mono(open_blocks: Callable, rate, name):
    """Mono samples (n,) float32 of the blocks (n of a block, channels) that `with open_blocks()` returns."""
    power, offset, mean, frames = 0, 0, [], 0
    with open_blocks() as blocks:
        for block in blocks:
            _check_samples(block, name, frames)
            power += np.einsum("nc,nc->c", block, block)
            offset += block.sum(axis=0, dtype=np.float64)
            mean.append(block.mean(axis=1) if block.shape[1] > 1 else block[:, 0])
            frames += len(block)
            if _too_long(frames, rate):
                raise ValueError(
                    f"Expected {name} to last at most {MAX_HOURS} hours. Split it, or repair its header. "
                    f"Received: more than {frames} samples at {rate} Hz"
                )
    if not mean:
        raise ValueError(f"Expected {name} to have samples. Received: seconds=0")
    power -= offset**2 / frames
    left = sum(np.dot(block, block) for block in mean) - offset.mean() ** 2 / frames
    if left < _CANCELED * power.mean():
        loudest = power.argmax()
        with open_blocks() as blocks:
            mean = [block[:, loudest].copy() for block in blocks]
    return without_offset(np.concatenate(mean))


def _too_long(frames, rate):
    return frames > MAX_HOURS * 3600 * rate


def _check_samples(block, name, start):
    if not np.isfinite(block).all():
        first = start + int(np.isfinite(block).all(axis=1).argmin())
        raise ValueError(f"Expected {name} to be finite. Received: NaN or infinity at sample {first}")
    peak = max(block.max(), -block.min())
    if peak > _MAX_PEAK:
        raise ValueError(
            f"Expected {name} to be floats in -1..1. If its samples were 16-bit ints, divide them by 32768. "
            f"Received: peak={peak:.4g}"
        )


@contextlib.contextmanager
def _open(path):
    """Blocks (n, channels) of a file up to its end, which may differ from the length in its header."""
    import soundfile

    try:
        with terminal.quiet_c_stderr(), soundfile.SoundFile(path) as file:
            file.seekable = lambda: False  # soundfile would seek after each block
            frames = max(_BLOCK // file.channels, 1)
            blocks = (file.read(frames, dtype="float32", always_2d=True) for _ in itertools.count())
            yield itertools.takewhile(len, blocks)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"Expected {path} to be undamaged. Received: {error.error_string}") from None


def _array(clip, rate):
    """(n, channels) float32"""
    samples = np.asarray(clip)
    if samples.dtype.kind in "OS":
        raise ValueError(
            f"Expected clip to be a path, an array, or a pair (sample_rate_hz, array). Received: "
            f"clip={type(clip).__name__}. Of an open file, soundfile.read(file) returns the array and the rate."
        )
    if samples.ndim not in (1, 2) or not samples.size:
        raise ValueError(
            f"Expected clip to be an array (samples,) or (samples, channels) of at least one sample. "
            f"Received: shape={samples.shape}"
        )
    if samples.ndim == 2 and samples.shape[1] > samples.shape[0]:
        raise ValueError(
            f"Expected clip to be an array (samples, channels). If it is (channels, samples), transpose it. "
            f"Received: shape={samples.shape}"
        )
    if isinstance(rate, bool) or not isinstance(rate, Real) or not 0 < rate < math.inf:
        raise ValueError(
            f"Expected sample_rate_hz to be the sample rate of the array. Received: sample_rate_hz={rate!r}"
        )
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):  # becomes infinity, which raises
            samples = samples.astype(np.float32)
    elif samples.dtype.name in _FULL_SCALE:
        middle = 2**7 if samples.dtype == np.uint8 else 0  # 8-bit audio is unsigned
        samples = ((samples.astype(np.float64) - middle) / _FULL_SCALE[samples.dtype.name]).astype(np.float32)
    else:
        raise ValueError(
            f"Expected clip to be floats in -1..1, or 8-, 16- or 32-bit ints. Received: dtype={samples.dtype}"
        )
    return samples.reshape(len(samples), -1)
