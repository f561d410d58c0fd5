"""Training: the recipe of `mmkeras train` in `fit.py`, and the checkpoints of a run in `checkpoint.py`."""

from mmkeras.training.fit import PRECISIONS, schedule, train, train_task, use_precision

__all__ = ["PRECISIONS", "schedule", "train", "train_task", "use_precision"]
