"""Text to image (chapter 5.3): text → image.

`build` the graph · `data` for it · `Painter`, the trained model at work · `evaluate` · `train_judge`, the
classifier that reads the pictures (chapter 3.4)
"""

from mmkeras._utils import start  # noqa: F401 (first: it keeps TensorFlow's start-up notes off the terminal)
from mmkeras.text_to_image.classifier import Judge, evaluate_judge, train_judge
from mmkeras.text_to_image.datasets import data, labeled
from mmkeras.text_to_image.inference import Painter, evaluate
from mmkeras.text_to_image.model import build

__all__ = ["Judge", "Painter", "build", "data", "evaluate", "evaluate_judge", "labeled", "train_judge"]
