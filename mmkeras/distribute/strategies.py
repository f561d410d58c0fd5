"""Several devices and machines: chooses a strategy of tf.distribute, and adds what Keras lacks there.

    strategy = distribute.strategy()                 # GPUs, a TPU, the workers of a cluster, or the CPU
    with strategy.scope():
        model = mmkeras.captioning.build("toy", vocabulary=data.vocabulary)
    with distribute.clear_failures():
        model.fit(data.train)                        # plain Keras

A batch is the global one. Each replica processes its share of every batch. Losses and batch normalization use
the whole batch (`mmkeras.distribute.collectives`), so one device and many devices train the same model.

On several machines each worker runs the same program and reads the same data. The workers are named by
TF_CONFIG, by Slurm, or by `workers` and `index`. All workers must call `fit`, `evaluate` and `predict`, which
return the same on each; a predictor runs on one worker alone.
"""

import contextlib
import json
import os
import re
import signal
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from mmkeras.distribute import keras_patches

KINDS = ("auto", "one_device", "mirrored", "multi_worker", "tpu")

# TensorFlow's errors when another worker is lost
LOST_WORKER_ERRORS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


class WorkerLostError(ConnectionError):
    """Another worker of the cluster is lost, so this one cannot continue."""


def strategy(
    kind: str = "auto", *, workers: str | Sequence[str] | None = None, index: int | None = None
) -> tf.distribute.Strategy:
    """Chooses a strategy for the available devices, and prints which one and why.

    With several workers, call it before anything else that TensorFlow computes.

    Args:
        kind: str. `"auto"`: several workers if TF_CONFIG, Slurm or `workers` name them, else a TPU, else all
            GPUs, else the CPU. `"one_device"`: one GPU or the CPU, without a strategy. `"mirrored"`: all GPUs
            of this machine, or its logical CPUs. `"multi_worker"`. `"tpu"`: untested. Defaults to `"auto"`. On
            JAX and PyTorch only `"auto"` and `"one_device"` exist and the strategy does nothing; see
            `share_on_jax`.
        workers: str or list of str. host:port of every worker, in the same order on each. A str separates them
            by commas. Defaults to the workers in TF_CONFIG or of Slurm.
        index: int. This worker's position in `workers`, from 0.

    Raises:
        ValueError: if `kind` is unknown or its devices are missing, `index` is not a position in `workers`,
            several devices are requested on a backend other than TensorFlow, or there are several replicas and
            `keras_patches` cannot fix this version of Keras.
    """
    if kind not in KINDS:
        known = ", ".join(map(repr, KINDS))
        raise ValueError(f"Expected kind to be one of {known}. Received: kind={kind!r}")
    if (backend := keras.backend.backend()) != "tensorflow":
        if kind not in ("auto", "one_device") or workers is not None:
            raise ValueError(
                f"Expected kind to be 'auto' or 'one_device', without workers, on JAX and PyTorch; on JAX use "
                f"mmkeras.distribute.share_on_jax. Received: KERAS_BACKEND={backend}, kind={kind!r}, "
                f"workers={workers!r}"
            )
        print(f"Training on the devices of {backend}; tf.distribute needs TensorFlow", flush=True)
        return tf.distribute.get_strategy()  # its scope does nothing
    if workers is not None or index is not None:
        if kind not in ("auto", "multi_worker"):
            raise ValueError(
                f"Expected kind to be 'multi_worker' with workers and index. Received: kind={kind!r}"
            )
        os.environ["TF_CONFIG"] = _tf_config(workers, index)
        kind, why = "multi_worker", "workers names them"
    elif kind == "auto":
        kind, why = _available()
    else:
        why = f"kind={kind!r} was requested"
    if kind == "one_device":
        chosen, devices = tf.distribute.get_strategy(), "one GPU" if _gpus() else "the CPU"
    elif kind == "mirrored":
        chosen, devices = _mirrored()
    elif kind == "multi_worker":
        chosen, devices = _multi_worker()
    else:
        chosen, devices = _tpu()
    if kind != "one_device":
        keras_patches.apply(chosen.num_replicas_in_sync)
    print(f"Training on {devices}, since {why}", flush=True)
    return chosen


