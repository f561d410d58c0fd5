"""Submodules that load on first use."""

import importlib
from collections.abc import Callable
from types import ModuleType


def submodules(package: str, *names: str) -> Callable[[str], ModuleType]:
    """A `__getattr__` for a package, with which `package.name` imports the submodule.

    Args:
        package: str. The package's `__name__`.
        *names: str. Its submodules.
    """

    def __getattr__(name):  # noqa: N807
        if name in names:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return __getattr__
