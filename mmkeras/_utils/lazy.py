"""Submodules that load on first use."""

import importlib
from collections.abc import Callable
from types import ModuleType


def submodules(package: str) -> Callable[[str], ModuleType]:
    """A `__getattr__` for a package, with which `package.name` imports the submodule of that name.

    Args:
        package: str. The package's `__name__`.
    """

    def __getattr__(name):  # noqa: N807
        module = f"{package}.{name}"
        try:
            if not name.startswith("_"):
                return importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:  # a module that the submodule imports
                raise
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return __getattr__
