"""Cross-modal pre-training (chapters 3.3 and 4.2): f(X1, X2) = g(h(X1), h(X2)), with one encoder h for all.

    words ───────── word embedding ──┐
    image patches ─ patch embedding ─┼─ h: Transformer encoder ─ vectors ─┐
    speech frames ─ frame embedding ─┘                                    ├─ g: one query per attribute → logits
                                    the same h, the other modality ───────┘

Step 1, pre-training on single modalities: h restores texts with masked words (BERT: Devlin et al. 2019,
arXiv:1810.04805) and images with masked patches (MAE: He et al. 2022, arXiv:2111.06377), which
are never paired. Step 2, fine-tuning on pairs: g and h together.

`run` measures what pre-training is worth; `results` are its shipped results.
"""

import contextlib
import functools
import itertools
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from mmkeras._utils import checks, progress
from mmkeras.data.vocabulary import PAD, SPECIAL, UNKNOWN, Vocabulary
from mmkeras.methods import classification, records, scenes
from mmkeras.methods.classification import Classifier
from mmkeras.nn import layers, optimizers

PATCH = 8  # pixels
MASKED_WORDS, MASKED_PATCHES = 0.3, 0.75  # BERT masks 15 % of longer texts, MAE 75 % of larger images
KINDS = ("none", "words", "words and patches")  # of pre-training
TYPES = ("text", "image", "speech")  # the type embedding tells h which modality a vector is from
RESULTS = Path(__file__).with_name("cross_modal_pretraining.json")


@dataclass(frozen=True)
class Encoder:
    """The parts that pre-training and fine-tuning share.

    Attributes:
        embed: {modality: keras.Model}. Inputs of a modality → vectors (B, N, W), mask (B, N), types (B, N).
        h: keras.Model. Vectors (B, N, W), mask (B, N), types (B, N) → (B, N, W).
        seconds: float. How long it was pre-trained.
    """

    embed: dict[str, keras.Model]
    h: keras.Model
    seconds: float = 0.0

    def __call__(self, modality: str, x):
        """h(X): vectors (B, N, W), and their mask (B, N)."""
        vectors, mask, types = self.embed[modality](x)
        return self.h([vectors, mask, types]), mask

    @property
    def weights(self) -> list[keras.Variable]:
        """The weights of all parts."""
        return [weight for part in (*self.embed.values(), self.h) for weight in part.weights]


