"""The features of a frozen encoder in place of images, computed once and cached on disk."""

import dataclasses
import itertools
import json
import re

import keras
import numpy as np
import tensorflow as tf

from mmkeras._utils import progress
from mmkeras.data import cache
from mmkeras.data.task_data import TaskData
from mmkeras.distribute import collectives
from mmkeras.nn.layers import GridFeatures

BATCH_SIZE = 16  # images of 224 pixels in memory at a time


def with_features(data: TaskData, model: keras.Model) -> TaskData:
    """The same data, with the features of the model's frozen encoder in place of the images.

    The features of `train` and `validation` are computed once and cached on disk; `test` still has images. If
    the encoder is fine-tuned or the images are augmented, the features change, so the data is returned
    unchanged.

    Args:
        data: Of a task with images.
        model: keras.Model. From the task's `build`.

    Raises:
        ValueError: if the model has another image size or was frozen after it was built, or if the encoder has
            random weights that replace ImageNet's and the source is not the toy world.
        OSError: if the disk is full.
    """
    grid = _grid(model)
    if grid.trainable or data.augment:
        return data
    check_pretrained(data, model)
    if grid.image_size != data.image_size:
        raise ValueError(
            f"Expected a model for images of {data.image_size} pixels, as in the data. "
            f"Received: image_size={grid.image_size}. Build or load both with the same image_size."
        )
    if {tensor.name: tensor for tensor in model.inputs}["image"].shape[-1] == 3:
        raise ValueError(
            "Expected a model that takes features in place of images, built with fine_tune=False. Received: a "
            "model built with fine_tune=True whose encoder was frozen afterwards. Build a frozen one and copy "
            "the weights: frozen = build(..., fine_tune=False), "
            "frozen.set_weights(model.get_weights())."
        )
    # names like "conv2d_3" depend on what was built before
    graph = re.sub(r'_\d+"', '"', json.dumps(keras.saving.serialize_keras_object(grid.network)))
    weights = cache.digest(graph, *(keras.ops.convert_to_numpy(w) for w in grid.weights))
    features = {
        name: _features(split, f"{data.source} {name}", grid, weights)
        for name, split in data.splits.items()
        if name in ("train", "validation")
    }
    return dataclasses.replace(data, splits={**data.splits, **features})


def check_pretrained(data: TaskData, model: keras.Model) -> None:
    """Raises ValueError if the images are real, and ImageNet's weights of the encoder were not available."""
    grid = _grid(model)
    if grid.has_random_weights and data.source != "toy":
        raise ValueError(
            f"Expected trained weights of the encoder for the real images of {data.source!r}. Received: random "
            f"ones, since ImageNet's are not available; training would take hours and learn little. Download "
            f"them once while online, name a file with weights='{grid.network.name}....h5', choose "
            f"weights=None, or train a small encoder from scratch: preset='toy' (--preset toy)."
        )


def _grid(model):
    """The layer with the network of a model's image encoder."""
    return next(layer for layer in model._flatten_layers() if isinstance(layer, GridFeatures))


def _features(split, title, grid, weights):
    network = keras.Model(grid.network.inputs[0], grid.network.outputs[0])
    spec = split.examples().element_spec | {"image": tf.TensorSpec(grid.network.output_shape[1:], tf.float16)}
    limit = np.finfo("float16").max  # float16 needs half the disk space; larger features are clipped

    def features():
        examples = split.examples().prefetch(BATCH_SIZE).as_numpy_iterator()
        for _ in progress.bar(range(0, split.count, BATCH_SIZE), "features"):
            batch = list(itertools.islice(examples, BATCH_SIZE))
            values = collectives.predict_on_one_device(
                network, np.stack([example["image"] for example in batch])
            )
            values = keras.ops.convert_to_numpy(values).clip(-limit, limit).astype("float16")  # (B, h, w, C)
            for example, value in zip(batch, values, strict=True):
                yield example | {"image": value}

    return cache.cached(
        split,
        f"features-{grid.image_size}px-{weights}",
        {"image_size": grid.image_size, "weights": weights},
        lambda: tf.data.Dataset.from_generator(features, output_signature=spec),
        f"Features of {title}",
    )
