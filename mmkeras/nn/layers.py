"""Layers that several tasks share."""

import math
import warnings
from collections.abc import Sequence

import keras
from keras import ops

from mmkeras._utils import kernels
from mmkeras.distribute import collectives
from mmkeras.nn import hugging_face  # noqa: F401 (a model's file may hold its layer)
from mmkeras.text.vocabulary import Vocabulary

DIAGONAL_WIDTH = 0.2  # as in Tachibana et al. 2018


@keras.saving.register_keras_serializable("mmkeras")
class TokenEmbedding(keras.layers.Embedding):
    """Token ids (B, T) → embeddings (B, T, output_dim). The vocabulary is part of the config of a saved model.

    It makes no mask. Padding comes last and a decoder is causal, so padding reaches no valid position, and the
    loss leaves out padded positions.

    Args:
        vocabulary: `Vocabulary`.
        output_dim: int. Size of the embedding.
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
    """Vectors (..., C) → logits (..., V). The vocabulary is part of the config of a saved model.

    Args:
        vocabulary: `Vocabulary` of V tokens.
    """

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
    """Vectors (..., C) → logits over classes. Their names are part of the config of a saved model.

    Args:
        classes: list of str. Names of the classes.
    """

    def __init__(self, classes: Sequence[str], **kwargs):
        self.classes = tuple(classes)
        kwargs.pop("units", None)  # from a saved config: it is the number of classes
        super().__init__(len(self.classes), **{"dtype": "float32", **kwargs})

    def get_config(self):
        return super().get_config() | {"classes": list(self.classes)}


@keras.saving.register_keras_serializable("mmkeras")
class GridFeatures(keras.layers.Layer):
    """Images (B, S, S, 3) → grid features (B, h, w, C) of a convolutional network.

    An input that does not have 3 channels is already a grid of features and is returned unchanged, so that the
    features of a frozen network can be computed once and cached.

    Args:
        network: keras.Model. (B, S, S, 3) RGB 0..255 → (B, h, w, C).
        image_size: int. Side S in pixels.
        has_random_weights: bool. Whether the network has random weights because the trained ones are not
            available. Defaults to False.
    """

    def __init__(self, network: keras.Model, image_size: int, has_random_weights: bool = False, **kwargs):
        super().__init__(**kwargs)
        network.trainable = self.trainable
        self.network = network
        self.image_size = image_size
        self.has_random_weights = has_random_weights

    def call(self, image):
        if image.shape[-1] != 3:
            return image
        if not {*image.shape[1:3]} <= {None, self.image_size}:
            raise ValueError(
                f"Expected images of the model's size, image_size={self.image_size}. Received: images of "
                f"{tuple(image.shape[1:3])}. Use data(..., image_size={self.image_size}), or build the model "
                f"with image_size=data.image_size."
            )
        return self.network(image)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *self.network.output_shape[1:])

    def compute_output_spec(self, image):
        return keras.KerasTensor(self.compute_output_shape(image.shape), dtype=self.compute_dtype)

    def get_config(self):
        network = keras.saving.serialize_keras_object(self.network)
        own = {"network": network, "image_size": self.image_size, "has_random_weights": self.has_random_weights}
        return super().get_config() | own

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config.pop("network")), **config)


@keras.saving.register_keras_serializable("mmkeras")
class SequenceFeatures(keras.layers.Layer):
    """Frames (B, F, M) → vectors (B, ceil(F / stride), D) of a network. Zeros complete the last time step.

    Args:
        network: keras.Model. (B, F, M) → (B, F / stride, D), for F divisible by `stride`.
        stride: int. Frames per vector.
    """

    def __init__(self, network: keras.Model, stride: int, **kwargs):
        super().__init__(**kwargs)
        self.network = network
        self.strides = (stride,)

    def call(self, frames, training=None):
        rest = -ops.shape(frames)[1] % self.strides[0]
        return self.network(ops.pad(frames, [[0, 0], [0, rest], [0, 0]]), training=training)

    def compute_output_spec(self, frames, training=None):
        batch, count, _ = frames.shape
        size = self.network.output_shape[-1]
        steps = None if count is None else -(-count // self.strides[0])
        return keras.KerasTensor((batch, steps, size), dtype=self.compute_dtype)

    def get_config(self):
        network = keras.saving.serialize_keras_object(self.network)
        return super().get_config() | {"network": network, "stride": self.strides[0]}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config.pop("network")), **config)


@keras.saving.register_keras_serializable("mmkeras")
class PositionEmbedding(keras.layers.Layer):
    """Vectors (B, N, C) → the same plus a learned vector for each of the N positions."""

    def build(self, input_shape):
        # as large as the features, or the sum would hold little of the position at the start of training
        spread = keras.initializers.RandomNormal(stddev=0.3)
        self.positions = self.add_weight(name="positions", shape=input_shape[1:], initializer=spread)

    def call(self, x):
        return x + self.positions  # (B, N, C)


@keras.saving.register_keras_serializable("mmkeras")
class GuidedAttention(keras.layers.AdditiveAttention):
    """Additive attention (Bahdanau et al. 2015, arXiv:1409.0473) with penalties on its weights in training.

    Args:
        entropy_penalty: float. Weight of the entropy of the attention, so that it is on few positions. Defaults
            to 0.
        diagonal_penalty: float. Weight of the attention far from the diagonal, so that it moves from the start
            to the end of the memory (guided attention: Tachibana et al. 2018, arXiv:1710.08969). It needs masks
            of queries and memory. Defaults to 0.
    """

    def __init__(self, entropy_penalty: float = 0.0, diagonal_penalty: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.entropy_penalty, self.diagonal_penalty = entropy_penalty, diagonal_penalty

    def call(self, inputs, mask=None, return_attention_scores=False, training=None, use_causal_mask=False):
        with warnings.catch_warnings():  # an encoder may return one vector, whose weight is 1
            warnings.filterwarnings("ignore", "You are using a softmax over axis", UserWarning)
            context, weights = super().call(  # (B, T, M), (B, T, N)
                inputs,
                mask=mask,
                training=training,
                return_attention_scores=True,
                use_causal_mask=use_causal_mask,
            )
        if training and self.entropy_penalty:
            share = ops.cast(weights, "float32")  # as Keras's losses, under mixed precision
            entropy = -ops.sum(share * ops.log(share + 1e-8), axis=-1)  # (B, T)
            self.add_loss(collectives.penalty(self.entropy_penalty * collectives.mean(entropy)))
        if training and self.diagonal_penalty:
            valid, memory_valid = (ops.cast(m, "float32") for m in mask)  # (B, T), (B, N)
            distance = _progress(valid)[:, :, None] - _progress(memory_valid)[:, None]  # (B, T, N)
            far = 1 - ops.exp(-(distance**2) / (2 * DIAGONAL_WIDTH**2))  # (B, T, N)
            loss = ops.sum(ops.sum(ops.cast(weights, "float32") * far, axis=-1) * valid)
            share = collectives.ratio(loss, ops.sum(valid))
            self.add_loss(collectives.penalty(self.diagonal_penalty * share))
        return (context, weights) if return_attention_scores else context

    def get_config(self):
        penalties = {"entropy_penalty": self.entropy_penalty, "diagonal_penalty": self.diagonal_penalty}
        return super().get_config() | penalties


def _progress(valid):
    """(B, L) 1 for valid positions → (B, L), from near 0 at the first to 1 at the last of them."""
    return ops.cumsum(valid, axis=1) / ops.maximum(ops.sum(valid, axis=1, keepdims=True), 1)


@keras.saving.register_keras_serializable("mmkeras")
class ImageNetMeans(keras.layers.Layer):
    """RGB 0..255 → BGR minus ImageNet's mean, the input of VGG16's weights."""

    def call(self, image):
        return ops.flip(image, axis=-1) - ops.convert_to_tensor([103.939, 116.779, 123.68], image.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable("mmkeras")
class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization over the batches of all replicas.

    Keras does so with `synchronized=True`, but on TensorFlow only, so a model saved with it loads on no other
    backend; and it costs time with one replica as well. One replica trains on TensorFlow with its fused kernel:
    a step of captioning takes 0.75 of the time that it takes with Keras's single operations.
    """

    def call(self, inputs, training=None, mask=None):
        self.synchronized = collectives.count() > 1
        is_fusible = mask is None and len(inputs.shape) == 4
        trains = training and self.trainable and not self.synchronized
        if trains and is_fusible and keras.backend.backend() == "tensorflow":
            return self._fused(inputs)
        return super().call(inputs, training=training, mask=mask)

    def _fused(self, inputs):
        scale = self.gamma if self.scale else ops.ones(inputs.shape[-1:], "float32")
        shift = self.beta if self.center else ops.zeros(inputs.shape[-1:], "float32")
        outputs, mean, variance = kernels.batch_normalization(inputs, scale, shift, self.epsilon)
        for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + new * (1 - self.momentum))
        return outputs

    def get_config(self):
        return super().get_config() | {"synchronized": False}


