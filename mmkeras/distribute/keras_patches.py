"""What is broken under tf.distribute, mended for as long as it is (keras issue 20585).

Private places in `keras/src/backend/tensorflow`, as they are in Keras 3.12 to 3.15. Each is tried out first, so
a later Keras 3 that works, or that has moved them, is left alone. Of Keras 4 nothing is known and nothing is
touched.

- `_maybe_symbolic_build` wants a batch's shapes and takes a batch from the dataset for them. With several
  workers it then fails to reduce that batch; with one it works, but the dataset has been through one epoch's
  order before training begins, so that a run under a strategy learns from other batches than one without. The
  dataset's specification has the shapes too.
- `reduce_per_replica` asks several workers for the mean of a number along its axis 0, which it does not have.
- An optimizer clips each replica's gradients before it adds them up: the more replicas, the longer the steps
  that it lets pass.
- The optimizer that scales losses for float16 leaves out a step whose gradients are not finite, but looks at
  those of one replica alone: another's then make all weights infinite.
- A convolution of no examples gives back its input, whatever its shape should be, and pooling them ends the
  process (TensorFlow 2.21 on CPUs). A replica has none where a batch has fewer than there are replicas.
"""

from types import SimpleNamespace

import keras
import tensorflow as tf
from keras import tree

from mmkeras.distribute import collectives

try:
    from keras.src.backend.tensorflow import nn, trainer
    from keras.src.backend.tensorflow.optimizer import TFOptimizer
except ImportError:  # a Keras whose insides have moved, so nothing that is known here is broken
    trainer = None


def apply(strategy: tf.distribute.Strategy) -> list[str]:
    """Mends what is broken under that strategy, once in a process; returns the names of what it replaced."""
    repaired: list[str] = []
    if trainer is None or not keras.__version__.startswith("3."):
        return repaired
    if _takes_a_batch(strategy):
        trainer.TensorFlowTrainer._maybe_symbolic_build = _built_from_specification(
            trainer.TensorFlowTrainer._maybe_symbolic_build
        )
        repaired.append("_maybe_symbolic_build")
    if _cannot_reduce_a_number(strategy):
        trainer.reduce_per_replica = _reducing_numbers(trainer.reduce_per_replica)
        repaired.append("reduce_per_replica")
    if _clips_before_it_adds(strategy):
        _clip_the_sum()
        repaired.append("_clip_gradients")
    if _looks_at_one_replica(strategy):
        optimizer = keras.optimizers.LossScaleOptimizer
        optimizer.check_finite = _checking_all(optimizer.check_finite)
        repaired.append("check_finite")
    if _cannot_convolve_nothing(strategy):
        for name in ("conv", "conv_transpose", "max_pool", "average_pool"):
            setattr(nn, name, _taking_nothing(getattr(nn, name)))
            repaired.append(name)
    return repaired


# --- building a model before its first batch ---


def _takes_a_batch(strategy):
    taken = []

    class Batches:
        def __iter__(self):
            taken.append(True)
            return iter(())

    unbuilt = SimpleNamespace(
        _distribute_strategy=strategy, distribute_strategy=strategy, _symbolic_build=lambda **how: None
    )
    try:
        trainer.TensorFlowTrainer._maybe_symbolic_build(unbuilt, iterator=Batches())
    except (AttributeError, TypeError):
        return False  # another method than the one that is known here
    return bool(taken)


def _built_from_specification(original):
    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        if self._distribute_strategy is not None and iterator is not None:
            batch = tree.map_structure(_one_replica, iterator.data_adapter.get_tf_dataset().element_spec)
            if all(spec.shape.rank is not None for spec in tree.flatten(batch)):
                iterator, data_batch = None, batch
        return original(self, iterator=iterator, data_batch=data_batch)

    return _maybe_symbolic_build


def _one_replica(spec):
    """Of a dataset that has been distributed already, what one replica sees."""
    return spec if hasattr(spec, "shape") else spec._component_specs[0]


# --- the numbers of one step ---


