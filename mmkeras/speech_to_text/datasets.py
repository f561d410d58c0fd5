"""Speech to text (chapter 5.2): the data.

    data = mmkeras.speech_to_text.data("toy")               # the toy world
    data = mmkeras.speech_to_text.data("librispeech")       # through TensorFlow Datasets
    data = mmkeras.speech_to_text.data("my/recordings")     # a folder with a table of transcripts

Clips of similar length share a batch, so that little of it is padding.
"""

import dataclasses
import itertools
import math
import os
from numbers import Real

import keras
import numpy as np
import tensorflow as tf

from mmkeras._utils import checks, progress, terminal
from mmkeras.data import pipeline, sources
from mmkeras.data.task_data import SkippedExamples, TaskData, training_split
from mmkeras.data.vocabulary import SPECIAL, UNITS, Vocabulary

# Datasets whose transcripts take an hour to count, and the characters of English, which they are made of.
SLOW_TEXTS = ("librispeech", "ljspeech", "speech_commands")
ENGLISH = tuple(" 'abcdefghijklmnopqrstuvwxyz")


def data(
    source: str | os.PathLike = "toy",
    *,
    language: str = "en",
    batch_size: int = 32,
    unit: str | None = None,
    vocabulary: Vocabulary | None = None,
    min_count: int = 1,
    max_size: int = 10_000,
    sample_rate_hz: int = 16_000,
    step_ms: int = 40,
    max_seconds: float = 35.0,
    augment: bool = True,
    seed: int = 0,
    static_shapes: bool = False,
    **options,
) -> TaskData:
    """Clips and transcripts, ready for `model.fit`. A clip that cannot be used is left out, and a warning names
    it.

    Args:
        source: str or path. `"toy"`; `"librispeech"` (61 GB are downloaded on first use), `"ljspeech"` (2.75
            GB), `"speech_commands"`; or a folder of clips (wav, flac, ogg, mp3, at any sample rate) with a
            table of transcripts (see `mmkeras.data.tables`). Defaults to `"toy"`.
        language: str. `"en"` or `"zh"`. Defaults to `"en"`.
        batch_size: int. Clips per step, over all devices. Defaults to 32.
        unit: str. Unit of the tokens, `"word"` or `"character"`. Defaults to words for the toy world in English
            and for speech_commands, otherwise to characters.
        vocabulary: `Vocabulary`. Defaults to the words of the training transcripts; for the characters of
            LibriSpeech and LJSpeech to the English letters. What it lacks becomes `<unknown>`; a warning names
            the letters of a folder or the toy world. If given, a source without training transcripts can be
            evaluated.
        min_count: int. Tokens seen less often become `<unknown>`. Defaults to 1.
        max_size: int. Size of the vocabulary, special tokens included. Defaults to 10,000.
        sample_rate_hz: int. Sample rate that clips are resampled to. Defaults to 16,000.
        step_ms: int. Duration of a time step of the model, `hop_ms * subsampling`. A transcript with more
            tokens than its clip has steps cannot be what the clip says, and the clip is left out. Defaults to
            40.
        max_seconds: float. Longer clips are left out of training. Defaults to 35.
        augment: bool. Whether to train on other speeds and with white noise (5 to 40 dB). Defaults to True. The
            model has SpecAugment of its own.
        seed: int. Seed for the order and for augmentation. Defaults to 0.
        static_shapes: bool. Whether every dimension of `train` and `validation` is known, as a TPU needs it.
            All clips are then padded to `max_seconds` (with `augment` to what the slowest speed takes) and all
            transcripts to what fits there, so choose it as short as possible. Batches are all full, and an
            epoch leaves out the clips that fill none. Defaults to False.
        **options: Of the source. Toy world: `snr_db` (signal-to-noise ratio in dB, 20; None: no noise),
        `data_dir`.
            LibriSpeech: `train` (splits of TFDS), `data_dir`. LJSpeech, speech_commands: `data_dir`. Folder:
            `table`, `encoding`, `file_column`, `text_column`, `validation_share`, `test_share`, see
            `mmkeras.data.folder.read`.

    Returns:
        `TaskData` with these batches:

        - `train`, `validation`: ({"audio", "length", "tokens"}, targets); audio (B, n) float32 in -1..1, length
          (B,) int32, tokens and targets (B, T) int32. Every epoch holds every usable clip exactly once, in
          batches of clips of similar length, the last of which may be smaller. If a source is too large for
          memory and a clip turns out to be damaged when it is read, a clip of the next epoch takes its place.
          None if no clip can be used.
        - `test`, `test_unseen`: {"audio", "length", "transcript", "sample_rate_hz"}; transcript (B,) string,
          sample_rate_hz (B,) int32.

    Raises:
        ValueError: if an argument is invalid, the table is malformed, or no clip can be used for training.
        FileNotFoundError: if none of the clips in the table exists.
        OSError: if eSpeak NG, the voice of the toy world, is missing.
    """
    sources.check_options(language, vocabulary)
    checks.ints(1, batch_size=batch_size, sample_rate_hz=sample_rate_hz, step_ms=step_ms)
    checks.ints(1, min_count=min_count)
    checks.ints(len(SPECIAL) + 1, max_size=max_size)
    checks.ints(0, seed=seed)
    if not isinstance(max_seconds, Real) or not 0 < max_seconds < math.inf:
        raise ValueError(f"Expected max_seconds to be a number above 0. Received: max_seconds={max_seconds!r}")
    if unit not in (None, *UNITS):
        raise ValueError(f"Expected unit to be one of {UNITS}, or None. Received: unit={unit!r}")
    if vocabulary is not None:
        unit = vocabulary.unit
    elif unit is None:
        unit = "word" if source == "speech_commands" or (source == "toy" and language == "en") else "character"
    splits = sources.read_clips(source, language, sample_rate_hz, **options)
    if source == "toy" and augment:  # augmentation adds its own noise
        clean = sources.read_clips(source, language, sample_rate_hz, **options | {"snr_db": None})
        splits["train"] = clean["train"]
    if vocabulary is None and unit == "character" and source in ("librispeech", "ljspeech"):
        vocabulary = Vocabulary(ENGLISH, unit)
    elif vocabulary is None:
        train = training_split(splits)
        bar = progress.bar(train.texts(), "transcripts", train.count)
        texts = [text for texts_of_one in bar for text in texts_of_one]
        vocabulary = Vocabulary.count(texts, unit, min_count=min_count, max_size=max_size)
        splits["train"] = dataclasses.replace(train, count=len(texts))  # speech_commands skips some
    if unit == "character" and source not in SLOW_TEXTS:
        _name_unknown_letters(vocabulary, splits)

    def for_fit(split, name):
        return _batches_for_fit(
            split,
            SkippedExamples(f"{source} {name}"),
            training=name == "train",
            vocabulary=vocabulary,
            batch_size=batch_size,
            sample_rate_hz=sample_rate_hz,
            step=max(step_ms * sample_rate_hz // 1000, 1),
            max_samples=int(max_seconds * sample_rate_hz),
            augment=augment,
            seed=seed,
            static_shapes=static_shapes,
        )

    def for_evaluate(split):
        def measured(clip):
            return {
                "audio": clip["audio"],
                "length": tf.size(clip["audio"]),
                "transcript": clip["transcript"],
                "sample_rate_hz": sample_rate_hz,
            }

        def finish(batch):
            return batch | {"audio": tf.cast(batch["audio"], tf.float32) / 2**15}

        clips = split.examples().map(measured)
        return pipeline.by_length(clips, batch_size).map(finish).prefetch(tf.data.AUTOTUNE)

    return TaskData(
        str(source),
        vocabulary,
        batch_size,
        splits,
        for_fit,
        for_evaluate,
        sample_rate_hz=sample_rate_hz,
        step_ms=step_ms,
    )


def _name_unknown_letters(vocabulary, splits):
    texts = [text for split in splits.values() for texts_of_one in split.texts() for text in texts_of_one]
    lacking = [set(vocabulary.split(text)) - vocabulary.ids.keys() for text in texts]
    if letters := sorted(set().union(*lacking)):
        terminal.warn(
            f"The vocabulary lacks {len(letters)} letters, which become <unknown> and are never written, in "
            f"{sum(map(bool, lacking))} of {len(texts)} transcripts: {' '.join(map(repr, letters[:20]))}"
            f"{' ...' if len(letters) > 20 else ''}"
        )


# --- from examples to batches ---


def _batches_for_fit(
    split,
    skipped,
    *,
    training,
    vocabulary,
    batch_size,
    sample_rate_hz,
    step,
    max_samples,
    augment,
    seed,
    static_shapes,
):
    longest = (
        int(max_samples / min(pipeline.SPEEDS)) + 1 if augment else max_samples
    )  # one shape for both splits
    augment = augment and training

    def with_tokens(clip):
        tokens = vocabulary.encode_tensor(clip["transcript"][None])[0]  # (T,), <start> and <end> included
        return {"audio": clip["audio"], "tokens": tokens, "name": clip["name"]}

    clips = split.cached_examples()  # outside of the epochs, which share it
    clips = clips.map(with_tokens, num_parallel_calls=tf.data.AUTOTUNE)
    clips = clips.filter(_usable(skipped, step, max_samples, sample_rate_hz))
    # What stays in memory is read and counted now, and so is what must fill a batch of a known size. What is
    # read again each epoch is counted by its headers, where the source has them; otherwise all clips are
    # expected to be usable, and one look tells whether any is.
    is_counted = split.fits_in_memory or (static_shapes and not training)
    count = int(clips.take(-1 if is_counted else 1).reduce(np.int64(0), lambda n, _: n + 1))
    if not count and training:
        reason = skipped.first or "None holds audio of at most max_seconds and a transcript that fits there."
        raise ValueError(f"Expected usable clips in {skipped.title}. Received: none of {split.count}. {reason}")
    if not count:
        return lambda start: None  # a warning has named each of its clips
    if not is_counted:
        count = (
            split.count
            if split.seconds is None
            else _count_by_header(split, vocabulary, step, max_samples, sample_rate_hz)
        )
    if static_shapes and not training:
        batch_size = min(batch_size, count)
    steps = max(count // batch_size, 1) if static_shapes else -(-count // batch_size)

    def measured(clip):
        return {"audio": clip["audio"], "length": tf.size(clip["audio"]), "tokens": clip["tokens"]}

    def one_epoch(number):
        def one_round(turn):
            """Every clip once; a further round fills up an epoch in which clips turned out to be damaged."""
            number_of_round = number + turn
            dataset = clips
            if training:
                dataset = dataset.shuffle(min(count, pipeline.SHUFFLE_BUFFER), seed=number_of_round)
            if augment:
                speeds = tf.data.Dataset.random(seed=number_of_round)
                dataset = tf.data.Dataset.zip(dataset, speeds).map(
                    pipeline.change_speed, num_parallel_calls=tf.data.AUTOTUNE
                )
            dataset = dataset.map(measured)
            return dataset if static_shapes else pipeline.by_length(dataset, batch_size, number_of_round)

        rounds = tf.data.Dataset.range(tf.int64.max)
        dataset = rounds.flat_map(one_round) if training else one_round(0)
        if static_shapes:
            shapes = {"audio": [longest], "length": [], "tokens": [-(-max_samples // step) + 2]}
            dataset = dataset.padded_batch(batch_size, shapes, drop_remainder=True)
        draws = tf.data.Dataset.random(seed=number + 1)
        return tf.data.Dataset.zip(dataset.take(steps) if training else dataset, draws)

    def finish(batch, draw):
        audio = tf.cast(batch["audio"], tf.float32) / 2**15  # (B, n)
        if augment:
            audio = pipeline.augment_with_noise(audio, batch["length"], draw)
        tokens, targets = batch["tokens"][:, :-1], batch["tokens"][:, 1:]  # (B, T)
        if keras.backend.backend() == "jax":
            audio = pipeline.pad_to_next(pipeline.bucket_edges(sample_rate_hz), audio)
            tokens, targets = (pipeline.pad_to_next(pipeline.TOKENS, ids) for ids in (tokens, targets))
        return {"audio": audio, "length": batch["length"], "tokens": tokens}, targets

    def batches(start):
        if training:
            return pipeline.epochs(one_epoch, finish, steps, seed, start)
        return one_epoch(seed).map(finish, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    return batches


def _count_by_header(split, vocabulary, step, max_samples, sample_rate_hz):
    tokens = (vocabulary.encode(text)[1:-1] for (text,) in split.texts())
    needed = (len(ids) + sum(a == b for a, b in itertools.pairwise(ids)) for ids in tokens)
    samples = (round(seconds * sample_rate_hz) for seconds in split.seconds)
    return sum(_fits(*clip, step, max_samples) for clip in zip(samples, needed, strict=True))


def _fits(samples, needed, step, max_samples):
    """Whether a clip is short enough and its time steps hold the `needed` tokens."""
    steps = -(-samples // step)  # as in the model, where the last step may be partial
    return (samples > 0) & (samples <= max_samples) & (needed > 0) & (steps >= needed)


def _usable(skipped, step, max_samples, sample_rate_hz):
    """A predicate that tells whether a clip can be trained on, and tells `skipped` if not."""

    def report(name, samples, needed):
        name = name.decode()
        seconds = f"{samples / sample_rate_hz:.2f} s"
        if samples > max_samples:
            skipped(name, f"{name} lasts {seconds}, longer than max_seconds.")
        elif needed == 0:
            skipped(name, f"{name} has an empty transcript.")
        elif samples > 0:
            steps = -(-samples // step)
            skipped(name, f"{name} lasts {seconds}, and {needed} tokens do not fit into its {steps} steps.")
        return False

    def usable(clip):
        samples, tokens = tf.size(clip["audio"]), clip["tokens"][1:-1]
        repeats = tf.reduce_sum(tf.cast(tokens[1:] == tokens[:-1], tf.int32))  # CTC needs a blank between them
        needed = tf.size(tokens) + repeats
        return tf.cond(
            _fits(samples, needed, step, max_samples),
            lambda: True,
            lambda: tf.ensure_shape(tf.numpy_function(report, [clip["name"], samples, needed], tf.bool), ()),
        )

    return usable
