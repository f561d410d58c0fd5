"""Trains each model in small under MirroredStrategy on two logical CPUs, and compares its saved file with it.

    python tests/mirrored.py DATA_DIR FOLDER

It fails if the file answers otherwise than the trained model, or if a loss is of one replica alone.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny import BATCH_SIZE, MODELS

import mmkeras
from mmkeras import distribute, training
from mmkeras.nn.losses import TokenCrossentropy, contrastive_loss
from mmkeras.text_to_image.gan import losses as gan_losses

TRAININGS = ("captioning", "attention", "text_to_image")


def answers(predictor, test):
    """The answers to fixed inputs, and the scores."""
    rng = np.random.default_rng(1)
    package = getattr(mmkeras, predictor.model.name)
    if predictor.model.name == "captioning":
        texts = predictor(list(rng.integers(0, 256, (3, 64, 64, 3), np.uint8)), beams=2)
    elif predictor.model.name == "speech_to_text":
        texts = predictor([rng.normal(size=n) / 10 for n in (16_000, 9_000, 12_000)], sample_rate_hz=16_000)
    else:
        texts = np.array(predictor(["a small red star", "a large blue circle", "a small red star"])).tolist()
    return texts, package.evaluate(predictor, test)


def check(name, data_dir, folder, strategy):
    task, data_options, sizes = MODELS[name]
    package = getattr(mmkeras, task)
    data = package.data("toy", batch_size=BATCH_SIZE, data_dir=data_dir, **data_options)
    with strategy.scope():
        model = package.build("toy", vocabulary=data.vocabulary, **sizes)
    # a last batch of one example, which leaves the second replica without any
    one = data.validation.take(1).map(lambda *batch: keras.tree.map_structure(lambda x: x[:1], batch))
    vars(data)["validation"] = data.validation.concatenate(one)
    history = training.train(model, data, epochs=1, run=folder / f"{name}.run", verbose=2)
    assert np.isfinite(list(history.values())).all(), history
    predictor, path = mmkeras.tasks.predictor(model), folder / f"{name}.keras"
    predictor.save(path)
    texts, scores = answers(predictor, data.test)
    expected_texts, expected_scores = answers(mmkeras.load(path), data.test)
    np.testing.assert_array_equal(texts, expected_texts, name)
    for score, value in expected_scores.items():
        np.testing.assert_allclose(scores[score], value, rtol=1e-4, atol=1e-4, err_msg=f"{name}: {score}")
    # each replica would answer the whole batch
    with strategy.scope(), pytest.raises(ValueError, match="strategy="):
        answers(predictor, data.test)


def check_losses(strategy, middle):
    """Two replicas that share a batch of four have the losses and gradients of the whole batch."""
    rng = np.random.default_rng(0)
    image_embedding, text_embedding = rng.normal(size=(2, 4, 8)).astype("float32")
    tokens = np.array([[2, 5], [2, 6], [2, 7], [2, 5]], "int32")  # the first text equals the last

    def losses(image_embedding, text_embedding, tokens):
        with tf.GradientTape() as tape:
            tape.watch([image_embedding, text_embedding])
            loss = contrastive_loss(image_embedding, text_embedding, tokens)
            loss += gan_losses.bag_of_words_loss(image_embedding, text_embedding)
            share = loss / mmkeras.distribute.collectives.count()
            logits = tf.stack([image_embedding, text_embedding], axis=1)  # (4, 2, 8)
            weights = tokens[:, 1] - 5  # 0, 1, 2, 0
            share += TokenCrossentropy()(tokens, logits, weights)
        gradients = tape.gradient(share, [image_embedding, text_embedding])
        return [loss, gan_losses.batch_std(image_embedding), *gradients]

    def share(context):
        part = [slice(middle), slice(middle, None)][context.replica_id_in_sync_group]
        return [tf.constant(x[part]) for x in (image_embedding, text_embedding, tokens)]

    expected = losses(*map(tf.constant, (image_embedding, text_embedding, tokens)))
    shares = strategy.experimental_distribute_values_from_function(share)
    results = tf.function(lambda: strategy.run(losses, args=shares), autograph=False)()
    for number, (value, per_replica) in enumerate(zip(expected, results, strict=True)):
        replicas = strategy.experimental_local_results(per_replica)
        for result in replicas if number < 2 else [np.concatenate(replicas)]:  # losses, then gradients
            np.testing.assert_allclose(result, value, rtol=1e-5, atol=1e-6)


def check_float16(strategy):
    """A step is skipped if the gradients of one replica are not finite."""
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
    for middle in (3, 4):  # the second replica has one example, or none
        check_losses(strategy, middle)
    for name in TRAININGS:
        keras.utils.set_random_seed(0)
        check(name, data_dir, Path(folder), strategy)


if __name__ == "__main__":
    main(*sys.argv[1:])
