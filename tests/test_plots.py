"""Plots, compared panel by panel with the pixels of an empty panel."""

import io
import itertools
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from mmkeras.cli import demo
from mmkeras.evaluation import plots
from mmkeras.evaluation.alignment import Word
from mmkeras.evaluation.explanations import Alignment, Explanation, Influence

# matplotlib warns of glyphs that the font lacks
pytestmark = pytest.mark.filterwarnings("error:Glyph")

TEXTS = {
    "en": ["a", "red", "star", "at", "the", "top", "left"],
    "zh": list("左上的红色星形"),
    "mixed": ["große", "étoile", "красная", "звезда", "نجمة", "حمراء", "$left"],
}
RAMP = np.linspace(0, 255, 24, dtype=np.uint8)
IMAGE = np.stack([np.tile(RAMP, (24, 1)), np.tile(RAMP[:, None], (1, 24)), np.full((24, 24), 90)], axis=-1)
IMAGE = IMAGE.astype(np.uint8)
RNG = np.random.default_rng(0)


no_chinese = pytest.mark.skipif(plots._font("字") is None, reason="no Chinese font")


@pytest.fixture(params=["en", "mixed", pytest.param("zh", marks=no_chinese)])
def words(request):
    return TEXTS[request.param]


def render(figure):
    """Draws a figure as Jupyter does; returns a function from an axis or a text to its pixels (h, w, 3)."""
    png = figure._repr_png_()
    assert png.startswith(b"\x89PNG")
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)

    def crop(artist):
        left, bottom, right, top = artist.get_window_extent().extents.round().astype(int)
        return pixels[
            len(pixels) - top + 2 : len(pixels) - bottom - 2, left + 2 : right - 2
        ]  # inside the frame

    return crop


def test_text_without_a_font_has_none():
    assert plots._font("\U0010fffd") is None  # a private character; matplotlib's font of boxes has it


def is_uniform(pixels):
    return np.ptp(pixels, axis=(0, 1)).max() < 8


def differ(one, other):
    height, width = np.minimum(one.shape, other.shape)[:2]
    return np.abs(one[:height, :width] - other[:height, :width]).mean() > 2


def maps_of(count):
    """Maps that attend to different cells of a 3 x 3 grid."""
    return np.eye(9)[:count].reshape(count, 3, 3)


def test_attention_shows_a_map_per_word(words):
    figure = plots.attention(IMAGE, "".join(words), words, maps_of(len(words)))
    crop = render(figure)
    panels = [crop(axis) for axis in figure.axes]
    shown, empty = panels[: len(words) + 1], panels[len(words) + 1 :]
    assert len(empty) == 4 and all(map(is_uniform, empty))
    assert not any(map(is_uniform, shown))
    assert all(differ(*pair) for pair in combinations(shown, 2))
    assert not any(is_uniform(crop(axis.title)) for axis in figure.axes[1 : len(shown)])


def test_attention_without_words_shows_the_image():
    figure = plots.attention(IMAGE, "", [], np.zeros((0, 3, 3)))
    crop = render(figure)
    assert not is_uniform(crop(figure.axes[0]))


