"""How unlike its training images an image is."""

import keras
import numpy as np

from mmkeras._utils import terminal


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
        self.threshold = threshold
        self._norms = [x for x in network.layers if isinstance(x, keras.layers.BatchNormalization)]
        self._activations = keras.Model(network.input, [norm.input for norm in self._norms])

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """(B, S, S, 3) RGB 0..255 → scores (B,), near 0 for images like those in training."""
        distances = []
        for norm, activation in zip(self._norms, self._activations(batch), strict=True):
            mean = keras.ops.mean(activation, axis=(1, 2))  # (B, C)
            distances.append((mean - norm.moving_mean) ** 2 / (norm.moving_variance + norm.epsilon))
        return keras.ops.convert_to_numpy(keras.ops.mean(keras.ops.concatenate(distances, axis=1), axis=1))

    def warn(self, batch: np.ndarray, start: int = 0) -> None:
        """Warns of images with a score above the threshold. `start` is the number of the first image."""
        scores = self(batch)
        if (unlike := np.flatnonzero(scores > self.threshold)).size:
            numbers = ", ".join(f"{start + i} (score {scores[i]:.2g})" for i in unlike[:5])
            terminal.warn(
                f"Unlike any training image, so do not rely on the answer: image number {numbers}"
                f"{' ...' if len(unlike) > 5 else ''}. In training 99.9 % score below {self.threshold:.2g}."
            )