def shared_encoder(
    vocabulary: Vocabulary, *, width: int = 96, blocks: int = 2, heads: int = 4, dropout: float = 0.1
) -> Encoder:
    """One Transformer encoder (Vaswani et al. 2017, arXiv:1706.03762) for words, image patches, speech frames.

    Args:
        vocabulary: `Vocabulary` of the texts.
        width: int. Size W of a vector. Defaults to 96.
        blocks: int. Transformer blocks. Defaults to 2.
        heads: int. Attention heads. Defaults to 4.
        dropout: float. Dropout rate. Defaults to 0.1.
    """

    def embedded(name, inputs, x, mask):
        x = layers.PositionEmbedding(name=f"{name}_positions")(x)  # (B, N, W)
        types = TYPES.index(name) * ops.ones_like(mask, dtype="int32")  # (B, N)
        return keras.Model(inputs, [x, mask, types], name=f"{name}_embedding")

    tokens = keras.Input((scenes.LENGTH,), dtype="int32", name="text")
    words = layers.TokenEmbedding(vocabulary, width, name="words")(tokens)  # (B, T, W)
    pixels = keras.Input((scenes.IMAGE_SIZE, scenes.IMAGE_SIZE, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels)
    # a dense layer on each patch is a convolution with the patch's size and stride (ViT: arXiv:2010.11929)
    x = keras.layers.Conv2D(width, PATCH, strides=PATCH, name="patches")(x)  # (B, 8, 8, W)
    patches = keras.layers.Reshape((-1, width))(x)  # (B, P, W)
    log_mel = keras.Input((scenes.FRAMES, scenes.STACKED * scenes.BANDS), name="speech")
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
        y = keras.layers.LayerNormalization()(x)
        y = keras.layers.MultiHeadAttention(heads, width // heads)(y, y, attention_mask=mask[:, None])
        x = x + keras.layers.Dropout(dropout)(y)  # (B, N, W)
        y = keras.layers.LayerNormalization()(x)
        y = keras.layers.Dense(2 * width, activation="gelu")(y)  # (B, N, 2W)
        x = x + keras.layers.Dropout(dropout)(keras.layers.Dense(width)(y))  # (B, N, W)
    h = keras.Model([vectors, mask, types], keras.layers.LayerNormalization()(x), name="h")
    return Encoder(embed, h)


# --- step 1: pre-training on single modalities ---


def pretraining_model(encoder: Encoder, kind: str, *, steps: int) -> keras.Model:
    """Restores texts with masked words and, for `"words and patches"`, images with masked patches, compiled.

    Inputs:  {"text": (B, T) int32, "image": (B, S, S, 3) in 0..255}, not of the same scenes; masked in training
    Outputs: {"words": logits (B, T, V), "pixels": (B, S, S, 3) in -1..1}

    Args:
        encoder: Encoder. It is trained in place.
        kind: str. `"words"` or `"words and patches"`.
        steps: int. Training steps, over which the learning rate decays.
    """
    vocabulary = encoder.embed["text"].get_layer("words").vocabulary
    text = keras.Input((scenes.LENGTH,), dtype="int32", name="text")
    words, _ = encoder("text", MaskedWords(MASKED_WORDS)(text))  # (B, T, W)
    inputs, outputs = (
        {"text": text},
        {"words": layers.TokenLogits(vocabulary, name="words")(words)},
    )  # (B, T, V)
    losses = {"words": keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=PAD)}
    if kind == "words and patches":
        inputs["image"] = keras.Input((scenes.IMAGE_SIZE, scenes.IMAGE_SIZE, 3), name="image")
        patches, _ = encoder("image", MaskedPatches(MASKED_PATCHES)(inputs["image"]))  # (B, P, W)
        grid = scenes.IMAGE_SIZE // PATCH
        x = keras.layers.Reshape((grid, grid, -1))(patches)  # (B, 8, 8, W)
        outputs["pixels"] = keras.layers.Conv2DTranspose(3, PATCH, strides=PATCH, name="pixels")(
            x
        )  # (B, S, S, 3)
        losses["pixels"] = keras.losses.MeanSquaredError()
    model = keras.Model(inputs, outputs, name="pretraining")
    model.compile(optimizers.adam(1e-3, steps), loss=losses)
    return model


def pretrain(
    encoder: Encoder, examples: scenes.Examples, kind: str, *, steps: int = 1000, seed: int = 0
) -> keras.Model | None:
    """Step 1: trains an encoder in place, without pairs and without labels.

    Args:
        encoder: Encoder. From `shared_encoder`.
        examples: Examples. Its texts and its images are drawn independently of each other.
        kind: str. `"words"`, `"words and patches"`, or `"none"`, which trains nothing.
        steps: int. Training steps of 32 texts (and 32 images). Defaults to 1,000.
        seed: int. Seed for the order of the examples. Defaults to 0.

    Returns:
        The model that was trained, see `pretraining_model`; its `history` has ten losses. None for `"none"`.

    Raises:
        ValueError: for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"Expected kind to be one of {', '.join(map(repr, KINDS))}. Received: kind={kind!r}")
    if kind == "none":
        return None

    def inputs_and_targets(text, image):
        # Targets are all words, not the masked ones alone. The attributes of a scene are independent, so a
        # color tells nothing of a shape: an encoder scored on masked words alone learns to ignore such words.
        return {"text": text, "image": image}, {"words": text, "pixels": image / 127.5 - 1}

    def words_alone(text):
        return {"text": text}, {"words": text}

    texts = classification.batches(examples.inputs["text"], seed)
    if kind == "words":
        dataset = texts.map(words_alone)
    else:
        images = classification.batches(examples.inputs["image"], seed + 1)
        dataset = tf.data.Dataset.zip(texts, images).map(inputs_and_targets)
    model = pretraining_model(encoder, kind, steps=steps)
    model.fit(dataset, epochs=10, steps_per_epoch=-(-steps // 10), shuffle=False, verbose=0)
    return model


# --- step 2: fine-tuning on pairs ---


def build(
    encoder: Encoder,
    classes: Mapping[str, int],
    modalities: Sequence[str] = ("image", "text"),
    *,
    steps: int,
    units: int = 128,
) -> keras.Model:
    """f(X1, X2) = g(h(X1), h(X2)), compiled: a classifier of pairs.

    Inputs:  {modality: what its embedding takes}, such as {"image": (B, S, S, 3), "text": (B, T) int32}
    Outputs: {attribute: logits (B, classes) float32}

    g has one learned query per attribute, which attends to the vectors of each modality (attention pooling: Lee
    et al. 2019, arXiv:1810.00825).

    Args:
        encoder: Encoder. h and the embeddings, trained further.
        classes: {attribute: number of classes}. `{"match": 2}` asks whether a text describes an image.
        modalities: Sequence of str. The two modalities of a pair, of `TYPES`. Defaults to image and text.
        steps: int. Training steps, over which the learning rate decays.
        units: int. Units of g. Defaults to 128.

    Raises:
        ValueError: if a modality is unknown.
    """
    checks.among(encoder.embed, modalities=modalities)
    inputs = {}
    for name in modalities:
        (tensor,) = encoder.embed[name].inputs
        inputs[name] = keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=name)
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
    return classification.compiled(keras.Model(inputs, g(encoded), name="cross_modal"), 5e-4, steps)


def subset(examples: scenes.Examples, fraction: float, seed: int = 0) -> scenes.Examples:
    """A random share of the examples.

    Args:
        examples: Examples.
        fraction: float. In 0..1.
        seed: int. Defaults to 0.

    Raises:
        ValueError: if no example would be left.
    """
    count = round(fraction * len(examples))
    if not 1 <= count <= len(examples):
        raise ValueError(
            f"Expected fraction to leave between 1 and all of {len(examples)} pairs. Received: "
            f"fraction={fraction} ({count} pairs)"
        )
    return examples.take(np.random.default_rng(seed).permutation(len(examples))[:count])


def matching(examples: scenes.Examples, seed: int = 0) -> scenes.Examples:
    """Examples of which half have the text of another scene, with the label `match`: whether the text describes
    the image.

    Args:
        examples: Examples.
        seed: int. Defaults to 0.
    """
    count = len(examples)
    other = np.roll(np.arange(count), 1)
    source = np.where(np.random.default_rng(seed).random(count) < 0.5, np.arange(count), other)
    same = np.all([ids == ids[source] for ids in examples.labels.values()], axis=0)
    inputs = examples.inputs | {"text": examples.inputs["text"][source]}
    return replace(examples, inputs=inputs, labels={"match": same.astype("int32")})


# --- the experiment ---

FRACTIONS, SEEDS, PAIRS, TEST_PAIRS = (0.01, 0.05, 0.2, 1.0), (0, 1, 2), 4000, 1000
PRETRAINING_STEPS, STEPS = 1000, 300
_SPEECH_SPLITS = (("train", 2000), ("test", 400))
MASKED_RATES = (0.0, 0.25, 0.5, 0.75, 1.0)
COMMAND = 'python -c "import mmkeras; mmkeras.methods.cross_modal_pretraining.run()"'


@functools.cache
def pairs() -> tuple[scenes.Examples, scenes.Examples]:
    """Degraded images and texts: 4,000 pairs for training and 1,000 of the test split."""
    splits = ((scenes.examples("train", PAIRS), 0), (scenes.examples("test", TEST_PAIRS), 1))
    train, test = (scenes.degraded(split, seed=seed, **scenes.LOSS) for split, seed in splits)
    return train, test


@functools.cache
def spoken_pairs() -> tuple[scenes.Examples, scenes.Examples]:
    """Texts and their speech: 2,000 pairs for training and 400 of the test split."""
    train, test = (scenes.examples(split, n, modalities=("text", "speech")) for split, n in _SPEECH_SPLITS)
    return train, test


def pretrained(kind: str, seed: int = 0) -> Encoder:
    """Step 1: a new encoder, pre-trained on the texts and the images of `pairs`, without their pairing.

    Args:
        kind: str. One of `KINDS`.
        seed: int. Seed of the initial weights and of the order of the examples. Defaults to 0.
    """
    keras.utils.set_random_seed(seed)
    train, _ = pairs()
    encoder, start = shared_encoder(train.vocabulary), time.perf_counter()
    pretrain(encoder, train, kind, steps=PRETRAINING_STEPS, seed=seed)
    return replace(encoder, seconds=time.perf_counter() - start)


def accuracy(encoder: Encoder, fraction: float, seed: int = 0) -> float:
    """Step 2: fine-tunes an encoder on a fraction of the labeled pairs. Its weights are then as before.

    Args:
        encoder: Encoder.
        fraction: float. Of the 4,000 pairs.
        seed: int. Seed of the choice of the pairs and of g. Defaults to 0.

    Returns:
        The share of 1,000 test pairs with all attributes right.

    Raises:
        ValueError: if the fraction leaves no pair.
    """
    train, test = pairs()
    labeled = subset(train, fraction, seed)
    with restored(encoder):
        return Classifier(fine_tuned(encoder, labeled, seed=seed)).scores(test)["all"]


def speech_accuracy(encoder: Encoder, seed: int = 0) -> list[float]:
    """Step 2 on texts and their speech, the document's example: which scene is it? Three quarters of the words
    are masked in training.

    Args:
        encoder: Encoder. Its weights are then as before.
        seed: int. Seed of g. Defaults to 0.

    Returns:
        The share of test clips with all attributes right, for each of `MASKED_RATES`; with all words masked it
        is the recognition of the scene from speech alone.
    """
    train, test = spoken_pairs()
    with restored(encoder):
        model = fine_tuned(encoder, scenes.degraded(train, masked=0.75), ("text", "speech"), seed=seed)
        classifier = Classifier(model)
        tests = [scenes.degraded(test, masked=rate, seed=1) for rate in MASKED_RATES]
        return [classifier.scores(test)["all"] for test in tests]


def fine_tuned(
    encoder: Encoder, train: scenes.Examples, modalities: Sequence[str] = ("image", "text"), *, seed: int = 0
) -> keras.Model:
    """`build`, trained for 300 steps. It trains the encoder's weights in place. Arguments as above."""
    keras.utils.set_random_seed(seed)
    with classification.scope(encoder.h):
        model = build(encoder, scenes.CLASSES, modalities, steps=STEPS)
    return classification.fit(model, train, STEPS, seed)


@contextlib.contextmanager
def restored(encoder: Encoder):
    """A context manager. At its end the encoder's weights are as at its start."""
    before = [weight.numpy() for weight in encoder.weights]
    yield
    for weight, values in zip(encoder.weights, before, strict=True):
        weight.assign(values)


@dataclass(frozen=True)
class Results:
    """Shares of test pairs with all attributes right.

    Attributes:
        accuracy: {kind of pre-training: {fraction of the labeled pairs: a share per seed}}.
        speech: {kind: {rate of masked words beside the speech: a share per seed}}.
        measured: How and when, see `mmkeras.methods.records.write`.
    """

    accuracy: dict[str, dict[str, list[float]]]
    speech: dict[str, dict[str, list[float]]]
    measured: dict[str, Any] = field(default_factory=dict)

    def plot(self, path: str | os.PathLike | None = None):
        """Plots `accuracy`: mean and range of the seeds. Returns a matplotlib Figure."""
        from mmkeras.evaluation import plots

        counts = [PAIRS * fraction for fraction in FRACTIONS]
        ys = {kind: list(shares.values()) for kind, shares in self.accuracy.items()}
        return plots.lines(counts, ys, "labeled pairs", "all attributes right", path, log_x=True)

    def plot_speech(self, path: str | os.PathLike | None = None):
        """Plots `speech`: mean and range of the seeds. Returns a matplotlib Figure."""
        from mmkeras.evaluation import plots

        ys = {kind: list(shares.values()) for kind, shares in self.speech.items()}
        x_label = "rate of masked words beside the speech"
        return plots.lines(MASKED_RATES, ys, x_label, "all attributes right", path)


def run(path: str | os.PathLike = RESULTS) -> Results:
    """Measures the accuracy of each kind, fraction and seed, and writes what `results` returns."""
    start = time.perf_counter()
    shares = {kind: {str(fraction): [] for fraction in FRACTIONS} for kind in KINDS}
    speech = {kind: {str(rate): [] for rate in MASKED_RATES} for kind in KINDS[:2]}
    for seed, kind in progress.bar(list(itertools.product(SEEDS, KINDS)), "encoders"):
        encoder = pretrained(kind, seed)
        for fraction, values in shares[kind].items():
            values.append(accuracy(encoder, float(fraction), seed))
        if kind in speech:
            for values, share in zip(speech[kind].values(), speech_accuracy(encoder, seed), strict=True):
                values.append(share)
    return records.write(path, COMMAND, start, Results(shares, speech))


def results() -> Results:
    """The shipped results of `run`."""
    return records.read(RESULTS, Results)


# --- layers ---


class _Masking(keras.layers.Layer):
    """Replaces parts of its input in training.

    Args:
        rate: float. Share of the parts.
    """

    def __init__(self, rate: float, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, x, training=None):
        return self.mask(x) if training else x

    def draw(self, shape):
        """Whether to replace, bool of this shape."""
        return keras.random.uniform(shape, dtype="float32", seed=self.seed_generator) < self.rate

    def compute_output_spec(self, x, training=None):
        return keras.KerasTensor(x.shape, x.dtype)

    def get_config(self):
        return super().get_config() | {"rate": self.rate}


@keras.saving.register_keras_serializable("mmkeras")
class MaskedWords(_Masking):
    """Token ids (B, T) → the same, of which training replaces words by the unknown word at a rate."""

    def mask(self, tokens):
        is_masked = ops.logical_and(self.draw(ops.shape(tokens)), tokens >= len(SPECIAL))
        return ops.where(is_masked, UNKNOWN, tokens)


@keras.saving.register_keras_serializable("mmkeras")
class MaskedPatches(_Masking):
    """Images (B, S, S, 3) in 0..255 → the same, of which training turns patches gray at a rate."""

    def mask(self, image):
        side = image.shape[1] // PATCH
        is_gray = self.draw((ops.shape(image)[0], side, side, 1))  # (B, S/8, S/8, 1)
        is_gray = ops.repeat(ops.repeat(is_gray, PATCH, axis=1), PATCH, axis=2)  # (B, S, S, 1)
        return ops.where(is_gray, 127.5, image)


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
