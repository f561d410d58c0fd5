"""Text to image (chapters 3.4 and 5.3): a classifier of the attributes that an image shows.

classifier = train_classifier(data)            # trained on real images only
classifier("photo.png")                        # {'color': 'red', 'place': 'center', 'shape': 'circle', ...}
classifier(generator("a small red circle"))    # the document's modality translation: text → image → class
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from mmkeras._utils import checks, progress
from mmkeras._utils.parts import Part
from mmkeras._utils.predictor import ImagePredictor
from mmkeras.data.task_data import TaskData
from mmkeras.distribute import collectives
from mmkeras.evaluation import explain, metrics
from mmkeras.evaluation.explanations import Explanation
from mmkeras.media import images
from mmkeras.nn import layers, optimizers
from mmkeras.nn.convolutions import image_features
from mmkeras.text_to_image.datasets import labeled

NAME = "attribute_classifier"


class AttributeClassifier(ImagePredictor):
    """Predicts the attributes of images, one class per attribute.

    Args:
        model: keras.Model. From `build_classifier`.
    """

    names = (NAME,)
    title = "Attribute classification"
    builder = "mmkeras.text_to_image.classifier.build_classifier()"
    output = "classes"

    def __init__(self, model: keras.Model):
        super().__init__(model)
        self.attributes = {name: model.get_layer(name).classes for name in model.output_names}
        self.network = model
        self.novelty = None

    def _connect(self):
        outputs = [self.model.output, self.model.get_layer("features").output]
        scores = [self.novelty.scores] if self.novelty else []
        self._network = keras.Model(self.model.input, outputs + scores)

    def __call__(self, inputs: Any) -> dict[str, str] | list[dict[str, str] | None]:
        """Predicts the class of each attribute.

        Args:
            inputs: Path, open file, PIL image or array (see `mmkeras.media.images.read`), or a list of these.
                Images are cropped to the square in the middle.

        Returns:
            {attribute: name of the class}; for a list of images a list of such dictionaries, None for an image
            that cannot be read, which a warning names.

        Raises:
            FileNotFoundError, ValueError: if a single image, or every image of a list, cannot be read.
        """

        def read(image):
            return images.resize(images.crop(images.read(image)), self.image_size)  # (S, S, 3)

        def predict(values, positions):
            classes, _, *scores = self._predict(np.stack(values))
            if self.novelty:
                self.novelty.warn(*scores, positions)
            return [
                {name: names[classes[name][i]] for name, names in self.attributes.items()}
                for i in range(len(values))
            ]

        return self._answer(inputs, read, predict)

    def explain(self, image: Any, method: str = "hires_cam", **options: Any) -> Explanation:
        """The class of each attribute of one image, with a map of the pixels that its logit depends on.

        Args:
            image: Path, open file, PIL image or array.
            method: str. One of `mmkeras.evaluation.explain.METHODS`. Defaults to `"hires_cam"`.
            **options: Those of the method, such as `baseline`.
        """
        original = images.crop(images.read(image))
        batch = images.resize(original, self.image_size)[None]
        ids, rows = self.predict(batch)[0], list(self.attributes)

        def logits(outputs):
            return ops.stack([outputs[name][row, ids[name][0]] for row, name in enumerate(rows)])

        classes = [self.attributes[name][ids[name][0]] for name in rows]
        batch = np.repeat(batch, len(rows), axis=0)
        return explain.explanation(
            method, self.model, batch, logits, original, classes, " ".join(classes), **options
        )

    def parts(self):
        return {"answer": Part.of(self.model, list(self.attributes))}

    def card(self):
        return super().card() | {"crop": True, "classes": self.attributes}

    def predict(self, batch: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Predicts the class ids of a batch.

        Args:
            batch: (B, image_size, image_size, 3) RGB 0..255.

        Returns:
            {attribute: (B,) int class ids}, and the features (B, 64) from which they are predicted.
        """
        return self._predict(batch)[:2]

    def _predict(self, batch):
        """As `predict`, and with `novelty` its scores (B,)."""
        logits, *others = collectives.predict_batches(self._network, batch)
        return {name: logits[name].argmax(axis=-1) for name in self.attributes}, *others

    def labels(self, batch: dict[str, Any]) -> dict[str, np.ndarray]:
        """The true class ids of a batch of a test split: {attribute: (B,)}.

        Raises:
            ValueError: if labels of an attribute are missing.
        """
        if missing := self.attributes.keys() - batch.get("labels", {}).keys():
            raise ValueError(
                f"Expected dataset to have labels of all attributes of the classifier. Received: dataset "
                f"without {', '.join(sorted(missing))}. Train a classifier on data of this source."
            )
        return {name: batch["labels"][name].numpy() for name in self.attributes}

    def accuracy(
        self, predictions: dict[str, np.ndarray], labels: Sequence[dict[str, np.ndarray]]
    ) -> dict[str, float]:
        """See `mmkeras.evaluation.metrics.attribute_accuracy`.

        Args:
            predictions: {attribute: (N,) int}, from `predict`.
            labels: List of {attribute: (B,) int}, from `labels`, one per batch.
        """
        joined = {name: np.concatenate([part[name] for part in labels]) for name in self.attributes}
        return metrics.attribute_accuracy(predictions, joined)

    @property
    def data_options(self) -> dict[str, Any]:
        return {"image_size": self.image_size}

    def evaluate(self, dataset):
        return evaluate_classifier(self, dataset)


