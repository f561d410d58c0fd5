"""Layers and losses that several tasks share. Keras alone: they run on every Keras backend."""

from collections.abc import Sequence

import keras
from keras import ops

from mmkeras._utils import checks
from mmkeras.data.vocabulary import PAD, Vocabulary
from mmkeras.distribute import collectives


@keras.saving.register_keras_serializable("mmkeras")
class TokenEmbedding(keras.layers.Embedding):
    """Token ids → vectors. Carries the vocabulary, so that a saved model knows its own words.

    There is no mask: padding comes last and a decoder only looks back, so padding reaches no real
    position, and the loss leaves out the padded ones itself.
    """

    def __init__(self, vocabulary: Vocabulary | dict, output_dim: int, **kwargs):
        if isinstance(vocabulary, dict):
            vocabulary = Vocabulary.from_config(vocabulary)
        self.vocabulary = vocabulary
        kwargs.pop("input_dim", None)  # from a saved config: it is the vocabulary's size
        super().__init__(len(vocabulary), output_dim, **kwargs)

    def get_config(self):
        return super().get_config() | {"vocabulary": self.vocabulary.get_config()}


@keras.saving.register_keras_serializable("mmkeras")
class TokenLogits(keras.layers.Dense):
    """Vectors → logits over a vocabulary, which it carries. For heads without a `TokenEmbedding`."""

    def __init__(self, vocabulary: Vocabulary | dict, **kwargs):
        if isinstance(vocabulary, dict):
            vocabulary = Vocabulary.from_config(vocabulary)
        self.vocabulary = vocabulary
        kwargs.pop("units", None)  # from a saved config: it is the vocabulary's size
        # float32 also under mixed precision: a softmax over thousands of words needs it
        super().__init__(len(vocabulary), **{"dtype": "float32", **kwargs})

    def get_config(self):
        return super().get_config() | {"vocabulary": self.vocabulary.get_config()}


@keras.saving.register_keras_serializable("mmkeras")
class ClassLogits(keras.layers.Dense):
    """Vectors → logits over classes, whose names it carries, so that a saved model can tell them."""

    def __init__(self, classes: Sequence[str], **kwargs):
        self.classes = tuple(classes)
        kwargs.pop("units", None)  # from a saved config: it is the number of classes
        super().__init__(len(self.classes), **{"dtype": "float32", **kwargs})

    def get_config(self):
        return super().get_config() | {"classes": list(self.classes)}


@keras.saving.register_keras_serializable("mmkeras")
class GridFeatures(keras.layers.Layer):
    """Pictures → the grid of features that a convolutional network sees in them.

    What already is a grid of features passes through: a frozen network's features are computed once,
    cached, and fed to the very same model (the layer looks at the number of channels, as TensorFlow's
    captioning tutorial does).

    Args:
        network: (B, image_size, image_size, 3) RGB 0..255 → (B, h, w, C).
        image_size: side in pixels of the pictures that the network was built for.
        fell_back: whether the network got random weights for want of the trained ones.
    """

    def __init__(self, network: keras.Model, image_size: int, fell_back: bool = False, **kwargs):
        super().__init__(**kwargs)
        network.trainable = self.trainable  # what is frozen is so down to its variables
        self.network = network
        self.image_size = image_size
        self.fell_back = fell_back

    def call(self, picture):
        return self.network(picture) if picture.shape[-1] == 3 else picture

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *self.network.output_shape[1:])

    def compute_output_spec(self, picture):
        return keras.KerasTensor(self.compute_output_shape(picture.shape), dtype=self.compute_dtype)

    def get_config(self):
        network = keras.saving.serialize_keras_object(self.network)
        own = {"network": network, "image_size": self.image_size, "fell_back": self.fell_back}
        return super().get_config() | own

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config.pop("network")), **config)


