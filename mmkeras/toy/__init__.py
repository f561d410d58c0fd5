"""The toy world: colored shapes at named places, the same scenes in every modality.

- `scene.py`     `Scene`, `sample`, `captions` (English and Chinese), and `parse`, from a caption to its Scene
- `render.py`    a Scene as an image of any size
- `speak.py`     a caption as speech in one of many voices
- `motion.py`    videos: shapes that move, with sounds in time and sentences that tell of them
- `builders.py`  the toy world as TensorFlow Datasets, so that toy and real data use the same code

Everything is seeded by split and index, so a version always has the same scenes, whatever the
order in which they are made.
"""

from mmkeras._utils import lazy

__getattr__ = lazy.submodules(__name__)
