"""TensorFlow Datasets: the toy world, captions, captions made from labels, and transcripts."""

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import tensorflow as tf

from mmkeras._utils import prepare, terminal
from mmkeras.data import cache, pipeline
from mmkeras.data.folder import BYTES_PER_SAMPLE
from mmkeras.data.labels import PHRASINGS, label_names, phrasings
from mmkeras.data.task_data import Split
from mmkeras.media import audio, images

TOY_SECONDS = 2.2  # mean duration of an utterance


def prepared(name: str, data_dir: str | None) -> Any:
    """The builder of a dataset, which is downloaded and prepared on first use."""
    import tensorflow_datasets as tfds

    return prepare.prepared(lambda: tfds.builder(name, data_dir=data_dir))


def read_splits(
    builder: Any,
    names: Mapping[str, str],
    *,
    inputs: dict,
    text_fields: dict,
    to_example: Callable[[dict], dict],
    to_texts: Callable[[dict], tf.Tensor],
    megabytes: Callable[[int], float] = lambda count: math.inf,
    keep: Callable[[dict], tf.Tensor] | None = None,
    attributes: Mapping[str, tuple[str, ...]] | None = None,
    texts_key: str = "",
) -> dict[str, Split]:
    """The splits of a dataset. Only the requested features are decoded.

    Args:
        builder: TFDS builder of the dataset.
        names: {name of the split: TFDS's name for it, such as `"train[:90%]"`}.
        inputs: The features that `to_example` reads besides `text_fields`, for `tfds.decode.PartialDecoding`.
        text_fields: The features that `to_texts` reads.
        to_example: record → example.
        to_texts: record → (n,) string.
        megabytes: number of examples → size of the decoded inputs. Defaults to infinity: too much for memory.
        keep: record of `text_fields` → bool, whether to use it. Defaults to all.
        attributes: {attribute: class names} of the examples' labels.
        texts_key: str. Which of the texts that the dataset can have, such as the language. Defaults to `""`: it
            has only one kind.
    """
    import tensorflow_datasets as tfds

    def decoded(name, decoders=None):
        with terminal.quiet_log("absl", ".dtype` is deprecated"):  # TFDS itself uses this deprecated attribute
            return builder.as_dataset(split=name, decoders=decoders, shuffle_files=False)

    def read(name, fields):
        dataset = decoded(name, tfds.decode.PartialDecoding(fields))
        return dataset if keep is None else dataset.filter(keep)

    def examples(name):
        return read(name, text_fields | inputs).map(to_example, num_parallel_calls=tf.data.AUTOTUNE)

    def texts(name):
        for record in read(name, text_fields).map(to_texts).as_numpy_iterator():
            yield [text.decode() for text in record]

    def split(name):
        count = int(decoded(name).cardinality())
        return Split(
            functools.partial(examples, name),
            functools.partial(texts, name),
            count,
            {"dataset": builder.info.full_name, "split": name, "count": count, "texts": texts_key},
            megabytes(count),
            attributes=attributes or {},
        )

    return {own_name: split(name) for own_name, name in names.items()}


def _english_only(source, language):
    if language != "en":
        raise ValueError(f"Expected language to be 'en' for {source!r}. Received: language={language!r}")


# --- images ---


def _image_splits(
    builder,
    names,
    size,
    crop,
    *,
    text_fields,
    to_texts,
    texts_key="",
    to_labels=None,
    attributes=None,
    fields=(),
):
    def resized(image):
        return images.resize(images.crop(image) if crop else image, size)

    def to_example(record):
        image = record["image"]  # (H, W, 1 or 3) uint8
        if image.shape[-1] == 1:
            image = tf.image.grayscale_to_rgb(image)  # (H, W, 3)
        if image.shape[:2] != (size, size):
            # Pillow, as for every other image: training and inference see the same pixels.
            image = tf.ensure_shape(tf.numpy_function(resized, [image], tf.uint8), (size, size, 3))
        example = {"image": image, "captions": to_texts(record)} | {name: record[name] for name in fields}
        return example | {"labels": to_labels(record)} if to_labels else example

    return read_splits(
        builder,
        names,
        inputs={"image": True} | dict.fromkeys(fields, True),
        text_fields=text_fields,
        to_example=to_example,
        to_texts=to_texts,
        megabytes=lambda count: count * size**2 * 3 / 2**20,
        attributes=attributes,
        texts_key=texts_key,
    )


