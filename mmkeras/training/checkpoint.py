"""The folder of a training run: `TrainingRun`, and the state of the run: `RunState`.

- `last.keras`   after the last complete epoch: the model, its optimizer, the settings and the `RunState`
- `best.keras`   the model after the epoch with the lowest validation loss. If the optimizer averages the
                 weights, as that of the adversarial model, it has the averages; `last.keras` has the weights
- `history.csv`, `curves.png`, `events/` (TensorBoard): the history of `fit`. To read the events install
  `tensorboard>=2.21`; TensorFlow 2.21 does not, and TensorBoard 2.20 fails beside setuptools 82

`last.keras` alone decides where a run resumes, and it is replaced atomically. Everything else is derived from
it, so that a run that is killed between two files resumes correctly.

Keras's callbacks cannot promise that. BackupAndRestore and ModelCheckpoint overwrite their files in place, and
Keras's files hold no seed generators; EarlyStopping forgets its best value when a run is resumed; CSVLogger
repeats the rows of an epoch that was killed; TensorBoard needs the package of that name.
"""

import contextlib
import csv
import dataclasses
import json
import math
import os
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from mmkeras import distribute
from mmkeras._utils import saving
from mmkeras.data import cache
from mmkeras.evaluation import plots

# Drawing the curves takes as long as a short epoch of the toy world. Seconds between two drawings.
DRAW_SECONDS = 60
_STATE = "mmkeras_state.json"  # added to the files in last.keras


