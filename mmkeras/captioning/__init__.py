"""Image captioning (chapter 5.1): image → text.

`build` makes the graph, `data` its pipelines. `Captioner` is the trained model, scored by `evaluate`.
"""

from mmkeras.captioning.datasets import data
from mmkeras.captioning.inference import Captioner, evaluate
from mmkeras.captioning.model import CaptioningConfig, build
from mmkeras.data.features import check_pretrained, with_features

__all__ = ["Captioner", "CaptioningConfig", "build", "check_pretrained", "data", "evaluate", "with_features"]
