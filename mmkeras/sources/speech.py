"""Clips with transcripts: the toy world, TensorFlow Datasets, a folder with a table of transcripts.

A split's examples are {"audio": (n,) int16 at the rate asked for, "transcript": string, "name": string}.
What cannot be read has no samples; the caller leaves it out.
"""

import math
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from numbers import Real
from pathlib import Path

import tensorflow as tf

from mmkeras import audio, cache, caller, sources, tables
from mmkeras.sources import Split

# int16; the same for all that goes through tf.data
BYTES_A_SAMPLE = 2


def read(source: str | os.PathLike, language: str, sample_rate_hz: int, **options) -> dict[str, Split]:
    """The splits of a source, by name.

    Args:
        source: `"toy"`, `"librispeech"`, `"ljspeech"`, `"speech_commands"`, or a folder.
        language: of the transcripts, `"en"` or `"zh"`.
        sample_rate_hz: that clips are brought to.
        options: of the source, see `mmkeras.speech_to_text.data`.
    """
    return sources.choose(source, SOURCES, _folder, language, sample_rate_hz, **options)


class LeftOut:
    """Counts the clips that cannot be used and says, once each, which and why. `first`: why the first is."""

    def __init__(self, title: str):
        self.title = title
        self.first: str | None = None
        self._names: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, name: str, reason: str) -> None:
        reason = reason.removesuffix(".") + "."
        with self._lock:
            if name in self._names:
                return
            self._names.add(name)
            self.first = self.first or reason
            number = len(self._names)
        caller.warn(f"{self.title}: {reason} The clip is left out ({number} so far).")


# --- the toy world ---

_TOY_SECONDS = 2.2  # of an utterance, on average


def _toy(source, language, rate, *, snr_db=20.0, data_dir=None):
    from mmkeras.toy import builders, speak

    if snr_db is not None and (not isinstance(snr_db, Real) or not math.isfinite(snr_db)):
        raise ValueError(f"Expected snr_db to be a number of dB, or None. Received: snr_db={snr_db!r}")
    builder = builders.toy_speech(language, data_dir)
    counts = {name: info.num_examples for name, info in builder.info.splits.items()}

    def split(name, number):
        def example(record):
            sound = _resampled(record["audio"], speak.SAMPLE_RATE_HZ, rate)
            if snr_db is not None:
                seed = tf.stack([tf.cast(number, tf.int64), record["index"]])
                sound = with_noise(sound, snr_db, seed)
            return {"audio": sound, "transcript": record["caption"], "name": _numbered(name, record["index"])}

        def texts():  # as it was said; reading it back would take all the sound along
            return ([speak.caption(name, index, language)] for index in range(counts[name]))

        read = _tfds_split(builder, name, example, "caption")
        return replace(read, texts=texts, megabytes=counts[name] * _TOY_SECONDS * rate * BYTES_A_SAMPLE / 2**20)

    return {name: split(name, number) for number, name in enumerate(counts)}


def with_noise(sound: tf.Tensor, snr_db: float, seed: tf.Tensor) -> tf.Tensor:
    """White noise under a clip (n,) int16, at a signal-to-noise ratio: the clip's mean power to the noise's.

    The same seed (2 ints), the same noise, on every machine.
    """
    sound = tf.cast(sound, tf.float32)
    power = tf.reduce_mean(sound**2) / 10 ** (snr_db / 10)
    sound += tf.sqrt(power) * tf.random.stateless_normal(tf.shape(sound), seed)
    return tf.cast(tf.clip_by_value(tf.round(sound), -(2.0**15), 2.0**15 - 1), tf.int16)


# --- TensorFlow Datasets ---


def _librispeech(
    source, language, rate, *, train="train_clean100+train_clean360+train_other500", data_dir=None
):
    _english_only(source, language)
    builder = _prepared("librispeech", data_dir)
    names = {"train": train, "validation": "dev_clean", "test": "test_clean"}

    def example(record):
        sound = _resampled(record["speech"], 16_000, rate)
        return {"audio": sound, "transcript": record["text"], "name": record["id"]}

    return {split: _tfds_split(builder, name, example, "text") for split, name in names.items()}


def _ljspeech(source, language, rate, *, data_dir=None):
    _english_only(source, language)
    builder = _prepared("ljspeech", data_dir)
    # it has no splits of its own; the passages follow one another, so the last ones are from other chapters
    names = {"train": "train[:90%]", "validation": "train[90%:95%]", "test": "train[95%:]"}

    def example(record):
        sound = _resampled(record["speech"], 22_050, rate)
        return {"audio": sound, "transcript": record["text_normalized"], "name": record["id"]}

    return {split: _tfds_split(builder, name, example, "text_normalized") for split, name in names.items()}