def _cannot_reduce_a_number(strategy):
    if not hasattr(trainer, "_collective_all_reduce_multi_worker"):
        return False
    try:
        trainer.reduce_per_replica(tf.constant(1.0), strategy, reduction="mean")
    except ValueError:
        return True
    except (AttributeError, TypeError):
        return False
    return False


def _reducing_numbers(original):
    def reduce_per_replica(values, strategy, reduction):
        if reduction not in ("auto", "mean") or not trainer._collective_all_reduce_multi_worker(strategy):
            return original(values, strategy, reduction)
        return tree.map_structure(lambda value: strategy.reduce("MEAN", value, axis=None), values)

    return reduce_per_replica


# --- clipping ---


def _clips_before_it_adds(strategy):
    if strategy.num_replicas_in_sync == 1:
        return False
    with strategy.scope():
        variable = keras.Variable([0.0], name="clipped")
        optimizer = keras.optimizers.SGD(1.0, global_clipnorm=1.0)
        optimizer.build([variable])

    @tf.function(autograph=False)
    def step():
        strategy.run(lambda: optimizer.apply([tf.constant([1.0])], [variable]))

    step()
    known = hasattr(TFOptimizer, "_all_reduce_sum_gradients") and hasattr(TFOptimizer, "_clip_gradients")
    return (
        known and float(keras.ops.convert_to_numpy(variable)[0]) < -1.5
    )  # all together more than one step of 1


def _clip_the_sum():
    clip, add = TFOptimizer._clip_gradients, TFOptimizer._all_reduce_sum_gradients

    def _clip_gradients(self, grads):
        return grads if collectives.count() > 1 else clip(self, grads)

    def _all_reduce_sum_gradients(self, grads_and_vars):
        grads_and_vars = add(self, grads_and_vars)
        if collectives.count() == 1:
            return grads_and_vars
        grads, variables = zip(*grads_and_vars, strict=True)
        return list(zip(clip(self, grads), variables, strict=True))

    TFOptimizer._clip_gradients = _clip_gradients
    TFOptimizer._all_reduce_sum_gradients = _all_reduce_sum_gradients


# --- gradients in float16 ---


def _looks_at_one_replica(strategy):
    if strategy.num_replicas_in_sync == 1 or not hasattr(keras.optimizers.LossScaleOptimizer, "check_finite"):
        return False
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())

    def is_finite():  # no number on the first replica
        place = tf.distribute.get_replica_context().replica_id_in_sync_group
        return tf.cast(optimizer.check_finite([tf.math.log(tf.cast(place, "float32") - 0.5)]), "float32")

    @tf.function(autograph=False)
    def step():
        return strategy.run(is_finite)

    return float(strategy.reduce("SUM", step(), axis=None)) > 0


def _checking_all(original):
    def check_finite(self, grads):
        return collectives.total(tf.cast(original(self, grads), "float32")) == collectives.count()

    return check_finite


# --- convolutions and pooling of no examples ---


def _cannot_convolve_nothing(strategy):
    """Of pooling as well, which cannot be tried out: what ends the process would end this one."""
    if strategy.num_replicas_in_sync == 1:
        return False

    nothing = tf.zeros((2, 4, 4, 1))[tf.constant(2) :]  # whose number of examples no graph knows

    @tf.function(input_signature=[tf.TensorSpec((None, 4, 4, 1))], autograph=False)
    def channels(x):
        shapes = strategy.run(lambda: tf.shape(nn.conv(x, tf.zeros((3, 3, 1, 2)))))
        return strategy.experimental_local_results(shapes)[0][-1]

    return int(channels(nothing)) != 2


def _taking_nothing(original):
    def of_one_at_least(inputs, *args, **kwargs):
        if collectives.count() == 1 or inputs.shape[0] is not None:
            return original(inputs, *args, **kwargs)
        # which concatenates: TensorFlow joins tf.pad to the convolution, and then forgets to pad the examples
        padded = collectives.one_at_least(inputs)
        return original(padded, *args, **kwargs)[: tf.shape(inputs)[0]]

    return of_one_at_least
