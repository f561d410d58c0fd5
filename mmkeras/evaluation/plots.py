"""Plots of explanations, images and training curves (matplotlib, without pyplot).

Every plot is a `Figure`. With `path` it is written to this file as well; the suffix is the format.
"""

import functools
import io
import os
import textwrap
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.figure
import numpy as np
from matplotlib import font_manager
from matplotlib.text import Text
from PIL import Image

from mmkeras.evaluation.alignment import Word

if TYPE_CHECKING:
    from mmkeras.evaluation.explanations import Explanation

# The default font of matplotlib has no Chinese characters; these come with operating systems or font packages,
# and are preferred to others that have them.
_CHINESE_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "PingFang SC",
    "Heiti SC", "Microsoft YaHei", "SimHei", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei",
)  # fmt: skip


class Figure(matplotlib.figure.Figure):
    """A matplotlib figure that Jupyter displays without pyplot, which keeps global state."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def spotlight(image: np.ndarray, attention: np.ndarray, peak: float | None = None) -> np.ndarray:
    """Darkens an image where the attention is low.

    Args:
        image: (H, W, 3) uint8.
        attention: (h, w) float, at least 0. Resized smoothly to the image.
        peak: float. Attention that is shown at full brightness; use the same value for maps to be compared.
            Defaults to the maximum of this map.

    Returns:
        (H, W, 3) uint8.
    """
    height, width = image.shape[:2]
    peak = max(float(attention.max() if peak is None else peak), 1e-9)
    light = Image.fromarray((attention / peak).astype(np.float32))
    light = np.asarray(light.resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1)
    return (image * (0.25 + 0.75 * light[..., None])).astype(np.uint8)


def attention(
    image: np.ndarray,
    caption: str,
    words: Sequence[str],
    maps: np.ndarray,
    path: str | os.PathLike | None = None,
    columns: int = 6,
) -> Figure:
    """Plots an image, then the image once per word, bright where the attention of the word is high.

    All maps share one scale: a diffuse map looks darker than a sharp one.

    Args:
        image, caption, words, maps: As in `mmkeras.evaluation.explanations.Explanation`.
        columns: int. Images per row, at most. Defaults to 6.
    """
    columns = min(columns, max(len(words) + 1, 4))  # room for the title
    rows = -(-(len(words) + 1) // columns)
    title = _wrapped(caption, 1.7 * columns, 12)
    figure = Figure(figsize=(1.7 * columns, 2.0 * rows + 0.2 * title.count("\n")), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    peak = maps.max(initial=0)
    panels = [image, *(spotlight(image, m, peak) for m in maps)]
    font = _font(caption)
    for number, (axis, panel) in enumerate(zip(axes.flat, panels, strict=False)):
        axis.imshow(panel)
        # Without a font that has them, words are replaced by numbers.
        label = words[number - 1] if number and font else str(number or "")
        axis.set_title(label, fontproperties=font, fontsize=11)
    if font:
        figure.suptitle(title, fontproperties=font, fontsize=12)
    return _saved(figure, path)


def explanations(
    rows: "dict[str, Explanation]", path: str | os.PathLike | None = None, *, most: float = 20.0
) -> Figure:
    """Plots the maps of several explanations of an image side by side on one scale: multiples of the value of a
    map that is the same everywhere.

    Args:
        rows: {label: Explanation}, with the same number of words each.
        most: float. Where the scale ends; what is above has its last color. Defaults to 20.
    """
    count = len(next(iter(rows.values())).words)
    figure = Figure(figsize=(1.5 * (count + 1) + 0.8, 1.6 * len(rows) + 0.3), layout="constrained")
    axes = figure.subplots(len(rows), count + 1, squeeze=False)
    for line, (label, explanation) in zip(axes, rows.items(), strict=True):
        line[0].imshow(explanation.image)
        line[0].set_ylabel(label.replace("_", " "), fontsize=9)
        for axis, word, values in zip(line[1:], explanation.words, explanation.maps, strict=True):
            shown = axis.imshow(values * values.size, cmap="magma", vmin=0, vmax=most)
            font = _font(word)
            axis.set_title(word if font else "", fontproperties=font, fontsize=9)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.colorbar(shown, ax=axes[:, -1], extend="max", label="times the mean", shrink=0.8)
    return _saved(figure, path)


def grid(prompts: Sequence[str], rows: Sequence[np.ndarray], path: str | os.PathLike | None = None) -> Figure:
    """Plots one row of images per prompt, under the prompt.

    Args:
        prompts: N texts.
        rows: N arrays (n, S, S, 3) uint8.
    """
    columns = len(rows[0])
    width = max(1.5 * columns, 4)
    titles = [_wrapped(prompt, width, 10) for prompt in prompts]
    heights = [1.8 + 0.17 * title.count("\n") for title in titles]
    figure = Figure(figsize=(width, sum(heights)), layout="constrained")
    parts = np.atleast_1d(figure.subfigures(len(prompts), 1, height_ratios=heights))
    for part, title, row in zip(parts, titles, rows, strict=True):
        font = _font(title)
        if font:
            part.suptitle(title, fontproperties=font, fontsize=10)
        for axis, image in zip(part.subplots(1, columns, squeeze=False).flat, row, strict=True):
            axis.imshow(image)
            axis.set_axis_off()
    return _saved(figure, path)


def influence(
    image: np.ndarray,
    prompt: str,
    words: Sequence[str],
    without: np.ndarray,
    changed: np.ndarray,
    path: str | os.PathLike | None = None,
) -> Figure:
    """Plots an image, then per word the image without that word, and below it the pixels that changed.

    Arguments as in `mmkeras.evaluation.explanations.Influence`.
    """
    columns, font = len(words) + 1, _font(prompt)
    title = _wrapped(prompt, 1.25 * columns, 12)
    figure = Figure(figsize=(1.25 * columns, 3.2 + 0.2 * title.count("\n")), layout="constrained")
    axes = figure.subplots(2, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    axes[0, 0].imshow(image)
    most = max(float(changed.max()), 1e-9)
    for number, word in enumerate(words, start=1):
        axes[0, number].imshow(without[number - 1])
        # Without a font that has them, words are replaced by numbers.
        axes[0, number].set_title(f"− {word if font else number}", fontproperties=font, fontsize=10)
        axes[1, number].imshow(changed[number - 1], cmap="magma", vmin=0, vmax=most)
    if font:
        figure.suptitle(title, fontproperties=font, fontsize=12)
    return _saved(figure, path)


def alignment(
    log_mel: np.ndarray,
    hop_seconds: float,
    tokens: Sequence[str],
    weights: np.ndarray,
    step_seconds: float,
    words: Sequence[Word],
    path: str | os.PathLike | None = None,
    *,
    seconds: float,
) -> Figure:
    """Plots a clip's spectrogram, each word above its time, and below it the weights of each token over time.

    Arguments as in `mmkeras.evaluation.explanations.Alignment`, and `seconds`, the length of the clip.
    """
    font = _font("".join([*tokens, *(word.text for word in words)]))
    rows = max(len(tokens), 1)
    width = min(max(3.2 * seconds, 7), 30)
    figure = Figure(figsize=(width, 2.6 + 0.19 * rows), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2, 0.17 * rows + 0.3))
    extent = (0, len(log_mel) * hop_seconds, 0, log_mel.shape[1])
    top.imshow(log_mel.T, origin="lower", aspect="auto", extent=extent, cmap="magma", interpolation="none")
    top.set_ylabel("mel band")
    for number, word in enumerate(words):
        for edge in (word.start, word.end):
            top.axvline(edge, color="white", linewidth=0.8, alpha=0.7)
        # Without a font that has them, words are replaced by numbers.
        label = word.text if font else str(number + 1)
        middle = (word.start + word.end) / 2
        top.text(
            middle,
            1.02 + 0.08 * (number % 2),  # two lines, since short words are too close for one
            label,
            transform=top.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontproperties=font,
        )
    extent = (0, weights.shape[1] * step_seconds, len(tokens) - 0.5, -0.5)
    if tokens:
        bottom.imshow(weights, aspect="auto", extent=extent, cmap="Blues", vmin=0, interpolation="none")
        bottom.set_yticks(range(len(tokens)))
        labels = ["␣" if token == " " else token for token in tokens]
        bottom.set_yticklabels(labels if font else range(1, len(labels) + 1), fontproperties=font, fontsize=8)
    bottom.set_xlabel("seconds")
    bottom.set_xlim(0, seconds)
    return _saved(figure, path)


def curves(history: dict[str, list[float]], path: str | os.PathLike | None = None) -> Figure:
    """Plots training and validation curves over the epochs, one panel per loss or metric.

    Args:
        history: {name: one value per epoch}, as `fit(...).history`; "val_" begins the validation names.
    """
    names = [name for name in history if not name.startswith("val_")]
    columns = min(max(len(names), 1), 3)
    rows = max(-(-len(names) // columns), 1)
    figure = Figure(figsize=(4 * columns, 3 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    for axis, name in zip(axes.flat, names, strict=False):
        for key, label in ((name, "training"), (f"val_{name}", "validation")):
            if key in history:
                axis.plot(range(1, len(history[key]) + 1), history[key], marker=".", label=label)
        axis.set_title(name.replace("_", " "), fontsize=11)
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axis.legend(fontsize=8)
    return _saved(figure, path)


def lines(
    x: Sequence[float],
    ys: dict[str, Sequence[float] | Sequence[Sequence[float]]],
    x_label: str,
    y_label: str,
    path: str | os.PathLike | None = None,
    *,
    log_x: bool = False,
) -> Figure:
    """Plots values over a common axis, one line each.

    Args:
        x: N numbers.
        ys: {name: N numbers, or N lists of numbers, of which the mean is drawn and the range shaded}.
        x_label, y_label: str.
        log_x: bool. Whether the axis of x is logarithmic, with a tick at each x. Defaults to False.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for name, y in ys.items():
        repeated = np.asarray(y, float).reshape(len(x), -1)  # (N, repetitions)
        (line,) = axis.plot(x, repeated.mean(axis=1), marker="o", label=name)
        axis.fill_between(x, repeated.min(axis=1), repeated.max(axis=1), color=line.get_color(), alpha=0.2)
    if log_x:
        axis.set_xscale("log")
        axis.set_xticks(x, [f"{value:g}" for value in x], minor=False)
        axis.minorticks_off()
    axis.set(xlabel=x_label, ylabel=y_label)
    figure.legend(loc="outside upper center", ncols=2)  # no curve is hidden
    return _saved(figure, path)


