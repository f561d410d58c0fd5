"""What the models of all three methods share: they classify the attributes of a scene.

A model's outputs are {attribute: logits (B, classes)}; its inputs are {modality: (B, ...)}.
"""

import contextlib
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from mmkeras._utils import checks
from mmkeras._utils.predictor import Predictor
from mmkeras.distribute import collectives
from mmkeras.evaluation.metrics import attribute_accuracy
from mmkeras.methods import scenes
from mmkeras.nn import optimizers

BATCH_SIZE = 32


def compiled(
    model: keras.Model, learning_rate: float, decay_steps: int | None, label_smoothing: float = 0.0
) -> keras.Model:
    """The model, compiled with Adam and the cross-entropy of each attribute.

    Args:
        model: keras.Model. Its outputs are {attribute: logits}.
        learning_rate, decay_steps, label_smoothing: See `mmkeras.methods.joint_training.build`.
    """
    loss = Crossentropy(label_smoothing)
    optimizers.compile(
        model,
        optimizers.adam(learning_rate, decay_steps),
        loss=dict.fromkeys(model.output, loss),
        weighted_metrics={
            name: [keras.metrics.SparseCategoricalAccuracy(name="accuracy")] for name in model.output
        },
    )
    return model


def batches(arrays, seed: int = 0) -> tf.data.Dataset:
    """Shuffled batches of 32 without end from a nest of arrays (N, ...). N may be smaller than 32."""
    examples = tf.data.Dataset.from_tensor_slices(arrays)
    shuffled = examples.shuffle(len(examples), seed=seed).repeat()
    return shuffled.batch(BATCH_SIZE, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def fit(model: keras.Model, examples: scenes.Examples, steps: int, seed: int = 0) -> keras.Model:
    """Trains a model on the modalities of examples that it takes, for a number of steps. Returns the model."""
    inputs = {name: examples.inputs[name] for name in model.input}
    dataset = batches((inputs, examples.labels), seed)
    model.fit(dataset, steps_per_epoch=steps, shuffle=False, verbose=0)  # the dataset shuffles
    return model


def scope(model: keras.Model):
    """The scope of the strategy in which a model was built, as a context manager."""
    strategy = getattr(model, "distribute_strategy", None)
    return strategy.scope() if strategy else contextlib.nullcontext()


@keras.saving.register_keras_serializable("mmkeras")
class Crossentropy(keras.losses.CategoricalCrossentropy):
    """Cross-entropy of class ids (B,) and logits (B, classes), with label smoothing, averaged over the examples
    by their weights. Keras has label smoothing for one-hot labels only.

    Args:
        label_smoothing: float. Defaults to 0.
    """

    def __init__(self, label_smoothing: float = 0.0, **kwargs):
        super().__init__(
            label_smoothing=label_smoothing,
            **{"from_logits": True, "reduction": "mean_with_sample_weight", "name": "crossentropy", **kwargs},
        )

    def call(self, y_true, y_pred):
        return super().call(ops.one_hot(ops.reshape(y_true, (-1,)), y_pred.shape[-1]), y_pred)


class Classifier(Predictor):
    """Classifies examples with a model of any of the three methods.

    Args:
        model: keras.Model. Its inputs are {modality: (B, ...)}, its outputs {attribute: logits}.

    Attributes:
        modalities: Names of the inputs.
    """

    names = ("joint_training", "cross_modal", "modality_translation")
    title = "Multimodal classification"
    builder = "a build() of mmkeras.methods"
    inputs = "examples"
    output = "classes"

    def __init__(self, model: keras.Model):
        super().__init__(model)
        self.modalities = tuple(model.input)
        # A new model: `predict` must run outside of the strategy in whose scope `model` may have been built.
        self._model = keras.Model(model.input, model.output)

    def __call__(self, inputs: Mapping[str, np.ndarray | None]) -> dict[str, np.ndarray]:
        """Predicts the class ids of each attribute.

        Args:
            inputs: {modality: (N, ...)}. For a model of joint training, leave out what is missing.

        Returns:
            {attribute: (N,) int class ids}.

        Raises:
            ValueError: if a modality is unknown, all are missing, or one that the model cannot do without.
        """
        known = ", ".join(map(repr, self.modalities))
        checks.among(self.modalities, modalities=inputs)
        given = {name: values for name, values in inputs.items() if values is not None}
        needed = {name for name in self.modalities if not self.model.get_layer(name).optional}
        if not given or needed - given.keys():
            least = "all" if needed else "at least one"
            raise ValueError(f"Expected inputs to have {least} of {known}. Received: inputs of {sorted(given)}")
        logits = collectives.predict_batches(self._model, {name: given.get(name) for name in self.modalities})
        return {name: values.argmax(axis=-1) for name, values in logits.items()}

    def evaluate(self, examples: scenes.Examples) -> dict[str, float]:
        """Accuracy on examples, see `mmkeras.evaluation.metrics.attribute_accuracy`."""
        predicted = self({name: examples.inputs[name] for name in self.modalities})
        return attribute_accuracy(predicted, examples.labels)
