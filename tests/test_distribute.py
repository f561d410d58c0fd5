"""Several devices and several workers learn what one device learns. The trainings are in workers.py."""

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

import mmkeras
from mmkeras import distribute
from mmkeras.distribute import cluster, keras_patches
from mmkeras.nn import layers
from mmkeras.toy import builders

SCRIPT = Path(__file__).parent / "workers.py"
TASKS = "captioning,attention,text_to_image"


# --- which strategy ---


@pytest.fixture
def alone(monkeypatch):
    for name in ("TF_CONFIG", "SLURM_STEP_NUM_TASKS", "TPU_NAME"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_gpu_it_is_the_cpu_and_no_strategy(alone, capsys):
    assert distribute.strategy() is tf.distribute.get_strategy()
    assert capsys.readouterr().out == "Training on the CPU, since there is no GPU\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "gpu"}, "'mirrored'.*Received: kind='gpu'"),
        ({"kind": "tpu"}, "No TPU is there.*TPU_NAME=None"),
        ({"kind": "multi_worker"}, "Expected TF_CONFIG, Slurm's variables, or workers"),
        ({"workers": "a:1,b:2"}, "from 0 to 1. Received: index=None"),
        ({"workers": "a:1,b:2", "index": 2}, "from 0 to 1. Received: index=2"),
        ({"workers": "a:1,b", "index": 0}, "host:port. Received: 'b'"),
        ({"workers": ["a:1", "a:1"], "index": 0}, "address of its own"),
        ({"index": 1}, "Expected workers, the addresses that index counts"),
        ({"kind": "mirrored", "workers": "a:1,b:2", "index": 0}, "Received: kind='mirrored'"),
    ],
)
def test_bad_arguments_are_named(alone, arguments, message):
    with pytest.raises(ValueError, match=message):
        distribute.strategy(**arguments)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("worker 0", "to be JSON.*Received: TF_CONFIG=worker 0"),
        ("[]", "to be JSON"),
        ('{"cluster": {"worker": ["a:1", "b:2"]}}', "as its task, one of its workers"),
        (
            '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 2}}',
            "one of its workers",
        ),
        (
            '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "evaluator", "index": 0}}',
            "one of its work",
        ),
        ('{"cluster": {"worker": ["a", "b:2"]}, "task": {"type": "worker", "index": 0}}', "Received: 'a'"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "one of its workers"),
        ('{"cluster": {"worker": ["a:1"], "ps": ["b:2"]}, "task": {"type": "worker", "index": 0}}', "servers"),
    ],
)
def test_a_bad_tf_config_ends_before_anything_starts(alone, monkeypatch, config, message):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match=message):
        distribute.strategy()


def test_a_port_in_use_is_named(alone, monkeypatch):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setenv("TF_CONFIG", cluster.tf_config(f"127.0.0.1:{port},127.0.0.1:1", 0))
        with pytest.raises(ValueError, match=f"Port {port}.*in use"):
            distribute.strategy()


@pytest.mark.parametrize(("workers", "number"), [(2, signal.SIGINT), (1, signal.SIGTERM)])
def test_a_worker_can_be_ended_before_and_after_all_are_there(alone, workers, number):
    code = (
        "import sys, time, mmkeras\n"
        "mmkeras.distribute.strategy('multi_worker', workers=sys.argv[1:], index=0)\n"
        "time.sleep(100)"
    )
    command = [sys.executable, "-c", code, *free_addresses(workers)]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    said = worker.stdout.readline()
    assert said.startswith("Waiting for all 2 workers" if workers == 2 else "Training on 127.0.0.1"), said
    time.sleep(1)  # into TensorFlow's wait
    worker.send_signal(number)
    assert statuses([worker], 30) == [-number]


def test_the_chief_of_a_tf_config_comes_first():
    config = '{"cluster": {"chief": ["a:1"], "worker": ["b:2", "c:3"]}, "task": {"type": "%s", "index": %d}}'
    assert cluster.members(config % ("chief", 0)) == (["a:1", "b:2", "c:3"], 0)
    assert cluster.members(config % ("worker", 1)) == (["a:1", "b:2", "c:3"], 2)


