"""The folder of a training run: `Run`, and where the run stands, `State`.

- `run.json`     what the run was made with; whoever goes on with it must have the same
- `last.keras`   after the last whole epoch: the model, its optimizer, and the `State`
- `best.keras`   the model after the epoch with the lowest validation loss
- `history.csv`, `curves.png`, `events/` (TensorBoard): the same figures

`last.keras` alone decides where a run goes on, and it is replaced as a whole or not at all. All the rest is
made from it, so a run that was killed between two files repairs itself.
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

import keras
import tensorflow as tf

from mmkeras import distribute
from mmkeras._utils import saving

# Drawing the curves takes as long as a short epoch of the toy world, so they are not drawn more often than
from mmkeras.evaluation import plots

# this, and once more at the end.
DRAW_SECONDS = 60
_FACTS, _LAST = "run.json", "last.keras"
# the member of last.keras beside Keras's own
_STATE = "mmkeras_state.json"


@dataclass
class State:
    """Where a run stands after its last whole epoch.

    `epoch`:     how many whole epochs lie behind it.
    `history`:   each figure of `fit`, one value an epoch.
    `best`:      the lowest validation loss (without validation: the loss) so far, reached in `best_epoch`.
    `is_over`:   early stopping has ended the run.
    `seeds`:     the state of each random number generator inside the model; Keras leaves them out of its files.
    """

    epoch: int = 0
    history: dict[str, list[float]] = field(default_factory=dict)
    best: float | None = None
    best_epoch: int = 0
    is_over: bool = False
    seeds: list[list[int]] = field(default_factory=list)

    def add(self, logs: dict[str, float], patience: int | None) -> bool:
        """Takes in the figures of an epoch; says whether it is the best so far."""
        for name, value in logs.items():
            self.history.setdefault(name, []).append(float(value))
        self.epoch += 1
        value = float(logs.get("val_loss", logs["loss"]))
        is_better = math.isfinite(value) and (self.best is None or value < self.best)
        if is_better:
            self.best, self.best_epoch = value, self.epoch
        self.is_over = patience is not None and self.epoch - self.best_epoch >= patience
        return is_better


class Run:
    """A run's folder. Of several workers only the chief writes; all of them read.

    Args:
        folder: made if it is not there.
        made_with: facts by name, JSON-able; they must be the same when the run goes on.
        strategy: of tf.distribute.
    """

    def __init__(self, folder: str | os.PathLike, made_with: dict, strategy: tf.distribute.Strategy):
        self.folder, self.made_with, self.strategy = Path(folder), made_with, strategy
        self.is_chief = distribute.is_chief(strategy)
        self.last, self.best = self.folder / _LAST, self.folder / "best.keras"
        self._events, self._drawn = None, 0.0

    def begin(self, model: keras.Model, resume: bool) -> State:
        """Checks the folder; with `resume` the model becomes what it was after the run's last whole epoch.

        Raises:
            ValueError: the run there was made with something else, its checkpoint is not whole, or it is not
                the same for all workers.
            FileExistsError: the folder holds a run, and nobody said to go on with it.
            OSError: the folder cannot be written to, or has no room for the checkpoints.
        """
        facts = self.folder / _FACTS
        if resume and self.last.is_file() and not facts.is_file():
            raise ValueError(
                f"{self.folder} holds a checkpoint, {self.last.name}, but no {facts.name}, which says what the "
                f"run was made with. Put it back, or begin another run in another folder (--run)."
            )
        if not model.optimizer.built:  # by all workers at one time: they share its variables' first values
            model.optimizer.build(model.trainable_variables)
        if self.is_chief:
            check_folder(self.folder, resume)
        if resume and facts.is_file():
            self._compare(_read_facts(facts))
        state = self._last_state() if resume and self.last.is_file() else State()
        what = f"number of epochs in the run's folder, {self.folder}, which they must share"
        distribute.check_same(self.strategy, state.epoch, what)
        if state.epoch:
            self._restore(model, state)
        if self.is_chief:
            self._make_room(model)
            for left in self.folder.glob(".saving-*"):  # by a run that was killed while it saved
                shutil.rmtree(left, ignore_errors=True)
            _write(facts, json.dumps(self.made_with, indent=1, ensure_ascii=False))
            self._start_events(state)
        return state

    def keep(self, model: keras.Model, state: State, is_best: bool) -> None:
        """Writes what an epoch leaves behind.

        Raises:
            OSError: it cannot be written; the checkpoint before it is still there.
        """
        state.seeds = [keras.ops.convert_to_numpy(seed).tolist() for seed in _seeds(model)]
        try:
            if not self.is_chief:  # reading a variable can take all workers
                with tempfile.TemporaryDirectory() as folder:
                    if is_best:
                        saving.save(model, Path(folder) / "best.keras")
                    saving.save(model, Path(folder) / "last.keras")
                return
            if is_best:
                saving.save(model, self.best)
            saving.save(model, self.last, {_STATE: json.dumps(dataclasses.asdict(state))})
            self._report(state)
        except distribute.LOST:
            raise
        except (OSError, tf.errors.OpError) as error:
            whole = _read_state(self.last).epoch if self.last.is_file() else 0
            left = f"Its checkpoint after epoch {whole} is whole" if whole else "There is no checkpoint yet"
            raise OSError(
                f"What epoch {state.epoch} learned could not be written to {self.folder}: {error}. {left}; "
                f"make room there and go on with --resume (in Python resume=True)."
            ) from error

    def close(self, state: State) -> None:
        """At the run's end, whatever ends it."""
        if self._events:
            with contextlib.suppress(OSError, tf.errors.OpError):  # a full disk has been told of already
                self._events.close()
                self._draw(state)

    def _compare(self, had):
        for name in [*self.made_with, *had]:
            if had.get(name) != self.made_with.get(name):
                raise ValueError(
                    f"{self.folder} holds a run of another {name.replace('_', ' ')}, so it cannot be gone on "
                    f"with: the run has {had.get(name)!r}. Received: {self.made_with.get(name)!r}. Give what "
                    f"the run was made with, or another folder (--run)."
                )

    def _last_state(self):
        with self._told_if_not_whole():
            return _read_state(self.last)

    def _restore(self, model, state):
        with self._told_if_not_whole():
            model.load_weights(self.last)
        for variable, seed in zip(_seeds(model), state.seeds, strict=True):
            variable.assign(seed)

    @contextlib.contextmanager
    def _told_if_not_whole(self):
        try:
            yield
        except (ValueError, KeyError, OSError) as error:
            raise ValueError(f"{self.last} is not a whole checkpoint: {error}") from error

    def _make_room(self, model):
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"The run's folder {self.folder} cannot be made: {error.strerror}.") from error
        variables = [*model.variables, *model.optimizer.variables]
        size = sum(4 * math.prod(variable.shape) for variable in variables)  # bytes, float32
        there = sum(path.stat().st_size for path in (self.last, self.best) if path.is_file())
        needed = 3 * size - there  # the last and the best one, and one that is being written
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise OSError(
                f"No room for the run's checkpoints in {self.folder}: they take {needed / 1e6:.0f} MB and "
                f"{free / 1e6:.0f} MB are free. Make room, or name another folder (--run)."
            )

    # --- for a person to look at ---

    def _report(self, state):
        with open(self.folder / ".history.csv", "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["epoch", *state.history])
            rows.writerows(zip(range(1, state.epoch + 1), *state.history.values(), strict=True))
        os.replace(self.folder / ".history.csv", self.folder / "history.csv")
        self._write_events(state, state.epoch - 1)
        if time.monotonic() - self._drawn > DRAW_SECONDS:
            self._draw(state)

    def _draw(self, state):
        if state.history:
            plots.curves(state.history, self.folder / ".curves.png")
            os.replace(self.folder / ".curves.png", self.folder / "curves.png")
            self._drawn = time.monotonic()

    def _start_events(self, state):
        """Anew from the history: the events of epochs that a killed run did not finish are gone."""
        shutil.rmtree(self.folder / "events", ignore_errors=True)
        self._events = tf.summary.create_file_writer(str(self.folder / "events"))
        for epoch in range(state.epoch):
            self._write_events(state, epoch)

    def _write_events(self, state, epoch):
        # tf.summary.scalar is TensorBoard's own and wants it installed; this writes the same
        kind = tf.compat.v1.SummaryMetadata(
            plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
        )
        with self._events.as_default():
            for name, values in state.history.items():
                tf.summary.write(name, tf.constant(values[epoch], tf.float32), step=epoch + 1, metadata=kind)
        self._events.flush()


def check_folder(folder: str | os.PathLike, resume: bool) -> None:
    """Raises where a run cannot be kept there, as far as can be told before there is a model.

    Raises:
        FileExistsError: the folder holds a run, and nobody said to go on with it.
        OSError: it cannot be written to.
    """
    folder = Path(folder)
    if not resume and any((folder / name).is_file() for name in (_FACTS, _LAST)):
        raise FileExistsError(
            f"{folder} holds a run already. Go on with it (--resume, in Python resume=True), or name another "
            f"folder (--run)."
        )
    saving.check_writable(next(path for path in (folder, *folder.absolute().parents) if path.exists()))


def _read_facts(path):
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} does not say what the run was made with ({error}). Put it back as it was, or begin "
            f"another run in another folder (--run)."
        ) from error


def _read_state(path):
    return State(**json.loads(saving.note(path, _STATE)))


def _seeds(model):
    return [variable for variable in model.variables if variable.name == "seed_generator_state"]


def _write(path, text):
    """As a whole or not at all, like the checkpoints."""
    partial = path.with_name(f".{path.name}")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
