"""Reading images and audio, and splitting long clips."""

from mmkeras._utils import lazy

__getattr__ = lazy.submodules(__name__)
