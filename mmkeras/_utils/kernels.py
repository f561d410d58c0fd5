"""Faster computations of TensorFlow. `mmkeras.nn`, whose graphs run everywhere, calls them there only."""

import keras
from keras import ops


def on_cpus() -> bool:
    """Whether TensorFlow runs, and on CPUs alone."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return all(device.device_type == "CPU" for device in tf.config.list_logical_devices())


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


def lstm(inputs, states, mask, cell):
    """A layer's outputs (B, T, U) and its last states: an LSTM on CPUs, without dropout.

    The kernel is applied to all steps at once. Keras does so step by step: speech to text then trains a tenth
    slower.

    Args:
        inputs: (B, T, F).
        states: Two (B, U), the output and the carry before the first step.
        mask: (B, T) bool, or None. Where it is false, outputs and states stay as they are.
        cell: keras.layers.LSTMCell.
    """
    import tensorflow as tf

    sigmoid, tanh = cell.recurrent_activation, cell.activation

    def step(before, now):
        (output, carry), (gates, valid) = before, now
        gates += ops.matmul(output, cell.recurrent_kernel)
        write, keep, new, read = tf.split(gates, 4, axis=-1)  # (B, U) each
        carry = sigmoid(keep) * carry + sigmoid(write) * tanh(new)
        after = [sigmoid(read) * tanh(carry), carry]
        return after if mask is None else [tf.where(valid, *pair) for pair in zip(after, before, strict=True)]

    gates = ops.matmul(inputs, cell.kernel) + (cell.bias if cell.use_bias else 0)  # (B, T, 4 U)
    valid = tf.ones(tf.shape(inputs)[:2], bool) if mask is None else tf.cast(mask, bool)
    steps = [tf.transpose(gates, (1, 0, 2)), tf.transpose(valid)[..., None]]  # (T, B, ...)
    outputs, carries = tf.scan(step, steps, list(states))
    return tf.transpose(outputs, (1, 0, 2)), [outputs[-1], carries[-1]]


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