@keras.saving.register_keras_serializable("mmkeras")
class ContrastiveLogits(keras.layers.Layer):
    """Unit vectors of images and texts, (B, D) each → logits (B, 2, N): the cosine similarity of each image to
    the texts of all replicas, and of each text to the images of all replicas, divided by a learned
    temperature (Radford et al. 2021, arXiv:2103.00020).

    Args:
        temperature: float. At the start. Defaults to 0.07, as there.
        lowest: float. Defaults to 0.01, as there.
    """

    def __init__(self, temperature: float = 0.07, lowest: float = 0.01, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})  # a softmax over the whole batch needs it
        self.temperature, self.lowest = temperature, lowest

    def build(self, *shapes):
        start = keras.initializers.Constant(math.log(1 / self.temperature))
        self.log_scale = self.add_weight(name="log_scale", shape=(), initializer=start)

    def call(self, image, text):
        scale = ops.exp(ops.minimum(self.log_scale, math.log(1 / self.lowest)))
        images, texts = collectives.gathered(image), collectives.gathered(text)  # (N, D)
        to_texts, to_images = ops.matmul(image, ops.transpose(texts)), ops.matmul(text, ops.transpose(images))
        return scale * ops.stack([to_texts, to_images], axis=1)

    def compute_output_spec(self, image, text):
        return keras.KerasTensor((image.shape[0], 2, None), dtype="float32")

    def get_config(self):
        return super().get_config() | {"temperature": self.temperature, "lowest": self.lowest}


