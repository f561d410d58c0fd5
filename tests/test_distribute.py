"""Several devices and several workers train the same model as one device."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.backend.tensorflow import trainer
from keras.src.backend.tensorflow.optimizer import TFOptimizer

import mmkeras
from mmkeras import distribute
from mmkeras.distribute import keras_patches, strategies
from mmkeras.nn import layers
from mmkeras.toy import builders

SCRIPT = Path(__file__).parent / "workers.py"
TASKS = "captioning,attention,text_to_image"


# --- the choice of a strategy ---


@pytest.fixture
def no_cluster(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{}")
    for name in ("SLURM_STEP_NUM_TASKS", "TPU_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("config", ["{}", '{"cluster": {"worker": ["a:1"]}}'])
def test_without_a_gpu_or_a_cluster_it_is_the_cpu(no_cluster, config, monkeypatch, capsys):
    monkeypatch.setenv("TF_CONFIG", config)
    assert distribute.strategy() is tf.distribute.get_strategy()
    assert capsys.readouterr().out == "Training on the CPU, since there is no GPU\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "gpu"}, "kind='gpu'"),
        ({"kind": "tpu"}, "TPU_NAME=None"),
        ({"kind": "multi_worker"}, "TF_CONFIG"),
        ({"workers": "a:1,b:2"}, "index=None"),
        ({"workers": "a:1,b:2", "index": 2}, "index=2"),
        ({"index": 1}, "workers=None, index=1"),
        ({"kind": "mirrored", "workers": "a:1,b:2", "index": 0}, "kind='mirrored'"),
    ],
)
def test_invalid_arguments_are_named(no_cluster, options, message):
    with pytest.raises(ValueError, match=message):
        distribute.strategy(**options)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "number"), [(2, signal.SIGINT), (1, signal.SIGTERM)])
def test_signals_end_a_worker_that_waits_and_one_that_runs(no_cluster, workers, number):
    code = (
        "import sys, time, mmkeras\n"
        "mmkeras.distribute.strategy('multi_worker', workers=sys.argv[1:], index=0)\n"
        "time.sleep(100)"
    )
    command = [sys.executable, "-c", code, *free_addresses(workers)]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert worker.stdout.readline().startswith("Waiting")
    if workers == 1:
        assert worker.stdout.readline().startswith("Training")
    time.sleep(1)  # until TensorFlow waits
    worker.send_signal(number)
    assert exit_codes([worker], 30) == [-number]


@pytest.mark.parametrize(
    ("task", "is_chief"), [(("chief", 0), True), (("worker", 0), False), (("worker", 1), False)]
)
def test_a_chief_in_tf_config_is_the_chief(task, is_chief):
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"chief": ["a:1"], "worker": ["b:2", "c:3"]}), task_type=task[0], task_id=task[1]
    )
    assert distribute.is_chief(SimpleNamespace(cluster_resolver=resolver)) == is_chief


@pytest.mark.parametrize(
    ("batch_size", "replicas", "text"),
    [
        (32, 1, "32 a step"),
        (32, 2, "32 a step, 16 on each of 2 replicas"),
        (8, 3, "8 a step, 2 or 3 on each of 3 replicas"),
    ],
)
def test_batches_are_described_per_replica(batch_size, replicas, text):
    strategy = SimpleNamespace(num_replicas_in_sync=replicas)
    assert distribute.describe_batch(batch_size, strategy) == text
    with pytest.raises(ValueError, match=f"batch_size={replicas - 1}"):
        distribute.describe_batch(replicas - 1, strategy)


def test_a_lost_worker_is_one_clear_message():
    trace = "Graph execution error:\n\nCollective ops is aborted by: Socket closed\nmore"
    with pytest.raises(distribute.WorkerLostError, match="Socket closed$"):
        with distribute.clear_failures():
            raise tf.errors.UnavailableError(None, None, trace)
    with pytest.raises(KeyError), distribute.clear_failures():
        raise KeyError("another error")


# --- Keras and TensorFlow under a strategy ---


def test_a_strategy_takes_no_batch_before_training(no_cluster):
    """Otherwise a shuffled dataset would draw one more epoch's order."""
    strategy = distribute.strategy("mirrored")
    passes = []

    def numbers():
        passes.append(True)
        yield from np.arange(8, dtype="float32").reshape(4, 2, 1)

    dataset = tf.data.Dataset.from_generator(numbers, output_signature=tf.TensorSpec((2, 1)))
    with strategy.scope():
        model = keras.Sequential([keras.layers.Dense(1)])  # not built yet
        model.compile("sgd", "mse", metrics=["mae"])
    model.fit(dataset.map(lambda x: (x, x)), epochs=3, verbose=0)
    assert len(passes) == 3


