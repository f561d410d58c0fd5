"""What each modality adds to the classification of toy videos: a model for each set of modalities."""

import itertools
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mmkeras._utils import progress
from mmkeras.applications.video_understanding.datasets import data, to_float, without_empty
from mmkeras.applications.video_understanding.inference import VideoCaptioner
from mmkeras.applications.video_understanding.model import (
    MODALITIES,
    MODALITY_DROPOUT,
    build_captioner,
    encoders,
)
from mmkeras.data.task_data import TaskData
from mmkeras.methods import classification, joint_training, scenes
from mmkeras.methods.classification import Classifier
from mmkeras.methods.experiments import records
from mmkeras.methods.experiments.protocol import SEEDS
from mmkeras.toy import motion

RESULTS = Path(__file__).with_name("modalities.json")
COMMAND = 'python -c "from mmkeras.applications.video_understanding import modalities as m; m.run()"'
STEPS = 300  # of 32 videos, for every model
CAPTION_EPOCHS = 6
# Training lacks some pairs of color and shape. With it, the model is less sure that they do not exist.
LABEL_SMOOTHING = 0.2
SPLITS = ("test", "test_unseen")
SETS = [names for count in (1, 2, 3) for names in itertools.combinations(MODALITIES, count)]


@dataclass(frozen=True)
class Results:
    """Scores on 500 videos of each split, one per seed.

    Attributes:
        scores: {modalities: {split: {attribute, or "all" for all of them right: a share per seed}}}.
        captions: {split: {score: one per seed}}, of the captioner of frames and sound.
        measured: How and when, see `records.write`.
    """

    scores: dict[str, dict[str, dict[str, list[float]]]]
    captions: dict[str, dict[str, list[float]]]
    measured: dict[str, Any] = field(default_factory=dict)

    def table(self, split: str = "test") -> str:
        """The mean of the seeds for each set of modalities, as text, and the range of `all`."""
        names = list(next(iter(self.scores.values()))[split])
        rows = [["", *names, "range"]]
        for modalities, scores in self.scores.items():
            shares = scores[split]
            cells = [f"{np.mean(shares[name]):.3f}" for name in names]
            rows.append([modalities, *cells, f"{min(shares['all']):.3f} to {max(shares['all']):.3f}"])
        return records.table(rows)


def run(path: str | os.PathLike = RESULTS) -> Results:
    """Trains a model of each set of modalities with each seed for 300 steps, and with each seed a captioner for
    six epochs. Writes what `results` returns."""
    start, videos = time.perf_counter(), data("toy")
    train, *tests = (examples(videos, split) for split in ("train", *SPLITS))
    scores, captions = {" + ".join(names): {} for names in SETS}, {}
    for seed in progress.bar(SEEDS, "seeds"):
        for names in SETS:
            model = trained(train, names, seed)
            for split, test in zip(SPLITS, tests, strict=True):
                _add(scores[" + ".join(names)], split, model.evaluate(test))
    videos = data("toy", target="captions")
    for seed in progress.bar(SEEDS, "captioners"):
        captioner = trained_captioner(videos, seed)
        for split in SPLITS:
            _add(captions, split, captioner.evaluate(getattr(videos, split)))
    return records.write(path, COMMAND, start, Results(scores, captions))


def results() -> Results:
    """The shipped results of `run`."""
    return records.read(RESULTS, Results)


def examples(videos: TaskData, split: str) -> scenes.Examples:
    """All videos of a split of `data("toy")` as arrays."""
    batches = list(videos.for_evaluate(videos.splits[split]).as_numpy_iterator())
    parts = {
        name: np.concatenate([batch[name] for batch in batches]) for name in ("frames", "sound", "captions")
    }
    texts = [text.decode() for text in parts["captions"][:, 0]]
    inputs = {
        "frames": parts["frames"],
        "sound": np.asarray(to_float(parts["sound"])),
        "text": np.asarray(without_empty(videos.vocabulary.encode_batch(texts, videos.max_length))),
    }
    labels = {name: np.concatenate([batch["labels"][name] for batch in batches]) for name in videos.attributes}
    return scenes.Examples(inputs, labels, videos.vocabulary, split, np.arange(len(texts)))


def trained(
    train: scenes.Examples, modalities: tuple[str, ...], seed: int = 0, steps: int = STEPS
) -> Classifier:
    """Joint training of some modalities, with modality dropout if there are several."""
    keras.utils.set_random_seed(seed)
    model = joint_training.build(
        encoders(train.vocabulary, modalities),
        {name: len(kinds) for name, kinds in motion.ATTRIBUTES.items()},
        modality_dropout=MODALITY_DROPOUT if len(modalities) > 1 else 0.0,
        decay_steps=steps,
        label_smoothing=LABEL_SMOOTHING,
    )
    return Classifier(classification.fit(model, train, steps, seed))


def trained_captioner(videos: TaskData, seed: int = 0, epochs: int = CAPTION_EPOCHS) -> VideoCaptioner:
    """A captioner of the toy videos."""
    keras.utils.set_random_seed(seed)
    steps = epochs * int(videos.train.cardinality())
    model = build_captioner(vocabulary=videos.vocabulary, decay_steps=steps)
    model.fit(videos.train, epochs=epochs, shuffle=False, verbose=0)
    return VideoCaptioner(model)


def _add(scores, split, new):
    for name, value in new.items():
        scores.setdefault(split, {}).setdefault(name, []).append(round(value, 3))
