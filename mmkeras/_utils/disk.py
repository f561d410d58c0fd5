"""Errors of the disk in one line that says how to choose another folder."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_FULL = ("No space left", "Not enough disk space", "Disk quota exceeded")


def check_writable(folder: str | os.PathLike, choice: str) -> None:
    """Creates the folder. Raises OSError if it cannot be written to, or is in a home directory that is unknown.

    Args:
        folder: path.
        choice: str. What chooses the folder.
    """
    folder, reason = Path(folder), None
    if folder.parts[:1] == ("~",):
        reason = "the home directory is unknown"
    else:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            reason = error.strerror
    if reason:
        raise OSError(
            f"Expected a folder that can be written to. Received: {str(folder)!r} ({reason}). Choose "
            f"another folder by {choice}."
        )


@contextlib.contextmanager
def clear_errors(name: str, folder: str | os.PathLike, choice: str) -> Iterator[None]:
    """Raises one clear OSError in place of any error of a full disk within the block.

    Args:
        name: str. What is written.
        folder: path. Where it is written, which exists.
        choice: str. What chooses the folder.
    """
    try:
        yield
    except Exception as error:  # TensorFlow and TFDS raise types of their own
        if not any(text in str(error) for text in _FULL):
            raise
        raise OSError(
            f"Expected room for {name} in {folder}. Received: {shutil.disk_usage(folder).free / 1e9:.2f} GB "
            f"free. Make room, or choose another folder by {choice}."
        ) from error
