"""Log-mel spectrograms: `LogMel`, and `SpecAugment`, which masks parts of them in training."""

import keras
import numpy as np
from keras import ops

from mmkeras.distribute import collectives

# Added to the power of each band, after the clip is scaled to variance 1. It acts as noise at about -40 dB, the
# noise level of a good recording, so that synthetic clips without noise resemble recorded ones.
_FLOOR = 0.1


@keras.saving.register_keras_serializable("mmkeras")
class LogMel(keras.layers.Layer):
    """Waveform → log-mel spectrogram, each band with mean 0 and variance 1 over the valid frames of its clip.

    Frame f covers the samples from f * hop on. Samples beyond the length count as silence, and a frame is valid
    if it starts before the length. So padding does not change the valid frames of a clip.

    Inputs:  audio (B, n) float in -1..1 · length (B,) int, the valid samples of each clip
    Outputs: log-mel (B, F, M) float32, 0 on padding · mask (B, F) bool, the valid frames; F = 1 + n // hop

    `longest_seconds` is the duration of the longest clip in training, saved with the weights.

    Args:
        sample_rate_hz: int. Sample rate of the audio. Defaults to 16,000.
        frame_ms: int. Length of a frame in ms. Defaults to 25.
        hop_ms: int. Time from one frame to the next in ms. Defaults to 10.
        bands: int. Number M of bands of the mel scale (HTK's), from 20 Hz to half the sample rate. Defaults to
            80.
    """

    def __init__(self, sample_rate_hz=16_000, frame_ms=25, hop_ms=10, bands=80, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})  # float16 has no room for powers
        self.sample_rate_hz, self.frame_ms, self.hop_ms, self.bands = sample_rate_hz, frame_ms, hop_ms, bands
        self.frame = sample_rate_hz * frame_ms // 1000  # samples
        self.hop = sample_rate_hz * hop_ms // 1000
        if not 0 < self.hop <= self.frame:
            raise ValueError(f"Expected 0 < hop_ms <= frame_ms. Received: hop_ms={hop_ms}, frame_ms={frame_ms}")
        self.fft = 2 ** (self.frame - 1).bit_length()
        self.mel = mel_matrix(self.fft // 2 + 1, bands, sample_rate_hz)
        self.longest = self.add_weight((), initializer="zeros", trainable=False, name="longest")

    @property
    def longest_seconds(self) -> float:
        """Duration of the longest clip in training; 0 before training."""
        return self.longest.numpy().item()

    def call(self, audio, length, training=None):
        length = ops.cast(length, "int32")[:, None]  # (B, 1)
        if training:
            longest = ops.cast(ops.max(length, initial=0), "float32") / self.sample_rate_hz
            self.longest.assign(ops.maximum(self.longest, collectives.largest(longest)))
        audio = ops.where(ops.arange(ops.shape(audio)[1])[None] < length, audio, 0.0)  # (B, n)
        power = ops.sum(ops.square(audio), axis=1, keepdims=True) / ops.cast(ops.maximum(length, 1), "float32")
        audio = audio / ops.sqrt(power + 1e-10)  # power: (B, 1)
        audio = ops.pad(audio, [[0, 0], [0, self.fft]])  # (B, n + fft)
        real, imaginary = ops.stft(audio, self.frame, self.hop, self.fft, center=False)
        power = ops.square(real) + ops.square(imaginary)  # (B, F, fft/2 + 1)
        x = ops.log(ops.matmul(power, ops.convert_to_tensor(self.mel)) + _FLOOR)  # (B, F, M)

        mask = ops.arange(ops.shape(x)[1])[None] * self.hop < length  # (B, F)
        weight = ops.cast(mask, x.dtype)[..., None]  # (B, F, 1)
        frames = ops.maximum(ops.sum(weight, axis=1, keepdims=True), 1.0)  # (B, 1, 1)
        mean = ops.sum(x * weight, axis=1, keepdims=True) / frames  # (B, 1, M)
        x = (x - mean) * weight
        variance = ops.sum(ops.square(x), axis=1, keepdims=True) / frames  # (B, 1, M)
        return x / ops.sqrt(variance + 1e-3), mask

    def compute_output_spec(self, audio, length, training=None):
        batch, samples = audio.shape
        frames = None if samples is None else 1 + samples // self.hop
        return (
            keras.KerasTensor((batch, frames, self.bands), dtype="float32"),
            keras.KerasTensor((batch, frames), dtype="bool"),
        )

    def get_config(self):
        names = ("sample_rate_hz", "frame_ms", "hop_ms", "bands")
        return super().get_config() | {name: getattr(self, name) for name in names}


def mel_matrix(bins: int, bands: int, sample_rate_hz: float) -> np.ndarray:
    """(bins, bands) float32: triangular filters of equal width in mel."""

    def mel(hz):
        return 2595 * np.log10(1 + np.asarray(hz) / 700)  # O'Shaughnessy 1987, as in HTK

    edges = np.linspace(mel(20), mel(sample_rate_hz / 2), bands + 2)
    at = mel(np.linspace(0, sample_rate_hz / 2, bins))[:, None]
    rising = (at - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - at) / (edges[2:] - edges[1:-1])
    triangles = np.maximum(np.minimum(rising, falling), 0)
    # a low band can be narrower than the distance between two bins: use the nearest bin
    for band in np.flatnonzero(triangles.sum(axis=0) == 0):
        triangles[np.argmin(np.abs(at[:, 0] - edges[band + 1])), band] = 1
    return triangles.astype(np.float32)


@keras.saving.register_keras_serializable("mmkeras")
class SpecAugment(keras.layers.Layer):
    """Masks bands and time in training (Park et al. 2019, arXiv:1904.08779), without their time warping.

    (B, F, M) → (B, F, M). Masked values are 0, the mean of a normalized spectrogram.

    Args:
        band_masks: int. Number of masks of adjacent bands. Defaults to 2.
        band_share: float. Largest width of such a mask, relative to all bands. Defaults to 0.2.
        time_masks: int. Number of masks of adjacent frames. Defaults to 2.
        time_share: float. Largest width of such a mask, relative to the clip. Defaults to 0.08.
    """

    def __init__(self, band_masks=2, band_share=0.2, time_masks=2, time_share=0.08, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.band_masks, self.band_share = band_masks, band_share
        self.time_masks, self.time_share = time_masks, time_share
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, x, training=None):
        if not training:
            return x
        batch, frames, bands = ops.shape(x)
        for _ in range(self.band_masks):
            x = x * self._mask(batch, bands, self.band_share, x.dtype)[:, None, :]
        for _ in range(self.time_masks):
            x = x * self._mask(batch, frames, self.time_share, x.dtype)[:, :, None]
        return x

    def _mask(self, batch, size, share, dtype):
        """(B, size): 0 on one random interval of each row, 1 elsewhere."""
        uniform = keras.random.uniform((2, batch, 1), dtype="float32", seed=self.seed_generator)
        size_f = ops.cast(size, "float32")
        width = uniform[0] * share * size_f  # (B, 1)
        start = uniform[1] * (size_f - width)  # (B, 1)
        index = ops.cast(ops.arange(size), "float32")[None]  # (1, size)
        return ops.cast(ops.logical_or(index < start, index >= start + width), dtype)

    def compute_output_spec(self, x, training=None):
        return keras.KerasTensor(x.shape, dtype=x.dtype)

    def get_config(self):
        names = ("band_masks", "band_share", "time_masks", "time_share")
        return super().get_config() | {name: getattr(self, name) for name in names}
