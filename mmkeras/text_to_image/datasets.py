"""Text to image (chapter 5.3): the data.

    data = mmkeras.text_to_image.data("toy")                  # the toy world
    data = mmkeras.text_to_image.data("oxford_flowers102")    # labels put into words
    data = mmkeras.text_to_image.data("my/photos")            # a folder with a table of captions

The sources are those of captioning. Here the caption is the input and the image the output.
"""

from typing import Any

import tensorflow as tf

from mmkeras.data import image_captions, pipeline
from mmkeras.data.task_data import TaskData
from mmkeras.text.vocabulary import Vocabulary
from mmkeras.text_to_image.model import check_image_size


def data(
    source: Any = "toy",
    *,
    language: str = "en",
    batch_size: int = 16,
    image_size: int = 64,
    vocabulary: Vocabulary | None = None,
    min_count: int | None = None,
    max_size: int = 10_000,
    max_length: int | None = None,
    augment: bool = False,
    seed: int = 0,
    static_shapes: bool = False,
    **options,
) -> TaskData:
    """Captions and images, ready for `model.fit`.

    Images are cropped to the square in the middle and resized once. A split that does not fit into memory is
    cached on disk.

    Args:
        source: str or path. `"toy"`; `"emoji"`; `"coco_captions"` (37.6 GiB are downloaded on first use);
            `"oxford_flowers102"`, `"mnist"` or `"cifar10"`, with captions made from their labels; a folder of
            images with a table of captions (see `mmkeras.data.tables`); or a dataset (see
            `mmkeras.data.hugging_face`). Defaults to `"toy"`.
        batch_size: int. Images per step, over all devices, at least 2. Defaults to 16.
        image_size: int. Side in pixels, a power of two from 16 to 256. Defaults to 64.
        language, vocabulary, min_count, max_size, max_length, augment, seed, static_shapes, **options: As for
            `mmkeras.captioning.data`.

    Returns:
        `TaskData` with these batches:

        - `train`, `validation`: ({"tokens"}, image); tokens (B, T) int32 with <start> and <end>, image
          (B, size, size, 3) float32 in 0..1.
        - `test`, `test_unseen`: as for captioning, with images (B, size, size, 3) uint8.

        `attributes` are the labels, each with the names of its classes.

    Raises:
        ValueError, FileNotFoundError: as for captioning, and if there is only one image.
    """
    if not isinstance(batch_size, int) or batch_size < 2:
        raise ValueError(
            f"Expected batch_size to be an int of at least 2, since the discriminator compares an image with "
            f"another one's caption. Received: batch_size={batch_size!r}"
        )
    check_image_size(image_size)

    def to_inputs(batch):
        return {"tokens": batch["tokens"]}, tf.cast(batch["image"], tf.float32) / 255

    data = image_captions.read(
        source,
        to_inputs,
        language=language,
        batch_size=batch_size,
        image_size=image_size,
        crop=True,
        vocabulary=vocabulary,
        min_count=min_count,
        max_size=max_size,
        max_length=max_length,
        augment=augment,
        seed=seed,
        static_shapes=static_shapes,
        **options,
    )
    if "train" in data.splits and (count := data.splits["train"].count) < 2:
        raise ValueError(
            f"Expected at least 2 images to train on; from one alone a model learns to generate that one "
            f"for any caption. Received: {count} in {data.source!r}"
        )
    return data


def labeled(data: TaskData, split: str = "train") -> tf.data.Dataset:
    """Images with their labels, for a classifier.

    Args:
        data: From `data`, of a source with labels.
        split: str. Name of the split; `"train"` is shuffled. Defaults to `"train"`.

    Returns:
        Dataset of batches (image (B, size, size, 3) uint8, {attribute: (B,) int64}).

    Raises:
        ValueError: if the source has no labels or no such split.
    """
    if split not in data.splits or not data.attributes:
        available = ", ".join(data.splits) if data.attributes else "no labels"
        raise ValueError(
            f"Expected split to be one of those with labels. Received: split={split!r}, source {data.source!r} "
            f"with {available}"
        )
    examples = data.splits[split]
    dataset = examples.cached_examples().map(lambda example: (example["image"], example["labels"]))
    if split == "train":
        dataset = pipeline.shuffled(dataset, examples, seed=0)
    return dataset.batch(data.batch_size).prefetch(tf.data.AUTOTUNE)
