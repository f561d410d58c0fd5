"""Video understanding (chapter 6.2): frames, sound and text → classes; frames and sound → text.

`build` and `build_captioner` make the graphs, `data` their pipelines. `VideoClassifier` and `VideoCaptioner`
are the trained models, scored by `evaluate`. `modalities` measures what each modality adds, and has
its results.
"""

from mmkeras._utils import lazy
from mmkeras.applications.video_understanding.datasets import data
from mmkeras.applications.video_understanding.inference import VideoCaptioner, VideoClassifier, evaluate
from mmkeras.applications.video_understanding.model import build, build_captioner
from mmkeras.media.video import Sampling

__all__ = ["Sampling", "VideoCaptioner", "VideoClassifier", "build", "build_captioner", "data", "evaluate"]

__getattr__ = lazy.submodules(__name__)
