"""Cross-modal pre-training (chapters 3.3 and 4.2): f(X1, X2) = g(h(X1), h(X2)), with one encoder h for all.

    words ───────── word embedding ──┐
    image patches ─ patch embedding ─┼─ h: Transformer encoder ─ mean ─┐
    ...                              ┘                                 ├─ g ─ logits
                                       the same h, the other modality ─┘

Step 1, pre-training on single modalities: h fills in masked words of texts (BERT: Devlin et al. 2019,
arXiv:1810.04805) and masked patches of images (as BEiT and MAE do; He et al. 2022, arXiv:2111.06377). Texts and
images are of different scenes. Step 2, fine-tuning on pairs: g and h together.
"""

from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from mmkeras.data.vocabulary import PAD, SPECIAL, UNKNOWN, Vocabulary
from mmkeras.methods import scenes
from mmkeras.nn import layers, optimizers

BATCH_SIZE = 32
PATCH = 8  # pixels
MASKED_WORDS, MASKED_PATCHES = 0.3, 0.5  # BERT masks 15 % of longer texts; MAE 75 % of larger images
KINDS = ("none", "words", "words and patches")  # of pre-training
TYPES = ("text", "image")  # the type embedding tells h which modality a token is from


@dataclass(frozen=True)
class Encoder:
    """The parts that pre-training and fine-tuning share.

    Attributes:
        embed: {modality: keras.Model}. Inputs of a modality → vectors (B, N, W) and their mask (B, N).
        h: keras.Model. Vectors (B, N, W), mask (B, N) → (B, N, W).
    """

    embed: dict[str, keras.Model]
    h: keras.Model

    def __call__(self, modality: str, x):
        """h(X): (B, N, W), and the mask (B, N)."""
        vectors, mask = self.embed[modality](x)
        return self.h([vectors, mask]), mask


