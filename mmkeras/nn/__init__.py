"""What the graphs are made of. Keras alone: everything here runs on every backend."""

from mmkeras._utils import lazy

__getattr__ = lazy.submodules(__name__)
