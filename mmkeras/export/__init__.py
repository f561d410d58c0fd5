"""Trained models in other formats, answered without mmkeras (chapter 7).

    captioner.export("captioner")                        # ONNX, for onnxruntime, a browser, a phone
    captioner.export("captioner", half=True)             # the same with weights of half precision
    captioner.export("captioner", format="saved_model")  # for TensorFlow alone

A folder holds the parts of the model, its vocabulary, a card, and `run.py`: `python run.py photo.png`.
"""

from mmkeras._utils import lazy

__getattr__ = lazy.submodules(__name__)
