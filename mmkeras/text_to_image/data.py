"""Text to image (chapter 5.3): the data.

    data = mmkeras.text_to_image.data("toy")                  # the toy world
    data = mmkeras.text_to_image.data("oxford_flowers102")    # labels, said in words
    data = mmkeras.text_to_image.data("my/photos")            # a folder with a captions table

Captioning's sources turned round: the caption goes in, the picture comes out.
"""

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import tensorflow as tf

from mmkeras import cache, checks, sources
from mmkeras.sources import Split, pictures
from mmkeras.text_to_image.model import check_image_size
from mmkeras.vocabulary import Vocabulary


@dataclass(frozen=True)
class TaskData:
    """Datasets for `fit` and for `evaluate`, and the vocabulary of the training captions.

    - `train`, `validation`: batches of ({"tokens"}, picture) for `model.fit`; tokens (B, T) int32 with <start>
      and <end>, picture (B, size, size, 3) float32 in 0..1. Every epoch takes each picture once, with one of
      its captions.
    - `test` and, in the toy world, `test_unseen`: batches of {"image", "captions"} for
      `mmkeras.text_to_image.evaluate`, image (B, size, size, 3) uint8, captions (B, n) string filled up with
      ""; and where there are labels {"labels": {attribute: (B,) int64}}.

    `attributes` are what the labels tell, each with the names of its classes; without labels it is empty. A
    split that the source lacks is None.
    """

    train: tf.data.Dataset | None
    validation: tf.data.Dataset | None
    test: tf.data.Dataset | None
    test_unseen: tf.data.Dataset | None
    vocabulary: Vocabulary
    attributes: dict[str, tuple[str, ...]]
    source: str
    image_size: int
    max_length: int
    batch_size: int
    _splits: dict[str, Split] = dataclasses.field(repr=False)
    _training: Callable[[int | None], tf.data.Dataset] = dataclasses.field(repr=False)

    def train_from(self, epoch: int) -> tf.data.Dataset:
        """The batches of epoch `epoch` (from 0) and of those that follow it, without end.

        An epoch's order depends on the seed and its number alone, so a run that was broken off can go on.
        """
        return self._training(epoch)

    def labelled(self, split: str = "train") -> tf.data.Dataset:
        """Real pictures with their labels, for a judge: batches of (image, {attribute: (B,) int64}), image
        (B, size, size, 3) uint8.

        Raises:
            ValueError: the source has no labels, or not that split.
        """
        if split not in self._splits or not self.attributes:
            having = ", ".join(self._splits) if self.attributes else "no labels"
            raise ValueError(f"The source {self.source!r} has {having}. Received: split={split!r}")
        examples = self._splits[split]
        dataset = pictures.kept(examples).map(lambda example: (example["image"], example["labels"]))
        if split == "train":
            dataset = pictures.shuffled(dataset, examples, seed=0)
        return dataset.batch(self.batch_size).prefetch(tf.data.AUTOTUNE)


