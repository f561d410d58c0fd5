"""From clips with transcripts to batches of similar length: those that can be trained on, and their tokens."""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from mmkeras.data import pipeline
from mmkeras.data.task_data import SkippedExamples, Split
from mmkeras.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class ClipBatches:
    """Batches of the clips of a split. The attributes are arguments of `data`."""

    source: str
    vocabulary: Vocabulary
    batch_size: int
    sample_rate_hz: int
    step_ms: int
    max_seconds: float
    augment: bool
    recolor: bool
    seed: int
    static_shapes: bool

    def for_evaluate(self, split: Split) -> tf.data.Dataset:
        """Batches of {"audio", "length", "transcript", "sample_rate_hz"}."""

        def with_length(clip):
            sizes = {"length": tf.size(clip["audio"]), "sample_rate_hz": self.sample_rate_hz}
            return {"audio": clip["audio"], "transcript": clip["transcript"], **sizes}

        def to_floats(batch):
            return batch | {"audio": _to_float(batch["audio"])}

        clips = split.examples().map(with_length)
        return pipeline.by_length(clips, self.batch_size).map(to_floats).prefetch(tf.data.AUTOTUNE)

    def for_fit(self, split: Split, name: str) -> Callable[[int | None], tf.data.Dataset | None]:
        """First epoch → batches of ({"audio", "length", "tokens"}, targets), see `pipeline.epochs`."""
        training = name == "train"
        skipped = SkippedExamples(f"{self.source} {name}")
        clips = split.cached_examples(self._with_tokens)  # one cache, shared by all epochs
        clips = clips.filter(functools.partial(self._is_usable, skipped))
        count = self._count(split, clips, training)
        if not count and training:
            unreadable = split.skipped and split.skipped.first
            unusable = "None has at most max_seconds of audio and a transcript that fits."
            reason = skipped.first or unreadable or unusable
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

        def with_length(clip):
            return {"audio": clip["audio"], "length": tf.size(clip["audio"]), "tokens": clip["tokens"]}

        def one_pass(seed):
            dataset = clips
            if training:
                dataset = dataset.shuffle(min(count, pipeline.SHUFFLE_BUFFER), seed=seed)
            if augment:
                speeds = tf.data.Dataset.random(seed=seed)
                dataset = tf.data.Dataset.zip(dataset, speeds).map(
                    pipeline.change_speed, num_parallel_calls=tf.data.AUTOTUNE
                )
            dataset = dataset.map(with_length)
            return dataset if self.static_shapes else pipeline.by_length(dataset, batch_size, seed)

        def to_inputs_and_targets(batch, random_seed):
            audio = _to_float(batch["audio"])  # (B, n)
            if augment and self.recolor:
                audio = pipeline.recolor_unvoiced(audio, random_seed)
            if augment:
                audio = pipeline.augment_with_noise(audio, batch["length"], random_seed)
            tokens, targets = batch["tokens"][:, :-1], batch["tokens"][:, 1:]  # (B, T)
            if keras.backend.backend() == "jax":
                audio = pipeline.pad_to_next(pipeline.bucket_edges(self.sample_rate_hz), audio)
                tokens, targets = (pipeline.pad_to_next(pipeline.TOKENS, ids) for ids in (tokens, targets))
            return {"audio": audio, "length": batch["length"], "tokens": tokens}, targets

        def full_batches(dataset):
            return dataset.padded_batch(batch_size, self._longest(), drop_remainder=True)

        batches = pipeline.fit_batches(
            one_pass,
            to_inputs_and_targets,
            training=training,
            steps=steps,
            seed=self.seed,
            full_batches=full_batches if self.static_shapes else None,
        )
        if training or not split.fits_in_memory:
            return batches
        # `_count` is exact here. Without the number of batches Keras warns at the end.
        return lambda start: batches(start).apply(tf.data.experimental.assert_cardinality(steps))

    def _with_tokens(self, clip):
        tokens = self.vocabulary.encode_tensor(clip["transcript"][None])[0]  # (T,), <start> and <end> included
        return {"audio": clip["audio"], "tokens": tokens, "name": clip["name"]}

    def _count(self, split, clips, training):
        """The number of usable clips.

        A split that fits in memory is read and counted, and so is a validation split with static shapes, whose
        batch size depends on the number. A larger split is counted from the durations in the headers of its
        files. If the source has no such headers, all clips count as usable, provided that one is.
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
        """Whether a clip can be used; if not, the reason is reported to `skipped`."""

        def report(name, samples, needed):
            name = name.decode()
            seconds = f"{samples / self.sample_rate_hz:.2f} s"
            if samples > self._max_samples:
                skipped(name, f"{name} lasts {seconds}, longer than max_seconds.")
            elif needed == 0:
                skipped(name, f"{name} has an empty transcript.")
            elif samples > 0:
                steps = -(-samples // self._step_samples)
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
        steps = -(-samples // self._step_samples)  # as in the model, where the last step may be partial
        return (samples > 0) & (samples <= self._max_samples) & (needed > 0) & (steps >= needed)

    def _longest(self):
        """Shapes of the longest clip and transcript; the slowest speed makes clips longer."""
        samples = int(self._max_samples / min(pipeline.SPEEDS)) + 1 if self.augment else self._max_samples
        return {"audio": [samples], "length": [], "tokens": [-(-self._max_samples // self._step_samples) + 2]}

    @property
    def _step_samples(self):
        return max(self.step_ms * self.sample_rate_hz // 1000, 1)

    @property
    def _max_samples(self):
        return int(self.max_seconds * self.sample_rate_hz)


def _to_float(audio):
    return tf.cast(audio, tf.float32) / 2**15
