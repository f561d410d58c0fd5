"""Who the workers of a cluster are: TF_CONFIG, made, read and checked before TensorFlow waits for anybody."""

import json
import socket
from collections.abc import Sequence


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
    check_addresses(addresses)
    if not isinstance(index, int) or not 0 <= index < len(addresses):
        raise ValueError(
            f"Expected index to be this worker's place among {len(addresses)} workers, from 0 to "
            f"{len(addresses) - 1}. Received: index={index!r}"
        )
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})


def members(text: str) -> tuple[list[str], int]:
    """The addresses that a TF_CONFIG names, and the place of this worker among them; without a cluster ([], 0).

    Raises:
        ValueError: it is no JSON, not of the form that TensorFlow knows, or this worker is not in its cluster.
    """
    try:
        config = json.loads(text)
        tasks, mine = config.get("cluster", {}), config.get("task", {})
        addresses = [*tasks.get("chief", []), *tasks.get("worker", [])]
        kind, number = mine.get("type"), int(mine.get("index", -1))
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
    check_addresses(addresses)
    alike = tasks.get(kind, []) if kind in ("chief", "worker") else []
    if addresses and not 0 <= number < len(alike):
        raise ValueError(
            f"Expected TF_CONFIG to hold a cluster and, as its task, one of its workers. Received: "
            f"TF_CONFIG={text}"
        )
    return addresses, addresses.index(alike[number]) if addresses else 0


def slurm_config(port: int) -> str:
    """Slurm's tasks as TF_CONFIG.

    Of TensorFlow's resolver only the addresses are taken: it counts GPUs with a tool of NVIDIA's, and fails
    where there are none or where Slurm has already shared them out.

    Raises:
        ValueError: this is no step of a Slurm job.
    """
    import tensorflow as tf

    try:
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            port_base=port, gpus_per_node=2**16, gpus_per_task=1, auto_set_gpu=False
        )
        addresses = resolver.cluster_spec().as_dict()["worker"]
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"Slurm's variables do not tell who the workers are. TensorFlow says: {error}"
        ) from error
    return tf_config(addresses, resolver.get_task_info()[1])


def check_port(address: str) -> None:
    """Raises ValueError where something listens at this worker's port: TensorFlow would share it, and wait."""
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


def check_addresses(addresses: list[str]) -> None:
    """Raises ValueError where they are not host:port, each another one."""
    for address in addresses:
        host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
        if not host or not port.isdigit() or not 0 < int(port) < 2**16:
            raise ValueError(f"Expected each worker's address to be host:port. Received: {address!r}")
    if len(set(addresses)) < len(addresses):
        raise ValueError(f"Expected each worker to have an address of its own. Received: {addresses}")
