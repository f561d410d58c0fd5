"""What chapter 6 of the document builds: search in images, the understanding of videos, and an assistant.

- `ImageSearch` (6.1) finds images by a text or by another image, see the package `image_search`
- `VideoClassifier` and `VideoCaptioner` (6.2) take videos, see the package `video_understanding`
- `Assistant` (6.3) answers speech, text and images with text, images and speech, see the package `assistant`

The first two packages have `build`, `data` and `evaluate`, as every task.
"""

from mmkeras.applications import assistant, image_search, video_understanding
from mmkeras.applications.assistant import Assistant
from mmkeras.applications.image_search import ImageSearch
from mmkeras.applications.video_understanding import VideoCaptioner, VideoClassifier

__all__ = [
    "Assistant",
    "ImageSearch",
    "VideoCaptioner",
    "VideoClassifier",
    "assistant",
    "image_search",
    "video_understanding",
]
