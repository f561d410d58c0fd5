"""Pictures for a person to look at (matplotlib)."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image

if TYPE_CHECKING:
    from mmkeras.explain import Alignment, Influence

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
    return _written(figure, path)


def grid(prompts: Sequence[str], rows: Sequence[np.ndarray], path: str | os.PathLike | None = None) -> Figure:
    """A row of pictures a prompt, the prompt above it.

    Args:
        prompts: N texts.
        rows: N arrays (n, S, S, 3).
        path: where to write the figure as well.
    """
    columns = len(rows[0])
    figure = Figure(figsize=(max(1.5 * columns, 4), 1.8 * len(prompts)), layout="constrained")
    for part, prompt, row in zip(np.atleast_1d(figure.subfigures(len(prompts), 1)), prompts, rows, strict=True):
        font = _font(prompt)
        if font:
            part.suptitle(prompt, fontproperties=font, fontsize=10)
        for axis, picture in zip(part.subplots(1, columns, squeeze=False).flat, row, strict=True):
            axis.imshow(picture)
            axis.set_axis_off()
    return _written(figure, path)


def influence(painted: "Influence", path: str | os.PathLike | None = None) -> Figure:
    """The picture; then once a word the picture without it, and below the pixels that it changed.

    Args:
        painted: from `Painter.explain`.
        path: where to write the figure as well.
    """
    columns, font = len(painted.words) + 1, _font(painted.prompt)
    figure = Figure(figsize=(1.25 * columns, 3.2), layout="constrained")
    axes = figure.subplots(2, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    axes[0, 0].imshow(painted.picture)
    most = max(float(painted.changed.max()), 1e-9)
    for number, word in enumerate(painted.words, start=1):
        axes[0, number].imshow(painted.without[number - 1])
        # without a font for the word its number stands for it
        axes[0, number].set_title(f"− {word if font else number}", fontproperties=font, fontsize=10)
        axes[1, number].imshow(painted.changed[number - 1], cmap="magma", vmin=0, vmax=most)
    if font:
        figure.suptitle(painted.prompt, fontproperties=font, fontsize=12)
    return _written(figure, path)


def alignment(aligned: "Alignment", path: str | os.PathLike | None = None) -> Figure:
    """A clip's spectrogram with each word over the time it was said; below, what each token was read off.

    Args:
        aligned: from `Transcriber.explain`.
        path: where to write the figure as well.
    """
    seconds = len(aligned.samples) / aligned.sample_rate_hz
    font = _font(aligned.text)
    rows = max(len(aligned.tokens), 1)
    width = min(max(3.2 * seconds, 7), 30)
    figure = Figure(figsize=(width, 2.6 + 0.19 * rows), layout="constrained")
    heard, read = figure.subplots(2, 1, sharex=True, height_ratios=(2, 0.17 * rows + 0.3))
    extent = (0, len(aligned.log_mel) * aligned.hop_seconds, 0, aligned.log_mel.shape[1])
    heard.imshow(
        aligned.log_mel.T, origin="lower", aspect="auto", extent=extent, cmap="magma", interpolation="none"
    )
    heard.set_ylabel("mel band")
    for number, word in enumerate(aligned.words):
        for edge in (word.start, word.end):
            heard.axvline(edge, color="white", linewidth=0.8, alpha=0.7)
        # without a font for the word its number stands for it
        label = word.text if font else str(number + 1)
        middle = (word.start + word.end) / 2
        heard.text(
            middle,
            1.02 + 0.08 * (number % 2),  # short words follow one another too closely for one line
            label,
            transform=heard.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontproperties=font,
        )
    extent = (0, aligned.weights.shape[1] * aligned.step_seconds, len(aligned.tokens) - 0.5, -0.5)
    if aligned.tokens:
        read.imshow(aligned.weights, aspect="auto", extent=extent, cmap="Blues", vmin=0, interpolation="none")
        read.set_yticks(range(len(aligned.tokens)))
        shown = ["␣" if token == " " else token for token in aligned.tokens]
        labels = shown if font else range(1, len(shown) + 1)
        read.set_yticklabels(labels, fontproperties=font, fontsize=8)
    read.set_xlabel("seconds")
    read.set_xlim(0, seconds)
    return _written(figure, path)


def curves(history: dict[str, list[float]], path: str | os.PathLike | None = None) -> Figure:
    """How a training went: one axis a figure of `fit`, training and validation in it, over the epochs.

    Args:
        history: one value an epoch under each name; those that begin with "val_" are of the validation data.
        path: where to write the figure as well.
    """
    names = [name for name in history if not name.startswith("val_")]
    figure = Figure(figsize=(4 * max(len(names), 1), 3), layout="constrained")
    axes = figure.subplots(1, max(len(names), 1), squeeze=False).flat
    for axis, name in zip(axes, names, strict=False):
        for key, label in ((name, "training"), (f"val_{name}", "validation")):
            if key in history:
                axis.plot(range(1, len(history[key]) + 1), history[key], marker=".", label=label)
        axis.set_title(name.replace("_", " "), fontsize=11)
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(fontsize=8)
    return _written(figure, path)


def _written(figure, path):
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
