"""Several devices and machines: `strategies.py`, sums over replicas in `collectives.py`, fixes in
`keras_patches.py`.

The names of `strategies` load on first use: graphs import `collectives`, and they load no TensorFlow.
"""

import importlib

from mmkeras._utils import lazy

_submodule = lazy.submodules(__name__)


def __getattr__(name: str):
    if name in ("collectives", "keras_patches", "strategies") or name.startswith("_"):
        return _submodule(name)
    return getattr(importlib.import_module("mmkeras.distribute.strategies"), name)
