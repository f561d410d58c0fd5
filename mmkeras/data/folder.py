"""A user's own data: a folder with images, clips or videos and tables of captions, transcripts or labels, or a
dataset of Hugging Face."""

import itertools
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from mmkeras._utils import checks, terminal
from mmkeras.data import cache, hugging_face, tables, task_data
from mmkeras.data.task_data import Item, SkippedExamples, Split
from mmkeras.media import audio, images

BYTES_PER_SAMPLE = 2  # int16, as all audio in tf.data
SPARE_SECONDS = 1.0  # how much longer than its table says a clip may last; some tables round


@dataclass(frozen=True)
class MediaReader:
    """How the files of a folder become examples.

    Attributes:
        kind: str. `"captions"`, `"transcripts"`, `"videos"` or `"questions"`.
        load: what `Item.open` returns → array. Raises ValueError or OSError if it cannot be read.
        check: (the same, number of files) → its measure: side in pixels, or seconds. Raises as `load`.
        example: (array, texts (n,), file name, label or "", answers (n,) of questions) tensors → example.
        dtype: Type of the arrays.
        megabytes: measure → size of an array in memory.
    """

    kind: str
    load: Callable[[Any], np.ndarray]
    check: Callable[[Any, int], float]
    example: Callable[..., dict]
    dtype: tf.DType
    megabytes: Callable[[float], float]


def images_from_folder(
    source: str | os.PathLike, language: str, size: int, crop: bool, kind: str = "captions", **options
) -> dict[str, Split]:
    """Images with captions, or with questions and their "answers", see `read`.

    Args:
        size: int. Side in pixels that images are resized to.
        crop: bool. Whether to crop to the square in the middle first.
        kind: str. `"captions"` or `"questions"`. Defaults to `"captions"`.
    """
    megabytes = size**2 * 3 / 2**20

    def load(image):
        image = images.read(image)
        return images.resize(images.crop(image) if crop else image, size)

    def check(image, count):
        # Decoding every image finds all damaged ones. Of a large folder only the headers are read.
        if count * megabytes <= task_data.IN_MEMORY_MB or not isinstance(image, Path):
            return min(images.read(image).shape[:2])
        return min(images.check(image))

    def example(image, texts, name, label, answers):
        example = {"image": tf.ensure_shape(image, (size, size, 3)), "captions": texts}
        return example | ({"answers": answers} if kind == "questions" else {})

    reader = MediaReader(kind, load, check, example, tf.uint8, lambda _: megabytes)
    splits, sides, rows = read(source, reader, **options)
    small = [row.file for row, side in zip(rows, sides, strict=True) if side < size]
    if crop and small:
        terminal.warn(
            f"{len(small)} of {len(rows)} images are smaller than {size} pixels and are enlarged, the first is "
            f"{small[0]}."
        )
    return splits


def clips_from_folder(source: str | os.PathLike, language: str, rate: int, **options) -> dict[str, Split]:
    """Clips with transcripts, see `read`.

    Args:
        rate: int. Sample rate in Hz that clips are resampled to.
    """

    def example(samples, texts, name, label, answers):
        return {"audio": tf.ensure_shape(samples, (None,)), "transcript": texts[0], "name": name}

    reader = MediaReader(
        "transcripts",
        load=lambda clip: audio.to_int16(audio.read(clip, rate)),
        check=lambda clip, count: len(clip[1]) / clip[0] if audio.is_pair(clip) else audio.check(clip).seconds,
        example=example,
        dtype=tf.int16,
        megabytes=lambda seconds: seconds * rate * BYTES_PER_SAMPLE / 2**20,
    )
    return read(source, reader, **options)[0]


def read(
    source: str | os.PathLike,
    reader: MediaReader,
    *,
    table: str | None = None,
    encoding: str = "utf-8-sig",
    file_column: str | int | None = None,
    text_column: str | int | None = None,
    validation_share: float = 0.1,
    test_share: float = 0.1,
) -> tuple[dict[str, Split], list[float], list[tables.Row]]:
    """The splits of a folder or a dataset. Files that cannot be read are left out, and a warning names and
    counts them.

    Args:
        source: str or path, the folder; or a dataset, see `mmkeras.data.hugging_face`.
        reader: `MediaReader`.
        table: str, optional. Name of the table. Defaults to the tables that `tables.find` finds.
        encoding, file_column, text_column: See `mmkeras.data.tables.read`.
        validation_share, test_share: float. Shares of the files, if the tables have no splits. Default to 0.1.

    Returns:
        The splits by name; of all files the measures and the rows of the tables.

    Raises:
        ValueError: if an argument is invalid, a table is malformed, or no file can be read.
        FileNotFoundError: if none of the files in the tables exists.
    """
    if hugging_face.is_dataset(source):
        title = hugging_face.title(source)
        rows, items = hugging_face.read(source, reader.kind, file_column, text_column)
    else:
        title, kind = str(Path(source)), reader.kind
        rows = tables.read(tables.find(Path(source), table, kind), encoding, kind, file_column, text_column)
        rows, paths = tables.locate(Path(source), rows, kind)
        items = list(map(_item, paths))
    skipped = SkippedExamples(title)

    def measure(row, item):
        try:
            measure = reader.check(item.open(), len(items))
            if row.seconds and reader.kind == "transcripts" and measure > row.seconds + SPARE_SECONDS:
                raise ValueError(
                    f"{item.name} lasts {measure:.2f} s, and its transcript is of {row.seconds:g} s. Cut it."
                )
            return measure
        except (ValueError, OSError) as error:
            skipped(item.name, _reason(item, error))
            return None

    with ThreadPoolExecutor() as pool:
        measures = list(pool.map(measure, rows, items))
    files = [file for file in zip(rows, items, measures, strict=True) if file[2] is not None]
    if not files:
        raise ValueError(
            f"Expected files that can be read in {title}. Received: none of {len(rows)}: {skipped.first}"
        )
    rows, _, measures = map(list, zip(*files, strict=True))
    splits = {
        name: _split(reader, [files[i] for i in numbers], skipped)
        for name, numbers in divide(rows, validation_share, test_share).items()
    }
    return splits, measures, rows


