"""Ready-trained models of the toy world: `pretrained` loads one, `cards` describes them.

    captioner = mmkeras.pretrained("captioning")        # a Captioner
    captioner("scene.png")                              # 'a small red circle at the top left'
    transcriber = mmkeras.pretrained("speech_to_text", language="zh")

They are trained on synthetic images and speech, and are not for photographs or human voices. `mmkeras pretrain`
trains them again from scratch: see `mmkeras.zoo.recipes`.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from mmkeras import tasks
from mmkeras._utils import lazy

__getattr__ = lazy.submodules(__name__)

FOLDER = Path(__file__).parent
CARDS = "cards.json"
NAMES = (
    "captioning", "speech_to_text", "speech_to_text_ctc", "text_to_image", "text_to_image_pixels",
    "attribute_classifier", "image_search", "visual_question_answering",
)  # fmt: skip


def pretrained(name: str, language: str = "en") -> Any:
    """Loads a ready-trained model of the toy world.

    Args:
        name: str. `"captioning"`, `"speech_to_text"` (attention), `"speech_to_text_ctc"`, `"text_to_image"`
            (adversarial), `"text_to_image_pixels"`, `"attribute_classifier"`, `"image_search"` (texts
            in both languages) or `"visual_question_answering"`.
        language: str. Language of the texts, `"en"` or `"zh"`. Defaults to `"en"`.

    Returns:
        Its predictor: a `Captioner`, `Transcriber`, `ImageGenerator`, `AttributeClassifier`, `ImageSearch` or
        `QuestionAnswerer`.
        One that takes images warns of images that are unlike any in training, see `mmkeras.evaluation.novelty`.

    Raises:
        ValueError: if there is no model of that name or language, or its file is not the one that was shipped.
        FileNotFoundError: if its file is missing.
    """
    entry = card(name, language)
    predictor = tasks.load(_checked(entry))
    if threshold := entry.get("novelty_threshold"):
        from mmkeras.evaluation.novelty import Novelty

        predictor.novelty = Novelty(predictor.network, threshold)
    return predictor


def cards() -> list[dict[str, Any]]:
    """Describes the models: a dictionary for each.

    Returns:
        For each model its `name`, `language` (None: any), `file`, `sha256`, `megabytes`; the `data` and the
        `version` of mmkeras that it was trained with; the `command`, `seed`, `seconds` and `machine` of the
        training; `scores` on `validation`, `test` and `test_unseen`; and `not_for`, what it is not made for.
    """
    file = FOLDER / CARDS
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise type(error)(f"The cards of the ready-trained models, {file}, cannot be read: {error}") from error


def card(name: str, language: str = "en") -> dict[str, Any]:
    """The card of one model. Arguments as for `pretrained`. Raises ValueError if there is no such model."""
    if name not in NAMES:
        raise ValueError(f"Expected name to be one of {', '.join(map(repr, NAMES))}. Received: name={name!r}")
    # the classifier's classes have the same names in every language, and search has texts in both
    by_language = {card["language"]: card for card in cards() if card["name"] == name}
    known = tuple(by_language) if None not in by_language else ("en", "zh")
    if language not in known:
        raise ValueError(
            f"Expected language of {name!r} to be one of {', '.join(map(repr, known))}. Received: "
            f"language={language!r}"
        )
    return by_language.get(language) or by_language[None]


def path(name: str, language: str = "en") -> Path:
    """The checked file of a ready-trained model. Arguments and errors as for `pretrained`."""
    return _checked(card(name, language))


def _checked(entry):
    file, name = FOLDER / entry["file"], entry["name"]
    again = f"Install mmkeras again, or train it with: {entry['command']}"
    if not file.is_file():
        raise FileNotFoundError(f"The file {file} of {name!r} is missing. {again}")
    if hashlib.sha256(file.read_bytes()).hexdigest() != entry["sha256"]:
        raise ValueError(f"{file} is not the file that was shipped as {name!r}. {again}")
    return file