@keras.saving.register_keras_serializable("mmkeras")
class ImageNetMeans(keras.layers.Layer):
    """RGB 0..255 → BGR with ImageNet's mean taken off: what VGG16's weights were trained on."""

    def call(self, picture):
        return ops.flip(picture, axis=-1) - ops.convert_to_tensor([103.939, 116.779, 123.68], picture.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable("mmkeras")
class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation over the whole batch, also where several replicas share it.

    Keras's own does so with `synchronized=True`, which it takes on TensorFlow alone, so that a model saved
    with it loads nowhere else, and which costs something with one replica too.
    """

    def call(self, inputs, training=None, mask=None):
        self.synchronized = collectives.count() > 1
        return super().call(inputs, training=training, mask=mask)

    def get_config(self):
        return super().get_config() | {"synchronized": False}


class _Masked:
    """Keras 3.16 turns `supports_masking` off for recurrent layers and so warns of each call with a mask,
    though it heeds the mask as before."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.supports_masking = True


@keras.saving.register_keras_serializable("mmkeras")
class MaskedLSTM(_Masked, keras.layers.LSTM):
    """Keras's LSTM, for calls with a mask."""


@keras.saving.register_keras_serializable("mmkeras")
class MaskedBidirectional(_Masked, keras.layers.Bidirectional):
    """Keras's Bidirectional around a `MaskedLSTM`, for calls with a mask."""


def attention_decoder(
    vocabulary: Vocabulary,
    *,
    memory_dim: int,
    embedding_dim: int,
    units: int,
    dropout: float,
    word_dropout: float = 0.0,
    masked: bool = False,
    name: str = "decoder",
) -> keras.Model:
    """LSTM with additive attention: whole sentences when it trains, one step at a time when it writes.

    Each position's LSTM output asks, the additive score of Bahdanau et al. 2015 (arXiv:1409.0473)
    answers, and both together give the logits: the wiring of Luong et al. 2015 (arXiv:1508.04025).
    Nothing flows from the attention back into the LSTM, so teacher forcing is one LSTM call over the
    whole sentence. `word_dropout` hides whole words from it (Bowman et al. 2016, arXiv:1511.06349), so
    that it must look where it would otherwise guess from the words before.

    Inputs:  tokens (B, T) int32 · memory (B, N, memory_dim) · with `masked`: real (B, N) bool, which places of
             the memory may be looked at · hidden, cell (B, units)
    Outputs: logits (B, T, V) · hidden, cell (B, units) after the last token · attention (B, T, N)
    """
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    memory = keras.Input((None, memory_dim), name="memory")
    is_real = [keras.Input((None,), dtype="bool", name="real")] if masked else []
    state = [keras.Input((units,), name="hidden"), keras.Input((units,), name="cell")]

    x = TokenEmbedding(vocabulary, embedding_dim, name="embedding")(tokens)  # (B, T, E)
    x = keras.layers.Dropout(word_dropout, noise_shape=(None, None, 1), name="word_dropout")(x)
    x = keras.layers.Dropout(dropout)(x)
    x, hidden, cell = keras.layers.LSTM(units, return_sequences=True, return_state=True, name="lstm")(
        x, initial_state=state
    )  # (B, T, U)
    query = keras.layers.Dense(memory_dim, name="query")(x)  # (B, T, M)
    context, attention = keras.layers.AdditiveAttention(name="attention")(
        [query, memory], mask=[None, *is_real] if masked else None, return_attention_scores=True
    )  # (B, T, M), (B, T, N)
    x = keras.layers.Concatenate()([x, context])
    x = keras.layers.Dense(units, activation="tanh", name="combine")(x)
    x = keras.layers.Dropout(dropout)(x)
    # float32 also under mixed precision: a softmax over thousands of words needs it
    logits = keras.layers.Dense(len(vocabulary), dtype="float32", name="logits")(x)  # (B, T, V)
    return keras.Model([tokens, memory, *is_real, *state], [logits, hidden, cell, attention], name=name)


@keras.saving.register_keras_serializable("mmkeras")
class TokenCrossentropy(keras.losses.Loss):
    """Cross-entropy a real token: padding (id 0) counts neither above nor below the fraction.

    Several replicas share the fraction, so that it does not matter which of them has the longer sentences.

    `y_true` (B, T) token ids, `y_pred` (B, T, V) logits.

    Args:
        label_smoothing: the share of the probability that all words are to have alike, the wrong ones
            too (Szegedy et al. 2016, arXiv:1512.00567, section 7).
    """

    def __init__(self, label_smoothing: float = 0.0, name: str = "token_crossentropy", **kwargs):
        super().__init__(name=name, **kwargs)
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                f"Expected label_smoothing to be at least 0 and below 1. "
                f"Received: label_smoothing={label_smoothing}"
            )
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        log_probs = ops.log_softmax(y_pred)  # (B, T, V)
        true = ops.take_along_axis(log_probs, ops.cast(y_true, "int32")[..., None], axis=-1)[..., 0]
        share = self.label_smoothing
        losses = -(1 - share) * true - share * ops.mean(log_probs, axis=-1)  # (B, T)
        real = ops.cast(ops.not_equal(y_true, PAD), losses.dtype)
        return collectives.ratio(ops.sum(losses * real), ops.sum(real))

    def get_config(self):
        return super().get_config() | {"label_smoothing": self.label_smoothing}


