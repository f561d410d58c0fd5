"""Submodules that load on first use."""

import importlib
from collections.abc import Callable
from types import ModuleType


def submodules(package: str) -> Callable[[str], ModuleType]:
    """A `__getattr__` for the package of that `__name__`, with which `package.name` imports a submodule."""

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
