"""Convolutional blocks: features of an image, and transposed convolutions from a vector to an image."""

import keras

from mmkeras.nn import layers

GRID_SIZE = 4  # side of the first grid, as in DCGAN (Radford et al. 2016, arXiv:1511.06434)


def vector_to_image(vector, image_size: int, channels: int, name: str):
    """(B, D) → image (B, image_size, image_size, 3) in 0..1, by transposed convolutions as in DCGAN.

    Args:
        vector: (B, D).
        image_size: int. Side in pixels, a power of two.
        channels: int. Channels of the first grid. Each layer halves them, down to 32.
        name: str. Name of the output layer.
    """
    x = keras.layers.Dense(GRID_SIZE * GRID_SIZE * channels, use_bias=False)(vector)  # (B, 16 C)
    x = _normalized(keras.layers.Reshape((GRID_SIZE, GRID_SIZE, channels))(x))  # (B, 4, 4, C)
    side = GRID_SIZE
    while 2 * side < image_size:
        side, channels = 2 * side, max(channels // 2, 32)
        x = keras.layers.Conv2DTranspose(channels, 4, strides=2, padding="same", use_bias=False)(x)
        x = _normalized(x)  # (B, side, side, channels), at last (B, S/2, S/2, C)
    return output_image(x, name)  # (B, S, S, 3)


def output_image(x, name: str):
    """(B, H, W, C) → image (B, 2H, 2W, 3) in 0..1, by a layer of that name."""
    # float32 also under mixed precision: the cross-entropy of a sigmoid needs it
    return keras.layers.Conv2DTranspose(
        3, 4, strides=2, padding="same", activation="sigmoid", dtype="float32", name=name
    )(x)


def image_features(x):
    """Image (B, S, S, 3) → features (B, 608): global ones, and those of the 8 x 8 cells of "grid"."""
    for filters in (16, 32, 64, 64, 96):
        x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = _normalized(x, "grid" if filters == 96 else None)
        if x.shape[1] > 8:
            x = keras.layers.MaxPooling2D()(x)  # (B, S/2, S/2, filters), at last (B, 8, 8, 96)
    pooled = keras.layers.GlobalMaxPooling2D()(x)  # (B, 96): what the image shows, at any position
    cells = keras.layers.Flatten()(keras.layers.Conv2D(8, 1, activation="relu")(x))  # (B, 512): and where
    return keras.layers.Concatenate()([pooled, cells])  # (B, 608)


def _normalized(x, name=None):
    # momentum 0.9: the averages must settle within the hundred steps of training on a small folder
    return keras.layers.ReLU(name=name)(layers.BatchNormalization(momentum=0.9)(x))
