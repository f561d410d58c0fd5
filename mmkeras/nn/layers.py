"""Layers that several tasks share. Keras alone: they run on every backend."""

from collections.abc import Sequence

import keras
from keras import ops

from mmkeras.data.vocabulary import Vocabulary
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