def data(
    source: str | os.PathLike = "toy",
    *,
    language: str = "en",
    batch_size: int = 16,
    image_size: int = 64,
    vocabulary: Vocabulary | None = None,
    min_count: int | None = None,
    max_size: int = 10_000,
    max_length: int | None = None,
    seed: int = 0,
    static_shapes: bool = False,
    service: str | None = None,
    **options,
) -> TaskData:
    """Captions and pictures, ready for `model.fit`.

    Pictures are cut to the square in the middle and scaled once; what does not fit into memory is kept on disk.

    Args:
        source: `"toy"`; `"coco_captions"` (37.6 GiB are fetched on first use); `"oxford_flowers102"`,
            `"mnist"`, `"cifar10"`, with captions made from their labels; or a folder of pictures with a
            captions table (see `mmkeras.tables`).
        language: `"en"` (tokens are words) or `"zh"` (tokens are characters).
        batch_size: pictures a step, over all devices together.
        image_size: side in pixels, a power of two from 16 to 256, the model's.
        vocabulary: None: counted from the training captions. Where it is given, a source without these will do
            for `evaluate`.
        min_count: words seen less often become `<unknown>`; None: 1, for COCO 5.
        max_size: of the vocabulary, special tokens included.
        max_length: tokens a caption, `<start>` and `<end>` included; longer ones are cut. None: as many as 99 %
            of the training captions need.
        seed: of the order and of the choice among a picture's captions.
        static_shapes: every dimension of `train` and `validation` is known, as a TPU wants it: batches are full
            ones alone, and the validation pictures that fill none are left out. `test` stays as it is.
        service: `"grpc://host:port"` of a tf.data service, whose workers then make the training batches, see
            `mmkeras.sources.epochs`. They must reach the dataset's files under the same path.
        options: of the source, as in `mmkeras.captioning.data`.

    Raises:
        ValueError: an argument or the captions table is not as it should be, or there is but one picture.
        FileNotFoundError: of the pictures that the table names none is there.
        OSError: nobody answers at the service's address.
    """
    sources.check_language(language)
    sources.check_service(service)
    if not isinstance(batch_size, int) or batch_size < 2:
        raise ValueError(
            f"Expected batch_size to be at least 2: a picture is told from another one's text. "
            f"Received: batch_size={batch_size!r}"
        )
    checks.ints(0, seed=seed)
    check_image_size(image_size)
    splits = pictures.read(source, language, image_size, crop=True, **options)
    if "train" in splits and (count := splits["train"].count) < 2:
        raise ValueError(
            f"Expected at least 2 pictures to train on: from one alone a model learns to paint that one "
            f"whatever the text. Received: {count} in {str(source)!r}"
        )
    unit = "word" if language == "en" else "character"
    vocabulary, max_length = pictures.words(
        source,
        splits,
        unit,
        vocabulary=vocabulary,
        min_count=min_count,
        max_size=max_size,
        max_length=max_length,
    )

    def finished(batch):
        return {"tokens": batch["tokens"]}, tf.cast(batch["image"], tf.float32) / 255

    for name, split in splits.items():
        if name in ("train", "validation") and split.megabytes > pictures.IN_MEMORY_MB:
            splits[name] = _scaled_once(split, f"{source} {name}", image_size)

    def for_fit(name):
        return pictures.paired(
            splits[name],
            finished,
            vocabulary=vocabulary,
            max_length=max_length,
            training=name == "train",
            batch_size=batch_size,
            seed=seed,
            static_shapes=static_shapes,
            service=service,
        )

    def for_evaluate(split):
        return split.examples().padded_batch(batch_size).prefetch(tf.data.AUTOTUNE)

    return TaskData(
        **sources.assemble(splits, for_fit, for_evaluate),
        vocabulary=vocabulary,
        attributes=next(iter(splits.values())).attributes,
        source=str(source),
        image_size=image_size,
        max_length=max_length,
        batch_size=batch_size,
        _splits=splits,
    )


def _scaled_once(split, title, size):
    """The split with its pictures cut and scaled on disk; labels stand there behind the captions, as texts."""
    attributes = list(split.attributes)
    name = f"{cache.digest(title)}-square-{size}px"

    def compute():
        print(f"Pictures of {title} at {size} pixels (once; kept in {cache.folder() / name})")
        for example in split.examples().prefetch(tf.data.AUTOTUNE).as_numpy_iterator():
            labels = [b"%d" % example["labels"][attribute] for attribute in attributes]
            yield example["image"], [*example["captions"], *labels]

    def with_labels(example):
        captions, texts = tf.split(example["captions"], [-1, len(attributes)])
        labels = dict(zip(attributes, tf.unstack(tf.strings.to_number(texts, tf.int64)), strict=True))
        return {"image": example["image"], "captions": captions, "labels": labels}

    def examples():
        facts = split.made_from | {"image_size": size, "labels": attributes}
        kept = cache.cached(
            name, facts, compute, element_shape=(size, size, 3), count=split.count, dtype="uint8"
        )
        return kept.map(with_labels, num_parallel_calls=tf.data.AUTOTUNE) if attributes else kept

    return replace(split, examples=examples)
