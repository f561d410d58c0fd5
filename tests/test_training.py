"""The training recipe: checkpoints, resuming, early stopping, learning rate, precision."""

import csv
import dataclasses
import multiprocessing
import os
import random
import re
import shutil
import signal
import time
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import mmkeras
from mmkeras import training
from mmkeras._utils import saving
from mmkeras.nn import optimizers
from mmkeras.text.vocabulary import Vocabulary
from mmkeras.toy import builders
from mmkeras.training import learning_rate
from mmkeras.training.checkpoint import RunState, _read_state

SPEECH = {"encoder_layers": 1, "bands": 8, "frame_ms": 40, "hop_ms": 40, "subsampling": 1}
TINY = {"captioning": {}, "speech_to_text": SPEECH, "text_to_image": {"channels": 8, "image_size": 32}}


def tiny(task, data, **options):
    keras.utils.set_random_seed(0)
    options = {"units": 8, "embedding_dim": 8} | TINY[task] | options
    model = getattr(mmkeras, task).build("toy", vocabulary=data.vocabulary, **options)
    model.run_eagerly = True  # a few steps are faster than their compilation
    return model


def assert_same(model, other):
    for one, two in zip(
        [*model.variables, *model.optimizer.variables],
        [*other.variables, *other.optimizer.variables],
        strict=True,
    ):
        np.testing.assert_array_equal(one, two)


class Stop(keras.callbacks.Callback):
    """Ctrl-C in the middle of an epoch (from 0)."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.is_reached = epoch == self.epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.is_reached:
            raise KeyboardInterrupt


def toy_images(data_dir):
    """Text to image's data, two steps per epoch."""
    builders.EXAMPLES = {"train": 64, "validation": 16, "test": 16, "test_unseen": 16}
    return mmkeras.text_to_image.data("toy", image_size=16, batch_size=32, data_dir=data_dir)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builders, "EXAMPLES", builders.EXAMPLES)  # restored at the end
        return toy_images(tmp_path_factory.mktemp("images"))


def tiny_generator(data, **options):
    return tiny("text_to_image", data, **{"image_size": 16} | options)


def test_tensorflow_prepares_its_graphs_once(data, monkeypatch):
    """A new seed would drop them, and cost one or two seconds an epoch."""
    model, seeds = tiny_generator(data), []
    monkeypatch.setattr(tf.random, "set_seed", seeds.append)
    training.train(model, data, epochs=2, verbose=0)
    assert seeds == [0]


def interrupted(model, data, run, epoch=1, **options):
    """The message of a run that is stopped by Ctrl-C."""
    with pytest.raises(KeyboardInterrupt) as stopped:
        training.train(model, data, run=run, callbacks=[Stop(epoch)], verbose=0, **{"epochs": 3} | options)
    return str(stopped.value)


# --- resuming ---


@pytest.mark.quality
@pytest.mark.parametrize("task", TINY)
def test_a_resumed_run_equals_an_uninterrupted_one(task, small_data, tmp_path):
    data = small_data(task)
    uninterrupted = tiny(task, data)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        history = training.train(uninterrupted, data, epochs=2, verbose=0)
    interrupted(tiny(task, data), data, tmp_path / "run", epochs=2)

    data = small_data(task)
    model = tiny(task, data)
    np.random.seed(99)  # other random numbers of the process must not matter
    assert training.train(model, data, epochs=2, run=tmp_path / "run", resume=True, verbose=0) == history
    assert_same(model, uninterrupted)


@pytest.mark.slow
def test_resuming_restores_seed_generators(small_data, tmp_path):
    data = small_data("captioning")
    model, resumed = tiny("captioning", data), tiny("captioning", data)
    seeds = [v.numpy().tolist() for v in resumed.variables if v.name == "seed_generator_state"]
    training.train(model, data, epochs=1, run=tmp_path / "run", verbose=0)
    training.train(resumed, data, epochs=1, run=tmp_path / "run", resume=True)
    assert_same(model, resumed)
    assert seeds and seeds != [v.numpy().tolist() for v in model.variables if v.name == "seed_generator_state"]


