"""What reaches the terminal: warnings that name the user's line, however deep in the package they arise, and
none of the notes of C libraries."""

import contextlib
import ctypes
import functools
import inspect
import sys
import threading
import warnings
from collections.abc import Iterator

_LOCK = threading.Lock()
_quiet = 0  # how many `quiet_c_stderr` are open
_loud = None  # C's stderr, to be put back by the last of them


def warn(message: str) -> None:
    """`warnings.warn`, as from the innermost line outside of mmkeras and Keras.

    Python 3.12 has `skip_file_prefixes` for this.
    """
    frame, level = inspect.currentframe().f_back, 2
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] in ("mmkeras", "keras"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


@contextlib.contextmanager
def quiet_c_stderr() -> Iterator[None]:
    """Drops what C libraries print to stderr meanwhile, in any thread; what Python writes still appears.

    libmpg123 and libtiff print notes on damaged files, and soundfile and Pillow offer no way to stop them.
    C's variable `stderr` is set to another stream. File descriptor 2 stays as it is: if that were redirected,
    warnings, tracebacks and progress bars of other threads would be lost. Does nothing on Windows.
    """
    global _quiet, _loud
    stream, nowhere = _c_stderr()
    if stream is None:
        yield
        return
    with _LOCK:
        if not _quiet:
            _loud, stream.value = stream.value, nowhere
        _quiet += 1
    try:
        yield
    finally:
        with _LOCK:
            _quiet -= 1
            if not _quiet:
                stream.value = _loud


@functools.cache
def _c_stderr():
    """C's variable `stderr` and a stream to nowhere; None for both where the variable cannot be set."""
    name = {"linux": "stderr", "darwin": "__stderrp"}.get(sys.platform)
    libc = name and ctypes.CDLL(None)
    if name is None or (sys.platform == "linux" and not hasattr(libc, "gnu_get_libc_version")):
        return None, None  # other libraries than glibc, as musl, keep it in read-only memory
    libc.fopen.restype = ctypes.c_void_p
    return ctypes.c_void_p.in_dll(libc, name), libc.fopen(b"/dev/null", b"w")