@pytest.fixture
def patches_once_more(monkeypatch):
    """Lets a test apply the patches to what it puts in the place of Keras's functions."""
    monkeypatch.setattr(keras_patches, "_replace", keras_patches._replace.__wrapped__)
    for name in ("_all_reduce_sum_gradients", "_clip_gradients"):
        monkeypatch.setattr(TFOptimizer, name, getattr(TFOptimizer, name))
    scaling = keras.optimizers.LossScaleOptimizer
    monkeypatch.setattr(scaling, "check_finite", scaling.check_finite)


def test_several_replicas_on_a_keras_that_cannot_be_patched_are_an_error(patches_once_more, monkeypatch):
    monkeypatch.delattr(trainer, "reduce_per_replica")
    keras_patches.apply(1)  # needs no patch
    build = getattr(trainer, "TensorFlowTrainer", None) or trainer.Trainer
    before = build._maybe_symbolic_build
    with pytest.raises(ValueError, match=f"keras={keras.__version__}, replicas=2.*reduce_per_replica"):
        keras_patches.apply(2)
    assert build._maybe_symbolic_build is before  # nothing is patched by half


def test_the_functions_are_patched_where_keras_3_16_has_them(patches_once_more, monkeypatch):
    class Trainer:
        def _maybe_symbolic_build(self):
            """Keras's"""

    names = ("conv", "conv_transpose", "max_pool", "average_pool")
    nn = SimpleNamespace(**{name: getattr(keras.ops, name) for name in names})
    monkeypatch.setattr(trainer, "reduce_per_replica", trainer.reduce_per_replica)
    monkeypatch.setattr(trainer, "TensorFlowTrainer", None, raising=False)
    monkeypatch.setattr(trainer, "Trainer", Trainer, raising=False)
    monkeypatch.setitem(sys.modules, "keras.src.backend.tensorflow.ops", SimpleNamespace(nn=nn))
    keras_patches.apply(2)
    for patched in (Trainer._maybe_symbolic_build, *(getattr(nn, name) for name in names)):
        assert patched.__globals__["__name__"] == "mmkeras.distribute.keras_patches"


def test_saved_batch_normalization_is_not_synchronized():
    """Other backends refuse it."""
    layer = layers.BatchNormalization(momentum=0.9)
    layer.synchronized = True  # as while several replicas train
    config = layer.get_config()
    assert config["synchronized"] is False and config["momentum"] == 0.9


TOKENS = {"tokens": tf.TensorSpec((2, 6), tf.int32)}
AUDIO = {"audio": tf.TensorSpec((2, 8000)), "length": tf.TensorSpec((2,), tf.int32)}


@pytest.mark.parametrize(
    ("task", "sizes", "inputs"),
    [
        ("captioning", {}, {"image": tf.TensorSpec((2, 64, 64, 3))} | TOKENS),
        ("speech_to_text", {"bands": 16}, AUDIO | TOKENS),
        ("speech_to_text", {"bands": 16, "head": "ctc"}, AUDIO),
        ("text_to_image", {"image_size": 16}, TOKENS),
        ("text_to_image", {"image_size": 16, "adversarial": True}, TOKENS),
    ],
)
def test_graphs_hold_no_strings_and_static_shapes(task, sizes, inputs):
    """As a TPU needs them."""
    model = getattr(mmkeras, task).build("toy", vocabulary=20, units=8, **sizes)
    function = tf.function(lambda inputs: model(inputs, training=True)).get_concrete_function(inputs)
    assert "DT_STRING" not in str(function.graph.as_graph_def())
    assert function.output_shapes.is_fully_defined()


# --- one device, several devices, several workers ---


def write_toy_world(folder, *datasets):
    counts = {"train": 20, "validation": 20, "test": 4, "test_unseen": 4}  # ten steps in two epochs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builders, "EXAMPLES", counts)
        for dataset, *options in datasets:
            dataset(*options, data_dir=folder)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_toy_world(tmp_path_factory.mktemp("images"), (builders.toy_images, 16))


@pytest.fixture(scope="module")
def toy_world(images):
    return write_toy_world(images, (builders.toy_images, 64), (builders.toy_speech, "en"))


