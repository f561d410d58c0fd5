"""Image captioning (chapter 5.1): image → text.

`build` the graph · `data` for it · `Captioner`, the trained model at work · `evaluate`
"""

from mmkeras._utils import start  # noqa: F401 (first: it keeps TensorFlow's start-up notes off the terminal)
from mmkeras.captioning.datasets import data, refuse_fallback, with_features
from mmkeras.captioning.inference import Captioner, evaluate
from mmkeras.captioning.model import build

__all__ = ["Captioner", "build", "data", "evaluate", "refuse_fallback", "with_features"]
