"""The three methods of chapters 3 and 4 as graphs, on the same scenes.

- `joint_training` (3.2, 4.1): f(X1, X2) = g(h1(X1), h2(X2))
- `cross_modal_pretraining` (3.3, 4.2): f(X1, X2) = g(h(X1), h(X2))
- `modality_translation` (3.4, 4.3): X2 = f(X1)
- `Classifier` predicts with a model of any of them
- `scenes`: the examples of all experiments; `classification`: what the models share
- `experiments`: comparisons of the methods, with shipped results
"""

from mmkeras.methods import (
    classification,
    cross_modal_pretraining,
    experiments,
    joint_training,
    modality_translation,
    scenes,
)
from mmkeras.methods.classification import Classifier

__all__ = [
    "Classifier",
    "classification",
    "cross_modal_pretraining",
    "experiments",
    "joint_training",
    "modality_translation",
    "scenes",
]
