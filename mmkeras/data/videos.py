"""Videos with texts and labels: the toy videos, and a user's folder.

Examples are {"frames" (F, S, S, 3) uint8, "sound" (n,) int16, "captions" (k,) string, "sentence" (1,) string,
"labels" {attribute: () int64}}. A folder has one sentence, the first of its captions.
"""

import dataclasses
import os

import numpy as np
import tensorflow as tf

from mmkeras._utils import terminal
from mmkeras.data import folder, tfds
from mmkeras.data.task_data import Split
from mmkeras.media import video
from mmkeras.media.video import Sampling


def toy_videos(
    source: str, language: str, sampling: Sampling, *, data_dir: str | None = None
) -> dict[str, Split]:
    """The toy videos, see `mmkeras.toy.motion`."""
    from mmkeras.toy import builders, motion

    def resampled(frames, sound):
        starts = np.arange(motion.FRAMES) * motion.SECONDS / motion.FRAMES
        whole = video.Video(frames, starts, motion.SECONDS, (motion.SAMPLE_RATE_HZ, sound))
        return video.sampled(whole, sampling)

    def to_example(record):
        frames, sound = record["frames"], record["sound"]
        if sampling != Sampling():
            frames, sound = tf.numpy_function(resampled, [frames, sound], (tf.uint8, tf.int16))
        example = _shaped(frames, sound, sampling)
        sentence = record["sentence"][language][None]
        labels = {name: record["labels"][name] for name in motion.ATTRIBUTES}
        return example | {"captions": record["captions"][language], "sentence": sentence, "labels": labels}

    return tfds.read_splits(
        builders.toy_videos(data_dir),
        {name: name for name in builders.VIDEO_EXAMPLES},
        inputs=dict.fromkeys(("frames", "sound", "labels"), True),
        text_fields={"captions": {language}, "sentence": {language}},
        to_example=to_example,
        to_texts=lambda record: tf.concat(
            [record["captions"][language], record["sentence"][language][None]], axis=0
        ),
        megabytes=lambda count: count * _megabytes(sampling),
        attributes=motion.ATTRIBUTES,
        texts_key=language,
    )


def videos_from_folder(
    source: str | os.PathLike, language: str, sampling: Sampling, **options
) -> dict[str, Split]:
    """Videos with captions, labels, or both, see `mmkeras.data.folder.read`. `Split.attributes` has "label" if
    the table has labels."""
    pixels = sampling.frames * sampling.image_size**2 * 3

    def read(path):
        return video.read(path, sampling.image_size, sampling.seconds)

    def load(path):  # as one array: the bytes of the frames, then those of the sound
        return np.concatenate([x.view(np.uint8).ravel() for x in video.sampled(read(path), sampling)])

    def example(array, texts, name, label, answers):
        frames = tf.reshape(array[:pixels], (sampling.frames, sampling.image_size, sampling.image_size, 3))
        sound = tf.bitcast(tf.reshape(array[pixels:], (sampling.samples, 2)), tf.int16)
        texts = tf.cond(tf.size(texts) > 0, lambda: texts, lambda: tf.constant([""]))
        return _shaped(frames, sound, sampling) | {"captions": texts, "sentence": texts[:1], "label": label}

    reader = folder.MediaReader(
        "videos",
        load,
        check=lambda path, count: read(path).seconds,
        example=example,
        dtype=tf.uint8,
        megabytes=lambda _: _megabytes(sampling),
    )
    splits, seconds, rows = folder.read(source, reader, **options)
    long = [row.file for row, end in zip(rows, seconds, strict=True) if end > sampling.seconds + 0.01]
    if long:
        terminal.warn(
            f"{len(long)} of {len(rows)} videos last longer than {sampling.seconds:g} s and are cut, the first "
            f"is {long[0]}. Sample more with sampling=Sampling(seconds=...)."
        )
    classes = tuple(sorted({row.label for row in rows if row.label}))
    if unlabeled := [row.file for row in rows if classes and not row.label]:
        raise ValueError(
            f"Expected all videos of {source} to have a label, or none. Received: {len(unlabeled)} of "
            f"{len(rows)} without one: {', '.join(unlabeled[:3])}"
        )
    return {name: _labeled(split, classes) for name, split in splits.items()}


def _labeled(split, classes):
    """A split with the ids of its labels in place of their names."""

    def to_ids(example):
        label = example.pop("label")
        ids = {"label": tf.argmax(tf.constant(classes) == label)} if classes else {}
        return example | {"labels": ids}

    def texts():
        return (texts or [""] for texts in split.texts())

    return dataclasses.replace(
        split,
        examples=lambda: split.examples().map(to_ids),
        texts=texts,
        attributes={"label": classes} if classes else {},
    )


def _shaped(frames, sound, sampling):
    size = sampling.image_size
    frames = tf.ensure_shape(frames, (sampling.frames, size, size, 3))
    return {"frames": frames, "sound": tf.ensure_shape(sound, (sampling.samples,))}


def _megabytes(sampling):
    pixels = sampling.frames * sampling.image_size**2 * 3
    return (pixels + folder.BYTES_PER_SAMPLE * sampling.samples) / 2**20