def bars(scores: dict[str, dict[str, float]], y_label: str, path: str | os.PathLike | None = None) -> Figure:
    """Plots groups of bars.

    Args:
        scores: {name of a series: {name of a group: value}}. All series have the same groups.
        y_label: str.
    """
    figure = Figure(figsize=(8, 4), layout="constrained")
    axis = figure.subplots()
    groups, width = list(next(iter(scores.values()))), 0.8 / len(scores)
    for number, (name, values) in enumerate(scores.items()):
        left = np.arange(len(groups)) + (number - (len(scores) - 1) / 2) * width
        axis.bar(left, [values[group] for group in groups], 0.9 * width, label=name)
    axis.set_xticks(range(len(groups)), groups)
    axis.set_ylabel(y_label)
    figure.legend(loc="outside upper center", ncols=2)
    return _saved(figure, path)


def _saved(figure, path):
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # "$" in a caption is a character, not the start of a formula
    if path is not None:
        figure.savefig(path, dpi=120)
    return figure


def _wrapped(text, inches, size):
    """The text, wrapped to a width in inches at a font size in points."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text) / max(len(text), 1)
    character = (0.6 + 0.4 * wide) * size / 72  # mean width in inches; Chinese ones are square
    return textwrap.fill(text, int(inches / character))


@functools.lru_cache
def _font(text):
    """A font with all of the text's characters, the default one if it has them; None if the system has none."""
    codes = [ord(character) for character in set(text) if not character.isspace()]
    default = font_manager.findfont(font_manager.FontProperties())

    def preference(font):
        is_regular = font.style == "normal" and font.weight in (400, "normal", "regular")
        return font.fname != default, font.name not in _CHINESE_FONTS, not is_regular, font.name

    for font in sorted(font_manager.fontManager.ttflist, key=preference):
        # Last Resort has boxes for all characters; color glyphs cannot be drawn.
        if font.name.startswith("Last Resort") or "Emoji" in font.name:
            continue
        if all(map(font_manager.get_font(font.fname).get_char_index, codes)):
            return font_manager.FontProperties(fname=font.fname)
    return None
