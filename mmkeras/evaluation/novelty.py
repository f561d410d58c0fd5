"""A score of how much an image differs from the training images."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from mmkeras._utils import terminal
from mmkeras.distribute import collectives


class Novelty:
    """Scores images against the statistics that batch normalization keeps of the training images.

    Averaged over an image, the activations in a convolutional network stay near their mean over the training
    images, if the image is like them. The score is the squared distance from that mean in units of the
    variance, averaged over all channels of all layers with batch normalization.

    Args:
        network: keras.Model. Images (B, S, S, 3) → anything, with `BatchNormalization` layers.
        threshold: float. Score above which `warn` warns. Defaults to infinity.
    """

    def __init__(self, network: keras.Model, threshold: float = float("inf")):
        self.network, self.threshold = network, threshold
        norms = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
        if not norms:
            raise ValueError(
                f"Expected network to have BatchNormalization layers, whose statistics show which images are "
                f"new. Received: network={network.name!r} without any"
            )

        def scores(inputs):
            distances = [
                (ops.mean(x, axis=(1, 2)) - norm.moving_mean) ** 2 / (norm.moving_variance + norm.epsilon)
                for x, norm in zip(inputs, norms, strict=True)
            ]  # (B, C) each
            return ops.mean(ops.concatenate(distances, axis=1), axis=1)

        # One layer of the network's graph: names of single operations could be those of its own layers.
        layer = keras.layers.Lambda(scores, name="novelty_scores")
        self.scores = layer([norm.input for norm in norms])  # (B,)
        self._model = keras.Model(network.input, self.scores)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """(B, S, S, 3) RGB 0..255 → scores (B,), near 0 for images like those in training."""
        return collectives.predict_batches(self._model, batch)

    def with_scores(self, model: keras.Model, layer: str) -> keras.Model:
        """A model with the scores (B,) as a further output, so that the network runs once for both.

        Args:
            model: keras.Model. Image → outputs. A layer applies the network to the image first.
            layer: str. Name of this layer.
        """
        image = keras.Input(self.network.input_shape[1:], name=model.inputs[0].name)
        features, scores = keras.Model(self.network.input, [self.network.output, self.scores])(image)
        outputs = keras.Model(model.get_layer(layer).output, model.outputs)(features)
        return keras.Model(image, [*outputs, scores])

    def warn(self, scores: np.ndarray, positions: Sequence[int]) -> None:
        """Warns of images with a score above the threshold.

        Args:
            scores: (B,). From this object, or from a model that `with_scores` returns.
            positions: B ints. The numbers that the warning gives the images.
        """
        if (unlike := np.flatnonzero(scores > self.threshold)).size:
            numbers = ", ".join(f"{positions[i]} (score {scores[i]:.2g})" for i in unlike[:5])
            terminal.warn(
                f"Unlike any training image, so do not rely on the answer: image number {numbers}"
                f"{' ...' if len(unlike) > 5 else ''}. In training 99.9 % score below {self.threshold:.2g}."
            )
