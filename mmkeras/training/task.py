"""From a task's name to a trained model: `train_task`, as `mmkeras train` does it."""

import math
import os
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from mmkeras import distribute, tasks
from mmkeras._utils import presets
from mmkeras._utils.predictor import Predictor
from mmkeras.data import sources
from mmkeras.data.task_data import TaskData
from mmkeras.training.fit import train, use_precision

# Twelve epochs of 200 images are 60 steps, after which a captioner describes 4 % of new toy images right; after
# 500 steps 91 %.
MIN_STEPS = 500
SMALL = ("emoji", "mnist", "cifar10")  # sources of images for which a network for photographs is too large


def parse_options(
    task: str, source: str | os.PathLike, settings: Sequence[str], *, of_model: bool = True
) -> dict[str, Any]:
    """Options of `train_task` from texts such as `"units=256"`, see `mmkeras._utils.presets.parse`.

    Args:
        task: str. Name of a task or of its model.
        source: str or path. The source of the task's `data`, whose options they may be.
        settings: Texts name=value.
        of_model: bool. Whether options of `build` are among them. Defaults to True.

    Raises:
        ValueError: for an unknown option, or a value that is not of its type.
    """
    package = tasks.package(task)
    reserved = ("language", "batch_size", "vocabulary", "seed", "static_shapes")
    known = presets.keywords(package.data, reserved) | sources.options(source)
    if of_model:
        known |= presets.of_build(package.build, package.model.PRESETS)
    return presets.parse(settings, known)


def train_task(
    task: str,
    source: str | os.PathLike = "toy",
    *,
    preset: str | None = None,
    language: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    precision: str = "auto",
    strategy: tf.distribute.Strategy | None = None,
    run: str | os.PathLike | None = None,
    resume: bool = False,
    patience: int | None = None,
    warmup_steps: int | None = None,
    seed: int = 0,
    verbose: str | int = "auto",
    **options,
) -> tuple[Predictor, TaskData]:
    """Prepares the data of a task, builds its model and trains it, as `mmkeras train` does.

    Several workers prepare the data one after another. The features of a frozen encoder are computed once. Real
    images are refused if the encoder's pretrained weights could not be loaded.

    Args:
        task: str. A key of `mmkeras.tasks.TASKS`.
        source: str or path. The source of the task's `data`. Defaults to `"toy"`.
        preset: str. The preset of the task's `build`. Defaults to `"toy"` for the toy world, `"small"` for
            small images if the task has one, else `"document"`.
        language: str. `"en"`, `"zh"`, or for image_search `"both"`. Defaults to that of the task's `data`.
        epochs: int. Defaults to the epochs of the toy world; with another source that has few examples, to
            as many as give `MIN_STEPS` steps. A learning rate that decays does so over them.
        batch_size: int. Defaults to the task's own.
        precision: str. See `use_precision`. Defaults to `"auto"`.
        strategy: tf.distribute.Strategy. From `mmkeras.distribute.strategy`. Defaults to one device.
        run, resume, patience, warmup_steps, verbose: As for `train`.
        seed: int. Seed of the first weights, of the order of the data and of all other randomness. Defaults to
            0.
        **options: Options of the task's `build` and of its `data`.

    Returns:
        The predictor of the trained model, such as a `Captioner`, and the data.

    Raises:
        ValueError, TypeError: if an argument is invalid or an option is unknown.
        FileExistsError, OSError, KeyboardInterrupt: As for `train`.
    """
    tasks.check(task)
    package, kind = tasks.package(task), tasks.get(task)
    for_small = "small" if "small" in package.model.PRESETS else "document"
    preset = preset or ("toy" if source == "toy" else for_small if source in SMALL else "document")
    strategy = strategy or tf.distribute.get_strategy()
    use_precision(precision)
    settings = {"preset": preset, "language": language, "options": dict(options), "seed": seed}
    of_build = presets.of_build(package.build, package.model.PRESETS)
    of_data = {name: options.pop(name) for name in options.keys() - of_build.keys()}
    sizes = {name: options[name] for name in options.keys() - presets.keywords(package.build).keys()}
    config = presets.with_overrides(package.model.PRESETS, preset, sizes)
    if "image_size" in of_build:
        of_data["image_size"] = config.image_size
    of_data |= {n: v for n, v in (("batch_size", batch_size), ("language", language)) if v is not None}
    with distribute.chief_first(strategy):
        data = package.data(
            source,
            seed=seed,
            static_shapes=distribute.wants_static_shapes(strategy),
            **of_data,
        )
    steps = 0 if data.train is None else int(data.train.cardinality())
    if not epochs:
        epochs = kind.epochs
        if source != "toy" and steps:
            epochs = max(epochs, math.ceil(MIN_STEPS / steps))
    if config.decay_steps and "decay_steps" not in options and steps:
        options["decay_steps"] = epochs * steps
    # what a model must know of its data beside the vocabulary, such as the answers
    options |= {name: data.extra[name] for name in presets.keywords(package.build) if name in data.extra}
    keras.utils.set_random_seed(seed)  # after the data, whose first preparation draws random numbers
    with strategy.scope():
        model = package.build(preset, vocabulary=data.vocabulary, **options)
    if hasattr(package, "with_features"):
        package.check_pretrained(data, model)
        with distribute.chief_first(strategy):
            data = package.with_features(data, model)
    train(
        model,
        data,
        epochs=epochs,
        run=run,
        resume=resume,
        patience=patience,
        warmup_steps=warmup_steps,
        settings=settings,
        seed=seed,
        verbose=verbose,
    )
    return tasks.predictor(model), data