def share_on_jax() -> None:
    """On JAX with several devices, lets models that are built from now on share each batch among them.

    Sets `keras.distribution.DataParallel` for the whole process. It needs full batches:
    `data(..., static_shapes=True)`.
    """
    devices = keras.distribution.list_devices() if keras.backend.backend() == "jax" else []
    if len(devices) > 1:
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
        print(f"Sharing batches among {', '.join(devices)} (keras.distribution.DataParallel)", flush=True)


def describe_batch(batch_size: int, strategy: tf.distribute.Strategy) -> str:
    """Describes how a batch is shared: "32 a step, 16 on each of 2 replicas".

    Args:
        batch_size: int. Examples per step, over all devices.
        strategy: tf.distribute.Strategy. From `strategy`.

    Raises:
        ValueError: if a batch has fewer examples than there are replicas, or JAX cannot share it evenly.
    """
    shared = keras.distribution.distribution()
    replicas = shared.num_model_replicas if shared else strategy.num_replicas_in_sync
    if shared and batch_size % replicas:
        raise ValueError(
            f"Expected batch_size to be a multiple of the number of JAX devices, {replicas}. Received: "
            f"batch_size={batch_size}"
        )
    if batch_size < replicas:
        raise ValueError(
            f"Expected batch_size to be at least the number of replicas, {replicas}. Received: "
            f"batch_size={batch_size}"
        )
    if replicas == 1:
        return f"{batch_size} a step"
    share, rest = divmod(batch_size, replicas)
    each = f"{share} or {share + 1}" if rest else f"{share}"
    return f"{batch_size} a step, {each} on each of {replicas} replicas"


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this is the chief, the one worker that writes models and logs. True without a cluster."""
    resolver = strategy.cluster_resolver
    if not resolver or not resolver.task_type:
        return True
    is_first = resolver.task_type == "worker" and resolver.task_id == 0
    return resolver.task_type == "chief" or (is_first and "chief" not in resolver.cluster_spec().jobs)


def write_once(save: Callable[[Path], None], path: Path, strategy: tf.distribute.Strategy) -> bool:
    """Saves a file on the chief alone, and returns whether this worker is the chief. All workers must call it,
    since reading the weights can take all of them; `save(path)` of the others writes a temporary file."""
    if is_chief(strategy):
        save(path)
        return True
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder) / path.name)
    return False


@contextlib.contextmanager
def clear_failures() -> Iterator[None]:
    """Turns TensorFlow's trace into one clear message if another worker is lost during training.

    The remaining workers notice within seconds, by a closed connection or by missing heartbeats.

    Raises:
        WorkerLostError: in place of TensorFlow's error.
    """
    try:
        yield
    except LOST_WORKER_ERRORS as error:
        # otherwise the thread pool of an all-reduce prints a trace when the interpreter ends
        traceback.clear_frames(error.__traceback__)
        reason = re.search(r"aborted by: (.*)", str(error)) or re.search(r"(.*)", str(error))
        raise WorkerLostError(
            f"Another worker of the cluster is lost, so this one stops. Start all workers again and resume "
            f"from the last checkpoint. TensorFlow reports: {reason[1]}"
        ) from None


def check_same(strategy: tf.distribute.Strategy, number: int, name: str) -> None:
    """Raises ValueError, on every worker, if the workers do not hold the same number; `name` says which."""
    numbers = [number]
    if isinstance(strategy, _MultiWorkerMirroredStrategy):
        numbers = strategy.gather(tf.constant([number]), axis=0).numpy().tolist()
    if len(set(numbers)) > 1:
        raise ValueError(f"Expected all workers to have the same {name}. Received, by worker: {numbers}")


@contextlib.contextmanager
def chief_first(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Lets the chief run the block first, and then the other workers.

    For preparing data: workers often share a disk, and two that write the same dataset at once damage it.
    """
    if not is_chief(strategy):
        _barrier(strategy)
    yield
    if is_chief(strategy):
        _barrier(strategy)


