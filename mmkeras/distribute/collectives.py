"""Sums and means over all replicas of a model, for losses and batch normalization.

Under a strategy of tf.distribute each replica processes its share of a batch (B examples). These functions
combine the shares. Without a strategy, with one replica, and on JAX and PyTorch they return their input
unchanged.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from mmkeras._utils import progress, terminal
from mmkeras._utils.predictor import BATCH_SIZE


def count() -> int:
    """The number of replicas that run what is being traced. 1 without a strategy."""
    context = _context()
    return context.num_replicas_in_sync if context else 1


def total(value):
    """The sum of a tensor over all replicas, of the same shape. Differentiable."""
    return _context().all_reduce("sum", value) if count() > 1 else value


def largest(value):
    """The maximum () of a scalar () over all replicas. Not differentiable."""
    return ops.max(gathered(value[None]))


def ratio(numerator, denominator):
    """numerator / denominator, each a scalar () that is summed over all replicas; 0 if the denominator is 0.

    Keras averages a loss on each replica and then averages over the replicas. That is correct only if all
    replicas have the same number of examples and of tokens. Here every replica has the loss of the whole batch.
    """
    return ops.divide_no_nan(total(numerator), total(denominator))


def mean(value):
    """The mean () over all elements of a tensor on all replicas; 0 if there are none."""
    value = ops.cast(value, "float32")
    return ratio(ops.sum(value), ops.cast(ops.size(value), "float32"))


def penalty(value):
    """A penalty () for `add_loss`, equal on all replicas: the same gradient, and the value once per process.

    The replicas of a process share a layer's list of penalties, so that the loss of each reports all of them.
    Its gradient is that of its own.
    """
    local = len(_context().strategy.extended.worker_devices) if count() > 1 else 1
    return value / local + (1 - 1 / local) * (value - ops.stop_gradient(value)) if local > 1 else value


def gathered(value):
    """A batch (B, ...) concatenated with those of all replicas, (sum of B, ...). Differentiable."""
    if count() == 1:
        return value
    import tensorflow as tf

    # With several workers all_gather needs the tensor's device, which a tensor from a dataset lacks.
    return _context().all_gather(tf.identity(value), axis=0)


def pad_empty_batch(value):
    """A batch (B, ...), or one example of zeros (1, ...) if this replica's share is empty.

    Some operations fail on an empty batch. A replica gets one if the last batch is small: tf.distribute fills
    the first replicas first.
    """
    if count() == 1:
        return value
    missing = ops.cast(ops.equal(ops.shape(value)[0], 0), "int32")
    return ops.concatenate([value, ops.zeros((missing, *ops.shape(value)[1:]), value.dtype)])


def predict_on_one_device(model: keras.Model, inputs: Any) -> Any:
    """`model.predict_on_batch(inputs)` on one device and on this worker alone.

    Under a strategy Keras would run the whole batch on each replica and return the outputs of all.

    Args:
        model: keras.Model. Built outside of any strategy's scope; its layers may be built inside.
        inputs: Inputs of the model.

    Raises:
        ValueError: if the model is built, or this is called, inside a strategy's scope.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if tf.distribute.has_strategy() or model.distribute_strategy is not tf.distribute.get_strategy():
            raise ValueError(
                f"Expected predictors and evaluate() to be used outside of the strategy's scope; only "
                f"build() belongs inside. Received: "
                f"strategy={type(model.distribute_strategy).__name__.lstrip('_')}"
            )
    # TensorFlow counts the traces of all Keras models together, as if one model were retraced.
    with terminal.quiet_log("tensorflow", "triggered tf.function retracing"):
        return model.predict_on_batch(inputs)


def predict_batches(model: keras.Model, inputs: Any, batch_size: int = BATCH_SIZE) -> Any:
    """`predict_on_one_device` in batches: arrays (N, ...), or a nest of them → the same. An optional input
    can be None."""

    def batch(start):
        return keras.tree.map_structure(lambda x: None if x is None else x[start : start + batch_size], inputs)

    count = len(next(x for x in keras.tree.flatten(inputs) if x is not None))
    starts = progress.bar(range(0, count, batch_size), "batches")
    parts = [predict_on_one_device(model, batch(start)) for start in starts]
    return keras.tree.map_structure(lambda *arrays: np.concatenate(arrays), *parts)


def _context():
    """The replica context of tf.distribute. None while a model is built, and on other backends."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    return tf.distribute.get_replica_context()
