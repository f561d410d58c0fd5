"""Where data come from: the toy world, TensorFlow Datasets, a user's own folder.

- `pictures.py`  pictures with captions
- `labels.py`    labels put into words, where pictures have no captions
- `speech.py`    clips with transcripts

Bricks below the tasks: `pictures.read` and `speech.read` give the splits of a source, both through `choose`.
"""

import os
import random
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tensorflow as tf

from mmkeras import cache, checks, tables
from mmkeras.vocabulary import Vocabulary


@dataclass(frozen=True)
class Split:
    """One split of a source: inputs, and what is said of them in words.

    `examples()`: a dataset of dictionaries, see the module that made it.
    `texts()`:    the texts of each example, without reading its picture or its sound.
    `made_from`:  facts that change when the split does.
    `megabytes`:  what its inputs take in memory once read; None: nobody knows.
    `seconds`:    how long each clip is by its header; None: that is not known without reading it.
    `attributes`: what the labels of an example tell, each with the names of its classes; empty: it has none.
    """

    examples: Callable[[], tf.data.Dataset]
    texts: Callable[[], Iterator[list[str]]]
    count: int
    made_from: dict
    megabytes: float | None = None
    seconds: Sequence[float] | None = None
    attributes: dict[str, tuple[str, ...]] = field(default_factory=dict)


def epochs(
    one_epoch: Callable[[tf.Tensor], tf.data.Dataset],
    finished: Callable,
    steps: int,
    seed: int,
    *,
    start: int | None = None,
    service: str | None = None,
) -> tf.data.Dataset:
    """The batches of one epoch after another, each a function of one number that is drawn for it.

    All order and all chance of an epoch follow from its number, so that no state is shared between epochs,
    and a run that was broken off can go on with the very epoch that it would have come to.

    Args:
        one_epoch: makes an epoch of batches from its number, () int64.
        finished: what becomes of each batch; several are made at once.
        steps: how many batches an epoch has.
        seed: of the numbers.
        start: None: one epoch, another each time that the dataset is iterated. Otherwise epoch `start`, and
            those that follow it, without end; each has its own number, wherever one starts.
        service: `"grpc://host:port"` of a tf.data service, whose workers then make the batches. Each works on
            an epoch of its own, so of several workers the order is that in which they are ready. Where several
            machines train as well, each is dealt its batches in such an order and takes its share of every one
            of them, so that an epoch may hold an example twice and lack another.

    Raises:
        ValueError: the batches are made by Python code, which cannot go to another machine.
    """

    def batches(number):
        # of this graph alone: otherwise tf.random.set_seed would have a say in each epoch
        tf.compat.v1.set_random_seed(1)
        return one_epoch(number)

    def number(epoch):
        return tf.random.stateless_uniform((), (tf.cast(seed, tf.int64), epoch), 0, 2**31, tf.int64)

    if start is not None:
        numbers = tf.data.Dataset.range(start, tf.int64.max).map(number)
    elif service:  # the workers begin anew with every iteration, and know of none before it
        now = tf.data.Dataset.range(tf.int64.max).map(lambda _: tf.cast(tf.timestamp() * 1e6, tf.int64))
        numbers = now.map(number)
    else:
        numbers = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).take(1)
    dataset = numbers.flat_map(batches).map(finished, num_parallel_calls=tf.data.AUTOTUNE)
    if service:
        dataset = _from_service(dataset, service)
        dataset = dataset.take(steps) if start is None else dataset
    count = steps if start is None else tf.data.INFINITE_CARDINALITY
    return dataset.apply(tf.data.experimental.assert_cardinality(count)).prefetch(tf.data.AUTOTUNE)


def _from_service(dataset, service):
    graph = tf.raw_ops.DatasetToGraphV2(input_dataset=tf.data.experimental.to_variant(dataset))
    graph = tf.compat.v1.GraphDef.FromString(graph.numpy())
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    if any(node.op in ("PyFunc", "PyFuncStateless", "EagerPyFunc") for node in nodes):
        raise ValueError(
            f"Python code has a part in these batches and cannot go to the workers of service={service!r}: it "
            f"reads the files of a folder, and changes sample rates and speeds. Take a dataset of TensorFlow "
            f"Datasets, for speech with augment=False, or leave out service."
        )
    # An epoch is what is dealt out: the workers are given its index, one after another.
    return dataset.apply(
        tf.data.experimental.service.distribute(tf.data.experimental.service.ShardingPolicy.DYNAMIC, service)
    )


def assemble(splits: Mapping[str, Split], for_fit: Callable, for_evaluate: Callable) -> dict:
    """The datasets of a task, by the fields of its `TaskData`; a split that the source lacks is None.

    Args:
        splits: of the source, by name.
        for_fit: from a split's name to a function of `start`, see `epochs`.
        for_evaluate: from a split to its batches.
    """
    training = for_fit("train") if "train" in splits else lambda start: None
    return {
        "train": training(None),
        "validation": for_fit("validation")(None) if "validation" in splits else None,
        **{name: for_evaluate(splits[name]) if name in splits else None for name in ("test", "test_unseen")},
        "_training": training,
    }


def training_split(splits: Mapping[str, Split]) -> Split:
    """The split to train on, of which a vocabulary is counted. Raises ValueError where the source has none."""
    if "train" not in splits:
        count = sum(split.count for split in splits.values())
        raise ValueError(
            f"None of the {count} rows of the table is for training. To evaluate a model on them, give "
            f"vocabulary=, the model's."
        )
    return splits["train"]


def check_service(service: str | None) -> None:
    """Raises where that is no address of a tf.data service, ValueError, or nobody answers there, OSError."""
    if service is None:
        return
    match = isinstance(service, str) and re.fullmatch(r"grpc://(.+):(\d+)", service)
    if not match:
        raise ValueError(f"Expected service to be like 'grpc://host:5050'. Received: service={service!r}")
    try:
        socket.create_connection((match[1], int(match[2])), timeout=5).close()
    except OSError as error:
        raise OSError(
            f"No tf.data service answers at {service} ({error}). Start a dispatcher and workers there "
            f"(tf.data.experimental.service), or leave out service."
        ) from None


def check_language(language: str) -> None:
    """Raises ValueError where texts are in another language than the tasks know."""
    if language not in ("en", "zh"):
        raise ValueError(f"Expected language to be 'en' or 'zh'. Received: language={language!r}")


def check_vocabulary(vocabulary: Vocabulary | None) -> None:
    """Raises TypeError where it is neither a vocabulary nor None."""
    if vocabulary is not None and not isinstance(vocabulary, Vocabulary):
        raise TypeError(f"Expected a Vocabulary, or None. Received: vocabulary={vocabulary!r}")


def choose(source: str | os.PathLike, known: Mapping[str, Callable], folder: Callable, *args, **options):
    """The splits of a named source or of a folder, `{name: Split}`.

    Args:
        source: one of `known`, or a folder.
        known: names → functions that read such a source.
        folder: the function that reads a folder.
        args, options: what these functions take.
    """
    is_folder = not (isinstance(source, str) and source in known)
    if is_folder and not (isinstance(source, str | os.PathLike) and Path(source).is_dir()):
        names = ", ".join(map(repr, known))
        raise ValueError(
            f"Expected source to be one of {names}, or a folder that exists. Received: source={source!r}"
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


def _drawn_split(file, validation_share, test_share):
    """The split of a file by its name, so that it stays there when others come or go."""
    place = int(cache.digest(file), 16) / 16**16
    if place < test_share:
        return "test"
    return "validation" if place < test_share + validation_share else "train"
