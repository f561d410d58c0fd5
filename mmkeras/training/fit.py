"""The training recipe of `mmkeras train`: `model.fit`, with checkpoints from which a run resumes exactly.

    training.use_precision()                                           # before the model is built
    training.train(model, data, epochs=10, run="captioner.run")
    training.train(model, data, epochs=10, run="captioner.run", resume=True)    # continues if it was stopped

A run that is killed and resumed ends with the same weights, bit by bit, as an uninterrupted run on the same
CPU: `mmkeras.training.checkpoint` saves the model, the optimizer and the random state after each epoch, and the
order within an epoch depends on its number alone (`mmkeras.data.pipeline.epochs`). On a GPU sums are not
deterministic, so the last digits differ, as they do between two uninterrupted runs.
"""

import os
import random
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mmkeras import distribute, tasks
from mmkeras._utils import progress, terminal
from mmkeras.data import cache
from mmkeras.data.task_data import TaskData
from mmkeras.training import learning_rate
from mmkeras.training.checkpoint import RunState, TrainingRun

PRECISIONS = ("auto", "float32", "mixed_float16", "mixed_bfloat16")


def use_precision(precision: str = "auto") -> str:
    """Sets the precision of models that are built from now on, and returns its name.

    Args:
        precision: str. `"float32"`, `"mixed_float16"`, `"mixed_bfloat16"`, or `"auto"`: bfloat16 on a TPU and
            on GPUs that support it, float16 on older GPUs with tensor cores, otherwise float32 (Micikevicius et
            al. 2018, arXiv:1710.03740). Defaults to `"auto"`.

    Raises:
        ValueError: if the precision is unknown.
    """
    if precision not in PRECISIONS:
        known = ", ".join(map(repr, PRECISIONS))
        raise ValueError(f"Expected precision to be one of {known}. Received: precision={precision!r}")
    chosen = _best_precision() if precision == "auto" else precision
    keras.config.set_dtype_policy(chosen)
    return chosen


