"""Several devices, several machines: a strategy of tf.distribute, and what Keras leaves open there.

    strategy = distribute.strategy()                 # what there is: GPUs, a TPU, the workers of a cluster
    with strategy.scope():
        model = mmkeras.captioning.build("toy", vocabulary=data.vocabulary)
    with distribute.clear_failures():
        model.fit(data.train)                        # plain Keras

A batch is the global one, of all devices together; each replica takes its share of every batch. Losses and
batch normalisation speak of the whole batch (`mmkeras.distribute.collectives`), so a model learns the same on
one device and on many.

On several machines each worker runs the same program and reads the same data. It learns who the others are from
TF_CONFIG, from Slurm, or from `workers` and `index`. `fit`, `evaluate` and `predict` then give every worker the
same weights, numbers and answers, and all workers must call them; an answering class needs no other worker.
"""

import contextlib
import os
import re
import signal
import threading
import traceback
from collections.abc import Sequence

from mmkeras._utils import start  # noqa: F401 (first: it keeps TensorFlow's start-up notes off the terminal)

# isort: split
import keras
import tensorflow as tf

from mmkeras.distribute import cluster, keras_patches

KINDS = ("auto", "one_device", "mirrored", "multi_worker", "tpu")


# what TensorFlow raises where another worker is gone
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


class WorkerLostError(ConnectionError):
    """Another worker of the cluster is gone, so this one cannot train on."""


def strategy(
    kind: str = "auto",
    *,
    workers: str | Sequence[str] | None = None,
    index: int | None = None,
    port: int = 8888,
) -> tf.distribute.Strategy:
    """A strategy for the devices that there are; one printed line says which and why.

    It must come before anything else that TensorFlow computes, where there are several workers.

    Args:
        kind: `"auto"`: several workers if TF_CONFIG, Slurm or `workers` name them, else a TPU, else all GPUs,
            else the CPU. Or one of these alone: `"one_device"` (one GPU, else the CPU; no strategy at all),
            `"mirrored"` (all GPUs of this machine, else its logical CPUs), `"multi_worker"`, `"tpu"` (which
            nobody has tried). On Keras's other backends it is none of them: the strategy does nothing there;
            see `share_on_jax`.
        workers: host:port of every worker, `"host:port,host:port"` or a list, where no cluster manager says it.
        index: this worker's place among them, from 0.
        port: of a machine's first worker under Slurm, which gives out no ports; the next ones follow it. Where
            a machine has several GPUs and several tasks, let Slurm share them out (`--gpus-per-task`).

    Raises:
        ValueError: a kind that nobody knows or that needs devices that are not there; a TF_CONFIG that is no
            JSON, lacks this worker, or whose port for it is in use; several workers or devices where Keras runs
            on another backend.
    """
    if kind not in KINDS:
        known = ", ".join(map(repr, KINDS))
        raise ValueError(f"Expected kind to be one of {known}. Received: kind={kind!r}")
    if index is not None and workers is None:
        raise ValueError(
            f"Expected workers, the addresses that index counts; TF_CONFIG and Slurm say themselves which "
            f"worker this one is. Received: index={index!r}, workers=None"
        )
    if (backend := keras.backend.backend()) != "tensorflow":
        if kind not in ("auto", "one_device") or workers is not None:
            raise ValueError(
                f"tf.distribute needs Keras's TensorFlow backend. Received: KERAS_BACKEND={backend}, "
                f"kind={kind!r}, workers={workers!r}. On JAX several devices go through keras.distribution."
            )
        print(
            f"Training on what {backend} has, since tf.distribute is for Keras's TensorFlow backend", flush=True
        )
        return tf.distribute.get_strategy()  # whose scope does nothing
    if kind == "auto":
        kind, why = _what_there_is(workers)
    else:
        why = f"kind={kind!r} asks for it"
    if kind != "multi_worker" and workers is not None:
        raise ValueError(f"workers and index are for kind='multi_worker'. Received: kind={kind!r}")
    if kind == "one_device":
        chosen, where = tf.distribute.get_strategy(), "one GPU" if _gpus() else "the CPU"
    elif kind == "mirrored":
        chosen, where = _mirrored()
    elif kind == "multi_worker":
        chosen, where = _multi_worker(workers, index, port)
    else:
        chosen, where = _tpu()
    if kind != "one_device":
        keras_patches.apply(chosen)
    print(f"Training on {where}, since {why}", flush=True)
    return chosen


def share_on_jax() -> None:
    """Where Keras runs on JAX with several devices, models built from now on share each batch among them.

    `keras.distribution.DataParallel` does it, for the whole process. It needs batches that all devices get the
    same number of examples of, so `data(..., static_shapes=True)`.
    """
    devices = keras.distribution.list_devices() if keras.backend.backend() == "jax" else []
    if len(devices) > 1:
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
        print(f"Sharing batches among {', '.join(devices)} (keras.distribution.DataParallel)", flush=True)


