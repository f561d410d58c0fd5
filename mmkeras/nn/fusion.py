"""Fusion: g of f(X1, X2) = g(h1(X1), h2(X2)), and the layers around it.

inputs, encoded = complete_modalities({"image": h1, "text": h2})    # h(X) of each, or a learned vector
g = fusion_model(encoded, {"color": 6, "shape": 6}, "concat", 128)  # → logits of each attribute
"""

from collections.abc import Mapping, Sequence

import keras
from keras import ops

from mmkeras._utils import checks
from mmkeras.nn import layers

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


def complete_modalities(
    encoders: Mapping[str, keras.Model], modality_dropout: float = 0.0
) -> tuple[dict, list]:
    """Applies the encoders, and `CompleteModalities` to what they return. Arguments as for
    `mmkeras.methods.joint_training.build`.

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
        fusion: str. See `mmkeras.methods.joint_training.build`.
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


def _sequence(x):
    """(B, D) → (B, 1, D); (B, N, D) stays."""
    return x if len(x.shape) == 3 else ops.expand_dims(x, axis=1)


def _joined(parts, axis=-1):
    return keras.layers.Concatenate(axis=axis)(parts) if len(parts) > 1 else parts[0]


def _mean(x, mask):
    """(B, N, U), mask (B, N) → mean over the valid positions (B, U)."""
    valid = ops.cast(mask, x.dtype)[:, :, None]
    return ops.sum(x * valid, axis=1) / ops.maximum(ops.sum(valid, axis=1), 1)
