"""From examples to batches, in tf.data: epochs, and clips of similar length."""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from mmkeras.data.task_data import IN_MEMORY_MB, Split
from mmkeras.media import audio

# A split that is read again each epoch is shuffled within a buffer of this many clips.
SHUFFLE_BUFFER = 1024
# Clips are sorted by length within pools of this many batches, so that a batch has a few percent of padding.
# A pool of LibriSpeech's clips takes 200 MB at 32 clips per batch.
POOL_BATCHES = 16
# JAX compiles a graph for each shape, so batches are padded further, to one of a few lengths: clips to the next
# of SECONDS, each 15 % longer than the one before; tokens to the next of TOKENS.
SECONDS = tuple(1.15**power for power in range(27))  # 1 s ... 38 s
TOKENS = tuple(2**power for power in range(4, 11))
SPEEDS = (0.9, 1.0, 1.1)  # Ko et al. 2015, "Audio augmentation for speech recognition"
NOISE_SNR_DB = (5.0, 40.0)  # from clearly noisy to barely audible
# Random spectra: values at so many points of the mel scale; in dB, from dark to bright, around that, of all
# points alike, and of voiced sounds.
SPECTRUM_POINTS, TILT_DB, SHAPE_DB, LEVEL_DB, VOICED_DB = 7, 10.0, 5.0, 5.0, 2.5


def epochs(
    one_epoch: Callable[[tf.Tensor], tf.data.Dataset],
    to_inputs_and_targets: Callable,
    steps: int,
    seed: int,
    start: int | None = None,
) -> tf.data.Dataset:
    """The batches of one epoch after another, each epoch a function of one random number.

    The number determines the order and all randomness of its epoch. Epochs share no state, so that a resumed
    run has the same batches as an uninterrupted one.

    Args:
        one_epoch: number () int64 → dataset of the epoch's batches.
        to_inputs_and_targets: Applied to each element of `one_epoch`, in parallel.
        steps: int. Batches per epoch.
        seed: int. Seed for the numbers.
        start: int, optional. Epoch `start` and all following ones, without end. None: one epoch, a new one each
            time the dataset is iterated. Defaults to None.
    """

    def batches(number):
        # A fixed seed for this graph; otherwise tf.random.set_seed would change every epoch.
        tf.compat.v1.set_random_seed(1)
        return one_epoch(number)

    def number(epoch):
        return tf.random.stateless_uniform((), (tf.cast(seed, tf.int64), epoch), 0, 2**31, tf.int64)

    if start is None:
        numbers = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).take(1)
    else:
        numbers = tf.data.Dataset.range(start, tf.int64.max).map(number)
    dataset = numbers.flat_map(batches).map(to_inputs_and_targets, num_parallel_calls=tf.data.AUTOTUNE)
    count = steps if start is None else tf.data.INFINITE_CARDINALITY
    return dataset.apply(tf.data.experimental.assert_cardinality(count)).prefetch(tf.data.AUTOTUNE)


def fit_batches(
    one_pass: Callable[[int | tf.Tensor], tf.data.Dataset],
    to_inputs_and_targets: Callable,
    *,
    training: bool,
    steps: int,
    seed: int,
    full_batches: Callable[[tf.data.Dataset], tf.data.Dataset] | None = None,
) -> Callable[[int | None], tf.data.Dataset]:
    """The batches of a split for `fit`.

    Args:
        one_pass: seed → dataset with every example once, in batches unless `full_batches` is given.
        to_inputs_and_targets: (batch, random seed () int64) → what `fit` takes.
        training: bool. Whether each epoch has another order. Further passes then replace examples that turned
            out to be damaged. Otherwise all epochs are one pass with the same seed.
        steps: int. Batches per epoch in training.
        seed: int. Seed for the order and the random numbers.
        full_batches: Examples → batches that are all full, also across passes. Defaults to None.

    Returns:
        A function of `start`, see `epochs`; it is ignored unless `training`.
    """

    def one_epoch(number):
        passes = tf.data.Dataset.range(tf.int64.max)
        dataset = passes.flat_map(lambda index: one_pass(number + index)) if training else one_pass(number)
        if full_batches:
            dataset = full_batches(dataset)
        random_seeds = tf.data.Dataset.random(seed=number + 1)
        return tf.data.Dataset.zip(dataset.take(steps) if training else dataset, random_seeds)

    def batches(start):
        if training:
            return epochs(one_epoch, to_inputs_and_targets, steps, seed, start)
        dataset = one_epoch(seed).map(to_inputs_and_targets, num_parallel_calls=tf.data.AUTOTUNE)
        return dataset.prefetch(tf.data.AUTOTUNE)

    return batches


def shuffled(dataset: tf.data.Dataset, split: Split, seed: int | tf.Tensor) -> tf.data.Dataset:
    """Shuffles within a buffer of as many of the split's images as fit in memory."""
    share = min(1, IN_MEMORY_MB / split.megabytes)
    return dataset.shuffle(max(int(split.count * share), 1), seed=seed)


# --- clips ---


