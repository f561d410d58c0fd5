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
| speech recognition | `mmkeras.speech_to_text` | speech → text | 5.2 |
| text to image | `mmkeras.text_to_image` | text → image | 5.3 |

Rooms, none of which knows a task: `data` (vocabulary, tables, sources, pipelines), `media` (images, audio),
`nn` (layers, decoder, spectrogram), `decoding` (search, CTC, generator), `evaluation` (metrics, explanations,
plots), `toy` (the little world that everything can be learned in). `training` is the recipe of `mmkeras train`,
`distribute` is for several devices and machines, `tasks` is the registry.

Submodules load on first use; importing mmkeras itself loads no TensorFlow.
"""

import importlib
import logging
import warnings

__version__ = "0.1.0"

# Keras 3.15 warns whenever `fit` gets a tf.data.Dataset, because of its own default shuffle=True.
warnings.filterwarnings("ignore", message="`shuffle=True` was passed, but will be ignored")
# It cannot know how many batches there are where clips of like length share one, and takes their end for
# an interruption.
warnings.filterwarnings("ignore", message="Your input ran out of data; interrupting training")
# TensorFlow counts the traces of all Keras models together, and so takes a few models for one that retraces.
logging.getLogger("tensorflow").addFilter(
    lambda record: "triggered tf.function retracing" not in record.getMessage()
)
# TFDS warns of its own use of a name that it deprecated, and of a toy world in another size than usual
logging.getLogger("absl").addFilter(
    lambda record: (
        not any(
            noted in record.getMessage()
            for noted in (".dtype` is deprecated", "Using custom data configuration")
        )
    )
)

_SUBMODULES = (
    "captioning", "speech_to_text", "text_to_image", "toy",
    "cli", "data", "decoding", "distribute", "evaluation", "media", "nn", "tasks", "training",
)  # fmt: skip

__all__ = ["captioning", "load", "speech_to_text", "text_to_image", "toy"]


def __getattr__(name: str):
    if name in _SUBMODULES:
        return importlib.import_module(f"mmkeras.{name}")
    if name == "load":
        return importlib.import_module("mmkeras.tasks").load
    raise AttributeError(f"module 'mmkeras' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_SUBMODULES, "load"})