def train(
    model: keras.Model,
    data: TaskData,
    *,
    epochs: int,
    run: str | os.PathLike | None = None,
    resume: bool = False,
    patience: int | None = None,
    warmup_steps: int | None = None,
    settings: dict[str, Any] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    seed: int = 0,
    verbose: str | int = "auto",
) -> dict[str, list[float]]:
    """Trains a compiled model with `model.fit`. A run with a folder can be resumed.

    An optimizer that has a learning-rate schedule keeps it, as in the `"toy"` presets. A constant learning rate
    becomes the peak of a linear warm-up and a cosine decay to a fiftieth at the end of the run. If one of the
    callbacks is a `LearningRateScheduler` or a `ReduceLROnPlateau`, it alone sets the learning rate: there is
    no warm-up, and a schedule is replaced by its current value.

    Under a strategy of tf.distribute, build the model in its scope. Several workers must share the folder.

    Args:
        model: keras.Model. From the `build` of a task.
        data: TaskData. From the `data` of the task.
        epochs: int. Passes over the data, including those before `resume`.
        run: path. Folder of the run, see `mmkeras.training.checkpoint`. Defaults to None: nothing is saved.
        resume: bool. Whether to resume the run in that folder after its last complete epoch. An empty folder
            starts a new run. Defaults to False.
        patience: int. Stops after this many epochs without a lower validation loss (training loss without
            validation data) and restores the best epoch. Defaults to None: all epochs, and the weights of the
            last.
        warmup_steps: int. Steps in which the learning rate rises from 0. With a number, a schedule of the
            optimizer is replaced, too. Defaults to None: 0 for an optimizer with a schedule, else a twentieth
            of the run and at most 1,000.
        settings: dict. Other JSON-able values, paths or models that must be the same when the run is resumed,
            such as the preset. Defaults to none.
        callbacks: Further callbacks for `fit`. Their own state is not saved: `ReduceLROnPlateau` counts from 0
            again when a run is resumed. Default to none.
        seed: int. Before each epoch Python, NumPy and the backend are seeded with `seed` plus the number of the
            epoch; TensorFlow only before the first epoch of a `fit`. Keras's layers keep seeds of their own,
            which are saved; a layer that draws from `tf.random` is not the same after `resume`. Defaults to 0.
        verbose: As in `fit`. Defaults to `"auto"`: a bar on a terminal, else one line per epoch.

    Returns:
        The history of all epochs, including those before `resume`.

    Raises:
        ValueError: if an argument is invalid, the data do not fit the model (vocabulary, image size, sample
            rate, step length), a batch is smaller than the number of replicas, or the run cannot be resumed.
        FileExistsError: if the folder holds a run and `resume` is False.
        OSError: if the folder cannot be written to or the disk is full; the last complete checkpoint stays.
        KeyboardInterrupt: on Ctrl-C; the message says how to resume.
    """
    if not isinstance(epochs, int) or epochs < 1:
        raise ValueError(f"Expected epochs to be a positive int. Received: epochs={epochs!r}")
    if patience is not None and (patience < 1 or run is None):
        raise ValueError(
            f"Expected patience to be at least 1, with a run folder for the best epoch. Received: "
            f"patience={patience}, run={run!r}"
        )
    if resume and run is None:
        raise ValueError("Expected run to be the folder of the run to resume. Received: run=None")
    if not getattr(model, "optimizer", None):
        build = tasks.predictor(model).builder.replace("()", "(vocabulary=data.vocabulary)")
        raise ValueError(
            f"Expected model to be compiled, as from a task's build. Received: model.optimizer=None. Train a "
            f"ready-trained model further with the settings of a new one: model.compile_from_config({build}"
            f".get_compile_config()); for CTC or a GAN build it with head='ctc' or adversarial=True."
        )
    if data.train is None:
        raise ValueError(
            f"Expected data with rows of split 'train' in {data.source!r}. Received: data.train=None"
        )
    check_data(model, data)
    steps = int(data.train.cardinality())
    # an attribute of Keras's TensorFlow backend only; the default strategy does nothing
    strategy = getattr(model, "distribute_strategy", None) or tf.distribute.get_strategy()
    if not _sets_rate(callbacks, warmup_steps):
        learning_rate.schedule(model.optimizer, epochs * steps, warmup_steps)
    else:
        with strategy.scope():
            learning_rate.make_settable(model)
    shares = distribute.describe_batch(data.batch_size, strategy)
    if "replicas" in shares and verbose:
        print(f"Batch size {shares}", flush=True)
    with strategy.scope():
        training_run = run and TrainingRun(run, _settings(model, data, steps, settings or {}), strategy)
        state = training_run.begin(model, resume) if training_run else RunState()
    try:
        if state.epoch < epochs and not state.is_over:
            # TensorFlow counts the traces of all Keras models together, as if one model were retraced.
            with terminal.quiet_log("tensorflow", "triggered tf.function retracing"), warnings.catch_warnings():
                # Keras warns at the end of validation data with an unknown number of batches.
                warnings.filterwarnings("ignore", message="Your input ran out of data")
                model.fit(
                    data.train_from(state.epoch),
                    steps_per_epoch=steps,
                    validation_data=data.validation,
                    epochs=epochs,
                    initial_epoch=state.epoch,
                    callbacks=[*callbacks, _Checkpoints(training_run, state, patience, seed)],
                    shuffle=False,  # the dataset shuffles
                    verbose=progress.verbosity(verbose),
                )
        elif verbose:
            print(f"Nothing was trained: {run} is complete after epoch {state.epoch}.", flush=True)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_how_to_resume(training_run, state, epochs)) from None
    except TypeError as error:
        if "LearningRateSchedule" not in str(error):
            raise
        raise TypeError(
            "Expected a callback that sets the learning rate to be a keras.callbacks.LearningRateScheduler or "
            "ReduceLROnPlateau, or a subclass of them: with these, train leaves the learning rate to them. "
            f"Received: callbacks with {', '.join(type(x).__name__ for x in callbacks)}"
        ) from error
    finally:
        if training_run:
            training_run.close(state)
    if patience is not None and state.best_epoch not in (0, state.epoch):
        model.load_weights(training_run.best)
    # an optimizer that averages the weights puts the averages into the model
    model.optimizer.finalize_variable_values(model.trainable_variables)
    return state.history