@dataclass
class RunState:
    """The state of a run after its last complete epoch.

    Attributes:
        epoch: int. Number of complete epochs.
        history: dict. Each value in the logs of `fit`, one number per epoch.
        best: float. Lowest validation loss so far; the training loss without validation data.
        best_epoch: int. The epoch that reached it, from 1; 0 before the first.
        is_over: bool. Whether early stopping ended the run.
        seeds: list. States of the model's seed generators.
        settings: dict. What the run was started with.
    """

    epoch: int = 0
    history: dict[str, list[float]] = field(default_factory=dict)
    best: float | None = None
    best_epoch: int = 0
    is_over: bool = False
    seeds: list[list[int]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    def add(self, logs: dict[str, float], patience: int | None) -> bool:
        """Adds the logs of an epoch, and returns whether it is the best so far."""
        for name, value in logs.items():
            self.history.setdefault(name, []).append(float(value))
        self.epoch += 1
        value = float(logs.get("val_loss", logs["loss"]))
        is_best = math.isfinite(value) and (self.best is None or value < self.best)
        if is_best:
            self.best, self.best_epoch = value, self.epoch
        self.is_over = patience is not None and self.epoch - self.best_epoch >= patience
        return is_best


class TrainingRun:
    """The folder of a run. With several workers all of them read it, and only the chief writes.

    Args:
        folder: path. Created if missing.
        settings: dict. JSON-able values, paths or models by name, which must be the same when the run is
            resumed.
        strategy: tf.distribute.Strategy.
    """

    def __init__(self, folder: str | os.PathLike, settings: dict, strategy: tf.distribute.Strategy):
        self.folder, self.strategy = Path(folder), strategy
        self.settings = json.loads(json.dumps(settings, default=_text))
        self.is_chief = distribute.is_chief(strategy)
        self.last, self.best = self.folder / "last.keras", self.folder / "best.keras"
        self._events, self._drawn = None, 0.0

    def begin(self, model: keras.Model, resume: bool) -> RunState:
        """Prepares the folder. With `resume`, restores the model as it was after the last complete epoch.

        Raises:
            ValueError: if the run has other settings, its checkpoint is damaged, or the workers do not share
                it.
            FileExistsError, OSError: as `check_folder`.
        """
        if not model.optimizer.built:  # on all workers at once: its variables start from shared values
            model.optimizer.build(model.trainable_variables)
        if self.is_chief:
            check_folder(self.folder, resume)
        state = RunState(settings=self.settings)
        if resume and self.last.is_file():
            with self._damage_as_value_error():
                state = _read_state(self.last)
            self._compare(state.settings)
        name = f"number of epochs in their run folder {self.folder}, which they must share"
        distribute.check_same(self.strategy, state.epoch, name)
        if state.epoch:
            with self._damage_as_value_error():
                model.load_weights(self.last)
            for variable, seed in zip(_seeds(model), state.seeds, strict=True):
                variable.assign(seed)
        if self.is_chief:
            self.folder.mkdir(parents=True, exist_ok=True)
            for partial in self.folder.glob(".saving-*"):  # of a run that was killed while it saved
                shutil.rmtree(partial, ignore_errors=True)
            # written again: an epoch that was killed may have written events, too
            shutil.rmtree(self.folder / "events", ignore_errors=True)
            self._events = tf.summary.create_file_writer(str(self.folder / "events"))
            for epoch in range(state.epoch):
                self._write_events(state, epoch)
        return state

    def save(self, model: keras.Model, state: RunState, is_best: bool) -> None:
        """Writes the checkpoint and the history of an epoch.

        Raises:
            OSError: if they cannot be written; the previous checkpoint stays.
        """
        state.seeds = [keras.ops.convert_to_numpy(seed).tolist() for seed in _seeds(model)]
        notes = {_STATE: json.dumps(dataclasses.asdict(state))}
        try:
            with contextlib.ExitStack() as stack:
                folder = self.folder
                if not self.is_chief:  # saves, too: reading a variable can take all workers
                    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                if is_best:
                    with _averaged_weights(model):
                        saving.save(model, folder / self.best.name)
                saving.save(model, folder / self.last.name, notes)
            if self.is_chief:
                self._report(state)
        except distribute.LOST_WORKER_ERRORS:
            raise
        except (OSError, tf.errors.OpError) as error:
            complete = _read_state(self.last).epoch if self.last.is_file() else 0
            raise OSError(
                f"Epoch {state.epoch} could not be written to {self.folder}: {error}. The last complete "
                f"checkpoint is of epoch {complete}. Make room, then resume (--resume, in Python resume=True)."
            ) from error

    def close(self, state: RunState) -> None:
        """Completes the reports when the run ends, for whatever reason."""
        if self._events:
            with contextlib.suppress(OSError, tf.errors.OpError):  # `save` has reported a full disk
                self._events.close()
                if state.history:
                    self._write_history(state)  # again: a killed run may have left a part of it
                    self._draw(state)

    def _compare(self, settings):
        for name in [*self.settings, *settings]:
            if settings.get(name) != self.settings.get(name):
                raise ValueError(
                    f"Expected {name} to be {settings.get(name)!r}, as in the run in {self.folder}. Received: "
                    f"{name}={self.settings.get(name)!r}. Use the run's settings or another folder (--run)."
                )

    @contextlib.contextmanager
    def _damage_as_value_error(self):
        try:
            yield
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise ValueError(f"The checkpoint {self.last} is damaged: {error}") from error

    # --- reports ---

    def _report(self, state):
        self._write_history(state)
        self._write_events(state, state.epoch - 1)
        if time.monotonic() - self._drawn > DRAW_SECONDS:
            self._draw(state)

    def _write_history(self, state):
        with open(self.folder / "history.csv", "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["epoch", *state.history])
            rows.writerows(zip(range(1, state.epoch + 1), *state.history.values(), strict=True))

    def _draw(self, state):
        plots.curves(state.history, self.folder / "curves.png")
        self._drawn = time.monotonic()

    def _write_events(self, state, epoch):
        # as tf.summary.scalar, which needs the package tensorboard
        plugin = tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
        metadata = tf.compat.v1.SummaryMetadata(plugin_data=plugin)
        with self._events.as_default():
            for name, values in state.history.items():
                tf.summary.write(
                    name, tf.constant(values[epoch], tf.float32), step=epoch + 1, metadata=metadata
                )
        self._events.flush()


def _text(value):
    """A path as a str, a model as its name and a digest of its weights."""
    if isinstance(value, keras.Model):
        return f"{value.name} ({cache.digest(*value.get_weights())})"
    return os.fspath(value)


def check_folder(folder: str | os.PathLike, resume: bool) -> None:
    """Checks the folder of a run before there is a model.

    Raises:
        FileExistsError: if it holds a run and `resume` is False.
        OSError: if it cannot be written to.
    """
    folder = Path(folder)
    if not resume and (folder / "last.keras").is_file():
        raise FileExistsError(
            f"Expected run to be a folder without a run. Received: run={str(folder)!r}. Resume it "
            f"(--resume, in Python the argument resume), or use another folder (--run, or another --output)."
        )
    saving.check_writable(next(path for path in (folder, *folder.absolute().parents) if path.exists()))


@contextlib.contextmanager
def _averaged_weights(model):
    """Replaces the weights by their averages within the block, if the optimizer keeps averages."""
    if not getattr(getattr(model.optimizer, "inner_optimizer", model.optimizer), "use_ema", False):
        yield
        return
    weights = [keras.ops.convert_to_numpy(variable) for variable in model.trainable_variables]
    model.optimizer.finalize_variable_values(model.trainable_variables)
    try:
        yield
    finally:
        for variable, value in zip(model.trainable_variables, weights, strict=True):
            variable.assign(value)


def _read_state(path):
    return RunState(**json.loads(saving.read_note(path, _STATE)))


def _seeds(model):
    return [variable for variable in model.variables if variable.name == "seed_generator_state"]
