"""Image captioning (chapter 5.1): the graph.

    image ── encoder: VGG16 → grid features → memory ──┐
    tokens ─ decoder: embedding → LSTM → attention ────┴→ logits

Both halves are Functional models by themselves, found by name: `model.get_layer("encoder")` and
`model.get_layer("decoder")`. The decoder that learns from whole captions is the one that later writes them
a word at a time.
"""

import os
from collections.abc import Sequence

import keras

from mmkeras._utils import checks, terminal
from mmkeras.data.vocabulary import Vocabulary
from mmkeras.nn import layers

TASK = "captioning"

PRESETS = {
    # the document's sizes: VGG16, which sees 224 pixels as 7 x 7 places, and an LSTM of 256
    "document": {
        "encoder": "vgg16",
        "image_size": 224,
        "fine_tune": False,
        "units": 256,
        "embedding_dim": 256,
        "dropout": 0.5,
        "word_dropout": 0.0,
        "label_smoothing": 0.0,
        "learning_rate": 1e-3,
        "decay_steps": None,
    },
    # the same in small: 64 pixels, seen as 8 x 8 places. Its encoder starts from nothing, so it learns too.
    "toy": {
        "encoder": "vgg_small",
        "image_size": 64,
        "fine_tune": True,
        "units": 128,
        "embedding_dim": 64,
        "dropout": 0.3,
        "word_dropout": 0.3,
        # Without it "purple" comes to mean "no circle" where training shows no purple circles: nothing
        # is lost by making a wrong word ever less probable. This keeps all wrong words equally so.
        "label_smoothing": 0.2,
        "learning_rate": 2e-3,
        "decay_steps": 750,  # six passes over the toy world's 4,000 pictures
    },
}


def build(
    preset: str = "toy",
    *,
    vocabulary: Vocabulary | int | Sequence[str] = 10_000,
    weights: str | os.PathLike | None = "auto",
    compile: bool = True,
    **overrides,
) -> keras.Model:
    """Image captioning: convolutional grid features, LSTM with additive attention.

    After "Show, Attend and Tell" (Xu et al. 2015, arXiv:1502.03044) and section 5.1 of the document. Xu et
    al. attend before each LSTM step, here the attention follows the LSTM (`layers.attention_decoder`), so
    that a whole caption trains in one LSTM call.

    Inputs:  image  (B, image_size, image_size, 3) RGB 0..255; with a frozen encoder also the grid (B, h, w, C)
                    that it made of the picture before (`with_features`)
             tokens (B, T) int32, starting with <start>
    Output:  logits (B, T, V) float32

    Args:
        preset: `"toy"` (for the toy world, trains in minutes on two cores) or `"document"` (the document's
            sizes, for photographs).
        vocabulary: a `Vocabulary`, the words themselves, or only how many tokens there are.
        weights: of a VGG16 encoder. `"auto"`: ImageNet's where they are cached or can be fetched, otherwise
            random ones with a warning. `"imagenet"`: ImageNet's or an error. A path: a file in Keras's
            layout. None: random.
        compile: with Adam and the cross-entropy of the real tokens; False leaves it to the caller.
        overrides: of the preset: `encoder` (`"vgg16"`, `"vgg_small"`), `image_size` (pixels), `fine_tune`
            (the encoder learns too), `units`, `embedding_dim`, `dropout`, `word_dropout`,
            `label_smoothing` (sample with a `top_p` below what it leaves), `learning_rate`, and `decay_steps`,
            after which the learning rate has fallen to a fiftieth along a cosine (None: it stays).

    Raises:
        ValueError, TypeError: a preset or override that nobody knows, or a weights file of another layout.
        OSError: `weights="imagenet"` where they cannot be had, or a weights file that is not there.
    """
    sizes = layers.with_overrides(PRESETS, preset, overrides)
    checks.ints(1, **{name: sizes[name] for name in ("units", "embedding_dim")})
    checks.numbers(0, **{name: sizes[name] for name in ("dropout", "word_dropout", "label_smoothing")})
    layers.check_schedule(sizes["learning_rate"], sizes["decay_steps"])
    vocabulary = Vocabulary.of(vocabulary)

    encoder = image_encoder(sizes["encoder"], sizes["image_size"], sizes["units"], weights, sizes["fine_tune"])
    decoder = layers.attention_decoder(
        vocabulary,
        memory_dim=sizes["units"],
        embedding_dim=sizes["embedding_dim"],
        units=sizes["units"],
        dropout=sizes["dropout"],
        word_dropout=sizes["word_dropout"],
    )
    image = keras.Input(encoder.input_shape[1:], name="image")
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    memory, hidden, cell = encoder(image)  # (B, h*w, U), (B, U), (B, U)
    logits, *_ = decoder([tokens, memory, hidden, cell])  # (B, T, V)
    model = keras.Model({"image": image, "tokens": tokens}, logits, name=TASK)
    if compile:
        model.compile(
            layers.adam(sizes["learning_rate"], sizes["decay_steps"]),
            loss=layers.TokenCrossentropy(sizes["label_smoothing"]),
            metrics=[layers.TokenAccuracy()],
        )
    return model


