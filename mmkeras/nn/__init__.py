"""The parts of the graphs. Keras alone: all of them run on every backend."""

from mmkeras._utils import lazy

__getattr__ = lazy.submodules(__name__)
