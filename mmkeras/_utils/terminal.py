"""Warnings that point at the user's line, and filters for single calls into other libraries."""

import contextlib
import ctypes
import functools
import inspect
import logging
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator

_LOCK = threading.Lock()
_open = 0  # number of `quiet_c_stderr` blocks that are running
_saved = None  # C's stderr, restored by the last of them


def warn(message: str) -> None:
    """`warnings.warn` that points at the innermost line outside of mmkeras and Keras.

    Python 3.12 has `skip_file_prefixes` for this.
    """
    frame, level = inspect.currentframe().f_back, 2
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] in ("mmkeras", "keras"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


@contextlib.contextmanager
def quiet_log(logger: str, *messages: str) -> Iterator[None]:
    """Drops the records of a logger that contain one of the messages, within the block.

    Args:
        logger: str. Name of the logger.
        *messages: str. Parts of the messages.
    """

    def is_other(record):
        text = record.getMessage()
        return not any(message in text for message in messages)

    target = logging.getLogger(logger)
    target.addFilter(is_other)
    try:
        yield
    finally:
        target.removeFilter(is_other)


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Holds back all that the process writes to stderr within the block. It is printed only if the block fails.

    For the commands of `mmkeras`, which have the process to themselves: while TensorFlow loads, it prints notes
    about its build and about missing GPUs.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            yield
        except BaseException:
            notes.seek(0)
            os.write(stderr, notes.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def quiet(cpus: int | None = None) -> None:
    """Loads Keras and TensorFlow without their start-up notes. For the first line of a notebook.

    It also hides, for the rest of the process, the notes that Keras prints whenever `fit` gets a
    `tf.data.Dataset`, or one with an unknown number of batches, as of a folder, whose bad files are left out
    while it is read; and what TensorFlow reports in a notebook below the level of a warning, such as each sum
    over devices. All other warnings are shown as before.

    Args:
        cpus: int, optional. Uses the CPU alone, as this number of devices, to try `mmkeras.distribute` without
            several GPUs. Defaults to None: the devices that there are.
    """
    with quiet_stderr():
        import keras  # noqa: F401
        import tensorflow as tf

        if cpus is not None:  # TensorFlow cannot change its devices after the first look at them
            tf.config.set_visible_devices([], "GPU")
            (cpu,) = tf.config.list_physical_devices("CPU")
            devices = [tf.config.LogicalDeviceConfiguration()] * cpus
            tf.config.set_logical_device_configuration(cpu, devices)
        tf.config.list_logical_devices()  # the first look for a GPU prints notes, too
        tf.transpose([[True]])  # and so does the first boolean tensor, such as a mask
    for message in ("`shuffle=True` was passed, but will be ignored", "Your input ran out of data"):
        warnings.filterwarnings("ignore", message=message)
    tf.get_logger().setLevel(logging.WARNING)


@contextlib.contextmanager
def quiet_c_stderr() -> Iterator[None]:
    """Drops what C libraries print to stderr within the block, in any thread. Python's output still appears.

    libmpg123 and libtiff print notes on damaged files, and soundfile and Pillow cannot turn them off. C's
    variable `stderr` is set to another stream. File descriptor 2 is not redirected, because warnings,
    tracebacks and progress bars of other threads would be lost. Does nothing on Windows.
    """
    global _open, _saved
    stream, null = _c_stderr()
    if stream is None:
        yield
        return
    with _LOCK:
        if not _open:
            _saved, stream.value = stream.value, null
        _open += 1
    try:
        yield
    finally:
        with _LOCK:
            _open -= 1
            if not _open:
                stream.value = _saved


@functools.cache
def _c_stderr():
    """C's variable `stderr` and a stream to /dev/null. Both None if the variable cannot be set."""
    name = {"linux": "stderr", "darwin": "__stderrp"}.get(sys.platform)
    libc = name and ctypes.CDLL(None)
    if name is None or (sys.platform == "linux" and not hasattr(libc, "gnu_get_libc_version")):
        return None, None  # C libraries other than glibc, such as musl, keep it in read-only memory
    libc.fopen.restype = ctypes.c_void_p
    return ctypes.c_void_p.in_dll(libc, name), libc.fopen(b"/dev/null", b"w")
