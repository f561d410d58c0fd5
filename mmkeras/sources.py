"""Pictures with captions, from wherever they come: the toy world, TensorFlow Datasets, a user's own folder.

A brick below the tasks: `read` gives the splits of a source, each a stream of pictures with their captions.
"""

import logging
import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from mmkeras import cache, images, tables

# TFDS warns of its own use of a name that it deprecated
logging.getLogger("absl").addFilter(lambda record: ".dtype` is deprecated" not in record.getMessage())


@dataclass(frozen=True)
class Split:
    """One split of a source: pictures, and captions in words.

    `examples()`: a dataset of {"image": (size, size, 3) uint8, "captions": (n,) string}.
    `captions()`: the same captions without reading the pictures.
    `made_from`:  facts that change when the split does.
    """

    examples: Callable[[], tf.data.Dataset]
    captions: Callable[[], Iterator[list[str]]]
    count: int
    made_from: dict


def read(source: str | os.PathLike, language: str, size: int, **options) -> dict[str, Split]:
    """The splits of a source, by name.

    Args:
        source: `"toy"`, `"coco_captions"`, or a folder.
        language: of the captions, `"en"` or `"zh"`.
        size: the side in pixels that pictures are brought to.
        options: of the source, see `mmkeras.captioning.data`.
    """
    is_folder = not (isinstance(source, str) and source in SOURCES)
    if is_folder and not Path(source).is_dir():
        known = ", ".join(map(repr, SOURCES))
        raise ValueError(
            f"Expected source to be one of {known}, or a folder that exists. Received: source={str(source)!r}"
        )
    try:
        return (_folder if is_folder else SOURCES[source])(source, language, size, **options)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise TypeError(f"The source {str(source)!r} does not take that option: {error}") from None


def _toy(source, language, size, *, objects=1, data_dir=None):
    from mmkeras.toy import builders

    builder = builders.toy_pictures(size, objects, data_dir)
    return {split: _tfds_split(builder, split, size, language) for split in builders.EXAMPLES}


def _coco(source, language, size, *, data_dir=None):
    import tensorflow_datasets as tfds

    if language != "en":
        raise ValueError(f"COCO's captions are English. Received: language={language!r}")
    builder = tfds.builder("coco_captions", data_dir=data_dir)
    builder.download_and_prepare()
    # Karpathy's split, as papers use it: what he left over ("restval") is trained on as well.
    names = {"train": "train+restval", "validation": "val", "test": "test"}
    return {split: _tfds_split(builder, name, size, "text") for split, name in names.items()}


def _tfds_split(builder, name, size, field):
    """`field`: which part of the dataset's captions holds the text."""
    import tensorflow_datasets as tfds

    def read(**parts):  # what is not asked for is not decoded
        parts = tfds.decode.PartialDecoding({"captions": {field}, **parts})
        return builder.as_dataset(split=name, decoders=parts, shuffle_files=False)

    def examples():
        def example(record):
            picture = tf.image.resize(record["image"], (size, size), antialias=True)
            picture = tf.cast(tf.round(tf.ensure_shape(picture, (size, size, 3))), tf.uint8)
            return {"image": picture, "captions": record["captions"][field]}

        return read(image=True).map(example, num_parallel_calls=tf.data.AUTOTUNE)

    def captions():
        for record in read().as_numpy_iterator():
            yield [text.decode() for text in record["captions"][field]]

    count = int(read().cardinality())
    made_from = {"dataset": builder.info.full_name, "split": name, "count": count}
    return Split(examples, captions, count, made_from)


def _folder(
    source,
    language,
    size,
    *,
    table=None,
    encoding="utf-8-sig",
    validation_share=0.1,
    test_share=0.1,
):
    folder = Path(source)
    if min(validation_share, test_share) < 0 or validation_share + test_share >= 1:
        raise ValueError(
            f"Expected validation_share and test_share to be at least 0 and less than 1 together. "
            f"Received: validation_share={validation_share}, test_share={test_share}"
        )
    rows = tables.read(tables.find(folder, table), encoding)
    paths = tables.locate(folder, rows)
    with ThreadPoolExecutor() as pool:
        list(pool.map(images.check, paths))
    named = any(row.split for row in rows)
    names = [
        row.split or ("train" if named else _drawn_split(row.file, validation_share, test_share))
        for row in rows
    ]
    splits = {}
    for name in tables.SPLITS:
        pairs = [(p, r.texts) for p, r, n in zip(paths, rows, names, strict=True) if n == name]
        # tables often go by subject, and a large folder is later shuffled within a buffer only
        random.Random(0).shuffle(pairs)
        if pairs:
            splits[name] = _folder_split(pairs, size)
    if "train" not in splits:
        raise ValueError(f"None of the {len(rows)} pictures in {folder} is for training.")
    return splits


def _drawn_split(file, validation_share, test_share):
    """The split of a picture by its name, so that it stays there when other pictures come or go."""
    place = int(cache.digest(file), 16) / 16**16
    if place < test_share:
        return "test"
    return "validation" if place < test_share + validation_share else "train"


def _folder_split(pairs, size):
    def examples():
        def load(path):
            return images.resize(images.read(path.decode()), size)

        def example(path, captions):
            picture = tf.numpy_function(load, [path], tf.uint8)
            return {"image": tf.ensure_shape(picture, (size, size, 3)), "captions": captions}

        paths = tf.constant([str(path) for path, _ in pairs])
        texts = tf.ragged.constant([texts for _, texts in pairs], dtype=tf.string)
        dataset = tf.data.Dataset.from_tensor_slices((paths, texts))
        return dataset.map(example, num_parallel_calls=tf.data.AUTOTUNE)

    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns, t) for path, t in pairs]
    made_from = {"files": cache.digest(*facts)}
    return Split(examples, lambda: (texts for _, texts in pairs), len(pairs), made_from)


SOURCES = {"toy": _toy, "coco_captions": _coco}
