"""TensorFlow Datasets: the toy world, captions, labels put into words, and transcripts."""

import dataclasses
import functools
import math
from collections.abc import Callable
from numbers import Real

import tensorflow as tf

from mmkeras.data import pipeline
from mmkeras.data.folder import BYTES_PER_SAMPLE
from mmkeras.data.labels import PHRASINGS, label_names, phrasings
from mmkeras.data.task_data import Split
from mmkeras.media import audio, images


def prepared(name: str, data_dir: str | None):
    """The builder of a dataset, which is downloaded and prepared on first use."""
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir)
    builder.download_and_prepare()
    return builder


def read_split(
    builder,
    name: str,
    *,
    inputs: dict,
    text_fields: dict,
    to_example: Callable,
    to_texts: Callable,
    megabytes: float | Callable[[int], float] = math.inf,
    keep: Callable | None = None,
    attributes: dict | None = None,
) -> Split:
    """A split of a dataset. What is not asked for is not decoded.

    Args:
        builder: Of the dataset.
        name: str. The split in TFDS's own words, such as `"train[:90%]"`.
        inputs: The features that `to_example` reads besides `text_fields`, for `tfds.decode.PartialDecoding`.
        text_fields: The features that `to_texts` reads.
        to_example: record -> example.
        to_texts: record -> (n,) string.
        megabytes: float, or a function of the number of examples. Size of the decoded inputs.
        keep: record of `text_fields` -> bool, whether it is of use. Defaults to all.
        attributes: {attribute: class names} of the examples' labels.
    """
    import tensorflow_datasets as tfds

    def read(fields):
        decoders = tfds.decode.PartialDecoding(fields)
        dataset = builder.as_dataset(split=name, decoders=decoders, shuffle_files=False)
        return dataset if keep is None else dataset.filter(keep)

    def examples():
        return read(text_fields | inputs).map(to_example, num_parallel_calls=tf.data.AUTOTUNE)

    def texts():
        for record in read(text_fields).map(to_texts).as_numpy_iterator():
            yield [text.decode() for text in record]

    count = int(builder.as_dataset(split=name, shuffle_files=False).cardinality())
    made_from = {"dataset": builder.info.full_name, "split": name, "count": count}
    if callable(megabytes):
        megabytes = megabytes(count)
    return Split(examples, texts, count, made_from, megabytes, attributes=attributes or {})


def _english_only(source, language):
    if language != "en":
        raise ValueError(f"{source!r} is in English, expected language='en'. Received: language={language!r}")


# --- images ---


def _image_split(builder, name, size, crop, *, text_fields, to_texts, to_labels=None, attributes=None):
    def resized(image):
        return images.resize(images.crop(image) if crop else image, size)

    def to_example(record):
        image = record["image"]
        if image.shape[-1] == 1:
            image = tf.image.grayscale_to_rgb(image)
        if image.shape[:2] != (size, size):
            # Pillow, as for every other image: training and inference see the same pixels.
            image = tf.ensure_shape(tf.numpy_function(resized, [image], tf.uint8), (size, size, 3))
        example = {"image": image, "captions": to_texts(record)}
        return example | {"labels": to_labels(record)} if to_labels else example

    return read_split(
        builder,
        name,
        inputs={"image": True},
        text_fields=text_fields,
        to_example=to_example,
        to_texts=to_texts,
        megabytes=lambda count: count * size**2 * 3 / 2**20,
        attributes=attributes,
    )


def toy_images(source, language, size, crop, *, objects=1, data_dir=None) -> dict[str, Split]:
    from mmkeras.toy import builders

    builder = builders.toy_pictures(size, objects, data_dir)
    features = builder.info.features
    names = ("size", "color", "shape") + (("place",) if objects == 1 else ())
    classes = {name: tuple(features["things"][name].names) for name in names}
    if objects == 1:
        classes["place"] = classes["place"][:-1]  # the last class says that a relation tells the place
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

    text_fields = {"captions": {language}, "things": set(names), "relation": True}
    return {
        name: _image_split(
            builder,
            name,
            size,
            crop,
            text_fields=text_fields,
            to_texts=lambda record: record["captions"][language],
            to_labels=to_labels,
            attributes=attributes,
        )
        for name in builders.EXAMPLES
    }


def coco_captions(source, language, size, crop, *, data_dir=None) -> dict[str, Split]:
    _english_only(source, language)
    builder = prepared(source, data_dir)
    # Karpathy's split, as papers use it: "restval" is trained on as well.
    names = {"train": "train+restval", "validation": "val", "test": "test"}
    return {
        split: _image_split(
            builder,
            name,
            size,
            crop,
            text_fields={"captions": {"text"}},
            to_texts=lambda record: record["captions"]["text"],
        )
        for split, name in names.items()
    }


