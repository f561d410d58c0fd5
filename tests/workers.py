"""Trains tiny models in a process of its own, on several devices or as a worker of a cluster.

    python tests/workers.py TRAININGS DATA_DIR OUTPUT [--kind KIND] [--devices N] [--die-after STEPS]

It writes the loss of every step, the history, scores, answers and weights. All random numbers are seeded, so
that two processes can be compared.
"""

import argparse
import os
import signal
from pathlib import Path

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import tensorflow as tf
import tiny

import mmkeras
from mmkeras import distribute

# "adam" keeps the optimizer of the preset; the others use plain gradient descent.
TRAININGS = tiny.MODELS | {"adam": tiny.MODELS["text_to_image"]}


class Steps(keras.callbacks.Callback):
    """Records the running loss of each step. Kills the process after `die_after` steps."""

    def __init__(self, die_after=None):
        super().__init__()
        self.losses, self.die_after = [], die_after

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(float(self.model.get_metrics_result()["loss"]))  # over all replicas
        if len(self.losses) == self.die_after:
            os.kill(os.getpid(), signal.SIGKILL)


def train(name, data_dir, strategy, epochs, die_after):
    """The results of a training as arrays by name."""
    keras.utils.set_random_seed(0)
    task, data_options, sizes = TRAININGS[name]
    package = getattr(mmkeras, task)
    with distribute.chief_first(strategy):
        data = package.data("toy", batch_size=tiny.BATCH_SIZE, data_dir=data_dir, **data_options)
    with strategy.scope():
        model = package.build("toy", vocabulary=data.vocabulary, **sizes)
        if name != "adam":
            model.optimizer = tiny.plain_sgd()
    steps = Steps(die_after)
    history = model.fit(
        data.train.concatenate(data.validation),  # the last batch is smaller
        validation_data=data.validation,
        epochs=epochs,
        callbacks=[steps, keras.callbacks.EarlyStopping(patience=3, restore_best_weights=True)],
        verbose=0,
    )
    scores = model.evaluate(data.validation, verbose=0, return_dict=True)
    # Keras's predict fails on a worker that gets no example of the first batch
    full = data.validation.filter(lambda inputs, targets: tf.shape(targets)[0] == tiny.BATCH_SIZE)
    answers = keras.tree.flatten(model.predict(full.take(1), verbose=0))
    results = {"losses": steps.losses}
    results |= {f"history {name}": values for name, values in history.history.items()}
    results |= {f"score {name}": value for name, value in scores.items()}
    results |= {f"answer {number}": answer for number, answer in enumerate(answers)}
    weights = map(keras.ops.convert_to_numpy, model.weights)
    return results | {f"weight {number}": weight for number, weight in enumerate(weights)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("trainings", help="names in TRAININGS, separated by commas")
    parser.add_argument("data_dir")
    parser.add_argument("output", help="folder of NAME.npz")
    parser.add_argument("--kind", default="auto")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--workers")
    parser.add_argument("--index", type=int)
    parser.add_argument("--die-after", type=int)
    options = parser.parse_args()
    if options.devices > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        devices = [tf.config.LogicalDeviceConfiguration()] * options.devices
        tf.config.set_logical_device_configuration(cpu, devices)
    strategy = distribute.strategy(options.kind, workers=options.workers, index=options.index)
    print(distribute.describe_batch(tiny.BATCH_SIZE, strategy))
    with distribute.clear_failures():
        for name in options.trainings.split(","):
            results = train(name, options.data_dir, strategy, options.epochs, options.die_after)
            np.savez(Path(options.output) / f"{name}.npz", **results)


if __name__ == "__main__":
    main()