class _Masked:
    """Keras 3.16 sets `supports_masking` to False for recurrent layers. Each call with a mask then warns,
    although the mask is applied as before."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.supports_masking = True


@keras.saving.register_keras_serializable("mmkeras")
class MaskedLSTM(_Masked, keras.layers.LSTM):
    """Keras's LSTM, for calls with a mask. It trains faster on CPUs with TensorFlow."""

    def inner_loop(self, sequences, initial_state, mask, training=False):
        has_dropout = self.dropout or self.recurrent_dropout
        if not training or has_dropout or self.unroll or not kernels.on_cpus():
            return super().inner_loop(sequences, initial_state, mask, training=training)
        mask = mask[0] if isinstance(mask, Sequence) else mask
        if self.go_backwards:
            sequences, mask = (x if x is None else ops.flip(x, axis=1) for x in (sequences, mask))
        outputs, states = kernels.lstm(sequences, initial_state, mask, self.cell)
        if mask is not None and self.zero_output_for_mask:
            outputs = ops.where(mask[..., None], outputs, 0)
        return outputs[:, -1], outputs, states


@keras.saving.register_keras_serializable("mmkeras")
class MaskedBidirectional(_Masked, keras.layers.Bidirectional):
    """Keras's Bidirectional around a `MaskedLSTM`, for calls with a mask."""
