"""The one recipe: nothing is lost, whatever stops a run, and it is told what cannot go on."""

import csv
import dataclasses
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import mmkeras
from mmkeras import training
from mmkeras._utils import saving
from mmkeras.data.vocabulary import Vocabulary
from mmkeras.nn import optimizers
from mmkeras.toy import builders
from mmkeras.training.checkpoint import State, _read_state

TINY = {
    "captioning": {"units": 8, "embedding_dim": 8},
    "speech_to_text": {
        "units": 8,
        "embedding_dim": 8,
        "encoder_layers": 1,
        "bands": 8,
        "frame_ms": 40,
        "hop_ms": 40,
        "subsampling": 1,
    },
    "text_to_image": {"units": 8, "embedding_dim": 8, "channels": 8, "image_size": 32},
}


def tiny(task, data, preset="toy", **more):
    keras.utils.set_random_seed(0)
    model = getattr(mmkeras, task).build(preset, vocabulary=data.vocabulary, **TINY[task] | more)
    model.run_eagerly = True  # a few steps are faster than their compilation
    return model


def weights(model):
    variables = [*model.variables, *model.optimizer.variables]
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


class Stop(keras.callbacks.Callback):
    """Ctrl-C in the middle of an epoch (from 0)."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.here = epoch == self.epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.here:
            raise KeyboardInterrupt


def small_world():
    """Of the toy pictures; two steps an epoch."""
    builders.EXAMPLES = {"train": 64, "validation": 16, "test": 16, "test_unseen": 16}


def pictures(data_dir):
    return mmkeras.text_to_image.data("toy", image_size=16, batch_size=32, data_dir=data_dir)


@pytest.fixture(scope="module")
def painting(tmp_path_factory):
    """Text to image's data and a function that makes a model for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builders, "EXAMPLES", None)
        small_world()
        data = pictures(tmp_path_factory.mktemp("pictures"))
    return data, lambda **more: tiny("text_to_image", data, **{"image_size": 16} | more)


def broken_off(model, data, run, epoch=1, **how):
    with pytest.raises(KeyboardInterrupt) as stopped:
        training.train(model, data, run=run, callbacks=[Stop(epoch)], verbose=0, **{"epochs": 3} | how)
    return str(stopped.value)


# --- going on ---