def toy_images(
    source: str, language: str, size: int, crop: bool, *, objects: int = 1, data_dir: str | None = None
) -> dict[str, Split]:
    """The toy world's images, with all phrasings of their captions and with labels."""
    from mmkeras.toy import builders

    builder = builders.toy_images(size, objects, data_dir)
    features = builder.info.features
    names = ("size", "color", "shape") + (("place",) if objects == 1 else ())
    classes = {name: tuple(features["things"][name].names) for name in names}
    if objects == 1:
        classes["place"] = classes["place"][:-1]  # the last class, "by relation", is for scenes of two things
    suffixes = [""] if objects == 1 else ["", " 2"]
    attributes = {name + suffix: classes[name] for suffix in suffixes for name in classes}
    if objects == 2:
        attributes["relation"] = tuple(features["relation"].names)

    def to_labels(record):
        labels = {
            name + suffix: record["things"][name][number]
            for number, suffix in enumerate(suffixes)
            for name in classes
        }
        return labels | ({"relation": record["relation"]} if objects == 2 else {})

    return _image_splits(
        builder,
        {name: name for name in builders.EXAMPLES},
        size,
        crop,
        text_fields={"captions": {language}, "things": set(names), "relation": True},
        to_texts=lambda record: record["captions"][language],
        texts_key=language,
        to_labels=to_labels,
        attributes=attributes,
    )


def emoji_images(
    source: str,
    language: str,
    size: int,
    crop: bool,
    *,
    artists: Mapping[str, str | os.PathLike | None] | None = None,
    data_dir: str | None = None,
) -> dict[str, Split]:
    """Emoji with their names. Examples also have the number of their emoji, "concept" () int64."""
    from mmkeras.data import emoji

    builder = emoji.emoji_images(size, artists, data_dir)
    return _image_splits(
        builder,
        {name: name for name in emoji.SPLITS if name in builder.info.splits},
        size,
        crop,
        text_fields={"captions": {language}},
        to_texts=lambda record: record["captions"][language],
        texts_key=language,
        fields=("concept",),
    )


def coco_captions(
    source: str, language: str, size: int, crop: bool, *, data_dir: str | None = None
) -> dict[str, Split]:
    """COCO's images, each with about five captions."""
    _english_only(source, language)
    return _image_splits(
        prepared(source, data_dir),
        # Karpathy's split, as papers use it: "restval" is trained on as well.
        {"train": "train+restval", "validation": "val", "test": "test"},
        size,
        crop,
        text_fields={"captions": {"text"}},
        to_texts=lambda record: record["captions"]["text"],
    )


def labeled_images(
    source: str, language: str, size: int, crop: bool, *, data_dir: str | None = None
) -> dict[str, Split]:
    """Images with one label each; their captions are made from the label's name."""
    _english_only(source, language)
    builder = prepared(source, data_dir)
    names = label_names(source, builder.info.features["label"].names)
    texts = [phrasings(name, PHRASINGS[source]) for name in names]
    captions = tf.constant(texts)  # (labels, phrasings)
    if "validation" in builder.info.splits:
        splits = {"train": "train", "validation": "validation", "test": "test"}
    else:
        splits = {"validation": "train[90%:]", "train": "train[:90%]", "test": "test"}
    return _image_splits(
        builder,
        splits,
        size,
        crop,
        text_fields={"label": True},
        to_texts=lambda record: captions[record["label"]],
        texts_key=cache.digest(texts),
        to_labels=lambda record: {"label": record["label"]},
        attributes={"label": names},
    )


# --- clips ---


def _resampled(samples, from_hz, to_hz):
    def convert(samples):
        return audio.resample(audio.without_offset(samples), from_hz, to_hz)

    samples = tf.cast(samples, tf.int16)  # TFDS stores some as int64
    return tf.ensure_shape(tf.numpy_function(convert, [samples], tf.int16), (None,))


