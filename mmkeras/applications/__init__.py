"""What chapter 6 of the document builds: search in images, and the classification and captioning of videos.

- `ImageSearch` (6.1) finds images by a text or by another image, see the package `image_search`
- `VideoClassifier` and `VideoCaptioner` (6.2) take videos, see the package `video_understanding`

Each package has `build`, `data` and `evaluate`, as every task.
"""

from mmkeras.applications import image_search, video_understanding
from mmkeras.applications.image_search import ImageSearch
from mmkeras.applications.video_understanding import VideoCaptioner, VideoClassifier

__all__ = ["ImageSearch", "VideoCaptioner", "VideoClassifier", "image_search", "video_understanding"]
