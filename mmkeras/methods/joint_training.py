"""Joint training (chapters 3.2 and 4.1): f(X1, X2) = g(h1(X1), h2(X2)).

    X1 ─ h1: encoder ─┐
    X2 ─ h2: encoder ─┼─ g: fusion → a head per attribute → logits
    X3 ─ h3: encoder ─┘

g is a model of its own, `model.get_layer("g")`; each h is `model.get_layer("image_encoder").encoder`. A
modality that is missing is replaced by a learned vector.
"""

from collections.abc import Mapping, Sequence

import keras
from keras import ops

from mmkeras._utils import checks
from mmkeras.methods import classification, scenes
from mmkeras.nn import layers
from mmkeras.nn.encoders import dense_encoder, frame_encoder, image_encoder, word_encoder
from mmkeras.text.vocabulary import Vocabulary

# as MultiBench names them (Liang et al. 2021, arXiv:2107.07502)
FUSIONS = ("concat", "gated", "cross_attention")

# --- layers ---


@keras.saving.register_keras_serializable("mmkeras")
class Encoder(keras.layers.Layer):
    """h: applies a model to a modality. A missing modality, None, stays None.

    Output: the list of the model's outputs, [vectors] or [vectors, mask].

    Args:
        encoder: keras.Model. One input.
    """

    def __init__(self, encoder: keras.Model, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder

    def call(self, x, training=None):
        if x is None:
            return [None for _ in self.encoder.outputs]
        return keras.tree.flatten(self.encoder(x, training=training))

    def compute_output_spec(self, x, training=None):
        return keras.tree.flatten(self.encoder.compute_output_spec(x))

    def get_config(self):
        return super().get_config() | {"encoder": keras.saving.serialize_keras_object(self.encoder)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config.pop("encoder")), **config)


