"""The three methods side by side: the same labeled pairs, the same test pairs, each until validation stops
improving. The baselines are the most frequent class and one modality alone."""

import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from mmkeras import zoo
from mmkeras._utils import progress
from mmkeras.distribute import collectives
from mmkeras.evaluation.metrics import attribute_accuracy
from mmkeras.methods import joint_training, modality_translation, scenes
from mmkeras.methods.experiments import pretraining, protocol, records
from mmkeras.methods.experiments.protocol import LABELED, SEEDS, Trained

RESULTS = Path(__file__).with_name("comparison.json")
COMMAND = 'python -c "from mmkeras.methods.experiments import comparison; comparison.run()"'
METHODS = ("joint training", "cross-modal pre-training", "modality translation")


@dataclass(frozen=True)
class Results:
    """What `run` measures.

    Attributes:
        accuracy: {method or baseline: {labeled pairs: share of test pairs with all attributes right, a seed}}.
        steps: {method or baseline: {labeled pairs: steps up to the best weights, per seed}}.
        costs: {method: {"parameters", "seconds" of training with the most pairs, "pretraining_data",
            "pretraining_seconds"}}; means over the seeds.
        translated: {attribute: [accuracy of the ready-trained image classifier on translated test texts whose
            word for it is there, and of those whose word is masked]}.
        measured: How and when, see `records.write`.
    """

    accuracy: dict[str, dict[str, list[float]]]
    steps: dict[str, dict[str, list[int]]]
    costs: dict[str, dict[str, Any]]
    translated: dict[str, list[float]]
    measured: dict[str, Any] = field(default_factory=dict)

    def __str__(self):
        numbers = list(next(iter(self.accuracy.values())))
        rows = [["all attributes right, mean (range), steps", *(f"{n} pairs" for n in numbers)]]
        for name, shares in self.accuracy.items():
            cells = [
                records.cell(s) + (f", {np.mean(self.steps[name][n]):.0f}" if name in self.steps else "")
                for n, s in shares.items()
            ]
            rows.append([name, *cells])
        return records.table(rows)

    def table_of_costs(self) -> str:
        """What each method needs, as text."""
        columns = list(next(iter(self.costs.values())))
        rows = [["method", *columns]]
        return records.table(rows + [[name, *map(str, cost.values())] for name, cost in self.costs.items()])

    def plot(self, path: str | os.PathLike | None = None):
        """Plots `accuracy`: mean and range of the seeds. Returns a matplotlib Figure."""
        from mmkeras.evaluation import plots

        ys = {name: list(shares.values()) for name, shares in self.accuracy.items()}
        return plots.lines(LABELED, ys, "labeled pairs", "all attributes right", path, log_x=True)

    def winner(self, pairs: int) -> str | None:
        """The method whose worst seed is ahead of the best seeds of both others, or None.

        Args:
            pairs: int. Number of labeled pairs, of `LABELED`.
        """
        shares = {name: self.accuracy[name][str(pairs)] for name in METHODS}
        best = max(shares, key=lambda name: min(shares[name]))
        others = [share for name in METHODS if name != best for share in shares[name]]
        return best if min(shares[best]) > max(others) else None


