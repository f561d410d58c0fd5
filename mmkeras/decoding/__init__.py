"""Decoding of sequences: search over any model, CTC, and the compiled generator."""

from mmkeras._utils import lazy

__getattr__ = lazy.submodules(__name__)
