"""Image captioning (chapter 5.1): the graph.

    image ── encoder: VGG16 → grid features → memory ──┐
    tokens ─ decoder: embedding → LSTM → attention ────┴→ logits

Both halves are Functional models: `model.get_layer("encoder")` and `model.get_layer("decoder")`. The decoder is
trained on whole captions and decodes one word at a time.
"""

import os
from collections.abc import Sequence

import keras

from mmkeras._utils import checks, presets
from mmkeras.data.vocabulary import Vocabulary
from mmkeras.nn import encoders, losses, optimizers
from mmkeras.nn.attention_decoder import attention_decoder

TASK = "captioning"

PRESETS = {
    # the document's sizes: VGG16, a 7 x 7 grid of 224 pixels, and an LSTM of 256
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
    # the same in small: an 8 x 8 grid of 64 pixels. The encoder has no trained weights, so it is trained too.
    "toy": {
        "encoder": "vgg_small",
        "image_size": 64,
        "fine_tune": True,
        "units": 128,
        "embedding_dim": 64,
        "dropout": 0.3,
        "word_dropout": 0.3,
        # Without it "purple" comes to mean "no circle" if training has no purple circles, since the loss keeps
        # falling as a wrong word becomes less probable. Smoothing keeps all wrong words equally probable.
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
    """Image captioning: convolutional grid features and an LSTM decoder with additive attention.

    After "Show, Attend and Tell" (Xu et al. 2015, arXiv:1502.03044) and section 5.1 of the document. Xu et al.
    attend before each LSTM step. Here the attention follows the LSTM (`mmkeras.nn.attention_decoder`), so that
    a whole caption is trained with one LSTM call.

    Inputs:  image  (B, image_size, image_size, 3) RGB 0..255; with a frozen encoder also the grid (B, h, w, C)
                    that it made of the picture before (`with_features`)
             tokens (B, T) int32, starting with <start>
    Output:  logits (B, T, V) float32

    Args:
        preset: str. `"toy"` (for the toy world, trains in minutes on two cores) or `"document"` (the document's
            sizes, for photographs). Defaults to `"toy"`.
        vocabulary: `Vocabulary`, list of words, or number of tokens. Defaults to 10,000.
        weights: Weights of a VGG16 encoder. `"auto"`: ImageNet's if they are cached or can be downloaded,
            otherwise random ones with a warning. `"imagenet"`: ImageNet's or an error. A path: a file in
            Keras's layout. None: random. Defaults to `"auto"`.
        compile: bool. Whether to compile with Adam and the token cross-entropy. Defaults to True.
        **overrides: Sizes of the preset: `encoder` (`"vgg16"`, `"vgg_small"`), `image_size` (pixels),
            `fine_tune` (whether the encoder is trained), `units`, `embedding_dim`, `dropout`, `word_dropout`,
            `label_smoothing` (if it is high, sample with a low `top_p`), `learning_rate`, `decay_steps` (steps
            of the cosine decay to a fiftieth; None: constant).

    Raises:
        ValueError, TypeError: for an unknown preset or override, or a weights file of another layout.
        OSError: if ImageNet's weights are not available with `weights="imagenet"`, or the weights file does not
            exist.
    """
    sizes = presets.with_overrides(PRESETS, preset, overrides)
    checks.ints(1, **{name: sizes[name] for name in ("units", "embedding_dim")})
    checks.numbers(0, **{name: sizes[name] for name in ("dropout", "word_dropout", "label_smoothing")})
    optimizers.check_schedule(sizes["learning_rate"], sizes["decay_steps"])
    vocabulary = Vocabulary.of(vocabulary)

    # --- image → memory, first state ---
    encoder = encoders.image_encoder(
        sizes["encoder"], sizes["image_size"], sizes["units"], weights, sizes["fine_tune"]
    )
    decoder = attention_decoder(
        vocabulary,
        memory_dim=sizes["units"],
        embedding_dim=sizes["embedding_dim"],
        units=sizes["units"],
        dropout=sizes["dropout"],
        word_dropout=sizes["word_dropout"],
    )

    # --- memory, tokens → logits ---
    image = keras.Input(encoder.input_shape[1:], name="image")
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    memory, hidden, cell = encoder(image)  # (B, h*w, U), (B, U), (B, U)
    logits, *_ = decoder([tokens, memory, hidden, cell])  # (B, T, V)
    model = keras.Model({"image": image, "tokens": tokens}, logits, name=TASK)
    if compile:
        model.compile(
            optimizers.adam(sizes["learning_rate"], sizes["decay_steps"]),
            loss=losses.TokenCrossentropy(sizes["label_smoothing"]),
            metrics=[losses.TokenAccuracy()],
        )
    return model
