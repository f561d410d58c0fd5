"""Fused kernels of TensorFlow. `mmkeras.nn`, whose graphs run on every backend, calls them there only."""

from keras import ops


def batch_normalization(inputs, scale, offset, epsilon: float):
    """Inputs (B, H, W, C) → the same normalized over the batch, scaled and shifted; their mean and their biased
    variance, (C,) float32 each.

    Args:
        scale, offset: (C,) float32.
        epsilon: float. Added to the variance.
    """
    import tensorflow as tf

    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs, scale=scale, offset=offset, mean=[], variance=[], epsilon=epsilon
    )
    count = ops.cast(ops.prod(ops.shape(inputs)[:3]), "float32")
    return outputs, mean, variance * (count - 1) / count  # the kernel's is unbiased, Keras's is not


def adam(variable, gradient, momentum, velocity, step, learning_rate, beta_1, beta_2, epsilon) -> None:
    """Updates a variable and its two moments by Adam: one operation in place of twenty.

    Args:
        variable: tf.Variable.
        gradient: Of the variable's shape.
        momentum, velocity: keras.Variable of the same shape.
        step: int. From 1.
        learning_rate, beta_1, beta_2, epsilon: float. As in `keras.optimizers.Adam`.
    """
    import tensorflow as tf

    rate, beta_1, beta_2, step = (tf.cast(x, variable.dtype) for x in (learning_rate, beta_1, beta_2, step))
    tf.raw_ops.ResourceApplyAdam(
        var=variable.handle,
        m=momentum.value.handle,
        v=velocity.value.handle,
        beta1_power=beta_1**step,
        beta2_power=beta_2**step,
        lr=rate,
        beta1=beta_1,
        beta2=beta_2,
        epsilon=epsilon,
        grad=tf.cast(gradient, variable.dtype),
    )
