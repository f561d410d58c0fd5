"""An assistant (chapter 6.3): speech, text or an image in; text, an image and speech out.

`Assistant` the dialog · `Reply` its answer · `experiment` measures a round trip through all modalities, and how
reliable the confidence is
"""

from mmkeras._utils import lazy
from mmkeras.applications.assistant.dialog import Assistant, Reply

__all__ = ["Assistant", "Reply"]

__getattr__ = lazy.submodules(__name__)
