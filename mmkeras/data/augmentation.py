"""Augmentation of images, for small sets of real ones."""

import math

import tensorflow as tf

SHIFT, ZOOM, ROTATION = 0.1, 0.15, 0.06 * 2 * math.pi  # share of the side, relative, radians
BRIGHTNESS, CONTRAST, SATURATION = 0.1, 0.2, 0.3  # share of the range, relative, relative
THICKER, THINNER, BLUR = 0.25, 0.15, 0.85  # shares of images whose lines change, relative
MIX, GRAY, GAMMA, SHADING = 0.2, 0.2, 0.4, 0.25  # relative, share of images, exponent's log, share of the range
HOLE, HOLE_SIDE = 0.4, (0.1, 0.35)  # share of images, of the side


def augmented(image: tf.Tensor, random_seed: tf.Tensor, as_drawn: tf.Tensor | bool = False) -> tf.Tensor:
    """Images, each moved, zoomed, rotated, redrawn and recolored at random.

    Pixels from outside repeat the border. Redrawn and recolored as another artist might do: lines become
    thicker, thinner, softer or sharper, colors mix and shade off. A part of some images is covered.

    Args:
        image: (B, H, W, 3) uint8.
        random_seed: () int64. The same seed gives the same images.
        as_drawn: (B,) bool, or one for all. Which images stay as they are. Defaults to none.

    Returns:
        (B, H, W, 3) uint8.
    """
    count, height, width = tf.shape(image)[0], tf.shape(image)[1], tf.shape(image)[2]
    sides = tf.cast([width, height], tf.float32)

    def uniform(number, limit, *shape):
        return tf.random.stateless_uniform([count, *shape], tf.stack([random_seed, number]), -limit, limit)

    def some(number, share):
        """(B, 1, 1, 1): 1 for a share of the images, else 0."""
        return tf.cast(tf.abs(uniform(number, 1, 1, 1, 1)) < share, tf.float32)

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
    moved = tf.clip_by_value(moved, 0, 255)

    # --- which lines ---
    thicker, thinner = some(6, THICKER), some(7, THINNER)  # dark lines on a bright ground
    moved += thicker * (-tf.nn.max_pool2d(-moved, 3, 1, "SAME") - moved)
    moved += thinner * (tf.nn.max_pool2d(moved, 3, 1, "SAME") - moved)
    moved += uniform(8, BLUR, 1, 1, 1) * (tf.nn.avg_pool2d(moved, 3, 1, "SAME") - moved)

    # --- which paint ---
    ink = 1 - moved / 255  # so that white stays white
    ink = tf.einsum("bhwc,bcd->bhwd", ink, tf.eye(3) + uniform(9, MIX, 3, 3))
    ink += some(10, GRAY) * (tf.reduce_mean(ink, axis=-1, keepdims=True) - ink)
    paint = tf.clip_by_value(1 - ink, 0, 1) ** tf.exp(uniform(11, GAMMA, 1, 1, 1))
    y = tf.linspace(-1.0, 1.0, height)[:, None, None]  # (H, 1, 1)
    x = tf.linspace(-1.0, 1.0, width)[None, :, None]  # (1, W, 1)
    shade = uniform(12, SHADING, 1, 1, 1) * x + uniform(13, SHADING, 1, 1, 1) * y  # (B, H, W, 1)
    is_ground = tf.reduce_min(paint, axis=-1, keepdims=True) > 0.97
    paint += tf.where(is_ground, 0.0, shade)

    # --- what is covered ---
    least, most = HOLE_SIDE
    side = (least + most) / 2 + uniform(14, (most - least) / 2, 1, 1, 1)
    is_near = [tf.abs(position - uniform(number, 1, 1, 1, 1)) < side for position, number in ((y, 15), (x, 16))]
    hole = some(17, HOLE) * tf.cast(tf.logical_and(*is_near), tf.float32)
    paint = tf.clip_by_value(paint, 0, 1) * (1 - hole) + hole
    redrawn = tf.cast(tf.round(255 * paint), image.dtype)
    return tf.ensure_shape(tf.where(tf.reshape(as_drawn, (-1, 1, 1, 1)), image, redrawn), image.shape)
