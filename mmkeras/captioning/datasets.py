"""Image captioning (chapter 5.1): the data.

data = mmkeras.captioning.data("toy")              # the toy world
data = mmkeras.captioning.data("emoji")            # what people drew, with names in two languages
data = mmkeras.captioning.data("coco_captions")    # through TensorFlow Datasets
data = mmkeras.captioning.data("my/photos")        # a folder with a table of captions
"""

import dataclasses
import functools
import os

import keras
import numpy as np
import tensorflow as tf

from mmkeras._utils import checks, progress
from mmkeras.data import cache, captions, pipeline, sources
from mmkeras.data.task_data import TaskData
from mmkeras.data.vocabulary import Vocabulary
from mmkeras.distribute import collectives


def data(
    source: str | os.PathLike = "toy",
    *,
    language: str = "en",
    batch_size: int = 32,
    image_size: int | None = None,
    vocabulary: Vocabulary | None = None,
    min_count: int | None = None,
    max_size: int = 10_000,
    max_length: int | None = None,
    seed: int = 0,
    static_shapes: bool = False,
    **options,
) -> TaskData:
    """Images and captions, ready for `model.fit`.

    Args:
        source: str or path. `"toy"`, `"emoji"` (see `mmkeras.data.emoji`), `"coco_captions"` (37.6 GiB are
            downloaded on first use), or a folder of images with a table of captions (see
            `mmkeras.data.tables`). Defaults to `"toy"`.
        language: str. `"en"` (tokens are words) or `"zh"` (tokens are characters). Defaults to `"en"`.
        batch_size: int. Images per step, over all devices. Defaults to 32.
        image_size: int. Side in pixels that images are resized to. Defaults to 64 for the toy world and emoji,
            and to 224 for photographs, the sizes of the presets `"toy"` and `"document"`.
        vocabulary: `Vocabulary`. Defaults to the words of the training captions. If given, a source without
            training captions can be evaluated, and for a folder a warning names the words that it lacks.
        min_count: int. Words seen less often become `<unknown>`. Defaults to 1, for COCO to 5.
        max_size: int. Size of the vocabulary, special tokens included. Defaults to 10,000.
        max_length: int. Tokens per caption, `<start>` and `<end>` included; longer captions are cut. Defaults
            to what 99 % of the training captions need.
        seed: int. Seed for the order and for the choice among an image's captions. Defaults to 0.
        static_shapes: bool. Whether every dimension of `train` and `validation` is known, as a TPU needs it.
            All batches are then full; each epoch leaves out the images that do not fill a batch. Defaults to
            False.
        **options: Of the source. Toy world: `objects` (1 or 2), `data_dir`. Emoji: `artists`, `data_dir`. COCO:
            `data_dir`. Folder: `table`, `encoding`, `file_column`, `text_column`, `validation_share`,
            `test_share`, see `mmkeras.data.folder.read`.

    Returns:
        `TaskData` with these batches:

        - `train`, `validation`: ({"image", "tokens"}, targets); image (B, size, size, 3) uint8, tokens and
          targets (B, max_length - 1) int32, the caption without its last and without its first token. Every
          epoch holds every image exactly once, with one of its captions.
        - `test`, `test_unseen`: {"image", "captions"}; captions (B, n) string, all references, padded with "".

    Raises:
        ValueError: if an argument is invalid or the table is malformed.
        FileNotFoundError: if none of the images in the table exists.
    """
    sources.check_options(language, vocabulary)
    if image_size is None:
        image_size = 64 if source in ("toy", "emoji") else 224
    checks.ints(1, batch_size=batch_size, image_size=image_size)
    checks.ints(0, seed=seed)
    splits = sources.read_images(source, language, image_size, **options)
    vocabulary, max_length = captions.vocabulary_and_length(
        source,
        splits,
        language,
        vocabulary=vocabulary,
        min_count=min_count,
        max_size=max_size,
        max_length=max_length,
    )

    def finish(batch):
        tokens = batch["tokens"]  # (B, max_length)
        return {"image": batch["image"], "tokens": tokens[:, :-1]}, tokens[:, 1:]

    for_fit = functools.partial(
        pipeline.image_caption_batches,
        finish=finish,
        vocabulary=vocabulary,
        max_length=max_length,
        batch_size=batch_size,
        seed=seed,
        static_shapes=static_shapes,
    )

    def for_evaluate(split):
        dataset = split.examples().map(lambda example: {name: example[name] for name in ("image", "captions")})
        return dataset.padded_batch(batch_size).prefetch(tf.data.AUTOTUNE)

    return TaskData(
        str(source),
        vocabulary,
        batch_size,
        splits,
        for_fit,
        for_evaluate,
        image_size=image_size,
        max_length=max_length,
    )


