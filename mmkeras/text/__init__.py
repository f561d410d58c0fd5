"""Text as token ids: the vocabulary."""

from mmkeras._utils import lazy

__getattr__ = lazy.submodules(__name__)
