"""Speech to text (chapter 5.2): the data.

    data = mmkeras.speech_to_text.data("toy")               # the toy world speaks
    data = mmkeras.speech_to_text.data("librispeech")       # through TensorFlow Datasets
    data = mmkeras.speech_to_text.data("my/recordings")     # a folder with a table of transcripts

Clips of like length share a batch, so little of it is padding.
"""

import dataclasses
import itertools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Real

import keras
import numpy as np
import tensorflow as tf

from mmkeras import batching, caller, checks, progress, sources
from mmkeras.sources import speech
from mmkeras.vocabulary import SPECIAL, UNITS, Vocabulary

# A training set this small is kept decoded in memory; a larger one is read again each epoch, and shuffled
# within a buffer of so many clips.
IN_MEMORY_MB = 512
SHUFFLE_BUFFER = 1024
# The datasets whose texts would take an hour to count, and the letters of English, for these.
SLOW_TEXTS = ("librispeech", "ljspeech", "speech_commands")
ENGLISH = tuple(" 'abcdefghijklmnopqrstuvwxyz")


@dataclass(frozen=True)
class TaskData:
    """Datasets for `fit` and for `evaluate`, and the vocabulary of the training transcripts.

    - `train`, `validation`: batches of ({"audio", "length", "tokens"}, targets) for `model.fit`; audio
      (B, samples) float32 in -1..1, length (B,) int32, tokens and targets (B, T) int32.
    - `test` and, in the toy world, `test_unseen`: batches of {"audio", "length", "transcript",
      "sample_rate_hz"} for `mmkeras.speech_to_text.evaluate`; transcript (B,) string, sample_rate_hz (B,)
      int32.

    An epoch of `train` holds every usable clip exactly once, in batches of clips of similar length, the last of
    which may be smaller. Only where a source is too large for memory, and a clip turns out to be damaged when
    it is read, does a clip of the next epoch stand in for it. A split that the source lacks, or of which no
    clip can be used for `fit`, is None.
    """

    train: tf.data.Dataset | None
    validation: tf.data.Dataset | None
    test: tf.data.Dataset | None
    test_unseen: tf.data.Dataset | None
    vocabulary: Vocabulary
    source: str
    sample_rate_hz: int
    step_ms: int
    batch_size: int
    _training: Callable[[int | None], tf.data.Dataset] = dataclasses.field(repr=False)

    def train_from(self, epoch: int) -> tf.data.Dataset:
        """The batches of epoch `epoch` (from 0) and of those that follow it, without end.

        An epoch's order depends on the seed and its number alone, so a run that was broken off can go on.
        """
        return self._training(epoch)


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
    service: str | None = None,
    **options,
) -> TaskData:
    """Clips and transcripts, ready for `model.fit`.

    Args:
        source: `"toy"`; `"librispeech"` (61 GB are fetched on first use), `"ljspeech"` (2.75 GB),
            `"speech_commands"`; or a folder of clips (wav, flac, ogg, mp3, at any rate) with a table
            of transcripts, as in LJSpeech's `metadata.csv` and `wavs/` (see `mmkeras.tables`).
        language: `"en"` or `"zh"`.
        batch_size: clips a step, over all devices together.
        unit: of the tokens, `"word"` or `"character"`. None: words for the toy world in English and for
            speech_commands, else characters.
        vocabulary: None: counted from the training transcripts; for characters of LibriSpeech and LJSpeech
            the English letters. What it lacks becomes `<unknown>`; a warning names the letters of a folder or
            the toy world, whose texts are at hand. Where one is given, a source without training transcripts
            will do for `evaluate`.
        min_count: tokens seen less often become `<unknown>`.
        max_size: of the vocabulary, special tokens included.
        sample_rate_hz: that clips are brought to, the model's.
        step_ms: how long a step of the model is. A transcript with more tokens than its clip has steps is
            not what is said there: the clip is left out, and named.
        max_seconds: longer clips are left out of training and named.
        augment: trains on other speeds and with noise (5 to 40 dB). The model has SpecAugment of its own.
        seed: of the order and of augmentation.
        static_shapes: every dimension of `train` and `validation` is known, as a TPU wants it: all clips are
            padded to `max_seconds` (at other speeds to what the slowest takes) and all transcripts to what fits
            there, so choose that as short as may be; batches are full ones alone, and the validation clips that
            fill none are left out. `test` stays as it is.
        service: `"grpc://host:port"` of a tf.data service, whose workers then make the training batches, see
            `mmkeras.sources.epochs`; it takes `augment=False`. They must reach the dataset's files under the
            same path, and do not name what they leave out.
        options: of the source. Toy world: `snr_db` (signal-to-noise ratio, 20; None: no noise), `data_dir`.
            LibriSpeech: `train` (which TFDS splits), `data_dir`. LJSpeech, speech_commands: `data_dir`.
            Folder: `table` (its name), `encoding` (of the table), `validation_share` and `test_share` (0.1
            each, where the table has no `split` column).

    A clip that cannot be used is left out, and a warning names it and counts.

    Raises:
        ValueError: an argument or the table is not as it should be, or no clip can be used for training.
        FileNotFoundError: of the clips that the table names none is there.
        OSError: the toy world cannot speak, for want of eSpeak NG; or nobody answers at the service's address.
    """
    sources.check_language(language)
    sources.check_service(service)
    sources.check_vocabulary(vocabulary)
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
    splits = speech.read(source, language, sample_rate_hz, **options)
    if source == "toy" and augment:  # which brings noise of its own
        splits["train"] = speech.read(source, language, sample_rate_hz, **options | {"snr_db": None})["train"]
    if vocabulary is None and unit == "character" and source in ("librispeech", "ljspeech"):
        vocabulary = Vocabulary(ENGLISH, unit)
    elif vocabulary is None:
        train = sources.training_split(splits)
        per_clip = progress.bar(train.texts(), "transcripts", train.count)
        texts = [text for texts_of_one in per_clip for text in texts_of_one]
        vocabulary = Vocabulary.count(texts, unit, min_count=min_count, max_size=max_size)
        splits["train"] = replace(train, count=len(texts))  # now known for certain
    if unit == "character" and source not in SLOW_TEXTS:
        _name_unknown_letters(vocabulary, splits)
    common = {"batch_size": batch_size, "sample_rate_hz": sample_rate_hz}

    def for_fit(name):
        return _for_fit(
            splits[name],
            speech.LeftOut(f"{source} {name}"),
            training=name == "train",
            vocabulary=vocabulary,
            augment=augment,
            step=max(step_ms * sample_rate_hz // 1000, 1),
            most=int(max_seconds * sample_rate_hz),
            seed=seed,
            static_shapes=static_shapes,
            service=service,
            **common,
        )

    return TaskData(
        **sources.assemble(splits, for_fit, lambda split: _for_evaluate(split, **common)),
        vocabulary=vocabulary,
        source=str(source),
        sample_rate_hz=sample_rate_hz,
        step_ms=step_ms,
        batch_size=batch_size,
    )


def _name_unknown_letters(vocabulary, splits):
    texts = [text for split in splits.values() for texts_of_one in split.texts() for text in texts_of_one]
    lacking = [set(vocabulary.split(text)) - vocabulary.ids.keys() for text in texts]
    if letters := sorted(set().union(*lacking)):
        caller.warn(
            f"The vocabulary lacks {len(letters)} letters, which become <unknown> and are never written, in "
            f"{sum(map(bool, lacking))} of {len(texts)} transcripts: {' '.join(map(repr, letters[:20]))}"
            f"{' ...' if len(letters) > 20 else ''}"
        )


# --- from examples to batches ---


def _for_fit(
    split,
    left_out,
    *,
    training,
    augment,
    vocabulary,
    batch_size,
    sample_rate_hz,
    step,
    most,
    seed,
    static_shapes,
    service,
):
    longest = int(most / min(batching.SPEEDS)) + 1 if augment else most  # of both splits: one graph for both
    augment, service = augment and training, service if training else None
    in_memory = split.megabytes is not None and split.megabytes <= IN_MEMORY_MB
    clips = split.examples()
    if in_memory:
        clips = clips.cache()  # outside of the epochs, which share it

    def with_tokens(clip):
        tokens = vocabulary.encode_tensor(clip["transcript"][None])[0]  # (T,), <start> and <end> included
        return {"audio": clip["audio"], "tokens": tokens, "name": clip["name"]}

    clips = clips.map(with_tokens, num_parallel_calls=tf.data.AUTOTUNE)
    clips = clips.filter(_usable(None if service else left_out, step, most, sample_rate_hz))
    # What stays in memory is read and counted now, and so is what must fill a batch of a known size. What is
    # read again each epoch is counted by its headers, where the source has them; otherwise all clips are
    # expected to be usable, and one look tells whether any is.
    counted = in_memory or (static_shapes and not training)
    found = int(clips.take(-1 if counted else 1).reduce(np.int64(0), lambda n, _: n + 1))
    if not found and training:
        raise ValueError(
            f"None of the {split.count} clips of {left_out.title} can be used: "
            f"{left_out.first or 'none holds sound of at most max_seconds and a transcript that fits there.'}"
        )
    if not found:
        return lambda start: None  # each of its clips has been named
    if counted:
        count = found
    elif split.seconds is not None:
        texts = (vocabulary.encode(text)[1:-1] for (text,) in split.texts())
        needed = (len(ids) + sum(a == b for a, b in itertools.pairwise(ids)) for ids in texts)
        samples = (round(seconds * sample_rate_hz) for seconds in split.seconds)
        count = sum(_fits(*clip, step, most) for clip in zip(samples, needed, strict=True))
    else:
        count = split.count
    if static_shapes and not training:
        batch_size = min(batch_size, count)

    def measured(clip):
        return {"audio": clip["audio"], "length": tf.size(clip["audio"]), "tokens": clip["tokens"]}

    def finished(batch, draw):
        audio = tf.cast(batch["audio"], tf.float32) / 2**15
        if augment:
            audio = batching.noisy(audio, batch["length"], draw)
        tokens, targets = batch["tokens"][:, :-1], batch["tokens"][:, 1:]
        if keras.backend.backend() == "jax":
            audio = batching.padded_to_one_of(batching.edges(sample_rate_hz), audio)
            tokens, targets = (batching.padded_to_one_of(batching.TOKENS, ids) for ids in (tokens, targets))
        return {"audio": audio, "length": batch["length"], "tokens": tokens}, targets

    # full batches alone where their shape must be known, otherwise all clips
    steps = max(count // batch_size, 1) if static_shapes else -(-count // batch_size)

    def one_epoch(number):
        def one_round(turn):
            """Each clip once; a further round fills up an epoch of fewer usable clips than expected."""
            seed = number + turn
            dataset = clips.shuffle(min(count, SHUFFLE_BUFFER), seed=seed) if training else clips
            if augment:
                speeds = tf.data.Dataset.random(seed=seed)
                dataset = tf.data.Dataset.zip(dataset, speeds).map(
                    batching.at_another_speed, num_parallel_calls=tf.data.AUTOTUNE
                )
            dataset = dataset.map(measured)
            return dataset if static_shapes else batching.by_length(dataset, batch_size, seed)

        dataset = tf.data.Dataset.range(tf.int64.max if training else 1).flat_map(one_round)
        if static_shapes:
            shapes = {"audio": [longest], "length": [], "tokens": [-(-most // step) + 2]}
            dataset = dataset.padded_batch(batch_size, shapes, drop_remainder=True)
        noises = tf.data.Dataset.random(seed=number + 1)
        return tf.data.Dataset.zip(dataset.take(steps) if training else dataset, noises)

    def batches(start):
        if training:
            return sources.epochs(one_epoch, finished, steps, seed, start=start, service=service)
        return one_epoch(seed).map(finished, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)

    return batches


def _for_evaluate(split, *, batch_size, sample_rate_hz):
    def measured(clip):
        return {
            "audio": clip["audio"],
            "length": tf.size(clip["audio"]),
            "transcript": clip["transcript"],
            "sample_rate_hz": sample_rate_hz,
        }

    def finished(batch):
        return batch | {"audio": tf.cast(batch["audio"], tf.float32) / 2**15}

    dataset = split.examples().map(measured).filter(lambda clip: clip["length"] > 0)
    return batching.by_length(dataset, batch_size).map(finished).prefetch(tf.data.AUTOTUNE)


def _fits(samples, needed, step, most):
    """Whether a clip is at most `most` samples long and its steps hold the `needed` tokens."""
    steps = -(-samples // step)  # as the model has them: the last one may be begun only
    return (samples > 0) & (samples <= most) & (needed > 0) & (steps >= needed)


def _usable(left_out, step, most, sample_rate_hz):
    """Whether a clip can be learned from; where not, `left_out` is told, if there is one."""

    def report(name, samples, tokens):
        name = name.decode()
        if samples == 0:
            return False  # whoever read it has said why
        if samples > most:
            left_out(name, f"{name} lasts {samples / sample_rate_hz:.1f} s, longer than max_seconds.")
            return False
        if tokens == 0:
            left_out(name, f"{name} has an empty transcript.")
            return False
        if -(-samples // step) < tokens:
            left_out(
                name,
                f"{name} lasts {samples / sample_rate_hz:.2f} s, and {tokens} tokens do not fit into its "
                f"{-(-samples // step)} steps.",
            )
            return False
        return True

    def usable(clip):
        samples, tokens = tf.size(clip["audio"]), clip["tokens"][1:-1]
        repeats = tf.reduce_sum(tf.cast(tokens[1:] == tokens[:-1], tf.int32))
        needed = tf.size(tokens) + repeats
        fine = _fits(samples, needed, step, most)
        if left_out is None:
            return fine
        return tf.cond(
            fine,
            lambda: True,
            lambda: tf.ensure_shape(tf.numpy_function(report, [clip["name"], samples, needed], tf.bool), ()),
        )

    return usable
