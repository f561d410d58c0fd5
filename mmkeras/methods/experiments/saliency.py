"""How far explanations of the ready-trained image models can be trusted: each method on the trained and on
shuffled weights, the share of its maps on the object, and deletion and insertion against a random order."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from mmkeras import zoo
from mmkeras._utils import progress
from mmkeras.captioning import Captioner
from mmkeras.evaluation import explain, faithfulness
from mmkeras.evaluation.explanations import focus
from mmkeras.methods.experiments import records
from mmkeras.methods.experiments.protocol import SEEDS
from mmkeras.toy import render, scene

RESULTS = Path(__file__).with_name("saliency.json")
COMMAND = 'python -c "from mmkeras.methods.experiments import saliency; saliency.run()"'
IMAGES, CURVES, CAPTIONED = 32, 12, 12  # of the test split: explained, with curves, explained by the captioner
ATTRIBUTES = ("color", "shape", "place")
# a row of the tables: a method and its options
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "integrated gradients": ("integrated_gradients", {}),
    "integrated gradients, from black": ("integrated_gradients", {"baseline": 0}),
    "gradient × input": ("gradient_x_input", {}),
    "occlusion": ("occlusion", {"stride": 8}),
    "HiResCAM": ("hires_cam", {}),
    "Grad-CAM": ("grad_cam", {}),
    "gradient": ("gradient", {}),
}
NO_NETWORK = "difference from the background"  # needs no network, so shuffling changes nothing
OF_WORDS = {"attention": "attention", "HiResCAM": "hires_cam", "gradient × input": "gradient_x_input"}


@dataclass(frozen=True)
class Results:
    """What `run` measures.

    Attributes:
        focus: {method: {attribute: {"trained": [a number], "shuffled": one per seed}}}, of the classifier: the
            share of a map on the object, divided by the object's share of the area, averaged over the images
            whose map is not empty.
        empty: {method: {attribute: share of the images whose map is empty}}, trained.
        curves: {method: {"deletion", "insertion": {"trained": [a number], "shuffled": one per seed}}}: the
            probability of the class on the way, averaged over images and attributes, in the order of the maps
            of the trained or of the shuffled classifier. For "random" one per seed.
        words: {method: {"color" or "shape": as in `focus`}}, of the words of the captioner.
        measured: How and when, see `records.write`.
    """

    focus: dict[str, dict[str, dict[str, list[float]]]]
    empty: dict[str, dict[str, float]]
    curves: dict[str, dict[str, dict[str, list[float]]]]
    words: dict[str, dict[str, dict[str, list[float]]]]
    measured: dict[str, Any] = field(default_factory=dict)

    def table(self, which: str = "focus") -> str:
        """`"focus"`, `"words"` or `"curves"` as text: trained, and in parentheses the range of the shuffled."""
        rows = getattr(self, which)
        columns = list(next(iter(rows.values())))
        lines = [["", *columns], *([name, *map(_cell, row.values())] for name, row in rows.items())]
        return records.table(lines)

    def plot(self, path: str | os.PathLike | None = None):
        """Plots the focus on the color: trained and shuffled. Returns a matplotlib Figure."""
        from mmkeras.evaluation import plots

        scores = {
            kind: {
                name.replace(" ", "\n"): float(np.mean(row["color"].get(kind, row["color"]["trained"])))
                for name, row in self.focus.items()
            }
            for kind in ("trained", "shuffled")
        }
        return plots.bars(scores, "share of the map / share of the area", path)


def run(
    path: str | os.PathLike = RESULTS, images: int = IMAGES, curves: int = CURVES, captioned: int = CAPTIONED
) -> Results:
    """Explains answers of the ready-trained classifier and captioner, and writes what `results` returns.

    Args:
        path: str or path. The file. Defaults to the one that ships.
        images, curves, captioned: int. Numbers of images: for the focus, for the curves, and for the words of
            captions. Default to 32, 12 and 12.
    """
    start = time.perf_counter()
    batch = np.stack([render.draw("test", i) for i in range(images)]).astype("float32")
    of_classifier = _of_classifier(batch, curves)
    words = _of_captioner(batch[:captioned].astype("uint8"))
    return records.write(path, COMMAND, start, Results(*of_classifier, words))


def results() -> Results:
    """The shipped results of `run`."""
    return records.read(RESULTS, Results)


def score_of(outputs_of: str, ids: np.ndarray, classes: int, probability: bool = False) -> Callable[[Any], Any]:
    """The logit, or the probability, of the class of each row: outputs of the classifier → (B,).

    Args:
        outputs_of: str. The attribute.
        ids: (B,) int. The classes.
        classes: int. Number of classes.
        probability: bool. Whether the score is the probability. Defaults to False.
    """
    chosen = np.eye(classes, dtype="float32")[ids]

    def score(outputs):
        logits = outputs[outputs_of]
        return ops.sum((ops.softmax(logits) if probability else logits) * chosen, axis=-1)

    return score


def _of_classifier(batch, count):
    classifier = zoo.pretrained("attribute_classifier")
    regions = [render.foreground(image.astype("uint8")) for image in batch]
    ids = classifier.predict(batch)[0]
    models = {"trained": [classifier.model], "shuffled": _shuffled(classifier.model)}
    focused: dict = {name: {} for name in (*METHODS, NO_NETWORK)}
    empty: dict = {name: {} for name in METHODS}
    curves: dict = {name: {} for name in (*METHODS, NO_NETWORK, "random")}
    for attribute in progress.bar(ATTRIBUTES, "attributes"):
        chosen, classes = ids[attribute], len(classifier.attributes[attribute])
        logit = score_of(attribute, chosen, classes)
        probability = score_of(attribute, chosen[:count], classes, probability=True)
        maps: dict = {
            name: {
                kind: [explain.maps(method, model, batch, logit, **options) for model in some]
                for kind, some in models.items()
            }
            for name, (method, options) in METHODS.items()
        }
        maps[NO_NETWORK] = {"trained": [faithfulness.difference(batch)]}
        randoms = [np.random.default_rng(seed).random(batch.shape[:3], np.float32) for seed in SEEDS]
        for name, kinds in maps.items():
            focused[name][attribute] = {
                kind: [_focus(each, regions) for each in some] for kind, some in kinds.items()
            }
            if name in empty:
                empty[name][attribute] = float(np.mean(kinds["trained"][0].max(axis=(1, 2)) <= 0))
        for name, kinds in (maps | {"random": {"trained": randoms}}).items():
            for way in (faithfulness.deletion, faithfulness.insertion):
                for kind, some in kinds.items():
                    areas = [
                        float(
                            faithfulness.area(
                                way(classifier.model, batch[:count], probability, each[:count])
                            ).mean()
                        )
                        for each in some
                    ]
                    curves[name].setdefault(way.__name__, {}).setdefault(kind, []).append(areas)
    means = {
        name: {
            way: {kind: np.mean(areas, axis=0).round(4).tolist() for kind, areas in kinds.items()}
            for way, kinds in ways.items()
        }
        for name, ways in curves.items()
    }
    return focused, empty, means


def _of_captioner(images):
    captioner = zoo.pretrained("captioning")
    captioner.novelty = None  # a toy image is not unlike toy images
    captions = captioner(list(images))
    kinds = {"trained": [captioner], "shuffled": [Captioner(x) for x in _shuffled(captioner.model)]}
    known = {"color": scene.COLORS, "shape": scene.SHAPES}
    found: dict = {name: {word: {} for word in known} for name in OF_WORDS}
    for name, method in progress.bar(list(OF_WORDS.items()), "methods"):
        for kind, some in kinds.items():
            for each in some:
                values: dict = {word: [] for word in known}
                for image, caption in zip(images, captions, strict=True):
                    explanation = each.explain(image, method, caption=caption)
                    favors = explanation.focus(render.foreground(image))
                    for attribute, words in known.items():
                        values[attribute] += [
                            value
                            for word, value, m in zip(explanation.words, favors, explanation.maps, strict=True)
                            if word in words and m.any()
                        ]
                for attribute in known:
                    found[name][attribute].setdefault(kind, []).append(_mean(values[attribute]))
    return found


def _shuffled(model: keras.Model) -> list[keras.Model]:
    return [explain.shuffled(model, seed) for seed in SEEDS]


def _focus(maps, regions):
    """The mean focus of the maps (B, S, S) that are not empty."""
    return _mean(
        [focus(each[None], region)[0] for each, region in zip(maps, regions, strict=True) if each.max() > 0]
    )


def _mean(values):
    return round(float(np.mean(values)), 4) if len(values) else 0.0


def _cell(kinds):
    value = kinds["trained"]
    text = f"{np.mean(value):.2f}"
    if "shuffled" in kinds:
        text += f" ({min(kinds['shuffled']):.2f} to {max(kinds['shuffled']):.2f})"
    return text
