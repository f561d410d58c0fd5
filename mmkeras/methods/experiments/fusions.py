"""Joint training on degraded toy scenes: a model for each modality, one for each fusion, and each of them with
a modality missing."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras

from mmkeras._utils import progress
from mmkeras.evaluation.metrics import attribute_accuracy
from mmkeras.methods import classification, joint_training, scenes
from mmkeras.methods.experiments import records
from mmkeras.methods.experiments.protocol import SEEDS

RESULTS = Path(__file__).with_name("fusions.json")
COMMAND = 'python -c "from mmkeras.methods.experiments import fusions; fusions.run()"'
TRAIN, TEST, STEPS, MODALITY_DROPOUT = 2000, 1000, 800, 0.5
MASKED_RATES = (0.0, 0.2, 0.35, 0.5, 0.75, 1.0)
MODALITIES = ("image", "text", "touch")
# model: its modalities and its fusion
MODELS = {
    **{name: ((name,), "concat") for name in MODALITIES},
    **{fusion: (("image", "text"), fusion) for fusion in joint_training.FUSIONS},
    "concat of three": (MODALITIES, "concat"),
}


@dataclass(frozen=True)
class Results:
    """Shares of test scenes with all attributes right, one per seed.

    Attributes:
        scores: {model: {modalities that it is given: a share per seed}}.
        color: {model: a share of colors per seed}, with all its modalities.
        curves: {model: {rate of masked words: a share per seed}}, for `image`, `text` and `concat`.
        measured: How and when, see `records.write`.
    """

    scores: dict[str, dict[str, list[float]]]
    color: dict[str, list[float]]
    curves: dict[str, dict[str, list[float]]]
    measured: dict[str, Any] = field(default_factory=dict)

    def plot(self, path: str | os.PathLike | None = None):
        """Plots the curves: mean and range of the seeds. Returns a matplotlib Figure."""
        from mmkeras.evaluation import plots

        ys = {name: list(shares.values()) for name, shares in self.curves.items()}
        return plots.lines(MASKED_RATES, ys, "rate of masked words", "all attributes right", path)


def run(path: str | os.PathLike = RESULTS) -> Results:
    """Trains each model with each seed for 800 steps, and writes what `results` returns."""
    start = time.perf_counter()
    train = scenes.examples("train", TRAIN, modalities=MODALITIES)
    test = scenes.examples("test", TEST, modalities=MODALITIES)
    tests = {rate: _degraded(test, masked=rate, seed=1) for rate in MASKED_RATES}
    usual = tests[scenes.DEGRADATION["masked"]]
    scores = {name: {" + ".join(given): [] for given in _subsets(names)} for name, (names, _) in MODELS.items()}
    color = {name: [] for name in MODELS}
    curves = {name: {str(rate): [] for rate in MASKED_RATES} for name in ("image", "text", "concat")}
    for seed in progress.bar(SEEDS, "seeds"):
        data = _degraded(train, seed=seed)
        for name, (names, fusion) in MODELS.items():
            model = trained(data, names, fusion, seed=seed)
            for given in _subsets(names):
                predicted = model({modality: usual.inputs[modality] for modality in given})
                shares = attribute_accuracy(predicted, usual.labels)
                scores[name][" + ".join(given)].append(shares["all"])
                if given == names:
                    color[name].append(shares["color"])
            for rate, values in curves.get(name, {}).items():
                values.append(model.evaluate(tests[float(rate)])["all"])
    return records.write(path, COMMAND, start, Results(scores, color, curves))


def results() -> Results:
    """The shipped results of `run`."""
    return records.read(RESULTS, Results)


def trained(
    examples: scenes.Examples, modalities: tuple[str, ...], fusion: str = "concat", *, seed: int = 0
) -> classification.Classifier:
    """Joint training for 800 steps, with modality dropout if there are several modalities. Cross-attention gets
    sequences, the others a vector per modality.

    Args:
        examples: Examples.
        modalities: Names of modalities.
        fusion: str. See `joint_training.build`. Defaults to `"concat"`.
        seed: int. Seed of the weights and of the order of the examples. Defaults to 0.
    """
    keras.utils.set_random_seed(seed)
    encoders = joint_training.encoders(examples.vocabulary, modalities, sequences=fusion == "cross_attention")
    rate = MODALITY_DROPOUT if len(modalities) > 1 else 0.0
    model = joint_training.build(encoders, scenes.CLASSES, fusion, rate, decay_steps=STEPS)
    return classification.Classifier(classification.fit(model, examples, STEPS, seed))


def _degraded(examples, seed, **changed):
    return scenes.degraded(examples, seed=seed, **(scenes.DEGRADATION | changed))


def _subsets(names):
    """All of the modalities, and each alone."""
    return [names, *((name,) for name in names if len(names) > 1)]
