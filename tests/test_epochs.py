"""The order and randomness of an epoch depend only on the seed and its number."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import soundfile
import tensorflow as tf
import tensorflow_datasets as tfds

import mmkeras
from mmkeras.data import image_captions, pipeline, task_data
from mmkeras.data.task_data import Split
from mmkeras.text.vocabulary import Vocabulary
from mmkeras.toy import builders


@pytest.fixture(params=mmkeras.tasks.TASKS)
def make_data(request, small_data):
    return lambda: small_data(request.param)


def arrays(batches):
    return [array.numpy() for batch in batches for array in tf.nest.flatten(batch)]


def equal(arrays, others):
    return len(arrays) == len(others) and all(map(np.array_equal, arrays, others))


def test_an_epoch_does_not_depend_on_the_first_epoch(make_data):
    data = make_data()
    steps = int(data.train.cardinality())
    first, second = (arrays(islice(data.train_from(0), start, start + steps)) for start in (0, steps))
    assert equal(second, arrays(islice(data.train_from(1), steps)))
    assert not equal(first, second)


def count_examples(batches):
    """The number of times that each image, or each clip without padding, is in the batches."""
    counts = Counter()
    for inputs, targets in batches:
        if "audio" in inputs:
            pairs = zip(inputs["audio"].numpy(), inputs["length"].numpy(), strict=True)
            counts.update(row[:length].tobytes() for row, length in pairs)
        else:
            counts.update(row.numpy().tobytes() for row in inputs.get("image", targets))
    return counts


@pytest.fixture
def recordings(tmp_path):
    """A folder of 45 clips of 0.5 to 6 s."""
    rng, rows = np.random.default_rng(0), ["path,transcript"]
    for i, seconds in enumerate(np.clip(rng.lognormal(0, 0.6, 45), 0.5, 6)):
        soundfile.write(tmp_path / f"{i}.wav", 0.1 * rng.standard_normal(int(seconds * 8_000)), 8_000)
        rows.append(f"{i}.wav,go")
    (tmp_path / "transcripts.csv").write_text("\n".join(rows))
    return tmp_path


def check_epochs(data, count):
    """Asserts that every epoch has every example once. The last batch is smaller."""
    steps = int(data.train.cardinality())
    first, second = (count_examples(data.train) for _ in range(2))
    assert first == second and set(first.values()) == {1} and len(first) == count
    assert count_examples(islice(data.train_from(3), steps)) == first


@pytest.mark.slow
@pytest.mark.parametrize("task", ["captioning", "text_to_image"])
def test_every_epoch_has_every_image_once(task, photos, tmp_path_factory, monkeypatch):
    make, options = getattr(mmkeras, task).data, {"image_size": 32, "batch_size": 7}
    check_epochs(make(photos, validation_share=0, test_share=0, **options), 8)
    monkeypatch.setattr(builders, "EXAMPLES", dict.fromkeys(builders.EXAMPLES, 40))
    check_epochs(make("toy", data_dir=tmp_path_factory.mktemp("toy"), **options), 40)
    with tfds.testing.mock_data(num_examples=20):
        check_epochs(make("cifar10" if task == "text_to_image" else "coco_captions", **options), 20)


@pytest.mark.slow
@pytest.mark.parametrize("memory", [512, 0], ids=["in memory", "read again"])
def test_every_epoch_has_every_clip_once(memory, recordings, small_toy, mock_speech, monkeypatch):
    make = mmkeras.speech_to_text.data
    monkeypatch.setattr(task_data, "IN_MEMORY_MB", memory)
    options = {"augment": False, "batch_size": 7}
    check_epochs(make(recordings, sample_rate_hz=8_000, validation_share=0, test_share=0, **options), 45)
    check_epochs(make("toy", data_dir=small_toy, **options), 96)
    with mock_speech():
        check_epochs(make("ljspeech", **options), 20)


def test_epochs_of_train_from_do_not_depend_on_the_global_seed(make_data):
    runs = []
    for seed in (1, 2):
        tf.random.set_seed(seed)
        runs.append(arrays(islice(make_data().train_from(2), 3)))
    assert equal(*runs)


def test_two_runs_have_identical_batches(make_data):
    runs = []
    for _ in range(2):
        tf.random.set_seed(0)
        data = make_data()
        runs.append([arrays(data.train) for _ in range(3)])
    assert all(map(equal, *runs))
    first, second, third = runs[0]
    assert not equal(first, second) and not equal(second, third)


def test_examples_in_memory_are_read_once():
    numbers_read = []

    def read(number):
        numbers_read.append(int(number))
        return number

    def examples():
        numbers = tf.data.Dataset.range(6)
        return numbers.map(
            lambda number: {
                "image": tf.ensure_shape(tf.numpy_function(read, [number], tf.int64), ()),
                "captions": tf.constant(["a", "b"]),
            }
        )

    split = Split(examples, lambda: iter(()), 6, {}, megabytes=1)
    batches = image_captions.batches(
        split,
        "train",
        to_inputs=lambda batch: batch,
        vocabulary=Vocabulary(("a", "b")),
        max_length=3,
        batch_size=2,
        seed=0,
    )
    epoch = batches(None)
    for _ in range(3):
        assert sorted(number for batch in epoch for number in batch["image"].numpy()) == list(range(6))
    assert len(list(islice(batches(5), 9))) == 9
    assert sorted(numbers_read) == list(range(6))


def test_cardinality_is_the_number_of_steps():
    def one_epoch(number):
        return tf.data.Dataset.from_tensors(number).repeat(3)

    assert pipeline.epochs(one_epoch, lambda number: number, 3, seed=0).cardinality() == 3
    endless = pipeline.epochs(one_epoch, lambda number: number, 3, seed=0, start=0)
    assert endless.cardinality() == tf.data.INFINITE_CARDINALITY
    assert len({int(number) for number in endless.take(9)}) == 3
