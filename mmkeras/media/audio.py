"""Sound from anywhere, brought to one form: mono, float32 in -1..1, at the rate that is asked for.

    read("speech.mp3", 16_000)              # (n,) float32
    read(array, 16_000, sample_rate_hz=44_100)

Files are read by libsndfile (wav, flac, ogg, mp3, aiff ...), rates changed by the SoX resampler.
"""

import contextlib
import itertools
import math
import os
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from mmkeras._utils import terminal

# Longer than lectures and most audio books. Of damaged headers some promise days, and some give a rate so low
# that the clip would take gigabytes at a usual one.
MAX_HOURS = 4

# MP3 decoders and resamplers overshoot full scale by a few dB, and float recordings may peak above it, hardly
# by 18 dB. Ints that were made floats without dividing them peak far higher, unless they are all but silent.
_MAX_PEAK = 8

# The mean of two unrelated channels has half of their power, of sixteen 6 %; of a channel and the same with
# its sign turned, as a balanced cable or a swapped plug gives, next to nothing is left.
_CANCELED = 0.03

_BLOCK = 2**18  # samples of all channels together: 1 MiB

# Of the power of 50 ms at a clip's quietest place (the noise) and at its loudest (the speech): quiet is what
# passes neither twice the noise nor a ten-thousandth of the speech. Where speech is less than fifty times as
# loud as that, its soft beginnings and ends are lost in the noise, and nobody can say what is quiet.
_OVER_NOISE, _UNDER_SPEECH, _LEAST_CONTRAST = 2, 1e-4, 50

_FULL_SCALE = {"int16": 2**15, "int32": 2**31, "uint8": 2**7, "int8": 2**7}


@dataclass(frozen=True)
class Info:
    """What a file's header says."""

    seconds: float
    sample_rate_hz: int
    channels: int


def check(path: str | os.PathLike) -> Info:
    """Looks at a file without reading all of it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no sound file that libsndfile knows, or holds no sound at all.
    """
    import soundfile

    path = _existing(path)
    try:
        with terminal.quiet_c_stderr():
            info = soundfile.info(path)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} is no sound file that can be read: {error.error_string}") from None
    frames = info.frames
    if _too_long(frames, info.samplerate):  # a damaged header or a very long clip: decoding tells which
        frames = len(_mono(lambda: _opened(path), info.samplerate, path))
    if frames <= 0:
        raise ValueError(f"{path} lasts 0 seconds.")
    return Info(frames / info.samplerate, info.samplerate, info.channels)


def read(sound: Any, target_rate_hz: int, sample_rate_hz: int | None = None) -> np.ndarray:
    """A clip as (n,) float32 in -1..1, mono, `target_rate_hz` samples a second.

    Mono is the mean of the channels or, where they cancel each other (less than 3 % of their mean power is left
    in the mean), the loudest channel. A clip that peaks above 1, as decoded MP3 may, is scaled down as a whole.

    Args:
        sound: a path; or an array (n,) or (n, channels) of floats in -1..1 or of 8-, 16- or 32-bit ints.
        target_rate_hz: the rate of the result.
        sample_rate_hz: the rate of an array. A file knows its own.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, lasts 0 seconds or more than `MAX_HOURS`, holds NaN, or peaks above 8,
            as ints that were made floats do; an array of another kind or without a rate. Of a file cut short
            flac's decoder alone complains; of another, what is there is read.
    """
    if isinstance(sound, str | os.PathLike):
        name, rate = os.fspath(sound), check(sound).sample_rate_hz
        samples = _mono(lambda: _opened(name), rate, name)
    else:
        array, rate = _read_array(sound, sample_rate_hz)
        name = "the array"
        samples = _mono(lambda: contextlib.nullcontext([array]), rate, name)
    samples = resample(samples, rate, target_rate_hz)
    if not len(samples):
        raise ValueError(f"{name} is too short: nothing is left of it at {target_rate_hz} samples a second.")
    return samples / max(np.abs(samples).max(), np.float32(1))


