"""Keras's backends: the three tasks learn, answer and are saved on JAX and PyTorch as on TensorFlow, and what
one of them saved gives the same answers on the others.

Each backend works in processes of its own, see `backends.py`.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mmkeras.toy import builders

pytestmark = pytest.mark.backends

BACKENDS = ("tensorflow", "jax", "torch")
TASKS = ("captioning", "attention", "ctc", "text_to_image", "adversarial")
# who answers with a model that whom saved
ACROSS = [("tensorflow", "jax"), ("tensorflow", "torch"), ("jax", "tensorflow"), ("torch", "tensorflow")]
# JAX sees two CPUs. Compiling takes most of the time, but at optimization level 0 its gradients are NaN.
XLA = "--xla_force_host_platform_device_count=2 --xla_llvm_disable_expensive_passes=true"


def run(backend, *arguments):
    environment = os.environ | {"KERAS_BACKEND": backend, "TQDM_DISABLE": "1"}  # a slow machine shows progress
    if backend == "jax":
        environment |= {"XLA_FLAGS": XLA, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, Path(__file__).with_name("backends.py"), *arguments]
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{backend} {arguments[0]}:\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def worked(tmp_path_factory):
    """The folder in which all backends have done their work, and what they said."""
    data, folder = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("worked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builders, "EXAMPLES", {"train": 32, "validation": 12, "test": 8, "test_unseen": 8})
        builders.toy_images(64, data_dir=data)
        builders.toy_images(16, data_dir=data)
        builders.toy_speech("en", data_dir=data)
    with ThreadPoolExecutor(2) as pool:  # JAX first, which takes the longest
        trainings = [pool.submit(run, backend, "train", data, folder) for backend in ("jax", *BACKENDS[::2])]
        trainings.append(pool.submit(run, "jax", "devices", data, folder))
        (folder / "again").mkdir()
        trainings.append(pool.submit(run, "tensorflow", "train", data, folder / "again"))
        said = [training.result() for training in trainings]
        answers = [
            pool.submit(run, by, "answer", folder, *[of for of, reader in ACROSS if reader == by])
            for by in BACKENDS
        ]
        said += [answer.result() for answer in answers]
    return folder, said


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("task", TASKS)
def test_every_backend_learns_every_task(task, backend, worked):
    found = np.load(worked[0] / backend / f"{task}.npz")
    assert len(found["losses"]) == 10 and np.isfinite(found["losses"]).all()
    assert found["losses"][-1] < found["losses"][0]  # the running mean
    assert np.isfinite(found["val_loss"]).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("task", TASKS)
def test_a_file_holds_all_weights(task, backend, worked):
    assert np.load(worked[0] / backend / f"{task}.npz")["same_weights"]


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_where_tensorflow_only_feeds_the_notebooks_lines_still_run(backend):
    code = (
        "import mmkeras\n"
        "with mmkeras.distribute.strategy().scope(): mmkeras.captioning.build('toy')\n"
        "try: mmkeras.distribute.strategy('mirrored')\n"
        "except ValueError as error: print(error)"
    )
    environment = os.environ | {"KERAS_BACKEND": backend}
    command = [sys.executable, "-W", "error::UserWarning", "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    chosen, refused = done.stdout.splitlines()
    assert chosen.startswith("Training on") and backend in chosen
    assert f"KERAS_BACKEND={backend}, kind='mirrored'" in refused


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_gone_on_with_ends_as_an_undisturbed_one(backend, worked):
    assert np.load(worked[0] / backend / "resume.npz")["same"]


@pytest.mark.parametrize("task", TASKS)
def test_the_same_seed_gives_the_same_losses_to_the_last_digit(task, worked):
    one, other = (np.load(folder / "tensorflow" / f"{task}.npz") for folder in (worked[0], worked[0] / "again"))
    for name in one.files:
        np.testing.assert_array_equal(one[name], other[name], name)


@pytest.mark.parametrize(("of", "by"), ACROSS)
@pytest.mark.parametrize("task", TASKS)
def test_what_one_backend_saved_answers_alike_on_another(task, of, by, worked):
    expected = np.load(worked[0] / of / f"{task}.npz")
    found = np.load(worked[0] / of / f"{task}.{by}.npz")
    assert {"output"} < set(found.files)
    for name in found.files:
        one, other = expected[name], found[name]
        if one.dtype == np.uint8:  # a pixel may be rounded up here and down there
            assert np.abs(one.astype(int) - other).max() <= 1, name
        elif one.dtype.kind == "i":
            np.testing.assert_array_equal(one, other, name)
        else:
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("task", TASKS[:-1])
def test_two_devices_learn_as_one_does_on_jax(task, worked):
    one, two = (np.load(worked[0] / "jax" / f"{task}.{count}_devices.npz") for count in (1, 2))
    assert one["spread"] == 1 and two["spread"] == 2
    np.testing.assert_allclose(one["losses"], two["losses"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(one["val_loss"], two["val_loss"], rtol=1e-4, atol=1e-4)


def test_no_backend_warns(worked):
    """Keras's warning of every tf.data.Dataset aside; TensorFlow prints notes while it loads."""
    lines = [line for stderr in worked[1] for line in stderr.splitlines()]
    assert not [line for line in lines if "Warning:" in line and "`shuffle=True`" not in line]
