"""Trivial baselines, which a score should be shown beside."""

import numpy as np

CHUNK = 256  # images compared at a time


def nearest(known: np.ndarray, images: np.ndarray) -> np.ndarray:
    """The known image with the smallest squared distance of raw pixels to each image.

    Args:
        known: (N, H, W, C).
        images: (M, H, W, C).

    Returns:
        (M,) int, indices of `known`.
    """
    known, images = (x.reshape(len(x), -1).astype(np.float32) for x in (known, images))
    squares = (known**2).sum(axis=1)  # (N,)
    chunks = [images[start : start + CHUNK] for start in range(0, len(images), CHUNK)]
    # the squares of the images themselves are the same for all known ones
    return np.concatenate([(squares - 2 * chunk @ known.T).argmin(axis=1) for chunk in chunks])


def gradients(images: np.ndarray, cells: int = 8, bins: int = 8) -> np.ndarray:
    """Histograms of the directions of edges, a feature of images that needs no learning.

    After Dalal & Triggs 2005 (https://doi.org/10.1109/CVPR.2005.177), of square roots and without blocks.

    Args:
        images: (N, S, S, C), S a multiple of `cells`.
        cells: int. Cells per side, of one histogram each. Defaults to 8.
        bins: int. Directions from 0 to 180 degrees. Defaults to 8.

    Returns:
        (N, cells * cells * bins) float32, unit vectors; zeros of an image without edges.
    """
    dy, dx = np.gradient(images.astype(np.float32).mean(axis=-1), axis=(1, 2))  # (N, S, S)
    direction = np.floor(np.arctan2(dy, dx) % np.pi / np.pi * bins) % bins
    edges = np.where(direction[..., None] == np.arange(bins), np.hypot(dx, dy)[..., None], 0)  # (N, S, S, bins)
    side = images.shape[1] // cells
    histograms = edges.reshape(len(images), cells, side, cells, side, bins).sum(axis=(2, 4))
    vectors = np.sqrt(histograms).reshape(len(images), -1)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
