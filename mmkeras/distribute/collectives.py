"""What replicas of one model must agree on while they train together: sums over the whole batch.

Under a strategy of tf.distribute each replica sees its share of a batch and everything in the graph is the
share's own. These functions speak of all shares at once; without a strategy, with one replica, and on Keras's
other backends they change nothing and cost nothing.
"""

import keras
from keras import ops


def count() -> int:
    """How many replicas run what is being traced; 1 without a strategy."""
    context = _context()
    return context.num_replicas_in_sync if context else 1


def total(value):
    """The sum of a tensor over all replicas; it has a gradient."""
    return _context().all_reduce("sum", value) if count() > 1 else value


def largest(value):
    """The largest of a number () over all replicas; it has no gradient."""
    return ops.max(gathered(value[None]))


def ratio(above, below):
    """above / below, each a number () summed over all replicas, as a loss (1,) that Keras reduces.

    Keras takes the mean of what a loss returns on each replica and then adds up 1/replicas of each: right only
    where all have the same number of examples, and the same number of words in them. Here all replicas return
    the loss of the whole batch.
    """
    return (total(above) / ops.maximum(total(below), 1))[None]


def mean(value):
    """The mean () of a tensor over all its elements, on all replicas: 0 where none of them has any. Unlike
    `ratio` it leaves to the caller that Keras adds up the losses of the replicas."""
    value = ops.cast(value, "float32")
    return ratio(ops.sum(value), ops.cast(ops.size(value), "float32"))[0]


def gathered(value):
    """A batch (B, ...) with those of all replicas behind each other; it has a gradient."""
    if count() == 1:
        return value
    import tensorflow as tf

    # several workers want to know the tensor's device, and what comes from a dataset has none
    return _context().all_gather(tf.identity(value), axis=0)


def one_at_least(value):
    """A batch, with one example of zeros where this replica has none: some operations cannot do without."""
    if count() == 1:
        return value
    missing = ops.cast(ops.equal(ops.shape(value)[0], 0), "int32")
    return ops.concatenate([value, ops.zeros((missing, *ops.shape(value)[1:]), value.dtype)])


def predict_alone(model: keras.Model, inputs):
    """`model.predict_on_batch(inputs)`, on one device and without any other worker.

    Under a strategy Keras would have each replica answer the whole batch, and return the answers of all.

    Args:
        model: made outside of any strategy's scope; its layers may have been made inside.

    Raises:
        ValueError: it was made inside, or is called there.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if tf.distribute.has_strategy() or model.distribute_strategy is not tf.distribute.get_strategy():
            raise ValueError(
                f"Expected what answers, scores or computes features to be made and called outside of the "
                f"strategy's scope; the model alone is built inside. Received: "
                f"{type(model.distribute_strategy).__name__.lstrip('_')}"
            )
    return model.predict_on_batch(inputs)


def _context():
    """tf.distribute's replica context; None where a model is only built, and on other backends."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    return tf.distribute.get_replica_context()
