"""Text to image: the layers that both models are made of."""

import keras

from mmkeras import layers

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
    return normalised(keras.layers.Conv2DTranspose(channels, 4, strides=2, padding="same", use_bias=False)(x))


def picture(x, name: str):
    # float32 also under mixed precision: the cross-entropy of a sigmoid needs it
    return keras.layers.Conv2DTranspose(
        3, 4, strides=2, padding="same", activation="sigmoid", dtype="float32", name=name
    )(x)


def normalised(x):
    # momentum 0.9: its averages must have settled after the hundred steps of a small folder
    return keras.layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
