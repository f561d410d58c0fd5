"""What chapter 6 of the document builds: search in images by text and by image.

`ImageSearch` (6.1) finds images by a text or by another image; its package `image_search` has `build`, `data`
and `evaluate`, as every task.
"""

from mmkeras.applications import image_search
from mmkeras.applications.image_search import ImageSearch

__all__ = ["ImageSearch", "image_search"]
