"""What chapter 6 of the document builds: search in images, and an assistant.

`ImageSearch` (6.1) finds images by a text or by another image; its package `image_search` has `build`, `data`
and `evaluate`, as every task. `Assistant` (6.3) answers speech, text and images with text, images and speech,
through the ready-trained models.
"""

from mmkeras.applications import assistant, image_search
from mmkeras.applications.assistant import Assistant
from mmkeras.applications.image_search import ImageSearch

__all__ = ["Assistant", "ImageSearch", "assistant", "image_search"]
