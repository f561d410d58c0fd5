"""mmkeras: multimodal models in Keras.

Every task is used in the same six lines:

    import mmkeras

    data = mmkeras.captioning.data("toy")
    model = mmkeras.captioning.build("toy", vocabulary=data.vocabulary)
    model.fit(data.train, validation_data=data.validation, epochs=6)
    captioner = mmkeras.captioning.Captioner(model)
    captioner("photo.jpg")
    captioner.save("captioner.keras"); mmkeras.load("captioner.keras")

| task | package | input → output | chapter |
|---|---|---|---|
| captioning | `mmkeras.captioning` | image → text | 5.1 |

Bricks, none of which knows a task: `vocabulary`, `images`, `tables`, `cache`, `layers`, `decoding`, `metrics`,
`saving`, `explain`, `plots`. `toy` is the little world that everything can be learned in.

Submodules load on first use; importing mmkeras itself loads no TensorFlow.
"""

import contextlib
import importlib
import logging
import os
import sys
import warnings

__version__ = "0.1.0"

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's notes on its build and on missing GPUs
# Keras 3.15 warns whenever `fit` gets a tf.data.Dataset, because of its own default shuffle=True.
warnings.filterwarnings("ignore", message="`shuffle=True` was passed, but will be ignored")
# TensorFlow counts the traces of all Keras models together, and so takes a few models for one that retraces.
logging.getLogger("tensorflow").addFilter(lambda r: "triggered tf.function retracing" not in r.getMessage())

_SUBMODULES = (
    "captioning", "toy", "cache", "decoding", "explain", "images", "layers", "metrics", "plots", "saving",
    "tables", "vocabulary",
)  # fmt: skip

__all__ = ["captioning", "load", "toy"]


def __getattr__(name: str):
    if name in _SUBMODULES:
        with _without_start_up_notes():
            return importlib.import_module(f"mmkeras.{name}")
    if name == "load":
        return __getattr__("saving").load
    raise AttributeError(f"module 'mmkeras' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_SUBMODULES, "load"})


@contextlib.contextmanager
def _without_start_up_notes():
    """Keeps off the terminal what TensorFlow's C++ side writes while it loads, before it reads
    TF_CPP_MIN_LOG_LEVEL. What goes wrong comes as a Python exception all the same."""
    if "tensorflow" in sys.modules:
        yield
        return
    sys.stderr.flush()
    terminal, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(nowhere)