@pytest.mark.quality
def test_ctrl_c_says_how_to_resume(data, tmp_path):
    message = interrupted(tiny_generator(data), data, tmp_path / "run")
    assert "epoch 2 of 3" in message and "holds epoch 1" in message and "--resume" in message
    assert "--resume" not in interrupted(tiny_generator(data), data, tmp_path / "other", epoch=0)
    options = {"epochs": 1, "run": tmp_path / "other", "verbose": 0}
    assert len(training.train(tiny_generator(data), data, resume=True, **options)["loss"]) == 1


@pytest.mark.slow
def test_a_finished_run_can_be_extended(data, tmp_path):
    options = {"run": tmp_path / "run", "verbose": 0}
    model, again = tiny_generator(data), tiny_generator(data)
    training.train(model, data, epochs=2, **options)
    assert len(training.train(again, data, epochs=2, resume=True, **options)["loss"]) == 2
    assert_same(model, again)
    assert len(training.train(tiny_generator(data), data, epochs=3, resume=True, **options)["loss"]) == 3


@pytest.mark.slow
def test_a_finished_run_returns_averaged_weights(data, tmp_path):
    models = [tiny_generator(data) for _ in range(2)]
    for model, resume in zip(models, (False, True), strict=True):
        model.compile(keras.optimizers.Adam(1e-2, use_ema=True), loss="mse", run_eagerly=True)
        training.train(model, data, epochs=2, run=tmp_path / "run", resume=resume, verbose=0)
    assert all(map(np.array_equal, *(model.get_weights() for model in models)))


@pytest.mark.slow
def test_the_best_model_on_disk_has_averaged_weights(data, tmp_path):
    plain, saved = (tiny_generator(data) for _ in range(2))
    for model, run in ((plain, None), (saved, tmp_path / "run")):
        model.compile(keras.optimizers.Adam(1e-2, use_ema=True), loss="mse", run_eagerly=True)
        training.train(model, data, epochs=1, run=run, verbose=0)
    best, last = (keras.saving.load_model(tmp_path / "run" / f"{name}.keras") for name in ("best", "last"))
    assert all(map(np.array_equal, plain.get_weights(), saved.get_weights()))
    assert all(map(np.array_equal, saved.get_weights(), best.get_weights()))
    assert not all(map(np.array_equal, saved.get_weights(), last.get_weights()))


# --- the folder of a run ---


