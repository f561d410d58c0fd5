"""The toy world: coloured shapes at named places, the same scenes in every modality.

- `scene.py`     what is seen: `Scene`, `sample`, `captions` (English and Chinese), `parse` back to a Scene
- `render.py`    how it looks: a Scene as a picture of any size
- `speak.py`     how it sounds: a caption said by one of many voices
- `builders.py`  the world as TensorFlow Datasets, so that toy and real data pass through the same code

Everything is seeded by split and index: the same version gives the same scenes, whoever asks and in
whatever order.
"""
