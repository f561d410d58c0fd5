"""Each model in small under MirroredStrategy on two logical CPUs: trained by the recipe, asked, saved, loaded.

    python tests/mirrored.py DATA_DIR FOLDER

It ends with an error where a file answers otherwise than the model that was trained.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import mmkeras
from mmkeras import distribute, training

# isort: split
import keras
import numpy as np
import tensorflow as tf
from tiny import BATCH_SIZE, MODELS

TRAININGS = ("captioning", "attention", "text_to_image")


def told(answerer, test):
    """What a model says of inputs that are always the same, and its scores."""
    random = np.random.default_rng(1)
    package = getattr(mmkeras, answerer.model.name)
    if answerer.model.name == "captioning":
        said = answerer(list(random.integers(0, 256, (3, 64, 64, 3), np.uint8)), beams=2)
    elif answerer.model.name == "speech_to_text":
        sounds = [random.normal(size=n) / 10 for n in (16_000, 9_000, 12_000)]
        said = answerer(sounds, sample_rate_hz=16_000)
    else:
        said = [answerer("a small red star").tolist()]
    return said, package.evaluate(answerer, test)


def check(name, data_dir, folder, strategy):
    task, of_data, sizes = MODELS[name]
    package = getattr(mmkeras, task)

    def data(batch_size):
        return package.data("toy", batch_size=batch_size, data_dir=data_dir, **of_data)

    small = data(BATCH_SIZE)
    with strategy.scope():
        model = package.build("toy", vocabulary=small.vocabulary, **sizes)
    if name == "captioning":  # the one task that can have batches of one
        try:
            training.train(model, data(1), epochs=1, verbose=0)
        except ValueError as error:
            assert "at least the number of replicas, 2. Received: batch_size=1" in str(error), error
        else:
            raise AssertionError("a batch smaller than the replicas was taken")
    training.train(model, small, epochs=1, run=folder / f"{name}.run", verbose=2)
    answerer, path = mmkeras.saving.answerer(model), folder / f"{name}.keras"
    answerer.save(path)
    (said, scores), (expected, expected_scores) = (
        told(answerer, small.test),
        told(mmkeras.load(path), small.test),
    )
    np.testing.assert_array_equal(said, expected, name)
    for score, value in expected_scores.items():
        np.testing.assert_allclose(scores[score], value, rtol=1e-4, atol=1e-4, err_msg=f"{name}: {score}")


def main(data_dir, folder):
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = distribute.strategy("mirrored")
    for name in TRAININGS:
        keras.utils.set_random_seed(0)
        check(name, data_dir, Path(folder), strategy)


if __name__ == "__main__":
    main(*sys.argv[1:])