def _sets_rate(callbacks, warmup_steps):
    """Whether one of the callbacks sets the learning rate. Raises ValueError if there are warm-up steps."""
    setters = [type(x).__name__ for x in callbacks if isinstance(x, learning_rate.CALLBACKS)]
    if setters and warmup_steps is not None:
        raise ValueError(
            f"Expected warmup_steps to be None with a callback that sets the learning rate. Received: "
            f"warmup_steps={warmup_steps}, callbacks with {', '.join(setters)}"
        )
    return bool(setters)


def check_data(model: keras.Model, data: TaskData, ignored: Sequence[str] = ("max_length",)) -> None:
    """Raises ValueError if the data do not fit a model of mmkeras.

    Args:
        model: keras.Model.
        data: TaskData.
        ignored: Names of sizes that may differ. Default to `max_length`: a model takes captions of any length.
    """
    if model.name not in tasks.PREDICTORS:
        return
    for name, expected in tasks.predictor(model).data_options.items():
        received = getattr(data, name, None)
        if name not in ignored and received != expected:
            raise ValueError(
                f"Expected data of the model's {name}, {expected!r}. Received: data.{name}={received!r}. "
                f"Use data(..., **predictor.data_options), or build a model for these data."
            )


class _Checkpoints(keras.callbacks.Callback):
    """Seeds each epoch, saves it, and stops early."""

    def __init__(self, run, state, patience, seed):
        super().__init__()
        self.run, self.state, self.patience, self.seed = run, state, patience, seed
        self.first = state.epoch

    def on_epoch_begin(self, epoch, logs=None):
        if keras.backend.backend() == "tensorflow" and epoch > self.first:
            # With a new seed TensorFlow would prepare every graph again, for one or two seconds. Layers draw
            # from seeds in variables, which are saved.
            random.seed(self.seed + epoch)
            np.random.seed(self.seed + epoch)
        else:
            keras.utils.set_random_seed(self.seed + epoch)

    def on_epoch_end(self, epoch, logs=None):
        is_best = self.state.add(logs, self.patience)
        if self.run:
            self.run.save(self.model, self.state, is_best)
        if self.state.is_over:
            self.model.stop_training = True


def _settings(model, data, steps, settings):
    """What must be the same when a run is resumed. The first difference is reported."""
    vocabulary, optimizer = data.vocabulary, getattr(model.optimizer, "inner_optimizer", model.optimizer)
    config = keras.optimizers.serialize(optimizer)["config"]
    shapes = [list(variable.shape) for variable in model.variables]
    return {
        "task": model.name,
        **settings,
        "source": data.source,
        "vocabulary": f"{len(vocabulary)} {vocabulary.unit}s ({cache.digest(*vocabulary.words)})",
        "batch_size": data.batch_size,
        "steps": steps,
        "precision": keras.config.dtype_policy().name,
        "model": f"{model.count_params()} parameters ({cache.digest(shapes)})",
        **{f"optimizer.{name}": value for name, value in config.items() if name != "name"},
    }


def _best_precision():
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


def _how_to_resume(run, state, epochs):
    stopped = f"Stopped in epoch {state.epoch + 1} of {epochs}."
    if not run:
        return stopped
    if not state.epoch:
        return f"{stopped} {run.folder} holds no complete epoch yet."
    return (
        f"{stopped} {run.folder} holds epoch {state.epoch}. Resume with the same command and "
        f"--resume (in Python resume=True)."
    )