def by_length(clips: tf.data.Dataset, batch_size: int, seed: int | tf.Tensor = 0) -> tf.data.Dataset:
    """Batches of clips of similar length. Every clip is in exactly one batch; the last batch may be smaller.

    Args:
        clips: Dataset of {"audio": (n,), "length": (), ...}.
        batch_size: int. Clips per batch.
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
            gathered = {name: tf.gather(values, rows) for name, values in pool.items()}
            return {n: x.to_tensor() if isinstance(x, tf.RaggedTensor) else x for n, x in gathered.items()}

        return tf.data.Dataset.from_tensor_slices(starts).map(batch)

    return clips.ragged_batch(POOL_BATCHES * batch_size).prefetch(1).flat_map(batches)


def bucket_edges(sample_rate_hz: int) -> list[int]:
    """SECONDS in samples."""
    return [int(sample_rate_hz * seconds) for seconds in SECONDS]


def pad_to_next(sizes: Sequence[int], batch: tf.Tensor) -> tf.Tensor:
    """(B, n) → (B, m), padded with zeros to the next of `sizes`; unchanged if it is longer than all of them."""
    size = tf.shape(batch)[1]
    larger = tf.boolean_mask(sizes, tf.constant(sizes) >= size)
    return tf.pad(batch, [[0, 0], [0, tf.concat([larger, [size]], axis=0)[0] - size]])


def change_speed(clip: dict[str, tf.Tensor], random_seed: tf.Tensor) -> dict[str, tf.Tensor]:
    """The clip at one of SPEEDS, which a random seed () int64 chooses."""

    def changed(samples, random_seed):
        return audio.resample(samples, SPEEDS[random_seed % len(SPEEDS)], 1.0)

    samples = tf.numpy_function(changed, [clip["audio"], random_seed], tf.int16)
    return clip | {"audio": tf.ensure_shape(samples, (None,))}


def add_white_noise(
    samples: tf.Tensor, length: tf.Tensor, snr_db: float | tf.Tensor, seed: tf.Tensor
) -> tf.Tensor:
    """Clips with white noise, at a ratio of the clip's mean power to that of the noise.

    Args:
        samples: (B, n) float32, padded with 0.
        length: (B,) int32. Number of valid samples of each clip.
        snr_db: () or (B,) float. Signal-to-noise ratio in dB.
        seed: (2,) int64. The same seed gives the same noise on every machine.

    Returns:
        (B, n) float32.
    """
    power = tf.reduce_sum(samples**2, axis=1) / tf.cast(length, tf.float32)  # (B,)
    noise = tf.random.stateless_normal(tf.shape(samples), seed)
    return samples + tf.sqrt(power / 10 ** (snr_db / 10))[:, None] * noise


def augment_with_noise(samples: tf.Tensor, length: tf.Tensor, random_seed: tf.Tensor) -> tf.Tensor:
    """Clips (B, n) with white noise, each at a random ratio in NOISE_SNR_DB."""
    seed = tf.stack([random_seed, 0])
    snr_db = tf.random.stateless_uniform([tf.shape(samples)[0]], seed, *NOISE_SNR_DB)
    return add_white_noise(samples, length, snr_db, seed + 1)


def recolor_unvoiced(samples: tf.Tensor, random_seed: tf.Tensor) -> tf.Tensor:
    """Clips in which each unvoiced stretch, such as a fricative, has another random spectrum.

    A synthesizer makes each fricative in one way, at frequencies unlike a person's. Which stretch is unvoiced
    is told by the little power below 1 kHz. The rest of a clip is filtered mildly, in the same way throughout.

    Args:
        samples: (B, n) float32, 16,000 samples a second.
        random_seed: () int64. The same seed gives the same filters.

    Returns:
        (B, n) float32.
    """
    frame, hop, batch, length = 512, 128, tf.shape(samples)[0], tf.shape(samples)[1]
    hz = np.linspace(0, 8000, frame // 2 + 1)
    mel = 2595 * np.log10(1 + hz / 700)
    points = np.linspace(0, mel[-1], SPECTRUM_POINTS)
    to_bins = np.stack([np.interp(mel, points, row) for row in np.eye(SPECTRUM_POINTS)])  # (P, bins)
    to_bins = tf.constant(to_bins, tf.float32)

    def normal(number, scale_db, *shape):
        seed = tf.stack([random_seed, number])
        return scale_db * tf.random.stateless_normal([batch, *shape], seed)

    padded = tf.pad(samples, [[0, 0], [frame, 2 * frame]])
    spectra = tf.signal.stft(padded, frame, hop)  # (B, F, bins) complex
    power = tf.abs(spectra) ** 2
    low = tf.reduce_sum(power * ((hz > 60) & (hz < 1000)), axis=-1) / (tf.reduce_sum(power, axis=-1) + 1e-9)
    unvoiced = tf.clip_by_value((0.5 - low) / 0.3, 0, 1)  # (B, F)
    starts = (unvoiced[:, 1:] > 0.3) & (unvoiced[:, :-1] <= 0.3)
    stretch = tf.pad(tf.cumsum(tf.cast(starts, tf.int32), axis=1), [[0, 0], [1, 0]])  # (B, F), its number
    stretches = tf.reduce_max(stretch) + 1
    tilt = normal(0, TILT_DB, stretches, 1) * tf.linspace(-1.0, 1.0, SPECTRUM_POINTS)  # dark to bright
    shape = tilt + normal(1, SHAPE_DB, stretches, SPECTRUM_POINTS) + normal(2, LEVEL_DB, stretches, 1)
    of_unvoiced = tf.gather(tf.clip_by_value(shape @ to_bins, -30, 25), stretch, batch_dims=1)  # (B, F, bins)
    of_voiced = (normal(3, VOICED_DB, SPECTRUM_POINTS) @ to_bins)[:, None]  # (B, 1, bins)
    share = unvoiced[:, :, None]
    gain = 10 ** ((share * of_unvoiced + (1 - share) * of_voiced) / 20)
    window = tf.signal.inverse_stft_window_fn(hop)
    filtered = tf.signal.inverse_stft(spectra * tf.cast(gain, spectra.dtype), frame, hop, window_fn=window)
    return filtered[:, frame : frame + length]
