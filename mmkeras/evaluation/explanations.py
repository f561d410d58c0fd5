"""Explanations word by word: maps over an image (`Explanation`), attention over time (`Alignment`), the effect
of each word of a prompt on the generated image (`Influence`)."""

import os
from dataclasses import dataclass

import numpy as np

from mmkeras.evaluation.alignment import Word


def focus(maps: np.ndarray, region: np.ndarray) -> np.ndarray:
    """How much maps favor a region of an image: the share of a map on the grid cells that the region covers by
    at least a twentieth, divided by their share of the area. 1 for a map that is the same everywhere, 0 for one
    that is 0 everywhere.

    Args:
        maps: (T, h, w) float, at least 0. With as many cells as pixels it is the share on the region itself.
        region: (H, W) bool, such as `mmkeras.toy.render.foreground(image)`.

    Returns:
        (T,) float.
    """
    _, h, w = maps.shape
    rows, columns = (np.linspace(0, n, k + 1).astype(int) for n, k in zip(region.shape, (h, w), strict=True))
    covered = np.add.reduceat(np.add.reduceat(region.astype(float), rows[:-1], 0), columns[:-1], 1)
    cells = covered / np.outer(np.diff(rows), np.diff(columns)) >= 0.05  # (h, w)
    return maps[:, cells].sum(axis=1) / np.maximum(maps.sum(axis=(1, 2)), 1e-12) / cells.mean()


@dataclass(frozen=True)
class Explanation:
    """An answer about an image with one map per word.

    Attributes:
        image: (H, W, 3) uint8, as given.
        caption: str. The words joined.
        words: T words (or characters) of a caption, or T classes.
        maps: (T, h, w) float. Each map sums to 1, or is 0 everywhere, and covers the image.
        method: str. `"attention"`, or one of `mmkeras.evaluation.explain.METHODS`. Defaults to `"attention"`.
    """

    image: np.ndarray
    caption: str
    words: list[str]
    maps: np.ndarray
    method: str = "attention"

    def plot(self, path: str | os.PathLike | None = None):
        """Plots the explanation, see `mmkeras.evaluation.plots.attention`."""
        from mmkeras.evaluation import plots

        return plots.attention(self.image, self.caption, self.words, self.maps, path)

    def focus(self, region: np.ndarray) -> np.ndarray:
        """How much the map of each word favors a region of the image, see `focus`."""
        return focus(self.maps, region)


@dataclass(frozen=True)
class Influence:
    """A generated image, and how it changes when each word is left out of its prompt.

    Attributes:
        image: (S, S, 3) uint8.
        prompt: str. As given.
        words: T words (or characters).
        without: (T, S, S, 3) uint8. The image generated without each word.
        changed: (T, S, S) float in 0..1. Absolute change of each pixel, averaged over the channels.
    """

    image: np.ndarray
    prompt: str
    words: list[str]
    without: np.ndarray
    changed: np.ndarray

    def plot(self, path: str | os.PathLike | None = None):
        """Plots the explanation, see `mmkeras.evaluation.plots.influence`."""
        from mmkeras.evaluation import plots

        return plots.influence(self.image, self.prompt, self.words, self.without, self.changed, path)


@dataclass(frozen=True)
class Alignment:
    """A transcript with the time of each word.

    Attributes:
        samples: (n,) float32. The clip.
        sample_rate_hz: int. Of the samples.
        text: str. The words joined.
        words: `Word`s, each with its start and end in seconds.
        tokens: T words or characters, the model's output.
        weights: (T, S) float. For each token its attention over S time steps, or with CTC its probability.
        step_seconds: float. Length of a time step.
        log_mel: (F, bands) float. The log-mel spectrogram.
        hop_seconds: float. From one frame of the spectrogram to the next.
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
        """Plots the explanation, see `mmkeras.evaluation.plots.alignment`."""
        from mmkeras.evaluation import plots

        return plots.alignment(
            self.log_mel,
            self.hop_seconds,
            self.tokens,
            self.weights,
            self.step_seconds,
            self.words,
            path,
            seconds=len(self.samples) / self.sample_rate_hz,
        )
