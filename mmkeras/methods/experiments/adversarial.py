"""How the adversarial model learns (chapters 4.3 and 5.3): its losses in each epoch, its images after some."""

import os
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from mmkeras import text_to_image
from mmkeras.methods.experiments import records

RESULTS = Path(__file__).with_name("adversarial.json")
COMMAND = 'python -c "from mmkeras.methods.experiments import adversarial; adversarial.run()"'
SHOWN = (1, 4, 16)  # epochs; the last one ends the training
PROMPTS = (  # the last is a pair of color and shape that training never shows
    "a large red star in the center",
    "a small blue circle at the top left",
    "a large yellow star at the bottom",
)
SAMPLES = 2  # images per prompt


@dataclass(frozen=True)
class Results:
    """A training of the preset `"toy"`.

    Attributes:
        losses: {name: a value per epoch}, as `fit(...).history`.
        shown: The epochs after which images were drawn, with the weights of that moment.
        prompts: The prompts, in the order of the images.
        sheet: str. File of the images, beside that of the results.
        measured: How and when, see `records.write`.
    """

    losses: dict[str, list[float]]
    shown: list[int]
    prompts: list[str]
    sheet: str
    measured: dict[str, Any] = field(default_factory=dict)

    @property
    def images(self) -> dict[int, np.ndarray]:
        """{epoch: (prompts * samples, S, S, 3) uint8}, the samples of a prompt next to each other. Their noise
        is the same after each epoch."""
        rows = records.images(RESULTS.with_name(self.sheet), len(self.shown))
        return dict(zip(self.shown, rows, strict=True))


def run(path: str | os.PathLike = RESULTS, **options: Any) -> Results:
    """Trains the model for as many epochs as the last of `SHOWN`. Writes what `results` returns after each of
    them, so that a training that is stopped leaves the first ones.

    Args:
        path: str or path. File of the results. That of the images has the suffix .png.
        **options: Of `mmkeras.text_to_image.data`.
    """
    start, sheet = time.perf_counter(), Path(path).with_suffix(".png")
    data = text_to_image.data("toy", **options)
    keras.utils.set_random_seed(0)
    steps = SHOWN[-1] * len(data.train)
    model = text_to_image.build("toy", vocabulary=data.vocabulary, adversarial=True, decay_steps=steps)
    generator, losses, rows = text_to_image.ImageGenerator(model), defaultdict(list), []

    def record(epoch, logs):
        for name, value in logs.items():
            losses[name].append(round(float(value), 4))
        if epoch + 1 in SHOWN:
            images = generator(PROMPTS, samples=SAMPLES)  # (samples, S, S, 3) per prompt
            rows.append(np.concatenate(np.concatenate(images), axis=1))  # (S, n * S, 3)
            Image.fromarray(np.concatenate(rows)).save(sheet, optimize=True)
            shown = list(SHOWN[: len(rows)])
            records.write(path, COMMAND, start, Results(dict(losses), shown, list(PROMPTS), sheet.name))

    callback = keras.callbacks.LambdaCallback(on_epoch_end=record)
    model.fit(data.train, epochs=SHOWN[-1], callbacks=[callback], verbose=2)
    return records.read(path, Results)


def results() -> Results:
    """The shipped results of `run`."""
    return records.read(RESULTS, Results)
