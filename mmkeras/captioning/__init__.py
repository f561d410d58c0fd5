"""Image captioning (chapter 5.1): image → text.

`build` makes the graph, `data` its pipelines. `Captioner` is the trained model, scored by `evaluate`.
"""

from mmkeras.captioning.datasets import check_pretrained, data, with_features
from mmkeras.captioning.inference import Captioner, evaluate
from mmkeras.captioning.model import CaptioningConfig, build

__all__ = ["Captioner", "CaptioningConfig", "build", "check_pretrained", "data", "evaluate", "with_features"]