def test_a_cluster_of_one_is_one_device(alone, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", cluster.tf_config("a:1", 0))
    assert distribute.strategy() is tf.distribute.get_strategy()
    monkeypatch.setenv("TF_CONFIG", "{}")
    assert distribute.strategy() is tf.distribute.get_strategy()
    with pytest.raises(ValueError, match="none of them"):
        distribute.strategy("multi_worker")


def slurm(place, tasks, nodes, tasks_a_node):
    values = {
        "PROCID": place,
        "STEP_NUM_TASKS": tasks,
        "STEP_NODELIST": nodes,
        "STEP_TASKS_PER_NODE": tasks_a_node,
    }
    return {f"SLURM_{name}": str(value) for name, value in values.items()}


def test_slurm_tells_hosts_and_tasks(monkeypatch):
    monkeypatch.delenv("SLURM_PROCID", raising=False)
    with pytest.raises(ValueError, match="Slurm's variables do not tell"):
        cluster.slurm_config(9000)
    variables = {
        "PROCID": "2",
        "STEP_NUM_TASKS": "4",
        "STEP_NODELIST": "n[1-2]",
        "STEP_TASKS_PER_NODE": "2(x2)",
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    addresses, place = cluster.members(cluster.slurm_config(9000))
    assert addresses == ["n1:9000", "n1:9001", "n2:9000", "n2:9001"] and place == 2


@pytest.mark.parametrize(
    ("batch_size", "replicas", "said"),
    [
        (32, 1, "32 a step"),
        (32, 2, "32 a step, 16 on each of 2 replicas"),
        (8, 3, "8 a step, 2 or 3 on each of 3"),
    ],
)
def test_batches_are_named_globally_and_per_replica(batch_size, replicas, said):
    assert distribute.describe_batch(batch_size, SimpleNamespace(num_replicas_in_sync=replicas)).startswith(
        said
    )


def test_a_batch_smaller_than_the_replicas_is_refused():
    with pytest.raises(ValueError, match="number of replicas, 4. Received: batch_size=3"):
        distribute.describe_batch(3, SimpleNamespace(num_replicas_in_sync=4))


def test_a_lost_worker_is_one_clear_message():
    trace = "Graph execution error:\n\nCollective ops is aborted by: Socket closed\nmore"
    with pytest.raises(distribute.WorkerLostError, match="Another worker.*says: Socket closed$"):
        with distribute.clear_failures():
            raise tf.errors.UnavailableError(None, None, trace)
    with pytest.raises(KeyError), distribute.clear_failures():
        raise KeyError("anything else")


# --- what Keras breaks ---


def test_a_strategy_takes_no_batch_before_training(alone):
    """Keras would draw one more epoch's order from a shuffled dataset."""
    strategy = distribute.strategy("mirrored")
    assert keras_patches.apply(strategy) == []  # what is mended, or was never broken, is left alone
    read = []

    def numbers():
        read.append(True)
        yield from np.arange(8, dtype="float32").reshape(4, 2, 1)

    dataset = tf.data.Dataset.from_generator(numbers, output_signature=tf.TensorSpec((2, 1)))
    with strategy.scope():
        model = keras.Sequential([keras.layers.Dense(1)])  # not built yet
        model.compile("sgd", "mse", metrics=["mae"])
    model.fit(dataset.map(lambda x: (x, x)), epochs=3, verbose=0)
    assert len(read) == 3


def test_keras_is_mended_where_it_is_known_and_broken():
    code = (
        "from mmkeras import distribute\nfrom mmkeras.distribute import keras_patches\n"
        "import keras, tensorflow as tf\n"
        "strategy, version = tf.distribute.MirroredStrategy(['CPU:0']), keras.__version__\n"
        "for keras.__version__ in ('4.0.0', version, version): print(keras_patches.apply(strategy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    is_broken = tuple(map(int, keras.__version__.split(".")[:2])) < (3, 16)
    assert done.stdout.splitlines() == ["[]", str(["_maybe_symbolic_build"] * is_broken), "[]"]


def test_batch_normalization_saves_nothing_that_another_backend_refuses():
    layer = layers.BatchNormalization(momentum=0.9)
    layer.synchronized = True  # as it is while several replicas train
    config = layer.get_config()
    assert config["synchronized"] is False and config["momentum"] == 0.9


def test_batch_normalization_of_one_replica_is_keras_own():
    x = np.random.default_rng(0).normal(size=(4, 3, 3, 2)).astype("float32")
    ours, keras_own = layers.BatchNormalization(), keras.layers.BatchNormalization()
    np.testing.assert_array_equal(ours(x, training=True), keras_own(x, training=True))
    np.testing.assert_array_equal(ours.moving_variance, keras_own.moving_variance)


TEXT, BATCH = tf.TensorSpec((2, 6), tf.int32), 2
SOUND = {"audio": tf.TensorSpec((2, 8000)), "length": tf.TensorSpec((2,), tf.int32)}


@pytest.mark.parametrize(
    ("task", "sizes", "inputs"),
    [
        ("captioning", {}, {"image": tf.TensorSpec((2, 64, 64, 3)), "tokens": TEXT}),
        ("speech_to_text", {"bands": 16}, SOUND | {"tokens": TEXT}),
        ("speech_to_text", {"bands": 16, "head": "ctc"}, SOUND),
        ("text_to_image", {"image_size": 16}, {"tokens": TEXT}),
        ("text_to_image", {"image_size": 16, "adversarial": True}, {"tokens": TEXT}),
    ],
)
def test_no_graph_holds_a_string(task, sizes, inputs):
    """A TPU has none, and wants every shape to be known."""
    model = getattr(mmkeras, task).build("toy", vocabulary=20, units=8, **sizes)
    function = tf.function(lambda inputs: model(inputs, training=True)).get_concrete_function(inputs)
    assert "DT_STRING" not in str(function.graph.as_graph_def())
    assert function.output_shapes.is_fully_defined()


# --- one device, several devices, several workers ---


def written(folder, *datasets):
    counts = {"train": 20, "validation": 20, "test": 4, "test_unseen": 4}  # ten steps in two epochs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builders, "EXAMPLES", counts)
        for dataset, *options in datasets:
            dataset(*options, data_dir=folder)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return written(tmp_path_factory.mktemp("pictures"), (builders.toy_pictures, 16))


@pytest.fixture(scope="module")
def small_world(pictures):
    return written(pictures, (builders.toy_pictures, 64), (builders.toy_speech, "en"))


def start(trainings, data_dir, output, *options, **variables):
    output.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"} | variables
    environment["PYTHONPATH"] = os.pathsep.join([str(SCRIPT.parent.parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, SCRIPT, trainings, data_dir, output, *options]
    with open(output / "log", "w") as log:
        return subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, env=environment)


def statuses(processes, seconds=500):
    """How they ended; none goes on beyond the seconds."""
    limit = time.monotonic() + seconds
    try:
        return [process.wait(max(limit - time.monotonic(), 0)) for process in processes]
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
    assert statuses(processes) == [0] * len(outputs), "\n".join((path / "log").read_text() for path in outputs)


def assert_same(trainings, expected, found, atol):
    for name in trainings.split(","):
        one, other = np.load(expected / f"{name}.npz"), np.load(found / f"{name}.npz")
        assert one.files == other.files and len(one["losses"]) >= 10
        for what in one.files:
            np.testing.assert_allclose(other[what], one[what], rtol=0, atol=atol, err_msg=f"{name}: {what}")


def assert_workers_learn_what_one_does(trainings, data_dir, one, folder, options):
    """options: of each worker, for `start`."""
    outputs = [folder / str(number) for number in range(len(options))]
    processes = [
        start(trainings, data_dir, output, *arguments, **variables)
        for output, (arguments, variables) in zip(outputs, options, strict=True)
    ]
    assert_trained(processes, outputs)
    for output in outputs[1:]:
        assert_same(trainings, outputs[0], output, atol=0)
    assert_same(trainings, one, outputs[0], atol=1e-4)


@pytest.fixture(scope="module")
def one_device(pictures, tmp_path_factory):
    output = tmp_path_factory.mktemp("one") / "device"
    assert_trained([start("text_to_image", pictures, output)], [output])
    return output


def test_two_devices_learn_what_one_does(one_device, pictures, tmp_path):
    options = [(["--kind", "mirrored", "--devices", 2], {})]
    assert_workers_learn_what_one_does("text_to_image", pictures, one_device, tmp_path, options)
    said = (tmp_path / "0" / "log").read_text().splitlines()
    assert said[:2] == [
        "Training on CPU:0, CPU:1 (MirroredStrategy), since kind='mirrored' asks for it",
        "8 a step, 4 on each of 2 replicas",
    ]


def test_two_workers_learn_what_one_does(one_device, pictures, tmp_path):
    addresses = free_addresses(2)
    options = [([], {"TF_CONFIG": cluster.tf_config(addresses, number)}) for number in range(2)]
    assert_workers_learn_what_one_does("text_to_image", pictures, one_device, tmp_path, options)
    said = (tmp_path / "1" / "log").read_text().splitlines()
    chosen = f"{addresses[1]}, worker 1 of 2 (MultiWorkerMirroredStrategy)"
    assert said[:2] == [
        f"Waiting for all 2 workers, of which this is {addresses[1]}",
        f"Training on {chosen}, since TF_CONFIG names them",
    ]


@pytest.fixture(scope="module")
def one_device_and_two(small_world, tmp_path_factory):
    """All tasks on one device, and on two at the same time."""
    folder = tmp_path_factory.mktemp("all")
    outputs = [folder / "one", folder / "two"]
    trainings = f"{TASKS},ctc,adam"
    processes = [
        start(trainings, small_world, outputs[0]),
        start(trainings, small_world, outputs[1], "--kind", "mirrored", "--devices", 2),
    ]
    assert_trained(processes, outputs)
    return outputs


@pytest.mark.quality
@pytest.mark.parametrize("training", [*TASKS.split(","), "ctc", "adam"])
def test_two_devices_learn_each_task_as_one_does(one_device_and_two, training):
    assert_same(training, *one_device_and_two, atol=1e-4)


@pytest.mark.quality
def test_two_workers_learn_each_task_as_one_does(one_device_and_two, small_world, tmp_path):
    addresses = ",".join(free_addresses(2))
    options = [(["--workers", addresses, "--index", number], {}) for number in range(2)]
    assert_workers_learn_what_one_does(TASKS, small_world, one_device_and_two[0], tmp_path, options)


@pytest.mark.quality
def test_three_tasks_of_slurm_learn_each_task_as_one_does(one_device_and_two, small_world, tmp_path):
    port = free_addresses(1)[0].rpartition(":")[2]
    options = [(["--port", port], slurm(number, 3, "127.0.0.1", 3)) for number in range(3)]
    assert_workers_learn_what_one_does(TASKS, small_world, one_device_and_two[0], tmp_path, options)


@pytest.mark.slow
def test_what_was_learned_on_two_devices_answers_and_is_saved_as_on_one(small_world, tmp_path):
    """Each task by the recipe under MirroredStrategy; `mirrored.py` compares."""
    script = SCRIPT.with_name("mirrored.py")
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parent.parent)}
    command = list(map(str, [sys.executable, script, small_world, tmp_path]))
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Batch size 8 a step, 4 on each of 2 replicas") == 3  # trainings


@pytest.mark.quality
def test_the_adversarial_model_learns_the_same_on_all_workers(pictures, tmp_path):
    """Not what one device learns: each draws its own noise."""
    addresses, outputs = ",".join(free_addresses(2)), [tmp_path / "0", tmp_path / "1"]
    processes = [
        start("adversarial", pictures, output, "--workers", addresses, "--index", number)
        for number, output in enumerate(outputs)
    ]
    assert_trained(processes, outputs)
    assert_same("adversarial", *outputs, atol=0)


@pytest.mark.slow
def test_when_one_worker_is_killed_the_others_say_so_and_end(pictures, tmp_path):
    addresses = ",".join(free_addresses(3))
    processes = [
        start(
            "text_to_image",
            pictures,
            tmp_path / str(number),
            *("--workers", addresses, "--index", number, "--epochs", 1000),
            *(("--die-after", 5) if number == 1 else ()),
        )
        for number in range(3)
    ]
    others = processes[0], processes[2]
    try:
        assert processes[1].wait(500) == -signal.SIGKILL
        died = time.monotonic()
        assert statuses(others, seconds=60) == [1, 1]
    finally:
        for process in processes:
            process.kill()
    print(f"the others ended {time.monotonic() - died:.0f} s after the killed worker")
    for number in (0, 2):
        said = (tmp_path / str(number) / "log").read_text().splitlines()[-1]
        assert "WorkerLostError: Another worker of the cluster is lost, so this one stops" in said


# --- the command on several machines ---


def train_together(folder, output, *options, of_second=()):
    """`mmkeras train` as two workers, in processes of their own."""
    addresses = ",".join(free_addresses(2))
    command = Path(sysconfig.get_path("scripts")) / "mmkeras"
    given = ("--source", folder, "--preset", "toy", "--batch-size", 4, "--epochs", 12, "--output", output)
    given += ("--workers", addresses)
    return [
        subprocess.Popen(
            list(map(str, [command, "train", "captioning", *given, "--index", index, *options, *more])),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, more in enumerate([(), of_second])
    ]


@pytest.mark.slow
def test_where_the_chief_cannot_go_on_the_others_say_so_and_end(photos, tmp_path):
    whole = tmp_path / "whole"
    shutil.copytree(photos, whole, ignore=shutil.ignore_patterns("whole"))
    (photos / "captions.csv").write_text("nothing,of,this\n1,2,3\n")
    chief, other = train_together(photos, tmp_path / "model.keras", of_second=("--source", whole))
    try:
        _, error = chief.communicate(timeout=300)
        assert chief.returncode == 2 and "captions.csv" in error and error.startswith("Error: ")
        _, error = other.communicate(timeout=120)
        assert other.returncode == 2 and error.startswith("Error: Another worker of the cluster is lost")
        assert "Traceback" not in error
    finally:
        for process in (chief, other):
            process.kill()


@pytest.mark.slow
def test_a_killed_worker_is_started_again_and_nothing_is_lost(photos, tmp_path):
    whole, broken = tmp_path / "whole.keras", tmp_path / "broken.keras"
    for process in train_together(photos, whole):
        said, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
        assert "MultiWorkerMirroredStrategy" in said and "4 a step, 2 on each of 2 replicas" in said

    workers = train_together(photos, broken)
    try:
        checkpoint, patience = tmp_path / "broken.run" / "last.keras", time.monotonic() + 300
        while not checkpoint.is_file() and time.monotonic() < patience:
            time.sleep(0.05)
        workers[1].kill()
        _, error = workers[0].communicate(timeout=120)
        assert workers[0].returncode != 0 and not broken.is_file()
        assert "Another worker of the cluster is lost" in error and "Traceback" not in error
    finally:
        for process in workers:
            process.kill()
    epochs = [
        len((tmp_path / f"{name}.run" / "history.csv").read_text().splitlines()) - 1
        for name in ("whole", "broken")
    ]
    assert epochs[0] == 12 and 1 <= epochs[1] < 12  # it was broken off in the middle

    # a folder that the second does not share
    for process in train_together(photos, broken, "--resume", of_second=("--run", tmp_path / "own.run")):
        _, error = process.communicate(timeout=300)
        assert process.returncode == 2 and "Traceback" not in error
        assert f"which they must share. Received, in their order: [{epochs[1]}, 0]" in error

    for process in train_together(photos, broken, "--resume"):
        _, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
    for one, other in zip(*[mmkeras.load(p).model.get_weights() for p in (whole, broken)], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
