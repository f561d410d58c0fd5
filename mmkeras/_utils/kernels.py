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
