"""Questions about the toy world as a TensorFlow Dataset: images of two things, questions and answers."""

import os

import numpy as np
import tensorflow_datasets as tfds

from mmkeras._utils import prepare, progress
from mmkeras.toy import builders, render, scene
from mmkeras.visual_question_answering import questions

CHANGED = "test_changed_prior"  # the images of `test` with other questions


class QuestionConfig(tfds.core.BuilderConfig):
    """Questions in one language about images of `image_size` pixels."""

    def __init__(self, language: str = "en", image_size: int = 64):
        self.language, self.image_size = language, image_size
        super().__init__(name=f"{language}_{image_size}px")


class ToyQuestions(tfds.core.GeneratorBasedBuilder):
    """Scenes of two things, several questions about each, and the answers."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [QuestionConfig(language) for language in scene.LANGUAGES]  # noqa: RUF012 (TFDS expects a list)

    def _info(self) -> tfds.core.DatasetInfo:
        size, texts = self.builder_config.image_size, tfds.features.Sequence(tfds.features.Text())
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            license="Apache-2.0",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(size, size, 3)),
                    "questions": texts,
                    "answers": texts,
                    "index": tfds.features.Scalar(np.int64),  # of the scene
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in (*builders.EXAMPLES, CHANGED)}

    def _generate_examples(self, split):
        language, size = self.builder_config.language, self.builder_config.image_size
        words, is_changed = questions.answers(language), split == CHANGED
        of_scenes = "test" if is_changed else split
        for index in progress.bar(range(builders.EXAMPLES[of_scenes]), f"toy questions, {split}"):
            sampled = scene.sample(of_scenes, index, objects=2)
            rng = scene.generator(of_scenes, index, "questions", language, *["changed"] * is_changed)
            asked = questions.ask(sampled, rng, is_changed)
            yield (
                index,
                {
                    "image": render.draw(of_scenes, index, size, objects=2),
                    "questions": [scene.pick(rng, questions.texts(question, language)) for question in asked],
                    "answers": [words[questions.answer(question, sampled)] for question in asked],
                    "index": index,
                },
            )


def toy_questions(
    language: str = "en", image_size: int = 64, data_dir: str | os.PathLike | None = None
) -> ToyQuestions:
    """The builder of the questions. Its files are written on first use.

    Args:
        language: str. `"en"` or `"zh"`. Defaults to `"en"`.
        image_size: int. Side in pixels. Defaults to 64.
        data_dir: path, optional. Folder of TFDS's datasets. Defaults to TFDS's own.

    Raises:
        OSError: if the disk is full, or the folder cannot be written to.
    """
    config = QuestionConfig(language, image_size)
    if config.name in ToyQuestions.builder_configs:  # TFDS expects these by name
        config = config.name
    return prepare.generated(lambda: ToyQuestions(config=config, data_dir=data_dir))
