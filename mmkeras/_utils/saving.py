"""Saves a model as one `.keras` file, and checks paths."""

import os
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def save(model: "keras.Model", path: str | os.PathLike, notes: dict[str, str | bytes] | None = None) -> None:
    """Writes a model to `path`. An existing file is replaced only once the new one is complete.

    Args:
        model: keras.Model. Its optimizer, if it has one, is saved too.
        path: str or path. Ends in `.keras`.
        notes: dict, optional. {name: text or bytes} to store in the file with the model, for `read_note`.

    Raises:
        ValueError: if the path does not end in `.keras`.
        OSError: if the folder is missing or cannot be written to.
    """
    path = Path(path)
    check_path(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".saving-") as folder:
        complete = Path(folder) / path.name
        optimizer = getattr(model, "optimizer", None)  # Keras sets it when the model is compiled
        if optimizer and not optimizer.built:  # otherwise Keras warns when it loads the file
            optimizer.build(model.trainable_variables)
        model.save(complete)
        with zipfile.ZipFile(complete, "a") as archive:
            for name, text in (notes or {}).items():
                archive.writestr(name, text)
        with open(complete, "r+b") as file:
            os.fsync(file.fileno())  # so that a power cut cannot leave the new name on an incomplete file
        os.replace(complete, path)


def check_path(path: str | os.PathLike) -> None:
    """Raises ValueError if the path does not end in `.keras`, OSError if its folder cannot be written to."""
    path = Path(path)
    if path.suffix != ".keras":
        raise ValueError(f"Expected path to end in .keras. Received: path={str(path)!r}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"Expected the folder of path to exist. Received: path={str(path)!r}")
    check_writable(path.parent)


def check_writable(folder: Path) -> None:
    """Raises OSError if no file can be created in the folder."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(f"The folder {str(folder)!r} cannot be written to: {error.strerror}.") from error


def read_note(path: str | os.PathLike, name: str) -> str:
    """A text that `save` stored in the file with the model.

    Raises:
        ValueError: if the file is damaged or holds no such text.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name).decode()
    except Exception as error:  # zipfile, zlib and struct raise different types
        raise ValueError(f"{os.fspath(path)!r} holds no {name!r}: {error}") from None
