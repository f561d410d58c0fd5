"""Pictures with captions: the toy world, TensorFlow Datasets, a folder with a captions table.

A split's examples are {"image": (size, size, 3) uint8, "captions": (n,) string}, and where the source has
labels {"labels": {attribute: int}} beside them.
"""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tensorflow as tf

from mmkeras import cache, caller, checks, images, progress, sources, tables
from mmkeras.sources import Split
from mmkeras.sources.labels import PHRASINGS, label_names, phrasings
from mmkeras.vocabulary import PAD, SPECIAL, Vocabulary

# A training set this small is kept decoded in memory; a larger one is read again each epoch, and
# shuffled within a buffer of this size.
IN_MEMORY_MB = 256


def read(
    source: str | os.PathLike, language: str, size: int, *, crop: bool = False, **options
) -> dict[str, Split]:
    """The splits of a source, by name.

    Args:
        source: `"toy"`, `"coco_captions"`, `"oxford_flowers102"`, `"mnist"`, `"cifar10"`, or a folder.
        language: of the captions, `"en"` or `"zh"`.
        size: the side in pixels that pictures are brought to.
        crop: to the square in the middle first; otherwise all of the picture is squeezed into the square.
        options: of the source, see `mmkeras.captioning.data`.
    """
    return sources.choose(source, SOURCES, _folder, language, size, crop, **options)


def words(
    source: str | os.PathLike,
    splits: Mapping[str, Split],
    unit: str,
    *,
    vocabulary: Vocabulary | None,
    min_count: int | None,
    max_size: int,
    max_length: int | None,
) -> tuple[Vocabulary, int]:
    """The vocabulary of the training captions, and how many tokens 99 % of them do not exceed; what is given of
    the two is kept, and with a vocabulary another split will do. `min_count` None: 1, for COCO 5."""
    if min_count is None:
        min_count = 5 if source == "coco_captions" else 1
    checks.ints(1, min_count=min_count)
    checks.ints(len(SPECIAL) + 1, max_size=max_size)
    if max_length is not None and (not isinstance(max_length, int) or max_length < 3):
        raise ValueError(
            f"Expected max_length to be an int of at least 3, <start> and <end> included. "
            f"Received: max_length={max_length!r}"
        )
    sources.check_vocabulary(vocabulary)
    if vocabulary is not None and max_length is not None:
        return vocabulary, max_length
    if vocabulary is None or "train" in splits:
        split = sources.training_split(splits)
    else:
        split = next(iter(splits.values()))
    splitter, lengths = Vocabulary((), unit), Counter()

    def noting_lengths():
        for texts in progress.bar(split.texts(), "captions", split.count):
            for text in texts:
                lengths[len(splitter.encode(text))] += 1
                yield text

    counted = Vocabulary.count(noting_lengths(), unit, min_count=min_count, max_size=max_size)
    covered = 0
    for length in sorted(lengths):
        covered += lengths[length]
        if covered >= 0.99 * lengths.total():
            return vocabulary or counted, max_length or length


def kept(split: Split) -> tf.data.Dataset:
    """A split's examples, read once where they fit into memory."""
    examples = split.examples()
    return examples.cache() if split.megabytes <= IN_MEMORY_MB else examples


def shuffled(dataset: tf.data.Dataset, split: Split, seed: int | tf.Tensor) -> tf.data.Dataset:
    """Within a buffer of as many of the split's pictures as fit into memory."""
    share = min(1, IN_MEMORY_MB / split.megabytes)
    return dataset.shuffle(max(int(split.count * share), 1), seed=seed)


def paired(
    split: Split,
    finished: Callable,
    *,
    vocabulary: Vocabulary,
    max_length: int,
    training: bool,
    batch_size: int,
    seed: int,
    static_shapes: bool = False,
    service: str | None = None,
) -> Callable[[int | None], tf.data.Dataset]:
    """Each picture once, with one of its captions: `finished` batches of {"image", "tokens"}, tokens
    (B, max_length) int32.

    In training the order and the caption differ from epoch to epoch, otherwise they are always the same. The
    last batch may be smaller; with `static_shapes` batches are full ones alone, so an epoch may leave a few
    pictures out, others each time.

    Returns:
        A function of `start`, see `sources.epochs`; without training it is ignored.
    """
    examples = kept(split)  # outside of the epochs, which share it
    if static_shapes and not training:
        batch_size = min(batch_size, split.count)
    if static_shapes and split.count < batch_size:
        raise ValueError(
            f"Expected at least a batch of pictures to train on with static_shapes=True. "
            f"Received: {split.count} pictures, batch_size={batch_size}"
        )

    def pair(example, number):
        captions = example["captions"]
        return {"image": example["image"], "caption": captions[number % tf.shape(captions, tf.int64)[0]]}

    def one_epoch(number):
        dataset = shuffled(examples, split, number) if training else examples
        draws = tf.data.Dataset.random(seed=number)
        return tf.data.Dataset.zip(dataset, draws).map(pair).batch(batch_size, drop_remainder=static_shapes)

    def tokenized(batch):
        ids = vocabulary.encode_tensor(batch["caption"])
        tokens = ids.to_tensor(PAD, shape=(batch["caption"].shape[0], max_length))
        return finished({"image": batch["image"], "tokens": tokens})

    def batches(start):
        if training:
            steps = split.count // batch_size if static_shapes else -(-split.count // batch_size)
            return sources.epochs(one_epoch, tokenized, steps, seed, start=start, service=service)
        dataset = one_epoch(seed).map(tokenized, num_parallel_calls=tf.data.AUTOTUNE)
        return dataset.prefetch(tf.data.AUTOTUNE)

    return batches


