"""Training: the recipe of `mmkeras train` in `fit.py`, the checkpoints of a run in `checkpoint.py`, and the
learning rate in `learning_rate.py`."""

from mmkeras.training.fit import PRECISIONS, train, train_task, use_precision
from mmkeras.training.learning_rate import schedule

__all__ = ["PRECISIONS", "schedule", "train", "train_task", "use_precision"]
