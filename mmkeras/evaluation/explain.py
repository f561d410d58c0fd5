"""Explanations word by word: attention over an image (`Explanation`) or over time (`Alignment`), and the effect
of each word of a prompt on the generated image (`Influence`)."""

import os
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Explanation:
    """A caption with one attention map per word.

    picture:   (H, W, 3) uint8, as given
    caption:   the words joined
    words:     T words (or characters)
    attention: (T, h, w) float, each map sums to 1 and covers the whole image
    """

    picture: np.ndarray
    caption: str
    words: list[str]
    attention: np.ndarray

    def plot(self, path: str | os.PathLike | None = None):
        """Plots the image once per word, bright where the word attended to. Returns a matplotlib Figure.

        Args:
            path: File to write as well; its suffix is the format. Defaults to None.
        """
        from mmkeras.evaluation import plots

        return plots.attention(self.picture, self.caption, self.words, self.attention, path)


@dataclass(frozen=True)
class Influence:
    """A generated image, and how it changes when each word is left out of its prompt.

    picture: (S, S, 3) uint8
    prompt:  as given
    words:   T words (or characters)
    without: (T, S, S, 3) uint8, the image generated without each word
    changed: (T, S, S) float in 0..1, absolute change of each pixel, averaged over the channels
    """

    picture: np.ndarray
    prompt: str
    words: list[str]
    without: np.ndarray
    changed: np.ndarray

    def plot(self, path: str | os.PathLike | None = None):
        """Plots the image, then per word the image without it, and below it the pixels that changed. Returns a
        matplotlib Figure.

        Args:
            path: File to write as well; its suffix is the format. Defaults to None.
        """
        from mmkeras.evaluation import plots

        return plots.influence(self, path)


@dataclass(frozen=True)
class Word:
    """A word (in Chinese: a character) with its start and end in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Alignment:
    """A transcript with the time of each word.

    samples:        (n,) float32, the clip
    sample_rate_hz: of the samples
    text:           the words joined
    words:          each with its start and end
    tokens:         T words or characters, the model's output
    weights:        (T, S) float, per token its attention over S time steps, or with CTC its probability
    step_seconds:   length of a time step
    log_mel:        (F, bands) float, the log-mel spectrogram
    hop_seconds:    from one frame of the spectrogram to the next
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
        """Plots the spectrogram with the words above it, and the weights below. Returns a matplotlib Figure.

        Args:
            path: File to write as well; its suffix is the format. Defaults to None.
        """
        from mmkeras.evaluation import plots

        return plots.alignment(self, path)


def monotonic(weights: np.ndarray) -> list[tuple[int, int]]:
    """Aligns tokens with time: a monotonic segmentation of the steps with the highest sum of log weights.

    Args:
        weights: (T, S) float, at least 0: attention or probability of token t at step s.

    Returns:
        T pairs (start, end): token t covers the steps start, ..., end - 1. The segments touch; the first starts
        and each ends where its token has weight.
    """
    tokens, steps = weights.shape
    if tokens > steps:  # no segmentation exists: each token gets the step of its highest weight
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
    # CTC's probabilities are short peaks, and a peak comes late in its word: so a segment ends where its
    # token's weight ends, and the steps after it belong to the next token.
    spans = []
    for row, start, stop in zip(weights, starts, [*starts[1:], steps], strict=True):
        weighty = start + np.flatnonzero(row[start:stop] >= 0.1 * row[start:stop].max())
        spans.append((spans[-1][1] if spans else int(weighty[0]), int(weighty[-1]) + 1))
    return spans
