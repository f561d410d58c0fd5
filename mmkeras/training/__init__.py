"""The training recipe behind `mmkeras train`: `fit.py`, and the checkpoints of a run: `checkpoint.py`."""

from mmkeras.training.fit import PRECISIONS, schedule, train, train_task, use_precision

__all__ = ["PRECISIONS", "schedule", "train", "train_task", "use_precision"]
