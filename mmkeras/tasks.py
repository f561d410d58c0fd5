"""The registry: which class predicts with which model. A further task is one folder and one line here."""

import importlib
import json
import os
import zipfile
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from mmkeras._utils.predictor import Predictor

if TYPE_CHECKING:
    import keras

# name of a task and of its model → the class, in the package with `build`, `data` and `evaluate`
TASKS = {
    "captioning": "mmkeras.captioning.Captioner",
    "speech_to_text": "mmkeras.speech_to_text.Transcriber",
    "text_to_image": "mmkeras.text_to_image.ImageGenerator",
    "visual_question_answering": "mmkeras.visual_question_answering.QuestionAnswerer",
    "image_search": "mmkeras.applications.image_search.ImageSearch",
}
# the same of models that are part of a task, a method or an application
PREDICTORS = TASKS | {
    "attribute_classifier": "mmkeras.text_to_image.AttributeClassifier",
    "video_classification": "mmkeras.applications.video_understanding.VideoClassifier",
    "video_captioning": "mmkeras.applications.video_understanding.VideoCaptioner",
    **dict.fromkeys(("joint_training", "cross_modal", "modality_translation"), "mmkeras.methods.Classifier"),
}


def check(task: str) -> None:
    """Raises ValueError for an unknown task. It loads no Keras."""
    if task not in TASKS:
        raise ValueError(f"Expected TASK to be one of {', '.join(TASKS)}. Received: {task}")


def get(name: str) -> type[Predictor]:
    """The class that predicts with the models of that name."""
    package, _, cls = PREDICTORS[name].rpartition(".")
    return getattr(importlib.import_module(package), cls)


def package(name: str) -> ModuleType:
    """The package of the models of that name."""
    return importlib.import_module(PREDICTORS[name].rpartition(".")[0])


def predictor(model: "keras.Model") -> Predictor:
    """The predictor of a model: a `Captioner` for a captioning model, and so on.

    Raises:
        ValueError: if it is not a model of mmkeras.
    """
    if model.name not in PREDICTORS:
        known = ", ".join(map(repr, PREDICTORS))
        raise ValueError(
            f"Expected a model of mmkeras, named {known}. Received: model.name={model.name!r}. If it is a "
            f"file, load it with keras.saving.load_model."
        )
    return get(model.name)(model)


def check_file(path: Path) -> None:
    """Raises those errors of `load` that can be found without loading Keras."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no model file {str(path)!r}.")
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise ValueError(f"{str(path)!r} is not a complete .keras file, as a predictor's save(...) writes it.")


def load(path: str | os.PathLike) -> Predictor:
    """Reads what a predictor saved: a `Captioner` for a captioning model.

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
    except Exception as error:  # of a damaged file zipfile, zlib and json raise many kinds
        raise _unreadable(path, error) from error
    if name in PREDICTORS:
        package(name)  # it registers what the file may hold
    try:
        model = keras.saving.load_model(path)
    except Exception as error:  # h5py and Keras raise many kinds, too
        raise _unreadable(path, error) from error
    try:
        loaded = predictor(model)
        loaded.restore(path)
        return loaded
    except ValueError as error:
        raise ValueError(f"{str(path)!r}: {error}") from None


def _unreadable(path, error):
    return ValueError(f"{str(path)!r} cannot be read as a Keras model: {type(error).__name__}: {error}")
