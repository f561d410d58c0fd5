"""A folder of one's own: images or clips with a table of captions or transcripts."""

import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tensorflow as tf

from mmkeras._utils import checks, terminal
from mmkeras.data import cache, tables, task_data
from mmkeras.data.task_data import SkippedExamples, Split
from mmkeras.media import audio, images

BYTES_PER_SAMPLE = 2  # int16, as all audio in tf.data


def images_from_folder(source, language, size, crop, **options) -> dict[str, Split]:
    """Images with captions, see `read`; `crop`: to the square in the middle before they are resized."""

    def load(path):
        image = images.read(path)
        return images.resize(images.crop(image) if crop else image, size)

    megabytes = size**2 * 3 / 2**20

    def check(path, count):
        # Decoding all of them finds every damaged file. A large folder is looked at by its headers alone.
        if count * megabytes <= task_data.IN_MEMORY_MB:
            return min(images.read(path).shape[:2])
        return min(images.check(path))

    def example(image, texts, name):
        return {"image": tf.ensure_shape(image, (size, size, 3)), "captions": texts}

    splits, sides, rows = read(
        source, "captions", load, check, example, tf.uint8, lambda _: megabytes, **options
    )
    if crop and (small := [row.file for row, side in zip(rows, sides, strict=True) if side < size]):
        terminal.warn(
            f"{len(small)} of {len(rows)} images are smaller than {size} pixels and are enlarged, the first is "
            f"{small[0]}."
        )
    return splits


def clips_from_folder(source, language, rate, **options) -> dict[str, Split]:
    """Clips with transcripts, see `read`."""

    def load(path):
        return audio.to_int16(audio.read(path, rate))

    def check(path, count):
        return audio.check(path).seconds

    def example(samples, texts, name):
        return {"audio": tf.ensure_shape(samples, (None,)), "transcript": texts[0], "name": name}

    def megabytes(seconds):
        return seconds * rate * BYTES_PER_SAMPLE / 2**20

    splits, *_ = read(source, "transcripts", load, check, example, tf.int16, megabytes, **options)
    return splits


def read(
    source: str | os.PathLike,
    of: str,
    load: Callable,
    check: Callable,
    example: Callable,
    dtype: tf.DType,
    megabytes: Callable[[float], float],
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
        source: The folder.
        of: `"captions"` or `"transcripts"`.
        load: path -> array, or ValueError.
        check: (path, number of files) -> a measure of the file (side in pixels, seconds), or ValueError.
        example: (array, texts (n,), file name) tensors -> example.
        dtype: Of the arrays.
        megabytes: measure -> size of an array in memory.
        table: str. Name of the table. Defaults to the only one that looks like one.
        encoding: str. Encoding of the table. Defaults to UTF-8 with or without a byte-order mark.
        file_column, text_column: str or int. Columns of the table by name, or by number from 0. Default to what
            their names or their content tell.
        validation_share, test_share: float. Shares of the files, where the table has no splits. Default to 0.1.

    Returns:
        The splits by name, and of all files the measures and the rows of the table.
    """
    folder = Path(source)
    rows = tables.read(tables.find(folder, table, of), encoding, of, file_column, text_column)
    rows, paths = tables.locate(folder, rows, of)
    skipped = SkippedExamples(str(folder))

    def measure(path):
        try:
            return check(path, len(paths))
        except (ValueError, OSError) as error:
            skipped(path.name, str(error))
            return None

    with ThreadPoolExecutor() as pool:
        measures = list(pool.map(measure, paths))
    usable = [i for i, value in enumerate(measures) if value is not None]
    if not usable:
        raise ValueError(
            f"Expected files that can be read in {folder}. Received: none of {len(rows)}: {skipped.first}"
        )
    rows, paths, measures = ([values[i] for i in usable] for values in (rows, paths, measures))

    def split(numbers):
        return _split(
            [paths[i] for i in numbers],
            [rows[i].texts for i in numbers],
            [measures[i] for i in numbers],
            load, example, dtype, megabytes, skipped,
        )  # fmt: skip

    numbers_of = divide(rows, validation_share, test_share)
    return {name: split(numbers) for name, numbers in numbers_of.items()}, measures, rows


def _split(paths, texts, measures, load, example, dtype, megabytes, skipped):
    def examples():
        def loaded(path):
            path = Path(path.decode())
            try:
                return load(path), True
            except (ValueError, OSError) as error:
                skipped(path.name, str(error))
                return dtype.as_numpy_dtype(), False

        def with_array(path, texts, name):
            array, usable = tf.numpy_function(loaded, [path], (dtype, tf.bool))
            return array, texts, name, tf.ensure_shape(usable, ())

        names = [path.name for path in paths]
        ragged = tf.ragged.constant(texts, dtype=tf.string)
        dataset = tf.data.Dataset.from_tensor_slices(([str(path) for path in paths], ragged, names))
        dataset = dataset.map(with_array, num_parallel_calls=tf.data.AUTOTUNE)
        dataset = dataset.filter(lambda array, texts, name, usable: usable)
        return dataset.map(lambda array, texts, name, usable: example(array, texts, name))

    facts = [(p.name, p.stat().st_size, p.stat().st_mtime_ns, t) for p, t in zip(paths, texts, strict=True)]
    return Split(
        examples,
        lambda: iter(texts),
        len(paths),
        {"files": cache.digest(*facts)},
        sum(map(megabytes, measures)),
        measures,
    )


def divide(rows: Sequence[tables.Row], validation_share: float, test_share: float) -> dict[str, list[int]]:
    """Which rows belong to which split: as the table says, otherwise drawn by the file's name.

    The order within a split is shuffled, since tables often go by subject or speaker.
    """
    checks.numbers(0, validation_share=validation_share, test_share=test_share)
    if validation_share + test_share >= 1:
        raise ValueError(
            f"Expected validation_share and test_share to be less than 1 together. "
            f"Received: validation_share={validation_share}, test_share={test_share}"
        )
    named = any(row.split for row in rows)
    splits: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        drawn = "train" if named else _drawn_split(row.file, validation_share, test_share)
        splits.setdefault(row.split or drawn, []).append(number)
    for numbers in splits.values():
        random.Random(0).shuffle(numbers)
    return splits


def _drawn_split(name, validation_share, test_share):
    """The split that a name's hash draws, so that a file stays where it is when others come or go."""
    place = int(cache.digest(name), 16) / 16**16
    if place < test_share:
        return "test"
    return "validation" if place < test_share + validation_share else "train"
