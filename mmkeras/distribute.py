"""Several devices, several machines: a strategy of tf.distribute, and what Keras leaves open there.

    strategy = distribute.strategy()                 # what there is: GPUs, a TPU, the workers of a cluster
    with strategy.scope():
        model = mmkeras.captioning.build("toy", vocabulary=data.vocabulary)
    with distribute.clear_failures():
        model.fit(data.train)                        # plain Keras

A batch is the global one, of all devices together; each replica takes its share of every batch. Losses and
batch normalisation speak of the whole batch (`mmkeras.replicas`), so a model learns the same on one device and
on many.

On several machines each worker runs the same program and reads the same data. It learns who the others are from
TF_CONFIG, from Slurm, or from `workers` and `index`. `fit`, `evaluate` and `predict` then give every worker the
same weights, numbers and answers, and all workers must call them; an answering class needs no other worker.
"""

import contextlib
import json
import os
import socket
from collections.abc import Sequence

from mmkeras import start  # noqa: F401 (first: it keeps TensorFlow's start-up notes off the terminal)

# isort: split
import keras
import tensorflow as tf

from mmkeras import keras_repairs

KINDS = ("auto", "one_device", "mirrored", "multi_worker", "tpu")
SLURM_PORT = 8888  # of a node's first task, as tf.distribute has it


class WorkerLostError(RuntimeError):
    """Another worker of the cluster is gone, so this one cannot train on."""


def strategy(
    kind: str = "auto", *, workers: str | Sequence[str] | None = None, index: int | None = None
) -> tf.distribute.Strategy:
    """A strategy for the devices that there are; one printed line says which and why.

    It must come before anything else that TensorFlow computes, where there are several workers.

    Args:
        kind: `"auto"`: several workers if TF_CONFIG, Slurm or `workers` name them, else a TPU, else all GPUs,
            else the CPU. Or one of these alone: `"one_device"` (one GPU, else the CPU; no strategy at all),
            `"mirrored"` (all GPUs of this machine, else its logical CPUs), `"multi_worker"`, `"tpu"` (which
            nobody has tried).
        workers: host:port of every worker, `"host:port,host:port"` or a list, where no cluster manager says it.
        index: this worker's place among them, from 0.

    Raises:
        ValueError: a kind that nobody knows or that needs devices that are not there; a TF_CONFIG that is no
            JSON, lacks this worker, or whose port for it is in use; Keras runs on another backend.
    """
    if kind not in KINDS:
        known = ", ".join(map(repr, KINDS))
        raise ValueError(f"Expected kind to be one of {known}. Received: kind={kind!r}")
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"tf.distribute needs Keras's TensorFlow backend. Received: KERAS_BACKEND="
            f"{keras.backend.backend()}. On JAX several devices go through keras.distribution."
        )
    if kind == "auto":
        kind, why = _what_there_is(workers)
    else:
        why = f"kind={kind!r} asks for it"
    if kind != "multi_worker" and (workers is not None or index is not None):
        raise ValueError(f"workers and index are for kind='multi_worker'. Received: kind={kind!r}")
    if kind == "one_device":
        chosen, where = tf.distribute.get_strategy(), "one GPU" if _gpus() else "the CPU"
    elif kind == "mirrored":
        chosen, where = _mirrored()
    elif kind == "multi_worker":
        chosen, where = _multi_worker(workers, index)
    else:
        chosen, where = _tpu()
    if kind != "one_device":
        keras_repairs.apply(chosen)
    print(f"Training on {where}: {type(chosen).__name__.lstrip('_')}, since {why}", flush=True)
    return chosen


def tf_config(workers: str | Sequence[str], index: int) -> str:
    """What TF_CONFIG must say on one worker of a cluster, as JSON.

    Args:
        workers: host:port of every worker, in the same order everywhere.
        index: which of them it is, from 0.

    Raises:
        ValueError: an address without a port, one that comes twice, or an index beyond the last.
    """
    addresses = workers.split(",") if isinstance(workers, str) else list(workers)
    addresses = [address.strip() for address in addresses]
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 2**16:
            raise ValueError(f"Expected workers to be host:port,host:port ... Received: {address!r}")
    if len(set(addresses)) < len(addresses):
        raise ValueError(f"Expected each worker to have an address of its own. Received: workers={workers!r}")
    if not isinstance(index, int) or not 0 <= index < len(addresses):
        raise ValueError(
            f"Expected index to be this worker's place among {len(addresses)} workers, from 0 to "
            f"{len(addresses) - 1}. Received: index={index!r}"
        )
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})


def describe_batch(batch_size: int, strategy: tf.distribute.Strategy) -> str:
    """How a batch is shared, in words: "32 a step, 16 on each of 2 replicas".

    Args:
        batch_size: the global one, of all devices together, as `data(..., batch_size=...)` takes it.
        strategy: from `strategy`.

    Raises:
        ValueError: there are more replicas than examples in a batch.
    """
    replicas = strategy.num_replicas_in_sync
    if batch_size < replicas:
        raise ValueError(
            f"Expected batch_size, which all devices share, to be at least the number of replicas, {replicas}. "
            f"Received: batch_size={batch_size}"
        )
    if replicas == 1:
        return f"{batch_size} a step"
    share, over = divmod(batch_size, replicas)
    each = f"{share} or {share + 1}" if over else f"{share}"
    return f"{batch_size} a step, {each} on each of {replicas} replicas"


# --- which devices ---


