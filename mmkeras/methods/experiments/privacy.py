"""Privacy (chapter 8.2): whether a captioner tells which images it was trained on.

A membership test by loss (Yeom et al. 2018, arXiv:1709.01604): the lower the loss of an image and its caption,
the more likely it was in training. Members and others are drawn at random from the same scenes, so that a model
that has learned nothing about its members is at chance, an area under the ROC curve of 0.5.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from mmkeras import captioning
from mmkeras._utils import progress
from mmkeras.methods import classification
from mmkeras.methods.experiments import records, small
from mmkeras.methods.experiments.protocol import SEEDS
from mmkeras.methods.scenes import Examples
from mmkeras.nn import backbones
from mmkeras.text.vocabulary import PAD

RESULTS = Path(__file__).with_name("privacy.json")
COMMAND = 'python -c "from mmkeras.methods.experiments import privacy; privacy.run()"'
SCENES, VALIDATION, OTHERS = 2000, 128, 512
STEPS = (0, 25, 50, 100, 200, 400)  # at which it is tested; of 32 pairs
PLAIN = {"dropout": 0.0, "word_dropout": 0.0, "query_dropout": 0.0, "label_smoothing": 0.0}
MEMBERS, MORE = 128, 1024  # training pairs
FEW, REGULARIZED, MANY = "128 pairs", "128 pairs, regularized", "1024 pairs"


@dataclass(frozen=True)
class Results:
    """Values are lists, one per seed.

    Attributes:
        auc: {training: {step: area under the ROC curve of the test}}.
        found: {training: {step: share of the members that are found where 1 % of the others are taken for
            members}} (Carlini et al. 2022, arXiv:2112.03570).
        loss: {training: {step: cross-entropy per token on validation}}.
        control: {training: {step: the area if validation takes the place of the members}}. None of them is a
            member, so what differs from 0.5 is chance.
        measured: How and when, see `records.write`.
    """

    auc: dict[str, dict[str, list[float]]]
    found: dict[str, dict[str, list[float]]]
    loss: dict[str, dict[str, list[float]]]
    control: dict[str, dict[str, list[float]]]
    measured: dict[str, Any] = field(default_factory=dict)

    def chosen(self, training: str) -> list[str]:
        """The step with the lowest loss on validation, per seed."""
        steps = list(self.loss[training])
        return [steps[int(np.argmin(losses))] for losses in zip(*self.loss[training].values(), strict=True)]

    def early(self, training: str, of: str = "auc") -> list[float]:
        """Values at the steps that validation chooses.

        Args:
            training: str.
            of: str. `"auc"`, `"found"`, or `"control"`. Defaults to `"auc"`.
        """
        values = getattr(self, of)[training]
        return [values[step][seed] for seed, step in enumerate(self.chosen(training))]

    def late(self, training: str, of: str = "auc") -> list[float]:
        """Values at the end, as for `early`."""
        return list(getattr(self, of)[training].values())[-1]

    def __str__(self):
        rows = {
            name: {
                "validation chooses": self.early(name),
                "the end": self.late(name),
                "the end, no members": self.late(name, "control"),
                "found at the end": self.late(name, "found"),
            }
            for name in self.auc
        }
        return small.table("area under the ROC curve", rows)

    def plot(self, path: str | os.PathLike | None = None):
        """Plots `auc` over the steps: mean and range. Returns a matplotlib Figure."""
        from mmkeras.evaluation import plots

        ys = {name: list(values.values()) for name, values in self.auc.items()}
        ys["no members"] = list(self.control[FEW].values())
        return plots.lines(list(map(int, self.auc[FEW])), ys, "steps", "area under the ROC curve", path)


def run(path: str | os.PathLike = RESULTS) -> Results:
    """Trains the captioners with each seed, tests them, and writes what `results` returns."""
    start = time.perf_counter()
    pairs = small.examples("train", SCENES, ("image", "text"))
    trainings = {FEW: (MEMBERS, PLAIN), REGULARIZED: (MEMBERS, {}), MANY: (MORE, PLAIN)}
    measured = {name: {training: {} for training in trainings} for name in ("auc", "found", "loss", "control")}
    for seed in progress.bar(SEEDS, "seeds"):
        rows = np.random.default_rng(seed).permutation(SCENES)
        validation, others = (pairs.take(x) for x in np.split(rows[-VALIDATION - OTHERS :], [VALIDATION]))
        for training, (count, options) in trainings.items():
            members = pairs.take(rows[:count])
            for step, model in checkpoints(members, seed, options):
                of_members, of_validation, of_others = (losses(model, x) for x in (members, validation, others))
                scores = {
                    "auc": area(of_members, of_others),
                    "found": found(of_members, of_others),
                    "loss": float(of_validation.mean()),
                    "control": area(of_validation, of_others),
                }
                for name, value in scores.items():
                    measured[name][training].setdefault(str(step), []).append(round(value, 4))
    return records.write(path, COMMAND, start, Results(**measured))


def results() -> Results:
    """The shipped results of `run`."""
    return records.read(RESULTS, Results)


def checkpoints(members: Examples, seed: int, options: dict[str, float]):
    """Trains a small captioner, and yields (step, model) at each of `STEPS`.

    Args:
        members: Examples of image and text.
        seed: int. Seed of the first weights and of the order.
        options: In place of the preset `"toy"`'s, see `mmkeras.captioning.CaptioningConfig`.
    """
    keras.utils.set_random_seed(seed)
    sizes = {"image_size": small.SIDE, "units": 64, "embedding_dim": 32, "decay_steps": None}
    encoder = backbones.vgg_small(small.SIDE)
    model = captioning.build("toy", vocabulary=members.vocabulary, encoder=encoder, **(sizes | options))
    text = members.inputs["text"]
    arrays = {"image": members.inputs["image"], "tokens": text[:, :-1]}, text[:, 1:]
    # one iterator, so that no epoch is begun anew at a checkpoint
    batches = iter(classification.batches(arrays, seed))
    done = 0
    for step in STEPS:
        while done < step:
            model.train_on_batch(*next(batches))
            done += 1
        yield step, model


def losses(model: keras.Model, examples: Examples) -> np.ndarray:
    """The cross-entropy per token of each caption, (N,) float."""
    text = examples.inputs["text"]
    logits = model.predict({"image": examples.inputs["image"], "tokens": text[:, :-1]}, verbose=0)
    log_probability = np.asarray(ops.log_softmax(logits))  # (N, T, V)
    of_words = np.take_along_axis(log_probability, text[:, 1:, None], axis=-1)[..., 0]  # (N, T)
    valid = text[:, 1:] != PAD
    return -(of_words * valid).sum(axis=1) / valid.sum(axis=1)


def area(members: Sequence[float], others: Sequence[float]) -> float:
    """Area under the ROC curve: the chance that a member has a lower loss than another. Ties count half."""
    members, others = np.asarray(members)[:, None], np.asarray(others)
    return float((members < others).mean() + (members == others).mean() / 2)


def found(members: Sequence[float], others: Sequence[float], rate: float = 0.01) -> float:
    """Share of the members below the loss that a share `rate` of the others is below."""
    return float((np.asarray(members) < np.quantile(others, rate)).mean())
