"""Data (chapter 8.2): what wrong labels, augmentation, and missing texts do to the accuracy.

Each model trains for the same number of steps, and validation, which is clean, chooses its best weights. How
accuracy grows with the number of images is part of `scaling`.
"""

import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from mmkeras._utils import progress
from mmkeras.evaluation.metrics import attribute_accuracy
from mmkeras.methods import scenes
from mmkeras.methods.experiments import protocol, records, small
from mmkeras.methods.experiments.protocol import SEEDS
from mmkeras.methods.scenes import Examples
from mmkeras.text.vocabulary import PAD, SPECIAL

RESULTS = Path(__file__).with_name("data.json")
COMMAND = 'python -c "from mmkeras.methods.experiments import data; data.run()"'
SIZES = {"train": 2000, "validation": 250, "test": 1000}
IMAGES = 1000  # of training, with wrong labels or missing texts
WRONG_RATES = (0.0, 0.2, 0.4, 0.6)
MISSING_RATES = (0.0, 0.5, 0.9)
AUGMENTED = (125, 500)  # training images, before augmentation
AUGMENTATIONS = ("none", "mirrored, old labels", "mirrored", "shifted")
ADDED = "image alone + words, counted"  # log-probabilities
COPIES, SHIFT = 4, 1  # shifted copies of an image, pixels
PAIRS = {"gray": 0.5, "masked": 0.35}  # what pairs of image and text lack, besides the noise


@dataclass(frozen=True)
class Results:
    """Shares of test examples with all attributes right, one per seed.

    Attributes:
        wrong_labels: {training: {rate of wrong labels: a share per seed}}. `"all"` trains on all images,
            `"the right ones"` on those alone whose labels are right.
        augmentation: {augmentation: {number of images: a share per seed}}.
        missing_texts: {training: {rate of missing texts: a share per seed}}. `"all"` trains on all images,
            `"complete pairs"` on those alone that have a text, `"image alone"` without texts, though the test
            has all of them. `"words, counted"` is `counted` on the texts, to which the image alone is added.
        chance: Of the most frequent class.
        measured: How and when, see `records.write`.
    """

    wrong_labels: dict[str, dict[str, list[float]]]
    augmentation: dict[str, dict[str, list[float]]]
    missing_texts: dict[str, dict[str, list[float]]]
    chance: list[float]
    measured: dict[str, Any] = field(default_factory=dict)

    def __str__(self):
        tables = {
            "rate of wrong labels": self.wrong_labels,
            "images": self.augmentation,
            "rate of missing texts": self.missing_texts,
        }
        texts = [small.table(title, rows) for title, rows in tables.items()]
        return "\n\n".join([*texts, f"most frequent class: {records.cell(self.chance)}"])

    def plot(self, path: str | os.PathLike | None = None):
        """Plots the accuracy over the rates of wrong labels: mean and range. Returns a matplotlib Figure."""
        return _plot(self.wrong_labels, "rate of wrong labels", path)

    def plot_missing(self, path: str | os.PathLike | None = None):
        """Plots the accuracy over the rates of missing texts: mean and range. Returns a matplotlib Figure."""
        return _plot(self.missing_texts, "rate of missing texts", path)


def run(path: str | os.PathLike = RESULTS) -> Results:
    """Trains a model for each training, rate or number, and seed, and writes what `results` returns."""
    start = time.perf_counter()
    images = [small.examples(split, count) for split, count in SIZES.items()]
    pairs = [small.examples(split, count, ("image", "text"), **PAIRS) for split, count in SIZES.items()]
    wrong, augmented, missing, chance = {}, {}, {}, []
    for seed in progress.bar(SEEDS, "seeds"):
        sample = images[0].sample(IMAGES, seed)
        chance.append(protocol.most_frequent(sample, images[2])["all"])
        for rate in WRONG_RATES:
            noisy, is_wrong = mislabeled(sample, rate, seed)
            _append(wrong, "all", rate, noisy, images, seed)
            if rate:
                _append(wrong, "the right ones", rate, noisy.take(np.flatnonzero(~is_wrong)), images, seed)
        for n in AUGMENTED:
            for name in AUGMENTATIONS:
                _append(augmented, name, n, augmentation(images[0].sample(n, seed), name, seed), images, seed)
        sample, both = pairs[0].sample(IMAGES, seed), ("image", "text")
        fit = small.trained(sample, pairs[1], seed=seed)
        image = fit.classifier.model.predict({"image": pairs[2].inputs["image"]}, verbose=0)
        image = {name: np.asarray(ops.log_softmax(logits)) for name, logits in image.items()}
        for rate in MISSING_RATES:
            partial, is_missing = without_texts(sample, rate, seed)
            _append(missing, "all", rate, partial, pairs, seed, both)
            complete = partial.take(np.flatnonzero(~is_missing))
            if rate:
                _append(missing, "complete pairs", rate, complete, pairs, seed, both)
            words = counted(complete, pairs[2])
            added = {name: image[name] + words[name] for name in image}
            for name, scores in {"image alone": image, "words, counted": words, ADDED: added}.items():
                predicted = {attribute: values.argmax(axis=1) for attribute, values in scores.items()}
                share = attribute_accuracy(predicted, pairs[2].labels)["all"]
                missing.setdefault(name, {}).setdefault(str(rate), []).append(share)
    # where nothing is wrong or missing, the two trainings are the same
    wrong["the right ones"] = {"0.0": wrong["all"]["0.0"]} | wrong["the right ones"]
    missing["complete pairs"] = {"0.0": missing["all"]["0.0"]} | missing["complete pairs"]
    return records.write(path, COMMAND, start, Results(wrong, augmented, missing, chance))


