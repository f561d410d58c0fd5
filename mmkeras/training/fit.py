"""The one recipe behind `mmkeras train`: plain `model.fit`, and nothing lost.

    training.use_precision()                                           # before the model is built
    training.train(model, data, epochs=10, run="captioner.run")
    training.train(model, data, epochs=10, run="captioner.run", resume=True)    # goes on where it broke off

A run that was killed, at whatever moment, and gone on with ends with the very weights of an undisturbed one, on
the same CPU: `mmkeras.training.checkpoint` keeps model, optimizer and random state after each epoch, and an
epoch's order follows from its number (`mmkeras.data.task_data.epochs`). A GPU adds up in an order of its own,
so there the last digits differ, as they do between two undisturbed runs.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from mmkeras._utils import start  # noqa: F401 (first: it keeps TensorFlow's start-up notes off the terminal)

# isort: split
import keras
import tensorflow as tf

from mmkeras import distribute, tasks
from mmkeras._utils import progress
from mmkeras._utils.presets import with_overrides
from mmkeras.data import cache
from mmkeras.data.task_data import TaskData
from mmkeras.training.checkpoint import Run, State

PRECISIONS = ("auto", "float32", "mixed_float16", "mixed_bfloat16")
# A warm-up of the recipe's own choice: a twentieth of the run, at most so many steps.
WARMUP_SHARE, WARMUP_STEPS = 0.05, 1000


def use_precision(precision: str = "auto") -> str:
    """Sets the precision of the models that are built from now on, and returns its name.

    Args:
        precision: `"float32"`, `"mixed_float16"`, `"mixed_bfloat16"`, or `"auto"`: bfloat16 on a TPU and on
            GPUs that have it, float16 on older ones with tensor cores, float32 elsewhere (Micikevicius et al.
            2018, arXiv:1710.03740).

    Raises:
        ValueError: a precision that nobody knows.
    """
    if precision not in PRECISIONS:
        known = ", ".join(map(repr, PRECISIONS))
        raise ValueError(f"Expected precision to be one of {known}. Received: precision={precision!r}")
    chosen = _of_this_hardware() if precision == "auto" else precision
    keras.config.set_dtype_policy(chosen)
    return chosen


def train(
    model: keras.Model,
    data,
    *,
    epochs: int,
    run: str | os.PathLike | None = None,
    resume: bool = False,
    patience: int | None = None,
    warmup_steps: int | None = None,
    made_with: dict | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    seed: int = 0,
    verbose: str | int = "auto",
) -> dict[str, list[float]]:
    """Trains a compiled model with `model.fit`; a run with a folder can be gone on with.

    The learning rate: an optimizer that has a schedule keeps it, as those of the `"toy"` presets do; a plain
    number is where a linear warm-up leads, followed by a cosine down to a fiftieth at the end of the run.

    Under a tf.distribute strategy the model is built in its scope. Of several workers the chief alone writes,
    and all of them read the run's folder, which they must share.

    Args:
        model: from a task's `build`.
        data: a task's `TaskData`, with `train`, `validation`, `train_from` and `vocabulary`.
        epochs: passes over the data, those before a `resume` included.
        run: the run's folder, see `mmkeras.training.checkpoint`; None: nothing is kept.
        resume: goes on with the run in that folder, from its last whole epoch. Without one there it begins.
        patience: ends the training after so many epochs without a lower validation loss (without validation:
            loss), and the model is that of the best epoch. None: all epochs, and the model is that of the last.
        warmup_steps: over which the learning rate rises from 0. None: none where the optimizer has a schedule,
            else a twentieth of the run and at most 1,000. With a number a schedule of the optimizer's own is
            replaced, too.
        made_with: what else must be the same when the run goes on, such as the preset; JSON-able.
        callbacks: more of them, for `fit`.
        seed: Python's, NumPy's and TensorFlow's random numbers begin anew each epoch, with this and its number.
        verbose: as in `fit`; "auto" is one line per epoch if stdout is no terminal.

    Returns:
        The history of all epochs, those before a `resume` included.

    Raises:
        ValueError: an argument is not as it should be, the data are of another kind than the model (vocabulary,
            image size, sample rate, step length), a batch is smaller than the replicas, or the run was
            made with something else or is not the same for all workers.
        FileExistsError: the folder holds a run, and `resume` was not given.
        OSError: the folder cannot be written to, or the disk is full; the last whole checkpoint stays.
        KeyboardInterrupt: Ctrl-C; its message says how to go on.
    """
    if not isinstance(epochs, int) or epochs < 1:
        raise ValueError(f"Expected epochs to be a positive int. Received: epochs={epochs!r}")
    if patience is not None and (patience < 1 or run is None):
        raise ValueError(
            f"Expected patience to be at least 1, and a run's folder, where the best epoch is kept. "
            f"Received: patience={patience}, run={run!r}"
        )
    if resume and run is None:
        raise ValueError("Expected the folder of the run to go on with. Received: run=None")
    if not model.optimizer:
        raise ValueError(
            "Expected a compiled model, as a task's build returns it. Received: one without optimizer"
        )
    if data.train is None:
        raise ValueError(
            f"Expected data to train on: rows of split 'train' in the table of the source {data.source!r}. "
            f"Received: data.train=None"
        )
    _check_kind(model, data)
    steps = int(data.train.cardinality())
    schedule(model.optimizer, epochs * steps, warmup_steps)
    # which Keras has with its TensorFlow backend alone; the default one does nothing
    strategy = getattr(model, "distribute_strategy", None) or tf.distribute.get_strategy()
    shares = distribute.describe_batch(data.batch_size, strategy)
    if "replicas" in shares and verbose:
        print(f"Batch size {shares}", flush=True)
    with strategy.scope():
        kept = run and Run(run, _facts(model, data, steps, made_with or {}), strategy)
        state = kept.begin(model, resume) if kept else State()
    recording = _Recording(kept, state, patience, seed)
    try:
        if state.epoch < epochs and not state.is_over:
            model.fit(
                data.train_from(state.epoch),
                steps_per_epoch=steps,
                validation_data=data.validation,
                epochs=epochs,
                initial_epoch=state.epoch,
                callbacks=[*callbacks, recording],
                verbose=progress.verbosity(verbose),
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_how_to_go_on(kept, state, epochs)) from None
    finally:
        if kept:
            kept.close(state)
    if patience is not None and state.best_epoch not in (0, state.epoch):
        model.load_weights(kept.best)
    # where an optimizer averages the weights, the averages are what was learned
    model.optimizer.finalize_variable_values(model.trainable_variables)
    return state.history


def _check_kind(model, data):
    """Raises ValueError where the data are of another kind than a model of mmkeras."""
    if model.name not in tasks.ANSWERERS:
        return
    for name, own in tasks.answerer(model).data_options.items():
        given = getattr(data, name)
        if name != "max_length" and given != own:  # of which a model has none
            raise ValueError(
                f"Expected data of the model's {name}, {own!r}. Received: data of {name}={given!r}. Make the "
                f"data with data(..., **answerer.data_options), or build a model for these data."
            )


class _Recording(keras.callbacks.Callback):
    """After each epoch: what it learned is kept, and early stopping decides."""

    def __init__(self, run, state, patience, seed):
        super().__init__()
        self.run, self.state, self.patience, self.seed = run, state, patience, seed

    def on_epoch_begin(self, epoch, logs=None):
        keras.utils.set_random_seed(self.seed + epoch)

    def on_epoch_end(self, epoch, logs=None):
        is_best = self.state.add(logs, self.patience)
        if self.run:
            self.run.keep(self.model, self.state, is_best)
        if self.state.is_over:
            self.model.stop_training = True


def schedule(optimizer: keras.optimizers.Optimizer, steps: int, warmup_steps: int | None = None) -> None:
    """Gives an optimizer with a plain learning rate a warm-up and a decay over `steps`; see `train`.

    Raises:
        ValueError: the warm-up is longer than the run.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # float16 wraps it, to scale the loss
    schedules = keras.optimizers.schedules
    own = keras.optimizers.serialize(optimizer)["config"]["learning_rate"]
    if isinstance(own, dict):
        if warmup_steps is None:
            return
        own = own["config"].get("warmup_target") or own["config"]["initial_learning_rate"]
    if warmup_steps is None:
        warmup_steps = min(int(WARMUP_SHARE * steps), WARMUP_STEPS)
    if not 0 <= warmup_steps < steps:
        raise ValueError(
            f"Expected warmup_steps to be at least 0 and less than the {steps} steps of the run. "
            f"Received: warmup_steps={warmup_steps}"
        )
    first, target = (0.0, own) if warmup_steps else (own, None)
    optimizer.learning_rate = schedules.CosineDecay(
        first, steps - warmup_steps, alpha=0.02, warmup_target=target, warmup_steps=warmup_steps
    )


