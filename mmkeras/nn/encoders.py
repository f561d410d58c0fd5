"""Convolutional networks that encode images. Keras alone: they run on every backend."""

import os

import keras

from mmkeras._utils import terminal
from mmkeras.nn import layers


def vgg16(image_size: int, weights: str | os.PathLike | None) -> tuple[keras.Model, bool]:
    """VGG16 (Simonyan & Zisserman 2015, arXiv:1409.1556) without its classifier, on RGB 0..255.

    Returns the network, (B, S, S, 3) → (B, S/32, S/32, 512), and whether it fell back to random weights.
    """
    application = keras.applications.VGG16(
        include_top=False, weights=None, input_shape=(image_size, image_size, 3)
    )
    fell_back = _load_vgg16_weights(application, weights)
    image = keras.Input((image_size, image_size, 3))
    return keras.Model(image, application(layers.ImageNetMeans()(image)), name="vgg16"), fell_back


def _load_vgg16_weights(application, weights):
    if weights is None:
        return False
    if weights in ("auto", "imagenet"):
        try:
            imagenet = keras.applications.VGG16(include_top=False, weights="imagenet")
        except Exception as error:  # Keras raises a plain Exception if a download fails
            if weights == "imagenet":
                raise OSError(
                    f"ImageNet's weights for VGG16 are neither cached nor available. Download them "
                    f"once while online, or name a file with weights='vgg16....h5'. Keras says: {error}"
                ) from error
            terminal.warn(
                "ImageNet's weights for VGG16 are neither cached nor available, so the encoder starts from "
                "random weights, which do not suffice for photographs. Download them once while online, "
                "name a file with weights='vgg16....h5', or use weights=None to train without them."
            )
            return True
        application.set_weights(imagenet.get_weights())
        return False
    path = os.fspath(weights)
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"Expected weights to be 'auto', 'imagenet', None, or a file. There is no file {path!r}"
        )
    try:
        application.load_weights(path)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{path!r} does not hold VGG16's convolutions in Keras's layout, as "
            f"vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5 does. Keras says: {error}"
        ) from error
    return False


def vgg_small(image_size: int, weights: str | os.PathLike | None) -> tuple[keras.Model, bool]:
    """VGG's shape with seven convolutions of at most 128 channels and batch normalization.

    The last three convolutions are 1 x 1, so that a grid cell sees 26 x 26 pixels. With VGG's 3 x 3 it would
    see 66 x 66, all of a small image: attention could read a word off any cell, far from what the word means.

    Returns the network, (B, S, S, 3) → (B, S/8, S/8, 128), and False: it has no weights to fall back from.
    """
    if weights not in ("auto", None):
        raise ValueError(
            f"encoder='vgg_small' has no trained weights. Expected weights to be 'auto' or None. "
            f"Received: weights={weights!r}"
        )
    image = keras.Input((image_size, image_size, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(image)
    # momentum 0.9: the averages must settle within the hundred steps of training on a small folder
    for filters, kernels in ((16, (3,)), (32, (3, 3)), (64, (3, 1)), (128, (1, 1))):
        if filters > 16:
            x = keras.layers.MaxPooling2D()(x)  # (B, S/2, S/2, C), at last (B, S/8, S/8, C)
        for kernel in kernels:
            x = keras.layers.Conv2D(filters, kernel, padding="same", use_bias=False)(x)
            x = layers.BatchNormalization(momentum=0.9)(x)
            x = keras.layers.ReLU()(x)
    return keras.Model(image, x, name="vgg_small"), False


ENCODERS = {"vgg16": vgg16, "vgg_small": vgg_small}
