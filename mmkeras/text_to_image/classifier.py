"""Text to image (chapters 3.4 and 5.3): the judge, a classifier that reads pictures.

judge = train_judge(data)             # from real pictures alone
judge("painted.png")                  # {'color': 'red', 'place': 'center', 'shape': 'circle', ...}
judge(painter("a small red circle"))  # the document's modality translation: text → picture → class
"""

import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mmkeras._utils import checks, progress, saving
from mmkeras.data.task_data import TaskData
from mmkeras.distribute import collectives
from mmkeras.media import images
from mmkeras.nn import layers
from mmkeras.nn.convolutions import what_and_where
from mmkeras.text_to_image.datasets import labeled

NAME = "judge"
BATCH_SIZE = 32


class Judge:
    """Reads off pictures what their labels would tell.

    Args:
        model: from `build_judge`.
    """

    def __init__(self, model: keras.Model):
        saving.check(model, NAME, "judge", "mmkeras.text_to_image.classifier.build_judge()")
        self.model = model
        self.image_size = model.input_shape[1]
        self.attributes = {name: model.get_layer(name).classes for name in model.output_names}
        self._reader = keras.Model(model.input, [model.output, model.get_layer("features").output])

    def __call__(self, pictures: Any) -> dict[str, str] | list[dict[str, str]]:
        """The class of each attribute, or a list of such dictionaries for a list of pictures.

        Args:
            pictures: a path, a PIL image, an array (see `mmkeras.media.images.read`), or a list of these; the
                square in the middle is read.

        Raises:
            FileNotFoundError, ValueError: a picture is missing or cannot be read, or the list is empty.
        """
        many = isinstance(pictures, list | tuple)
        several = list(pictures) if many else [pictures]
        if not several:
            raise ValueError("Expected at least one picture. Received: an empty list")
        batch = np.stack([images.resize(images.crop(images.read(p)), self.image_size) for p in several])
        classes, _ = self.read(batch)
        said = [
            {name: self.attributes[name][classes[name][i]] for name in self.attributes}
            for i in range(len(several))
        ]
        return said if many else said[0]

    def read(self, batch: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Of pictures (B, image_size, image_size, 3) in 0..255: the class numbers of each attribute, (B,), and
        the features (B, F) that they are read off."""
        starts = range(0, len(batch), BATCH_SIZE)
        parts = [collectives.predict_alone(self._reader, batch[start : start + BATCH_SIZE]) for start in starts]
        logits, features = keras.tree.map_structure(lambda *arrays: np.concatenate(arrays), *parts)
        return {name: logits[name].argmax(axis=-1) for name in self.attributes}, features

    def labels(self, batch: dict[str, Any]) -> dict[str, np.ndarray]:
        """The true class numbers of a batch, for `accuracy`: {attribute: (B,)}.

        Raises:
            ValueError: the batch lacks the labels of an attribute.
        """
        if lacking := self.attributes.keys() - batch.get("labels", {}).keys():
            raise ValueError(
                f"Expected a dataset with the labels that the judge reads; it lacks "
                f"{', '.join(sorted(lacking))}. Train a judge on data of this source, or leave judge out."
            )
        return {name: batch["labels"][name].numpy() for name in self.attributes}

    def accuracy(
        self, found: dict[str, np.ndarray], labels: Sequence[dict[str, np.ndarray]]
    ) -> dict[str, float]:
        """The share of class numbers that are right, by attribute; `all`: of those that are right in all.

        Args:
            found: {attribute: (N,)}, from `read`.
            labels: from `labels`, of each batch.
        """
        right = {n: found[n] == np.concatenate([part[n] for part in labels]) for n in self.attributes}
        scores = {name: float(values.mean()) for name, values in right.items()}
        return scores | {"all": float(np.all(list(right.values()), axis=0).mean())}

    @property
    def data_options(self) -> dict[str, Any]:
        """What `data` is told so that its pictures suit this model."""
        return {"image_size": self.image_size}

    def save(self, path: str | os.PathLike) -> None:
        """Writes one `.keras` file with everything in it, to be read by `mmkeras.load`."""
        saving.save(self.model, path)


def evaluate_judge(judge: Judge, dataset: tf.data.Dataset) -> dict[str, float]:
    """Reads every picture and compares what is read with its labels.

    Args:
        judge: what reads.
        dataset: batches of {"image", "captions", "labels"}, as `data(...).test` of a source with labels.

    Returns:
        For each attribute the share of pictures that are read right, and `all` for all of them together.

    Raises:
        ValueError: the dataset has other labels, or pictures of another size.
    """
    checks.images(dataset, judge.image_size)
    found, labels = [], []
    for batch in progress.bar(dataset, "pictures"):
        labels.append(judge.labels(batch))
        found.append(judge.read(batch["image"].numpy())[0])
    return judge.accuracy(keras.tree.map_structure(lambda *parts: np.concatenate(parts), *found), labels)


def build_judge(
    attributes: dict[str, tuple[str, ...]], image_size: int = 64, *, steps: int = 500
) -> keras.Model:
    """A small convolutional classifier with one head an attribute.

    Input:   image (B, image_size, image_size, 3) RGB 0..255
    Outputs: {attribute: logits (B, classes) float32}, read off the layer "features" (B, 64)

    Args:
        attributes: what to read, each with the names of its classes.
        image_size: side in pixels.
        steps: of training, over which the learning rate falls.
    """
    image = keras.Input((image_size, image_size, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(image)
    x = what_and_where(x)
    features = keras.layers.Dense(64, activation="relu", name="features")(x)
    logits = {name: layers.ClassLogits(classes, name=name)(features) for name, classes in attributes.items()}
    model = keras.Model(image, logits, name=NAME)
    model.compile(
        layers.adam(2e-3, steps),
        # Smoothed, as captioning's words are and for the same reason: pairs of colour and shape that training
        # never shows must be read as well.
        loss={
            name: keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
            for name in attributes
        },
        metrics={name: ["accuracy"] for name in attributes},
    )
    return model


def train_judge(data: TaskData, *, epochs: int = 5, verbose: int | str = "auto") -> Judge:
    """A judge of a source's pictures, trained on the real ones of its training split alone.

    Args:
        data: from `mmkeras.text_to_image.data`, of a source with labels.
        epochs: passes over its pictures.
        verbose: as in `fit`; "auto" is one line per epoch if stdout is no terminal.

    Raises:
        ValueError: the source has no labels, or `epochs` is no positive int.
    """
    checks.ints(1, epochs=epochs)
    size = data.image_size

    def prepared(batch, draw):
        """Half of the batches are made coarse, by up to a quarter of their pixels a side: otherwise it takes a
        large shape for a small one where a painted picture is not sharp."""
        image, labels = batch
        side = tf.random.stateless_uniform((), [draw, 0], size // 4, 2 * size, tf.int32)
        side = tf.minimum(side, size)
        coarse = tf.image.resize(tf.image.resize(image, (side, side), antialias=True), (size, size))
        return coarse, {
            name: tf.one_hot(labels[name], len(classes)) for name, classes in data.attributes.items()
        }

    draws = tf.data.Dataset.random(seed=0, rerandomize_each_iteration=True)
    train = tf.data.Dataset.zip(labeled(data), draws).map(prepared, num_parallel_calls=tf.data.AUTOTUNE)
    model = build_judge(data.attributes, size, steps=epochs * int(train.cardinality()))
    model.fit(train, epochs=epochs, verbose=progress.verbosity(verbose))
    return Judge(model)