# --- the toy world ---


def _toy(source, language, size, crop, *, objects=1, data_dir=None):
    from mmkeras.toy import builders

    builder = builders.toy_pictures(size, objects, data_dir)
    features = builder.info.features
    names = ("size", "color", "shape") + (("place",) if objects == 1 else ())
    classes = {name: tuple(features["things"][name].names) for name in names}
    if objects == 1:
        classes["place"] = classes["place"][:-1]  # the last one says that a relation tells the place
    suffixes = [""] if objects == 1 else ["", " 2"]
    attributes = {name + suffix: classes[name] for suffix in suffixes for name in classes}
    if objects == 2:
        attributes["relation"] = tuple(features["relation"].names)

    def labels(record):
        found = {
            name + suffix: record["things"][name][number]
            for number, suffix in enumerate(suffixes)
            for name in classes
        }
        return found | ({"relation": record["relation"]} if objects == 2 else {})

    wanted = {"captions": {language}, "things": set(names), "relation": True}

    def split(name):
        return _tfds_split(
            builder, name, size, crop, wanted, lambda record: record["captions"][language], labels, attributes
        )

    return {name: split(name) for name in builders.EXAMPLES}


# --- TensorFlow Datasets ---


def _coco(source, language, size, crop, *, data_dir=None):
    _english_only(source, language)
    builder = _prepared(source, data_dir)
    # Karpathy's split, as papers use it: what he left over ("restval") is trained on as well.
    names = {"train": "train+restval", "validation": "val", "test": "test"}

    def split(name):
        wanted = {"captions": {"text"}}
        return _tfds_split(builder, name, size, crop, wanted, lambda record: record["captions"]["text"])

    return {split_name: split(name) for split_name, name in names.items()}


# where a dataset has no validation split, the end of its training split serves
_LABELLED_SPLITS = {"validation": "train[90%:]", "train": "train[:90%]", "test": "test"}


def _labelled(source, language, size, crop, *, data_dir=None):
    """Pictures with a label each; what is said of them is made from its name."""
    _english_only(source, language)
    builder = _prepared(source, data_dir)
    names = label_names(source, builder.info.features["label"].names)
    captions = tf.constant([phrasings(name, PHRASINGS[source]) for name in names])  # (labels, phrasings)
    splits = {"train": "train", "validation": "validation", "test": "test"}
    if "validation" not in builder.info.splits:
        splits = _LABELLED_SPLITS

    def split(name):
        return _tfds_split(
            builder,
            name,
            size,
            crop,
            {"label": True},
            lambda record: captions[record["label"]],
            lambda record: {"label": record["label"]},
            {"label": names},
        )

    return {split_name: split(name) for split_name, name in splits.items()}


def _english_only(source, language):
    if language != "en":
        raise ValueError(f"The captions of {source!r} are English. Received: language={language!r}")


def _prepared(source, data_dir):
    import tensorflow_datasets as tfds

    builder = tfds.builder(source, data_dir=data_dir)
    builder.download_and_prepare()
    return builder


def _tfds_split(builder, name, size, crop, wanted, captions, labels=None, attributes=None):
    """`wanted`: the record's parts that `captions` and `labels` read."""
    import tensorflow_datasets as tfds

    def read(**parts):  # what is not asked for is not decoded
        parts = tfds.decode.PartialDecoding({**wanted, **parts})
        return builder.as_dataset(split=name, decoders=parts, shuffle_files=False)

    def examples():
        def example(record):
            picture = record["image"]
            if picture.shape[-1] == 1:
                picture = tf.image.grayscale_to_rgb(picture)
            if crop:
                side = tf.reduce_min(tf.shape(picture)[:2])
                picture = tf.image.resize_with_crop_or_pad(picture, side, side)
            picture = tf.image.resize(picture, (size, size), antialias=True)
            picture = tf.cast(tf.round(tf.ensure_shape(picture, (size, size, 3))), tf.uint8)
            said = {"image": picture, "captions": captions(record)}
            return said | {"labels": labels(record)} if labels else said

        return read(image=True).map(example, num_parallel_calls=tf.data.AUTOTUNE)

    def texts():
        for record in read().map(captions).as_numpy_iterator():
            yield [text.decode() for text in record]

    count = int(read().cardinality())
    made_from = {"dataset": builder.info.full_name, "split": name, "count": count}
    megabytes = count * size**2 * 3 / 2**20
    return Split(examples, texts, count, made_from, megabytes, attributes=attributes or {})


# --- a folder ---


def _folder(
    source,
    language,
    size,
    crop,
    *,
    table=None,
    encoding="utf-8-sig",
    validation_share=0.1,
    test_share=0.1,
):
    folder = Path(source)
    rows = tables.read(tables.find(folder, table), encoding)
    rows, paths = tables.locate(folder, rows)
    with ThreadPoolExecutor() as pool:
        sides = list(pool.map(images.check, paths))
    small = [path.name for path, shape in zip(paths, sides, strict=True) if min(shape) < size]
    if crop and small:
        caller.warn(
            f"{len(small)} of {len(paths)} pictures are smaller than {size} pixels and are enlarged, "
            f"{small[0]} the first."
        )
    return {
        name: _folder_split([(paths[i], rows[i].texts) for i in numbers], size, crop)
        for name, numbers in sources.divide(rows, validation_share, test_share).items()
    }


def _folder_split(pairs, size, crop):
    def examples():
        def load(path):
            picture = images.read(path.decode())
            return images.resize(images.crop(picture) if crop else picture, size)

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


SOURCES = {"toy": _toy, "coco_captions": _coco, **dict.fromkeys(PHRASINGS, _labelled)}
