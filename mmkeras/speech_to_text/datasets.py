"""Speech to text (chapter 5.2): the data.

    data = mmkeras.speech_to_text.data("toy")               # the toy world
    data = mmkeras.speech_to_text.data("librispeech")       # through TensorFlow Datasets
    data = mmkeras.speech_to_text.data("my/recordings")     # a folder with a table of transcripts

Clips of similar length share a batch, so that little of it is padding.
"""

import dataclasses
import functools
import itertools
import math
import os
from collections.abc import Callable
from numbers import Real

import keras
import numpy as np
import tensorflow as tf

from mmkeras._utils import checks, progress, terminal
from mmkeras.data import pipeline, sources
from mmkeras.data.task_data import SkippedExamples, Split, TaskData, training_split
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
            `data_dir`. LibriSpeech: `train` (splits of TFDS), `data_dir`. LJSpeech and speech_commands:
            `data_dir`. Folder: `table`, `encoding`, `file_column`, `text_column`, `validation_share`,
            `test_share`, see `mmkeras.data.folder.read`.

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

    batches = ClipBatches(
        str(source), vocabulary, batch_size, sample_rate_hz, step_ms, max_seconds, augment, seed, static_shapes
    )
    return TaskData(
        str(source),
        vocabulary,
        batch_size,
        splits,
        batches.for_fit,
        batches.for_evaluate,
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


@dataclasses.dataclass(frozen=True)
class ClipBatches:
    """From the clips of a split to batches. The attributes are arguments of `data`."""

    source: str
    vocabulary: Vocabulary
    batch_size: int
    sample_rate_hz: int
    step_ms: int
    max_seconds: float
    augment: bool
    seed: int
    static_shapes: bool

    def for_evaluate(self, split: Split) -> tf.data.Dataset:
        """Batches of {"audio", "length", "transcript", "sample_rate_hz"}."""

        def measured(clip):
            measures = {"length": tf.size(clip["audio"]), "sample_rate_hz": self.sample_rate_hz}
            return {"audio": clip["audio"], "transcript": clip["transcript"], **measures}

        def finish(batch):
            return batch | {"audio": _to_float(batch["audio"])}

        clips = split.examples().map(measured)
        return pipeline.by_length(clips, self.batch_size).map(finish).prefetch(tf.data.AUTOTUNE)

    def for_fit(self, split: Split, name: str) -> Callable[[int | None], tf.data.Dataset | None]:
        """Batches of ({"audio", "length", "tokens"}, targets), as a function of the first epoch."""
        training = name == "train"
        skipped = SkippedExamples(f"{self.source} {name}")
        clips = split.cached_examples(self._with_tokens)  # outside of the epochs, which share it
        clips = clips.filter(functools.partial(self._is_usable, skipped))
        count = self._count(split, clips, training)
        if not count and training:
            reason = skipped.first or "None has at most max_seconds of audio and a transcript that fits."
            raise ValueError(
                f"Expected usable clips in {skipped.title}. Received: none of {split.count}. {reason}"
            )
        if not count:
            return lambda start: None  # a warning has named each of its clips
        batch_size = self.batch_size
        if self.static_shapes and not training:
            batch_size = min(batch_size, count)
        steps = max(count // batch_size, 1) if self.static_shapes else -(-count // batch_size)
        augment = self.augment and training

        def measured(clip):
            return {"audio": clip["audio"], "length": tf.size(clip["audio"]), "tokens": clip["tokens"]}

        def one_epoch(number):
            def one_round(turn):
                """Every clip once; a further round makes up for clips that turned out to be damaged."""
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
                if self.static_shapes:
                    return dataset
                return pipeline.by_length(dataset, batch_size, number_of_round)

            rounds = tf.data.Dataset.range(tf.int64.max)
            dataset = rounds.flat_map(one_round) if training else one_round(0)
            if self.static_shapes:
                dataset = dataset.padded_batch(batch_size, self._longest(), drop_remainder=True)
            draws = tf.data.Dataset.random(seed=number + 1)
            return tf.data.Dataset.zip(dataset.take(steps) if training else dataset, draws)

        def finish(batch, draw):
            audio = _to_float(batch["audio"])  # (B, n)
            if augment:
                audio = pipeline.augment_with_noise(audio, batch["length"], draw)
            tokens, targets = batch["tokens"][:, :-1], batch["tokens"][:, 1:]  # (B, T)
            if keras.backend.backend() == "jax":
                audio = pipeline.pad_to_next(pipeline.bucket_edges(self.sample_rate_hz), audio)
                tokens, targets = (pipeline.pad_to_next(pipeline.TOKENS, ids) for ids in (tokens, targets))
            return {"audio": audio, "length": batch["length"], "tokens": tokens}, targets

        def batches(start):
            if training:
                return pipeline.epochs(one_epoch, finish, steps, self.seed, start)
            dataset = one_epoch(self.seed).map(finish, num_parallel_calls=tf.data.AUTOTUNE)
            if split.fits_in_memory:  # so they are counted, and Keras does not warn at their end
                dataset = dataset.apply(tf.data.experimental.assert_cardinality(steps))
            return dataset.prefetch(tf.data.AUTOTUNE)

        return batches

    def _with_tokens(self, clip):
        tokens = self.vocabulary.encode_tensor(clip["transcript"][None])[0]  # (T,), <start> and <end> included
        return {"audio": clip["audio"], "tokens": tokens, "name": clip["name"]}

    def _count(self, split, clips, training):
        """The number of usable clips.

        What stays in memory is read and counted now, and so is what must fill a batch of a known size. What is
        read again each epoch is counted by its headers, where the source has them; otherwise all clips are
        expected to be usable, and one look tells whether any is.
        """
        is_counted = split.fits_in_memory or (self.static_shapes and not training)
        count = int(clips.take(-1 if is_counted else 1).reduce(np.int64(0), lambda n, _: n + 1))
        if is_counted or not count:
            return count
        if split.seconds is None:
            return split.count
        tokens = (self.vocabulary.encode(text)[1:-1] for (text,) in split.texts())
        needed = (len(ids) + sum(a == b for a, b in itertools.pairwise(ids)) for ids in tokens)
        samples = (round(seconds * self.sample_rate_hz) for seconds in split.seconds)
        return sum(self._fits(*clip) for clip in zip(samples, needed, strict=True))

    def _is_usable(self, skipped, clip):
        """Whether a clip can be trained on; if not, `skipped` is told why."""

        def report(name, samples, needed):
            name = name.decode()
            seconds = f"{samples / self.sample_rate_hz:.2f} s"
            if samples > self._max_samples:
                skipped(name, f"{name} lasts {seconds}, longer than max_seconds.")
            elif needed == 0:
                skipped(name, f"{name} has an empty transcript.")
            elif samples > 0:
                steps = -(-samples // self._step)
                skipped(name, f"{name} lasts {seconds}, and {needed} tokens do not fit into its {steps} steps.")
            return False

        samples, tokens = tf.size(clip["audio"]), clip["tokens"][1:-1]
        repeats = tf.reduce_sum(tf.cast(tokens[1:] == tokens[:-1], tf.int32))  # CTC needs a blank between them
        needed = tf.size(tokens) + repeats
        return tf.cond(
            self._fits(samples, needed),
            lambda: True,
            lambda: tf.ensure_shape(tf.numpy_function(report, [clip["name"], samples, needed], tf.bool), ()),
        )

    def _fits(self, samples, needed):
        """Whether a clip is short enough and its time steps hold the `needed` tokens."""
        steps = -(-samples // self._step)  # as in the model, where the last step may be partial
        return (samples > 0) & (samples <= self._max_samples) & (needed > 0) & (steps >= needed)

    def _longest(self):
        """Shapes of the longest clip and transcript; the slowest speed makes clips longer."""
        samples = int(self._max_samples / min(pipeline.SPEEDS)) + 1 if self.augment else self._max_samples
        return {"audio": [samples], "length": [], "tokens": [-(-self._max_samples // self._step) + 2]}

    @property
    def _step(self):
        return max(self.step_ms * self.sample_rate_hz // 1000, 1)

    @property
    def _max_samples(self):
        return int(self.max_seconds * self.sample_rate_hz)


def _to_float(audio):
    return tf.cast(audio, tf.float32) / 2**15
