"""Scores, explanations and plots."""

from mmkeras._utils import lazy

__getattr__ = lazy.submodules(__name__, "explain", "metrics", "plots")