def _facts(model, data, steps, made_with):
    """What a run is made with; where several differ the first is named."""
    words, optimizer = data.vocabulary, getattr(model.optimizer, "inner_optimizer", model.optimizer)
    config = keras.optimizers.serialize(optimizer)["config"]
    shapes = [list(variable.shape) for variable in model.variables]
    return {
        "task": model.name,
        **made_with,
        "source": data.source,
        "vocabulary": f"{len(words)} {words.unit}s ({cache.digest(*words.words)})",
        "batch_size": data.batch_size,
        "number of steps": steps,
        "precision": keras.config.dtype_policy().name,
        "model": f"{model.count_params()} parameters ({cache.digest(shapes)})",
        **{f"optimizer's {name}": json.loads(json.dumps(v)) for name, v in config.items() if name != "name"},
    }


def _of_this_hardware():
    if keras.backend.backend() == "tensorflow":
        if tf.config.list_logical_devices("TPU"):
            return "mixed_bfloat16"
        gpus = tf.config.list_physical_devices("GPU")
        versions = [tf.config.experimental.get_device_details(gpu).get("compute_capability") for gpu in gpus]
        if not versions or None in versions or min(versions) < (7, 0):
            return "float32"
        return "mixed_bfloat16" if min(versions) >= (8, 0) else "mixed_float16"
    if keras.backend.backend() == "jax":
        import jax

        return "float32" if jax.default_backend() == "cpu" else "mixed_bfloat16"
    import torch

    return "mixed_bfloat16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "float32"


