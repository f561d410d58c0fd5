"""Video understanding (chapter 6.2): the data.

data = video_understanding.data("toy")                          # frames, sound and sentence → attributes
data = video_understanding.data("toy", target="captions")       # frames and sound → caption
data = video_understanding.data("my/videos")                    # a folder with a table of labels and captions
"""

import dataclasses
import itertools
import os

import tensorflow as tf

from mmkeras.data import image_captions, sources
from mmkeras.data.task_data import TaskData
from mmkeras.media.video import Sampling
from mmkeras.text.vocabulary import Vocabulary

TARGETS = ("labels", "captions")


def data(
    source: str | os.PathLike = "toy",
    *,
    target: str = "labels",
    language: str = "en",
    batch_size: int = 32,
    sampling: Sampling | None = None,
    vocabulary: Vocabulary | None = None,
    min_count: int | None = None,
    max_size: int = 10_000,
    max_length: int | None = None,
    seed: int = 0,
    **options,
) -> TaskData:
    """Videos, ready for `model.fit`.

    Args:
        source: str or path. `"toy"`, or a folder of videos with a table (see `mmkeras.data.tables`) that has a
            column `label`, captions, or both. Defaults to `"toy"`.
        target: str. What is predicted. `"labels"`: from frames, sound and text, for `build`. `"captions"`: from
            frames and sound, for `build_captioner`. Defaults to `"labels"`.
        sampling: `Sampling`, optional. Frames, their size, duration and sample rate. Defaults to the toy
            videos'.
        language, batch_size, vocabulary, min_count, max_size, max_length, seed: As for
            `mmkeras.captioning.data`.
        **options: Of the source. Toy videos: `data_dir`. Folder: see `mmkeras.data.folder.read`.

    Returns:
        `TaskData`, whose `sampling` is that of the model, with these batches:

        - `train`, `validation`: ({"frames", "sound", "text"}, {attribute: (B,) int64}), or
          ({"frames", "sound", "tokens"}, targets); frames (B, F, S, S, 3) uint8, sound (B, n) float32 in
          -1..1, 0 without sound, text (B, max_length) int32 with <start> and <end>, 0 without text; tokens and
          targets as for `mmkeras.captioning.data`.
        - `test`, `test_unseen`: {"frames", "sound" (B, n) int16, "captions" (B, k) string, "labels"}; to
          classify, there is one caption, the text.

    Raises:
        ValueError: if an argument is invalid, the table is malformed, or it has not the target.
        FileNotFoundError: if none of the videos in the table exists.
    """
    if target not in TARGETS:
        raise ValueError(
            f"Expected target to be one of {', '.join(map(repr, TARGETS))}. Received: target={target!r}"
        )
    sampling = sampling or Sampling()

    vocabulary = sources.check_options(language, vocabulary)
    splits = sources.read_videos(source, language, sampling, **options)
    attributes = next(iter(splits.values())).attributes
    has_captions = any(map(any, itertools.chain(*(split.texts() for split in splits.values()))))
    if not (attributes if target == "labels" else has_captions):
        raise ValueError(
            f"Expected a table with a column of {target}. Received: target={target!r} for {str(source)!r}, "
            f"which has none"
        )
    if not has_captions:  # the text is missing always, but a model takes it
        vocabulary, max_length = vocabulary or Vocabulary(("text",)), max_length or 3

    def to_inputs(batch):
        inputs = {"frames": batch["frames"], "sound": to_float(batch["sound"])}
        tokens = batch["tokens"]
        if target == "labels":
            return inputs | {"text": without_empty(tokens)}, batch["labels"]
        return inputs | {"tokens": tokens[:, :-1]}, tokens[:, 1:]

    read = image_captions.read(
        source,
        to_inputs,
        language=language,
        batch_size=batch_size,
        image_size=sampling.image_size,
        vocabulary=vocabulary,
        min_count=min_count,
        max_size=max_size,
        max_length=max_length,
        augment=False,
        seed=seed,
        static_shapes=False,
        reader=lambda *_, **__: {name: _with_texts(split, target) for name, split in splits.items()},
    )
    return dataclasses.replace(read, extra=read.extra | {"sampling": sampling})


def to_float(sound):
    """Samples int16 → float32 in -1..1."""
    return tf.cast(sound, tf.float32) / 2.0**15


def without_empty(tokens):
    """Token ids (B, T), without <start> and <end> if no word is between, so that the text counts as missing."""
    has_words = tf.reduce_sum(tf.cast(tokens > 0, tf.int32), axis=1, keepdims=True) > 2
    return tf.where(has_words, tokens, 0)


def _with_texts(split, target):
    """A split whose captions are those of the target: a text that is an input, or all that are right."""

    def chosen(example):
        sentence = example.pop("sentence")
        return example | ({"captions": sentence} if target == "labels" else {})

    fingerprint = split.fingerprint | {"target": target}
    return dataclasses.replace(split, examples=lambda: split.examples().map(chosen), fingerprint=fingerprint)