def describe_batch(batch_size: int, strategy: tf.distribute.Strategy) -> str:
    """How a batch is shared, in words: "32 a step, 16 on each of 2 replicas".

    Args:
        batch_size: the global one, of all devices together, as `data(..., batch_size=...)` takes it.
        strategy: from `strategy`.

    Raises:
        ValueError: there are more replicas than examples in a batch, or JAX cannot share it evenly.
    """
    shared = keras.distribution.distribution()
    replicas = shared.num_model_replicas if shared else strategy.num_replicas_in_sync
    if shared and batch_size % replicas:
        raise ValueError(
            f"Expected batch_size to be a multiple of the number of JAX's devices, {replicas}. Received: "
            f"batch_size={batch_size}"
        )
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


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this worker is the first, which writes what all of them would: models, logs."""
    resolver = strategy.cluster_resolver
    if not resolver or not resolver.task_type:
        return True
    is_first = resolver.task_type == "worker" and resolver.task_id == 0
    return resolver.task_type == "chief" or (is_first and "chief" not in resolver.cluster_spec().jobs)


@contextlib.contextmanager
def clear_failures():
    """Around a training: where another worker is lost, one clear message instead of TensorFlow's trace.

    The others notice within seconds, by a closed connection or by heartbeats that no longer come.

    Raises:
        WorkerLostError: for the errors that TensorFlow then has.
    """
    try:
        yield
    except LOST as error:
        # the pool of threads that an all-reduce left behind would complain while the interpreter ends
        traceback.clear_frames(error.__traceback__)
        said = re.search(r"aborted by: (.*)", str(error)) or re.search(r"(.*)", str(error))
        raise WorkerLostError(
            f"Another worker of the cluster is lost, so this one stops. Start all of them anew and go on from "
            f"the last checkpoint. TensorFlow says: {said[1]}"
        ) from None


def check_same(strategy: tf.distribute.Strategy, number: int, what: str) -> None:
    """Raises ValueError, on all workers, where they do not hold the same number; `what` says which it is."""
    numbers = [number]
    if isinstance(strategy, _MultiWorkerMirroredStrategy):
        numbers = strategy.gather(tf.constant([number]), axis=0).numpy().tolist()
    if len(set(numbers)) > 1:
        raise ValueError(f"Expected all workers to have the same {what}. Received, in their order: {numbers}")


@contextlib.contextmanager
def chief_first(strategy: tf.distribute.Strategy):
    """Around what prepares data: the first worker does it alone, then the others, who find it done.

    Workers often share a disk, and two that write one dataset at a time spoil it for each other.
    """
    if not is_chief(strategy):
        _meet(strategy)
    yield
    if is_chief(strategy):
        _meet(strategy)


def wants_static_shapes(strategy: tf.distribute.Strategy) -> bool:
    """Whether batches must be full ones: on a TPU, and where Keras shares them among JAX's devices."""
    return isinstance(strategy, tf.distribute.TPUStrategy) or keras.distribution.distribution() is not None


def _meet(strategy):
    if isinstance(strategy, _MultiWorkerMirroredStrategy):
        strategy.reduce("SUM", tf.constant(1.0), axis=None)


# --- which devices ---


def _what_there_is(workers):
    if workers is not None:
        return "multi_worker", "workers names them"
    if "TF_CONFIG" in os.environ and len(cluster.members(os.environ["TF_CONFIG"])[0]) > 1:
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
        said = str(error).splitlines()[0][:200]
        raise ValueError(
            f"No TPU is there. Expected one on this machine, or its name in TPU_NAME. Received: "
            f"TPU_NAME={os.environ.get('TPU_NAME')!r}. TensorFlow says: {said}"
        ) from error
    chosen = tf.distribute.TPUStrategy(resolver)
    return chosen, f"a TPU of {chosen.num_replicas_in_sync} cores (TPUStrategy)"


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


def _multi_worker(workers, index, port):
    if workers is not None:
        os.environ["TF_CONFIG"] = cluster.tf_config(workers, index)
    elif "TF_CONFIG" not in os.environ and "SLURM_STEP_NUM_TASKS" in os.environ:
        os.environ["TF_CONFIG"] = cluster.slurm_config(port)
    addresses, place = cluster.members(os.environ.get("TF_CONFIG", "{}"))
    if not addresses:
        raise ValueError(
            "Expected TF_CONFIG, Slurm's variables, or workers and index to say who the workers are. Received: "
            "none of them"
        )
    cluster.check_port(addresses[place])
    if len(addresses) > 1:
        print(f"Waiting for all {len(addresses)} workers, of which this is {addresses[place]}", flush=True)
    with _signals_that_end():
        chosen = _MultiWorkerMirroredStrategy()
    where = f"{addresses[place]}, worker {place} of {len(addresses)} (MultiWorkerMirroredStrategy)"
    return chosen, where


@contextlib.contextmanager
def _signals_that_end():
    """Around TensorFlow's wait for the other workers: Ctrl-C ends it. And SIGTERM ends this worker afterwards,
    which TensorFlow takes for a notice of preemption, to nobody's knowledge."""
    if threading.current_thread() is not threading.main_thread():  # which alone may say what signals do
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
