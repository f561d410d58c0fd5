"""Optimizers and learning rates."""

import keras
from keras import ops

from mmkeras._utils import checks, kernels


def compile(model: keras.Model, optimizer: keras.optimizers.Optimizer, **options) -> None:
    """Compiles a model and builds its optimizer, without which TensorFlow would trace the first step twice.

    Args:
        model: keras.Model. Built.
        optimizer: Optimizer.
        **options: Other arguments of `model.compile`.
    """
    model.compile(optimizer, **options)
    model.optimizer.build(model.trainable_variables)  # not the argument: float16 wraps it


def adam(
    learning_rate: float, decay_steps: int | None, weight_decay: float = 0.0
) -> keras.optimizers.Optimizer:
    """Adam with gradient clipping by global norm, for every task.

    Args:
        learning_rate: float. Initial learning rate.
        decay_steps: int, optional. Steps of the cosine decay to a fiftieth. None: constant.
        weight_decay: float. Decoupled weight decay. Defaults to 0.
    """
    rate = cosine_decay(learning_rate, decay_steps)
    return Adam(rate, global_clipnorm=5.0, weight_decay=weight_decay or None)


@keras.saving.register_keras_serializable("mmkeras")
class Adam(keras.optimizers.Adam):
    """Keras's Adam. One replica trains on TensorFlow with its fused kernel, which shortens the first step."""

    def update_step(self, gradient, variable, learning_rate):
        is_fusible = keras.backend.backend() == "tensorflow" and not self.amsgrad
        if not is_fusible or self._distribution_strategy.num_replicas_in_sync > 1:
            return super().update_step(gradient, variable, learning_rate)
        index = self._get_variable_index(variable)
        moments = self._momentums[index], self._velocities[index]
        rates = learning_rate, self.beta_1, self.beta_2, self.epsilon
        kernels.adam(variable, gradient, *moments, self.iterations + 1, *rates)


@keras.saving.register_keras_serializable("mmkeras")
class AveragedAdam(Adam):
    """Adam that replaces the weights by their exponential moving averages when `fit` ends.

    Like Keras's `use_ema`, which on JAX leaves weight and average in one array: the next prediction donates it,
    and saving or further training finds it deleted (Keras 3.15). Here the weight is a copy.

    Args:
        learning_rate: float or schedule. Defaults to 1e-3.
        momentum: float. Momentum of the averages. Defaults to 0.99.
        **kwargs: Other arguments of Adam.
    """

    def __init__(self, learning_rate=1e-3, momentum: float = 0.99, **kwargs):
        super().__init__(learning_rate, **{"ema_momentum": momentum, **kwargs, "use_ema": True})

    def finalize_variable_values(self, var_list):
        super().finalize_variable_values(var_list)
        for variable in var_list:
            variable.assign(ops.copy(variable))


def check_schedule(learning_rate: float, decay_steps: int | None) -> None:
    """Raises ValueError for arguments that `cosine_decay` cannot take."""
    checks.numbers(0, learning_rate=learning_rate)
    if decay_steps is not None:
        checks.ints(1, decay_steps=decay_steps)


def cosine_decay(learning_rate: float, decay_steps: int | None):
    """A learning rate that decays to a fiftieth along a cosine; constant without `decay_steps`."""
    if not decay_steps:
        return learning_rate
    return keras.optimizers.schedules.CosineDecay(learning_rate, decay_steps, alpha=0.02)
