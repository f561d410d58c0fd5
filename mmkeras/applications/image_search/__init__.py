"""Image search (chapter 6.1): text or image → images.

`build` the graph · `data` for it · `ImageSearch`, the trained model with an index of images · `evaluate` ·
`experiment` measures what it learns of emoji, and has the results
"""

from mmkeras._utils import lazy
from mmkeras.applications.image_search.datasets import data
from mmkeras.applications.image_search.inference import ImageSearch, evaluate
from mmkeras.applications.image_search.model import ImageSearchConfig, build
from mmkeras.data.features import check_pretrained, with_features

__all__ = [
    "ImageSearch",
    "ImageSearchConfig",
    "build",
    "check_pretrained",
    "data",
    "evaluate",
    "with_features",
]

__getattr__ = lazy.submodules(__name__)