def with_features(data: TaskData, model: keras.Model) -> TaskData:
    """The same data, with the features of the model's frozen encoder in place of the images.

    The features of `train` and `validation` are computed once and cached on disk; `test` still has images. If
    the encoder is fine-tuned, its features change, so the data is returned unchanged.

    Args:
        data: From `data`.
        model: From `mmkeras.captioning.build`.

    Raises:
        ValueError: if the model has another image size or was frozen after it was built, or if the encoder fell
            back to random weights and the source is not the toy world.
        OSError: if the disk is full.
    """
    grid = model.get_layer("encoder").get_layer("grid")
    if grid.trainable:
        return data
    refuse_fallback(data, model)
    if grid.image_size != data.image_size:
        raise ValueError(
            f"Expected a model for images of {data.image_size} pixels, as in the data. "
            f"Received: image_size={grid.image_size}. Build or load both with the same image_size."
        )
    if model.get_layer("encoder").input_shape[-1] == 3:
        raise ValueError(
            "Expected a model that takes features in place of images, built with fine_tune=False. Received: a "
            "model built with fine_tune=True whose encoder was frozen afterwards. Build a frozen one and copy "
            "the weights: frozen = mmkeras.captioning.build(..., fine_tune=False), "
            "frozen.set_weights(model.get_weights())."
        )
    weights = cache.digest(
        *(w.path for w in grid.network.weights),
        *(keras.ops.convert_to_numpy(w) for w in grid.weights),
    )
    features = {
        name: _features(split, f"{data.source} {name}", grid, weights)
        for name, split in data.splits.items()
        if name in ("train", "validation")
    }
    return dataclasses.replace(data, splits={**data.splits, **features})


def refuse_fallback(data: TaskData, model: keras.Model) -> None:
    """Raises ValueError if the encoder fell back to random weights and the source is not the toy world."""
    if model.get_layer("encoder").get_layer("grid").fell_back and data.source != "toy":
        raise ValueError(
            f"Expected trained weights of the encoder for the real images of {data.source!r}. Received: random "
            f"ones, since ImageNet's are not available; training would take hours and learn little. Download "
            f"them once while online, name a file with weights='vgg16....h5', or choose weights=None."
        )


def _features(split, title, grid, weights):
    network = keras.Model(grid.network.inputs, grid.network.outputs)
    spec = {
        "image": tf.TensorSpec(grid.network.output_shape[1:], tf.float16),
        "captions": tf.TensorSpec((None,), tf.string),
    }
    limit = np.finfo("float16").max  # float16 needs half the disk space; larger features are clipped

    def features():
        batches = split.examples().ragged_batch(16).prefetch(2)
        for batch in progress.bar(batches, "features", -(-split.count // 16)):
            values = collectives.predict_alone(network, batch["image"].numpy())
            values = keras.ops.convert_to_numpy(values).clip(-limit, limit).astype("float16")  # (16, h, w, C)
            for value, texts in zip(values, batch["captions"].to_list(), strict=True):
                yield {"image": value, "captions": texts}

    return cache.cached(
        split,
        f"features-{grid.image_size}px-{weights}",
        {"image_size": grid.image_size, "weights": weights},
        lambda: tf.data.Dataset.from_generator(features, output_signature=spec),
        f"Features of {title}",
    )