def test_attention_maps_share_one_scale():
    """Otherwise a uniform map would be as bright as a sharp one."""
    maps = np.stack([maps_of(5)[4], np.full((3, 3), 1 / 9)])
    figure = plots.attention(IMAGE, "sharp diffuse", ["sharp", "diffuse"], maps)
    crop = render(figure)
    sharp, diffuse = (crop(axis) for axis in figure.axes[1:3])
    middle = (slice(len(sharp) // 2 - 5, len(sharp) // 2 + 5),) * 2
    assert sharp[middle].mean() > 2 * diffuse[middle].mean()
    alone = plots.spotlight(IMAGE, maps[1])
    assert plots.spotlight(IMAGE, maps[1], peak=1.0).mean() < 0.5 * alone.mean()


def test_the_demo_shows_the_maps_of_a_caption_on_one_scale(monkeypatch):
    maps = np.arange(1, 13).reshape(3, 2, 2) / 12
    captioner = SimpleNamespace(explain=lambda image: Explanation(image, "a red star", ["a"] * 3, maps))
    peaks = []
    monkeypatch.setattr(plots, "spotlight", lambda image, attention, peak: peaks.append(peak) or image)
    scores = {"test": {"bleu_1": 0.5}}
    demo.captioning_section({"captioning": captioner}, scores, "en", images=1)
    assert peaks == [1.0] * 6  # three words of an image of each split


def test_grid_shows_every_image(words):
    rows = RNG.integers(0, 255, (2, 3, 8, 8, 3), np.uint8)
    figure = plots.grid(["".join(words), "a blue circle"], rows)
    crop = render(figure)
    panels = [crop(axis) for axis in figure.axes]
    assert len(panels) == 6 and not any(map(is_uniform, panels))
    assert all(differ(*pair) for pair in combinations(panels, 2))
    assert not any(is_uniform(crop(part._suptitle)) for part in figure.subfigs)


def test_influence_shows_each_image_and_its_change(words):
    count = len(words)
    without = RNG.integers(0, 255, (count, 24, 24, 3), np.uint8)
    figure = Influence(IMAGE, "".join(words), words, without, RNG.random((count, 24, 24))).plot()
    crop = render(figure)
    above, below = np.reshape(figure.axes, (2, count + 1))
    shown = [crop(axis) for axis in [*above, *below[1:]]]
    assert not any(map(is_uniform, shown)) and is_uniform(crop(below[0]))
    assert all(differ(*pair) for pair in combinations(shown, 2))
    assert not any(is_uniform(crop(axis.title)) for axis in above[1:])


def test_alignment_shows_spectrogram_words_and_weights(words):
    count = len(words)
    explanation = Alignment(
        samples=np.zeros(16_000 * 2, np.float32),
        sample_rate_hz=16_000,
        text="".join(words),
        words=[Word(word, 2 * i / count, 2 * (i + 1) / count) for i, word in enumerate(words)],
        tokens=words,
        weights=np.repeat(np.eye(count), 5, axis=1),
        step_seconds=2 / (5 * count),
        log_mel=RNG.normal(size=(200, 20)),
        hop_seconds=0.01,
    )
    figure = explanation.plot()
    crop = render(figure)
    spectrogram, weights = figure.axes
    assert not is_uniform(crop(spectrogram)) and not is_uniform(crop(weights))
    blue = crop(weights)[..., 0] < 100
    middles = [((np.arange(count) + 0.5) * side / count).astype(int) for side in blue.shape]
    np.testing.assert_array_equal(blue[np.ix_(*middles)], np.eye(count))  # each token at its own time
    assert len(spectrogram.texts) == count
    assert not any(is_uniform(crop(text)) for text in [*spectrogram.texts, *weights.get_yticklabels()])


def test_alignment_without_words_shows_the_spectrogram():
    samples, log_mel = np.zeros(16_000, np.float32), RNG.normal(size=(100, 20))
    figure = Alignment(samples, 16_000, "", [], [], np.zeros((0, 25)), 0.04, log_mel, 0.01).plot()
    crop = render(figure)
    assert not is_uniform(crop(figure.axes[0]))


def test_curves_draw_training_and_validation():
    history = {"loss": [3.0, 2.0, 1.0], "val_loss": [3.0, 2.5, 2.4]}
    history |= {name: [0.1, 0.5, 0.9] for name in ("bleu_1", "bleu_2", "bleu_3")}
    figure = plots.curves(history)
    crop = render(figure)
    assert [len(axis.lines) for axis in figure.axes] == [2, 1, 1, 1, 0, 0]
    for axis in figure.axes[:4]:
        for line in axis.lines:
            color = 255 * np.array(to_rgb(line.get_color()))
            assert (np.abs(crop(axis) - color).max(axis=-1) < 8).sum() > 100
    assert all(is_uniform(crop(axis)) for axis in figure.axes[4:])
    np.testing.assert_array_equal(figure.axes[0].lines[1].get_ydata(), history["val_loss"])


def test_lines_draw_the_mean_and_shade_the_range():
    ys = {"repeated": [[0.0, 0.2], [0.5, 0.9]], "once": [0.1, 0.3]}
    (axis,) = plots.lines([40, 4000], ys, "pairs", "share", log_x=True).axes
    np.testing.assert_allclose([line.get_ydata() for line in axis.lines], [[0.1, 0.7], [0.1, 0.3]])
    low, high = axis.collections[0].get_paths()[0].get_extents().intervaly
    assert (low, high) == (0.0, 0.9)
    assert [label.get_text() for label in axis.get_xticklabels()] == ["40", "4000"]


def test_bars_stand_side_by_side_in_groups():
    (axis,) = plots.bars({"a": {"x": 0.1, "y": 0.2}, "b": {"x": 0.3, "y": 0.4}}, "share").axes
    bars = sorted((bar.get_x(), bar.get_x() + bar.get_width(), bar.get_height()) for bar in axis.patches)
    assert [height for *_, height in bars] == [0.1, 0.3, 0.2, 0.4]
    assert all(end <= start for (_, end, _), (start, *_) in itertools.pairwise(bars))
    assert [label.get_text() for label in axis.get_xticklabels()] == ["x", "y"]


@pytest.mark.parametrize("text", ["a long prompt " * 12, pytest.param("一个红色的圆形" * 8, marks=no_chinese)])
def test_long_titles_are_not_cut(text):
    few = ["a", "b"]
    images = RNG.integers(0, 255, (2, 24, 24, 3), np.uint8)
    for figure in (
        plots.attention(IMAGE, text, few, maps_of(2)),
        plots.grid([text, text], images[:, None]),
        Influence(IMAGE, text, few, images, RNG.random((2, 24, 24))).plot(),
    ):
        crop = render(figure)
        for part in figure.subfigs or [figure]:
            box = part._suptitle.get_window_extent()
            assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and not is_uniform(crop(part._suptitle))
            assert not any(box.overlaps(axis.get_tightbbox()) for axis in part.get_axes() if axis.images)


def test_dollar_signs_are_literal(tmp_path):
    figure = plots.attention(IMAGE, "$5 or $x_{$", ["$5", "or", "$x_{$"], maps_of(3), tmp_path / "plot.png")
    crop = render(figure)
    assert not any(is_uniform(crop(axis)) for axis in figure.axes)
    assert (tmp_path / "plot.png").stat().st_size > 1000
