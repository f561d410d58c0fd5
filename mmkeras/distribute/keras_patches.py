"""Fixes for Keras under tf.distribute (keras issue 20585).

They replace private functions of `keras/src/backend/tensorflow` as of Keras 3.12 to 3.15 and of the
nightly builds of 3.16, and stay correct if a later Keras 3 fixes the same defect.

- `_maybe_symbolic_build` takes a batch from the dataset to learn its shapes. With several workers that fails;
  with one, the dataset's first epoch order is used up before training. The dataset's specification has the
  shapes too.
- `reduce_per_replica` reduces a scalar along its axis 0, which it does not have, with several workers.
- An optimizer clips each replica's gradients before it sums them, so the clipped step grows with the number of
  replicas.
- `LossScaleOptimizer` (float16) skips a step if the gradients of one replica are not finite, but ignores the
  other replicas.
- On CPUs (TensorFlow 2.21) a convolution of an empty batch returns its input whatever its output shape should
  be, and pooling one ends the process. A replica gets an empty batch if the last batch is small.
"""

import functools

import keras
import tensorflow as tf
from keras import tree

from mmkeras.distribute import collectives


def apply(replicas: int) -> None:
    """Replaces the functions that are listed above, once per process.

    Args:
        replicas: int. Replicas that will train. One needs none of the fixes.

    Raises:
        ValueError: if several replicas will train and this version of Keras lacks one of the functions.
    """
    try:
        _replace()
    except (ImportError, AttributeError) as error:
        if replicas > 1:
            raise ValueError(
                f"Expected keras to be a version whose training on several replicas mmkeras can fix, such as "
                f"3.15. Received: keras={keras.__version__}, replicas={replicas} ({error}). Update mmkeras, "
                f"install keras 3.15, or train on one device (kind='one_device')."
            ) from error


@functools.cache  # an error is not cached, and raised before anything is replaced
def _replace():
    from keras.src.backend.tensorflow import trainer
    from keras.src.backend.tensorflow.optimizer import TFOptimizer

    try:
        from keras.src.backend.tensorflow.ops import nn  # since Keras 3.16
    except ModuleNotFoundError:
        from keras.src.backend.tensorflow import nn
    trainer_class = getattr(trainer, "TensorFlowTrainer", None) or trainer.Trainer  # the latter since 3.16
    has_many_workers = trainer._collective_all_reduce_multi_worker
    replacements = [
        (trainer_class, "_maybe_symbolic_build", _build_from_specification),
        (trainer, "reduce_per_replica", functools.partial(_reduce_scalars, has_many_workers)),
        (TFOptimizer, "_all_reduce_sum_gradients", functools.partial(_clip_sum, TFOptimizer._clip_gradients)),
        (TFOptimizer, "_clip_gradients", _clip_one_replica_only),
        (keras.optimizers.LossScaleOptimizer, "check_finite", _check_all_replicas),
    ]
    if not tf.config.list_physical_devices("GPU"):
        pools = ("conv", "conv_transpose", "max_pool", "average_pool")
        replacements += [(nn, name, _accept_empty_batch) for name in pools]
    originals = [getattr(owner, name) for owner, name, _ in replacements]
    for (owner, name, replace), original in zip(replacements, originals, strict=True):
        setattr(owner, name, functools.wraps(original)(replace(original)))


def _build_from_specification(original):
    def one_replica(spec):  # of a distributed dataset, the shapes on one replica
        return spec if hasattr(spec, "shape") else spec._component_specs[0]

    def build(self, iterator=None, data_batch=None):
        if self._distribute_strategy is not None and iterator is not None:
            batch = tree.map_structure(one_replica, iterator.data_adapter.get_tf_dataset().element_spec)
            if all(spec.shape.rank is not None for spec in tree.flatten(batch)):
                iterator, data_batch = None, batch
        return original(self, iterator=iterator, data_batch=data_batch)

    return build


def _reduce_scalars(has_many_workers, original):
    def reduce(values, strategy, reduction):
        if reduction not in ("auto", "mean") or not has_many_workers(strategy):
            return original(values, strategy, reduction)
        return tree.map_structure(lambda value: strategy.reduce("MEAN", value, axis=None), values)

    return reduce


def _clip_one_replica_only(original):
    return lambda self, grads: grads if collectives.count() > 1 else original(self, grads)


def _clip_sum(clip, original):
    def add(self, grads_and_vars):
        grads_and_vars = original(self, grads_and_vars)
        if collectives.count() == 1:
            return grads_and_vars
        grads, variables = zip(*grads_and_vars, strict=True)
        return list(zip(clip(self, grads), variables, strict=True))

    return add


def _check_all_replicas(original):
    def check(self, grads):
        return collectives.total(tf.cast(original(self, grads), "float32")) == collectives.count()

    return check


def _accept_empty_batch(original):
    def padded(inputs, *args, **kwargs):
        if collectives.count() == 1 or inputs.shape[0] is not None:
            return original(inputs, *args, **kwargs)
        # concatenates, since TensorFlow fuses tf.pad into the convolution and then ignores the added example
        outputs = original(collectives.pad_empty_batch(inputs), *args, **kwargs)
        return outputs[: tf.shape(inputs)[0]]

    return padded
