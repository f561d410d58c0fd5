"""Each model in small under MirroredStrategy on two logical CPUs: trained by the recipe, asked, saved, loaded.

    python tests/mirrored.py DATA_DIR FOLDER

It ends with an error where a file answers otherwise than the model that was trained, or where a loss is one
replica's alone.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import mmkeras
import mmkeras._utils.start
from mmkeras import distribute, training
from mmkeras.text_to_image.gan import losses as gan_losses

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
        said = np.array(answerer(["a small red star", "a large blue circle", "a small red star"])).tolist()
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
    # behind the rest a batch of one example, of which the second replica has none
    one = small.validation.take(1).map(lambda *batch: keras.tree.map_structure(lambda x: x[:1], batch))
    vars(small)["validation"] = small.validation.concatenate(one)
    history = training.train(model, small, epochs=1, run=folder / f"{name}.run", verbose=2)
    assert np.isfinite(list(history.values())).all(), history
    answerer, path = mmkeras.tasks.answerer(model), folder / f"{name}.keras"
    answerer.save(path)
    (said, scores), (expected, expected_scores) = (
        told(answerer, small.test),
        told(mmkeras.load(path), small.test),
    )
    np.testing.assert_array_equal(said, expected, name)
    with strategy.scope():
        try:
            told(answerer, small.test)
        except ValueError as error:
            assert "outside of the strategy's scope" in str(error), error
        else:
            raise AssertionError("each replica answered the whole batch")
    for score, value in expected_scores.items():
        np.testing.assert_allclose(scores[score], value, rtol=1e-4, atol=1e-4, err_msg=f"{name}: {score}")


def check_adversarial_losses(strategy, middle):
    """A batch of four, split over replicas, has the loss and the gradients of the whole batch."""
    random = np.random.default_rng(0)
    image_embedding, text_embedding = random.normal(size=(2, 4, 8)).astype("float32")
    tokens = np.array([[2, 5], [2, 6], [2, 7], [2, 5]], "int32")  # the first and the last are the same text

    def losses(image_embedding, text_embedding, tokens):
        with tf.GradientTape() as tape:
            tape.watch([image_embedding, text_embedding])
            loss = gan_losses.contrastive_loss(image_embedding, text_embedding, tokens)
            loss += gan_losses.bag_of_words_loss(image_embedding, text_embedding)
            share = loss / mmkeras.distribute.collectives.count()
        gradients = tape.gradient(share, [image_embedding, text_embedding])
        return [loss, gan_losses.batch_std(image_embedding), *gradients]

    def share(context):
        part = [slice(middle), slice(middle, None)][context.replica_id_in_sync_group]
        return [tf.constant(x[part]) for x in (image_embedding, text_embedding, tokens)]

    expected = losses(*map(tf.constant, (image_embedding, text_embedding, tokens)))
    shares = strategy.experimental_distribute_values_from_function(share)
    found = tf.function(lambda: strategy.run(losses, args=shares), autograph=False)()
    for number, (one, of_shares) in enumerate(zip(expected, found, strict=True)):
        both = strategy.experimental_local_results(of_shares)
        for value in both if number < 2 else [np.concatenate(both)]:  # numbers, then gradients
            np.testing.assert_allclose(value, one, rtol=1e-5, atol=1e-6)


def check_float16(strategy):
    """A step in which one replica's gradients are not finite is left out."""
    with strategy.scope():
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)), "mse")
    before = model.get_weights()
    model.fit(np.array([[1.0], [1.0], [1.0], [np.inf]]), np.ones((4, 1)), shuffle=False, verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
    model.fit(np.ones((4, 1)), np.ones((4, 1)), verbose=0)
    assert all(np.isfinite(new).all() for new in model.get_weights())
    assert not np.array_equal(model.get_weights()[0], before[0])


def main(data_dir, folder):
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = distribute.strategy("mirrored")
    check_float16(strategy)
    for middle in (3, 4):  # the other share is one, or none
        check_adversarial_losses(strategy, middle)
    for name in TRAININGS:
        keras.utils.set_random_seed(0)
        check(name, data_dir, Path(folder), strategy)


if __name__ == "__main__":
    main(*sys.argv[1:])
