"""Checks of arguments: the error names the one that is wrong, what was expected and what came."""

from numbers import Integral, Real
from typing import Any


def ints(least: int, **arguments: Any) -> None:
    """Raises ValueError where an argument is not an int of at least `least`."""
    _check(Integral, "an int", least, arguments)


def numbers(least: float, **arguments: Any) -> None:
    """Raises ValueError where an argument is not a number of at least `least`."""
    _check(Real, "a number", least, arguments)


def _check(kind, called, least, arguments):
    for name, value in arguments.items():
        # Python takes True for 1; who gives it means something else
        if isinstance(value, bool) or not isinstance(value, kind) or not value >= least:
            raise ValueError(f"Expected {name} to be {called} of at least {least}. Received: {name}={value!r}")
