"""What a model attended to, word by word: over a picture (`Explanation`) or over time (`Alignment`); and what
each word of a prompt did to a painted picture (`Influence`)."""

import os
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Explanation:
    """A caption with the places that each of its words looked at.

    picture:   (H, W, 3) uint8, as it was given
    caption:   the words joined
    words:     the T words (or characters)
    attention: (T, h, w) float, each map sums to 1; stretched over the picture it lies where it belongs
    """

    picture: np.ndarray
    caption: str
    words: list[str]
    attention: np.ndarray

    def plot(self, path: str | os.PathLike | None = None):
        """The picture once a word, light where the word looked. Returns a matplotlib Figure.

        Args:
            path: where to write it as a picture as well (the suffix says as what).
        """
        from mmkeras import plots

        return plots.attention(self.picture, self.caption, self.words, self.attention, path)


@dataclass(frozen=True)
class Influence:
    """A painted picture, and what each word of its prompt did: the difference that leaving it out makes.

    picture: (S, S, 3) uint8
    prompt:  as it was given
    words:   the T words (or characters)
    without: (T, S, S, 3) uint8, the picture painted without each
    changed: (T, S, S) float in 0..1, how much of each pixel that changed
    """

    picture: np.ndarray
    prompt: str
    words: list[str]
    without: np.ndarray
    changed: np.ndarray

    def plot(self, path: str | os.PathLike | None = None):
        """The picture; then once a word the picture without it, and below the pixels it changed. Returns a
        matplotlib Figure.

        Args:
            path: where to write it as a picture as well (the suffix says as what).
        """
        from mmkeras import plots

        return plots.influence(self, path)


@dataclass(frozen=True)
class Word:
    """A word (in Chinese: a character), from when to when it was said, in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Alignment:
    """A transcript with the time of each word.

    samples:        (n,) float32, what was heard
    sample_rate_hz: of the samples
    text:           the words joined
    words:          each with its start and end
    tokens:         the T words or characters that the model wrote
    weights:        (T, S) float, what each token was read off: attention over S steps, or its probability
    step_seconds:   how long a step is
    log_mel:        (F, bands) what the model saw
    hop_seconds:    from one frame of it to the next
    """

    samples: np.ndarray
    sample_rate_hz: int
    text: str
    words: list[Word]
    tokens: list[str]
    weights: np.ndarray
    step_seconds: float
    log_mel: np.ndarray
    hop_seconds: float

    def plot(self, path: str | os.PathLike | None = None):
        """The spectrogram with the words over it, and the weights below. Returns a matplotlib Figure.

        Args:
            path: where to write it as a picture as well (the suffix says as what).
        """
        from mmkeras import plots

        return plots.alignment(self, path)


def monotonic(weights: np.ndarray) -> list[tuple[int, int]]:
    """Divides time among tokens that follow one another: each gets a stretch of steps, the best in sum.

    Args:
        weights: (T, S) at least 0, how much token t has to do with step s; T at most S.

    Returns:
        T pairs (start, end): token t has the steps start, ..., end - 1. The stretches touch; the first starts
        and each ends where its token has weight.
    """
    tokens, steps = weights.shape
    if tokens > steps:  # more tokens than steps: all that can be said is where each weighs most
        peaks = np.maximum.accumulate(weights.argmax(axis=1))
        return [(int(peak), int(peak) + 1) for peak in peaks]
    gains = np.log(weights + 1e-6)
    best = np.full((tokens, steps), -np.inf)
    stayed = np.zeros((tokens, steps), bool)
    best[0] = np.cumsum(gains[0])
    stayed[0] = True
    for step in range(1, steps):
        stay, advance = best[1:, step - 1], best[:-1, step - 1]
        stayed[1:, step] = stay >= advance
        best[1:, step] = np.maximum(stay, advance) + gains[1:, step]
    starts, step = [0] * tokens, steps - 1
    for token in range(tokens - 1, 0, -1):
        while stayed[token, step]:
            step -= 1
        starts[token] = step
        step -= 1
    # CTC's probabilities stand in short peaks with nothing between them, and a peak comes late in its word:
    # so a stretch ends where its token's weight does, and what follows belongs to the next.
    spans = []
    for row, start, stop in zip(weights, starts, [*starts[1:], steps], strict=True):
        weighty = start + np.flatnonzero(row[start:stop] >= 0.1 * row[start:stop].max())
        spans.append((spans[-1][1] if spans else int(weighty[0]), int(weighty[-1]) + 1))
    return spans
