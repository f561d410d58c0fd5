"""An epoch's order and chance follow from the seed and its number alone."""

from itertools import islice

import numpy as np
import pytest
import tensorflow as tf

from mmkeras import sources
from mmkeras.sources import Split, pictures
from mmkeras.vocabulary import Vocabulary

TASKS = ("captioning", "speech_to_text", "text_to_image")


@pytest.fixture(params=TASKS)
def small(request, small_data):
    return lambda: small_data(request.param)


def arrays(batches):
    return [array.numpy() for batch in batches for array in tf.nest.flatten(batch)]


def same(some, others):
    return len(some) == len(others) and all(map(np.array_equal, some, others))


def test_an_epoch_is_the_same_wherever_one_starts(small):
    data = small()
    steps = int(data.train.cardinality())
    first, second = (arrays(islice(data.train_from(0), start, start + steps)) for start in (0, steps))
    assert same(second, arrays(islice(data.train_from(1), steps)))
    assert not same(first, second)


def test_the_global_seed_has_no_say_in_it(small):
    tf.random.set_seed(1)
    one = arrays(islice(small().train_from(2), 3))
    tf.random.set_seed(2)
    assert same(one, arrays(islice(small().train_from(2), 3)))


def test_two_runs_see_the_same_batches_to_the_last_bit(small):
    runs = []
    for _ in range(2):
        tf.random.set_seed(0)
        data = small()
        runs.append([arrays(data.train) for _ in range(3)])
    assert all(map(same, *runs))
    assert not same(runs[0][0], runs[0][1]) and not same(runs[0][1], runs[0][2])


def test_what_fits_into_memory_is_read_once():
    read = []

    def note(number):
        read.append(int(number))
        return number

    def examples():
        numbers = tf.data.Dataset.range(6)
        return numbers.map(
            lambda number: {
                "image": tf.ensure_shape(tf.numpy_function(note, [number], tf.int64), ()),
                "captions": tf.constant(["a", "b"]),
            }
        )

    split = Split(examples, lambda: iter(()), 6, {}, megabytes=1)
    vocabulary = Vocabulary(("a", "b"))
    how = {"vocabulary": vocabulary, "max_length": 3, "training": True, "batch_size": 2, "seed": 0}
    batches = pictures.paired(split, lambda batch: batch, **how)
    epoch = batches(None)
    seen = [sorted(number for batch in epoch for number in batch["image"].numpy()) for _ in range(3)]
    assert seen == [list(range(6))] * 3
    assert len(list(islice(batches(5), 9))) == 9
    assert sorted(read) == list(range(6))


def test_the_number_of_steps_is_known():
    def one_epoch(number):
        return tf.data.Dataset.from_tensors(number).repeat(3)

    assert sources.epochs(one_epoch, lambda number: number, 3, seed=0).cardinality() == 3
    endless = sources.epochs(one_epoch, lambda number: number, 3, seed=0, start=0)
    assert endless.cardinality() == tf.data.INFINITE_CARDINALITY
    assert len({int(number) for number in endless.take(9)}) == 3
