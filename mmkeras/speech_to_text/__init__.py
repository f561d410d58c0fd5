"""Speech to text (chapter 5.2): speech → text.

`build` the graph · `data` for it · `Transcriber`, the trained model at work · `evaluate`
"""

from mmkeras._utils import start  # noqa: F401 (first: it keeps TensorFlow's start-up notes off the terminal)
from mmkeras.speech_to_text.datasets import data
from mmkeras.speech_to_text.inference import Transcriber, evaluate
from mmkeras.speech_to_text.model import build

__all__ = ["Transcriber", "build", "data", "evaluate"]