def shared_encoder(vocabulary: Vocabulary, *, width: int = 96, blocks: int = 2, heads: int = 4) -> Encoder:
    """One Transformer encoder (Vaswani et al. 2017, arXiv:1706.03762) for words and image patches.

    Args:
        vocabulary: `Vocabulary` of the texts.
        width: int. Size W of a vector. Defaults to 96.
        blocks: int. Transformer blocks. Defaults to 2.
        heads: int. Attention heads. Defaults to 4.
    """
    types = keras.layers.Embedding(len(TYPES), width, name="types")

    def embedded(name, inputs, x, mask):
        kind = types(TYPES.index(name) * ops.ones_like(mask, dtype="int32"))  # (B, N, W)
        x = layers.PositionEmbedding(name=f"{name}_positions")(x + kind)  # (B, N, W)
        return keras.Model(inputs, [x, mask], name=f"{name}_embedding")

    tokens = keras.Input((scenes.LENGTH,), dtype="int32", name="text")
    words = layers.TokenEmbedding(vocabulary, width, name="words")(tokens)  # (B, T, W)
    text = embedded("text", tokens, words, ops.not_equal(tokens, PAD))
    pixels = keras.Input((scenes.IMAGE_SIZE, scenes.IMAGE_SIZE, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels)
    # a dense layer on each patch is a convolution with the patch's size and stride (ViT: arXiv:2010.11929)
    x = keras.layers.Conv2D(width, PATCH, strides=PATCH, name="patches")(x)  # (B, 8, 8, W)
    x = keras.layers.Reshape((-1, width))(x)  # (B, P, W)
    image = embedded("image", pixels, x, ops.ones_like(x[:, :, 0], dtype="bool"))

    vectors = keras.Input((None, width), name="vectors")
    mask = keras.Input((None,), dtype="bool", name="mask")
    x = vectors
    for _ in range(blocks):
        y = keras.layers.LayerNormalization()(x)
        x = x + keras.layers.MultiHeadAttention(heads, width // heads)(y, y, attention_mask=mask[:, None])
        y = keras.layers.LayerNormalization()(x)
        y = keras.layers.Dense(2 * width, activation="gelu")(y)  # (B, N, 2W)
        x = x + keras.layers.Dense(width)(y)  # (B, N, W)
    h = keras.Model([vectors, mask], keras.layers.LayerNormalization()(x), name="h")
    return Encoder({"text": text, "image": image}, h)


# --- step 1: pre-training on single modalities ---


def pretraining_model(encoder: Encoder, kind: str, vocabulary: Vocabulary, *, steps: int) -> keras.Model:
    """Fills in what is masked, in texts and, for `"words and patches"`, in images of other scenes.

    Inputs:  {"text": (B, T) int32 with masked words, "image": (B, S, S, 3) with masked patches}
    Outputs: {"words": logits (B, T, V), "pixels": (B, P, 3 PATCH**2) in -1..1}; the losses of `masked_batches`
             count masked words and patches only.

    Args:
        encoder: Encoder. It is trained in place.
        kind: str. `"words"` or `"words and patches"`.
        vocabulary: `Vocabulary` of the texts.
        steps: int. Training steps, over which the learning rate decays.
    """
    inputs, outputs, losses = {}, {}, {}
    inputs["text"] = keras.Input((scenes.LENGTH,), dtype="int32", name="text")
    words, _ = encoder("text", inputs["text"])  # (B, T, W)
    outputs["words"] = layers.TokenLogits(vocabulary, name="words")(words)  # (B, T, V)
    losses["words"] = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if kind == "words and patches":
        inputs["image"] = keras.Input((scenes.IMAGE_SIZE, scenes.IMAGE_SIZE, 3), name="image")
        patches, _ = encoder("image", inputs["image"])  # (B, P, W)
        outputs["pixels"] = keras.layers.Dense(3 * PATCH**2, name="pixels")(patches)  # (B, P, 192)
        losses["pixels"] = keras.losses.MeanSquaredError()
    model = keras.Model(inputs, outputs, name="pretraining")
    model.compile(optimizers.adam(1e-3, steps), loss=losses)
    return model


def masked_batch(texts: np.ndarray, images: np.ndarray, kind: str, rng: np.random.Generator):
    """Inputs, targets and sample weights of one pre-training step.

    Args:
        texts: (B, T) int32.
        images: (B, S, S, 3) in 0..255, of other scenes.
        kind: str. See `pretraining_model`.
        rng: Draws what is masked.
    """
    is_masked = (rng.random(texts.shape) < MASKED_WORDS) & (texts >= len(SPECIAL))  # (B, T)
    inputs = {"text": np.where(is_masked, UNKNOWN, texts)}
    targets, weights = {"words": texts}, {"words": is_masked.astype("float32")}
    if kind == "words and patches":
        grid = scenes.IMAGE_SIZE // PATCH
        hidden = rng.random((len(images), grid, grid)) < MASKED_PATCHES  # (B, g, g)
        pixels = np.repeat(np.repeat(hidden, PATCH, axis=1), PATCH, axis=2)[..., None]  # (B, S, S, 1)
        inputs["image"] = np.where(pixels, 127.5, images)  # gray, 0 after rescaling
        targets["pixels"], weights["pixels"] = (
            patches(images),
            hidden.reshape(len(images), -1).astype("float32"),
        )
    return inputs, targets, weights


def patches(images: np.ndarray) -> np.ndarray:
    """Images (B, S, S, 3) in 0..255 → their patches (B, P, 3 PATCH**2) in -1..1."""
    count, size = len(images), images.shape[1] // PATCH
    split = images.reshape(count, size, PATCH, size, PATCH, 3).swapaxes(2, 3)  # (B, g, g, PATCH, PATCH, 3)
    return (split.reshape(count, size * size, -1) / 127.5 - 1).astype("float32")


def pretrain(
    encoder: Encoder, examples: scenes.Examples, kind: str, *, steps: int = 500, seed: int = 0
) -> list[float]:
    """Step 1: trains an encoder in place, without pairs and without labels. Returns the loss of each step.

    Args:
        encoder: Encoder. From `shared_encoder`.
        examples: Examples. Its texts and its images are drawn independently of each other.
        kind: str. `"words"`, `"words and patches"`, or `"none"`, which trains nothing.
        steps: int. Training steps of 32 texts (and 32 images). Defaults to 500.
        seed: int. Defaults to 0.

    Raises:
        ValueError: for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"Expected kind to be one of {', '.join(map(repr, KINDS))}. Received: kind={kind!r}")
    if kind == "none":
        return []
    model = pretraining_model(encoder, kind, examples.vocabulary, steps=steps)
    rng, losses = np.random.default_rng(seed), []
    for _ in range(steps):
        texts, images = (rng.integers(0, len(examples), BATCH_SIZE) for _ in range(2))
        batch = masked_batch(examples.inputs["text"][texts], examples.inputs["image"][images], kind, rng)
        inputs, targets, weights = batch
        losses.append(float(np.ravel(model.train_on_batch(inputs, targets, sample_weight=weights))[0]))
    return losses


# --- step 2: fine-tuning on pairs ---


def build(encoder: Encoder, classes: dict[str, int], *, steps: int, units: int = 128) -> keras.Model:
    """f(X1, X2) = g(h(X1), h(X2)), compiled: a classifier of pairs of an image and a text.

    Inputs:  {"image": (B, S, S, 3), "text": (B, T) int32}
    Outputs: {attribute: logits (B, classes) float32}. With one attribute of two classes it answers whether the
             text describes the image.

    Args:
        encoder: Encoder. h and the embeddings, trained further.
        classes: {attribute: number of classes}.
        steps: int. Training steps, over which the learning rate decays.
        units: int. Units of g. Defaults to 128.
    """
    inputs = {"image": keras.Input((scenes.IMAGE_SIZE, scenes.IMAGE_SIZE, 3), name="image")}
    inputs["text"] = keras.Input((scenes.LENGTH,), dtype="int32", name="text")
    pooled = []
    for name, x in inputs.items():
        vectors, mask = encoder(name, x)  # (B, N, W), (B, N)
        valid = ops.cast(mask, vectors.dtype)[..., None]  # (B, N, 1)
        pooled.append(ops.sum(vectors * valid, axis=1) / ops.maximum(ops.sum(valid, axis=1), 1))  # (B, W)
    u, v = (keras.Input(x.shape[1:]) for x in pooled)
    # the product and the difference: a dense layer of [u, v] alone could not compare them
    x = keras.layers.Concatenate()([u, v, u * v, ops.abs(u - v)])  # (B, 4W)
    x = keras.layers.Dense(units, activation="relu")(x)
    logits = {name: keras.layers.Dense(n, dtype="float32", name=name)(x) for name, n in classes.items()}
    g = keras.Model([u, v], logits, name="g")
    model = keras.Model(inputs, g(pooled), name="cross_modal")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizers.adam(5e-4, steps), loss=dict.fromkeys(classes, loss))
    return model
