"""Image search (chapter 6.1): the data.

data = image_search.data("toy")                     # the toy world, in English and Chinese
data = image_search.data("emoji")                   # emoji with their names in both languages
data = image_search.data("my/photos")               # a folder with a table of captions
data = image_search.data(["toy", "my/photos"])      # several at once
"""

import dataclasses
import functools
import itertools
import os
from collections.abc import Sequence

import tensorflow as tf

from mmkeras.data import image_captions, sources
from mmkeras.data.task_data import Split, TaskData
from mmkeras.text.vocabulary import Vocabulary

FIELDS = ("image", "captions", "meaning")
LANGUAGES = {"en": ("en",), "zh": ("zh",), "both": ("en", "zh")}


def data(
    source: str | os.PathLike | Sequence[str | os.PathLike] = "toy",
    *,
    language: str = "both",
    batch_size: int = 64,
    image_size: int = 64,
    vocabulary: Vocabulary | None = None,
    min_count: int | None = None,
    max_size: int = 10_000,
    max_length: int | None = None,
    augment: bool = False,
    seed: int = 0,
    static_shapes: bool = False,
    **options,
) -> TaskData:
    """Images and captions, ready for `model.fit`.

    Args:
        source: str or path. As for `mmkeras.captioning.data`, or a list of sources: they share `train` and
            `validation`; test splits after those of the first are named after their source, such as
            `splits["test_emoji"]`. An option is for the sources that take it. Beside others the toy world
            is not augmented: its captions tell place, size and color. Defaults to `"toy"`.
        language: str. `"en"`, `"zh"`, or `"both"`: an image has the captions of both languages, and each epoch
            draws one of them. A folder has the captions of its table. Defaults to `"both"`.
        batch_size: int. Images per step, over all devices. The other texts of a batch are what a text is told
            apart from, so larger batches are harder. Defaults to 64.
        image_size: int. Side in pixels that images are resized to. Defaults to 64.
        vocabulary, min_count, max_size, max_length, augment, seed, static_shapes, **options: As for
            `mmkeras.captioning.data`. Tokens are words, and single characters of Chinese.

    Returns:
        `TaskData` with these batches:

        - `train`, `validation`: ({"image", "tokens"}, meaning); image (B, size, size, 3) uint8, tokens
          (B, max_length) int32 with <start> and <end>, meaning (B,) int64, equal for images with equal
          captions: these are no negatives of each other.
        - `test`, `test_unseen`: {"image", "captions", "meaning"}; captions (B, n) string, padded with "".

    Raises:
        ValueError: if an argument is invalid or the table is malformed.
        FileNotFoundError: if none of the images in the table exists.
    """
    if language not in LANGUAGES:
        known = ", ".join(map(repr, LANGUAGES))
        raise ValueError(f"Expected language to be one of {known}. Received: language={language!r}")

    def to_inputs(batch):
        return {"image": batch["image"], "tokens": batch["tokens"]}, batch["meaning"]

    given = source if isinstance(source, list | tuple) else [source]

    def read(source, size, crop, options):
        is_folder = not (isinstance(source, str) and source in sources.IMAGES)
        languages = LANGUAGES[language][:1] if is_folder else LANGUAGES[language]
        parts = [sources.read_images(source, each, size, crop=crop, **options) for each in languages]
        splits = {name: _with_meaning(*(part[name] for part in parts)) for name in parts[0]}
        if len(given) > 1:
            shared = splits.keys() & {"train", "validation"}
            splits |= {name: _common(splits[name], as_drawn=source == "toy") for name in shared}
        return splits

    def reader(_, __, size, crop, **options):
        taken = [sources.options(each).keys() for each in given]
        of_none = options.keys() - set().union(*taken)  # the first source refuses them
        first, *others = (
            read(each, size, crop, {n: options[n] for n in options if n in names or n in of_none})
            for each, names in zip(given, taken, strict=True)
        )
        return functools.reduce(_joined, zip(map(sources.title, given[1:]), others, strict=True), first)

    return image_captions.read(
        given[0] if len(given) == 1 else " and ".join(map(sources.title, given)),
        to_inputs,
        language="en",
        batch_size=batch_size,
        image_size=image_size,
        vocabulary=vocabulary,
        min_count=min_count,
        max_size=max_size,
        max_length=max_length,
        augment=augment,
        seed=seed,
        static_shapes=static_shapes,
        reader=reader,
        unit="mixed",
        **options,
    )


def _with_meaning(split, *others):
    """A split whose images have the captions of all languages, and an id of them."""

    def examples():
        languages = tf.data.Dataset.zip(*(part.examples() for part in (split, *others)))
        return languages.map(joined, num_parallel_calls=tf.data.AUTOTUNE)

    def joined(*languages):
        captions = tf.concat([example["captions"] for example in languages], axis=0)  # (n,)
        meaning = tf.strings.to_hash_bucket_fast(tf.strings.reduce_join(captions, separator="\n"), 2**62)
        return languages[0] | {"captions": captions, "meaning": meaning}

    def texts():
        for parts in zip(*(part.texts() for part in (split, *others)), strict=True):
            yield [text for part in parts for text in part]

    keys = [part.fingerprint for part in others]
    return dataclasses.replace(
        split, examples=examples, texts=texts, fingerprint=split.fingerprint | {"others": keys, "meaning": True}
    )


def _joined(splits: dict[str, Split], other: tuple[str, dict[str, Split]]) -> dict[str, Split]:
    """The splits with those of another source, (its name, its splits)."""
    source, added = other
    joined = dict(splits)
    for name, split in added.items():
        if name not in ("train", "validation"):
            joined[f"{name}_{source}"] = split
        elif name not in splits:
            joined[name] = split
        else:
            joined[name] = _concatenated(splits[name], split)
    return joined


def _common(split, as_drawn):
    """A split with the fields that all sources have, and whether augmentation leaves its images as drawn."""

    def examples():
        return split.examples().map(
            lambda example: {name: example[name] for name in FIELDS} | {"as_drawn": as_drawn}
        )

    return dataclasses.replace(split, examples=examples, fingerprint=split.fingerprint | {"as_drawn": as_drawn})


def _concatenated(one, other):
    return Split(
        lambda: one.examples().concatenate(other.examples()),
        lambda: itertools.chain(one.texts(), other.texts()),
        one.count + other.count,
        {"joined": [one.fingerprint, other.fingerprint]},
        one.megabytes + other.megabytes,
    )
