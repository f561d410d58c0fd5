"""Losses and metrics that several tasks share."""

import keras
from keras import ops

from mmkeras.distribute import collectives
from mmkeras.text.vocabulary import PAD

INVERSE_TEMPERATURE = 10.0  # of the contrastive loss: temperature 0.1, as in XMC-GAN


class Averaged:
    """A loss that is averaged over the elements of a batch (such as tokens or pixels) of all replicas.

    For subclasses of `keras.losses.Loss`, in place of its reduction. A `sample_weight` weighs the elements of
    each example, in the sum and in the number that it is divided by: an example of weight 0 is as if it were
    not in the batch, and weights that are all equal change nothing.
    """

    def elements(self, y_true, y_pred):
        """The losses of the elements (B, ...), and their numbers (B, ...), 0 where there is none."""
        raise NotImplementedError

    def __call__(self, y_true, y_pred, sample_weight=None):
        y_true, y_pred = (ops.convert_to_tensor(y, self.dtype) for y in (y_true, y_pred))
        losses, numbers = (weighted(x, sample_weight) for x in self.elements(y_true, y_pred))
        # divided by the number of replicas, since Keras adds up their losses
        return collectives.ratio(ops.sum(losses), ops.sum(numbers)) / collectives.count()


def weighted(values, sample_weight):
    """Values (B, ...), multiplied by the weights of their examples (B,), (B, 1) or (B, ...), if not None."""
    if sample_weight is None:
        return values
    weight = ops.cast(sample_weight, values.dtype)
    return values * ops.reshape(weight, (*ops.shape(weight), *[1] * (len(values.shape) - len(weight.shape))))


@keras.saving.register_keras_serializable("mmkeras")
class TokenCrossentropy(Averaged, keras.losses.Loss):
    """Cross-entropy averaged over the non-padding tokens (id 0 is padding) of all replicas, see `Averaged`.

    `y_true` (B, T) token ids, `y_pred` (B, T, V) logits.

    Args:
        label_smoothing: float. Share of the target probability that is spread evenly over all words (Szegedy et
            al. 2016, arXiv:1512.00567, section 7). Defaults to 0.

    Raises:
        ValueError: if `label_smoothing` is not in [0, 1).
    """

    def __init__(self, label_smoothing: float = 0.0, name: str = "token_crossentropy", **kwargs):
        super().__init__(name=name, **kwargs)
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                f"Expected label_smoothing to be at least 0 and below 1. "
                f"Received: label_smoothing={label_smoothing}"
            )
        self.label_smoothing = label_smoothing

    def elements(self, y_true, y_pred):
        log_probs = ops.log_softmax(y_pred)  # (B, T, V)
        target = ops.take_along_axis(log_probs, ops.cast(y_true, "int32")[..., None], axis=-1)[..., 0]  # (B, T)
        smoothing = self.label_smoothing
        losses = -(1 - smoothing) * target - smoothing * ops.mean(log_probs, axis=-1)  # (B, T)
        mask = ops.cast(ops.not_equal(y_true, PAD), losses.dtype)  # (B, T)
        return losses * mask, mask

    def get_config(self):
        return super().get_config() | {"label_smoothing": self.label_smoothing}


@keras.saving.register_keras_serializable("mmkeras")
class PixelCrossentropy(Averaged, keras.losses.BinaryCrossentropy):
    """Binary cross-entropy averaged over the pixels of all replicas, see `Averaged`."""

    def __init__(self, name: str = "pixel_crossentropy", **kwargs):
        super().__init__(name=name, **kwargs)

    def elements(self, y_true, y_pred):
        losses = self.call(y_true, y_pred)  # (B, H, W)
        return losses, ops.ones_like(losses)


