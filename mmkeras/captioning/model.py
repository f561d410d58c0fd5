"""Image captioning (chapter 5.1): the graph.

    image ── encoder: VGG16 → grid features → memory ──┐
    tokens ─ decoder: embedding → LSTM → attention ────┴→ logits

Both halves are Functional models: `model.get_layer("encoder")` and `model.get_layer("decoder")`. The decoder is
trained by teacher forcing on complete captions, and decodes one token at a time.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import keras

from mmkeras._utils import checks, presets
from mmkeras.nn import backbones, layers, losses, optimizers
from mmkeras.nn.attention_decoder import attention_decoder
from mmkeras.text.vocabulary import Vocabulary

TASK = "captioning"
EPOCHS = 12  # passes over the toy world that the preset "toy" is made for


@dataclass(frozen=True)
class CaptioningConfig:
    """Sizes of the graph and settings of its training. The defaults are the document's, for photographs.

    Attributes:
        encoder: str or keras.Model. `"vgg16"`, `"vgg_small"`, another network of `keras.applications` such as
            `"efficientnet_v2_b0"`, or a model of your own, see `mmkeras.nn.backbones.backbone`.
        image_size: int. Side of the images in pixels, at least 64; from 224 pixels VGG16 makes a 7 x 7 grid.
        fine_tune: bool. Whether the encoder is trained.
        units: int. Units of the LSTM and channels of the memory.
        embedding_dim: int. Size of the token embedding.
        dropout: float. Dropout rate in the decoder.
        word_dropout: float. Rate at which the complete embedding of an input token is set to 0.
        query_dropout: float. Rate at which the attention of a word is independent of the word in training.
        label_smoothing: float. Label smoothing of the cross-entropy. It makes every wrong word more probable,
            so sample with a low `top_p`.
        entropy_penalty: float. Weight of the attention's entropy in the training loss. It makes each word
            attend to few grid cells.
        learning_rate: float. Initial learning rate of Adam.
        decay_steps: int, optional. Steps of the cosine decay to a fiftieth. None: constant.
    """

    encoder: str | keras.Model = "vgg16"
    image_size: int = 224
    fine_tune: bool = False
    units: int = 256
    embedding_dim: int = 256
    dropout: float = 0.5
    word_dropout: float = 0.0
    query_dropout: float = 0.0
    label_smoothing: float = 0.0
    entropy_penalty: float = 0.0
    learning_rate: float = 1e-3
    decay_steps: int | None = None

    def __post_init__(self):
        if not isinstance(self.encoder, keras.Model):
            backbones.check_name(self.encoder)
        # VGG16 halves the side five times: 64 pixels become a grid of 2 x 2
        checks.ints(64 if isinstance(self.encoder, str) else 1, image_size=self.image_size)
        checks.ints(1, units=self.units, embedding_dim=self.embedding_dim)
        checks.numbers(0, dropout=self.dropout, word_dropout=self.word_dropout)
        checks.numbers(0, query_dropout=self.query_dropout)
        checks.numbers(0, label_smoothing=self.label_smoothing, entropy_penalty=self.entropy_penalty)
        optimizers.check_schedule(self.learning_rate, self.decay_steps)


PRESETS = {
    "document": CaptioningConfig(),
    # For small real images without pretrained weights: a network of its own, trained.
    "small": CaptioningConfig(
        encoder="vgg_medium",
        image_size=64,
        fine_tune=True,
        units=256,
        embedding_dim=128,
        dropout=0.3,
        learning_rate=1.5e-3,
    ),
    # A smaller graph: an 8 x 8 grid from 64 pixels. The encoder has no pretrained weights, so it is trained.
    "toy": CaptioningConfig(
        encoder="vgg_small",
        image_size=64,
        fine_tune=True,
        units=128,
        embedding_dim=64,
        dropout=0.3,
        word_dropout=0.3,
        query_dropout=0.2,
        # Training has no purple circles. Without smoothing the loss keeps falling as "circle" becomes less
        # probable after "purple", until the decoder never generates that pair. With smoothing the loss is
        # lowest if all wrong words are equally probable.
        label_smoothing=0.2,
        entropy_penalty=0.02,
        learning_rate=2e-3,
        decay_steps=EPOCHS * 4000 // 32,  # of the toy world's 4,000 images, in batches of 32
    ),
}


def build(
    preset: str | CaptioningConfig = "toy",
    *,
    vocabulary: Vocabulary | int | Sequence[str] = 10_000,
    weights: str | os.PathLike | None = "auto",
    compile: bool = True,
    **overrides,
) -> keras.Model:
    """Image captioning: convolutional grid features and an LSTM decoder with additive attention.

    After "Show, Attend and Tell" (Xu et al. 2015, arXiv:1502.03044) and section 5.1 of the document. Xu et al.
    attend before each LSTM step. Here the attention follows the LSTM (`mmkeras.nn.attention_decoder`), so that
    training needs one LSTM call per caption.

    Inputs:  image  (B, image_size, image_size, 3) RGB 0..255; for a frozen encoder alternatively its grid
                    features (B, h, w, C), computed in advance (`with_features`)
             tokens (B, T) int32, starting with <start>
    Output:  logits (B, T, V) float32

    Args:
        preset: `"toy"` (for the toy world, trains in minutes on two cores), `"small"` (for small real images,
            from scratch), `"document"` (the document's sizes, for photographs), or a `CaptioningConfig`.
            Defaults to `"toy"`.
        vocabulary: `Vocabulary`, list of words, a tokenizer (`mmkeras.text.subwords`), or number of tokens.
            Defaults to 10,000.
        weights: Weights of the encoder: `"auto"`, `"imagenet"`, a file, the name of a ready-trained model such
            as `"captioning"`, or None (random), see `mmkeras.nn.backbones.backbone`. Defaults to `"auto"`.
        compile: bool. Whether to compile with Adam and the token cross-entropy. Defaults to True.
        **overrides: Sizes in place of the preset's, see `CaptioningConfig`.

    Raises:
        ValueError, TypeError: for an unknown preset or override, an encoder that does not fit, or a weights
            file of another layout.
        OSError: if ImageNet's weights are not available with `weights="imagenet"`, or the weights file does not
            exist.
    """
    config = presets.with_overrides(PRESETS, preset, overrides)
    vocabulary = Vocabulary.of(vocabulary)

    # --- image → memory, first state ---
    encoder = image_encoder(config, weights)
    decoder = attention_decoder(
        vocabulary,
        memory_dim=config.units,
        embedding_dim=config.embedding_dim,
        units=config.units,
        dropout=config.dropout,
        word_dropout=config.word_dropout,
        query_dropout=config.query_dropout,
        entropy_penalty=config.entropy_penalty,
    )

    # --- memory, tokens → logits ---
    image = keras.Input(encoder.input_shape[1:], name="image")
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    memory, hidden, cell = encoder(image)  # (B, h*w, U), (B, U), (B, U)
    logits, *_ = decoder([tokens, memory, hidden, cell])  # (B, T, V)
    model = keras.Model({"image": image, "tokens": tokens}, logits, name=TASK)
    if compile:
        optimizers.compile(
            model,
            optimizers.adam(config.learning_rate, config.decay_steps),
            loss=losses.TokenCrossentropy(config.label_smoothing),
            weighted_metrics=[losses.TokenAccuracy()],
        )
    return model


def image_encoder(config: CaptioningConfig, weights: str | os.PathLike | None = None) -> keras.Model:
    """Image (B, S, S, 3) → memory (B, h*w, units) and the LSTM's first state (hidden, cell: (B, units)).

    Args:
        config: `CaptioningConfig`. If the network is not fine-tuned, its cached features are accepted in place
            of images.
        weights: Weights of the network, see `build`. Defaults to None.
    """
    units = config.units
    image, grid = backbones.input_and_grid(config.encoder, config.image_size, weights, config.fine_tune)
    memory = keras.layers.Reshape((-1, grid.shape[-1]))(grid)  # (B, h, w, C) → (B, h*w, C)
    # VGG's features reach into the hundreds; without normalization they saturate the LSTM's first state.
    memory = keras.layers.Dense(units, activation="relu", name="features")(memory)  # (B, h*w, U)
    memory = keras.layers.LayerNormalization()(memory)
    # The first state averages over the cells, before their positions are added.
    pooled = keras.layers.GlobalAveragePooling1D()(memory)  # (B, U)
    hidden = keras.layers.Dense(units, activation="tanh", name="hidden")(pooled)  # (B, U)
    cell = keras.layers.Dense(units, activation="tanh", name="cell")(pooled)  # (B, U)
    memory = layers.PositionEmbedding(name="positions")(memory)  # (B, h*w, U)
    memory = keras.layers.Dense(units, activation="relu", name="memory")(memory)  # (B, h*w, U)
    memory = keras.layers.LayerNormalization()(memory)
    return keras.Model(image, [memory, hidden, cell], name="encoder")