@keras.saving.register_keras_serializable("mmkeras")
class CompleteModalities(keras.layers.Layer):
    """Replaces missing modalities by a learned vector each.

    Inputs, outputs: a list per modality, [(B, D) or (B, N, D)], or [(B, N, D), mask (B, N) bool]. The items of
    an input may be None, unless all are. An example whose mask is False everywhere lacks the modality.

    Args:
        rate: float. Modality dropout: the rate at which training replaces a given modality. If all would be
            replaced, one of them, random for each example, stays. Defaults to 0.
    """

    def __init__(self, rate: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator()
        self.supports_masking = True  # masks are inputs of their own here

    def compute_mask(self, modalities, previous_mask):
        return None

    def build(self, shapes):
        self.shapes = [tuple(vectors[1:]) for vectors, *_ in shapes]
        self.missing = [
            # without modality dropout nothing trains them
            self.add_weight(name=f"missing_{i}", shape=(shape[-1],), trainable=self.rate > 0)
            for i, shape in enumerate(self.shapes)
        ]

    def call(self, modalities, training=None):
        given = [vectors is not None for vectors, *_ in modalities]
        batch = ops.shape(modalities[given.index(True)][0])[0]
        completed = []
        for (_, *mask), vector, shape in zip(modalities, self.missing, self.shapes, strict=True):
            vectors = ops.broadcast_to(ops.cast(vector, self.compute_dtype), (batch, *shape))
            completed.append([vectors, *(ops.ones((batch, shape[0]), "bool") for _ in mask)])
        present = [
            ops.any(mask[0], axis=1) if is_given and mask else ops.full((batch,), is_given, "bool")
            for is_given, (_, *mask) in zip(given, modalities, strict=True)
        ]
        stays = ops.stack(present, axis=1)  # (B, M)
        if training and self.rate:
            draw = keras.random.uniform(
                (batch, len(given)), dtype="float32", seed=self.seed_generator
            )  # (B, M)
            draw = ops.where(stays, draw, -1.0)
            # the modality with the largest number stays
            kept = ops.logical_or(draw >= self.rate, draw >= ops.max(draw, axis=1, keepdims=True))
            stays = ops.logical_and(stays, kept)
        return [
            [
                ops.where(ops.reshape(stays[:, i], (-1,) + (1,) * (len(x.shape) - 1)), x, y)
                for x, y in zip(parts, replacements, strict=True)
            ]
            if given[i]
            else replacements
            for i, (parts, replacements) in enumerate(zip(modalities, completed, strict=True))
        ]

    def compute_output_spec(self, modalities, training=None):
        return keras.tree.map_structure(lambda x: keras.KerasTensor(x.shape, x.dtype), modalities)

    def get_config(self):
        return super().get_config() | {"rate": self.rate}


# --- the graph ---


def build(
    encoders: Mapping[str, keras.Model],
    classes: Mapping[str, int | Sequence[str]],
    fusion: str = "concat",
    modality_dropout: float = 0.0,
    *,
    name: str = "joint_training",
    units: int = 128,
    learning_rate: float = 2e-3,
    decay_steps: int | None = None,
    label_smoothing: float = 0.0,
) -> keras.Model:
    """A classifier of any number of modalities, compiled.

    Inputs:  {modality: what its encoder takes}. None for a missing modality; `Classifier` fills them in. If an
             encoder returns a mask, an example whose mask is False everywhere lacks the modality.
    Outputs: {attribute: logits (B, classes) float32}

    Args:
        encoders: {modality: keras.Model}. One input; outputs (B, D) or (B, N, D), and for the latter, if some
            of the N are padding, a mask (B, N) bool.
        classes: {attribute: number of classes, or their names, which are then part of a saved model}.
        fusion: str. `"concat"`: vectors side by side. `"gated"`: a gate weighs the modalities in each channel
            (Arevalo et al. 2017, arXiv:1702.01992). `"cross_attention"`: the vectors of each modality attend to
            those of the others (Tsai et al. 2019, arXiv:1906.00295). Defaults to `"concat"`.
        modality_dropout: float. Rate at which training replaces a modality by its learned vector (Neverova et
            al. 2016, arXiv:1501.00102). If all would be replaced, one of them stays: of two modalities at rate
            0.5, each is replaced in 3/8 of the examples. Defaults to 0.
        name: str. Name of the model. Defaults to `"joint_training"`.
        units: int. Channels of the fusion. Defaults to 128.
        learning_rate: float. Initial learning rate of Adam. Defaults to 2e-3.
        decay_steps: int, optional. Steps of the cosine decay to a fiftieth. Defaults to None: constant.
        label_smoothing: float. Share of the target probability that is spread evenly over all classes (Szegedy
            et al. 2016, arXiv:1512.00567). Defaults to 0.

    Raises:
        ValueError: if there is no encoder, an encoder's output cannot be fused, the fusion is unknown, or
            cross-attention gets two single vectors.
    """
    if fusion not in FUSIONS:
        raise ValueError(
            f"Expected fusion to be one of {', '.join(map(repr, FUSIONS))}. Received: fusion={fusion!r}"
        )
    _check(encoders)
    if fusion == "cross_attention" and [len(e.outputs[0].shape) for e in encoders.values()] == [2, 2]:
        raise ValueError(
            "Expected encoders to return a sequence (B, N, D) of at least one modality for cross-attention: "
            "over a single vector each attention weight is 1. Received: vectors (B, D) of "
            f"{' and '.join(map(repr, encoders))}. With encoders(..., sequences=True) they are sequences."
        )

    # --- h1(X1), h2(X2), ... ---
    inputs, complete = complete_modalities(encoders, modality_dropout)

    # --- g ---
    g = fusion_model(complete, classes, fusion, units)
    logits = g(keras.tree.flatten(complete))  # {attribute: (B, classes)}
    model = keras.Model(inputs, logits, name=name)
    return classification.compiled(model, learning_rate, decay_steps, label_smoothing)


def complete_modalities(
    encoders: Mapping[str, keras.Model], modality_dropout: float = 0.0
) -> tuple[dict, list]:
    """Applies the encoders, and `CompleteModalities` to what they return. Arguments as for `build`.

    Returns:
        {modality: symbolic input}, and per modality [vectors] or [vectors, mask].
    """
    checks.numbers(0, modality_dropout=modality_dropout)
    inputs, encoded = {}, []
    for name, encoder in encoders.items():
        (tensor,) = encoder.inputs
        inputs[name] = keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=name, optional=True)
        encoded.append(Encoder(encoder, name=f"{name}_encoder")(inputs[name]))  # [(B, D)], [(B, N, D), (B, N)]
    return inputs, CompleteModalities(modality_dropout, name="modalities")(encoded)