@keras.saving.register_keras_serializable("mmkeras")
class TokenAccuracy(keras.metrics.Metric):
    """Share of the non-padding tokens whose most probable word is correct, under teacher forcing.

    `y_true` (B, T) token ids, `y_pred` (B, T, V) logits. Averaged over tokens, not over batches; a
    `sample_weight` weighs the tokens of each example.
    """

    def __init__(self, name: str = "token_accuracy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.correct = self.add_variable((), initializer="zeros", name="correct")
        self.count = self.add_variable((), initializer="zeros", name="count")

    def update_state(self, y_true, y_pred, sample_weight=None):
        mask = weighted(ops.cast(ops.not_equal(y_true, PAD), self.dtype), sample_weight)  # (B, T)
        best = ops.argmax(y_pred, axis=-1)  # (B, T)
        correct = ops.cast(ops.equal(best, ops.cast(y_true, best.dtype)), self.dtype)
        self.correct.assign_add(ops.sum(correct * mask))
        self.count.assign_add(ops.sum(mask))

    def result(self):
        return ops.divide_no_nan(self.correct, self.count)


# --- contrastive ---


def contrastive_loss(image_embedding, text_embedding, tokens):
    """Cross-entropy () of each image's own text among all texts of the batch, by cosine similarity.

    XMC-GAN (Zhang et al. 2021, arXiv:2101.04702). All texts of the batch are negatives, since a single one
    would rarely differ from the image's own in the shape alone. Texts equal to the image's own are excluded.

    Args:
        image_embedding, text_embedding: (B, F).
        tokens: (B, T) int. The texts.
    """
    image_embedding, text_embedding = unit_vectors(image_embedding), unit_vectors(text_embedding)  # (B, F)
    positive = INVERSE_TEMPERATURE * ops.sum(image_embedding * text_embedding, axis=-1, keepdims=True)  # (B, 1)
    texts = collectives.gathered(text_embedding)  # (N, F), the batches of all replicas
    is_same = same_text(tokens[:, None], collectives.gathered(tokens)[None])  # (B, N)
    similarity = INVERSE_TEMPERATURE * ops.matmul(image_embedding, ops.transpose(texts))  # (B, N)
    negatives = similarity - 1e9 * is_same  # (B, N)
    logits = ops.concatenate([positive, negatives], axis=1)  # (B, 1 + N)
    return collectives.mean(ops.logsumexp(logits, axis=1) - positive[:, 0])


@keras.saving.register_keras_serializable("mmkeras")
class SymmetricContrastive(Averaged, keras.losses.Loss):
    """Cross-entropy of each image's texts among all texts, and of each text's images among all images: the loss
    of CLIP (Radford et al. 2021, arXiv:2103.00020), averaged over the images of all replicas, see `Averaged`.

    `y_true` (B,) ids of what the examples show: those with the same id are positives of each other, with equal
    shares of the target. `y_pred` (B, 2, N), the logits of `mmkeras.nn.layers.ContrastiveLogits`.
    """

    def __init__(self, name: str = "contrastive", **kwargs):
        super().__init__(name=name, **kwargs)

    def __call__(self, y_true, y_pred, sample_weight=None):
        self.ids = ops.reshape(y_true, (-1,))  # as they are: float32 has no room for large ids
        return super().__call__(ops.cast(self.ids, "float32"), y_pred, sample_weight)

    def elements(self, y_true, y_pred):
        same = ops.cast(ops.equal(self.ids[:, None], collectives.gathered(self.ids)[None]), y_pred.dtype)
        target = (same / ops.sum(same, axis=1, keepdims=True))[:, None]  # (B, 1, N)
        losses = -ops.mean(ops.sum(target * ops.log_softmax(y_pred, axis=-1), axis=-1), axis=1)  # (B,)
        return losses, ops.ones_like(losses)


def same_text(tokens, others):
    """1 where two texts (..., T) have the same tokens, else 0: (...) float32."""
    return ops.cast(ops.all(ops.equal(tokens, others), axis=-1), "float32")


def unit_vectors(x):
    """(..., F) → (..., F) of length 1. Unlike `ops.normalize` on JAX, it has a gradient at zero."""
    return x * ops.rsqrt(ops.sum(ops.square(x), axis=-1, keepdims=True) + 1e-8)
