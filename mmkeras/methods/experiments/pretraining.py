"""The gain from pre-training on single modalities, at an equal budget.

Each model trains for at most 1,000 steps in all. From scratch all of them are on labeled pairs; a pre-trained
one has spent 400 of them on unlabeled texts. Validation chooses the best weights.
"""

import functools
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras

from mmkeras._utils import progress
from mmkeras.methods import classification, cross_modal_pretraining, joint_training, scenes
from mmkeras.methods.classification import Classifier
from mmkeras.methods.cross_modal_pretraining import SharedEncoder
from mmkeras.methods.experiments import protocol, records
from mmkeras.methods.experiments.protocol import LABELED, SEEDS, Trained

RESULTS = Path(__file__).with_name("pretraining.json")
COMMAND = 'python -c "from mmkeras.methods.experiments import pretraining; pretraining.run()"'
SHORT_STEPS = 300  # from scratch, too few
COMPARED = 200  # labeled pairs with which all kinds of pre-training are measured
MASKED_RATES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the words in pairs of text and speech
SPEECH_SIZES = {"train": 2000, "validation": 200, "test": 400}
SHORT = f"none, {SHORT_STEPS} steps"


@dataclass(frozen=True)
class Results:
    """Shares of test pairs with all attributes right, one per seed.

    Attributes:
        accuracy: {kind of pre-training: {labeled pairs: a share per seed}}. `"none"` is from scratch; `"none,
            300 steps"` is a shorter training.
        steps: {kind: {labeled pairs: steps on pairs, per seed}}, up to the best weights.
        seconds: {kind: {labeled pairs: seconds of training, per seed}}, pre-training not included.
        pretraining_seconds: {kind: seconds per seed}.
        parameters: Of the model.
        speech: {kind: {rate of masked words in the text: a share per seed}}; `"text alone"` is an LSTM
            without the speech.
        measured: How and when, see `records.write`.
    """

    accuracy: dict[str, dict[str, list[float]]]
    steps: dict[str, dict[str, list[int]]]
    seconds: dict[str, dict[str, list[float]]]
    pretraining_seconds: dict[str, list[float]]
    parameters: int
    speech: dict[str, dict[str, list[float]]]
    measured: dict[str, Any] = field(default_factory=dict)

    def plot(self, path: str | os.PathLike | None = None):
        """Plots `accuracy` where it has all numbers of pairs: mean and range of the seeds. Returns a matplotlib
        Figure."""
        from mmkeras.evaluation import plots

        names = {"none": "from scratch", SHORT: "from scratch, 300 steps", "words": "pre-trained on words"}
        ys = {name: list(self.accuracy[kind].values()) for kind, name in names.items()}
        return plots.lines(LABELED, ys, "labeled pairs", "all attributes right", path, log_x=True)

    def plot_speech(self, path: str | os.PathLike | None = None):
        """Plots `speech`: mean and range of the seeds. Returns a matplotlib Figure."""
        from mmkeras.evaluation import plots

        names = {"none": "from scratch", "words": "pre-trained on words", "text alone": "LSTM, text alone"}
        ys = {name: list(self.speech[kind].values()) for kind, name in names.items()}
        x_label = "rate of masked words in the text"
        return plots.lines(MASKED_RATES, ys, x_label, "all attributes right", path)


def pretrained(kind: str, seed: int = 0) -> SharedEncoder:
    """Step 1: a new encoder, pre-trained for 400 steps on the texts and the images of `protocol.pairs`, without
    their pairing.

    Args:
        kind: str. One of `cross_modal_pretraining.KINDS`.
        seed: int. Seed of the initial weights and of the order of the examples. Defaults to 0.
    """
    keras.utils.set_random_seed(seed)
    train, _, _ = protocol.pairs()
    encoder = cross_modal_pretraining.shared_encoder(train.vocabulary)
    cross_modal_pretraining.pretrain(encoder, train, kind, steps=protocol.PRETRAINING_STEPS, seed=seed)
    return encoder