def fusion_model(encoded, classes: Mapping[str, int | Sequence[str]], fusion: str, units: int) -> keras.Model:
    """g: encoded modalities → {attribute: logits (B, classes)}.

    Inputs: the vectors of each modality, (B, D) or (B, N, D), each followed by its mask if it has one.

    Args:
        encoded: Per modality [vectors] or [vectors, mask], symbolic.
        classes: {attribute: number of classes, or their names}.
        fusion: str. See `build`.
        units: int. Channels.
    """
    inputs = keras.tree.map_structure(lambda x: keras.Input(x.shape[1:], dtype=x.dtype), encoded)
    # the same number of channels for all, and one vector as a sequence of length 1
    sequences = [keras.layers.Dense(units)(_sequence(x)) for x, *_ in inputs]  # (B, N, U)
    masks = [
        m[0] if m else ops.ones_like(x[:, :, 0], "bool") for x, (_, *m) in zip(sequences, inputs, strict=True)
    ]
    if fusion == "cross_attention":
        attended = []
        for i, query in enumerate(sequences):
            others = [j for j in range(len(sequences)) if j != i] or [i]
            memory, mask = (_joined([parts[j] for j in others], axis=1) for parts in (sequences, masks))
            x = keras.layers.MultiHeadAttention(4, units // 4)(query, memory, attention_mask=mask[:, None])
            attended.append(keras.layers.LayerNormalization()(query + x))  # (B, N, U)
        sequences = attended
    vectors = [_mean(x, mask) for x, mask in zip(sequences, masks, strict=True)]  # (B, U) each
    if fusion == "gated":
        stacked = ops.stack([ops.tanh(x) for x in vectors], axis=1)  # (B, M, U)
        gates = keras.layers.Dense(len(vectors) * units)(_joined(vectors))  # (B, M U)
        gates = ops.softmax(keras.layers.Reshape((len(vectors), units))(gates), axis=1)  # (B, M, U)
        x = ops.sum(gates * stacked, axis=1)  # (B, U)
    else:
        x = _joined(vectors)  # (B, M U)
    x = keras.layers.Dense(units, activation="relu")(x)  # (B, U)
    logits = {
        name: keras.layers.Dense(kinds, dtype="float32", name=name)(x)
        if isinstance(kinds, int)
        else layers.ClassLogits(kinds, name=name)(x)
        for name, kinds in classes.items()
    }
    return keras.Model(keras.tree.flatten(inputs), logits, name="g")


# --- h ---


def encoders(
    vocabulary: Vocabulary,
    modalities: Sequence[str] = ("image", "text"),
    units: int = 128,
    *,
    sequences: bool = False,
) -> dict[str, keras.Model]:
    """h of modalities of `scenes.Examples`: a CNN for images and LSTMs for texts and speech, as in section 4.1
    of the document, and a dense network for touch. Each returns a vector (B, units).

    Args:
        vocabulary: `Vocabulary` of the texts.
        modalities: Sequence of str. Of `"image"`, `"text"`, `"touch"`, `"speech"`. Defaults to image and text.
        units: int. Size of a vector. Defaults to 128.
        sequences: bool. Whether images return a vector per cell of an 8 x 8 grid, (B, 64, units), and texts and
            speech one per time step, (B, N, units) with their mask, for cross-attention. Defaults to False.

    Raises:
        ValueError: if a modality is unknown.
    """

    makers = {
        "image": lambda: image_encoder(scenes.IMAGE_SIZE, units, sequence=sequences),
        "text": lambda: word_encoder(vocabulary, units, length=scenes.LENGTH, sequence=sequences),
        "speech": lambda: frame_encoder(
            scenes.FRAMES, scenes.STACKED * scenes.BANDS, units, sequence=sequences
        ),
        "touch": lambda: dense_encoder(scenes.TOUCHES, units, "touch"),
    }
    checks.among(makers, modalities=modalities)
    return {name: makers[name]() for name in modalities}


def _check(encoders):
    if not encoders:
        raise ValueError("Expected encoders to have at least one modality. Received: encoders={}")
    for name, encoder in encoders.items():
        shapes = [tuple(x.shape) for x in encoder.outputs]
        vectors, *masks = shapes
        if (
            len(encoder.inputs) != 1
            or len(vectors) not in (2, 3)
            or None in vectors[1:]
            or any(mask != vectors[:2] or len(vectors) == 2 for mask in masks)
            or len(masks) > 1
        ):
            raise ValueError(
                f"Expected encoders to have one input, and outputs (B, D), (B, N, D), or (B, N, D) and a mask "
                f"(B, N), of known size. Received: encoders[{name!r}] with {len(encoder.inputs)} inputs and "
                f"outputs {shapes}"
            )


def _sequence(x):
    """(B, D) → (B, 1, D); (B, N, D) stays."""
    return x if len(x.shape) == 3 else ops.expand_dims(x, axis=1)


def _joined(parts, axis=-1):
    return keras.layers.Concatenate(axis=axis)(parts) if len(parts) > 1 else parts[0]


def _mean(x, mask):
    """(B, N, U), mask (B, N) → mean over the valid positions (B, U)."""
    valid = ops.cast(mask, x.dtype)[:, :, None]
    return ops.sum(x * valid, axis=1) / ops.maximum(ops.sum(valid, axis=1), 1)
