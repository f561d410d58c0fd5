"""What a model attended to, word by word."""

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
