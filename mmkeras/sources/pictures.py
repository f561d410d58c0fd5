"""Pictures with captions: the toy world, TensorFlow Datasets, a folder with a captions table.

A split's examples are {"image": (size, size, 3) uint8, "captions": (n,) string}.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tensorflow as tf

from mmkeras import cache, images, sources, tables
from mmkeras.sources import Split


def read(source: str | os.PathLike, language: str, size: int, **options) -> dict[str, Split]:
    """The splits of a source, by name.

    Args:
        source: `"toy"`, `"coco_captions"`, or a folder.
        language: of the captions, `"en"` or `"zh"`.
        size: the side in pixels that pictures are brought to.
        options: of the source, see `mmkeras.captioning.data`.
    """
    return sources.choose(source, SOURCES, _folder, language, size, **options)


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

    def texts():
        for record in read().as_numpy_iterator():
            yield [text.decode() for text in record["captions"][field]]

    count = int(read().cardinality())
    made_from = {"dataset": builder.info.full_name, "split": name, "count": count}
    return Split(examples, texts, count, made_from, count * size**2 * 3 / 2**20)


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
    rows = tables.read(tables.find(folder, table), encoding)
    paths = tables.locate(folder, rows)
    with ThreadPoolExecutor() as pool:
        list(pool.map(images.check, paths))
    return {
        name: _folder_split([(paths[i], rows[i].texts) for i in numbers], size)
        for name, numbers in sources.divide(rows, validation_share, test_share).items()
    }


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
    megabytes = len(pairs) * size**2 * 3 / 2**20
    return Split(examples, lambda: (texts for _, texts in pairs), len(pairs), made_from, megabytes)


SOURCES = {"toy": _toy, "coco_captions": _coco}
