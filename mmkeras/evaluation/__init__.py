"""Scores, explanations, alignment and plots."""

from mmkeras._utils import lazy

__getattr__ = lazy.submodules(__name__)
