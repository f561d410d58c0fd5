"""Images with captions: read, counted, encoded and batched, for every task that has them."""

import functools
import itertools
import os
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from mmkeras._utils import checks, progress
from mmkeras.data import cache, pipeline, sources
from mmkeras.data.augmentation import augmented
from mmkeras.data.task_data import Split, TaskData, training_split
from mmkeras.text.vocabulary import PAD, SPECIAL, Vocabulary

# Share of the captions that are encoded in full; a few long ones would make every batch longer.
SHARE_OF_CAPTIONS = 0.99
MIN_LENGTH = 3  # a token between <start> and <end>


def read(
    source: Any,
    to_inputs: Callable[[dict[str, tf.Tensor]], Any],
    *,
    language: str,
    batch_size: int,
    image_size: int,
    vocabulary: Vocabulary | None,
    min_count: int | None,
    max_size: int,
    max_length: int | None,
    augment: bool,
    seed: int,
    static_shapes: bool,
    crop: bool = False,
    with_text: tuple[str, ...] = (),
    reader: Callable[..., dict[str, Split]] = sources.read_images,
    unit: str | None = None,
    **options,
) -> TaskData:
    """The data of a task that has images with captions.

    Args:
        source: A key of `mmkeras.data.sources.IMAGES`, a folder, or a dataset (`mmkeras.data.hugging_face`).
        to_inputs: batch {"image" (B, H, W, 3) uint8, "tokens" (B, max_length) int32, and the source's other
            fields} → what `fit` takes.
        language, batch_size, ..., static_shapes, **options: As for `mmkeras.captioning.data`.
        crop: bool. Whether images are cropped to the square in the middle, and those of a source too large for
            memory cached on disk. Defaults to False: the aspect ratio changes.
        with_text: Names of fields (n, ...) with an item for each of an image's captions, of which the batch has
            that of the chosen caption. Default to none.
        reader: (source, language, image size, crop=, **options) → the splits by name. Defaults to that of the
            known sources.
        unit: str, optional. Unit of the tokens. Defaults to None: that of the language.

    Returns:
        `TaskData`. `train` and `validation` hold every image once, with one of its captions, another one in
        each epoch of `train`. `test` and `test_unseen` hold {"image" (B, S, S, 3) uint8, "captions" (B, n)
        string, padded with "", and the source's other fields}.

    Raises:
        ValueError: if an argument is invalid, the table is malformed, or there are neither training captions
            nor a vocabulary.
        FileNotFoundError: if none of the images in the table exists.
    """
    vocabulary = sources.check_options(language, vocabulary)
    checks.ints(1, batch_size=batch_size, image_size=image_size)
    checks.ints(0, seed=seed)
    splits = reader(source, language, image_size, crop=crop, **options)
    vocabulary, max_length = _vocabulary_and_length(
        source,
        splits,
        unit or ("word" if language == "en" else "character"),
        vocabulary=vocabulary,
        min_count=min_count,
        max_size=max_size,
        max_length=max_length,
    )
    for name, split in splits.items():
        if crop and name in ("train", "validation") and not split.fits_in_memory:
            splits[name] = cache.cached(
                split,
                f"square-{image_size}px",
                {"image_size": image_size, "labels": list(split.attributes)},
                split.examples,
                f"Images of {sources.title(source)} {name} at {image_size} pixels",
            )
    for_fit = functools.partial(
        batches,
        to_inputs=to_inputs,
        vocabulary=vocabulary,
        max_length=max_length,
        batch_size=batch_size,
        seed=seed,
        static_shapes=static_shapes,
        augment=augment,
        with_text=with_text,
    )

    def for_evaluate(split):
        return split.examples().padded_batch(batch_size).prefetch(tf.data.AUTOTUNE)

    return TaskData(
        sources.title(source),
        vocabulary,
        batch_size,
        splits,
        for_fit,
        for_evaluate,
        attributes=next(iter(splits.values())).attributes,
        extra={"image_size": image_size, "max_length": max_length, "augment": augment},
    )


