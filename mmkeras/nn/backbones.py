"""Networks that turn images into a grid of features."""

import difflib
import functools
import inspect
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from mmkeras._utils import terminal
from mmkeras.nn import layers

SHIPPED = Path(__file__).parents[1] / "zoo"  # the files of the ready-trained models


def backbone(
    encoder: str | keras.Model, image_size: int, weights: str | os.PathLike | None = None
) -> tuple[keras.Model, bool]:
    """The network of an image encoder, with the preprocessing that it expects.

    Args:
        encoder: str or keras.Model. `"vgg_small"`, `"vgg_medium"`, or a network of `keras.applications` by its
            name, such as `"vgg16"` or `"efficientnet_v2_b0"`. A model of your own takes RGB 0..255
            (B, S, S, 3) and returns a grid (B, h, w, C) or a sequence (B, N, D), whose first vector is taken
            for a class token and left out if the others form a square, as in a ViT. It is copied. One of
            `transformers`: see `mmkeras.nn.hugging_face`.
        image_size: int. Side S in pixels.
        weights: `"auto"`: ImageNet's if they are cached or can be downloaded, otherwise random ones with a
            warning. `"imagenet"`: ImageNet's or an error. A path: a file of weights in Keras's layout, or a
            `.keras` file with the same network. The name of a ready-trained model. None: random. Defaults to
            None.

    Returns:
        Images (B, S, S, 3) → grid (B, h, w, C); a sequence that is no square has height 1. And whether the
        weights are random because ImageNet's are not available.

    Raises:
        ValueError: for an unknown encoder, an encoder that does not fit images of this size, returns something
            else or cannot be saved, or weights of another network.
        OSError: if the weights are not available.
    """
    if isinstance(encoder, keras.Model):
        if weights not in ("auto", None):
            raise ValueError(
                f"Expected weights to be 'auto' or None, since encoder={encoder.name!r} has its own. "
                f"Received: weights={weights!r}"
            )
        return _grid(_copy(encoder), image_size), False
    if encoder in OWN:
        network = OWN[encoder](image_size)
        if weights == "imagenet":
            raise ValueError(
                f"{encoder=} has no weights of ImageNet. Expected weights to be 'auto', None, a file, or the "
                f"name of a ready-trained model. Received: weights='imagenet'"
            )
        if weights not in ("auto", None):
            _load(network, weights)
        return network, False
    create = _create(encoder)
    network, has_random_weights = _application(create, image_size, weights)
    preprocess = sys.modules[create.__module__].preprocess_input
    return _grid(network, image_size, _preprocessing(preprocess)), has_random_weights