def evaluate_classifier(classifier: AttributeClassifier, dataset: tf.data.Dataset) -> dict[str, float]:
    """Accuracy of a classifier on real images, see `mmkeras.evaluation.metrics.attribute_accuracy`.

    Args:
        classifier: AttributeClassifier.
        dataset: Batches of {"image", "captions", "labels"}, as `data(...).test` of a source with labels.

    Raises:
        ValueError: if the dataset is empty, it lacks labels, or its images have another size.
    """
    checks.images(dataset, classifier.image_size)
    predictions, labels = [], []
    for batch in progress.bar(dataset, "images"):
        labels.append(classifier.labels(batch))
        predictions.append(classifier.predict(batch["image"].numpy())[0])
    checks.not_empty(labels)
    predictions = keras.tree.map_structure(lambda *parts: np.concatenate(parts), *predictions)
    return classifier.accuracy(predictions, labels)


def build_classifier(
    attributes: dict[str, tuple[str, ...]], image_size: int = 64, *, steps: int = 500
) -> keras.Model:
    """Builds a small compiled convolutional classifier with one head per attribute.

    Input:   image (B, image_size, image_size, 3) RGB 0..255
    Outputs: {attribute: logits (B, classes) float32}, computed from the layer "features" (B, 64)

    Args:
        attributes: {attribute: names of its classes}.
        image_size: int. Side in pixels. Defaults to 64.
        steps: int. Training steps, over which the learning rate decays. Defaults to 500.
    """
    image = keras.Input((image_size, image_size, 3), name="image")
    x = image_features(keras.layers.Rescaling(1 / 127.5, offset=-1)(image))  # (B, 608)
    features = keras.layers.Dense(64, activation="relu", name="features")(x)  # (B, 64)
    logits = {name: layers.ClassLogits(classes, name=name)(features) for name, classes in attributes.items()}
    model = keras.Model(image, logits, name=NAME)
    # Label smoothing as in captioning, so that unseen pairs of color and shape are also recognized.
    loss = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=0.2, reduction="mean_with_sample_weight"
    )
    optimizers.compile(
        model,
        optimizers.adam(2e-3, steps),
        loss=dict.fromkeys(attributes, loss),
        weighted_metrics={name: ["accuracy"] for name in attributes},
    )
    return model


def train_classifier(data: TaskData, *, epochs: int = 5, verbose: int | str = "auto") -> AttributeClassifier:
    """Trains a classifier on the real images of the training split.

    Args:
        data: From `mmkeras.text_to_image.data`, of a source with labels.
        epochs: int. Passes over the images. Defaults to 5.
        verbose: As for `mmkeras.training.train`. Defaults to `"auto"`.

    Raises:
        ValueError: if the source has no labels, or `epochs` is not a positive int.
    """
    checks.ints(1, epochs=epochs)
    size = data.image_size

    def prepare(batch, random_seed):
        """Blurs half of the batches, down to a quarter of the resolution. Otherwise the classifier
        mistakes large shapes for small ones in generated images, which are less sharp."""
        image, labels = batch
        side = tf.random.stateless_uniform((), [random_seed, 0], size // 4, 2 * size, tf.int32)
        side = tf.minimum(side, size)
        small = tf.image.resize(image, (side, side), antialias=True)  # (B, side, side, 3)
        blurred = tf.image.resize(small, (size, size))  # (B, S, S, 3)
        return blurred, {
            name: tf.one_hot(labels[name], len(classes)) for name, classes in data.attributes.items()
        }

    random_seeds = tf.data.Dataset.random(seed=0, rerandomize_each_iteration=True)
    train = tf.data.Dataset.zip(labeled(data), random_seeds).map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
    model = build_classifier(data.attributes, size, steps=epochs * int(train.cardinality()))
    # the dataset shuffles
    model.fit(train, epochs=epochs, shuffle=False, verbose=progress.verbosity(verbose))
    return AttributeClassifier(model)
