"""Image search (chapter 6.1): the graph.

    image ── image_encoder: CNN → unit vector ──┐
    tokens ─ text_encoder: words, LSTM → unit ──┴→ cosine similarities, times an inverse temperature → logits

Both halves are Functional models: `model.get_layer("image_encoder")` and `model.get_layer("text_encoder")`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import keras
from keras import ops

from mmkeras._utils import checks, presets
from mmkeras.nn import backbones, layers, losses, optimizers
from mmkeras.text.vocabulary import PAD, Vocabulary

TASK = "image_search"
EPOCHS = 12  # passes over the toy world that the preset "toy" is made for


@dataclass(frozen=True)
class ImageSearchConfig:
    """Sizes of the graph and settings of its training. The defaults are for small real images.

    Attributes:
        encoder: str or keras.Model. Network of the images, see `mmkeras.nn.backbones.backbone`.
        image_size: int. Side of the images in pixels.
        fine_tune: bool. Whether the network is trained.
        units: int. Size of the vectors that are compared.
        embedding_dim: int. Size of the word embeddings.
        lowest_temperature: float. Limit of the learned temperature of the softmax. Few images overfit with a
            low one: with 0.01 in place of 0.07 Recall@1 on new emoji is 0.295 in place of 0.323 (one seed).
        dropout: float. Dropout rate of the grid and of the words.
        learning_rate: float. Initial learning rate of Adam.
        weight_decay: float. Decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101).
        decay_steps: int, optional. Steps of the cosine decay to a fiftieth. None: constant.
    """

    encoder: str | keras.Model = "vgg_medium"
    image_size: int = 64
    fine_tune: bool = True
    units: int = 128
    embedding_dim: int = 128
    lowest_temperature: float = 0.07
    dropout: float = 0.3
    learning_rate: float = 1.5e-3
    weight_decay: float = 1e-2
    decay_steps: int | None = None

    def __post_init__(self):
        if not isinstance(self.encoder, keras.Model):
            backbones.check_name(self.encoder)
        sizes = ("image_size", "units", "embedding_dim")
        checks.ints(1, **{name: getattr(self, name) for name in sizes})
        checks.numbers(1e-3, lowest_temperature=self.lowest_temperature)
        checks.numbers(0, dropout=self.dropout, weight_decay=self.weight_decay)
        optimizers.check_schedule(self.learning_rate, self.decay_steps)


PRESETS = {
    "document": ImageSearchConfig(),
    "toy": ImageSearchConfig(
        encoder="vgg_small",
        units=64,
        embedding_dim=64,
        lowest_temperature=0.01,
        dropout=0.0,
        learning_rate=2e-3,
        weight_decay=0.0,
        decay_steps=EPOCHS * -(-4000 // 64),  # of the toy world's 4,000 images, in batches of 64
    ),
}


def build(
    preset: str | ImageSearchConfig = "toy",
    *,
    vocabulary: Vocabulary | int | Sequence[str] = 10_000,
    weights: str | os.PathLike | None = "auto",
    compile: bool = True,
    **overrides,
) -> keras.Model:
    """A dual encoder of images and texts, trained with the contrastive loss of CLIP.

    After Radford et al. 2021 (arXiv:2103.00020) and section 6.1 of the document: both encoders return unit
    vectors, whose inner product is the similarity.

    Inputs:  image  (B, image_size, image_size, 3) RGB 0..255; for a frozen encoder alternatively its features
             tokens (B, T) int32, with <start> and <end>, padded with 0
    Output:  logits (B, 2, N) float32, each image's against the N texts of the batch and each text's against its
             images, see `mmkeras.nn.layers.ContrastiveLogits`. The target is an id (B,) of what is shown.

    Args:
        preset: `"toy"` (for the toy world), `"document"` (for small real images, from scratch), or an
            `ImageSearchConfig`. Defaults to `"toy"`.
        vocabulary: `Vocabulary`, list of words, or number of tokens. Defaults to 10,000.
        weights: Weights of the network of the images, see `mmkeras.captioning.build`. Defaults to `"auto"`.
        compile: bool. Whether to compile with Adam and the contrastive loss. Defaults to True.
        **overrides: Sizes in place of the preset's, see `ImageSearchConfig`.

    Raises:
        ValueError, TypeError, OSError: as for `mmkeras.captioning.build`.
    """
    config = presets.with_overrides(PRESETS, preset, overrides)
    vocabulary = Vocabulary.of(vocabulary)
    images, texts = image_encoder(config, weights), text_encoder(config, vocabulary)
    image = keras.Input(images.input_shape[1:], name="image")
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    logits = layers.ContrastiveLogits(lowest=config.lowest_temperature, name="logits")
    logits = logits(images(image), texts(tokens))  # (B, 2, N)
    model = keras.Model({"image": image, "tokens": tokens}, logits, name=TASK)
    if compile:
        adam = optimizers.adam(config.learning_rate, config.decay_steps, config.weight_decay)
        optimizers.compile(model, adam, loss=losses.SymmetricContrastive())
    return model


def image_encoder(config: ImageSearchConfig, weights: str | os.PathLike | None = None) -> keras.Model:
    """Image (B, S, S, 3) → unit vector (B, units).

    Args:
        config: `ImageSearchConfig`.
        weights: Weights of the network, see `build`. Defaults to None.
    """
    image, x = backbones.input_and_grid(config.encoder, config.image_size, weights, config.fine_tune)
    if not config.fine_tune:
        x = keras.layers.LayerNormalization()(x)  # a network of another task may have any scale
    # The whole grid becomes one vector: an average over its cells would lose where something is.
    x = keras.layers.Dropout(config.dropout)(keras.layers.Flatten()(x))  # (B, h*w*C)
    vector = keras.layers.Dense(config.units, dtype="float32", name="vector")(x)  # (B, U)
    return keras.Model(image, losses.unit_vectors(vector), name="image_encoder")


def text_encoder(config: ImageSearchConfig, vocabulary: Vocabulary) -> keras.Model:
    """Token ids (B, T) int32 → unit vector (B, units).

    Args:
        config: `ImageSearchConfig`.
        vocabulary: `Vocabulary`. Saved in the model's config.
    """
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    mask = ops.not_equal(tokens, PAD)  # (B, T)
    x = layers.TokenEmbedding(vocabulary, config.embedding_dim, name="embedding")(tokens)  # (B, T, E)
    x = keras.layers.Dropout(config.dropout)(x)
    # The sum of the words learns names that occur once or twice, the LSTM what their order means.
    words = ops.sum(ops.where(mask[:, :, None], x, 0), axis=1)  # (B, E)
    order = layers.MaskedBidirectional(layers.MaskedLSTM(config.units))(x, mask=mask)  # (B, 2U)
    x = keras.layers.Concatenate()([words, order])
    vector = keras.layers.Dense(config.units, dtype="float32", name="vector")(x)  # (B, U)
    return keras.Model(tokens, losses.unit_vectors(vector), name="text_encoder")
