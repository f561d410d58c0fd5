"""Keras's backends: TensorFlow, JAX and PyTorch train every model and read each other's files.

Each backend has processes of its own, see `backends.py`.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tiny import MODELS

from mmkeras.toy import builders

pytestmark = pytest.mark.backends

BACKENDS = ("tensorflow", "jax", "torch")
# backend that saved the model, backend that loads it
PAIRS = [("tensorflow", "jax"), ("tensorflow", "torch"), ("jax", "tensorflow"), ("torch", "tensorflow")]
# JAX sees two CPUs. Compiling takes most of the time, but at optimization level 0 its gradients are NaN.
XLA = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=1"
XLA += " --xla_llvm_disable_expensive_passes=true"


# What one of its processes compiled is there for the others.
CACHE = {
    "JAX_COMPILATION_CACHE_DIR": os.path.join(os.environ["MMKERAS_CACHE"], "jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


def run_python(backend, *arguments):
    environment = os.environ | {"KERAS_BACKEND": backend, "TQDM_DISABLE": "1"}  # a slow machine shows progress
    if backend == "jax":
        environment |= {"XLA_FLAGS": XLA, "JAX_PLATFORMS": "cpu", **CACHE}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{backend} {arguments}:\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The folder with the results of all backends, and the output of the processes."""
    folder = tmp_path_factory.mktemp("results")
    data = folder / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builders, "EXAMPLES", {"train": 32, "validation": 8, "test": 8, "test_unseen": 8})
        builders.toy_images(64, data_dir=data)
        builders.toy_images(16, data_dir=data)
        builders.toy_speech("en", data_dir=data)
    with ThreadPoolExecutor(2) as pool:

        def submit(backend, *arguments):
            return pool.submit(run_python, backend, Path(__file__).with_name("backends.py"), *arguments)

        slowest_first = ("jax", "tensorflow", "torch")
        jobs = [submit(backend, "train", data, folder) for backend in slowest_first]
        processes = [job.result() for job in jobs]
        jobs = [
            submit(backend, "load", folder, *[saver for saver, loader in PAIRS if loader == backend])
            for backend in BACKENDS
        ]
        processes += [job.result() for job in jobs]
    return folder, [process.stdout + process.stderr for process in processes]


@pytest.fixture(scope="module")
def repeated(results):
    """The results of TensorFlow's training once more, and of JAX's on one device and on two."""
    folder = results[0] / "repeated"
    folder.mkdir()
    with ThreadPoolExecutor(2) as pool:
        script = Path(__file__).with_name("backends.py")
        jobs = [
            pool.submit(run_python, backend, script, action, results[0] / "data", folder)
            for backend, action in (("jax", "devices"), ("tensorflow", "train"))
        ]
        for job in jobs:
            job.result()
    return folder


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", MODELS)
def test_every_backend_trains_and_saves_every_model(name, backend, results):
    arrays = np.load(results[0] / backend / f"{name}.npz")
    assert len(arrays["losses"]) == 10 and np.isfinite(arrays["losses"]).all()
    assert arrays["losses"][-1] < arrays["losses"][0]  # the running mean
    assert np.isfinite(arrays["val_loss"]).all()
    assert arrays["same_weights"]


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_the_strategy_of_the_notebooks_works_on_other_backends(backend):
    code = (
        "import mmkeras\n"
        "with mmkeras.distribute.strategy().scope(): mmkeras.captioning.build('toy')\n"
        "try: mmkeras.distribute.strategy('mirrored')\n"
        "except ValueError as error: print(error)"
    )
    message, error = run_python(backend, "-W", "error::UserWarning", "-c", code).stdout.splitlines()
    assert message.startswith("Training on") and backend in message
    assert f"KERAS_BACKEND={backend}, kind='mirrored'" in error


@pytest.mark.quality
@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_the_three_methods_train_on_other_backends(backend):
    run_python(backend, Path(__file__).with_name("methods.py"))


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_a_resumed_run_equals_an_uninterrupted_one(backend, results):
    assert np.load(results[0] / backend / "resume.npz")["same"]


@pytest.mark.quality
@pytest.mark.parametrize("name", MODELS)
def test_the_same_seed_gives_identical_results(name, results, repeated):
    first, second = (np.load(path / "tensorflow" / f"{name}.npz") for path in (results[0], repeated))
    for key in first.files:
        np.testing.assert_array_equal(first[key], second[key], key)


@pytest.mark.parametrize(("saver", "loader"), PAIRS)
@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_gives_the_same_answers_on_another_backend(name, saver, loader, results):
    expected = np.load(results[0] / saver / f"{name}.npz")
    loaded = np.load(results[0] / saver / f"{name}.{loader}.npz")
    assert {"output"} < set(loaded.files)
    for key in loaded.files:
        a, b = expected[key], loaded[key]
        if a.dtype == np.uint8:  # pixels may be rounded differently
            assert np.abs(a.astype(int) - b).max() <= 1, key
        elif a.dtype.kind == "i":
            np.testing.assert_array_equal(a, b, key)
        else:
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4, err_msg=key)


@pytest.mark.quality
@pytest.mark.parametrize("name", list(MODELS)[:-1])
def test_two_devices_train_like_one_on_jax(name, repeated):
    one, two = (np.load(repeated / "jax" / f"{name}.{count}_devices.npz") for count in (1, 2))
    assert one["devices"] == 1 and two["devices"] == 2
    for key in ("losses", "val_loss"):
        np.testing.assert_allclose(one[key], two[key], rtol=1e-4, atol=1e-4)


def test_no_backend_warns(results):
    """Except for Keras's warning of every tf.data.Dataset. TensorFlow prints notes while it loads."""
    lines = [line for output in results[1] for line in output.splitlines()]
    assert not [line for line in lines if "Warning:" in line and "`shuffle=True`" not in line]
