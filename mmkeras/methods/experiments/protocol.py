"""What the experiments share: their examples, and training until validation stops improving."""

import functools
import time
from dataclasses import dataclass

import keras
import numpy as np

from mmkeras.evaluation.metrics import attribute_accuracy
from mmkeras.methods import classification, scenes
from mmkeras.methods.classification import Classifier
from mmkeras.methods.scenes import Examples

SEEDS = (0, 1, 2)
LABELED = (40, 200, 2000)  # pairs with labels
PAIRS, VALIDATION_PAIRS, TEST_PAIRS = 4000, 500, 1000
STEPS = 1000  # the most that a model trains, pre-training included
PRETRAINING_STEPS = 400  # of these
EVERY = 50  # steps between two validations
PATIENCE = 8  # validations without improvement before training ends


@functools.cache
def pairs() -> tuple[Examples, Examples, Examples]:
    """Degraded images and texts: 4,000 pairs for training, 500 for validation, and 1,000 of the test split."""
    sizes = {"train": PAIRS, "validation": VALIDATION_PAIRS, "test": TEST_PAIRS}
    train, validation, test = (
        scenes.degraded(scenes.examples(split, count), seed=seed, **scenes.DEGRADATION)
        for seed, (split, count) in enumerate(sizes.items())
    )
    return train, validation, test


@dataclass(frozen=True)
class Trained:
    """A model at its best on validation.

    Attributes:
        classifier: Classifier.
        steps: int. Training steps up to there.
        seconds: float. Of training, those after `steps` included.
    """

    classifier: Classifier
    steps: int
    seconds: float


class _Validation(keras.callbacks.Callback):
    """Adds `val_accuracy`, the mean accuracy of the attributes on validation, to the logs."""

    def __init__(self, classifier: Classifier, examples: Examples):
        super().__init__()
        self.classifier, self.examples = classifier, examples

    def on_epoch_end(self, epoch, logs):
        scores = self.classifier.evaluate(self.examples)
        logs["val_accuracy"] = np.mean([scores[name] for name in self.examples.labels])


def best_fit(
    model: keras.Model | Classifier,
    train: Examples,
    validation: Examples,
    steps: int,
    seed: int = 0,
    weights: np.ndarray | None = None,
) -> Trained:
    """Trains until validation has not improved for 400 steps, and returns to the best weights.

    Args:
        model: keras.Model or its Classifier. Its learning rate should be constant, as the end is not known
            before.
        train, validation: Examples.
        steps: int. The most training steps of 32 examples.
        seed: int. Seed for the order of the examples. Defaults to 0.
        weights: (N,) float, optional. Of the training examples in the loss. Default to 1.
    """
    start = time.perf_counter()
    classifier = model if isinstance(model, Classifier) else Classifier(model)
    model = classifier.model
    best = keras.callbacks.EarlyStopping(
        "val_accuracy", mode="max", patience=PATIENCE, restore_best_weights=True
    )
    arrays = ({name: train.inputs[name] for name in model.input}, train.labels)
    if weights is not None:
        arrays += (dict.fromkeys(train.labels, weights.astype("float32")),)
    model.fit(
        classification.batches(arrays, seed),
        epochs=-(-steps // EVERY),
        steps_per_epoch=EVERY,
        shuffle=False,  # the dataset shuffles
        verbose=0,
        callbacks=[_Validation(classifier, validation), best],
    )
    return Trained(classifier, EVERY * (best.best_epoch + 1), time.perf_counter() - start)


def most_frequent(train: Examples, test: Examples) -> dict[str, float]:
    """Accuracy on test examples of each attribute's most frequent class in training, the trivial baseline."""
    frequent = {name: np.bincount(ids).argmax() for name, ids in train.labels.items()}
    predicted = {name: np.full(len(test), ids) for name, ids in frequent.items()}
    return attribute_accuracy(predicted, test.labels)