def batches(
    split: Split,
    name: str,
    *,
    to_inputs: Callable,
    vocabulary: Vocabulary,
    max_length: int,
    batch_size: int,
    seed: int,
    static_shapes: bool = False,
    augment: bool = False,
    with_text: tuple[str, ...] = (),
) -> Callable[[int | None], tf.data.Dataset]:
    """Every image once, paired with one of its captions, see `read`.

    In `"train"` the order and the caption differ from epoch to epoch; in other splits they are always the same.

    Args:
        split: Examples with "image" and "captions".
        name: str. Name of the split.

    Returns:
        A function of `start`, see `mmkeras.data.pipeline.epochs`; it is ignored for splits other than
        `"train"`.
    """
    training = name == "train"
    examples = split.cached_examples()  # shared by the epochs
    if static_shapes and not training:
        batch_size = min(batch_size, split.count)
    if static_shapes and split.count < batch_size:
        raise ValueError(
            f"Expected batch_size to be at most the number of images, {split.count}, with static_shapes=True. "
            f"Received: batch_size={batch_size}"
        )
    steps = split.count // batch_size if static_shapes else -(-split.count // batch_size)

    def with_one_text(example, random_seed):
        number = random_seed % tf.shape(example["captions"], tf.int64)[0]
        return example | {field: example[field][number] for field in ("captions", *with_text)}

    def one_pass(pass_seed):
        dataset = pipeline.shuffled(examples, split, pass_seed) if training else examples
        random_seeds = tf.data.Dataset.random(seed=pass_seed)
        dataset = tf.data.Dataset.zip(dataset, random_seeds).map(with_one_text)
        return dataset if static_shapes else dataset.batch(batch_size)

    def to_inputs_and_targets(batch, random_seed):
        texts = batch.pop("captions")  # (B,)
        tokens = vocabulary.encode_tensor(texts).to_tensor(PAD, shape=(texts.shape[0], max_length))
        if augment and training:
            as_drawn = batch.pop("as_drawn", False)
            batch["image"] = augmented(batch["image"], random_seed, as_drawn)
        return to_inputs(batch | {"tokens": tokens})

    def full_batches(dataset):
        return dataset.batch(batch_size, drop_remainder=True)

    return pipeline.fit_batches(
        one_pass,
        to_inputs_and_targets,
        training=training,
        steps=steps,
        seed=seed,
        full_batches=full_batches if static_shapes else None,
    )


def _vocabulary_and_length(
    source: Any,
    splits: Mapping[str, Split],
    unit: str,
    *,
    vocabulary: Vocabulary | None,
    min_count: int | None,
    max_size: int,
    max_length: int | None,
) -> tuple[Vocabulary, int]:
    """The vocabulary of the training captions, and the number of tokens that 99 % of them do not exceed. What
    is given is returned unchanged; the length may then come from a split other than training."""
    if min_count is None:
        min_count = 5 if source == "coco_captions" else 1
    checks.ints(1, min_count=min_count)
    checks.ints(len(SPECIAL) + 1, max_size=max_size)
    if max_length is not None and (not isinstance(max_length, int) or max_length < MIN_LENGTH):
        raise ValueError(
            f"Expected max_length to be an int of at least {MIN_LENGTH}, <start> and <end> included. "
            f"Received: max_length={max_length!r}"
        )
    is_own = not isinstance(source, str) or os.path.isdir(source)
    if vocabulary is not None and is_own:  # the captions of TFDS take long to read
        vocabulary.warn_of_unknown(
            text for split in splits.values() for texts in split.texts() for text in texts
        )
    if vocabulary is not None and max_length is not None:
        return vocabulary, max_length
    needs_training = vocabulary is None or "train" in splits
    split = training_split(splits) if needs_training else next(iter(splits.values()))
    texts = (text for texts in progress.bar(split.texts(), "captions", split.count) for text in texts)
    lengths = Counter()
    if vocabulary is None:
        vocabulary = Vocabulary.count(texts, unit, min_count=min_count, max_size=max_size, lengths=lengths)
    else:
        lengths.update(len(vocabulary.encode(text)) for text in texts)
    covered = itertools.accumulate(lengths[length] for length in sorted(lengths))
    share = zip(sorted(lengths), covered, strict=True)
    covering = (length for length, number in share if number >= SHARE_OF_CAPTIONS * lengths.total())
    return vocabulary, max_length or next(covering, MIN_LENGTH)
