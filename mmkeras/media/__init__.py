"""Images and sound from anywhere, brought to one form."""

from mmkeras._utils import lazy

__getattr__ = lazy.submodules(__name__, "audio", "images")
