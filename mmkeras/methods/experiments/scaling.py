"""Larger models and more data (chapter 8.1): accuracy against the width of a network and the number of images.

Every model trains for the same number of steps, and validation chooses its best weights. Beside them stand the
most frequent class, and the training image that is nearest by raw pixels.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmkeras._utils import progress
from mmkeras.evaluation import baselines
from mmkeras.evaluation.metrics import attribute_accuracy
from mmkeras.methods.experiments import protocol, records, small
from mmkeras.methods.experiments.protocol import SEEDS

RESULTS = Path(__file__).with_name("scaling.json")
COMMAND = 'python -c "from mmkeras.methods.experiments import scaling; scaling.run()"'
WIDTHS = (4, 8, 16, 32)
IMAGES = (125, 250, 500, 1000, 2000)  # of training
SIZES = {"train": 4000, "validation": 250, "test": 1000}  # a sample of each seed is taken from the first
NEAREST, FREQUENT = "nearest training image", "most frequent class"


@dataclass(frozen=True)
class PowerLaw:
    """error = scale · x^(-exponent).

    Attributes:
        scale, exponent: float.
        interval: 95 % interval of the exponent, by resampling the seeds. It knows nothing of a wrong form: see
            `Results.extrapolated`.
    """

    scale: float
    exponent: float
    interval: tuple[float, float]

    def __call__(self, x):
        """The error at x."""
        return self.scale * np.asarray(x, float) ** -self.exponent


def power_law(x: Sequence[float], errors: Sequence[Sequence[float]], draws: int = 1000) -> PowerLaw:
    """Fits a line to the logarithms (least squares).

    Args:
        x: N positive numbers.
        errors: N lists of errors above 0, one error per seed.
        draws: int. Number of resamplings (bootstrap, Efron 1979). Defaults to 1000.
    """
    errors = np.asarray(errors, float)  # (N, S)
    seeds = np.random.default_rng(0).integers(errors.shape[1], size=(draws, *errors.shape))
    resampled = np.take_along_axis(errors[None], seeds, axis=2).mean(axis=2)  # (draws, N)
    means = np.concatenate([errors.mean(axis=1)[None], resampled])
    slopes, intercepts = np.polyfit(np.log(x), np.log(means).T, 1)
    low, high = np.quantile(-slopes[1:], (0.025, 0.975))
    return PowerLaw(float(np.exp(intercepts[0])), float(-slopes[0]), (float(low), float(high)))


@dataclass(frozen=True)
class Results:
    """Shares of test images with all attributes right, one per seed.

    Attributes:
        accuracy: {width: {number of images: a share per seed}}.
        steps: {width: {number of images: steps up to the best weights, per seed}}.
        baselines: {baseline: {number of images: a share per seed}}.
        parameters: {width: number of parameters}.
        measured: How and when, see `records.write`.
    """

    accuracy: dict[str, dict[str, list[float]]]
    steps: dict[str, dict[str, list[int]]]
    baselines: dict[str, dict[str, list[float]]]
    parameters: dict[str, int]
    measured: dict[str, Any] = field(default_factory=dict)

    def over_images(self, width: int | str) -> tuple[list[float], list[list[float]]]:
        """The numbers of images, and the errors of a width at each of them."""
        shares = self.accuracy[str(width)]
        return list(map(int, shares)), [[1 - x for x in values] for values in shares.values()]

    def over_parameters(self, images: int | str) -> tuple[list[float], list[list[float]]]:
        """The numbers of parameters, and the errors at each of them with a number of images."""
        errors = [[1 - x for x in shares[str(images)]] for shares in self.accuracy.values()]
        return list(self.parameters.values()), errors

    def extrapolated(self, x: Sequence[float], errors: Sequence[Sequence[float]]) -> tuple[float, bool]:
        """The last error as the power law of all others predicts it, and whether it is in the range of the
        seeds."""
        predicted = float(power_law(x[:-1], errors[:-1])(x[-1]))
        return predicted, min(errors[-1]) <= predicted <= max(errors[-1])

    def __str__(self):
        rows = {f"width {w}, {self.parameters[w]} parameters": shares for w, shares in self.accuracy.items()}
        return small.table("all attributes right", self.baselines | rows)

    def table_of_laws(self) -> str:
        """The power law of each width over the images, and of each number of images over the parameters, and
        the last error as the law of the others predicts it, as text."""
        series = {f"width {width}, over images": self.over_images(width) for width in self.accuracy}
        images = next(iter(self.accuracy.values()))
        series |= {f"{n} images, over parameters": self.over_parameters(n) for n in images}
        rows = [["", "exponent (95 %)", "last error", "predicted", "in the range"]]
        for name, (x, errors) in series.items():
            law, (predicted, is_right) = power_law(x, errors), self.extrapolated(x, errors)
            low, high = law.interval
            exponent = f"{law.exponent:.2f} ({low:.2f} to {high:.2f})"
            rows.append(
                [name, exponent, records.cell(errors[-1]), f"{predicted:.3f}", "yes" if is_right else "no"]
            )
        return records.table(rows)

    def plot(self, path: str | os.PathLike | None = None):
        """Plots the accuracy over the number of images: mean and range. Returns a matplotlib Figure."""
        from mmkeras.evaluation import plots

        ys = {name: list(shares.values()) for name, shares in self.baselines.items()}
        ys |= {f"width {width}": list(shares.values()) for width, shares in self.accuracy.items()}
        numbers = list(map(int, next(iter(self.accuracy.values()))))
        return plots.lines(numbers, ys, "training images", "all attributes right", path, log_x=True)


def run(path: str | os.PathLike = RESULTS) -> Results:
    """Trains a model of each width with each number of images and each seed, and writes what `results`
    returns."""
    start = time.perf_counter()
    train, validation, test = (small.examples(split, count) for split, count in SIZES.items())
    accuracy, steps = ({str(width): {str(n): [] for n in IMAGES} for width in WIDTHS} for _ in range(2))
    trivial = {name: {str(n): [] for n in IMAGES} for name in (FREQUENT, NEAREST)}
    parameters = {str(width): small.build(width).count_params() for width in WIDTHS}
    for seed in progress.bar(SEEDS, "seeds"):
        for n in IMAGES:
            sample = train.sample(n, seed)
            trivial[FREQUENT][str(n)].append(protocol.most_frequent(sample, test)["all"])
            trivial[NEAREST][str(n)].append(_nearest(sample, test))
            for width in WIDTHS:
                fit = small.trained(sample, validation, seed=seed, width=width)
                accuracy[str(width)][str(n)].append(fit.classifier.evaluate(test)["all"])
                steps[str(width)][str(n)].append(fit.steps)
    return records.write(path, COMMAND, start, Results(accuracy, steps, trivial, parameters))


def results() -> Results:
    """The shipped results of `run`."""
    return records.read(RESULTS, Results)


def _nearest(train, test):
    rows = baselines.nearest(train.inputs["image"], test.inputs["image"])
    return attribute_accuracy({name: ids[rows] for name, ids in train.labels.items()}, test.labels)["all"]
