"""Several devices and machines: `strategies.py`, what replicas agree on: `collectives.py`, and Keras's repairs.

The names of `strategies` are here too, loaded on first use: `collectives` is part of graphs, which load no
TensorFlow.
"""

import importlib


def __getattr__(name: str):
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(importlib.import_module("mmkeras.distribute.strategies"), name)
