"""Connectionist temporal classification (Graves et al. 2006): labels without knowing when they are said.

A model gives each step logits over the vocabulary, whose id 0 (padding) stands for the blank. Keras alone: it
runs on every Keras backend.
"""

import keras
from keras import ops

from mmkeras._utils import checks
from mmkeras.data.vocabulary import END, PAD, START, UNKNOWN
from mmkeras.decoding.search import NEVER
from mmkeras.distribute import collectives

BLANK = PAD
NEVER_SAID = (UNKNOWN, START, END)


@keras.saving.register_keras_serializable("mmkeras")
class OnlyBlank(keras.layers.Layer):
    """On padded steps the blank and nothing else: (B, S, V) logits, (B, S) bool real → (B, S, V).

    So logits carry their true lengths with them, and neither loss nor decoding needs to be told.
    """

    def __init__(self, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})  # float16 has no number for "never"

    def call(self, logits, is_real):
        blank = ops.where(ops.arange(logits.shape[-1]) == BLANK, 0.0, NEVER)
        return ops.where(is_real[..., None], logits, ops.cast(blank, logits.dtype))

    def compute_output_spec(self, logits, is_real):
        return keras.KerasTensor(logits.shape, dtype=self.compute_dtype)


def lengths(logits):
    """How many steps of each row are real: (B, S, V), as `OnlyBlank` leaves them → (B,) int32."""
    is_real = ops.max(logits[..., 1:], axis=-1) > NEVER / 2
    return ops.sum(ops.cast(is_real, "int32"), axis=-1)


@keras.saving.register_keras_serializable("mmkeras")
class CTC(keras.losses.Loss):
    """The CTC loss a label, with the true lengths of labels and of inputs; several replicas share one fraction.

    `y_true` (B, L) token ids, padded with 0; <start> and <end> do not count. `y_pred` (B, S, V) logits as
    `OnlyBlank` leaves them.

    A label with more tokens (and blanks between equal neighbours) than its input has steps has no probability
    at all: it adds nothing to the loss, where it would otherwise make it infinite and the gradient NaN.
    """

    def __init__(self, name="ctc", **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        rows = ops.shape(y_true)[0]
        labels, y_pred = collectives.one_at_least(ops.cast(y_true, "int32")), collectives.one_at_least(y_pred)
        for token in (START, END):
            labels = ops.where(labels == token, PAD, labels)
        steps = lengths(y_pred)
        tokens = ops.sum(ops.cast(labels != PAD, "int32"), axis=-1)  # (B,)
        fits = steps_needed(labels) <= steps
        labels = ops.where(fits[:, None], labels, PAD)
        counted = ops.where(fits, tokens, 0)
        losses = ops.ctc_loss(labels, y_pred, counted, steps, mask_index=BLANK)  # (B,)
        total = ops.sum(ops.where(fits, losses, 0.0)[:rows])
        return collectives.ratio(total, ops.cast(ops.sum(counted), total.dtype))


def steps_needed(labels):
    """The fewest steps that can say a label, (B, L) → (B,): one a token and one between equal neighbours."""
    tokens = ops.cast(labels != PAD, "int32")
    equal = ops.logical_and(labels[:, 1:] == labels[:, :-1], labels[:, 1:] != PAD)
    return ops.sum(tokens, axis=-1) + ops.sum(ops.cast(equal, "int32"), axis=-1)


def decode(logits, beams: int = 1):
    """The most probable labels: the best path's where `beams` is 1, else by prefix beam search.

    Args:
        logits: (B, S, V), as `OnlyBlank` leaves them.
        beams: how many prefixes the search keeps.

    Returns:
        tokens (B, L) int32, padded with 0; log-probability (B,) of the path or of the labels.
    """
    steps = lengths(logits)
    logits = ops.cast(logits, "float32")
    for token in NEVER_SAID:
        logits = ops.where(ops.arange(logits.shape[-1]) == token, NEVER, logits)
    logits = ops.log_softmax(logits, axis=-1)
    strategy = {"strategy": "greedy"} if beams == 1 else {"strategy": "beam_search", "beam_width": beams}
    tokens, scores = ops.ctc_decode(logits, steps, mask_index=BLANK, **strategy)
    tokens = ops.cast(tokens[0], "int32")
    # greedy gives the negated sum of the best path's log-probabilities
    score = -scores[:, 0] if beams == 1 else scores[:, 0]
    return ops.where(tokens < 0, PAD, tokens), score


class Reader:
    """Reads labels off batches of inputs; each width of search is compiled once.

    Args:
        encoder: inputs → memory (B, S, M), which steps are real (B, S).
        head: both → logits (B, S, V), as `OnlyBlank` leaves them.
    """

    def __init__(self, encoder: keras.Model, head: keras.Model):
        self.encoder, self.head = encoder, head
        self._graphs: dict[int, _Graph] = {}

    def __call__(self, inputs, *, beams: int = 1):
        """Token ids (B, L) int32, padded with 0, and their log-probability (B,).

        Args:
            inputs: the encoder's, by name.
            beams: how many prefixes a search keeps; 1 takes the best path.
        """
        checks.ints(1, beams=beams)
        if beams not in self._graphs:
            self._graphs[beams] = _Graph(self.encoder, self.head, beams)
        return collectives.predict_alone(self._graphs[beams], inputs)

    def posteriors(self, inputs):
        """The probability of each token at each step, (B, S, V)."""
        inputs = {name: ops.convert_to_tensor(x) for name, x in inputs.items()}
        logits = self.head(self.encoder(inputs, training=False), training=False)
        return ops.convert_to_numpy(ops.softmax(logits, axis=-1))


class _Graph(keras.Model):
    """Encoder, head and search as one graph; `predict_alone` compiles it."""

    def __init__(self, encoder, head, beams):
        super().__init__(name="reader")
        self.encoder, self.head, self.beams = encoder, head, beams
        self.built = True  # as in `writing`: its halves are

    def call(self, inputs):
        return decode(self.head(self.encoder(inputs, training=False), training=False), self.beams)
