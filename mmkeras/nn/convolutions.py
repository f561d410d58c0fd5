"""Text to image: the layers that its models are made of."""

import keras

from mmkeras.nn import layers

SEED = 4  # the side of the seed grid


def grown(vector, image_size: int, channels: int, name: str):
    """Vector → seed grid (4, 4, channels) → doubled until it is a picture (B, size, size, 3) in 0..1."""
    x = keras.layers.Dense(SEED * SEED * channels, use_bias=False)(vector)
    x = normalised(keras.layers.Reshape((SEED, SEED, channels))(x))
    side = SEED
    while 2 * side < image_size:
        side, channels = 2 * side, max(channels // 2, 32)
        x = doubled(x, channels)
    return picture(x, name)


def doubled(x, channels: int):
    """(B, H, W, C) → (B, 2H, 2W, channels)"""
    return normalised(keras.layers.Conv2DTranspose(channels, 4, strides=2, padding="same", use_bias=False)(x))


def picture(x, name: str):
    """(B, H, W, C) → picture (B, 2H, 2W, 3) in 0..1"""
    # float32 also under mixed precision: the cross-entropy of a sigmoid needs it
    return keras.layers.Conv2DTranspose(
        3, 4, strides=2, padding="same", activation="sigmoid", dtype="float32", name=name
    )(x)


def normalised(x):
    # momentum 0.9: its averages must have settled after the hundred steps of a small folder
    return keras.layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))


def what_and_where(x):
    """Picture (B, S, S, 3) → (B, 608): what there is, wherever it is, and where there is anything."""
    for filters in (16, 32, 64, 64, 96):
        x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = normalised(x)
        if x.shape[1] > 8:  # down to 8 x 8 places
            x = keras.layers.MaxPooling2D()(x)
    what = keras.layers.GlobalMaxPooling2D()(x)  # (B, 96)
    where = keras.layers.Flatten()(keras.layers.Conv2D(8, 1, activation="relu")(x))  # (B, 512)
    return keras.layers.Concatenate()([what, where])
