"""Clips on their way to a model, in tf.data: batches of like length, other speeds, noise."""

import tensorflow as tf

from mmkeras import audio

# Clips share a batch whose lengths lie between two of these: each 15 % longer than the one before, so that
# about half of that is padding.
BUCKETS_SECONDS = tuple(1.15**power for power in range(27))  # 1 s ... 38 s
# Where a graph is compiled for each shape, as on JAX, batches are padded on to one of few: clips to the next of
# BUCKETS_SECONDS, tokens to the next of these.
TOKENS = tuple(2**power for power in range(4, 11))
# Augmentation: speeds as in Ko et al. 2015 ("Audio augmentation for speech recognition"), white noise at
# 5 to 40 dB.
SPEEDS = (0.9, 1.0, 1.1)
NOISE_SNR_DB = (5.0, 40.0)


def bucketed(dataset, sample_rate_hz, batch_size):
    """Batches of clips of like length, padded with silence and PAD to the longest among them."""
    bounds = edges(sample_rate_hz)
    return dataset.bucket_by_sequence_length(
        lambda clip: clip["length"],
        bucket_boundaries=bounds,
        bucket_batch_sizes=[batch_size] * (len(bounds) + 1),
        padding_values={
            name: "" if spec.dtype == tf.string else tf.constant(0, spec.dtype)
            for name, spec in dataset.element_spec.items()
        },
    )


def edges(sample_rate_hz):
    """BUCKETS_SECONDS in samples."""
    return [int(sample_rate_hz * seconds) for seconds in BUCKETS_SECONDS]


def padded_to_one_of(sizes, batch):
    """(B, n) with zeros (silence, PAD) behind, up to the next of the sizes; beyond the last it stays."""
    size = tf.shape(batch)[1]
    larger = tf.boolean_mask(sizes, tf.constant(sizes) >= size)
    return tf.pad(batch, [[0, 0], [0, tf.concat([larger, [size]], axis=0)[0] - size]])


def at_another_speed(clip, draw):
    """The clip at one of SPEEDS, as the number that was drawn says."""

    def changed(sound, draw):
        return audio.resample(sound, SPEEDS[draw % len(SPEEDS)], 1.0)

    sound = tf.numpy_function(changed, [clip["audio"], draw], tf.int16)
    return clip | {"audio": tf.ensure_shape(sound, (None,))}


def noisy(audio, length, draw):
    """Adds white noise to each clip (B, N), at a signal-to-noise ratio of its own."""
    seed = tf.stack([draw, 0])
    rows = tf.shape(audio)[0]
    power = tf.reduce_sum(audio**2, axis=1) / tf.cast(length, tf.float32)  # (B,)
    snr_db = tf.random.stateless_uniform([rows], seed, *NOISE_SNR_DB)
    noise = tf.random.stateless_normal(tf.shape(audio), seed + 1)
    return audio + tf.sqrt(power / 10 ** (snr_db / 10))[:, None] * noise
