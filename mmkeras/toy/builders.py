"""The toy world as TensorFlow Datasets, so that toy and real data pass through the same code.

    toy_images().as_dataset(split="train")       # draws the images on first use, then reads them
    toy_speech("zh").as_dataset(split="test")    # the same scenes as speech

Like every TFDS dataset they are stored in `~/tensorflow_datasets` (or TFDS_DATA_DIR, or `data_dir`).
"""

import dataclasses
import os

import numpy as np
import tensorflow_datasets as tfds

from mmkeras._utils import prepare, progress
from mmkeras.toy import motion, render, scene, speak, syllables

# Scenes of each split: enough to learn the toy world in minutes on two cores; one image of a test split counts
# for 0.2 %.
EXAMPLES = {"train": 4000, "validation": 250, "test": 500, "test_unseen": 500}
VIDEO_EXAMPLES = {"train": 2000, "validation": 200, "test": 500, "test_unseen": 500}


class ToyConfig(tfds.core.BuilderConfig):
    """Images of `image_size` pixels that show `objects` things (1 or 2)."""

    def __init__(self, image_size: int = 64, objects: int = 1):
        if objects not in (1, 2):
            raise ValueError(f"Expected objects to be 1 or 2. Received: objects={objects!r}")
        self.image_size, self.objects = image_size, objects
        super().__init__(name=f"{image_size}px" + "_pairs" * (objects == 2))


