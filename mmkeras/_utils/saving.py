"""One `.keras` file is the whole product: `save`, and checks of models and paths."""

import os
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def save(model: "keras.Model", path: str | os.PathLike, notes: dict[str, str] | None = None) -> None:
    """Writes a model to `path`; a file that is there already is replaced only by a whole one.

    Args:
        model: with its optimizer, if it has one.
        path: ends in .keras.
        notes: texts that go into the file beside the model, for `note`.
    """
    path = Path(path)
    check_path(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".saving-") as folder:
        whole = Path(folder) / path.name
        if model.optimizer and not model.optimizer.built:  # never trained; Keras would warn at loading
            model.optimizer.build(model.trainable_variables)
        model.save(whole)
        with zipfile.ZipFile(whole, "a") as archive:
            for name, text in (notes or {}).items():
                archive.writestr(name, text)
        with open(whole, "r+b") as file:
            os.fsync(file.fileno())  # a new name for what is not yet on the disk would not survive a power cut
        os.replace(whole, path)


def check_path(path: str | os.PathLike) -> None:
    """Raises where a model cannot be saved there: ValueError for its name, OSError for its folder."""
    path = Path(path)
    if path.suffix != ".keras":
        raise ValueError(f"Expected path to end in .keras. Received: path={str(path)!r}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {str(path.parent)!r} to save {path.name} in.")
    check_writable(path.parent)


def check_writable(folder: Path) -> None:
    """Raises OSError where no file can be made in a folder."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(f"The folder {str(folder)!r} cannot be written to: {error.strerror}.") from error


def note(path: str | os.PathLike, name: str) -> str:
    """A text that `save` put into the file beside the model.

    Raises:
        ValueError: the file is not whole, or holds no such text.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name).decode()
    except Exception as error:  # zipfile, zlib and struct each have their own
        raise ValueError(f"{os.fspath(path)!r} holds no {name!r}: {error}") from None


def check(model: "keras.Model", name: str, kind: str, builder: str) -> None:
    """Raises ValueError where it is not the model that an answering class answers with.

    Args:
        model: what came.
        name: the model's, a key of `ANSWERERS`.
        kind: what such a model is called in words.
        builder: what makes it.
    """
    if getattr(model, "name", None) != name:
        raise ValueError(
            f"Expected a {kind}, as {builder} returns it. Received: model={getattr(model, 'name', model)!r}"
        )
