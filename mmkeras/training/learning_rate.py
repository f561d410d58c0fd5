"""The learning rate of a run: a schedule of warm-up and decay, or a rate that the user's callbacks set."""

import keras

# The default warm-up: this share of the run, and at most this many steps.
WARMUP_SHARE, WARMUP_STEPS = 0.05, 1000
# Keras's callbacks that set the learning rate
CALLBACKS = (keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau)


def schedule(optimizer: keras.optimizers.Optimizer, steps: int, warmup_steps: int | None = None) -> None:
    """Gives an optimizer with a constant learning rate a warm-up and a cosine decay.

    Args:
        optimizer: keras.optimizers.Optimizer. Changed in place.
        steps: int. Steps of the run.
        warmup_steps: int. See `train`. Defaults to None.

    Raises:
        ValueError: if the warm-up is not shorter than the run.
    """
    optimizer = inner(optimizer)
    has_schedule = isinstance(keras.optimizers.serialize(optimizer)["config"]["learning_rate"], dict)
    if has_schedule and warmup_steps is None:
        return
    top = peak(optimizer)
    if warmup_steps is None:
        warmup_steps = min(int(WARMUP_SHARE * steps), WARMUP_STEPS)
    if not 0 <= warmup_steps < steps:
        raise ValueError(
            f"Expected warmup_steps to be at least 0 and less than the {steps} steps of the run. "
            f"Received: warmup_steps={warmup_steps}"
        )
    start, target = (0.0, top) if warmup_steps else (top, None)
    optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(
        start, steps - warmup_steps, alpha=0.02, warmup_target=target, warmup_steps=warmup_steps
    )


def make_settable(model: keras.Model) -> None:
    """Replaces a schedule of the model's optimizer by its current rate, which callbacks can then set.

    Keras refuses to set the learning rate of an optimizer that was created with a schedule. The optimizer stays
    the same object, because the model's compile arguments hold it, and keeps its moments.
    """
    optimizer = inner(model.optimizer)
    config = optimizer.get_config()
    if not isinstance(config["learning_rate"], dict):
        return
    values = {variable.path: keras.ops.convert_to_numpy(variable) for variable in optimizer.variables}
    was_built, rate = optimizer.built, float(optimizer.learning_rate)
    optimizer.__init__(**config | {"learning_rate": rate})
    if was_built:
        optimizer.build(model.trainable_variables)
    for variable in optimizer.variables:
        if variable.path in values:
            variable.assign(values[variable.path])
    model.make_train_function(force=True)  # a compiled step holds the schedule


def inner(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer that has the learning rate; float16 wraps it, to scale the loss."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def peak(optimizer: keras.optimizers.Optimizer) -> float:
    """The highest learning rate of a constant or of a schedule of this package."""
    rate = keras.optimizers.serialize(inner(optimizer))["config"]["learning_rate"]
    if not isinstance(rate, dict):
        return rate
    return rate["config"].get("warmup_target") or rate["config"]["initial_learning_rate"]