class ToyImages(tfds.core.GeneratorBasedBuilder):
    """Colored shapes at named places, with every phrasing of their captions in two languages."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [ToyConfig(64), ToyConfig(64, objects=2)]  # noqa: RUF012 (TFDS expects a list)

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.image_size
        thing = {
            "size": tfds.features.ClassLabel(names=scene.SIZES),
            "color": tfds.features.ClassLabel(names=scene.COLORS),
            "shape": tfds.features.ClassLabel(names=scene.SHAPES),
            "place": tfds.features.ClassLabel(names=[*scene.PLACES, "by relation"]),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            license="Apache-2.0",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(size, size, 3)),
                    "captions": {
                        language: tfds.features.Sequence(tfds.features.Text()) for language in scene.LANGUAGES
                    },
                    "things": tfds.features.Sequence(thing),
                    "relation": tfds.features.ClassLabel(names=[*scene.RELATIONS, "none"]),
                    "index": tfds.features.Scalar(np.int64),  # of the scene, shared by all modalities
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in EXAMPLES}

    def _generate_examples(self, split):
        config = self.builder_config
        for index in progress.bar(range(EXAMPLES[split]), f"toy images, {split}"):
            sampled = scene.sample(split, index, config.objects)
            yield (
                index,
                {
                    "image": render.draw(split, index, config.image_size, config.objects),
                    "captions": {lang: scene.captions(sampled, lang) for lang in scene.LANGUAGES},
                    "things": [
                        {
                            "size": thing.size,
                            "color": thing.color,
                            "shape": thing.shape,
                            "place": thing.place or "by relation",
                        }
                        for thing in sampled.things
                    ],
                    "relation": sampled.relation or "none",
                    "index": index,
                },
            )


class ToySpeech(tfds.core.GeneratorBasedBuilder):
    """The scenes of the toy images, one caption of each spoken by one of many voices, without noise.

    With `-syllables` in the name every other clip of `train` is joined from single syllables.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012 (TFDS expects a list)
        tfds.core.BuilderConfig(name=language + joined)
        for joined in ("", "-syllables")
        for language in scene.LANGUAGES
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            license="Apache-2.0",
            features=tfds.features.FeaturesDict(
                {
                    # 16 kHz. As tfds.features.Audio, TFDS would store a sample in ten bytes.
                    "audio": tfds.features.Tensor(
                        shape=(None,), dtype=np.int16, encoding=tfds.features.Encoding.BYTES
                    ),
                    "caption": tfds.features.Text(),
                    "voice": tfds.features.Text(),
                    "index": tfds.features.Scalar(np.int64),  # of the scene, shared by all modalities
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in EXAMPLES}

    def _generate_examples(self, split):
        language, _, joined = self.builder_config.name.partition("-")
        captions = [speak.caption(split, index, language) for index in range(EXAMPLES[split])]
        voices = [speak.voice(split, index, language) for index in range(EXAMPLES[split])]
        clips = speak.speak_all(zip(captions, voices, range(EXAMPLES[split]), strict=True))
        clips = progress.bar(clips, f"toy speech, {split}", EXAMPLES[split])
        of_syllables = syllables.spoken(list(enumerate(captions))[1::2], language)
        for index, samples in enumerate(clips):
            if joined and split == "train" and index % 2:
                samples = next(of_syllables)
            facts = {"caption": captions[index], "voice": voices[index].name, "index": index}
            yield index, {"audio": samples} | facts


class ToyVideos(tfds.core.GeneratorBasedBuilder):
    """A shape that moves, a sound in time with it, and a sentence that tells of some of it."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        zlib, size, text = tfds.features.Encoding.ZLIB, motion.IMAGE_SIZE, tfds.features.Text()
        samples = round(motion.SECONDS * motion.SAMPLE_RATE_HZ)
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            license="Apache-2.0",
            features=tfds.features.FeaturesDict(
                {
                    "frames": tfds.features.Tensor(
                        shape=(motion.FRAMES, size, size, 3), dtype=np.uint8, encoding=zlib
                    ),
                    "sound": tfds.features.Tensor(shape=(samples,), dtype=np.int16, encoding=zlib),
                    # what one can see and hear
                    "captions": {language: tfds.features.Sequence(text) for language in scene.LANGUAGES},
                    # what somebody tells
                    "sentence": dict.fromkeys(scene.LANGUAGES, text),
                    "labels": {
                        name: tfds.features.ClassLabel(names=names) for name, names in motion.ATTRIBUTES.items()
                    },
                    "index": tfds.features.Scalar(np.int64),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in VIDEO_EXAMPLES}

    def _generate_examples(self, split):
        for index in progress.bar(range(VIDEO_EXAMPLES[split]), f"toy videos, {split}"):
            frames, sound = motion.film(split, index)
            seen = motion.visible(split, index)
            yield (
                index,
                {
                    "frames": frames,
                    "sound": sound,
                    "captions": {lang: motion.captions(seen, lang) for lang in scene.LANGUAGES},
                    "sentence": {lang: motion.sentence(split, index, lang) for lang in scene.LANGUAGES},
                    "labels": dataclasses.asdict(motion.sample(split, index)),
                    "index": index,
                },
            )


def toy_images(image_size: int = 64, objects: int = 1, data_dir: str | os.PathLike | None = None) -> ToyImages:
    """The builder of the toy images. Their files are written on first use.

    Args:
        image_size: int. Side in pixels. Defaults to 64.
        objects: int. 1 (a thing at a place) or 2 (two things with a relation). Defaults to 1.
        data_dir: path, optional. Folder of TFDS's datasets. Defaults to TFDS's own.

    Raises:
        ValueError: if `objects` is invalid.
        OSError: if the disk is full, or the folder cannot be written to.
    """
    config = ToyConfig(image_size, objects)
    if config.name in ToyImages.builder_configs:  # TFDS expects these by name
        config = config.name
    return prepare.generated(lambda: ToyImages(config=config, data_dir=data_dir))


def toy_speech(
    language: str = "en", data_dir: str | os.PathLike | None = None, joined: bool = False
) -> ToySpeech:
    """The builder of the toy world's speech. Its files are written on first use.

    Args:
        language: str. `"en"` or `"zh"`. Defaults to `"en"`.
        joined: bool. Whether half of the training clips are joined from single syllables. Defaults to False.
        data_dir: path, optional. As for `toy_images`.

    Raises:
        OSError: as for `toy_images`, and if eSpeak NG is not installed.
    """
    config = f"{language}-syllables" if joined else language
    return prepare.generated(lambda: ToySpeech(config=config, data_dir=data_dir))


def toy_videos(data_dir: str | os.PathLike | None = None) -> ToyVideos:
    """The builder of the toy videos. Its files are written on first use.

    Args:
        data_dir: path, optional. As for `toy_images`.

    Raises:
        OSError: as for `toy_images`.
    """
    return prepare.generated(lambda: ToyVideos(data_dir=data_dir))