def input_and_grid(
    encoder: str | keras.Model, image_size: int, weights: str | os.PathLike | None, fine_tune: bool
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """What an image encoder begins with: its input "image", and the grid of its network's features.

    The input's shape is open: the layer itself says which size it expects, and the cached features of a frozen
    network can replace the images.

    Args:
        encoder, image_size, weights: See `backbone`.
        fine_tune: bool. Whether the network is trained. If not, its features are accepted in place of images.

    Returns:
        The image (B, S, S, 3) and the grid (B, h, w, C).
    """
    network, is_random = backbone(encoder, image_size, weights)
    image = keras.Input((None, None, 3 if fine_tune else None), name="image")
    grid = layers.GridFeatures(network, image_size, is_random, name="grid", trainable=fine_tune)
    return image, grid(image)


def vgg_small(image_size: int) -> keras.Model:
    """VGG's shape (Simonyan & Zisserman 2015, arXiv:1409.1556) with seven convolutions of at most 128 channels
    and batch normalization: (B, S, S, 3) → (B, S/8, S/8, 128).

    The last three convolutions are 1 x 1, so that a grid cell sees 26 x 26 pixels. With VGG's 3 x 3 it would
    see 66 x 66, all of a small image: attention could predict a word from any cell, far from what it means.
    """
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
    return keras.Model(image, x, name="vgg_small")


def vgg_medium(image_size: int) -> keras.Model:
    """VGG's shape with six convolutions of at most 256 channels and batch normalization: (B, S, S, 3) →
    (B, S/16, S/16, 256). For small real images: each cell sees most of an image of 64 pixels.

    The first convolution has a stride, since VGG's at the full size would take most of the time.
    """
    image = keras.Input((image_size, image_size, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(image)
    for filters, kernels, stride in ((32, (4,), 2), (64, (3, 3), 1), (128, (3, 3), 1), (256, (3,), 1)):
        if filters > 32:
            x = keras.layers.MaxPooling2D()(x)  # (B, S/4, S/4, C), at last (B, S/16, S/16, C)
        for kernel in kernels:
            x = keras.layers.Conv2D(filters, kernel, strides=stride, padding="same", use_bias=False)(x)
            x = keras.layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    return keras.Model(image, x, name="vgg_medium")


OWN = {"vgg_small": vgg_small, "vgg_medium": vgg_medium}


# --- keras.applications ---


@functools.cache
def _applications() -> dict[str, Callable]:
    """{name without "_": function}, such as "efficientnetv2b0"."""
    functions = inspect.getmembers(keras.applications, inspect.isfunction)
    return {name.lower(): function for name, function in functions if name[0].isupper()}


def check_name(encoder: str) -> None:
    """Raises ValueError for the name of no encoder."""
    if encoder not in OWN:
        _create(encoder)


def _create(encoder):
    known = _applications()
    key = str(encoder).replace("_", "").lower()
    if key not in known:
        names = {name.replace("_", ""): name for name in OWN} | {
            name: function.__name__ for name, function in known.items()
        }
        close = [names[match] for match in difflib.get_close_matches(key, names, n=3)]
        hint = f" Close to it: {', '.join(close)}." if close else ""
        raise ValueError(
            f"Expected encoder to be a keras.Model, {', '.join(map(repr, OWN))}, or a network of "
            f"keras.applications, such as 'efficientnet_v2_b0'. Received: encoder={encoder!r}.{hint}"
        )
    return known[key]


def _application(create, image_size, weights):
    """The network without its classifier, and whether it has random weights in place of ImageNet's."""
    arguments = {"include_top": False, "input_shape": (image_size, image_size, 3)}
    name = create.__name__
    if weights in ("auto", "imagenet"):
        try:
            return create(weights="imagenet", **arguments), False
        except Exception as error:  # Keras raises a plain Exception if a download fails
            if weights == "imagenet":
                raise OSError(
                    f"ImageNet's weights for {name} are neither cached nor available. Download them once while "
                    f"online, or name a file with weights='{name.lower()}....h5'. Keras says: {error}"
                ) from error
            terminal.warn(
                f"ImageNet's weights for {name} are neither cached nor available, so the encoder starts from "
                f"random weights, which do not suffice for photographs. Download them once while online, name "
                f"a file with weights='{name.lower()}....h5', or use weights=None to train without them."
            )
            return create(weights=None, **arguments), True
    network = create(weights=None, **arguments)
    if weights is not None:
        _load(network, weights)
    return network, False


def _preprocessing(preprocess):
    """Layers equal to `preprocess_input` of a network, derived from its values for three colors."""
    colors = np.array([[0, 0, 0], [255, 0, 0], [255, 255, 255]], "float32").reshape(1, 1, 3, 3)
    black, red, white = np.asarray(preprocess(colors.copy()), "float32").reshape(3, 3)
    if np.array_equal(white, [255, 255, 255]):
        return []  # the network has its own
    if red[0] == black[0]:  # blue comes first
        return [layers.ImageNetMeans()]
    return [keras.layers.Rescaling(((white - black) / 255).tolist(), offset=black.tolist())]


def _load(network, weights):
    """Loads weights from a file, or from a ready-trained model."""
    path = Path(os.fspath(weights))
    shipped = sorted(SHIPPED.glob(f"{path.name}*.keras")) if str(path) == path.name and not path.suffix else []
    path = shipped[0] if shipped else path
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected weights to be 'auto', 'imagenet', None, a file, or the name of a ready-trained model. "
            f"There is no file {str(weights)!r}"
        )
    try:
        if path.suffix != ".keras":
            network.load_weights(path)
            return
        model = keras.saving.load_model(path, compile=False)
        grids = [layer for layer in model._flatten_layers() if isinstance(layer, layers.GridFeatures)]
        network.set_weights((grids[0].network if grids else model).get_weights())
    except (ValueError, OSError, TypeError) as error:
        layout = " in Keras's layout, as vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5 does for VGG16"
        raise ValueError(
            f"{str(weights)!r} does not hold the weights of {network.name!r}{'' if shipped else layout}. "
            f"Keras says: {error}"
        ) from error


# --- networks of the user's own ---


def _copy(network):
    """A copy with the same weights, since the encoder may freeze it. Raises ValueError if no file can hold
    it."""
    check_savable(network)
    other = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(network))
    other.set_weights(network.get_weights())
    return other


def check_savable(network: keras.Model) -> None:
    """Raises ValueError if a network has layers that a `.keras` file cannot hold."""

    def is_known(kind):
        is_of_keras = kind.__module__.split(".")[0] in ("keras", "keras_hub")
        return is_of_keras or keras.saving.get_registered_name(kind) != kind.__name__

    kinds = {type(layer) for layer in network._flatten_layers()}
    code = (keras.layers.Lambda, keras.layers.TorchModuleWrapper)  # what a file would hold of them
    unknown = {kind.__name__ for kind in kinds if kind in code or not is_known(kind)}
    if unknown:
        raise ValueError(
            f"Expected encoder to have layers that a .keras file can hold. Received: encoder={network.name!r} "
            f"with {', '.join(sorted(unknown))}. Mark a layer of your own with "
            f"@keras.saving.register_keras_serializable(), and write one in place of a Lambda. A network of "
            f"transformers belongs in mmkeras.nn.hugging_face.TransformersEncoder."
        )


def _grid(network, image_size, preprocessing=()):
    """Images (B, S, S, 3) → grid (B, h, w, C) of a network, which may return a sequence."""
    shape = (image_size, image_size, 3)
    inputs, outputs = [[tuple(tensor.shape) for tensor in side] for side in (network.inputs, network.outputs)]
    fits = len(inputs) == 1 and len(inputs[0]) == 4
    if not fits or any(size not in (None, own) for size, own in zip(inputs[0][1:], shape, strict=True)):
        raise ValueError(
            f"Expected encoder to take images (B, {image_size}, {image_size}, 3). Received: "
            f"encoder={network.name!r} with inputs {inputs}. Choose its size with image_size=."
        )
    x = image = keras.Input(shape)
    for layer in preprocessing:
        x = layer(x)
    is_named = isinstance(getattr(network, "_inputs_struct", None), dict)  # KerasHub's take {"images": x}
    x = network({network.inputs[0].name: x} if is_named else x)
    x = next(iter(x.values())) if isinstance(x, dict) and len(x) == 1 else x
    if not keras.backend.is_keras_tensor(x) or len(x.shape) not in (3, 4) or None in x.shape[1:]:
        raise ValueError(
            f"Expected encoder to return a grid (B, h, w, C) or a sequence (B, N, D) of known size. Received: "
            f"encoder={network.name!r} with outputs {outputs}. Give it without its pooling and its classifier."
        )
    if len(x.shape) == 3:
        count = x.shape[1]
        if math.isqrt(count) ** 2 != count and math.isqrt(count - 1) ** 2 == count - 1:
            x, count = keras.layers.Cropping1D((1, 0))(x), count - 1  # without the class token
        side = math.isqrt(count)
        height = side if side**2 == count else 1
        x = keras.layers.Reshape((height, count // height, x.shape[-1]))(x)
    return keras.Model(image, x, name=network.name)


def sequence_network(encoder: keras.Model, bands: int, stride: int, fine_tune: bool = True) -> keras.Model:
    """A copy of an encoder of speech, checked: frames (B, F, bands) → (B, F / stride, D).

    Args:
        encoder: keras.Model.
        bands: int. Values per frame.
        stride: int. Frames per vector.
        fine_tune: bool. Whether the copy is trainable. Defaults to True.

    Raises:
        ValueError: if the encoder takes or returns something else, or cannot be saved.
    """
    network = _copy(encoder)
    inputs, outputs = [[tuple(tensor.shape) for tensor in side] for side in (network.inputs, network.outputs)]
    frames = 16 * stride
    fits = len(inputs) == len(outputs) == 1 and inputs[0][1:] == (None, bands)
    if not fits or network.compute_output_shape((1, frames, bands))[:-1] != (1, frames // stride):
        raise ValueError(
            f"Expected encoder to turn log-mel frames (B, F, {bands}) into vectors (B, F / {stride}, D). "
            f"Received: encoder={encoder.name!r} with inputs {inputs} and outputs {outputs}. Choose bands= and "
            f"subsampling= that are its own."
        )
    network.trainable = fine_tune
    return network
