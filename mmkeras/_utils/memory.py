"""How much memory a computation takes."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import keras

TOTAL_BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else None


def peak(compute: Callable[[], object]) -> int | None:
    """Calls a function, and returns by how many bytes the memory in use rises at most meanwhile.

    On TensorFlow with a GPU it is that of the first GPU, otherwise that of the process. None if the system does
    not report it.
    """
    reset, current, highest = _gpu() or _process()
    try:
        before = current()
        reset()
        compute()
        return highest() - before
    except FileNotFoundError:  # of /proc, on systems other than Linux
        compute()
        return None


def _gpu():
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    if not tf.config.list_logical_devices("GPU"):
        return None
    info = tf.config.experimental.get_memory_info
    reset = tf.config.experimental.reset_memory_stats
    return (lambda: reset("GPU:0")), (lambda: info("GPU:0")["current"]), (lambda: info("GPU:0")["peak"])


def _process():
    def status(name):
        return 1024 * int(re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])

    def reset():
        Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM to VmRSS, see proc(5)

    return reset, lambda: status("VmRSS"), lambda: status("VmHWM")
