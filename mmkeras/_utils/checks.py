"""Checks of arguments: the error names the one that is wrong, what was expected and what came."""

from numbers import Integral, Real
from typing import Any


def ints(least: int, **arguments: Any) -> None:
    """Raises ValueError where an argument is not an int of at least `least`."""
    _check(Integral, "an int", least, arguments)


def numbers(least: float, **arguments: Any) -> None:
    """Raises ValueError where an argument is not a number of at least `least`."""
    _check(Real, "a number", least, arguments)


def images(dataset: Any, image_size: int) -> None:
    """Raises ValueError where that is no dataset of images with captions, or they have another size."""
    spec = getattr(dataset, "element_spec", dataset)
    if not isinstance(spec, dict) or not {"image", "captions"} <= spec.keys():
        received = spec if isinstance(spec, dict | tuple | None) else type(dataset).__name__
        raise ValueError(
            f"Expected a dataset of images and captions, as data(...).test is; train and validation are for "
            f"fit. Received: dataset={received}"
        )
    shape = tuple(spec["image"].shape[1:3])
    if shape != (image_size, image_size):
        raise ValueError(
            f"Expected images of the model's size, image_size={image_size}. Received: a dataset of images "
            f"{shape}. Make it with data(..., **answerer.data_options)"
        )


def _check(kind, called, least, arguments):
    for name, value in arguments.items():
        # Python takes True for 1; who gives it means something else
        if isinstance(value, bool) or not isinstance(value, kind) or not value >= least:
            raise ValueError(f"Expected {name} to be {called} of at least {least}. Received: {name}={value!r}")
