"""Checks of arguments, with errors that name the argument, what was expected and what was received."""

from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any


def ints(least: int, **arguments: Any) -> None:
    """Raises ValueError unless every argument is an int of at least `least`."""
    _check(Integral, "an int", least, arguments)


def numbers(least: float, **arguments: Any) -> None:
    """Raises ValueError unless every argument is a number of at least `least`."""
    _check(Real, "a number", least, arguments)


def among(known: Iterable[str], **arguments: Iterable[str]) -> None:
    """Raises ValueError if an argument has a name that is not known."""
    known = tuple(known)
    for argument, names in arguments.items():
        if unknown := sorted(set(names) - set(known)):
            raise ValueError(
                f"Expected {argument} to be among {', '.join(map(repr, known))}. Received: {argument} with "
                f"{', '.join(map(repr, unknown))}"
            )


def dataset(batches: Any, *fields: str) -> dict[str, Any]:
    """The element spec of a dataset of dictionaries. Raises ValueError unless it has these fields."""
    spec = getattr(batches, "element_spec", batches)
    if not isinstance(spec, dict) or not spec.keys() >= set(fields):
        received = spec if isinstance(spec, dict | tuple | None) else type(batches).__name__
        raise ValueError(
            f"Expected dataset to be batches of {{{', '.join(fields)}}}, as data(...).test; train and "
            f"validation are for fit. Received: dataset={received}"
        )
    return spec


def not_empty(results: list) -> None:
    """Raises ValueError if there is no result, since a dataset has no batch."""
    if not results:
        raise ValueError("Expected dataset to have at least one batch. Received: dataset without any")


def images(batches: Any, image_size: int) -> None:
    """Raises ValueError unless a dataset has images of this size, with captions."""
    shape = tuple(dataset(batches, "image", "captions")["image"].shape[1:3])
    if shape != (image_size, image_size):
        raise ValueError(
            f"Expected dataset to have images of the model's size, image_size={image_size}. Make it with "
            f"data(..., **predictor.data_options). Received: images of {shape}"
        )


def _check(kind, called, least, arguments):
    for name, value in arguments.items():
        # True is an int in Python, but not meant as 1
        if isinstance(value, bool) or not isinstance(value, kind) or not value >= least:
            raise ValueError(f"Expected {name} to be {called} of at least {least}. Received: {name}={value!r}")
