"""Speech to text (chapter 5.2): speech → text.

`build` makes the graph, `data` its pipelines. `Transcriber` is the trained model, scored by `evaluate`.
"""

from mmkeras.speech_to_text.datasets import data
from mmkeras.speech_to_text.inference import Transcriber, evaluate
from mmkeras.speech_to_text.model import SpeechConfig, build

__all__ = ["SpeechConfig", "Transcriber", "build", "data", "evaluate"]
