"""From sources of data to batches: tables, sources, pipelines, cache."""

from mmkeras._utils import lazy

__getattr__ = lazy.submodules(__name__)
