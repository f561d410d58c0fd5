"""Training: the recipe of `mmkeras train` in `fit.py`, from a task's name to a trained model in `task.py`, the
checkpoints of a run in `checkpoint.py`, the learning rate in `learning_rate.py`, and the reasons why a model
does not learn in `doctor.py`."""

from mmkeras.training.diagnosis import Diagnosis
from mmkeras.training.doctor import diagnose
from mmkeras.training.fit import PRECISIONS, train, use_precision
from mmkeras.training.learning_rate import schedule
from mmkeras.training.task import parse_options, train_task

__all__ = [
    "PRECISIONS",
    "Diagnosis",
    "diagnose",
    "parse_options",
    "schedule",
    "train",
    "train_task",
    "use_precision",
]