def test_the_folder_of_a_run_holds_its_history(data, tmp_path):
    run = tmp_path / "run"
    training.train(tiny_generator(data), data, epochs=1, run=run, verbose=0)
    history = training.train(tiny_generator(data), data, epochs=2, run=run, resume=True, verbose=0)
    rows = list(csv.DictReader((run / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [float(row["val_loss"]) for row in rows] == history["val_loss"]
    assert Image.open(run / "curves.png").width > 100
    files = {"last.keras", "best.keras", "history.csv", "curves.png", "events"}
    assert {path.name for path in run.iterdir()} == files
    losses = {}
    for file in (run / "events").iterdir():
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                if value.tag == "val_loss":
                    losses[event.step] = float(tf.make_ndarray(value.tensor))
    assert losses == {epoch: np.float32(loss) for epoch, loss in enumerate(history["val_loss"], 1)}
    assert mmkeras.load(run / "last.keras")("red").shape == (16, 16, 3)


def test_paths_among_the_settings_are_compared_as_text(data, tmp_path):
    options = {"epochs": 1, "run": tmp_path / "run", "verbose": 0}
    training.train(tiny_generator(data), data, settings={"data_options": {"data_dir": tmp_path}}, **options)
    settings = {"data_options": {"data_dir": str(tmp_path)}}
    training.train(tiny_generator(data), data, settings=settings, resume=True, **options)


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
def test_early_stopping_counts_epochs_without_a_lower_loss(losses, patience, best_epoch, is_over):
    state = RunState()
    for loss in losses:
        state.add({"loss": 0.0, "val_loss": loss}, patience)
    assert (state.best_epoch, state.is_over) == (best_epoch, is_over)


@pytest.mark.slow
def test_early_stopping_restores_the_best_epoch(data, tmp_path):
    def train(resume):
        model = tiny_generator(data, learning_rate=0.5, decay_steps=None)
        options = {"epochs": 20, "patience": 2, "warmup_steps": 0, "verbose": 0}
        return model, training.train(model, data, run=tmp_path / "run", resume=resume, **options)

    model, history = train(resume=False)
    assert len(history["loss"]) == int(np.argmin(history["val_loss"])) + 3 < 20
    best = keras.saving.load_model(tmp_path / "run" / "best.keras")
    assert all(map(np.array_equal, model.get_weights(), best.get_weights()))
    resumed, resumed_history = train(resume=True)
    assert resumed_history == history
    assert all(map(np.array_equal, model.get_weights(), resumed.get_weights()))


# --- learning rate and precision ---


def test_a_constant_learning_rate_gets_a_warm_up_and_a_decay():
    optimizer = keras.optimizers.Adam(0.1)
    training.schedule(optimizer, steps=1000)
    rates = []
    for step in (0, 25, 50, 525, 1000):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    np.testing.assert_allclose(rates, [0, 0.05, 0.1, 0.1 * (0.02 + 0.98 / 2), 0.002], rtol=1e-5)
    training.schedule(constant := keras.optimizers.Adam(0.1), steps=1000, warmup_steps=0)
    assert float(constant.learning_rate) == pytest.approx(0.1)


def test_the_schedule_of_a_preset_stays_without_warmup_steps():
    optimizer = optimizers.adam(2e-3, 750)
    before = keras.optimizers.serialize(optimizer)
    training.schedule(optimizer, steps=10)
    assert keras.optimizers.serialize(optimizer) == before
    training.schedule(optimizer, steps=10, warmup_steps=2)
    optimizer.iterations.assign(2)
    assert float(optimizer.learning_rate) == pytest.approx(2e-3)
    with pytest.raises(ValueError, match="warmup_steps=10"):
        training.schedule(optimizer, steps=10, warmup_steps=10)


@pytest.mark.slow
@pytest.mark.parametrize("decay_steps", [750, None])
def test_a_callback_sets_the_learning_rate(data, tmp_path, decay_steps):
    rates = []

    def halved(epoch, rate):
        rates.append(rate)
        return rate / 2

    def train(resume, epochs):
        model = tiny_generator(data, decay_steps=decay_steps, learning_rate=0.25)
        callback = keras.callbacks.LearningRateScheduler(halved)
        training.train(
            model, data, epochs=epochs, run=tmp_path / "run", resume=resume, callbacks=[callback], verbose=0
        )
        return model

    assert float(train(False, 2).optimizer.learning_rate) == 0.0625
    saved = keras.saving.load_model(tmp_path / "run" / "last.keras")
    assert float(saved.optimizer.learning_rate) == 0.0625
    assert float(train(True, 3).optimizer.learning_rate) == 0.03125
    assert rates == [0.25, 0.125, 0.0625]


@pytest.mark.slow
def test_the_optimizer_keeps_its_moments_if_its_schedule_becomes_a_constant(data):
    model = tiny_generator(data, decay_steps=2, learning_rate=0.25)
    training.train(model, data, epochs=1, verbose=0)
    before = {variable.path: np.array(variable) for variable in model.optimizer.variables}
    learning_rate.make_settable(model)
    after = {variable.path: np.array(variable) for variable in model.optimizer.variables}
    assert after.keys() - before.keys() == {f"{model.optimizer.name}/learning_rate"}
    for path, value in before.items():
        np.testing.assert_array_equal(after[path], value)
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1e9)
    training.train(model, data, epochs=3, callbacks=[plateau], verbose=0)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.25 * 0.02 / 4)


def test_callbacks_that_cannot_set_the_learning_rate_are_named(data):
    class Halve(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.optimizer.learning_rate = 0.1

    with pytest.raises(TypeError, match="LearningRateScheduler.*Received: callbacks with Halve"):
        training.train(tiny_generator(data), data, epochs=1, callbacks=[Halve()], verbose=0)
    callbacks = [keras.callbacks.ReduceLROnPlateau()]
    with pytest.raises(ValueError, match="warmup_steps=1, callbacks with ReduceLROnPlateau"):
        training.train(tiny_generator(data), data, epochs=1, callbacks=callbacks, warmup_steps=1)


@pytest.mark.parametrize(
    ("tpus", "gpus", "expected"),
    [
        (["TPU:0"], [], "mixed_bfloat16"),
        ([], [(8, 0), (9, 0)], "mixed_bfloat16"),
        ([], [(8, 0), (7, 5)], "mixed_float16"),
        ([], [(6, 1)], "float32"),
        ([], [None], "float32"),
        ([], [], "float32"),
    ],
)
def test_precision_depends_on_the_oldest_accelerator(tpus, gpus, expected, monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: tpus if kind == "TPU" else [])
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus if kind == "GPU" else [])
    monkeypatch.setattr(
        tf.config.experimental, "get_device_details", lambda gpu: {"compute_capability": gpu} if gpu else {}
    )
    assert training.use_precision() == expected == keras.config.dtype_policy().name
    assert training.use_precision("float32") == "float32" == keras.config.dtype_policy().name


# --- errors ---


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "finished"
    training.train(tiny_generator(data), data, epochs=1, run=run, settings={"preset": "toy"}, verbose=0)
    return run


@pytest.fixture
def run(finished, tmp_path):
    """The folder of a run of one epoch."""
    return shutil.copytree(finished, tmp_path / "run")


def test_a_run_with_other_settings_is_not_resumed(data, run, small_data):
    def assert_refused(name, model, data=data, preset="toy"):
        with pytest.raises(ValueError, match=f"{name}="):
            training.train(model, data, epochs=2, run=run, resume=True, settings={"preset": preset})

    assert_refused("preset", tiny_generator(data), preset="document")
    images = small_data("captioning")
    assert_refused("task", tiny("captioning", images), images)
    other = dataclasses.replace(data, vocabulary=small_data("text_to_image").vocabulary)
    assert_refused("vocabulary", tiny_generator(other), other)
    assert_refused("model", tiny_generator(data, units=16))
    assert_refused("optimizer.learning_rate", tiny_generator(data, learning_rate=1e-4))


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
def test_data_that_do_not_fit_the_model_are_refused(task, name, other, small_data):
    data = small_data(task)
    with pytest.raises(ValueError, match=name) as caught:
        fields = {name: other} if name == "vocabulary" else {"extra": data.extra | {name: other}}
        training.train(tiny(task, data), dataclasses.replace(data, **fields), epochs=1)
    assert repr(getattr(data, name)) in str(caught.value) and f"{name}={other!r}" in str(caught.value)


def test_an_existing_run_is_not_overwritten(data, run):
    before = (run / "last.keras").read_bytes()
    with pytest.raises(FileExistsError, match="run="):
        training.train(tiny_generator(data), data, epochs=1, run=run)
    assert (run / "last.keras").read_bytes() == before


def test_an_unwritable_folder_is_reported_before_training(data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=str(tmp_path / "file")):
        training.train(tiny_generator(data), data, epochs=1, run=tmp_path / "file" / "run")


def test_a_damaged_checkpoint_is_reported(data, run):
    (run / "last.keras").write_bytes((run / "last.keras").read_bytes()[:1000])
    with pytest.raises(ValueError, match="last.keras"):
        training.train(tiny_generator(data), data, epochs=2, run=run, resume=True, settings={"preset": "toy"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"epochs": 1, "patience": 3}, "patience=3, run=None"),
        ({"epochs": 1, "resume": True}, "run=None"),
    ],
)
def test_invalid_arguments_are_named(options, message, data):
    with pytest.raises(ValueError, match=message):
        training.train(tiny_generator(data), data, **options)
    with pytest.raises(ValueError, match="precision='double'"):
        training.use_precision("double")


