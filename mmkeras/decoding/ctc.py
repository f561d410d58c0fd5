"""Connectionist temporal classification (Graves et al. 2006): sequence labeling without frame alignment.

A model returns logits over the vocabulary for each time step. Id 0, otherwise padding, is the blank. Runs on
every Keras backend.
"""

from typing import Any

import keras
from keras import ops

from mmkeras.decoding.search import NEVER
from mmkeras.distribute import collectives
from mmkeras.nn.losses import Averaged
from mmkeras.text.vocabulary import END, PAD, START, UNKNOWN

BLANK = PAD
FORBIDDEN = (UNKNOWN, START, END)  # `decode` never returns these


@keras.saving.register_keras_serializable("mmkeras")
class OnlyBlank(keras.layers.Layer):
    """Forces the blank on padded time steps: logits (B, S, V), mask (B, S) bool → (B, S, V).

    The loss and the decoding read the valid lengths from these logits, see `lengths`.
    """

    def __init__(self, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})  # NEVER is out of the range of float16

    def call(self, logits, mask):
        blank = ops.where(ops.arange(logits.shape[-1]) == BLANK, 0.0, NEVER)  # (V,)
        return ops.where(mask[..., None], logits, ops.cast(blank, logits.dtype))

    def compute_output_spec(self, logits, mask):
        return keras.KerasTensor(logits.shape, dtype=self.compute_dtype)


def lengths(logits: Any) -> Any:
    """Number of valid time steps of each row: (B, S, V), as `OnlyBlank` returns them → (B,) int32."""
    mask = ops.max(logits[..., 1:], axis=-1) > NEVER / 2  # (B, S)
    return ops.sum(ops.cast(mask, "int32"), axis=-1)


@keras.saving.register_keras_serializable("mmkeras")
class CTC(Averaged, keras.losses.Loss):
    """CTC loss, averaged over the tokens of all transcripts of a batch, see `mmkeras.nn.losses.Averaged`.

    Inputs: y_true (B, L) int token ids, padded with 0; `<start>` and `<end>` are ignored
            y_pred (B, S, V) logits, as `OnlyBlank` returns them

    A transcript that needs more time steps than its clip has (see `steps_needed`) has probability 0. It is left
    out, since its loss is infinite and its gradient NaN.
    """

    def __init__(self, name="ctc", **kwargs):
        super().__init__(name=name, **kwargs)

    def elements(self, y_true, y_pred):
        rows = ops.shape(y_true)[0]
        labels, y_pred = (
            collectives.pad_empty_batch(ops.cast(y_true, "int32")),
            collectives.pad_empty_batch(y_pred),
        )
        for token in (START, END):
            labels = ops.where(labels == token, PAD, labels)
        steps = lengths(y_pred)  # (B,)
        tokens = ops.sum(ops.cast(labels != PAD, "int32"), axis=-1)  # (B,)
        fits = steps_needed(labels) <= steps  # (B,)
        labels = ops.where(fits[:, None], labels, PAD)
        counted = ops.where(fits, tokens, 0)
        losses = ops.ctc_loss(labels, y_pred, counted, steps, mask_index=BLANK)  # (B,)
        losses = ops.where(fits, losses, 0.0)[:rows, None]  # (B, 1)
        return losses, ops.cast(counted[:rows, None], losses.dtype)


def steps_needed(labels: Any) -> Any:
    """Fewest time steps of a transcript, (B, L) → (B,): one per token, and a blank between equal neighbors."""
    tokens = ops.cast(labels != PAD, "int32")
    equal = ops.logical_and(labels[:, 1:] == labels[:, :-1], labels[:, 1:] != PAD)
    return ops.sum(tokens, axis=-1) + ops.sum(ops.cast(equal, "int32"), axis=-1)


def decode(logits: Any, beams: int = 1) -> tuple[Any, Any]:
    """Decodes the most probable labels.

    Args:
        logits: (B, S, V), as `OnlyBlank` returns them.
        beams: int. Prefixes that a prefix beam search keeps; 1: best-path decoding. Defaults to 1.

    Returns:
        tokens (B, L) int32, padded with 0; log-probability (B,) of the best path, or of the labels if `beams`
        is above 1.
    """
    steps = lengths(logits)  # (B,)
    logits = ops.cast(logits, "float32")
    for token in FORBIDDEN:
        logits = ops.where(ops.arange(logits.shape[-1]) == token, NEVER, logits)
    logits = ops.log_softmax(logits, axis=-1)  # (B, S, V)
    strategy = {"strategy": "greedy"} if beams == 1 else {"strategy": "beam_search", "beam_width": beams}
    tokens, scores = ops.ctc_decode(logits, steps, mask_index=BLANK, **strategy)
    tokens = ops.cast(tokens[0], "int32")  # (B, L), -1 after the last token
    # With "greedy" Keras returns the negated sum of the best path's log-probabilities.
    score = -scores[:, 0] if beams == 1 else scores[:, 0]
    return ops.where(tokens < 0, PAD, tokens), score
