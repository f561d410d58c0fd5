"""How the ready-trained models are trained: `mmkeras pretrain`, in Python `pretrain`."""

import hashlib
import io
import json
import os
import platform
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from mmkeras import tasks, text_to_image, training, visual_question_answering, zoo
from mmkeras._utils import saving
from mmkeras._utils.predictor import ImagePredictor, Predictor
from mmkeras._version import __version__
from mmkeras.data.task_data import TaskData
from mmkeras.evaluation.novelty import Novelty
from mmkeras.toy import builders

NOT_FOR_IMAGES = "photographs, drawings, scenes of more than one object"
NOT_FOR_SEARCH = "photographs, scenes of more than one object, drawings of what is no emoji"
NOT_FOR_QUESTIONS = "photographs, drawings, scenes of other than two objects, questions outside its grammar"
NOT_FOR_SPEECH = "human voices, other synthetic voices, words outside the toy world's grammar"
NOT_FOR_PROMPTS = "prompts outside the toy world's grammar"


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: as by `mmkeras train`, one for more epochs.

    Attributes:
        train: (language=, seed=, verbose=, options of the data) → predictor, its data.
        rank: Scores on the validation split → tuple. Of several seeds the one with the largest is shipped.
        not_for: str. What the model is not made for.
        classifier: str, optional. Name of the model that scores its images.
    """

    train: Callable[..., tuple[Predictor, TaskData]]
    rank: Callable[[dict[str, float]], tuple[float, ...]]
    not_for: str
    classifier: str | None = None


def _train_classifier(language, seed, verbose, **options):
    data = text_to_image.data("toy", language=language, seed=seed, **options)
    keras.utils.set_random_seed(seed)
    return text_to_image.train_classifier(data, epochs=10, verbose=verbose), data


def _train_search(language, seed, verbose, **options):
    source = ["toy", "emoji"]  # both languages in one model
    options |= {"preset": "document", "augment": True, "batch_size": 128, "epochs": 80}
    return training.train_task("image_search", source, seed=seed, verbose=verbose, **options)


def _train_speech(language, head="attention", **options):
    if language == "zh":  # a person's voice is read better, see mmkeras.methods.experiments.human_speech
        options |= {"syllables": True, "recolor": True, "epochs": 8}
    return training.train_task("speech_to_text", language=language, head=head, **options)


def _train_answerer(language, seed, verbose, **options):
    answerer, _ = training.train_task(
        "visual_question_answering", language=language, seed=seed, verbose=verbose, **options
    )
    # training had features in place of the images
    data = visual_question_answering.data("toy", language=language, **options | answerer.data_options)
    return answerer, data


RECIPES = {
    "attribute_classifier": Recipe(_train_classifier, lambda scores: (scores["all"],), NOT_FOR_IMAGES),
    "captioning": Recipe(
        partial(training.train_task, "captioning"), lambda scores: (scores["scene_accuracy"],), NOT_FOR_IMAGES
    ),
    "image_search": Recipe(
        _train_search,
        lambda scores: (scores["mrr"],),
        NOT_FOR_SEARCH,
    ),
    "speech_to_text": Recipe(_train_speech, lambda scores: (-scores["cer"],), NOT_FOR_SPEECH),
    "speech_to_text_ctc": Recipe(
        partial(_train_speech, head="ctc"), lambda scores: (-scores["cer"],), NOT_FOR_SPEECH
    ),
    "text_to_image": Recipe(
        partial(training.train_task, "text_to_image", adversarial=True, epochs=24),
        lambda scores: (round(scores["all"], 2), -scores["frechet_distance"]),
        NOT_FOR_PROMPTS,
        "attribute_classifier",
    ),
    "text_to_image_pixels": Recipe(
        partial(training.train_task, "text_to_image"),
        lambda scores: (-scores["frechet_distance"],),
        f"{NOT_FOR_PROMPTS}; sharp images: a pixel loss averages over all images that a prompt allows",
        "attribute_classifier",
    ),
    "visual_question_answering": Recipe(
        _train_answerer,
        lambda scores: (scores["accuracy"],),
        NOT_FOR_QUESTIONS,
    ),
}


def pretrain(
    name: str,
    language: str = "en",
    *,
    seeds: Sequence[int] = (0, 1),
    folder: str | os.PathLike = zoo.FOLDER,
    verbose: int | str = "auto",
    **options: Any,
) -> dict[str, Any]:
    """Trains a model of the zoo from scratch with several seeds, and saves the best on the validation split.

    Args:
        name: str. A key of `RECIPES`. The generators are scored by the attribute classifier in `folder`.
        language: str. `"en"` or `"zh"`. Defaults to `"en"`.
        seeds: Sequence of int. Seeds of `mmkeras.training.train_task`. Defaults to (0, 1).
        folder: path. Folder of the models and their cards. Defaults to that of `mmkeras.zoo`.
        verbose: As in `fit`. Defaults to `"auto"`.
        **options: Options of the data, such as the `artists` of emoji.

    Returns:
        The card, see `mmkeras.zoo.cards`.

    Raises:
        ValueError: for an unknown name.
        OSError: if the attribute classifier is missing, or the folder cannot be written to.
    """
    if name not in RECIPES:
        raise ValueError(f"Expected NAME to be one of {', '.join(RECIPES)}. Received: {name}")
    recipe, folder = RECIPES[name], Path(folder)
    saving.check_writable(folder)
    classifier = recipe.classifier and tasks.load(folder / f"{recipe.classifier}.keras")
    best = None
    for seed in seeds:
        start = time.perf_counter()
        predictor, data = recipe.train(language=language, seed=seed, verbose=verbose, **options)
        seconds = time.perf_counter() - start
        to_score = {"classifier": classifier} if classifier else predictor.evaluation_options(data)
        rank = recipe.rank(predictor.evaluate(data.for_evaluate(data.splits["validation"]), **to_score))
        if best is None or rank > best[0]:
            best = rank, predictor, data, seed, seconds
    _, predictor, data, seed, seconds = best
    has_language = predictor.language is not None
    file = folder / (f"{name}-{language}.keras" if has_language else f"{name}.keras")
    save_for_inference(predictor, file)
    shipped = tasks.load(file)
    source = data.source.replace("toy", f"toy world {builders.ToyImages.VERSION}")
    command = f"mmkeras pretrain {name}" + (f" --language {language}" if language != "en" else "")
    if artists := options.get("artists"):
        call = f"pretrain({name!r}, seeds={tuple(seeds)}, artists={dict.fromkeys(artists, '...')})"
        command = f'python -c "from mmkeras.zoo import recipes; recipes.{call}"'
    card = {
        "name": name,
        "language": language if has_language else None,
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "megabytes": round(file.stat().st_size / 1e6, 2),
        "data": f"{source}, {data.splits['train'].count} examples",
        "version": __version__,
        "command": command,
        "seed": seed,
        "seconds": round(seconds),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "scores": {
            split: {
                score: round(value, 4)
                for score, value in shipped.evaluate(data.for_evaluate(data.splits[split]), **to_score).items()
            }
            for split in data.splits
            if split != "train"
        },
        "not_for": recipe.not_for,
    }
    if isinstance(shipped, ImagePredictor):
        novelty = Novelty(shipped.network)
        images = data.for_evaluate(data.splits["train"])
        scores = np.concatenate([novelty(batch["image"].numpy()) for batch in images])
        card["novelty_threshold"] = round(float(np.quantile(scores, 0.999)), 4)
    _write_card(folder, card)
    return card


def table(cards: Sequence[dict[str, Any]]) -> str:
    """The cards as a Markdown table, for `data/README.md`."""
    main = (
        "scene_accuracy", "accuracy", "blind_accuracy", "all", "color",
        "wer", "cer", "sharpness", "recall_at_1",
    )  # fmt: skip
    lines = [
        "| model | MB | trained with | seconds | on `test` | on `test_unseen` | not for |",
        "|---|---|---|---|---|---|---|",
    ]
    for card in cards:
        test, unseen = (
            ", ".join(f"{name} {scores[name]:.3f}" for name in main if name in scores)
            for scores in (card["scores"]["test"], card["scores"]["test_unseen"])
        )
        language = f", `{card['language']}`" if card["language"] else ""
        command = f"`{card['command']}`, seed {card['seed']}"
        cells = (f"`{card['name']}`{language}", card["megabytes"], command, card["seconds"], test, unseen)
        lines.append(f"| {' | '.join(map(str, cells))} | {card['not_for']} |")
    return "\n".join(lines)


def save_for_inference(predictor: Predictor, path: str | os.PathLike) -> None:
    """Saves what a prediction needs, weights in half precision.

    Keras converts the float16 weights to the variables' float32 when it loads the file.

    Args:
        predictor: Predictor.
        path: str or path. Ends in `.keras`.

    Raises:
        OSError: if the file cannot be written.
    """
    saving.save(predictor.for_inference(), path)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files["model.weights.h5"] = _half(files["model.weights.h5"])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def _half(weights: bytes) -> bytes:
    """A file of weights with float16 in place of float32."""
    half = io.BytesIO()
    with h5py.File(io.BytesIO(weights)) as source, h5py.File(half, "w") as target:

        def copy(name, item):
            if isinstance(item, h5py.Group):
                copied = target.require_group(name)
            else:
                values = item[()]
                copied = target.create_dataset(
                    name, data=values.astype("float16") if values.dtype == np.float32 else values
                )
            copied.attrs.update(item.attrs)

        target.attrs.update(source.attrs)
        source.visititems(copy)
    return half.getvalue()


def _write_card(folder, card):
    path = folder / zoo.CARDS
    cards = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    key = (card["name"], card["language"])
    cards = [other for other in cards if (other["name"], other["language"]) != key] + [card]
    cards.sort(key=lambda card: (card["name"], card["language"] or ""))
    path.write_text(json.dumps(cards, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
