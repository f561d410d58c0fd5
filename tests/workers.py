"""One training in a process of its own, as its own devices and its place in a cluster want it.

    python tests/workers.py TRAININGS DATA_DIR OUTPUT [--kind KIND] [--devices N] [--die-after STEPS]

It trains tiny models on a small edition of the toy world, and writes down the loss of every step, the
history, scores, answers and all weights. Nothing in it is random but what is seeded, so that two of them can be
compared.
"""

import argparse
import os
import signal
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import mmkeras
import mmkeras._utils.start
from mmkeras import distribute

# isort: split
import keras
import numpy as np
import tensorflow as tf
import tiny

# with Adam, as it is compiled, beside the plain descent below
TRAININGS = tiny.MODELS | {"adam": tiny.MODELS["text_to_image"]}


class Steps(keras.callbacks.Callback):
    """Writes down each step's running loss; dies as a machine does, without a word."""

    def __init__(self, die_after=None):
        super().__init__()
        self.losses, self.die_after = [], die_after

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(float(self.model.get_metrics_result()["loss"]))  # of all replicas together
        if len(self.losses) == self.die_after:
            os.kill(os.getpid(), signal.SIGKILL)


def train(name, data_dir, strategy, epochs, die_after):
    """What came of it, as arrays by name."""
    keras.utils.set_random_seed(0)
    task, of_data, sizes = TRAININGS[name]
    package = getattr(mmkeras, task)
    with distribute.chief_first(strategy):
        data = package.data("toy", batch_size=tiny.BATCH_SIZE, data_dir=data_dir, **of_data)
    with strategy.scope():
        model = package.build("toy", vocabulary=data.vocabulary, **sizes)
        if name != "adam":
            model.optimizer = tiny.plain_descent()
    steps = Steps(die_after)
    stopping = keras.callbacks.EarlyStopping(patience=3, restore_best_weights=True)
    history = model.fit(
        data.train.concatenate(
            data.validation
        ),  # shuffled whole batches, then some of which the last is smaller
        validation_data=data.validation,
        epochs=epochs,
        callbacks=[steps, stopping],
        verbose=0,
    )
    scores = model.evaluate(data.validation, verbose=0, return_dict=True)
    answers = keras.tree.flatten(model.predict(data.validation.take(1), verbose=0))
    found = {"losses": steps.losses} | {f"answer {number}": answer for number, answer in enumerate(answers)}
    found |= {f"history {name}": values for name, values in history.history.items()}
    found |= {f"score {name}": value for name, value in scores.items()}
    weights = [keras.ops.convert_to_numpy(w) for w in model.weights]
    return found | {f"weight {number}": weight for number, weight in enumerate(weights)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("trainings", help="names out of TRAININGS, with commas")
    parser.add_argument("data_dir")
    parser.add_argument("output", help="where NAME.npz goes")
    parser.add_argument("--kind", default="auto")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--workers")
    parser.add_argument("--index", type=int)
    parser.add_argument("--port", type=int, default=8888)
    parser.add_argument("--die-after", type=int)
    options = parser.parse_args()
    if options.devices > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        devices = [tf.config.LogicalDeviceConfiguration()] * options.devices
        tf.config.set_logical_device_configuration(cpu, devices)
    strategy = distribute.strategy(
        options.kind, workers=options.workers, index=options.index, port=options.port
    )
    print(distribute.describe_batch(tiny.BATCH_SIZE, strategy))
    with distribute.clear_failures():
        for name in options.trainings.split(","):
            found = train(name, options.data_dir, strategy, options.epochs, options.die_after)
            np.savez(Path(options.output) / f"{name}.npz", **found)


if __name__ == "__main__":
    main()
