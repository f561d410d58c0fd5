"""Visual question answering (chapter 8.1): the data.

data = mmkeras.visual_question_answering.data("toy")        # scenes of two things
data = mmkeras.visual_question_answering.data("my/photos")  # a folder with a table: image, question, answer
data = mmkeras.visual_question_answering.data(dataset)      # a dataset of Hugging Face with these columns
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from mmkeras._utils import checks
from mmkeras.data import folder, image_captions, sources, tfds
from mmkeras.data.task_data import Split, TaskData, training_split
from mmkeras.text.vocabulary import Vocabulary

MAX_ANSWERS = 1000  # the most frequent ones (Antol et al. 2015, arXiv:1505.00468)


def data(
    source: Any = "toy",
    *,
    language: str = "en",
    batch_size: int = 32,
    image_size: int | None = None,
    vocabulary: Vocabulary | None = None,
    answers: Sequence[str] | None = None,
    min_count: int | None = None,
    max_size: int = 10_000,
    max_length: int | None = None,
    augment: bool = False,
    seed: int = 0,
    static_shapes: bool = False,
    **options,
) -> TaskData:
    """Images, questions and answers, ready for `model.fit`.

    Args:
        source: str, path or dataset. `"toy"`, a folder of images with a table of questions (columns image,
            question, answer; see `mmkeras.data.tables`), or a dataset (see `mmkeras.data.hugging_face`).
            Defaults to `"toy"`.
        language: str. `"en"` or `"zh"`. Defaults to `"en"`.
        image_size: int. Side in pixels that images are resized to. Defaults to 64 for the toy world, else 224.
        answers: Sequence of str. The answers that a model can give. Default to those of the training split, at
            most the 1,000 most frequent. Another answer teaches a model nothing, and counts as wrong in a test.
        batch_size, vocabulary, min_count, max_size, max_length, augment, seed, static_shapes, **options: As for
            `mmkeras.captioning.data`. Augmentation moves and recolors, so it suits questions about neither.

    Returns:
        `TaskData`, with `data.answers`, and these batches:

        - `train`, `validation`: ({"image", "tokens"}, targets); image (B, size, size, 3) uint8, tokens
          (B, max_length) int32, targets (B, answers) float32, one-hot. Every epoch holds every image once, with
          one of its questions.
        - `test`: {"image", "captions", "answers"}; captions are the questions (B, n) string, padded with "",
          answers (B, n) those to them. The toy world also has `test_unseen`, and `test_changed_prior`, where
          other answers than in training are frequent.

    Raises:
        ValueError: if an argument is invalid, the table is malformed, or no question has an answer.
        FileNotFoundError: if none of the images in the table exists.
    """
    if image_size is None:
        image_size = 64 if source == "toy" else 224
    vocabulary = sources.check_options(language, vocabulary)
    checks.ints(1, image_size=image_size)
    splits = sources.read(
        source,
        {"toy": _toy_questions},
        functools.partial(folder.images_from_folder, kind="questions"),
        language,
        image_size,
        False,
        **options,
    )
    if answers is None:
        answers = training_split(splits).attributes["answer"][:MAX_ANSWERS]
    answers = tuple(answers)

    def to_inputs(batch):
        targets = tf.cast(batch["answers"][:, None] == tf.constant(answers), tf.float32)  # (B, answers)
        return {"image": batch["image"], "tokens": batch["tokens"]}, targets

    read = image_captions.read(
        source,
        to_inputs,
        language=language,
        batch_size=batch_size,
        image_size=image_size,
        vocabulary=vocabulary,
        min_count=min_count,
        max_size=max_size,
        max_length=max_length,
        augment=augment,
        seed=seed,
        static_shapes=static_shapes,
        with_text=("answers",),
        reader=lambda *_, **__: splits,
    )
    return dataclasses.replace(read, extra=read.extra | {"answers": answers})


def _toy_questions(
    source: str, language: str, size: int, crop: bool, *, data_dir: str | None = None
) -> dict[str, Split]:
    """The toy world's questions."""
    from mmkeras.visual_question_answering import builder, questions

    made = builder.toy_questions(language, size, data_dir)

    def to_example(record):
        return {"image": record["image"], "captions": record["questions"], "answers": record["answers"]}

    return tfds.read_splits(
        made,
        {name: name for name in made.info.splits},
        inputs={"image": True, "answers": True},
        text_fields={"questions": True},
        to_example=to_example,
        to_texts=lambda record: record["questions"],
        megabytes=lambda count: count * size**2 * 3 / 2**20,
        attributes={"answer": tuple(questions.answers(language).values())},
        texts_key=language,
    )