def results() -> Results:
    """The shipped results of `run`."""
    return records.read(RESULTS, Results)


def mislabeled(examples: Examples, rate: float, seed: int) -> tuple[Examples, np.ndarray]:
    """Gives a share of the examples the labels of another one of them, as a wrong caption would.

    Returns:
        The examples, and which of them have the labels of another one, (N,) bool.
    """
    rng, is_wrong = np.random.default_rng(seed), np.zeros(len(examples), bool)
    chosen = rng.permutation(len(examples))[: round(rate * len(examples))]
    is_wrong[chosen] = True
    rows = np.arange(len(examples))
    rows[chosen] = np.roll(chosen, 1)
    return replace(examples, labels={name: ids[rows] for name, ids in examples.labels.items()}), is_wrong


def augmentation(examples: Examples, name: str, seed: int) -> Examples:
    """The examples and changed copies of them.

    Args:
        name: str. `"none"`; `"mirrored, old labels"`, where left is still called left; `"mirrored"`, where it
            is called right; or `"shifted"` by up to a pixel.
    """
    if name == "none":
        return examples
    if name == "shifted":
        rng, images = np.random.default_rng(seed), examples.inputs["image"]
        padded = np.pad(images, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), "edge")
        copies = []
        for _ in range(COPIES):
            corners = rng.integers(0, 2 * SHIFT + 1, (len(images), 2))
            moved = [
                one[y : y + small.SIDE, x : x + small.SIDE] for one, (x, y) in zip(padded, corners, strict=True)
            ]
            copies.append(replace(examples, inputs={"image": np.stack(moved)}))
        return small.joined(*copies)
    return small.with_mirrored(examples, relabel=name == "mirrored")


def without_texts(examples: Examples, rate: float, seed: int) -> tuple[Examples, np.ndarray]:
    """Removes the texts of a share of the pairs.

    Returns:
        The examples, whose missing texts are padding alone, and which texts are missing, (N,) bool.
    """
    is_missing = np.zeros(len(examples), bool)
    is_missing[np.random.default_rng(seed).permutation(len(examples))[: round(rate * len(examples))]] = True
    text = np.where(is_missing[:, None], PAD, examples.inputs["text"])
    return replace(examples, inputs=examples.inputs | {"text": text}), is_missing


def counted(train: Examples, test: Examples) -> dict[str, np.ndarray]:
    """Reads texts without a network: log-likelihoods (N, classes) of each attribute, from how many of its
    training texts have each word of a test text (naive Bayes, Maron 1961), as if half a text more had it."""
    has = [
        np.eye(len(train.vocabulary))[x.inputs["text"]].max(axis=1)[:, len(SPECIAL) :] for x in (train, test)
    ]
    classes = {name: np.eye(scenes.CLASSES[name])[ids] for name, ids in train.labels.items()}  # (N, classes)
    return {name: has[1] @ np.log((has[0].T @ of + 0.5) / (of.sum(axis=0) + 1)) for name, of in classes.items()}


def _append(scores, name, key, train, splits, seed, modalities=("image",)):
    """Trains a model and appends its accuracy."""
    _, validation, test = splits
    fit = small.trained(train, validation, seed=seed, modalities=modalities)
    scores.setdefault(name, {}).setdefault(str(key), []).append(fit.classifier.evaluate(test)["all"])


def _plot(rows, x_label, path):
    from mmkeras.evaluation import plots

    rates = [float(rate) for rate in next(iter(rows.values()))]
    ys = {name: list(shares.values()) for name, shares in rows.items()}
    return plots.lines(rates, ys, x_label, "all attributes right", path)