def labeled_images(source, language, size, crop, *, data_dir=None) -> dict[str, Split]:
    """Images with one label each; their captions are made from the label's name."""
    _english_only(source, language)
    builder = prepared(source, data_dir)
    names = label_names(source, builder.info.features["label"].names)
    captions = tf.constant([phrasings(name, PHRASINGS[source]) for name in names])  # (labels, phrasings)
    if "validation" in builder.info.splits:
        splits = {"train": "train", "validation": "validation", "test": "test"}
    else:
        splits = {"validation": "train[90%:]", "train": "train[:90%]", "test": "test"}
    return {
        split: _image_split(
            builder,
            name,
            size,
            crop,
            text_fields={"label": True},
            to_texts=lambda record: captions[record["label"]],
            to_labels=lambda record: {"label": record["label"]},
            attributes={"label": names},
        )
        for split, name in splits.items()
    }


# --- clips ---

_TOY_SECONDS = 2.2  # mean duration of an utterance


def _resampled(samples, from_hz, to_hz):
    samples = tf.cast(samples, tf.int16)  # TFDS keeps some as int64
    if from_hz != to_hz:
        samples = tf.numpy_function(lambda x: audio.resample(x, from_hz, to_hz), [samples], tf.int16)
        samples = tf.ensure_shape(samples, (None,))
    return samples


def toy_clips(source, language, rate, *, snr_db=20.0, data_dir=None) -> dict[str, Split]:
    from mmkeras.toy import builders, speak

    if snr_db is not None and (not isinstance(snr_db, Real) or not math.isfinite(snr_db)):
        raise ValueError(f"Expected snr_db to be a number of dB, or None. Received: snr_db={snr_db!r}")
    builder = builders.toy_speech(language, data_dir)

    def split(name, number):
        def to_example(record):
            samples = _resampled(record["audio"], speak.SAMPLE_RATE_HZ, rate)
            if snr_db is not None:
                seed = tf.stack([tf.cast(number, tf.int64), record["index"]])
                noisy = tf.cast(samples, tf.float32)[None]
                noisy = pipeline.add_white_noise(noisy, tf.size(samples), snr_db, seed)[0]
                samples = tf.cast(tf.clip_by_value(tf.round(noisy), -(2.0**15), 2.0**15 - 1), tf.int16)
            index = tf.strings.as_string(record["index"])
            return {
                "audio": samples,
                "transcript": record["caption"],
                "name": tf.strings.join([name, index], " "),
            }

        split = read_split(
            builder,
            name,
            inputs={"audio": True, "index": True},
            text_fields={"caption": True},
            to_example=to_example,
            to_texts=lambda record: record["caption"][None],
            megabytes=lambda count: count * _TOY_SECONDS * rate * BYTES_PER_SAMPLE / 2**20,
        )
        # made anew, since reading them from the files would read all the audio
        texts = functools.partial(_toy_texts, name, split.count, language)
        return dataclasses.replace(split, texts=texts)

    return {name: split(name, number) for number, name in enumerate(builder.info.splits)}


def _toy_texts(name, count, language):
    from mmkeras.toy import speak

    return ([speak.caption(name, index, language)] for index in range(count))


def librispeech(
    source, language, rate, *, train="train_clean100+train_clean360+train_other500", data_dir=None
) -> dict[str, Split]:
    names = {"train": train, "validation": "dev_clean", "test": "test_clean"}
    return _transcribed(source, language, rate, data_dir, names, "text", 16_000)


def ljspeech(source, language, rate, *, data_dir=None) -> dict[str, Split]:
    # It has no splits of its own. The passages are in order, so the last ones are from other chapters.
    names = {"train": "train[:90%]", "validation": "train[90%:95%]", "test": "train[95%:]"}
    return _transcribed(source, language, rate, data_dir, names, "text_normalized", 22_050)


def _transcribed(source, language, rate, data_dir, names, text, source_rate):
    _english_only(source, language)
    builder = prepared(source, data_dir)

    def to_example(record):
        samples = _resampled(record["speech"], source_rate, rate)
        return {"audio": samples, "transcript": record[text], "name": record["id"]}

    return {
        split: read_split(
            builder,
            name,
            inputs={"speech": True, "id": True},
            text_fields={text: True},
            to_example=to_example,
            to_texts=lambda record: record[text][None],
        )
        for split, name in names.items()
    }


def speech_commands(source, language, rate, *, data_dir=None) -> dict[str, Split]:
    _english_only(source, language)
    builder = prepared(source, data_dir)
    labels = builder.info.features["label"]
    words = tf.constant([name if not name.startswith("_") else "" for name in labels.names])

    def to_example(record):
        word = words[record["label"]]
        return {"audio": _resampled(record["audio"], 16_000, rate), "transcript": word, "name": word}

    return {
        split: read_split(
            builder,
            split,
            inputs={"audio": True},
            text_fields={"label": True},
            to_example=to_example,
            to_texts=lambda record: words[record["label"]][None],
            keep=lambda record: words[record["label"]] != "",  # "_silence_" and "_unknown_" have no words
        )
        for split in ("train", "validation", "test")
    }