def start(trainings, data_dir, output, *options, **variables):
    output.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"} | variables
    environment["PYTHONPATH"] = os.pathsep.join([str(SCRIPT.parent.parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, SCRIPT, trainings, data_dir, output, *options]
    with open(output / "stdout", "w") as stdout, open(output / "stderr", "w") as stderr:
        return subprocess.Popen(list(map(str, command)), stdout=stdout, stderr=stderr, env=environment)


def exit_codes(processes, seconds=500):
    """The exit codes of processes, which are killed after so many seconds."""
    deadline = time.monotonic() + seconds
    try:
        return [process.wait(max(deadline - time.monotonic(), 0)) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def free_addresses(number):
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return addresses


def assert_trained(processes, outputs):
    codes = exit_codes(processes)
    assert codes == [0] * len(outputs), "\n".join((path / "stderr").read_text() for path in outputs)


def assert_same(trainings, expected, output, atol):
    for name in trainings.split(","):
        one, other = np.load(expected / f"{name}.npz"), np.load(output / f"{name}.npz")
        assert one.files == other.files and len(one["losses"]) >= 10
        for key in one.files:
            np.testing.assert_allclose(other[key], one[key], rtol=0, atol=atol, err_msg=f"{name}: {key}")


def assert_workers_equal_one_device(trainings, data_dir, one_device, folder, options):
    """options: (arguments, environment variables) of each worker."""
    outputs = [folder / str(number) for number in range(len(options))]
    processes = [
        start(trainings, data_dir, output, *arguments, **variables)
        for output, (arguments, variables) in zip(outputs, options, strict=True)
    ]
    assert_trained(processes, outputs)
    for output in outputs[1:]:
        assert_same(trainings, outputs[0], output, atol=0)
    assert_same(trainings, one_device, outputs[0], atol=1e-4)


@pytest.fixture(scope="module")
def one_device(images, tmp_path_factory):
    output = tmp_path_factory.mktemp("one") / "device"
    assert_trained([start("text_to_image", images, output)], [output])
    return output


@pytest.mark.slow
def test_two_devices_equal_one(one_device, images, tmp_path):
    options = [(["--kind", "mirrored", "--devices", 2], {})]
    assert_workers_equal_one_device("text_to_image", images, one_device, tmp_path, options)
    lines = (tmp_path / "0" / "stdout").read_text().splitlines()
    assert "CPU:0, CPU:1 (MirroredStrategy)" in lines[0]
    assert lines[1] == "8 a step, 4 on each of 2 replicas"


@pytest.mark.slow
def test_two_workers_of_tf_config_equal_one_device(one_device, images, tmp_path):
    addresses = free_addresses(2)
    options = [([], {"TF_CONFIG": strategies._tf_config(addresses, number)}) for number in range(2)]
    assert_workers_equal_one_device("text_to_image", images, one_device, tmp_path, options)
    lines = (tmp_path / "1" / "stdout").read_text().splitlines()
    assert "worker 1 of 2" in lines[0] and "(MultiWorkerMirroredStrategy)" in lines[1]


@pytest.fixture(scope="module")
def one_device_and_two(toy_world, tmp_path_factory):
    """All tasks on one device, and on two at the same time."""
    folder = tmp_path_factory.mktemp("all")
    outputs = [folder / "one", folder / "two"]
    trainings = f"{TASKS},ctc,adam"
    processes = [
        start(trainings, toy_world, outputs[0]),
        start(trainings, toy_world, outputs[1], "--kind", "mirrored", "--devices", 2),
    ]
    assert_trained(processes, outputs)
    return outputs


@pytest.mark.quality
@pytest.mark.parametrize("training", [*TASKS.split(","), "ctc", "adam"])
def test_two_devices_equal_one_in_each_task(one_device_and_two, training):
    assert_same(training, *one_device_and_two, atol=1e-4)


@pytest.mark.quality
def test_two_workers_equal_one_device_in_each_task(one_device_and_two, toy_world, tmp_path):
    addresses = ",".join(free_addresses(2))
    options = [(["--workers", addresses, "--index", number], {}) for number in range(2)]
    assert_workers_equal_one_device(TASKS, toy_world, one_device_and_two[0], tmp_path, options)


@pytest.mark.quality
def test_three_tasks_of_slurm_equal_one_device_in_each_task(one_device_and_two, toy_world, tmp_path):
    variables = {"STEP_NUM_TASKS": "3", "STEP_NODELIST": "127.0.0.1", "STEP_TASKS_PER_NODE": "3"}
    variables = {f"SLURM_{name}": value for name, value in variables.items()}
    options = [([], variables | {"SLURM_PROCID": str(number)}) for number in range(3)]
    assert_workers_equal_one_device(TASKS, toy_world, one_device_and_two[0], tmp_path, options)


@pytest.mark.quality
def test_models_trained_on_two_devices_answer_and_save_as_on_one(toy_world, tmp_path):
    """`mirrored.py` trains each task by the recipe under MirroredStrategy, and compares."""
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parent.parent)}
    command = list(map(str, [sys.executable, SCRIPT.with_name("mirrored.py"), toy_world, tmp_path]))
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Batch size 8 a step, 4 on each of 2 replicas") == 3  # trainings


@pytest.mark.quality
def test_the_three_methods_train_on_two_devices():
    command = [sys.executable, str(SCRIPT.with_name("methods.py")), "mirrored"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CPU:0, CPU:1 (MirroredStrategy)" in done.stdout


@pytest.mark.quality
def test_the_adversarial_model_is_the_same_on_all_workers(images, tmp_path):
    """It differs from one device: each worker draws its own noise."""
    addresses, outputs = ",".join(free_addresses(2)), [tmp_path / "0", tmp_path / "1"]
    processes = [
        start("adversarial", images, output, "--workers", addresses, "--index", number)
        for number, output in enumerate(outputs)
    ]
    assert_trained(processes, outputs)
    assert_same("adversarial", *outputs, atol=0)


@pytest.mark.quality
def test_a_killed_worker_ends_the_others_with_one_line(images, tmp_path):
    addresses = ",".join(free_addresses(3))
    processes = [
        start(
            "text_to_image",
            images,
            tmp_path / str(number),
            *("--workers", addresses, "--index", number, "--epochs", 1000),
            *(("--die-after", 5) if number == 1 else ()),
        )
        for number in range(3)
    ]
    try:
        assert processes[1].wait(500) == -signal.SIGKILL
        died = time.monotonic()
        assert exit_codes([processes[0], processes[2]], seconds=60) == [1, 1]
    finally:
        for process in processes:
            process.kill()
    print(f"the others ended {time.monotonic() - died:.0f} s after the killed worker")
    for number in (0, 2):
        assert "WorkerLostError" in (tmp_path / str(number) / "stderr").read_text().splitlines()[-1]


# --- `mmkeras train` on several machines ---


def train_together(folder, output, *options, of_second=()):
    """`mmkeras train` as two workers, in processes of their own."""
    addresses = ",".join(free_addresses(2))
    command = Path(sysconfig.get_path("scripts")) / "mmkeras"
    common = ("--source", folder, "--preset", "toy", "--batch-size", 4, "--epochs", 12, "--output", output)
    common += ("--workers", addresses)
    return [
        subprocess.Popen(
            list(map(str, [command, "train", "captioning", *common, "--index", index, *options, *more])),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, more in enumerate([(), of_second])
    ]


@pytest.mark.quality
def test_an_error_of_the_chief_ends_the_others(photos, tmp_path):
    complete = tmp_path / "complete"
    shutil.copytree(photos, complete, ignore=shutil.ignore_patterns("complete"))
    (photos / "captions.csv").write_text("nothing,of,this\n1,2,3\n")
    chief, other = train_together(photos, tmp_path / "model.keras", of_second=("--source", complete))
    try:
        _, error = chief.communicate(timeout=300)
        assert chief.returncode == 2 and "captions.csv" in error and "Error: " in error
        _, error = other.communicate(timeout=120)
        assert other.returncode == 2 and "Error: Another worker" in error and "Traceback" not in error
    finally:
        for process in (chief, other):
            process.kill()


@pytest.mark.quality  # four minutes
def test_a_run_with_a_killed_worker_can_be_resumed(photos, tmp_path):
    outputs = uninterrupted, killed = tmp_path / "uninterrupted.keras", tmp_path / "killed.keras"
    for process in train_together(photos, uninterrupted):
        text, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
        assert "MultiWorkerMirroredStrategy" in text and "4 a step, 2 on each of 2 replicas" in text

    workers = train_together(photos, killed)
    try:
        checkpoint, deadline = tmp_path / "killed.run" / "last.keras", time.monotonic() + 300
        while not checkpoint.is_file() and time.monotonic() < deadline:
            time.sleep(0.05)
        workers[1].kill()
        _, error = workers[0].communicate(timeout=120)
        assert workers[0].returncode != 0 and not killed.is_file()
        assert "Error: Another worker" in error and "Traceback" not in error
    finally:
        for process in workers:
            process.kill()
    epochs = len((tmp_path / "killed.run" / "history.csv").read_text().splitlines()) - 1
    assert 1 <= epochs < 12

    # a folder that the second worker does not share
    for process in train_together(photos, killed, "--resume", of_second=("--run", tmp_path / "own.run")):
        _, error = process.communicate(timeout=300)
        assert process.returncode == 2 and f"[{epochs}, 0]" in error and "Traceback" not in error

    for process in train_together(photos, killed, "--resume"):
        _, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
    for one, other in zip(*[mmkeras.load(path).model.get_weights() for path in outputs], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
