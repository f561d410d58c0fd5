"""Encoders of images and speech. Keras alone: they run on every backend."""

import os

import keras

from mmkeras._utils import terminal
from mmkeras.nn import layers
from mmkeras.nn.spectrogram import LogMel, SpecAugment

# --- images ---


def image_encoder(
    encoder: str, image_size: int, units: int, weights: str | os.PathLike | None, fine_tune: bool
) -> keras.Model:
    """Image (B, S, S, 3) → memory (B, h*w, units) and the LSTM's first state (hidden, cell: (B, units)).

    Args:
        encoder: str. `"vgg16"` or `"vgg_small"`.
        image_size: int. Side S in pixels, at least 64.
        units: int. Channels of the memory and units of the LSTM.
        weights: Weights of the network, see `mmkeras.captioning.build`.
        fine_tune: bool. Whether the network is trained. If not, the model also takes its cached features.

    Raises:
        ValueError: for an unknown encoder or an image size that is too small.
    """
    if encoder not in ENCODERS:
        known = ", ".join(map(repr, ENCODERS))
        raise ValueError(f"Expected encoder to be one of {known}. Received: encoder={encoder!r}")
    if not isinstance(image_size, int) or image_size < 64:
        raise ValueError(f"Expected image_size to be at least 64 pixels. Received: image_size={image_size!r}")
    network, fell_back = ENCODERS[encoder](image_size, weights)

    # A frozen network leaves the shape open, so that its cached features can take the place of images.
    image = keras.Input((image_size, image_size, 3) if fine_tune else (None, None, None), name="image")
    grid = layers.GridFeatures(network, image_size, fell_back, name="grid", trainable=fine_tune)(
        image
    )  # (B, h, w, C)
    memory = keras.layers.Reshape((-1, grid.shape[-1]))(grid)  # (B, h*w, C)
    memory = keras.layers.Dense(units, activation="relu", name="memory")(memory)  # (B, h*w, U)
    # VGG's features reach into the hundreds; without normalization they saturate the LSTM's first state.
    memory = keras.layers.LayerNormalization()(memory)
    pooled = keras.layers.GlobalAveragePooling1D()(memory)  # (B, U)
    hidden = keras.layers.Dense(units, activation="tanh", name="hidden")(pooled)  # (B, U)
    cell = keras.layers.Dense(units, activation="tanh", name="cell")(pooled)  # (B, U)
    return keras.Model(image, [memory, hidden, cell], name="encoder")


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
        except Exception as error:  # Keras raises a bare Exception where a download fails
            if weights == "imagenet":
                raise OSError(
                    f"ImageNet's weights for VGG16 are neither cached nor available. Connect to a network "
                    f"once, or name a file with weights='vgg16....h5'. Keras says: {error}"
                ) from error
            terminal.warn(
                "ImageNet's weights for VGG16 are neither cached nor available, so the encoder starts from "
                "random weights: good for a look, not for training on photographs. Connect to a network once, "
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

    Returns the network, (B, S, S, 3) → (B, S/8, S/8, 128), and False: it has no weights to fall back from.
    """
    if weights not in ("auto", None):
        raise ValueError(
            f"encoder='vgg_small' has no trained weights. Expected weights to be 'auto' or None. "
            f"Received: weights={weights!r}"
        )
    image = keras.Input((image_size, image_size, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(image)
    # momentum 0.9: the averages must have settled after the hundred steps of a small folder
    for block, channels in enumerate(((16,), (32, 32), (64, 64), (128, 128))):
        if block:
            x = keras.layers.MaxPooling2D()(x)  # half the side
        for filters in channels:
            x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = layers.BatchNormalization(momentum=0.9)(x)
            x = keras.layers.ReLU()(x)
    return keras.Model(image, x, name="vgg_small"), False


ENCODERS = {"vgg16": vgg16, "vgg_small": vgg_small}


# --- speech ---


def speech_encoder(
    *,
    sample_rate_hz,
    frame_ms,
    hop_ms,
    bands,
    subsampling,
    encoder_layers,
    units,
    dropout,
    spec_augment,
    with_state,
) -> keras.Model:
    """Waveform → memory (B, S, units), which steps of it are real (B, S), and, `with_state`, an LSTM's first
    state (hidden, cell: (B, units)). S steps of hop_ms * subsampling each."""
    audio = keras.Input((None,), name="audio")
    length = keras.Input((), dtype="int32", name="length")
    x, is_real = LogMel(sample_rate_hz, frame_ms, hop_ms, bands, name="log_mel")(
        audio, length
    )  # (B, F, M), (B, F)
    if spec_augment:
        x = SpecAugment(name="spec_augment")(x)
    # Frames are taken together without overlap, the last ones with silence: the real steps come out the
    # same however far a clip is padded, as "same" padding would not have it.
    x = keras.layers.ZeroPadding1D((0, subsampling - 1))(x)
    x = keras.layers.Conv1D(units, subsampling, strides=subsampling, name="subsampling")(x)  # (B, S, U)
    is_real = is_real[:, ::subsampling]  # (B, S)
    for number in range(encoder_layers):
        lstm = layers.MaskedLSTM(units, return_sequences=True)
        x = layers.MaskedBidirectional(lstm, name=f"lstm_{number}")(x, mask=is_real)  # (B, S, 2U)
        x = keras.layers.Dropout(dropout)(x)
    memory = keras.layers.LayerNormalization()(keras.layers.Dense(units, name="memory")(x))
    memory = memory * keras.ops.cast(is_real, memory.dtype)[..., None]  # (B, S, U), 0 on padding
    outputs = [memory, is_real]
    if with_state:
        gist = keras.layers.GlobalAveragePooling1D()(memory, mask=is_real)  # (B, U)
        outputs.append(keras.layers.Dense(units, activation="tanh", name="hidden")(gist))
        outputs.append(keras.layers.Dense(units, activation="tanh", name="cell")(gist))
    return keras.Model([audio, length], outputs, name="encoder")
