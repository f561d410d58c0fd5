"""`Part`: a function of named tensors that a predictor is made of, such as its encoder. Parts are exported."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras


@dataclass(frozen=True)
class Part:
    """A function of named tensors.

    Attributes:
        function: {name: tensor} → {name: tensor}.
        inputs: {name: (shape, dtype)} of its inputs; None for a size that may vary.
        models: The models that it runs.
    """

    function: Callable[[dict[str, Any]], dict[str, Any]]
    inputs: dict[str, tuple[tuple[int | None, ...], str]]
    models: tuple[keras.Model, ...]

    @classmethod
    def of(cls, model: keras.Model, outputs: Sequence[str] = ()) -> "Part":
        """A Functional model, whose inputs have names.

        Args:
            model: keras.Model.
            outputs: Names of its outputs. Default to the model's own.
        """
        names = outputs or model.output_names
        named = keras.Model(
            {tensor.name: tensor for tensor in model.inputs}, dict(zip(names, model.outputs, strict=True))
        )
        return cls(lambda inputs: named(inputs, training=False), inputs_of(model), (named,))

    def __call__(self, *tensors: Any) -> dict[str, Any]:
        """The outputs for the inputs in order."""
        return self.function(dict(zip(self.inputs, tensors, strict=True)))


def inputs_of(model: keras.Model) -> dict[str, tuple[tuple[int | None, ...], str]]:
    """{name: (shape, dtype)} of a model's inputs."""
    return {tensor.name: (tuple(tensor.shape), tensor.dtype) for tensor in model.inputs}