def _how_to_go_on(run, state, epochs):
    if not run:
        return f"Stopped in epoch {state.epoch + 1} of {epochs}."
    left = f"holds what was learned up to epoch {state.epoch}" if state.epoch else "holds no whole epoch yet"
    return (
        f"Stopped in epoch {state.epoch + 1} of {epochs}. {run.folder} {left}: the same command with --resume "
        f"(in Python resume=True) goes on."
    )


# --- from a task's name to a trained model ---


def train_task(
    task: str,
    source: str | os.PathLike = "toy",
    *,
    preset: str | None = None,
    language: str = "en",
    epochs: int | None = None,
    batch_size: int | None = None,
    precision: str = "auto",
    strategy: tf.distribute.Strategy | None = None,
    unit: str | None = None,
    data_options: Mapping[str, Any] | None = None,
    run: str | os.PathLike | None = None,
    resume: bool = False,
    patience: int | None = None,
    warmup_steps: int | None = None,
    verbose: str | int = "auto",
    **overrides,
) -> tuple[Any, TaskData]:
    """Data, model and training of a task, all that `mmkeras train` does but for the command line.

    Several workers prepare the data one after another. A frozen encoder's features are computed once. Training
    on real images with an encoder that fell back to random weights is refused.

    Args:
        task: str. `"captioning"`, `"speech_to_text"` or `"text_to_image"`.
        source: str or path. The source of the task's `data`. Defaults to `"toy"`.
        preset: str. The preset of the task's `build`. Defaults to `"toy"` for the toy world, else `"document"`.
        language: str. `"en"` or `"zh"`. Defaults to `"en"`.
        epochs: int. Defaults to what the toy world takes.
        batch_size: int. Defaults to the task's own.
        precision: str. See `use_precision`. Defaults to `"auto"`.
        strategy: From `mmkeras.distribute.strategy`. Defaults to one device.
        unit: str. Unit of the tokens of speech_to_text. Defaults to the source's own.
        data_options: Other options of the task's `data`, such as `table` or `max_seconds`. Default to none.
        run, resume, patience, warmup_steps, verbose: As for `train`.
        **overrides: Options of the task's `build`.

    Returns:
        What answers with the trained model, and its data.

    Raises:
        ValueError, TypeError: if an argument is invalid or an option unknown.
        FileExistsError, OSError, KeyboardInterrupt: As for `train`.
    """
    registered = tasks.get(task)
    package = registered.load()
    preset = preset or ("toy" if source == "toy" else "document")
    strategy = strategy or tf.distribute.get_strategy()
    use_precision(precision)
    made_with = {"preset": preset, "language": language, "options": overrides | {"unit": unit}}
    made_with["data options"] = dict(data_options or {})
    options = {"unit": unit, "batch_size": batch_size}
    options = {name: value for name, value in options.items() if value is not None} | dict(data_options or {})
    options["static_shapes"] = distribute.wants_static_shapes(strategy)
    if "image_size" in registered.options:
        sizes = {name: value for name, value in overrides.items() if name not in ("weights", "adversarial")}
        options["image_size"] = with_overrides(package.model.PRESETS, preset, sizes)["image_size"]
    with distribute.chief_first(strategy):
        data = package.data(source, language=language, **options)
    keras.utils.set_random_seed(0)  # after the data, which draw numbers when they are made for the first time
    with strategy.scope():
        model = package.build(preset, vocabulary=data.vocabulary, **overrides)
    if hasattr(package, "with_features"):
        package.refuse_fallback(data, model)
        with distribute.chief_first(strategy):
            data = package.with_features(data, model)
    train(
        model,
        data,
        epochs=epochs or registered.epochs,
        run=run,
        resume=resume,
        patience=patience,
        warmup_steps=warmup_steps,
        made_with=made_with,
        verbose=verbose,
    )
    return tasks.answerer(model), data
