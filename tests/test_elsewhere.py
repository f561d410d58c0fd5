"""Pipelines for other machines: static shapes for a TPU, and tf.data service, here over loopback."""

import subprocess
import sys
from itertools import islice

import numpy as np
import pytest
import tensorflow as tf

import mmkeras
from mmkeras.toy import builders

TASKS = ("captioning", "speech_to_text", "text_to_image")


@pytest.fixture(scope="module")
def toy(small_toy, tmp_path_factory):
    """A function that makes a task's data from a small toy world."""
    folder = tmp_path_factory.mktemp("small_pictures")

    def make(task, **options):
        package = getattr(mmkeras, task)
        if task == "speech_to_text":
            return package.data("toy", batch_size=8, data_dir=small_toy, **options)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(builders, "EXAMPLES", dict.fromkeys(builders.EXAMPLES, 40))
            return package.data("toy", batch_size=8, data_dir=folder, **options)

    return make


# --- static shapes ---


@pytest.mark.parametrize("task", TASKS)
def test_every_dimension_is_known(task, toy):
    options = {"max_seconds": 5} if task == "speech_to_text" else {}
    data = toy(task, static_shapes=True, **options)
    for dataset in (data.train, data.validation, data.train_from(1)):
        specs = tf.nest.flatten(dataset.element_spec)
        assert all(spec.shape.is_fully_defined() for spec in specs), specs
        batch = next(iter(dataset))
        assert [tuple(part.shape) for part in tf.nest.flatten(batch)] == [tuple(spec.shape) for spec in specs]
    inputs, _ = next(iter(data.train))
    assert int(data.train.cardinality()) == len(list(data.train))
    model = getattr(mmkeras, task).build("toy", vocabulary=data.vocabulary)
    model(inputs)  # what is padded so fits the graph


def test_speech_of_one_length_holds_the_slowest_clip_and_the_longest_transcript(toy):
    data = toy("speech_to_text", static_shapes=True, max_seconds=5)
    inputs, targets = next(iter(data.train))
    assert inputs["audio"].shape == (8, int(5 * 16_000 / 0.9) + 1)
    assert targets.shape == (8, 5_000 // 40 + 1)
    assert (targets.numpy() == mmkeras.vocabulary.END).sum() == 8
    assert int(tf.reduce_max(inputs["length"])) < inputs["audio"].shape[1]


def test_validation_smaller_than_a_batch_is_one_batch(toy, photos):
    data = mmkeras.captioning.data(
        photos, image_size=64, batch_size=4, validation_share=0.4, test_share=0, static_shapes=True
    )
    assert len(list(data.validation)) == 1
    with pytest.raises(ValueError, match="at least a batch of pictures.*batch_size=32"):
        mmkeras.captioning.data(photos, image_size=64, static_shapes=True)


@pytest.mark.parametrize("memory", [512, 0], ids=["in memory", "read again"])
@pytest.mark.filterwarnings("ignore:.*is left out")
def test_validation_clips_that_can_be_used_are_one_batch_where_they_fill_none(toy, monkeypatch, memory):
    monkeypatch.setitem(mmkeras.speech_to_text.data.__globals__, "IN_MEMORY_MB", memory)
    lengths = sorted(int(n) for inputs, _ in toy("speech_to_text").validation for n in inputs["length"])
    most = lengths[2]
    ((inputs, _),) = toy("speech_to_text", static_shapes=True, max_seconds=(most + 0.5) / 16_000).validation
    assert sorted(inputs["length"].numpy()) == [n for n in lengths if n <= most]


# --- tf.data service ---


SERVICE = """
import mmkeras.start, tensorflow as tf
servers = tf.data.experimental.service
dispatcher = servers.DispatchServer()
address = dispatcher.target.split("://")[1]
workers = [servers.WorkerServer(servers.WorkerConfig(dispatcher_address=address)) for _ in range(2)]
print(dispatcher.target, flush=True)
dispatcher.join()
"""


@pytest.fixture(scope="module")
def service():
    """The address of a dispatcher with two workers, in a process of their own."""
    with subprocess.Popen([sys.executable, "-c", SERVICE], stdout=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().strip()
        process.kill()


@pytest.mark.parametrize("task", TASKS)
def test_a_service_makes_the_training_batches(task, toy, service):
    options = {"augment": False} if task == "speech_to_text" else {}
    here, there = toy(task, **options), toy(task, service=service, **options)
    steps = int(there.train.cardinality())
    assert there.train.element_spec == here.train.element_spec and steps == int(here.train.cardinality())
    epochs = [[targets.numpy() for _, targets in there.train] for _ in range(2)]
    assert len(epochs[0]) == len(epochs[1]) == steps
    assert any(a.shape != b.shape or (a != b).any() for a, b in zip(*epochs, strict=True))
    own = {key(batch) for batch in here.train_from(0).take(4 * steps)}
    made = [key(batch) for batch in islice(there.train_from(0), 2 * steps)]
    assert len(own.intersection(made)) >= steps  # the very batches that would have been made here


def key(batch):
    return b"".join(np.ascontiguousarray(part).tobytes() for part in tf.nest.flatten(batch))


def test_what_python_code_makes_cannot_go_there(toy, photos, service):
    with pytest.raises(ValueError, match="Python code has a part in these batches.*augment=False"):
        toy("speech_to_text", service=service)
    with pytest.raises(ValueError, match="Python code has a part in these batches.*folder"):
        mmkeras.captioning.data(photos, image_size=64, batch_size=2, service=service)


def test_a_service_that_is_not_there_is_told(toy):
    with pytest.raises(ValueError, match="service='localhost:5050'"):
        toy("captioning", service="localhost:5050")
    with pytest.raises(OSError, match="No tf.data service answers at grpc://localhost:1 "):
        toy("captioning", service="grpc://localhost:1")