def resample(samples: np.ndarray, from_hz: float, to_hz: float) -> np.ndarray:
    """(n,) float32 or int16 at one rate → (n * to / from,) of the same dtype at another."""
    if from_hz == to_hz:
        return samples
    import soxr

    # its 16-bit quality: the rest would be below the noise of any recording
    if samples.dtype != np.int16:
        return soxr.resample(samples, from_hz, to_hz, quality="MQ")
    # given 16-bit samples it would dither, with other noise each time
    changed = soxr.resample(samples.astype(np.float32), from_hz, to_hz, quality="MQ")
    return np.clip(np.rint(changed), -(2**15), 2**15 - 1).astype(np.int16)


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Float -1..1 → int16; what is louder is cut off."""
    return np.round(np.clip(samples, -1, 1) * (2**15 - 1)).astype(np.int16)


def cut(samples: np.ndarray, sample_rate_hz: int, max_seconds: float) -> list[tuple[int, int]]:
    """Cuts a long clip at its quietest places into pieces of a third of `max_seconds` to all of it.

    Returns:
        Where each piece starts and ends, in samples; together they are the whole clip.
    """
    hop = max(sample_rate_hz // 100, 1)  # 10 ms
    # what 200 ms around each place hold: a pause between words is quieter than the closure of a "t"
    power = np.add.reduceat(samples.astype(np.float64) ** 2, np.arange(0, len(samples), hop))
    power = np.convolve(power, np.hanning(21), mode="same")
    most = max(int(max_seconds * sample_rate_hz) // hop, 1)
    least = max(most // 3, 1)
    pieces, start = [], 0
    while (len(samples) - start * hop) > most * hop:
        first = start + least
        last = max(min(start + most, len(samples) // hop - least), first)
        stop = first + int(np.argmin(power[first : last + 1]))
        pieces.append((start * hop, stop * hop))
        start = stop
    return [*pieces, (start * hop, len(samples))]


def trim(samples: np.ndarray, sample_rate_hz: int) -> tuple[int, int]:
    """Where a clip starts and ends, in samples, without the quiet before and behind; all of it where that
    cannot be told from the rest.

    Quiet is also what lies 40 dB below the clip's loudest 50 ms, so a whisper behind a loud click is lost.
    """
    hop = max(sample_rate_hz // 100, 1)  # 10 ms
    power = np.add.reduceat(samples.astype(np.float64) ** 2, np.arange(0, len(samples), hop))
    if len(power) > 5:
        whole = np.convolve(power, np.ones(5), mode="valid")  # of 50 ms each
        limit = max(_OVER_NOISE * whole.min(), _UNDER_SPEECH * whole.max())
        loud = np.flatnonzero(np.convolve(power, np.ones(5), mode="same") > limit)
        if len(loud) and limit * _LEAST_CONTRAST <= whole.max():
            return int(loud[0]) * hop, min((int(loud[-1]) + 1) * hop, len(samples))
    return 0, len(samples)


def _existing(path):
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no file {path}")
    return path


def _mono(opened, rate, name):
    """One channel of blocks (n, channels), which `with opened()` gives: → (sum of all n,) float32"""
    power, mean, frames = 0, [], 0
    with opened() as blocks:
        for block in blocks:
            _check_samples(block, name, frames)
            power += np.einsum("nc,nc->c", block, block)
            mean.append(block.mean(axis=1) if block.shape[1] > 1 else block[:, 0])
            frames += len(block)
            if _too_long(frames, rate):
                raise ValueError(
                    f"Expected a clip of at most {MAX_HOURS} hours; cut it into shorter ones. Received: "
                    f"{name}, which has more at its {rate} samples a second, or a damaged header"
                )
    if not mean:
        raise ValueError(f"{name} lasts 0 seconds.")
    left = sum(np.dot(block, block) for block in mean)
    if left < _CANCELED * power.mean():
        loudest = power.argmax()
        with opened() as blocks:
            mean = [block[:, loudest].copy() for block in blocks]
    return np.concatenate(mean)


def _too_long(frames, rate):
    return frames > MAX_HOURS * 3600 * rate


def _check_samples(block, name, start):
    if not np.isfinite(block).all():
        first = start + int(np.isfinite(block).all(axis=1).argmin())
        raise ValueError(f"Expected finite samples. Received: {name} holds NaN or infinity, first at {first}")
    peak = max(block.max(), -block.min())
    if peak > _MAX_PEAK:
        raise ValueError(
            f"Expected floats in -1..1. Received: {name} with a peak of {peak:.4g}. If its samples were 16-bit "
            f"ints, divide them by 32768"
        )


@contextlib.contextmanager
def _opened(path):
    """A file as blocks (n, channels), to where its decoder has no more, whatever its header says."""
    import soundfile

    try:
        with terminal.quiet_c_stderr(), soundfile.SoundFile(path) as file:
            file.seekable = lambda: False  # soundfile would seek after each block
            frames = max(_BLOCK // file.channels, 1)
            blocks = (file.read(frames, dtype="float32", always_2d=True) for _ in itertools.count())
            yield itertools.takewhile(len, blocks)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} is damaged and cannot be read to its end: {error.error_string}") from None


def _read_array(sound, rate):
    samples = np.asarray(sound)
    if samples.ndim not in (1, 2) or not samples.size:
        raise ValueError(
            f"Expected an array of shape (samples,) or (samples, channels), at least one sample. "
            f"Received: shape={samples.shape}"
        )
    if samples.ndim == 2 and samples.shape[1] > samples.shape[0]:
        raise ValueError(
            f"Expected an array of shape (samples, channels). Received: shape={samples.shape}, which looks "
            f"like (channels, samples); give its transpose"
        )
    if isinstance(rate, bool) or not isinstance(rate, Real) or not 0 < rate < math.inf:
        raise ValueError(
            f"Expected an array to come with its rate, as in sample_rate_hz=16_000. "
            f"Received: sample_rate_hz={rate!r}"
        )
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):  # infinity, which is refused
            samples = samples.astype(np.float32)
    elif samples.dtype.name in _FULL_SCALE:
        middle = 2**7 if samples.dtype == np.uint8 else 0  # 8-bit sound has no sign
        samples = ((samples.astype(np.float64) - middle) / _FULL_SCALE[samples.dtype.name]).astype(np.float32)
    else:
        raise ValueError(
            f"Expected floats in -1..1, or 8-, 16- or 32-bit ints, whose full scale is known. "
            f"Received: dtype={samples.dtype}"
        )
    return samples.reshape(len(samples), -1), rate
