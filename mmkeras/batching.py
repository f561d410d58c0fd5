"""Clips on their way to a model, in tf.data: batches of like length, other speeds, noise."""

import tensorflow as tf

from mmkeras import audio

# Clips are sorted by length within pools of so many batches, so that a batch holds little padding: of a few
# percent, and a pool of LibriSpeech's clips takes 200 MB at 32 clips a batch.
POOL_BATCHES = 16
# Where a graph is compiled for each shape, as on JAX, batches are padded further, to one of few lengths: clips
# to the next of SECONDS, each 15 % longer than the one before; tokens to the next of TOKENS.
SECONDS = tuple(1.15**power for power in range(27))  # 1 s ... 38 s
TOKENS = tuple(2**power for power in range(4, 11))
# Augmentation: speeds as in Ko et al. 2015 ("Audio augmentation for speech recognition"), white noise at
# 5 to 40 dB.
SPEEDS = (0.9, 1.0, 1.1)
NOISE_SNR_DB = (5.0, 40.0)


def by_length(clips, batch_size, seed=0):
    """Batches of clips of similar length. Every clip is in exactly one batch; the last batch may be smaller.

    Args:
        clips: dataset of {"audio": (n,), "length": (), ...}.
        batch_size: int. Clips a batch.
        seed: int or () int64 tensor. Seed for the order of the batches within a pool. Defaults to 0.

    Returns:
        A dataset of the same dictionaries with a leading batch axis, each sequence padded with 0 (silence, PAD)
        to the longest of its batch.
    """

    def batches(pool):
        order = tf.argsort(pool["length"])  # (P,)
        starts = tf.range(0, tf.size(order), batch_size)
        starts = tf.random.experimental.stateless_shuffle(starts, tf.stack([tf.cast(seed, tf.int64), 0]))

        def batch(start):
            rows = order[start : start + batch_size]
            found = {name: tf.gather(values, rows) for name, values in pool.items()}
            return {n: x.to_tensor() if isinstance(x, tf.RaggedTensor) else x for n, x in found.items()}

        return tf.data.Dataset.from_tensor_slices(starts).map(batch)

    return clips.ragged_batch(POOL_BATCHES * batch_size).prefetch(1).flat_map(batches)


def edges(sample_rate_hz):
    """SECONDS in samples."""
    return [int(sample_rate_hz * seconds) for seconds in SECONDS]


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
