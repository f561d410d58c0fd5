"""The three methods side by side: one question, the same labeled pairs, the same test pairs."""

import os
import time
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from mmkeras import zoo
from mmkeras.distribute import collectives
from mmkeras.evaluation.metrics import attribute_accuracy
from mmkeras.methods import (
    classification,
    cross_modal_pretraining,
    joint_training,
    modality_translation,
    scenes,
)
from mmkeras.methods.classification import Classifier
from mmkeras.methods.scenes import Examples

STEPS = 200  # of the convolutional networks, which learn faster than a Transformer


@dataclass(frozen=True)
class Comparison:
    """What `compare` measures.

    Attributes:
        rows: A dictionary for each method: its name, `accuracy` (share of test pairs with all attributes
            right), `labeled_pairs`, `before` (what else was learned from), `parameters`, `seconds` (of training
            and testing) and `seconds_before`.
        scores: {method: {attribute: accuracy, "all": as in `rows`}}.
    """

    rows: list[dict[str, Any]]
    scores: dict[str, dict[str, float]]

    def __str__(self):
        cells = [list(self.rows[0]), *([str(value) for value in row.values()] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)

    def plot(self, path: str | os.PathLike | None = None):
        """Plots the accuracy of each attribute. Returns a matplotlib Figure."""
        from mmkeras.evaluation import plots

        return plots.bars(self.scores, "accuracy", path)


def compare(
    encoder: cross_modal_pretraining.Encoder | None = None, *, fraction: float = 0.05, seed: int = 0
) -> Comparison:
    """Which scene do a degraded image and a degraded text show? Each method answers, after training on the same
    labeled pairs.

    - joint training: an encoder per modality, trained on the pairs from nothing
    - cross-modal pre-training: one encoder, pre-trained on 4,000 texts without labels
    - modality translation: the ready-trained generator, which learned from 4,000 texts and their images
      without labels, turns the text into a second image; an image classifier, trained on the images of the
      pairs, real and generated, reads both

    Args:
        encoder: Encoder, optional. From `cross_modal_pretraining.pretrained("words")`. Defaults to None, which
            pre-trains one.
        fraction: float. Of the 4,000 pairs of `cross_modal_pretraining.pairs` that are labeled. Defaults to
            0.05.
        seed: int. Seed of the choice of the pairs and of the weights. Defaults to 0.

    Raises:
        ValueError: if the fraction leaves no pair.
    """
    train, test = cross_modal_pretraining.pairs()
    labeled = cross_modal_pretraining.subset(train, fraction, seed)
    encoder = encoder or cross_modal_pretraining.pretrained("words", seed)
    methods = {
        "joint training": lambda: _joint_training(labeled, test, seed),
        "cross-modal pre-training": lambda: _cross_modal_pretraining(encoder, labeled, test, seed),
        "modality translation": lambda: _modality_translation(labeled, test, seed),
    }
    rows, scores = [], {}
    for name, answer in methods.items():
        start = time.perf_counter()
        scores[name], parameters, before, seconds_before = answer()
        rows.append(
            {
                "method": name,
                "accuracy": round(scores[name]["all"], 3),
                "labeled_pairs": len(labeled),
                "before": before,
                "parameters": parameters,
                "seconds": round(time.perf_counter() - start),
                "seconds_before": round(seconds_before),
            }
        )
    return Comparison(rows, scores)


# --- the methods: → scores on the test pairs, parameters, what was learned from before, and for how long ---


def _joint_training(labeled: Examples, test: Examples, seed: int):
    keras.utils.set_random_seed(seed)
    encoders = joint_training.encoders(labeled.vocabulary)
    model = joint_training.build(encoders, scenes.CLASSES, decay_steps=STEPS)
    classification.fit(model, labeled, STEPS, seed)
    return Classifier(model).scores(test), model.count_params(), "nothing", 0


def _cross_modal_pretraining(encoder, labeled: Examples, test: Examples, seed: int):
    before = f"{cross_modal_pretraining.PAIRS} texts"
    with cross_modal_pretraining.restored(encoder):
        model = cross_modal_pretraining.fine_tuned(encoder, labeled, seed=seed)
        return Classifier(model).scores(test), model.count_params(), before, encoder.seconds


def _modality_translation(labeled: Examples, test: Examples, seed: int):
    generator, card = zoo.pretrained("text_to_image"), zoo.card("text_to_image")
    keras.utils.set_random_seed(seed)
    encoders = joint_training.encoders(labeled.vocabulary, ["image"])
    reader = joint_training.build(encoders, scenes.CLASSES, decay_steps=STEPS)
    classification.fit(reader, modality_translation.with_translations(generator, labeled), STEPS, seed)
    both = modality_translation.with_translations(generator, test)  # the real images, then the generated ones
    logits = collectives.predict_batches(reader, {"image": both.inputs["image"]})
    # the sum of log-probabilities: each image is a witness of the same scene
    summed = {name: sum(np.split(_log_softmax(values), 2)) for name, values in logits.items()}
    predicted = {name: values.argmax(axis=-1) for name, values in summed.items()}
    parameters = generator.model.count_params() + reader.count_params()
    scores = attribute_accuracy(predicted, test.labels)
    return scores, parameters, "4000 pairs without labels", card["seconds"]


def _log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
