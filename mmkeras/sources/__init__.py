"""Where data come from: the toy world, TensorFlow Datasets, a user's own folder.

- `pictures.py`  pictures with captions
- `speech.py`    clips with transcripts

A brick below the tasks: each module's `read` gives the splits of a source, and all of them go through `choose`.
"""

import os
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import tensorflow as tf

from mmkeras import cache, tables


@dataclass(frozen=True)
class Split:
    """One split of a source: inputs, and what is said of them in words.

    `examples()`: a dataset of dictionaries, see the module that made it.
    `texts()`:    the texts of each example, without reading its picture or its sound.
    `made_from`:  facts that change when the split does.
    `megabytes`:  what its inputs take in memory once read; None: nobody knows.
    `attributes`: what the labels of an example tell, each with the names of its classes; empty: it has none.
    """

    examples: Callable[[], tf.data.Dataset]
    texts: Callable[[], Iterator[list[str]]]
    count: int
    made_from: dict
    megabytes: float | None = None
    attributes: dict[str, tuple[str, ...]] = field(default_factory=dict)


def epochs(
    one_epoch: Callable[[tf.Tensor], tf.data.Dataset], steps: int, seed: int, start: int | None = None
) -> tf.data.Dataset:
    """The batches of one epoch after another, each a function of one number that is drawn for it.

    All order and all chance of an epoch follow from its number, so that no state is shared between epochs,
    and a run that was broken off can go on with the very epoch that it would have come to.

    Args:
        one_epoch: makes an epoch of batches from its number, () int64.
        steps: how many batches that is.
        seed: of the numbers.
        start: None: one epoch, another each time that the dataset is iterated. Otherwise epoch `start`, and
            those that follow it, without end; each has its own number, wherever one starts.
    """

    def batches(number):
        # of this graph alone: otherwise tf.random.set_seed would have a say in each epoch
        tf.compat.v1.set_random_seed(1)
        return one_epoch(number)

    if start is None:
        number = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).take(1)
        return number.flat_map(batches).apply(tf.data.experimental.assert_cardinality(steps))

    def number(epoch):
        return tf.random.stateless_uniform((), (tf.cast(seed, tf.int64), epoch), 0, 2**31, tf.int64)

    dataset = tf.data.Dataset.range(start, tf.int64.max).map(number).flat_map(batches)
    return dataset.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))


def check_language(language: str) -> None:
    """Raises ValueError where texts are in another language than the tasks know."""
    if language not in ("en", "zh"):
        raise ValueError(f"Expected language to be 'en' or 'zh'. Received: language={language!r}")


def choose(source: str | os.PathLike, known: Mapping[str, Callable], folder: Callable, *args, **options):
    """The splits of a named source or of a folder, `{name: Split}`.

    Args:
        source: one of `known`, or a folder.
        known: names → functions that read such a source.
        folder: the function that reads a folder.
        args, options: what these functions take.
    """
    is_folder = not (isinstance(source, str) and source in known)
    if is_folder and not Path(source).is_dir():
        names = ", ".join(map(repr, known))
        raise ValueError(
            f"Expected source to be one of {names}, or a folder that exists. Received: source={str(source)!r}"
        )
    try:
        return (folder if is_folder else known[source])(source, *args, **options)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise TypeError(f"The source {str(source)!r} does not take that option: {error}") from None


def divide(rows: list[tables.Row], validation_share: float, test_share: float) -> dict[str, list[int]]:
    """Which rows of a table belong to which split: as its `split` column says, else drawn by the file's name.

    The order within a split is shuffled: tables often go by subject or speaker, and a large folder is later
    shuffled within a buffer only.
    """
    if min(validation_share, test_share) < 0 or validation_share + test_share >= 1:
        raise ValueError(
            f"Expected validation_share and test_share to be at least 0 and less than 1 together. "
            f"Received: validation_share={validation_share}, test_share={test_share}"
        )
    named = any(row.split for row in rows)
    splits: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        drawn = "train" if named else _drawn_split(row.file, validation_share, test_share)
        splits.setdefault(row.split or drawn, []).append(number)
    if "train" not in splits:
        raise ValueError(f"None of the {len(rows)} rows of the table is for training.")
    for numbers in splits.values():
        random.Random(0).shuffle(numbers)
    return splits


def _drawn_split(file, validation_share, test_share):
    """The split of a file by its name, so that it stays there when others come or go."""
    place = int(cache.digest(file), 16) / 16**16
    if place < test_share:
        return "test"
    return "validation" if place < test_share + validation_share else "train"