def _speech_commands(source, language, rate, *, data_dir=None):
    _english_only(source, language)
    builder = _prepared("speech_commands", data_dir)
    labels = builder.info.features["label"]
    words = tf.constant([name if not name.startswith("_") else "" for name in labels.names])

    def example(record):
        sound = _resampled(record["audio"], 16_000, rate)
        word = words[record["label"]]
        return {"audio": sound, "transcript": word, "name": word}

    def is_word(record):  # "_silence_" and "_unknown_" say nothing that could be written down
        return words[record["label"]] != ""

    return {
        split: _tfds_split(builder, split, example, "label", labels.int2str, is_word)
        for split in ("train", "validation", "test")
    }


def _prepared(name, data_dir):
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir)
    builder.download_and_prepare()
    return builder


def _tfds_split(builder, name, example, field, to_text=bytes.decode, keep=None, megabytes=None):
    """`field`: which part of the dataset is the text, made readable by `to_text`."""
    import tensorflow_datasets as tfds

    def read(**parts):
        return builder.as_dataset(split=name, shuffle_files=False, **parts)

    def examples():
        dataset = read() if keep is None else read().filter(keep)
        return dataset.map(example, num_parallel_calls=tf.data.AUTOTUNE)

    def texts() -> Iterator[list[str]]:
        for record in read(decoders=tfds.decode.PartialDecoding({field})).as_numpy_iterator():
            text = to_text(record[field])
            if not text.startswith("_"):
                yield [text]

    count = int(read().cardinality())
    return Split(examples, texts, count, {"dataset": builder.info.full_name, "split": name}, megabytes)


def _english_only(source, language):
    if language != "en":
        raise ValueError(f"{source!r} is English. Received: language={language!r}")


def _numbered(name, index):
    return tf.strings.join([name, tf.strings.as_string(index)], " ")


def _resampled(sound, from_hz, to_hz):
    sound = tf.cast(sound, tf.int16)  # TFDS keeps some as int64
    if from_hz != to_hz:
        sound = tf.numpy_function(lambda x: audio.resample(x, from_hz, to_hz), [sound], tf.int16)
        sound = tf.ensure_shape(sound, (None,))
    return sound


# --- a folder of one's own ---


def _folder(source, language, rate, *, table=None, encoding="utf-8-sig", validation_share=0.1, test_share=0.1):
    folder = Path(source)
    rows = tables.read(tables.find(folder, table, of="transcripts"), encoding, of="transcripts")
    rows, paths = tables.locate(folder, rows, of="transcripts")
    left_out = LeftOut(str(folder))

    def look(path):
        try:
            return audio.check(path).seconds
        except ValueError as error:
            left_out(path.name, str(error))
            return None

    with ThreadPoolExecutor() as pool:
        seconds = list(pool.map(look, paths))
    whole = [i for i, length in enumerate(seconds) if length is not None]
    if not whole:
        raise ValueError(f"None of the {len(rows)} clips in {folder} can be read.")
    rows, paths, seconds = ([every[i] for i in whole] for every in (rows, paths, seconds))
    return {
        name: _folder_split([(paths[i], rows[i].texts[0], seconds[i]) for i in numbers], rate, left_out)
        for name, numbers in sources.divide(rows, validation_share, test_share).items()
    }


def _folder_split(clips, rate, left_out):
    def load(path):
        path = path.decode()
        try:
            return audio.to_int16(audio.read(path, rate))
        except (ValueError, OSError) as error:
            left_out(Path(path).name, str(error))
            return audio.to_int16([])

    def examples():
        def example(path, text, name):
            sound = tf.ensure_shape(tf.numpy_function(load, [path], tf.int16), (None,))
            return {"audio": sound, "transcript": text, "name": name}

        dataset = tf.data.Dataset.from_tensor_slices(
            ([str(path) for path, *_ in clips], [text for _, text, _ in clips], [p.name for p, *_ in clips])
        )
        return dataset.map(example, num_parallel_calls=tf.data.AUTOTUNE)

    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns, text) for path, text, _ in clips]
    seconds = [length for *_, length in clips]
    megabytes = sum(seconds) * rate * BYTES_A_SAMPLE / 2**20
    texts = [[text] for _, text, _ in clips]
    files = {"files": cache.digest(*facts)}
    return Split(examples, lambda: iter(texts), len(clips), files, megabytes, seconds)


SOURCES = {
    "toy": _toy,
    "librispeech": _librispeech,
    "ljspeech": _ljspeech,
    "speech_commands": _speech_commands,
}