@pytest.mark.parametrize("task", TINY)
def test_a_run_gone_on_with_ends_as_an_undisturbed_one(task, small_data, tmp_path):
    data, how = small_data(task), {"epochs": 2, "verbose": 0, "run": tmp_path / "run"}
    undisturbed = tiny(task, data)
    history = training.train(undisturbed, data, epochs=2, verbose=0)
    broken_off(tiny(task, data), data, tmp_path / "run", epochs=2)

    data = small_data(task)
    model = tiny(task, data)
    np.random.seed(99)  # what else goes on in the process has no say in it
    assert training.train(model, data, resume=True, **how) == history
    for found, expected in zip(weights(model), weights(undisturbed), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_seeds_in_the_model_go_on_too(small_data, tmp_path):
    data = small_data("captioning")
    model = tiny("captioning", data)
    training.train(model, data, epochs=1, run=tmp_path / "run", verbose=0)
    fresh = tiny("captioning", data)
    seeds = [v for v in fresh.variables if v.name == "seed_generator_state"]
    before = [seed.numpy().tolist() for seed in seeds]
    training.train(fresh, data, epochs=1, run=tmp_path / "run", resume=True)
    after = [seed.numpy().tolist() for seed in seeds]
    assert seeds and after != before
    assert after == [v.numpy().tolist() for v in model.variables if v.name == "seed_generator_state"]


def test_ctrl_c_says_how_to_go_on(painting, tmp_path):
    data, make = painting
    said = broken_off(make(), data, tmp_path / "run")
    assert "Stopped in epoch 2 of 3" in said and "up to epoch 1" in said and "--resume" in said
    said = broken_off(make(), data, tmp_path / "other", epoch=0)
    assert "holds no whole epoch yet" in said
    model = make()
    assert (
        len(training.train(model, data, epochs=1, run=tmp_path / "other", resume=True, verbose=0)["loss"]) == 1
    )


def test_a_whole_run_can_be_made_longer_and_is_not_begun_again(painting, tmp_path):
    data, make = painting
    model, run = make(), tmp_path / "run"
    training.train(model, data, epochs=2, run=run, verbose=0)
    again = make()
    history = training.train(again, data, epochs=2, run=run, resume=True, verbose=0)
    assert len(history["loss"]) == 2
    assert all(map(np.array_equal, weights(model), weights(again)))
    assert len(training.train(make(), data, epochs=3, run=run, resume=True, verbose=0)["loss"]) == 3


def test_averaged_weights_are_what_a_finished_run_gives_back(painting, tmp_path):
    data, make = painting

    def averaging():
        model = make()
        model.compile(keras.optimizers.Adam(1e-2, use_ema=True), loss="mse", run_eagerly=True)
        return model

    model = averaging()
    training.train(model, data, epochs=2, run=tmp_path / "run", verbose=0)
    again = averaging()
    training.train(again, data, epochs=2, run=tmp_path / "run", resume=True, verbose=0)
    assert all(map(np.array_equal, model.get_weights(), again.get_weights()))


# --- what a run leaves ---


def test_a_runs_folder_tells_of_it(painting, tmp_path):
    data, make = painting
    run = tmp_path / "run"
    training.train(make(), data, epochs=1, run=run, verbose=0)
    history = training.train(make(), data, epochs=2, run=run, resume=True, verbose=0)
    rows = list(csv.DictReader((run / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [float(row["val_loss"]) for row in rows] == history["val_loss"]
    assert Image.open(run / "curves.png").width > 100
    assert not [path for path in run.iterdir() if path.name.startswith(".")]
    seen = {}
    for file in (run / "events").iterdir():
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                seen.setdefault(value.tag, {})[event.step] = float(tf.make_ndarray(value.tensor))
    assert seen["val_loss"] == {n + 1: np.float32(v) for n, v in enumerate(history["val_loss"])}
    assert mmkeras.load(run / "last.keras")("red").shape == (16, 16, 3)


@pytest.mark.parametrize(
    ("losses", "patience", "best_epoch", "is_over"),
    [
        ([3, 2, 1], 1, 3, False),
        ([3, 2, 2.5], 2, 2, False),
        ([3, 2, 2.5, 2.5], 2, 2, True),
        ([3, 2, 2.5, 2.5], None, 2, False),
        ([3, float("nan")], 1, 1, True),
        ([2, 2], 1, 1, True),
    ],
)
def test_early_stopping_counts_epochs_without_a_better_one(losses, patience, best_epoch, is_over):
    state = State()
    for loss in losses:
        state.add({"loss": 0.0, "val_loss": loss}, patience)
    assert (state.best_epoch, state.is_over) == (best_epoch, is_over)


def test_early_stopping_gives_the_best_epoch_and_is_not_undone(painting, tmp_path):
    data, make = painting
    model, run = make(learning_rate=0.5, decay_steps=None), tmp_path / "run"
    history = training.train(model, data, epochs=20, run=run, patience=2, warmup_steps=0, verbose=0)
    best = int(np.argmin(history["val_loss"])) + 1
    assert len(history["loss"]) == best + 2 < 20
    kept = keras.saving.load_model(run / "best.keras")
    assert all(map(np.array_equal, model.get_weights(), kept.get_weights()))
    again = make(learning_rate=0.5, decay_steps=None)
    how = {"epochs": 20, "run": run, "patience": 2, "warmup_steps": 0, "resume": True, "verbose": 0}
    assert training.train(again, data, **how) == history
    assert all(map(np.array_equal, model.get_weights(), again.get_weights()))


# --- learning rate and precision ---


def test_a_plain_learning_rate_rises_and_falls():
    optimizer = keras.optimizers.Adam(0.1)
    training.schedule(optimizer, steps=1000)
    rates = [float(optimizer.learning_rate)]
    for step in (25, 50, 525, 1000):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    np.testing.assert_allclose(rates, [0, 0.05, 0.1, 0.1 * (0.02 + 0.98 / 2), 0.002], rtol=1e-5)
    training.schedule(constant := keras.optimizers.Adam(0.1), steps=1000, warmup_steps=0)
    assert float(constant.learning_rate) == pytest.approx(0.1)


def test_a_schedule_of_the_presets_own_stays():
    optimizer = optimizers.adam(2e-3, 750)
    before = keras.optimizers.serialize(optimizer)
    training.schedule(optimizer, steps=10)
    assert keras.optimizers.serialize(optimizer) == before
    training.schedule(optimizer, steps=10, warmup_steps=2)
    optimizer.iterations.assign(2)
    assert float(optimizer.learning_rate) == pytest.approx(2e-3)
    with pytest.raises(ValueError, match="warmup_steps=10"):
        training.schedule(optimizer, steps=10, warmup_steps=10)


@pytest.mark.parametrize(
    ("task", "precision"),
    [
        ("captioning", "mixed_float16"),
        ("speech_to_text", "mixed_bfloat16"),
        ("text_to_image", "mixed_float16"),
    ],
)
def test_mixed_precision_trains(task, precision, small_data):
    data = small_data(task)
    try:
        assert training.use_precision(precision) == precision
        model = tiny(task, data)
    finally:
        training.use_precision("float32")
    inputs, targets = next(iter(data.train))
    loss = float(model.train_on_batch(inputs, targets, return_dict=True)["loss"])
    assert np.isfinite(loss)
    assert all(variable.dtype == "float32" for variable in model.trainable_variables)


def test_without_an_accelerator_precision_is_full():
    assert training.use_precision() == "float32"
    with pytest.raises(ValueError, match="precision='double'"):
        training.use_precision("double")


@pytest.mark.parametrize(
    ("tpus", "gpus", "expected"),
    [
        (["TPU:0"], [], "mixed_bfloat16"),
        ([], [(8, 0), (9, 0)], "mixed_bfloat16"),
        ([], [(8, 0), (7, 5)], "mixed_float16"),
        ([], [(6, 1)], "float32"),
        ([], [None], "float32"),
    ],
)
def test_precision_goes_by_the_oldest_accelerator(tpus, gpus, expected, monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: tpus if kind == "TPU" else [])
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus if kind == "GPU" else [])
    monkeypatch.setattr(
        tf.config.experimental, "get_device_details", lambda gpu: {"compute_capability": gpu} if gpu else {}
    )
    assert training.use_precision() == expected
    training.use_precision("float32")


# --- what cannot go on ---


@pytest.fixture(scope="module")
def whole(painting, tmp_path_factory):
    data, make = painting
    run = tmp_path_factory.mktemp("runs") / "whole"
    training.train(make(), data, epochs=1, run=run, made_with={"preset": "toy"}, verbose=0)
    return run


@pytest.fixture
def kept(painting, whole, tmp_path):
    """Data, what makes a model, and the folder of a run of one epoch."""
    return *painting, shutil.copytree(whole, tmp_path / "run")


def test_a_run_made_with_something_else_is_refused(kept, small_data):
    data, make, run = kept

    def resumed(model, data, preset="toy"):
        training.train(model, data, epochs=2, run=run, resume=True, made_with={"preset": preset})

    with pytest.raises(ValueError, match="another preset.*'toy'. Received: 'document'"):
        resumed(make(), data, "document")
    photos = small_data("captioning")
    with pytest.raises(ValueError, match="another task.*'text_to_image'. Received: 'captioning'"):
        resumed(tiny("captioning", photos), photos)
    with pytest.raises(ValueError, match="another vocabulary.*words"):
        fewer = tiny("text_to_image", small_data("text_to_image"), image_size=16)
        resumed(fewer, _with_vocabulary(data, small_data("text_to_image").vocabulary))
    with pytest.raises(ValueError, match="another model"):
        resumed(make(units=16), data)
    with pytest.raises(ValueError, match="another optimizer's learning rate"):
        resumed(make(learning_rate=1e-4), data)


@pytest.mark.parametrize(
    ("task", "name", "other"),
    [
        ("captioning", "vocabulary", Vocabulary(("other", "words"))),
        ("captioning", "image_size", 224),
        ("text_to_image", "image_size", 16),
        ("speech_to_text", "sample_rate_hz", 8_000),
        ("speech_to_text", "step_ms", 20),
    ],
)
def test_data_of_another_kind_than_the_model_are_refused(task, name, other, small_data):
    data = small_data(task)
    with pytest.raises(ValueError, match=f"Expected data of the model's {name}, .*data_options") as caught:
        training.train(tiny(task, data), dataclasses.replace(data, **{name: other}), epochs=1)
    assert repr(getattr(data, name)) in str(caught.value) and f"{name}={other!r}" in str(caught.value)


def _with_vocabulary(data, vocabulary):
    return dataclasses.replace(data, vocabulary=vocabulary)


def test_a_folder_that_holds_a_run_is_not_written_over(kept):
    data, make, run = kept
    before = (run / "last.keras").read_bytes()
    with pytest.raises(FileExistsError, match="holds a run already.*resume"):
        training.train(make(), data, epochs=1, run=run)
    assert (run / "last.keras").read_bytes() == before


def test_a_folder_that_cannot_be_written_to_is_told_before_training(painting, tmp_path):
    data, make = painting
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="folder '.*file' cannot be written to: Not a directory"):
        training.train(make(), data, epochs=1, run=tmp_path / "file" / "run")


def test_a_damaged_checkpoint_is_told(kept):
    data, make, run = kept
    (run / "last.keras").write_bytes((run / "last.keras").read_bytes()[:1000])
    with pytest.raises(ValueError, match="last.keras is not a whole checkpoint"):
        training.train(make(), data, epochs=2, run=run, resume=True, made_with={"preset": "toy"})


def test_a_run_that_does_not_say_what_it_was_made_with_is_told(kept):
    data, make, run = kept
    how = {"epochs": 2, "run": run, "resume": True, "made_with": {"preset": "toy"}, "verbose": 0}
    for spoiled in ("", "[1]", "nothing"):
        (run / "run.json").write_text(spoiled)
        with pytest.raises(ValueError, match="run.json does not say what the run was made with"):
            training.train(make(), data, **how)
    (run / "run.json").unlink()
    with pytest.raises(ValueError, match="holds a checkpoint, last.keras, but no run.json"):
        training.train(make(), data, **how)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"epochs": 1, "patience": 3}, "patience=3, run=None"),
        ({"epochs": 1, "resume": True}, "run=None"),
    ],
)
def test_bad_arguments_are_named(how, message, painting):
    data, make = painting
    with pytest.raises(ValueError, match=message):
        training.train(make(), data, **how)