def fine_tuned(
    encoder: SharedEncoder, labeled: scenes.Examples, validation: scenes.Examples, kind: str, *, seed: int = 0
) -> Trained:
    """Step 2: a copy of the encoder and a new g, trained on labeled pairs for the steps that are left.

    Args:
        encoder: SharedEncoder. It stays as it is.
        labeled, validation: Examples of two modalities.
        kind: str. How the encoder was pre-trained.
        seed: int. Seed of g and of the order of the examples. Defaults to 0.
    """
    keras.utils.set_random_seed(seed)
    steps = protocol.STEPS - (protocol.PRETRAINING_STEPS if kind != "none" else 0)
    with classification.scope(encoder.h):
        model = cross_modal_pretraining.build(encoder.copy(), scenes.CLASSES, tuple(labeled.inputs))
    return protocol.best_fit(model, labeled, validation, steps, seed)


@functools.cache
def spoken_pairs() -> tuple[scenes.Examples, scenes.Examples, scenes.Examples]:
    """Texts and their speech: for training, with three quarters of the words masked, for validation, likewise,
    and for testing, with none masked."""
    train, validation, test = (
        scenes.examples(split, n, modalities=("text", "speech")) for split, n in SPEECH_SIZES.items()
    )
    return scenes.degraded(train, masked=0.75), scenes.degraded(validation, masked=0.75, seed=1), test


def run(path: str | os.PathLike = RESULTS) -> Results:
    """Measures each kind with each number of labeled pairs and each seed, and writes what `results` returns."""
    start = time.perf_counter()
    train, validation, test = protocol.pairs()
    counts = {
        kind: LABELED if kind in ("none", "words") else (COMPARED,) for kind in cross_modal_pretraining.KINDS
    }
    accuracy, steps, seconds = (
        {kind: {str(n): [] for n in numbers} for kind, numbers in counts.items()} for _ in range(3)
    )
    accuracy[SHORT] = {str(n): [] for n in LABELED}
    pretraining_seconds = {kind: [] for kind in counts}
    speech = {kind: {str(rate): [] for rate in MASKED_RATES} for kind in ("none", "words", "text alone")}
    for seed in progress.bar(SEEDS, "seeds"):
        for kind, numbers in counts.items():
            start_of_kind = time.perf_counter()
            encoder = pretrained(kind, seed)
            pretraining_seconds[kind].append(round(time.perf_counter() - start_of_kind, 1))
            for n in numbers:
                labeled = train.sample(n, seed)
                if kind == "none":
                    accuracy[SHORT][str(n)].append(
                        _after_few_steps(encoder, labeled, seed).evaluate(test)["all"]
                    )
                fit = fine_tuned(encoder, labeled, validation, kind, seed=seed)
                accuracy[kind][str(n)].append(fit.classifier.evaluate(test)["all"])
                steps[kind][str(n)].append(fit.steps)
                seconds[kind][str(n)].append(round(fit.seconds, 1))
            if kind in speech:
                _append(speech[kind], fine_tuned(encoder, *spoken_pairs()[:2], kind, seed=seed).classifier)
        _append(speech["text alone"], _text_alone(seed))
    parameters = fit.classifier.model.count_params()
    outcome = Results(accuracy, steps, seconds, pretraining_seconds, parameters, speech)
    return records.write(path, COMMAND, start, outcome)


def results() -> Results:
    """The shipped results of `run`."""
    return records.read(RESULTS, Results)


def _after_few_steps(encoder, labeled, seed):
    keras.utils.set_random_seed(seed)
    model = cross_modal_pretraining.build(encoder.copy(), scenes.CLASSES, decay_steps=SHORT_STEPS)
    return Classifier(classification.fit(model, labeled, SHORT_STEPS, seed))


def _text_alone(seed):
    keras.utils.set_random_seed(seed)
    train, validation, _ = spoken_pairs()
    model = joint_training.build(joint_training.encoders(train.vocabulary, ["text"]), scenes.CLASSES)
    return protocol.best_fit(model, train, validation, protocol.STEPS, seed).classifier


def _append(shares, classifier):
    """Appends the accuracy at each rate of masked words."""
    test = spoken_pairs()[2]
    for rate, values in shares.items():
        values.append(classifier.evaluate(scenes.degraded(test, masked=float(rate), seed=2))["all"])