def run(path: str | os.PathLike = RESULTS) -> Results:
    """Trains each method with each number of labeled pairs and each seed, and writes what `results` returns.

    Cross-modal pre-training was measured on the same pairs, by `pretraining.run`; its results are read.
    """
    start = time.perf_counter()
    train, validation, test = protocol.pairs()
    generator = zoo.pretrained("text_to_image")
    drawn = [modality_translation.translated(generator, split) for split in (train, validation, test)]
    # the generated images as a modality of their own
    train, validation, test = (
        replace(split, inputs=split.inputs | {"translated": images.astype("float32")})
        for split, images in zip((train, validation, test), drawn, strict=True)
    )
    methods = {
        "image alone": lambda *of: _joint_training(*of, modalities=["image"]),
        "text alone": lambda *of: _joint_training(*of, modalities=["text"]),
        "joint training": lambda *of: _joint_training(*of, modalities=["image", "text"]),
        "modality translation": _modality_translation,
    }
    accuracy = {name: {str(n): [] for n in LABELED} for name in ("most frequent class", *methods)}
    steps, seconds = ({name: {str(n): [] for n in LABELED} for name in methods} for _ in range(2))
    parameters = {}
    for seed in progress.bar(SEEDS, "seeds"):
        for n in LABELED:
            labeled = train.sample(n, seed)
            accuracy["most frequent class"][str(n)].append(protocol.most_frequent(labeled, test)["all"])
            for name, method in methods.items():
                fit, scores = method(labeled, validation, test, seed)
                accuracy[name][str(n)].append(scores["all"])
                steps[name][str(n)].append(fit.steps)
                seconds[name][str(n)].append(fit.seconds)
                parameters[name] = fit.classifier.model.count_params()
    measured = pretraining.results()
    accuracy["cross-modal pre-training"] = measured.accuracy["words"]
    steps["cross-modal pre-training"] = measured.steps["words"]
    most, card = str(max(LABELED)), zoo.card("text_to_image")
    costs = {
        "joint training": (parameters["joint training"], seconds["joint training"][most], "none", 0),
        "cross-modal pre-training": (
            measured.parameters,
            measured.seconds["words"][most],
            f"{protocol.PAIRS} texts with masked words",
            np.mean(measured.pretraining_seconds["words"]),
        ),
        "modality translation": (
            parameters["modality translation"] + generator.model.count_params(),
            seconds["modality translation"][most],
            "4000 images with clean captions, which state all labels",
            card["seconds"],
        ),
    }
    columns = ("parameters", "seconds", "pretraining_data", "pretraining_seconds")
    outcome = Results(
        {name: accuracy[name] for name in ("most frequent class", "image alone", "text alone", *METHODS)},
        steps,
        {
            name: dict(zip(columns, (count, round(np.mean(training)), data, round(extra)), strict=True))
            for name, (count, training, data, extra) in costs.items()
        },
        _translated(drawn[2], test),
    )
    return records.write(path, COMMAND, start, outcome)


def results() -> Results:
    """The shipped results of `run`."""
    return records.read(RESULTS, Results)


# --- the methods: → the trained model, and its accuracy on the test pairs ---


def _joint_training(labeled, validation, test, seed, modalities) -> tuple[Trained, dict[str, float]]:
    keras.utils.set_random_seed(seed)
    encoders = joint_training.encoders(labeled.vocabulary, modalities)
    model = joint_training.build(encoders, scenes.CLASSES, learning_rate=1e-3)
    fit = protocol.best_fit(model, labeled, validation, protocol.STEPS, seed)
    return fit, fit.classifier.evaluate(test)


def _modality_translation(labeled, validation, test, seed) -> tuple[Trained, dict[str, float]]:
    """One classifier of images, trained on real and generated ones. The probabilities of the two images of a
    test pair are multiplied, as if they were independent given the scene (product of experts)."""
    labeled, validation, test = map(_as_images, (labeled, validation, test))
    fit, _ = _joint_training(labeled, validation, test, seed, ["image"])
    logits = collectives.predict_batches(fit.classifier.model, {"image": test.inputs["image"]})
    predicted = {
        name: sum(np.split(np.asarray(ops.log_softmax(values)), 2)).argmax(axis=-1)
        for name, values in logits.items()
    }
    half = {name: np.split(ids, 2)[0] for name, ids in test.labels.items()}
    return fit, attribute_accuracy(predicted, half)


def _as_images(examples):
    """2N examples with one image each: the real ones, then the generated ones."""
    images = np.concatenate([examples.inputs["image"], examples.inputs["translated"]])
    labels = {name: np.tile(ids, 2) for name, ids in examples.labels.items()}
    return replace(examples, inputs={"image": images}, labels=labels)


def _translated(images, test):
    """See `Results.translated`."""
    predicted = zoo.pretrained("attribute_classifier").predict(images)[0]
    words = [text.split() for text in test.texts]
    shares = {}
    for name, values in scenes.ATTRIBUTES.items():
        right = predicted[name] == test.labels[name]
        is_there = np.array(
            [
                set(values[label].split()) <= set(text)
                for label, text in zip(test.labels[name], words, strict=True)
            ]
        )
        shares[name] = [round(float(right[is_there].mean()), 3), round(float(right[~is_there].mean()), 3)]
    return shares