@keras.saving.register_keras_serializable("mmkeras")
class PixelCrossentropy(keras.losses.BinaryCrossentropy):
    """Keras's binary cross-entropy, its mean taken over the whole batch where several replicas share it."""

    def __init__(self, name: str = "pixel_crossentropy", **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        losses = super().call(y_true, y_pred)  # (B, H, W)
        return collectives.ratio(ops.sum(losses), ops.cast(ops.size(losses), losses.dtype))


@keras.saving.register_keras_serializable("mmkeras")
class TokenAccuracy(keras.metrics.Metric):
    """The share of real tokens whose most probable word is right, given the true words before it.

    `y_true` (B, T) token ids, `y_pred` (B, T, V) logits. Counted over tokens, whatever batch they are in.
    """

    def __init__(self, name: str = "token_accuracy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.right = self.add_variable((), initializer="zeros", name="right")
        self.count = self.add_variable((), initializer="zeros", name="count")

    def update_state(self, y_true, y_pred, sample_weight=None):
        real = ops.cast(ops.not_equal(y_true, PAD), self.dtype)
        best = ops.argmax(y_pred, axis=-1)
        right = ops.equal(best, ops.cast(y_true, best.dtype))
        self.right.assign_add(ops.sum(ops.cast(right, self.dtype) * real))
        self.count.assign_add(ops.sum(real))

    def result(self):
        return ops.divide_no_nan(self.right, self.count)


def adam(learning_rate: float, decay_steps: int | None) -> keras.optimizers.Optimizer:
    """Adam with clipped gradients, as every task compiles it.

    Args:
        learning_rate: at the start.
        decay_steps: after which it has fallen to a fiftieth along a cosine; None: it stays.
    """
    return keras.optimizers.Adam(decaying(learning_rate, decay_steps), global_clipnorm=5.0)


@keras.saving.register_keras_serializable("mmkeras")
class AveragedAdam(keras.optimizers.Adam):
    """Adam that leaves the moving averages of the weights in their place when `fit` ends.

    Keras's own `use_ema` does so too, but on JAX weight and average then are one array: the next prediction
    gives it away to be written over, and saving or training on finds it deleted (Keras 3.15).

    Args:
        learning_rate: a number or a schedule.
        momentum: of the averages.
        kwargs: Adam's others.
    """

    def __init__(self, learning_rate=1e-3, momentum: float = 0.99, **kwargs):
        super().__init__(learning_rate, **{"ema_momentum": momentum, **kwargs, "use_ema": True})

    def finalize_variable_values(self, var_list):
        super().finalize_variable_values(var_list)
        for variable in var_list:
            variable.assign(ops.copy(variable))


def check_schedule(learning_rate: float, decay_steps: int | None) -> None:
    """Raises ValueError where `decaying` could not make a learning rate of these."""
    checks.numbers(0, learning_rate=learning_rate)
    if decay_steps is not None:
        checks.ints(1, decay_steps=decay_steps)


def decaying(learning_rate: float, decay_steps: int | None):
    """A learning rate that falls to a fiftieth along a cosine; without `decay_steps` it stays."""
    if not decay_steps:
        return learning_rate
    return keras.optimizers.schedules.CosineDecay(learning_rate, decay_steps, alpha=0.02)


def with_overrides(presets: dict[str, dict], preset: str, overrides: dict) -> dict:
    """A preset's sizes, some of them replaced."""
    if preset not in presets:
        known = ", ".join(map(repr, presets))
        raise ValueError(f"Expected preset to be one of {known}. Received: preset={preset!r}")
    if unknown := overrides.keys() - presets[preset].keys():
        known = ", ".join(presets[preset])
        raise TypeError(f"Expected overrides among {known}. Received: {', '.join(sorted(unknown))}")
    return presets[preset] | overrides
