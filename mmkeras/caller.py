"""Warnings that name the user's line, however deep in the package they arise."""

import inspect
import warnings


def warn(message: str) -> None:
    """`warnings.warn`, as from the innermost line outside of mmkeras and Keras.

    Python 3.12 has `skip_file_prefixes` for this.
    """
    frame, level = inspect.currentframe().f_back, 2
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] in ("mmkeras", "keras"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
