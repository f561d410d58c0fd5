"""mmkeras: multimodal models in Keras.

Ready-trained models of the toy world come with the package:

    import mmkeras

    mmkeras.pretrained("captioning")("photo.png")

Every task is used in the same six lines:

    data = mmkeras.captioning.data("toy")
    model = mmkeras.captioning.build("toy", vocabulary=data.vocabulary)
    model.fit(data.train, validation_data=data.validation, epochs=12)
    captioner = mmkeras.captioning.Captioner(model)
    captioner("photo.jpg")
    captioner.save("captioner.keras"); mmkeras.load("captioner.keras")

| task | package | input → output | chapter |
|---|---|---|---|
| captioning | `mmkeras.captioning` | image → text | 5.1 |
| speech recognition | `mmkeras.speech_to_text` | speech → text | 5.2 |
| text to image | `mmkeras.text_to_image` | text → image | 5.3 |
| visual question answering | `mmkeras.visual_question_answering` | image, question → answer | 8.1 |

`methods` has the document's three ways to combine modalities (chapters 3 and 4), and compares them.

Shared by the tasks: `text` (vocabulary), `data` (tables, sources, pipelines), `media` (images, audio, long
clips), `nn` (encoders, layers, decoder, losses), `decoding` (search, CTC, generator), `evaluation` (metrics,
explanations, alignment, plots), `toy` (the toy world), `zoo` (the ready-trained models). `training` is the
recipe of `mmkeras train`, `distribute` is for several devices and machines, `tasks` is the registry.

Submodules load on first use. Importing mmkeras loads no TensorFlow, so import it before Keras: it sets what
TensorFlow reads from the environment when it loads.
"""

import importlib
import os
import pkgutil

from mmkeras._utils import lazy
from mmkeras._version import __version__

# TensorFlow reads it when it loads. Without it TensorFlow prints notes about missing GPUs and at the end of
# each pass over a dataset. Its errors come as Python exceptions all the same.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# oneDNN's kernels. TensorFlow chooses them by itself on newer CPUs only, such as those with AVX-512 VNNI; where
# a CPU has AVX2 alone, a training step takes 0.6 to 0.7 times as long with them.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

__all__ = [
    "__version__",
    "captioning",
    "load",
    "methods",
    "pretrained",
    "quiet",
    "speech_to_text",
    "text_to_image",
    "toy",
]


_submodule = lazy.submodules(__name__)


def __getattr__(name: str):
    if name == "load":
        return _submodule("tasks").load
    if name == "pretrained":
        return _submodule("zoo").pretrained
    if name == "quiet":
        return importlib.import_module("mmkeras._utils.terminal").quiet
    return _submodule(name)


def __dir__() -> list[str]:
    submodules = {module.name for module in pkgutil.iter_modules(__path__) if module.name[0] != "_"}
    return sorted({*globals(), *submodules, "load", "pretrained", "quiet"})
