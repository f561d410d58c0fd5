"""How the ready-trained models are trained: `mmkeras pretrain`, in Python `pretrain`."""

import hashlib
import io
import json
import os
import platform
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

import mmkeras
from mmkeras import tasks, text_to_image, training, zoo
from mmkeras._utils import saving
from mmkeras.evaluation.novelty import Novelty
from mmkeras.text_to_image.gan.model import Adversarial
from mmkeras.toy import builders

SPLITS = ("validation", "test", "test_unseen")
NOT_FOR_IMAGES = "photographs, drawings, scenes of more than one object"
NOT_FOR_SPEECH = "human voices, other synthetic voices, words outside the toy world's grammar"
NOT_FOR_PROMPTS = "prompts outside the toy world's grammar"


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: as by `mmkeras train`, one for more epochs.

    Attributes:
        task: str. Name of the task.
        rank: Scores on the validation split → tuple. Of several seeds the one with the largest is shipped.
        not_for: str. What the model is not made for.
        options: dict. Options of `mmkeras.training.train_task`.
    """

    task: str
    rank: Callable[[dict[str, float]], tuple[float, ...]]
    not_for: str
    options: Mapping[str, Any] = field(default_factory=dict)


RECIPES = {
    "attribute_classifier": Recipe("text_to_image", lambda scores: (scores["all"],), NOT_FOR_IMAGES),
    "captioning": Recipe("captioning", lambda scores: (scores["scene_accuracy"],), NOT_FOR_IMAGES),
    "speech_to_text": Recipe("speech_to_text", lambda scores: (-scores["cer"],), NOT_FOR_SPEECH),
    "speech_to_text_ctc": Recipe(
        "speech_to_text", lambda scores: (-scores["cer"],), NOT_FOR_SPEECH, {"head": "ctc"}
    ),
    "text_to_image": Recipe(
        "text_to_image",
        lambda scores: (round(scores["all"], 2), -scores["frechet_distance"]),
        NOT_FOR_PROMPTS,
        {"adversarial": True, "epochs": 24, "decay_steps": 6000},
    ),
    "text_to_image_pixels": Recipe(
        "text_to_image",
        lambda scores: (-scores["frechet_distance"],),
        f"{NOT_FOR_PROMPTS}; sharp images: a pixel loss averages over all images that a prompt allows",
    ),
}


def pretrain(
    name: str,
    language: str = "en",
    *,
    seeds: Sequence[int] = (0, 1),
    folder: str | os.PathLike = zoo.FOLDER,
    verbose: int | str = "auto",
) -> dict[str, Any]:
    """Trains a model of the zoo from nothing with several seeds, and saves the best on the validation split.

    Args:
        name: str. A key of `RECIPES`. The generators are scored by the attribute classifier in `folder`.
        language: str. `"en"` or `"zh"`. Defaults to `"en"`.
        seeds: Sequence of int. Seeds of `mmkeras.training.train_task`. Defaults to (0, 1).
        folder: path. Folder of the models and their cards. Defaults to that of `mmkeras.zoo`.
        verbose: As in `fit`. Defaults to `"auto"`.

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
    is_classifier = name == "attribute_classifier"
    evaluate = _evaluator(recipe.task, is_classifier, folder)
    best = None
    for seed in seeds:
        start = time.perf_counter()
        answerer, data = _train(recipe, is_classifier, language, seed, verbose)
        seconds = time.perf_counter() - start
        rank = recipe.rank(evaluate(answerer, data.for_evaluate(data.splits["validation"])))
        if best is None or rank > best[0]:
            best = rank, answerer, data, seed, seconds
    _, answerer, data, seed, seconds = best
    file = folder / (f"{name}.keras" if is_classifier else f"{name}-{language}.keras")
    save_for_inference(answerer.model, file)
    shipped = tasks.load(file)
    card = {
        "name": name,
        "language": None if is_classifier else language,
        "file": file.name,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "megabytes": round(file.stat().st_size / 1e6, 2),
        "data": f"toy world {builders.ToyImages.VERSION}, {data.splits['train'].count} examples",
        "version": mmkeras.__version__,
        "command": f"mmkeras pretrain {name}" + (f" --language {language}" if language != "en" else ""),
        "seed": seed,
        "seconds": round(seconds),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "scores": {
            split: {k: round(v, 4) for k, v in evaluate(shipped, data.for_evaluate(data.splits[split])).items()}
            for split in SPLITS
        },
        "not_for": recipe.not_for,
    }
    if hasattr(shipped, "novelty"):
        novelty = Novelty(shipped.network)
        images = data.for_evaluate(data.splits["train"])
        scores = np.concatenate([novelty(batch["image"].numpy()) for batch in images])
        card["novelty_threshold"] = round(float(np.quantile(scores, 0.999)), 4)
    _write_card(folder, card)
    return card


def table(cards: Sequence[dict[str, Any]]) -> str:
    """The cards as a Markdown table, for `data/README.md`."""
    main = ("scene_accuracy", "all", "color", "wer", "cer", "sharpness")
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


def save_for_inference(model: keras.Model, path: str | os.PathLike) -> None:
    """Saves what answers: no optimizer, of an adversarial model the generator alone, weights in half precision.

    Keras converts the float16 weights to the variables' float32 when it loads the file.

    Args:
        model: keras.Model. A model of mmkeras.
        path: path. Ends in `.keras`.

    Raises:
        OSError: if the file cannot be written.
    """
    if isinstance(model, Adversarial):
        model = model.generator()
    else:
        model = keras.Model(model.input, model.output, name=model.name)
    saving.save(model, path)
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


def _train(recipe, is_classifier, language, seed, verbose):
    if is_classifier:
        data = text_to_image.data("toy", language=language, seed=seed)
        keras.utils.set_random_seed(seed)
        return text_to_image.train_classifier(data, epochs=10, verbose=verbose), data
    return training.train_task(recipe.task, language=language, seed=seed, verbose=verbose, **recipe.options)


def _evaluator(task, is_classifier, folder):
    """(answerer, dataset) → scores."""
    if is_classifier:
        return text_to_image.evaluate_classifier
    if task == "text_to_image":
        classifier = tasks.load(folder / "attribute_classifier.keras")
        return lambda answerer, dataset: text_to_image.evaluate(answerer, dataset, classifier)
    return tasks.get(task).load().evaluate


def _write_card(folder, card):
    path = folder / zoo.CARDS
    cards = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    key = (card["name"], card["language"])
    cards = [other for other in cards if (other["name"], other["language"]) != key] + [card]
    cards.sort(key=lambda card: (card["name"], card["language"] or ""))
    path.write_text(json.dumps(cards, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