def test_data_for_testing_alone_are_refused(painting):
    data, make = painting
    with pytest.raises(ValueError, match=r"Expected data to train on: rows .* Received: data\.train=None"):
        training.train(make(), dataclasses.replace(data, splits={}), epochs=1)


def test_a_disk_that_fills_leaves_the_last_whole_checkpoint(painting, tmp_path):
    """The system lets no file grow beyond a few bytes, which fails a write as a full disk does."""
    data, make = painting
    run, limits = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)

    class Fill(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))

    try:
        with pytest.raises(OSError, match="What epoch 2 learned could not be written.*after epoch 1 is whole"):
            training.train(make(), data, epochs=2, run=run, callbacks=[Fill()], verbose=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    history = training.train(make(), data, epochs=2, run=run, resume=True, verbose=0)
    assert len(history["loss"]) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a small disk")
def test_a_disk_without_room_is_told_before_training(painting, tmp_path):
    data, make = painting
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", disk], check=True)
    try:
        with pytest.raises(OSError, match="No room for the run's checkpoints"):
            training.train(make(), data, epochs=1, run=disk / "run")
    finally:
        subprocess.run(["umount", disk], check=True)


# --- killed ---

EPOCHS = 40


class Lingers(keras.callbacks.Callback):
    """Tells when one epoch is done, and waits before the last one: it is killed before its end."""

    def __init__(self, begun):
        super().__init__()
        self.begun, self.first = begun, None

    def on_epoch_begin(self, epoch, logs=None):
        if self.first is None:
            self.first = epoch
        else:
            self.begun.set()
        if epoch == EPOCHS - 1:
            time.sleep(600)


def _train_to_the_end(run, data_dir, resume, begun=None):
    """In a process of its own; with `begun` it has to be killed."""
    small_world()
    data = pictures(data_dir)
    model = tiny("text_to_image", data, image_size=16)
    callbacks = [Lingers(begun)] if begun else []
    training.train(model, data, epochs=EPOCHS, run=run, resume=resume, callbacks=callbacks, verbose=0)
    saving.save(model, run / "end.keras")


@pytest.mark.slow
def test_killed_ten_times_it_ends_as_an_undisturbed_run(tmp_path):
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["mmkeras.text_to_image", "mmkeras.training", "tensorflow_datasets"])

    def begin(run, resume, begun=None):
        child = processes.Process(target=_train_to_the_end, args=(run, tmp_path / "data", resume, begun))
        child.start()
        return child

    def to_its_end(run, resume):
        child = begin(run, resume)
        child.join()
        assert child.exitcode == 0
        end = keras.saving.load_model(run / "end.keras")  # without the seeds; those are in the state
        return [*end.get_weights(), *(variable.numpy() for variable in end.optimizer.variables)], _read_state(
            run / "last.keras"
        )

    expected, end = to_its_end(tmp_path / "undisturbed", False)
    run, draws, epochs, cut = tmp_path / "killed", random.Random(0), [], 0
    for number in range(10):
        child = begin(run, number > 0, begun := processes.Event())
        assert begun.wait(120)
        if number % 3 == 2:  # while a checkpoint is being written
            until = time.monotonic() + 60
            while not list(run.glob(".saving-*/*.keras")) and time.monotonic() < until:
                time.sleep(0.0005)
        else:
            child.join(draws.uniform(0, 0.6))
        assert child.is_alive()
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        cut += bool(list(run.glob(".saving-*/*.keras")))
        epochs.append(_read_state(run / "last.keras").epoch if (run / "last.keras").exists() else 0)
    print(f"whole epochs after each kill: {epochs}; {cut} times a checkpoint was cut short")
    assert epochs == sorted(epochs) and 0 < epochs[-1] < EPOCHS and cut
    found, state = to_its_end(run, True)
    assert state == end and state.epoch == EPOCHS and state.seeds
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
