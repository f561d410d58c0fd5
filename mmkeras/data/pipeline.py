"""From examples to batches, in tf.data: epochs, and clips of similar length."""

from collections.abc import Callable, Sequence

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
