"""Text to image (chapter 5.3): text → image.

`build` makes the graph, `data` its pipelines. `ImageGenerator` is the trained model, scored by `evaluate`.
`train_classifier` trains an `AttributeClassifier` of the images (chapter 3.4), scored by `evaluate_classifier`.
"""

from mmkeras.text_to_image.classifier import AttributeClassifier, evaluate_classifier, train_classifier
from mmkeras.text_to_image.datasets import data, labeled
from mmkeras.text_to_image.inference import ImageGenerator, evaluate
from mmkeras.text_to_image.model import TextToImageConfig, build

__all__ = [
    "AttributeClassifier",
    "ImageGenerator",
    "TextToImageConfig",
    "build",
    "data",
    "evaluate",
    "evaluate_classifier",
    "labeled",
    "train_classifier",
]
