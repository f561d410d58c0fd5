"""Images of the toy world: `render` draws a Scene at any size.

Shapes are drawn at four times the size and averaged down, so that their edges are smooth. Properties that no
caption states vary from image to image: the exact position and size, the tint, the background and light noise.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from mmkeras.toy.scene import COLORS, PLACES, Scene, generator, sample

RGB = dict(
    zip(
        COLORS,
        (
            (214, 39, 40),
            (255, 140, 20),
            (245, 215, 40),
            (44, 150, 60),
            (40, 90, 215),
            (130, 50, 170),
        ),
        strict=True,
    )
)

# In units of the image's side. The ranges of the two sizes and of adjacent places do not overlap, so that
# every image has one correct caption.
RADIUS = {"small": (0.090, 0.115), "large": (0.150, 0.180)}
CENTERS = (0.24, 0.50, 0.76)
JITTER = 0.05  # largest distance from the center of its place, in x and in y
PAIR_CENTERS = (0.26, 0.74)
NOISE = 6.0  # largest absolute noise of a channel, of 255
SUPERSAMPLING = 4
GRAY = 115.0  # of every thing in an image without color


def render(scene: Scene, size: int = 64, *, rng: np.random.Generator, gray: bool = False) -> np.ndarray:
    """Draws a scene.

    Args:
        scene: `Scene`.
        size: int. Side of the image in pixels, at least 16. Except for the noise, the same random numbers give
            the same image at every size. Defaults to 64.
        rng: Random generator of the varying properties, such as `scene.generator(split, index, "picture")`.
        gray: bool. Whether to leave out the color. Every color becomes the same gray, because most colors
            differ in lightness. Defaults to False.

    Returns:
        (size, size, 3) uint8, RGB.

    Raises:
        ValueError: if `size` is invalid.
    """
    if not isinstance(size, int | np.integer) or size < 16:
        raise ValueError(f"Expected size to be at least 16 pixels. Received: size={size!r}")
    image = background(size, rng)
    for thing, (x, y) in zip(scene.things, _centers(scene, rng), strict=True):
        low, high = RADIUS[thing.size]
        corners = outline(thing.shape) * (low + (high - low) * rng.random()) + (x, y)
        cover = mask(corners, size)[..., None]  # (S, S, 1)
        color = np.array(RGB[thing.color]) + 30 * (rng.random(3) - 0.5)
        image += cover * ((GRAY if gray else color) - image)
    image += NOISE * (rng.random(image.shape) + rng.random(image.shape) - 1)
    if gray:
        image[:] = image.mean(axis=-1, keepdims=True)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def draw(split: str, index: int, size: int = 64, objects: int = 1, gray: bool = False) -> np.ndarray:
    """The image of scene number `index` of a split, the same everywhere. Arguments as for `scene.sample` and
    `render`."""
    rng = generator(split, index, "picture", objects)
    return render(sample(split, index, objects), size, rng=rng, gray=gray)


def foreground(image: np.ndarray) -> np.ndarray:
    """The pixels of the things in a toy image (S, S, 3) uint8: (S, S) bool. The background is nearly gray."""
    return np.ptp(image.astype(int), axis=-1) > 60


def background(size: int, rng: np.random.Generator) -> np.ndarray:
    """A light, nearly gray tone with a slow linear gradient: (size, size, 3) float in 0..255."""
    tone = 195 + 45 * rng.random() + 16 * (rng.random(3) - 0.5)
    slope_x, slope_y = 30 * (rng.random(2) - 0.5)
    ramp = np.linspace(-0.5, 0.5, size)
    shade = slope_x * ramp[None, :] + slope_y * ramp[:, None]
    return tone + shade[..., None]


def _centers(scene, rng):
    jitter = JITTER * (2 * rng.random((2, 2)) - 1)
    if scene.relation is None:
        row, column = divmod(PLACES.index(scene.things[0].place), 3)
        return [(CENTERS[column], CENTERS[row]) + jitter[0]]
    across = CENTERS[0] + (CENTERS[2] - CENTERS[0]) * rng.random()  # shared by both things
    centers = [(near, across) for near in PAIR_CENTERS]  # left of
    if scene.relation == "above":
        centers = [center[::-1] for center in centers]
    return [center + j for center, j in zip(centers, jitter, strict=True)]


def mask(corners: np.ndarray, size: int) -> np.ndarray:
    """Share of each pixel that a polygon covers: (size, size) float in 0..1.

    Args:
        corners: (n, 2) float, x and y in units of the image's side.
        size: int. Side of the image in pixels.
    """
    side = size * SUPERSAMPLING
    canvas = Image.new("L", (side, side))
    ImageDraw.Draw(canvas).polygon((corners * side).ravel().tolist(), fill=255)
    return np.asarray(canvas.reduce(SUPERSAMPLING), np.float64) / 255


def outline(shape: str) -> np.ndarray:
    """The corners of a shape of radius 1 around (0, 0): (n, 2) float."""
    return _OUTLINES[shape]


def _polygon(corners: int, radius: Callable[[int], float], turn: float = -0.25) -> np.ndarray:
    """Corners around the center, the first one at `turn` of a full turn from the right."""
    angles = 2 * np.pi * (np.arange(corners) / corners + turn)
    lengths = np.array([radius(i) for i in range(corners)])
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * lengths[:, None]


_ARM = 0.36  # half the width of a cross's bars
_CROSS = [
    (_ARM, 1.1), (_ARM, _ARM), (1.1, _ARM), (1.1, -_ARM), (_ARM, -_ARM), (_ARM, -1.1),
    (-_ARM, -1.1), (-_ARM, -_ARM), (-1.1, -_ARM), (-1.1, _ARM), (-_ARM, _ARM), (-_ARM, 1.1),
]  # fmt: skip
_OUTLINES = {
    "circle": _polygon(72, lambda i: 1.0),
    "square": _polygon(4, lambda i: 1.25, turn=0.125),
    "triangle": _polygon(3, lambda i: 1.25) + np.array((0, 0.2)),
    "star": _polygon(10, lambda i: 0.5 if i % 2 else 1.25),
    "cross": np.array(_CROSS),
    "diamond": _polygon(4, lambda i: 0.8 if i % 2 else 1.25),
}