def _what_there_is(workers):
    if workers is not None:
        return "multi_worker", "workers names them"
    if "TF_CONFIG" in os.environ and len(_cluster(os.environ["TF_CONFIG"])[0]) > 1:
        return "multi_worker", "TF_CONFIG names them"
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        return "multi_worker", "Slurm runs several tasks"
    if os.environ.get("TPU_NAME") or tf.config.list_physical_devices("TPU"):
        return "tpu", "there is one"
    if _gpus() > 1:
        return "mirrored", "there are several GPUs"
    return "one_device", "there is one GPU" if _gpus() else "there is no GPU"


def _gpus():
    return len(tf.config.list_physical_devices("GPU"))


def _mirrored():
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    names = [device.name.removeprefix("/device:") for device in devices]
    return tf.distribute.MirroredStrategy(names), ", ".join(names)


def _tpu():
    name = os.environ.get("TPU_NAME", "local")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(name)
        if name != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.OpError) as error:
        said = str(error).splitlines()[0][:200]
        raise ValueError(
            f"No TPU is there. Expected one on this machine, or its name in TPU_NAME. Received: "
            f"TPU_NAME={os.environ.get('TPU_NAME')!r}. TensorFlow says: {said}"
        ) from error
    chosen = tf.distribute.TPUStrategy(resolver)
    return chosen, f"a TPU of {chosen.num_replicas_in_sync} cores"


# --- several workers ---


class _MultiWorkerMirroredStrategy(tf.distribute.MultiWorkerMirroredStrategy):
    """Workers take their shares of each batch, where TensorFlow would rather have each read files of its own:
    then a batch would hold other examples than one worker alone would have in it."""

    def experimental_distribute_dataset(self, dataset, options=None):
        policies = tf.data.experimental.AutoShardPolicy
        if dataset.options().experimental_distribute.auto_shard_policy == policies.AUTO:
            sharing = tf.data.Options()
            sharing.experimental_distribute.auto_shard_policy = policies.DATA
            dataset = dataset.with_options(sharing)
        return super().experimental_distribute_dataset(dataset, options)


def _multi_worker(workers, index):
    if workers is not None:
        os.environ["TF_CONFIG"] = tf_config(workers, index)
    elif "TF_CONFIG" not in os.environ and "SLURM_STEP_NUM_TASKS" in os.environ:
        os.environ["TF_CONFIG"] = _slurm_config()
    elif "TF_CONFIG" not in os.environ:
        raise ValueError(
            "Expected TF_CONFIG, Slurm's variables, or workers and index to say who the workers are. Received: "
            "none of them"
        )
    addresses, place = _cluster(os.environ["TF_CONFIG"])
    if place is None:
        raise ValueError(
            f"Expected TF_CONFIG to hold a cluster and, as its task, one of its workers. Received: "
            f"TF_CONFIG={os.environ['TF_CONFIG']}"
        )
    _check_port(addresses[place])
    chosen = _MultiWorkerMirroredStrategy()
    return chosen, f"worker {place} of {len(addresses)}, {addresses[place]}"


def _cluster(text):
    """The addresses that a TF_CONFIG names, and the place of this worker among them; None: it is not there."""
    try:
        config = json.loads(text)
        tasks = config.get("cluster", {})
        kind, number = config.get("task", {}).get("type"), int(config.get("task", {}).get("index", -1))
    except (json.JSONDecodeError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f'Expected TF_CONFIG to be JSON as {{"cluster": {{"worker": ["host:port", ...]}}, "task": '
            f'{{"type": "worker", "index": 0}}}}. Received: TF_CONFIG={text} ({error})'
        ) from None
    if "ps" in tasks:
        raise ValueError(
            f"Expected TF_CONFIG to name workers that train in step; parameter servers are not for `fit`. "
            f"Received: TF_CONFIG={text}"
        )
    addresses = [*tasks.get("chief", []), *tasks.get("worker", [])]
    mine = tasks.get(kind, []) if kind in ("chief", "worker") else []
    return addresses, addresses.index(mine[number]) if 0 <= number < len(mine) else None


def _slurm_config():
    """Slurm's hosts as TF_CONFIG. Of TensorFlow's resolver the addresses alone: it counts GPUs with a tool of
    NVIDIA's, and fails where there is none or where Slurm has already shared them out."""
    try:
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            port_base=SLURM_PORT, gpus_per_node=2**16, gpus_per_task=1, auto_set_gpu=False
        )
        addresses = resolver.cluster_spec().as_dict()["worker"]
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"Slurm's variables do not tell who the workers are. TensorFlow says: {error}"
        ) from error
    return tf_config(addresses, resolver.get_task_info()[1])


def _check_port(address):
    """TensorFlow's server would share a port in use with whoever has it, and both would wait for ever."""
    port = int(address.rpartition(":")[2])
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was closed just now is free
        try:
            probe.bind(("", port))
        except OSError as error:
            raise ValueError(
                f"Port {port}, which TF_CONFIG gives this worker, is in use ({error.strerror}). End what uses "
                f"it, or give all workers another one. Received: {address!r}"
            ) from None


@contextlib.contextmanager
def clear_failures():
    """Around a training: where another worker is lost, one clear message instead of TensorFlow's trace.

    Raises:
        WorkerLostError: for TensorFlow's errors of that kind.
    """
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
        raise WorkerLostError(
            f"A worker of the cluster is lost, so training stops here. Start all workers anew, "
            f"and go on from the last checkpoint. TensorFlow says: {str(error).splitlines()[0][:300]}"
        ) from error
