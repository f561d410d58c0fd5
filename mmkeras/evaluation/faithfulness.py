"""Tests of explanations: what a map has over a random order, over the same method on shuffled weights
(`mmkeras.evaluation.explain.shuffled`), and over a map that no network has made (`difference`)."""

from typing import Any

import keras
import numpy as np

from mmkeras.evaluation import explain
from mmkeras.evaluation.explain import Score

SIDE, STEPS = 16, 16  # cells along a side of the image, steps from all of them to none


def deletion(
    model: keras.Model, inputs: Any, score: Score, maps: np.ndarray, baseline: Any = None
) -> np.ndarray:
    """The score while the cells of an image are replaced by the baseline, those of the highest map first
    (Petsiuk et al. 2018, arXiv:1806.07421). A map that finds what the score depends on makes it fall early.

    Args:
        model, inputs, score, baseline: As for `explain.gradient_x_input`. Probabilities are easier to compare
            than logits.
        maps: (B, h, w) float. For a random order random numbers.

    Returns:
        (17, B) float32, from the whole image to none of it. See `area`.

    Raises:
        ValueError: as `explain.gradient_x_input`.
    """
    return _curve(model, inputs, score, maps, baseline, False)


def insertion(
    model: keras.Model, inputs: Any, score: Score, maps: np.ndarray, baseline: Any = None
) -> np.ndarray:
    """The score while the cells of the image replace those of the baseline, from none of it to the whole. A map
    that finds what the score depends on makes it rise early. Arguments, result and errors as for `deletion`."""
    return _curve(model, inputs, score, maps, baseline, True)


def area(curve: np.ndarray) -> np.ndarray:
    """The area under a curve (K, B) over the share of the cells: (B,), the mean score on the way."""
    return ((curve[1:] + curve[:-1]) / 2).mean(axis=0)


def difference(images: np.ndarray, baseline: Any = None) -> np.ndarray:
    """A map that no network has made: the difference of images (B, S, S, 3) from the baseline, (B, S, S)."""
    images = np.asarray(images, np.float32)
    return np.abs(images - explain.checked_baseline(images, baseline)).sum(axis=-1)


def _curve(model, inputs, score, maps, baseline, inserts):
    images = explain.checked_images(model, inputs)
    start = explain.checked_baseline(images, baseline)
    height, width = images.shape[1:3]
    values = explain.enlarged(maps, (height, width))
    rows, columns = (np.arange(side) * SIDE // side for side in (height, width))
    cell = rows[:, None] * SIDE + columns  # (H, W): the number of its cell
    sums = np.stack([np.bincount(cell.ravel(), value.ravel(), SIDE**2) for value in values])  # (B, cells)
    ties = np.random.default_rng(0).random(sums.shape)
    rank = np.lexsort((ties, -sums)).argsort(axis=1)[:, cell]  # (B, H, W): 0 for the cell of the highest sum

    def variants():
        for step in range(STEPS + 1):
            first = (rank < step * SIDE**2 // STEPS)[..., None]
            yield np.where(first == inserts, images, start)

    return explain.scores(model, inputs, variants(), score)