def wants_static_shapes(strategy: tf.distribute.Strategy) -> bool:
    """Whether batches must be full and of one shape: on a TPU, and if Keras shares them among JAX devices."""
    return isinstance(strategy, tf.distribute.TPUStrategy) or keras.distribution.distribution() is not None


def _barrier(strategy):
    if isinstance(strategy, _MultiWorkerMirroredStrategy):
        strategy.reduce("SUM", tf.constant(1.0), axis=None)


# --- devices of one machine ---


def _available():
    if _cluster_size(tf.distribute.cluster_resolver.TFConfigClusterResolver()) > 1:
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
    return tf.distribute.MirroredStrategy(names), f"{', '.join(names)} (MirroredStrategy)"


def _tpu():
    name = os.environ.get("TPU_NAME", "local")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(name)
        if name != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.OpError) as error:
        raise ValueError(
            f"Expected a TPU on this machine, or its name in TPU_NAME. Received: "
            f"TPU_NAME={os.environ.get('TPU_NAME')!r}. TensorFlow reports: {str(error).splitlines()[0][:200]}"
        ) from error
    chosen = tf.distribute.TPUStrategy(resolver)
    return chosen, f"a TPU of {chosen.num_replicas_in_sync} cores (TPUStrategy)"


# --- several workers ---


class _MultiWorkerMirroredStrategy(tf.distribute.MultiWorkerMirroredStrategy):
    """Shards each batch. TensorFlow's default shards the files, so that a batch would hold other examples than
    on one worker."""

    def experimental_distribute_dataset(self, dataset, options=None):
        policies = tf.data.experimental.AutoShardPolicy
        if dataset.options().experimental_distribute.auto_shard_policy == policies.AUTO:
            sharding = tf.data.Options()
            sharding.experimental_distribute.auto_shard_policy = policies.DATA
            dataset = dataset.with_options(sharding)
        return super().experimental_distribute_dataset(dataset, options)


def _tf_config(workers, index):
    addresses = workers.split(",") if isinstance(workers, str) else list(workers or ())
    if index not in range(len(addresses)):
        raise ValueError(
            f"Expected workers to be the addresses of all workers and index to be a position in them. "
            f"Received: workers={workers!r}, index={index!r}"
        )
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})


def _cluster_size(resolver):
    return sum(map(len, resolver.cluster_spec().as_dict().values()))


def _multi_worker():
    resolvers = tf.distribute.cluster_resolver
    if "TF_CONFIG" in os.environ or "SLURM_STEP_NUM_TASKS" not in os.environ:
        resolver = resolvers.TFConfigClusterResolver()
    else:
        # Slurm assigns the GPUs. Without these numbers TensorFlow counts them by nvidia-smi, which may be
        # missing.
        resolver = resolvers.SlurmClusterResolver(gpus_per_node=2**16, gpus_per_task=1, auto_set_gpu=False)
    size = _cluster_size(resolver)
    if not size:
        raise ValueError(
            "Expected TF_CONFIG, Slurm's variables, or workers and index to name the workers. Received: none"
        )
    worker = f"{resolver.task_type} {resolver.task_id} of {size}"
    print(f"Waiting for all workers. This is {worker}.", flush=True)
    with _default_signal_handlers():
        chosen = _MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    return chosen, f"{worker} (MultiWorkerMirroredStrategy)"


@contextlib.contextmanager
def _default_signal_handlers():
    """Lets Ctrl-C end TensorFlow's wait for the other workers, and SIGTERM end this worker afterwards.

    TensorFlow waits in C++, where Python's handler does not run, and then takes SIGTERM for a notice of
    preemption.
    """
    if (
        threading.current_thread() is not threading.main_thread()
    ):  # Python sets handlers in the main thread only
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
