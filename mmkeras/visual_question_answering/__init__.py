"""Visual question answering (chapter 8.1): image, question → answer.

`build` makes the graph, `data` its pipelines. `QuestionAnswerer` is the trained model, scored by `evaluate`.
`questions` has the questions about the toy world.
"""

from mmkeras._utils import lazy
from mmkeras.data.features import check_pretrained, with_features
from mmkeras.visual_question_answering.datasets import data
from mmkeras.visual_question_answering.inference import QuestionAnswerer, evaluate
from mmkeras.visual_question_answering.model import QuestionAnsweringConfig, build

__all__ = [
    "QuestionAnswerer",
    "QuestionAnsweringConfig",
    "build",
    "check_pretrained",
    "data",
    "evaluate",
    "with_features",
]

__getattr__ = lazy.submodules(__name__)