def image_encoder(
    encoder: str, image_size: int, units: int, weights: str | os.PathLike | None, fine_tune: bool
) -> keras.Model:
    """Picture → memory (B, h*w, units) and the LSTM's first state (hidden, cell: (B, units))."""
    if encoder not in ENCODERS:
        known = ", ".join(map(repr, ENCODERS))
        raise ValueError(f"Expected encoder to be one of {known}. Received: encoder={encoder!r}")
    if not isinstance(image_size, int) or image_size < 64:
        raise ValueError(f"Expected image_size to be at least 64 pixels. Received: image_size={image_size!r}")
    network, fell_back = ENCODERS[encoder](image_size, weights)

    # A frozen network leaves the shape open, so that its own grids are taken in the place of pictures.
    image = keras.Input((image_size, image_size, 3) if fine_tune else (None, None, None), name="image")
    grid = layers.GridFeatures(network, image_size, fell_back, name="grid", trainable=fine_tune)(image)
    memory = keras.layers.Reshape((-1, grid.shape[-1]))(grid)  # (B, h*w, C)
    memory = keras.layers.Dense(units, activation="relu", name="memory")(memory)  # (B, h*w, U)
    # VGG's features reach into the hundreds; unscaled they drive the LSTM's first state to its limits
    memory = keras.layers.LayerNormalization()(memory)
    gist = keras.layers.GlobalAveragePooling1D()(memory)  # (B, U)
    hidden = keras.layers.Dense(units, activation="tanh", name="hidden")(gist)
    cell = keras.layers.Dense(units, activation="tanh", name="cell")(gist)
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
                    f"ImageNet's weights for VGG16 are neither cached nor to be fetched. Connect to a network "
                    f"once, or name a file with weights='vgg16....h5'. Keras says: {error}"
                ) from error
            terminal.warn(
                "ImageNet's weights for VGG16 are neither cached nor to be fetched, so the encoder starts from "
                "random weights: good for a look, not for training on photographs. Connect to a network once, "
                "name a file with weights='vgg16....h5', or say weights=None to do without them."
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
    """VGG's shape with seven convolutions of at most 128 channels and batch normalisation.

    Returns the network, (B, S, S, 3) → (B, S/8, S/8, 128), and False: it has no weights to fall back from.
    """
    if weights not in ("auto", None):
        raise ValueError(
            f"encoder='vgg_small' has no trained weights. Expected weights to be 'auto' or None. "
            f"Received: weights={weights!r}"
        )
    image = keras.Input((image_size, image_size, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(image)
    # momentum 0.9: its averages must have settled after the hundred steps of a small folder
    for block, channels in enumerate(((16,), (32, 32), (64, 64), (128, 128))):
        if block:
            x = keras.layers.MaxPooling2D()(x)
        for filters in channels:
            x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = layers.BatchNormalization(momentum=0.9)(x)
            x = keras.layers.ReLU()(x)
    return keras.Model(image, x, name="vgg_small"), False


ENCODERS = {"vgg16": vgg16, "vgg_small": vgg_small}
