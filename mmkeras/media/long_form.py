"""Long clips: trimming silence, splitting at silences, and joining the transcripts of the segments.

A segment is a pair (start, stop) of samples.
"""

from collections.abc import Sequence

import numpy as np

# Silence is power below twice the noise floor (the quietest 50 ms), or 40 dB below the loudest 50 ms. If the
# loudest 50 ms are less than 50 times (17 dB) above that limit, the soft ends of speech are lost in the noise,
# and nothing is trimmed.
_ABOVE_NOISE, _BELOW_PEAK, _LEAST_CONTRAST = 2, 1e-4, 50

# A clip is split if it is more than this many times as long as the longest clip in training.
LEEWAY = 1.2

# Segments whose peak is below -80 dB of full scale are silent.
SILENT_PEAK = 1e-4


def segments(samples: np.ndarray, sample_rate_hz: int, longest_seconds: float) -> list[tuple[int, int]]:
    """Segments of a clip that are not silent, each without the silence around it.

    Args:
        samples: (n,) float32.
        sample_rate_hz: int.
        longest_seconds: float. Duration of the longest clip in training; 0 if unknown, then nothing is split.

    Returns:
        One segment; more if the clip is much longer than `longest_seconds`; none if it is silent.
    """
    start, stop = trim(samples, sample_rate_hz)
    result = [(start, stop)]
    if longest_seconds and stop - start > LEEWAY * longest_seconds * sample_rate_hz:
        result = []
        for first, last in split(samples[start:stop], sample_rate_hz, longest_seconds):
            a, b = trim(samples[start + first : start + last], sample_rate_hz)
            result.append((start + first + a, start + first + b))
    return [(a, b) for a, b in result if np.abs(samples[a:b]).max() > SILENT_PEAK]


def split(samples: np.ndarray, sample_rate_hz: int, max_seconds: float) -> list[tuple[int, int]]:
    """Splits a clip at its quietest points into segments of a third of `max_seconds` to `max_seconds`.

    Args:
        samples: (n,) float32.
        sample_rate_hz: int.
        max_seconds: float. Longest segment.

    Returns:
        Adjacent segments that cover the clip.
    """
    hop = max(sample_rate_hz // 100, 1)  # 10 ms
    # Power over 200 ms: a pause between words is quieter than the closure of a "t".
    power = np.convolve(_power(samples, hop), np.hanning(21), mode="same")
    most = max(int(max_seconds * sample_rate_hz) // hop, 1)
    least = max(most // 3, 1)
    result, start = [], 0
    while (len(samples) - start * hop) > most * hop:
        first = start + least
        last = max(min(start + most, len(samples) // hop - least), first)
        stop = first + int(np.argmin(power[first : last + 1]))
        result.append((start * hop, stop * hop))
        start = stop
    return [*result, (start * hop, len(samples))]


def trim(samples: np.ndarray, sample_rate_hz: int) -> tuple[int, int]:
    """The segment of a clip without the silence before and after it.

    Power 40 dB below the loudest 50 ms also counts as silence: a whisper after a loud click is lost.

    Args:
        samples: (n,) float32.
        sample_rate_hz: int.

    Returns:
        (start, stop); the complete clip if silence cannot be distinguished from speech.
    """
    hop = max(sample_rate_hz // 100, 1)  # 10 ms
    power = _power(samples, hop)
    if len(power) > 5:
        window = np.ones(5)  # 50 ms
        full = np.convolve(power, window, mode="valid")
        limit = max(_ABOVE_NOISE * full.min(), _BELOW_PEAK * full.max())
        loud = np.flatnonzero(np.convolve(power, window, mode="same") > limit)
        if len(loud) and limit * _LEAST_CONTRAST <= full.max():
            return int(loud[0]) * hop, min((int(loud[-1]) + 1) * hop, len(samples))
    return 0, len(samples)


def merge(texts: Sequence[str], counts: Sequence[int], separator: str) -> list[str]:
    """Joins the transcripts of the segments of each clip.

    Args:
        texts: Transcripts of all segments, clip after clip.
        counts: Number of segments of each clip.
        separator: str. Between the transcripts of two segments.
    """
    texts = iter(texts)
    return [separator.join(filter(None, (next(texts) for _ in range(count)))) for count in counts]


def _power(samples, hop):
    return np.add.reduceat(samples.astype(np.float64) ** 2, np.arange(0, len(samples), hop))