def test_the_error_of_a_model_without_optimizer_says_how_to_compile_it(data):
    model = tiny_generator(data, compile=False)
    with pytest.raises(ValueError, match=r"model.optimizer=None.*model\.compile") as caught:
        training.train(model, data, epochs=1)
    suggestion = re.search(r"model\.compile_from_config\(.*\)\)", str(caught.value))[0]
    eval(suggestion, {"mmkeras": mmkeras, "model": model, "data": data})
    assert np.isfinite(training.train(model, data, epochs=1, verbose=0)["loss"]).all()


def test_data_without_a_training_split_are_refused(data):
    with pytest.raises(ValueError, match=r"data\.train=None"):
        training.train(tiny_generator(data), dataclasses.replace(data, splits={}), epochs=1)


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_checkpoint(data, tmp_path, monkeypatch):
    class FillDisk(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                monkeypatch.setattr(keras.Model, "save", save)

    def save(self, path):
        path.write_bytes(b"a part")
        raise OSError("No space left on device")

    options = {"epochs": 2, "run": tmp_path / "run", "verbose": 0}
    with pytest.raises(OSError, match="No space left on device"):
        training.train(tiny_generator(data), data, callbacks=[FillDisk()], **options)
    monkeypatch.undo()
    assert _read_state(tmp_path / "run" / "last.keras").epoch == 1
    assert len(training.train(tiny_generator(data), data, resume=True, **options)["loss"]) == 2


# --- SIGKILL ---

EPOCHS = 40


class Wait(keras.callbacks.Callback):
    """Reports when one epoch is complete, and waits before the last one, so that the process is killed."""

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
    """In a process of its own, which has to be killed if `begun` is given."""
    data = toy_images(data_dir)
    model = tiny_generator(data)
    callbacks = [Wait(begun)] if begun else []
    training.train(model, data, epochs=EPOCHS, run=run, resume=resume, callbacks=callbacks, verbose=0)
    saving.save(model, run / "end.keras")


@pytest.mark.quality
def test_a_run_killed_ten_times_equals_an_uninterrupted_one(tmp_path):
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["mmkeras.text_to_image", "mmkeras.training", "tensorflow_datasets"])

    def begin(run, resume, begun=None):
        child = processes.Process(target=_train_to_the_end, args=(run, tmp_path / "data", resume, begun))
        child.start()
        return child

    def finish(run, resume):
        child = begin(run, resume)
        child.join()
        assert child.exitcode == 0
        model = mmkeras.load(run / "end.keras").model  # without the seeds, which are in the state
        weights = [*model.get_weights(), *(variable.numpy() for variable in model.optimizer.variables)]
        return weights, _read_state(run / "last.keras")

    expected_weights, expected_state = finish(tmp_path / "uninterrupted", False)
    run, rng, epochs, partial = tmp_path / "killed", random.Random(0), [], 0
    for number in range(10):
        child = begin(run, number > 0, begun := processes.Event())
        assert begun.wait(120)
        if number % 3 == 2:  # while a checkpoint is being written
            deadline = time.monotonic() + 60
            while not list(run.glob(".saving-*/*.keras")) and time.monotonic() < deadline:
                time.sleep(0.0005)
        else:
            child.join(rng.uniform(0, 0.6))
        assert child.is_alive()
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        partial += bool(list(run.glob(".saving-*/*.keras")))
        epochs.append(_read_state(run / "last.keras").epoch if (run / "last.keras").exists() else 0)
    print(f"complete epochs after each kill: {epochs}; {partial} partial checkpoints")
    assert epochs == sorted(epochs) and 0 < epochs[-1] < EPOCHS and partial
    weights, state = finish(run, True)
    assert state == expected_state and state.epoch == EPOCHS and state.seeds
    for one, other in zip(weights, expected_weights, strict=True):
        np.testing.assert_array_equal(one, other)
