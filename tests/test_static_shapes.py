"""`static_shapes=True`, which TPUs need."""

import pytest
import tensorflow as tf

import mmkeras
from mmkeras.data import task_data
from mmkeras.toy import builders


@pytest.fixture(scope="module")
def toy(small_toy, tmp_path_factory):
    """A function that makes a task's data from few examples of the toy world."""
    folder = tmp_path_factory.mktemp("images")

    def make(task, **options):
        package = mmkeras.tasks.package(task)
        if task == "speech_to_text":
            return package.data("toy", batch_size=8, data_dir=small_toy, **options)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(builders, "EXAMPLES", dict.fromkeys(builders.EXAMPLES, 40))
            return package.data("toy", batch_size=8, data_dir=folder, **options)

    return make


@pytest.mark.quality
@pytest.mark.parametrize("task", mmkeras.tasks.TASKS)
def test_every_dimension_is_static(task, toy):
    options = {"max_seconds": 5} if task == "speech_to_text" else {}
    data = toy(task, static_shapes=True, **options)
    for dataset in (data.train, data.validation, data.train_from(1)):
        specs = tf.nest.flatten(dataset.element_spec)
        assert all(spec.shape.is_fully_defined() for spec in specs), specs
        batch = next(iter(dataset))
        assert [tuple(part.shape) for part in tf.nest.flatten(batch)] == [tuple(spec.shape) for spec in specs]
    inputs, _ = next(iter(data.train))
    assert int(data.train.cardinality()) == len(list(data.train))
    sizes = (
        {"encoder_layers": 1, "frame_ms": 40, "hop_ms": 40, "subsampling": 1}
        if task == "speech_to_text"
        else {}
    )
    mmkeras.tasks.package(task).build("toy", vocabulary=data.vocabulary, units=8, **sizes)(inputs)


def test_speech_is_padded_for_the_slowest_clip_and_the_longest_transcript(toy):
    data = toy("speech_to_text", static_shapes=True, max_seconds=5)
    inputs, targets = next(iter(data.train))
    assert inputs["audio"].shape == (8, int(5 * 16_000 / 0.9) + 1)
    assert targets.shape == (8, 5_000 // 40 + 1)
    assert (targets.numpy() == mmkeras.text.vocabulary.END).sum() == 8
    assert int(tf.reduce_max(inputs["length"])) < inputs["audio"].shape[1]


def test_validation_smaller_than_a_batch_is_one_batch(photos):
    data = mmkeras.captioning.data(
        photos, image_size=64, batch_size=4, validation_share=0.4, test_share=0, static_shapes=True
    )
    assert len(list(data.validation)) == 1
    with pytest.raises(ValueError, match="batch_size=32"):
        _ = mmkeras.captioning.data(photos, image_size=64, static_shapes=True).train


@pytest.mark.parametrize("memory", [512, 0], ids=["in memory", "read again"])
@pytest.mark.filterwarnings("ignore:.*is left out")
def test_few_usable_validation_clips_are_one_batch(toy, monkeypatch, memory):
    monkeypatch.setattr(task_data, "IN_MEMORY_MB", memory)
    lengths = sorted(int(n) for inputs, _ in toy("speech_to_text").validation for n in inputs["length"])
    longest = lengths[2]
    max_seconds = (longest + 0.5) / 16_000
    ((inputs, _),) = toy("speech_to_text", static_shapes=True, max_seconds=max_seconds).validation
    assert sorted(inputs["length"].numpy()) == [n for n in lengths if n <= longest]
