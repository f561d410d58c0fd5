"""Pictures for a person to look at (matplotlib)."""

import os
from collections.abc import Sequence

import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image

# matplotlib's own font has no Chinese; these come with the systems or with their font packages.
_CHINESE_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "PingFang SC",
    "Heiti SC", "Microsoft YaHei", "SimHei", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei",
)  # fmt: skip


def spotlight(picture: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """The picture, light where the attention is.

    Args:
        picture: (H, W, 3) uint8.
        attention: (h, w), at least 0; stretched smoothly over the picture.

    Returns:
        (H, W, 3) uint8.
    """
    height, width = picture.shape[:2]
    peak = max(float(attention.max()), 1e-9)
    light = Image.fromarray((attention / peak).astype(np.float32))
    light = np.asarray(light.resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1)
    return (picture * (0.25 + 0.75 * light[..., None])).astype(np.uint8)


def attention(
    picture: np.ndarray,
    caption: str,
    words: Sequence[str],
    maps: np.ndarray,
    path: str | os.PathLike | None = None,
    columns: int = 6,
) -> Figure:
    """The picture, then once a word under that word's spotlight.

    Args:
        picture: (H, W, 3) uint8.
        caption: the title.
        words: T words.
        maps: (T, h, w).
        path: where to write the figure as well.
        columns: pictures a row.
    """
    rows = -(-(len(words) + 1) // columns)
    figure = Figure(figsize=(1.7 * columns, 2.0 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis in axes:
        axis.set_axis_off()
    pictures = [picture, *(spotlight(picture, m) for m in maps)]
    font = _font(caption)
    for number, (axis, shown) in enumerate(zip(axes, pictures, strict=False)):
        axis.imshow(shown)
        # without a font for the word its number stands for it
        title = words[number - 1] if number and font else str(number or "")
        axis.set_title(title, fontproperties=font, fontsize=11)
    if font:
        figure.suptitle(caption, fontproperties=font, fontsize=12)
    if path is not None:
        figure.savefig(path, dpi=120)
    return figure


def _font(text):
    """A font that can write the text, or None where the system has none."""
    if text.isascii():
        return font_manager.FontProperties()
    installed = {font.name for font in font_manager.fontManager.ttflist}
    name = next((name for name in _CHINESE_FONTS if name in installed), None)
    return name and font_manager.FontProperties(family=name)
