"""Cross-modal pre-training (chapters 3.3 and 4.2): f(X1, X2) = g(h(X1), h(X2)), with one encoder h for all.

    words ───────── word embedding ──┐
    image patches ─ patch embedding ─┼─ h: Transformer encoder ─ vectors ─┐
    speech frames ─ frame embedding ─┘                                    ├─ g: one query per attribute → logits
                                    the same h, the other modality ───────┘

Step 1, pre-training on single modalities: h restores texts with masked words (BERT: Devlin et al. 2019,
arXiv:1810.04805) and images with masked patches (MAE: He et al. 2022, arXiv:2111.06377), which
are never paired. Step 2, fine-tuning on pairs: g and h together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from mmkeras._utils import checks
from mmkeras.methods import classification, scenes
from mmkeras.nn import layers, optimizers
from mmkeras.nn.transformer import transformer_block
from mmkeras.text.vocabulary import PAD, SPECIAL, UNKNOWN, Vocabulary

PATCH = 8  # pixels
MASKED_WORDS, MASKED_PATCHES = 0.3, 0.75  # BERT masks 15 % of longer texts, MAE 75 % of larger images
KINDS = ("none", "masked words only", "words", "words and patches")  # of pre-training
TYPES = ("text", "image", "speech")  # the rows of the modality (type) embedding


# --- layers ---


@keras.saving.register_keras_serializable("mmkeras")
class MaskedPatches(keras.layers.Layer):
    """Images (B, S, S, 3) in 0..255 → the same, of which training turns patches gray at a rate.

    Args:
        rate: float. Share of the patches.
    """

    def __init__(self, rate: float, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, image, training=None):
        if not training:
            return image
        side = image.shape[1] // PATCH
        shape = (ops.shape(image)[0], side, side, 1)
        is_gray = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator) < self.rate
        is_gray = ops.repeat(ops.repeat(is_gray, PATCH, axis=1), PATCH, axis=2)  # (B, S, S, 1)
        return ops.where(is_gray, 127.5, image)

    def compute_output_spec(self, image, training=None):
        return keras.KerasTensor(image.shape, image.dtype)

    def get_config(self):
        return super().get_config() | {"rate": self.rate}


@keras.saving.register_keras_serializable("mmkeras")
class Queries(keras.layers.Layer):
    """Vectors (B, N, C) → learned queries (B, count, C), the same for each example."""

    def __init__(self, count: int, **kwargs):
        super().__init__(**kwargs)
        self.count = count

    def build(self, input_shape):
        self.queries = self.add_weight(
            name="queries",
            shape=(self.count, input_shape[-1]),
            initializer=keras.initializers.RandomNormal(stddev=1),
        )

    def call(self, vectors):
        return ops.broadcast_to(self.queries, (ops.shape(vectors)[0], *self.queries.shape))

    def compute_output_spec(self, vectors):
        return keras.KerasTensor((vectors.shape[0], self.count, vectors.shape[-1]), vectors.dtype)

    def get_config(self):
        return super().get_config() | {"count": self.count}


# --- the encoder ---


@dataclass(frozen=True)
class SharedEncoder:
    """The parts that pre-training and fine-tuning share.

    Attributes:
        embed: {modality: keras.Model}. Inputs of a modality → vectors (B, N, W), mask (B, N), types (B, N).
        h: keras.Model. Vectors (B, N, W), mask (B, N), types (B, N) → (B, N, W).
    """

    embed: dict[str, keras.Model]
    h: keras.Model

    def __call__(self, modality: str, x):
        """h(X): vectors (B, N, W), and their mask (B, N)."""
        vectors, mask, types = self.embed[modality](x)
        return self.h([vectors, mask, types]), mask

    def input(self, modality: str):
        """A new input of a graph for a modality."""
        (tensor,) = self.embed[modality].inputs
        return keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=modality)

    def copy(self) -> "SharedEncoder":
        """An encoder with the same weights, whose training leaves this one as it is."""

        def copied(part):
            with classification.scope(part):
                other = keras.models.clone_model(part)
            other.set_weights(part.get_weights())
            return other

        return SharedEncoder({name: copied(part) for name, part in self.embed.items()}, copied(self.h))


def shared_encoder(
    vocabulary: Vocabulary,
    *,
    length: int = scenes.LENGTH,
    image_size: int = scenes.IMAGE_SIZE,
    speech: tuple[int, int] = (scenes.FRAMES, scenes.STACKED * scenes.BANDS),
    width: int = 96,
    blocks: int = 2,
    heads: int = 4,
    dropout: float = 0.1,
) -> SharedEncoder:
    """One Transformer encoder (Vaswani et al. 2017, arXiv:1706.03762) for words, image patches, speech frames.

    Args:
        vocabulary: `Vocabulary` of the texts.
        length: int. Tokens of a text. Defaults to that of the toy world's.
        image_size: int. Side of an image in pixels, a multiple of the patch's 8. Defaults to 64.
        speech: (int, int). Frames of a clip, values per frame. Default to the toy world's.
        width: int. Size W of a vector. Defaults to 96.
        blocks: int. Transformer blocks. Defaults to 2.
        heads: int. Attention heads. Defaults to 4.
        dropout: float. Dropout rate. Defaults to 0.1.
    """

    def embedded(name, inputs, x, mask):
        x = layers.PositionEmbedding(name=f"{name}_positions")(x)  # (B, N, W)
        types = TYPES.index(name) * ops.ones_like(mask, dtype="int32")  # (B, N)
        return keras.Model(inputs, [x, mask, types], name=f"{name}_embedding")

    tokens = keras.Input((length,), dtype="int32", name="text")
    words = layers.TokenEmbedding(vocabulary, width, name="words")(tokens)  # (B, T, W)
    pixels = keras.Input((image_size, image_size, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels)
    # a dense layer on each patch is a convolution with the patch's size and stride (ViT: arXiv:2010.11929)
    x = keras.layers.Conv2D(width, PATCH, strides=PATCH, name="patches")(x)  # (B, 8, 8, W)
    patches = keras.layers.Reshape((-1, width))(x)  # (B, P, W)
    log_mel = keras.Input(speech, name="speech")
    frames = keras.layers.Dense(width, name="frames")(log_mel)  # (B, F, W)
    embed = {
        "text": embedded("text", tokens, words, ops.not_equal(tokens, PAD)),
        "image": embedded("image", pixels, patches, ops.ones_like(patches[:, :, 0], dtype="bool")),
        # frames after the end of a clip are 0
        "speech": embedded("speech", log_mel, frames, ops.any(ops.not_equal(log_mel, 0), axis=-1)),
    }

    vectors = keras.Input((None, width), name="vectors")
    mask = keras.Input((None,), dtype="bool", name="mask")
    types = keras.Input((None,), dtype="int32", name="types")
    x = vectors + keras.layers.Embedding(len(TYPES), width, name="type_embedding")(types)  # (B, N, W)
    for _ in range(blocks):
        x = transformer_block(x, mask, heads, dropout)  # (B, N, W)
    h = keras.Model([vectors, mask, types], keras.layers.LayerNormalization()(x), name="h")
    return SharedEncoder(embed, h)


# --- step 1: pre-training on single modalities ---


def pretraining_model(encoder: SharedEncoder, kind: str, *, decay_steps: int | None = None) -> keras.Model:
    """Restores texts with masked words and, for `"words and patches"`, images with masked patches, compiled.

    Inputs:  {"text": (B, T) int32, "image": (B, S, S, 3) in 0..255}, not of the same scenes; `masked` masks
             words, the model itself patches, in training
    Outputs: {"words": logits (B, T, V), "pixels": (B, S, S, 3) in -1..1}

    Args:
        encoder: SharedEncoder. It is trained in place.
        kind: str. One of `KINDS`.
        decay_steps: int, optional. Steps of the cosine decay to a fiftieth. Defaults to None: constant.
    """
    vocabulary = encoder.embed["text"].get_layer("words").vocabulary
    inputs = {"text": encoder.input("text")}
    words, _ = encoder("text", inputs["text"])  # (B, T, W)
    outputs = {"words": layers.TokenLogits(vocabulary, name="words")(words)}  # (B, T, V)
    losses = {"words": keras.losses.SparseCategoricalCrossentropy(from_logits=True)}
    if kind == "words and patches":
        inputs["image"] = encoder.input("image")
        patches, _ = encoder("image", MaskedPatches(MASKED_PATCHES)(inputs["image"]))  # (B, P, W)
        grid = inputs["image"].shape[1] // PATCH
        x = keras.layers.Reshape((grid, grid, -1))(patches)  # (B, 8, 8, W)
        pixels = keras.layers.Conv2DTranspose(3, PATCH, strides=PATCH, name="pixels")
        outputs["pixels"] = pixels(x)  # (B, S, S, 3)
        losses["pixels"] = keras.losses.MeanSquaredError()
    model = keras.Model(inputs, outputs, name="pretraining")
    optimizers.compile(model, optimizers.adam(1e-3, decay_steps), loss=losses)
    return model


def masked(text, kind: str, seed):
    """Masks words of texts.

    Args:
        text: (B, T) int32 token ids.
        kind: str. One of `KINDS`.
        seed: (2,) int. Seed of the choice.

    Returns:
        The texts in which 30 % of the words are unknown, and the weights (B, T) float32 of the words that the
        loss counts: with `"masked words only"` these, else all. Words that are unknown in `text` do not count,
        since their targets are unknown.
    """
    is_word = text >= len(SPECIAL)
    is_masked = is_word & (tf.random.stateless_uniform(tf.shape(text), seed) < MASKED_WORDS)
    counted = is_masked if kind == "masked words only" else is_word
    return tf.where(is_masked, UNKNOWN, text), tf.cast(counted, "float32")


def pretrain(
    encoder: SharedEncoder, examples: scenes.Examples, kind: str, *, steps: int = 1000, seed: int = 0
) -> keras.Model | None:
    """Step 1: trains an encoder in place, without pairs and without labels.

    Args:
        encoder: SharedEncoder. From `shared_encoder`.
        examples: Examples. Its texts and its images are shuffled independently of each other.
        kind: str. `"words"`: the loss counts masked and visible words. `"masked words only"`: as in BERT.
            `"words and patches"`: also images. `"none"`: trains nothing.
        steps: int. Training steps of 32 texts (and 32 images). Defaults to 1,000.
        seed: int. Seed for the order of the examples and for the masks. Defaults to 0.

    Returns:
        The model that was trained, see `pretraining_model`; its `history` has ten losses. None for `"none"`.

    Raises:
        ValueError: for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"Expected kind to be one of {', '.join(map(repr, KINDS))}. Received: kind={kind!r}")
    if kind == "none":
        return None

    def inputs_targets_weights(number, text, image=None):
        hidden, weights = masked(text, kind, tf.stack([seed, number]))
        if image is None:
            return {"text": hidden}, {"words": text}, {"words": weights}
        targets = {"words": text, "pixels": image / 127.5 - 1}
        return (
            {"text": hidden, "image": image},
            targets,
            {"words": weights, "pixels": tf.ones_like(image[..., 0])},
        )

    numbers = tf.data.Dataset.range(2**31, output_type="int32")
    parts = [numbers, classification.batches(examples.inputs["text"], seed)]
    if kind == "words and patches":
        parts.append(classification.batches(examples.inputs["image"], seed + 1))
    dataset = tf.data.Dataset.zip(*parts).map(inputs_targets_weights)
    model = pretraining_model(encoder, kind, decay_steps=steps)
    model.fit(dataset, epochs=10, steps_per_epoch=-(-steps // 10), shuffle=False, verbose=0)
    return model


# --- step 2: fine-tuning on pairs ---


def build(
    encoder: SharedEncoder,
    classes: Mapping[str, int],
    modalities: Sequence[str] = ("image", "text"),
    *,
    units: int = 128,
    learning_rate: float = 5e-4,
    decay_steps: int | None = None,
) -> keras.Model:
    """f(X1, X2) = g(h(X1), h(X2)), compiled: a classifier of pairs.

    Inputs:  {modality: what its embedding takes}, such as {"image": (B, S, S, 3), "text": (B, T) int32}
    Outputs: {attribute: logits (B, classes) float32}

    g has one learned query per attribute, which attends to the vectors of each modality (attention pooling: Lee
    et al. 2019, arXiv:1810.00825).

    Args:
        encoder: SharedEncoder. h and the embeddings, trained further.
        classes: {attribute: number of classes}. `{"match": 2}`: whether a text describes an image.
        modalities: Sequence of str. The two modalities of a pair, of `TYPES`. Defaults to image and text.
        units: int. Units of g. Defaults to 128.
        learning_rate, decay_steps: See `mmkeras.methods.joint_training.build`. Default to 5e-4, None.

    Raises:
        ValueError: if a modality is unknown.
    """
    checks.among(encoder.embed, modalities=modalities)
    inputs = {}
    for name in modalities:
        inputs[name] = encoder.input(name)
    encoded = [tensor for name, x in inputs.items() for tensor in encoder(name, x)]  # (B, N, W), (B, N), ...

    # --- g ---
    width = encoded[0].shape[-1]
    parameters, pooled = [keras.Input(x.shape[1:], dtype=x.dtype) for x in encoded], []
    for vectors, mask in zip(parameters[::2], parameters[1::2], strict=True):
        queries = Queries(len(classes))(vectors)  # (B, A, W)
        attention = keras.layers.MultiHeadAttention(4, width // 4)
        pooled.append(attention(queries, vectors, attention_mask=mask[:, None]))  # (B, A, W)
    u, v = pooled
    # the product and the difference: a dense layer of [u, v] alone could not compare them
    x = keras.layers.Concatenate()([u, v, u * v, ops.abs(u - v)])  # (B, A, 4W)
    x = keras.layers.Dense(units, activation="relu")(x)  # (B, A, U)
    logits = {
        name: keras.layers.Dense(n, dtype="float32", name=name)(x[:, i])
        for i, (name, n) in enumerate(classes.items())
    }
    g = keras.Model(parameters, logits, name="g")
    model = keras.Model(inputs, g(encoded), name="cross_modal")
    return classification.compiled(model, learning_rate, decay_steps)


def matching(examples: scenes.Examples, seed: int = 0) -> scenes.Examples:
    """Examples of which a random half have the text of another scene. Their label `match` says whether the text
    describes the image."""
    count = len(examples)
    other = np.roll(np.arange(count), 1)
    source = np.where(np.random.default_rng(seed).random(count) < 0.5, np.arange(count), other)
    same = np.all([ids == ids[source] for ids in examples.labels.values()], axis=0)
    inputs = examples.inputs | {"text": examples.inputs["text"][source]}
    return replace(examples, inputs=inputs, labels={"match": same.astype("int32")})
