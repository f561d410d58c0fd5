"""Several devices and machines: `strategies.py`, sums over replicas in `collectives.py`, fixes in
`keras_patches.py`.

The names of `strategies` load on first use: graphs import `collectives`, and they load no TensorFlow.
"""

import importlib


def __getattr__(name: str):
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(importlib.import_module("mmkeras.distribute.strategies"), name)
