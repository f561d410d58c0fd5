"""Augmentation of images, for small sets of real ones."""

import math

import tensorflow as tf

SHIFT, ZOOM, ROTATION = 0.1, 0.15, 0.06 * 2 * math.pi  # share of the side, relative, radians
BRIGHTNESS, CONTRAST, SATURATION = 0.1, 0.2, 0.3  # share of the range, relative, relative


def augmented(image: tf.Tensor, random_seed: tf.Tensor) -> tf.Tensor:
    """Images, each moved, zoomed, rotated and recolored at random. Pixels from outside repeat the border.

    Args:
        image: (B, H, W, 3) uint8.
        random_seed: () int64. The same seed gives the same images.

    Returns:
        (B, H, W, 3) uint8.
    """
    count, height, width = tf.shape(image)[0], tf.shape(image)[1], tf.shape(image)[2]
    sides = tf.cast([width, height], tf.float32)

    def uniform(number, limit, *shape):
        return tf.random.stateless_uniform([count, *shape], tf.stack([random_seed, number]), -limit, limit)

    # --- where: output pixel (x, y) shows input pixel (a x + b y + c, d x + e y + f) ---
    angle, scale = uniform(0, ROTATION), 1 + uniform(1, ZOOM)  # (B,)
    cos, sin = scale * tf.cos(angle), scale * tf.sin(angle)
    center = (sides - 1) / 2  # (2,)
    shift = uniform(2, SHIFT, 2) * sides + center  # (B, 2)
    c = shift[:, 0] - cos * center[0] + sin * center[1]
    f = shift[:, 1] - sin * center[0] - cos * center[1]
    zero = tf.zeros_like(c)
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image, tf.float32),
        transforms=tf.stack([cos, -sin, c, sin, cos, f, zero, zero], axis=1),
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )

    # --- which colors ---
    brightness, contrast, saturation = (
        uniform(number, limit, 1, 1, 1)
        for number, limit in ((3, 255 * BRIGHTNESS), (4, CONTRAST), (5, SATURATION))
    )
    gray = tf.reduce_mean(moved, axis=-1, keepdims=True)  # (B, H, W, 1)
    moved = gray + (1 + saturation) * (moved - gray)
    mean = tf.reduce_mean(moved, axis=(1, 2), keepdims=True)  # (B, 1, 1, 3)
    moved = mean + (1 + contrast) * (moved - mean) + brightness
    moved = tf.cast(tf.clip_by_value(tf.round(moved), 0, 255), image.dtype)
    return tf.ensure_shape(moved, image.shape)
