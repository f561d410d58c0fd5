"""The tasks of the package: the one place that names them. A fourth task is one folder and one line here."""

import importlib
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Task:
    """The entry of a task in the registry.

    Attributes:
        package: str. Import path, with `build`, `data` and `evaluate`.
        answerer: str. Name of the answering class in the package.
        file: str. Default name of the model file.
        options: Options of `mmkeras train` that the task takes: of `build`, and `unit` of `data`.
        title: str. What people call the task.
        section: str. The function of `mmkeras.cli.demo` that makes its section of the page.
        duration: str. How long training on the toy world takes.
    """

    package: str
    answerer: str
    file: str
    options: tuple[str, ...]
    title: str
    section: str
    duration: str

    def load(self) -> ModuleType:
        """The package, imported."""
        return importlib.import_module(self.package)

    @property
    def epochs(self) -> int:
        """Passes over the toy world that the preset `"toy"` is made for."""
        return self.load().model.EPOCHS


TASKS = {
    "captioning": Task(
        "mmkeras.captioning",
        "Captioner",
        "captioner.keras",
        ("image_size", "weights", "fine_tune"),
        "Image captioning",
        "captioning_section",
        "about two and a half minutes on two cores",
    ),
    "speech_to_text": Task(
        "mmkeras.speech_to_text",
        "Transcriber",
        "transcriber.keras",
        ("head", "unit"),
        "Speech to text",
        "speech_section",
        "about three minutes on two cores",
    ),
    "text_to_image": Task(
        "mmkeras.text_to_image",
        "ImageGenerator",
        "image_generator.keras",
        ("image_size", "adversarial"),
        "Text to image",
        "text_to_image_section",
        "about a quarter of an hour on two cores",
    ),
}
# model name -> package and class of what answers with the model; the classifier is part of a task
ANSWERERS = {name: (task.package, task.answerer) for name, task in TASKS.items()} | {
    "attribute_classifier": ("mmkeras.text_to_image", "AttributeClassifier")
}


def get(name: str) -> Task:
    """A task by its name. Raises ValueError for an unknown one."""
    if name not in TASKS:
        raise ValueError(f"Expected TASK to be one of {', '.join(TASKS)}. Received: {name}")
    return TASKS[name]


def package(answerer: Any) -> ModuleType:
    """The package that an answering object comes from."""
    return importlib.import_module(ANSWERERS[answerer.model.name][0])


def answerer(model: "keras.Model") -> Any:
    """What answers with a model: a `Captioner` for a captioning model, and so on.

    Raises:
        ValueError: if it is not a model of mmkeras.
    """
    if model.name not in ANSWERERS:
        known = ", ".join(map(repr, ANSWERERS))
        raise ValueError(
            f"Expected a model of mmkeras, named {known}. Received: model.name={model.name!r}. If it is a "
            f"file, load it with keras.saving.load_model."
        )
    module, name = ANSWERERS[model.name]
    return getattr(importlib.import_module(module), name)(model)


def check_file(path: Path) -> None:
    """Raises what `load` raises, as far as that shows without loading Keras."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no model file {str(path)!r}.")
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise ValueError(
            f"{str(path)!r} is not a complete .keras file, as an answering class's save(...) writes it."
        )


def load(path: str | os.PathLike):
    """Reads what an answering class saved: a `Captioner` for a captioning model.

    Args:
        path: a `.keras` file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no Keras file, is damaged, or is not a model of mmkeras.
    """
    path = Path(path)
    check_file(path)
    import keras

    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # Keras reads the weights without their checksum
            name = json.loads(archive.read("config.json"))["config"]["name"]
        if damaged:
            raise ValueError(f"its {damaged!r} does not match its checksum")
        if name in ANSWERERS:  # the package registers what the file may hold
            importlib.import_module(ANSWERERS[name][0])
        model = keras.saving.load_model(path)
    except Exception as error:  # of a damaged file zipfile, zlib, json, h5py and Keras raise many kinds
        raise ValueError(
            f"{str(path)!r} cannot be read as a Keras model: {type(error).__name__}: {error}"
        ) from error
    try:
        return answerer(model)
    except ValueError as error:
        raise ValueError(f"{str(path)!r}: {error}") from None
