"""Small images and small networks, for the experiments of chapter 8, which train dozens of models."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import keras
import numpy as np

from mmkeras.methods import joint_training, scenes
from mmkeras.methods.classification import Classifier
from mmkeras.methods.experiments import protocol, records
from mmkeras.methods.experiments.protocol import Trained
from mmkeras.methods.scenes import Examples
from mmkeras.nn.encoders import image_encoder, word_encoder

SIDE = 32  # of an image in pixels; a small shape is 6 to 7 pixels wide
STEPS = 500  # the most that a model trains
NOISE = 40.0  # standard deviation, of 255, before the images are made smaller, which halves it


@functools.cache
def examples(
    split: str, count: int, modalities: tuple[str, ...] = ("image",), **degradation: float
) -> Examples:
    """Scenes with noisy images of 32 pixels.

    Args:
        split, count, modalities: See `scenes.examples`.
        **degradation: See `scenes.degraded`.
    """
    seed = scenes.scene.SPLITS.index(split)
    large = scenes.examples(split, count, modalities=modalities)
    noisy = scenes.degraded(large, seed=seed, **{"noise": NOISE, **degradation})
    factor = scenes.IMAGE_SIZE // SIDE
    cells = noisy.inputs["image"].reshape(count, SIDE, factor, SIDE, factor, 3)
    return replace(noisy, inputs=noisy.inputs | {"image": cells.mean(axis=(2, 4))})  # (N, 32, 32, 3)


def build(
    width: int = 16,
    attributes: tuple[str, ...] = tuple(scenes.CLASSES),
    modalities: tuple[str, ...] = ("image",),
) -> keras.Model:
    """Joint training of images, and texts if they are given, compiled.

    Args:
        width: int. Filters of the first convolution. All other widths are multiples of it. Defaults to 16.
        attributes: Names of attributes of `scenes`. Default to all.
        modalities: `("image",)` or `("image", "text")`. Defaults to the image. A text of padding alone is
            missing.
    """
    encoders = {"image": image_encoder(SIDE, 4 * width, filters=(width, 2 * width, 2 * width))}
    if "text" in modalities:
        encoders["text"] = word_encoder(
            scenes.examples("train", 1).vocabulary, 4 * width, length=scenes.LENGTH, sequence=True
        )
    classes = {name: scenes.CLASSES[name] for name in attributes}
    model = joint_training.build(encoders, classes, units=4 * width)
    model.steps_per_execution = protocol.EVERY
    return model


def trained(
    train: Examples,
    validation: Examples,
    *,
    seed: int,
    width: int = 16,
    modalities: tuple[str, ...] = ("image",),
    weights: np.ndarray | None = None,
) -> Trained:
    """Trains a new model until validation has not improved for 400 steps, and for 500 steps at most.

    Models of the same size are one model in turn, which is traced once: use the result before the next call.

    Args:
        train, validation: Examples. Their labels are the attributes.
        seed: int. Seed of the first weights and of the order of the examples.
        width, modalities: See `build`.
        weights: (N,) float, optional. Of the examples in the loss.
    """
    size = (width, tuple(train.labels), modalities)
    classifier, optimizer = _classifier(*size)
    classifier.model.set_weights(_first_weights(seed, *size))
    keras.utils.set_random_seed(seed)
    for variable, value in zip(classifier.model.optimizer.variables, optimizer, strict=True):
        variable.assign(value)
    return protocol.best_fit(classifier, train, validation, STEPS, seed, weights)


@functools.cache
def _classifier(*size) -> tuple[Classifier, list[np.ndarray]]:
    """A classifier, and the first state of its optimizer."""
    model = build(*size)
    return Classifier(model), [np.array(variable) for variable in model.optimizer.variables]


@functools.cache
def _first_weights(seed, *size) -> list[np.ndarray]:
    keras.utils.set_random_seed(seed)
    return build(*size).get_weights()


def with_mirrored(examples: Examples, relabel: bool = True) -> Examples:
    """Examples and their mirror images. Left becomes right in the labels, too, unless `relabel` is False."""
    labels = examples.labels
    if relabel:
        row, column = np.divmod(labels["place"], len(scenes.scene.COLUMNS))
        labels = labels | {"place": len(scenes.scene.COLUMNS) * (row + 1) - 1 - column}
    mirrored = {"image": examples.inputs["image"][:, :, ::-1]}
    return joined(examples, replace(examples, inputs=mirrored, labels=labels))


def joined(*parts: Examples) -> Examples:
    """Examples of the same modalities, one after the other."""
    inputs, labels = (
        {name: np.concatenate([getattr(part, of)[name] for part in parts]) for name in getattr(parts[0], of)}
        for of in ("inputs", "labels")
    )
    numbers = np.concatenate([part.numbers for part in parts])
    return replace(parts[0], inputs=inputs, labels=labels, numbers=numbers)


def difference(before: Sequence[float], after: Sequence[float]) -> str:
    """`"higher"` if each seed after is above each seed before, `"lower"`, or `"no difference"`."""
    if min(after) > max(before):
        return "higher"
    return "lower" if max(after) < min(before) else "no difference"


def table(title: str, rows: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """{row: {column: a value per seed}} as text, see `records.cell`."""
    columns = list(dict.fromkeys(column for values in rows.values() for column in values))
    cells = [
        [name, *(records.cell(values[column]) if column in values else "" for column in columns)]
        for name, values in rows.items()
    ]
    return records.table([[title, *columns], *cells])