def _item(path):
    stat = path.stat()
    return Item(path.name, lambda: path, (path.name, stat.st_size, stat.st_mtime_ns))


def _reason(item, error):
    return str(error) if item.name in str(error) else f"{item.name}: {error}"


def _split(reader, files, skipped):
    rows, items, measures = zip(*files, strict=True)
    texts, answers = [row.texts for row in rows], [row.answers for row in rows]

    def load(number):
        item = items[number]
        try:
            return reader.load(item.open()), True
        except (ValueError, OSError) as error:
            skipped(item.name, _reason(item, error))
            return reader.dtype.as_numpy_dtype(), False

    def with_array(number, *facts):
        array, is_usable = tf.numpy_function(load, [number], (reader.dtype, tf.bool))
        return array, *facts, tf.ensure_shape(is_usable, ())

    def examples():
        ragged, of_questions = map(_ragged, (texts, answers))
        names, labels = [item.name for item in items], [row.label or "" for row in rows]
        numbers = np.arange(len(items))
        dataset = tf.data.Dataset.from_tensor_slices((numbers, ragged, names, labels, of_questions))
        dataset = dataset.map(with_array, num_parallel_calls=tf.data.AUTOTUNE)
        dataset = dataset.filter(lambda *parts: parts[-1])
        return dataset.map(lambda *parts: reader.example(*parts[:-1]))

    facts = [(*item.facts, *content) for item, *content in zip(items, texts, answers, strict=True)]
    megabytes = sum(map(reader.megabytes, measures))
    fingerprint = {"files": cache.digest(*facts)}
    counts = Counter(answer for of_file in answers for answer in of_file)
    classes = {"answer": tuple(answer for answer, _ in counts.most_common())} if counts else {}
    return Split(
        examples, lambda: iter(texts), len(items), fingerprint, megabytes, measures, classes, skipped=skipped
    )


def _ragged(lists):
    """N lists of str → (N, None) string. `tf.ragged.constant` takes time in proportion to N²."""
    flat = tf.constant(list(itertools.chain.from_iterable(lists)), tf.string)
    return tf.RaggedTensor.from_row_lengths(flat, np.array(list(map(len, lists))))


def divide(rows: Sequence[tables.Row], validation_share: float, test_share: float) -> dict[str, list[int]]:
    """The numbers of the rows of each split: as the tables say, otherwise by speaker, otherwise by file.

    The order within a split is shuffled, since tables often go by subject or speaker.

    Args:
        rows: Rows of the tables.
        validation_share, test_share: float. Shares of the rows, if the tables have no splits.

    Raises:
        ValueError: if the shares leave nothing to train on.
    """
    checks.numbers(0, validation_share=validation_share, test_share=test_share)
    if validation_share + test_share >= 1:
        raise ValueError(
            f"Expected validation_share and test_share to be less than 1 together. "
            f"Received: validation_share={validation_share}, test_share={test_share}"
        )
    shares = {"test": test_share, "validation": validation_share}
    if any(row.split for row in rows):
        names = [row.split or "train" for row in rows]
    elif len({row.speaker for row in rows} - {None}) > 1:
        names = _by_speaker(rows, shares)
    else:
        names = [_by_hash(row.file, shares) for row in rows]
    splits: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        splits.setdefault(name, []).append(number)
    for numbers in splits.values():
        random.Random(0).shuffle(numbers)
    return splits


def _by_hash(name, shares):
    """A split chosen by the hash of a name, so that a file keeps its split if others are added or removed."""
    fraction, limit = int(cache.digest(name), 16) / 16**16, 0.0  # 16 hexadecimal digits as a number in 0..1
    for split, share in shares.items():
        limit += share
        if fraction < limit:
            return split
    return "train"


def _by_speaker(rows, shares):
    """The split of each row. Each speaker is in one split, since a model recognizes voices from its training
    better. The speakers with the fewest clips are held out, so that many voices are tested and the shares are
    met closely."""
    speakers = [row.speaker or row.file for row in rows]
    clips = Counter(speakers)
    order = sorted(clips, key=lambda speaker: (clips[speaker], cache.digest(speaker)))
    splits = dict.fromkeys(clips, "train")
    for split, share in shares.items():
        held_out, wanted = 0, max(1, round(share * len(rows))) if share else 0
        while held_out < wanted and len(order) > 1:  # at least one speaker trains
            speaker = order.pop(0)
            splits[speaker] = split
            held_out += clips[speaker]
    return [splits[speaker] for speaker in speakers]
