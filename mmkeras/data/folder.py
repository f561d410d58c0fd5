"""A user's folder: images, clips or videos with tables of captions, transcripts or labels."""

import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from mmkeras._utils import checks, terminal
from mmkeras.data import cache, tables, task_data
from mmkeras.data.task_data import SkippedExamples, Split
from mmkeras.media import audio, images

BYTES_PER_SAMPLE = 2  # int16, as all audio in tf.data
SPARE_SECONDS = 1.0  # how much longer than its table says a clip may last; some tables round


@dataclass(frozen=True)
class MediaReader:
    """How the files of a folder become examples.

    Attributes:
        kind: str. `"captions"`, `"transcripts"` or `"videos"`.
        load: path → array. Raises ValueError or OSError if the file cannot be read.
        check: (path, number of files) → measure of the file: side in pixels, or seconds. Raises as `load`.
        example: (array, texts (n,), file name, label or "") tensors → example.
        dtype: Type of the arrays.
        megabytes: measure → size of an array in memory.
    """

    kind: str
    load: Callable[[Path], np.ndarray]
    check: Callable[[Path, int], float]
    example: Callable[..., dict]
    dtype: tf.DType
    megabytes: Callable[[float], float]


def images_from_folder(
    source: str | os.PathLike, language: str, size: int, crop: bool, **options
) -> dict[str, Split]:
    """Images with captions, see `read`.

    Args:
        size: int. Side in pixels that images are resized to.
        crop: bool. Whether to crop to the square in the middle first.
    """
    megabytes = size**2 * 3 / 2**20

    def load(path):
        image = images.read(path)
        return images.resize(images.crop(image) if crop else image, size)

    def check(path, count):
        # Decoding every image finds all damaged ones. Of a large folder only the headers are read.
        if count * megabytes <= task_data.IN_MEMORY_MB:
            return min(images.read(path).shape[:2])
        return min(images.check(path))

    def example(image, texts, name, label):
        return {"image": tf.ensure_shape(image, (size, size, 3)), "captions": texts}

    reader = MediaReader("captions", load, check, example, tf.uint8, lambda _: megabytes)
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

    def example(samples, texts, name, label):
        return {"audio": tf.ensure_shape(samples, (None,)), "transcript": texts[0], "name": name}

    reader = MediaReader(
        "transcripts",
        load=lambda path: audio.to_int16(audio.read(path, rate)),
        check=lambda path, count: audio.check(path).seconds,
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
    """The splits of a folder. Files that cannot be read are left out, and a warning names and counts them.

    Args:
        source: str or path. The folder.
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
    folder = Path(source)
    rows = tables.read(tables.find(folder, table, reader.kind), encoding, reader.kind, file_column, text_column)
    rows, paths = tables.locate(folder, rows, reader.kind)
    skipped = SkippedExamples(str(folder))

    def measure(row, path):
        try:
            measure = reader.check(path, len(paths))
            if row.seconds and reader.kind == "transcripts" and measure > row.seconds + SPARE_SECONDS:
                raise ValueError(
                    f"{path.name} lasts {measure:.2f} s, and its transcript is of {row.seconds:g} s. Cut it."
                )
            return measure
        except (ValueError, OSError) as error:
            skipped(path.name, str(error))
            return None

    with ThreadPoolExecutor() as pool:
        measures = list(pool.map(measure, rows, paths))
    files = [file for file in zip(rows, paths, measures, strict=True) if file[2] is not None]
    if not files:
        raise ValueError(
            f"Expected files that can be read in {folder}. Received: none of {len(rows)}: {skipped.first}"
        )
    rows, _, measures = map(list, zip(*files, strict=True))
    splits = {
        name: _split(reader, [files[i] for i in numbers], skipped)
        for name, numbers in divide(rows, validation_share, test_share).items()
    }
    return splits, measures, rows


def _split(reader, files, skipped):
    rows, paths, measures = zip(*files, strict=True)
    texts = [row.texts for row in rows]

    def load(path):
        path = Path(path.decode())
        try:
            return reader.load(path), True
        except (ValueError, OSError) as error:
            skipped(path.name, str(error))
            return reader.dtype.as_numpy_dtype(), False

    def with_array(path, *facts):
        array, is_usable = tf.numpy_function(load, [path], (reader.dtype, tf.bool))
        return array, *facts, tf.ensure_shape(is_usable, ())

    def examples():
        ragged = tf.ragged.constant(texts, dtype=tf.string)
        names, labels = [path.name for path in paths], [row.label or "" for row in rows]
        dataset = tf.data.Dataset.from_tensor_slices(([str(path) for path in paths], ragged, names, labels))
        dataset = dataset.map(with_array, num_parallel_calls=tf.data.AUTOTUNE)
        dataset = dataset.filter(lambda *parts: parts[-1])
        return dataset.map(lambda *parts: reader.example(*parts[:-1]))

    facts = [(p.name, p.stat().st_size, p.stat().st_mtime_ns, t) for p, t in zip(paths, texts, strict=True)]
    megabytes = sum(map(reader.megabytes, measures))
    fingerprint = {"files": cache.digest(*facts)}
    return Split(examples, lambda: iter(texts), len(paths), fingerprint, megabytes, measures, skipped=skipped)


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