def toy_clips(
    source: str,
    language: str,
    rate: int,
    *,
    snr_db: float | None = 20.0,
    syllables: bool = False,
    data_dir: str | None = None,
) -> dict[str, Split]:
    """The toy world's captions, spoken, with white noise at a signal-to-noise ratio of `snr_db`."""
    from mmkeras.toy import builders, speak

    if snr_db is not None and (not isinstance(snr_db, Real) or not math.isfinite(snr_db)):
        raise ValueError(f"Expected snr_db to be a number of dB, or None. Received: snr_db={snr_db!r}")
    builder = builders.toy_speech(language, data_dir, syllables)

    def split(name, number):
        def to_example(record):
            samples = _resampled(record["audio"], speak.SAMPLE_RATE_HZ, rate)
            if snr_db is not None:
                seed = tf.stack([tf.cast(number, tf.int64), record["index"]])
                noisy = tf.cast(samples, tf.float32)[None]  # (1, n)
                noisy = pipeline.add_white_noise(noisy, tf.size(samples), snr_db, seed)[0]
                samples = tf.cast(tf.clip_by_value(tf.round(noisy), -(2.0**15), 2.0**15 - 1), tf.int16)
            clip = tf.strings.join([name, tf.strings.as_string(record["index"])], " ")
            return {"audio": samples, "transcript": record["caption"], "name": clip}

        split = read_splits(
            builder,
            {name: name},
            inputs={"audio": True, "index": True},
            text_fields={"caption": True},
            to_example=to_example,
            to_texts=lambda record: record["caption"][None],
            megabytes=lambda count: count * TOY_SECONDS * rate * BYTES_PER_SAMPLE / 2**20,
        )[name]
        # The captions are generated again, since reading them from the files would read all the audio.
        texts = functools.partial(_toy_texts, name, split.count, language)
        return dataclasses.replace(split, texts=texts)

    return {name: split(name, number) for number, name in enumerate(builder.info.splits)}


def _toy_texts(name, count, language):
    from mmkeras.toy import speak

    return ([speak.caption(name, index, language)] for index in range(count))


def librispeech(
    source: str,
    language: str,
    rate: int,
    *,
    train: str = "train_clean100+train_clean360+train_other500",
    data_dir: str | None = None,
) -> dict[str, Split]:
    """LibriSpeech. `train` is a split in TFDS's syntax."""
    names = {"train": train, "validation": "dev_clean", "test": "test_clean"}
    return _transcribed(source, language, rate, data_dir, names, "text", 16_000)


def ljspeech(source: str, language: str, rate: int, *, data_dir: str | None = None) -> dict[str, Split]:
    """LJSpeech, which has no splits. The passages are in order, so the last ones are from other chapters."""
    names = {"train": "train[:90%]", "validation": "train[90%:95%]", "test": "train[95%:]"}
    return _transcribed(source, language, rate, data_dir, names, "text_normalized", 22_050)


def _transcribed(source, language, rate, data_dir, names, text, source_rate):
    _english_only(source, language)

    def to_example(record):
        samples = _resampled(record["speech"], source_rate, rate)
        return {"audio": samples, "transcript": record[text], "name": record["id"]}

    return read_splits(
        prepared(source, data_dir),
        names,
        inputs={"speech": True, "id": True},
        text_fields={text: True},
        to_example=to_example,
        to_texts=lambda record: record[text][None],
    )


def speech_commands(source: str, language: str, rate: int, *, data_dir: str | None = None) -> dict[str, Split]:
    """Speech Commands without `_silence_` and `_unknown_`, which have no transcript."""
    _english_only(source, language)
    builder = prepared(source, data_dir)
    labels = builder.info.features["label"]
    words = tf.constant([name if not name.startswith("_") else "" for name in labels.names])

    def to_example(record):
        word = words[record["label"]]
        return {"audio": _resampled(record["audio"], 16_000, rate), "transcript": word, "name": word}

    return read_splits(
        builder,
        {name: name for name in ("train", "validation", "test")},
        inputs={"audio": True},
        text_fields={"label": True},
        to_example=to_example,
        to_texts=lambda record: words[record["label"]][None],
        keep=lambda record: words[record["label"]] != "",
    )
