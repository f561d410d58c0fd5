"""Joint training (chapters 3.2 and 4.1): f(X1, X2) = g(h1(X1), h2(X2)).

    X1 ─ h1: encoder ─┐
    X2 ─ h2: encoder ─┼─ g: fusion → a head per attribute → logits
    X3 ─ h3: encoder ─┘

g is a model of its own, `model.get_layer("g")`; each h is `model.get_layer("image_encoder").encoder`. A
modality that is missing is replaced by a learned vector.

`experiment` compares this on toy scenes whose images lack color or a part, and whose texts lack words;
`results` are its shipped results.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
from keras import ops

from mmkeras._utils import checks
from mmkeras.data.vocabulary import PAD, Vocabulary
from mmkeras.evaluation.metrics import attribute_accuracy
from mmkeras.methods import classification, records, scenes
from mmkeras.nn import layers
from mmkeras.nn.convolutions import image_features

# as MultiBench names them (Liang et al. 2021, arXiv:2107.07502)
FUSIONS = ("concat", "gated", "cross_attention")
RESULTS = Path(__file__).with_name("joint_training.json")
COMMAND = 'python -c "import mmkeras; mmkeras.methods.joint_training.run()"'


def build(
    encoders: Mapping[str, keras.Model],
    classes: Mapping[str, int],
    fusion: str = "concat",
    modality_dropout: float = 0.0,
    *,
    units: int = 128,
    learning_rate: float = 2e-3,
    decay_steps: int | None = None,
) -> keras.Model:
    """A classifier of any number of modalities, compiled.

    Inputs:  {modality: what its encoder takes}. None for a missing modality; `Classifier` fills them in.
    Outputs: {attribute: logits (B, classes) float32}

    Args:
        encoders: {modality: keras.Model with one input and one output, (B, D) or (B, N, D)}.
        classes: {attribute: number of classes}.
        fusion: str. `"concat"`: vectors side by side. `"gated"`: a gate weighs the modalities in each channel
            (Arevalo et al. 2017, arXiv:1702.01992). `"cross_attention"`: the vectors of each modality attend to
            those of the others (Tsai et al. 2019, arXiv:1906.00295). Defaults to `"concat"`.
        modality_dropout: float. Rate at which training replaces a modality by its learned vector (Neverova et
            al. 2016, arXiv:1501.00102). One modality of each example always stays. Defaults to 0.
        units: int. Channels of the fusion. Defaults to 128.
        learning_rate: float. Initial learning rate of Adam. Defaults to 2e-3.
        decay_steps: int, optional. Steps of the cosine decay to a fiftieth. Defaults to None: constant.

    Raises:
        ValueError: if there is no encoder, an encoder's output cannot be fused, or the fusion is unknown.
    """
    if fusion not in FUSIONS:
        raise ValueError(
            f"Expected fusion to be one of {', '.join(map(repr, FUSIONS))}. Received: fusion={fusion!r}"
        )
    checks.numbers(0, modality_dropout=modality_dropout)
    _check(encoders)

    # --- h1(X1), h2(X2), ... ---
    inputs, encoded = {}, []
    for name, encoder in encoders.items():
        (tensor,) = encoder.inputs
        inputs[name] = keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=name, optional=True)
        encoded.append(Encoder(encoder, name=f"{name}_encoder")(inputs[name]))  # (B, D) or (B, N, D)
    complete = CompleteModalities(modality_dropout, name="modalities")(encoded)

    # --- g ---
    g = fusion_model([x.shape[1:] for x in complete], classes, fusion, units)
    logits = g(complete)  # {attribute: (B, classes)}
    model = keras.Model(inputs, logits, name="joint_training")
    return classification.compiled(model, learning_rate, decay_steps)


def fusion_model(shapes, classes: Mapping[str, int], fusion: str, units: int) -> keras.Model:
    """g: encoded modalities → {attribute: logits (B, classes)}.

    Args:
        shapes: Shapes of the encoded modalities without the batch, (D,) or (N, D).
        classes: {attribute: number of classes}.
        fusion: str. See `build`.
        units: int. Channels.
    """
    inputs = [keras.Input(shape) for shape in shapes]
    # the same number of channels for all: (B, N, U), N = 1 for a vector
    parts = [keras.layers.Dense(units)(_sequence(x)) for x in inputs]
    if fusion == "cross_attention":
        attended = []
        for i, query in enumerate(parts):
            others = [x for j, x in enumerate(parts) if j != i] or [query]
            memory = keras.layers.Concatenate(axis=1)(others) if len(others) > 1 else others[0]
            x = keras.layers.MultiHeadAttention(4, units // 4)(query, memory)  # (B, N, U)
            attended.append(keras.layers.LayerNormalization()(query + x))
        parts = attended
    vectors = [ops.mean(x, axis=1) for x in parts]  # (B, U) each
    if fusion == "gated":
        stacked = ops.stack([ops.tanh(x) for x in vectors], axis=1)  # (B, M, U)
        gates = keras.layers.Dense(len(vectors) * units)(_joined(vectors))  # (B, M U)
        gates = ops.softmax(keras.layers.Reshape((len(vectors), units))(gates), axis=1)  # (B, M, U)
        x = ops.sum(gates * stacked, axis=1)  # (B, U)
    else:
        x = _joined(vectors)  # (B, M U)
    x = keras.layers.Dense(units, activation="relu")(x)  # (B, U)
    logits = {name: keras.layers.Dense(n, dtype="float32", name=name)(x) for name, n in classes.items()}
    return keras.Model(inputs, logits, name="g")


# --- the experiment ---


def encoders(
    vocabulary: Vocabulary, modalities: Sequence[str] = ("image", "text"), units: int = 128
) -> dict[str, keras.Model]:
    """h of modalities of `scenes.Examples`: a CNN for images and LSTMs for texts and speech, as in section 4.1
    of the document, and a dense network for touch. Each returns a vector (B, units).

    Args:
        vocabulary: `Vocabulary` of the texts.
        modalities: Sequence of str. Of `"image"`, `"text"`, `"touch"`, `"speech"`. Defaults to image and text.
        units: int. Size of the vector. Defaults to 128.
    """

    def image():
        pixels = keras.Input((scenes.IMAGE_SIZE, scenes.IMAGE_SIZE, 3))
        features = image_features(keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels))  # (B, 608)
        return pixels, keras.layers.Dense(units, activation="relu")(features)

    def text():
        tokens = keras.Input((scenes.LENGTH,), dtype="int32")
        words = layers.TokenEmbedding(vocabulary, units)(tokens)  # (B, T, U)
        return tokens, lstm(words, ops.not_equal(tokens, PAD))

    def speech():
        frames = keras.Input((scenes.FRAMES, scenes.STACKED * scenes.BANDS))
        return frames, lstm(frames, ops.any(ops.not_equal(frames, 0), axis=-1))

    def touch():
        x = readings = keras.Input((scenes.TOUCHES,))
        for _ in range(2):
            x = keras.layers.Dense(units, activation="relu")(x)  # (B, U)
        return readings, x

    def lstm(x, mask):
        both_ways = layers.MaskedBidirectional(layers.MaskedLSTM(units // 2, return_sequences=True))
        return ops.max(both_ways(x, mask=mask), axis=1)  # (B, U)

    makers = {"image": image, "text": text, "touch": touch, "speech": speech}
    return {name: keras.Model(*makers[name](), name=name) for name in modalities}


@dataclass(frozen=True)
class Results:
    """What `experiment` measures: shares of test scenes with all attributes right.

    Attributes:
        scores: {model: {modalities that it is given: share}}.
        noise: Rates of masked words.
        curves: {model: share at each of these rates}.
        seconds: {model: seconds of training}.
        measured: How and when, see `mmkeras.methods.records.write`.
    """

    scores: dict[str, dict[str, float]]
    noise: list[float]
    curves: dict[str, list[float]]
    seconds: dict[str, float]
    measured: dict[str, Any] = field(default_factory=dict)

    def plot(self, path: str | os.PathLike | None = None):
        """Plots the curves: the fused model and each modality alone. Returns a matplotlib Figure."""
        from mmkeras.evaluation import plots

        return plots.lines(self.noise, self.curves, "rate of masked words", "all attributes right", path)


def experiment(
    *, train: int = 2000, test: int = 1000, steps: int = 1000, modality_dropout: float = 0.5, seed: int = 0
) -> Results:
    """Trains a model per modality and one per fusion on degraded toy scenes, and takes modalities away.

    Args:
        train, test: int. Numbers of scenes. Default to 2,000 and 1,000.
        steps: int. Training steps of 32 scenes for each model. Defaults to 1,000.
        modality_dropout: float. Of the fused models. Defaults to 0.5.
        seed: int. Defaults to 0.
    """
    modalities = ("image", "text", "touch")
    data = scenes.degraded(scenes.examples("train", train, modalities=modalities), seed=seed, **scenes.LOSS)
    held_out = scenes.examples("test", test, modalities=modalities)
    seen = scenes.degraded(held_out, seed=seed + 1, **scenes.LOSS)

    def trained(names, fusion="concat"):
        keras.utils.set_random_seed(seed)
        rate = modality_dropout if len(names) > 1 else 0.0
        model = build(encoders(data.vocabulary, names), scenes.CLASSES, fusion, rate, decay_steps=steps)
        start = time.perf_counter()
        classification.fit(model, data, steps, seed)
        return classification.Classifier(model), round(time.perf_counter() - start, 1)

    both = ("image", "text")
    models, seconds = {}, {}
    for name, names, fusion in [
        *((name, (name,), "concat") for name in modalities),
        *((fusion, both, fusion) for fusion in FUSIONS),
        ("concat of three", modalities, "concat"),
    ]:
        models[name], seconds[name] = trained(names, fusion)

    def share(classifier, examples, given):
        predicted = classifier({name: examples.inputs[name] for name in given})
        return attribute_accuracy(predicted, examples.labels)["all"]

    scores = {}
    for name, model in models.items():
        subsets = [model.modalities, *((m,) for m in model.modalities if len(model.modalities) > 1)]
        scores[name] = {" + ".join(given): share(model, seen, given) for given in subsets}
    noise = [0.0, 0.2, 0.35, 0.5, 0.75, 1.0]
    curves = {name: [] for name in ("image", "text", "concat")}
    for rate in noise:
        examples = scenes.degraded(held_out, seed=seed + 1, **(scenes.LOSS | {"masked": rate}))
        for name, values in curves.items():
            values.append(share(models[name], examples, models[name].modalities))
    return Results(scores, noise, curves, seconds)


def run(path: str | os.PathLike = RESULTS) -> Results:
    """Runs the experiment, and writes what `results` returns."""
    start = time.perf_counter()
    return records.write(path, COMMAND, start, experiment())


def results() -> Results:
    """The shipped results of `run`."""
    return records.read(RESULTS, Results)


# --- layers ---


@keras.saving.register_keras_serializable("mmkeras")
class Encoder(keras.layers.Layer):
    """h: applies a model to a modality. A missing modality, None, stays None.

    Args:
        encoder: keras.Model. One input, one output.
    """

    def __init__(self, encoder: keras.Model, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder

    def call(self, x, training=None):
        return None if x is None else self.encoder(x, training=training)

    def compute_output_spec(self, x, training=None):
        return self.encoder.compute_output_spec(x)

    def get_config(self):
        return super().get_config() | {"encoder": keras.saving.serialize_keras_object(self.encoder)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config.pop("encoder")), **config)


@keras.saving.register_keras_serializable("mmkeras")
class CompleteModalities(keras.layers.Layer):
    """Replaces missing modalities by a learned vector each.

    Inputs, outputs: a tensor (B, D) or (B, N, D) per modality; an input may be None, unless all are.

    Args:
        rate: float. Modality dropout: the rate at which training treats a modality as missing. One modality of
            each example, chosen at random, always stays. Defaults to 0.
    """

    def __init__(self, rate: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator()

    def build(self, shapes):
        self.shapes = [tuple(shape[1:]) for shape in shapes]
        self.missing = [
            # without modality dropout nothing trains them
            self.add_weight(name=f"missing_{i}", shape=(shape[-1],), trainable=self.rate > 0)
            for i, shape in enumerate(shapes)
        ]

    def call(self, modalities, training=None):
        batch = ops.shape(next(x for x in modalities if x is not None))[0]
        vectors = [
            ops.broadcast_to(ops.cast(v, self.compute_dtype), (batch, *shape))
            for v, shape in zip(self.missing, self.shapes, strict=True)
        ]
        if not (training and self.rate):
            return [v if x is None else x for x, v in zip(modalities, vectors, strict=True)]
        draw = keras.random.uniform((batch, len(vectors)), seed=self.seed_generator)  # (B, M)
        # the modality with the largest number stays
        stays = ops.logical_or(draw >= self.rate, draw >= ops.max(draw, axis=1, keepdims=True))
        return [
            v if x is None else ops.where(ops.reshape(stays[:, i], (-1,) + (1,) * len(shape)), x, v)
            for i, (x, v, shape) in enumerate(zip(modalities, vectors, self.shapes, strict=True))
        ]

    def compute_output_spec(self, modalities, training=None):
        return [keras.KerasTensor(x.shape, x.dtype) for x in modalities]

    def get_config(self):
        return super().get_config() | {"rate": self.rate}


def _check(encoders):
    if not encoders:
        raise ValueError("Expected encoders to have at least one modality. Received: encoders={}")
    for name, encoder in encoders.items():
        shapes = [tuple(x.shape) for x in encoder.outputs]
        if (
            len(encoder.inputs) != 1
            or len(shapes) != 1
            or len(shapes[0]) not in (2, 3)
            or None in shapes[0][1:]
        ):
            raise ValueError(
                f"Expected encoders to have one input, and one output (B, D) or (B, N, D) of known size. "
                f"Received: encoders[{name!r}] with {len(encoder.inputs)} inputs and outputs {shapes}"
            )


def _sequence(x):
    """(B, D) → (B, 1, D); (B, N, D) stays."""
    return x if len(x.shape) == 3 else ops.expand_dims(x, axis=1)


def _joined(vectors):
    return keras.layers.Concatenate()(vectors) if len(vectors) > 1 else vectors[0]
