"""The tasks in small on one of Keras's backends, in a process of its own.

    python tests/backends.py train DATA_DIR FOLDER     ten steps a task → FOLDER/BACKEND/NAME.keras, NAME.npz
    python tests/backends.py devices DATA_DIR FOLDER   the same on all devices that JAX has → NAME.N_devices.npz
    python tests/backends.py answer FOLDER OF ...      answers by models that others saved → NAME.BACKEND.npz

KERAS_BACKEND says which. `test_backends.py` runs them and compares what they wrote.
"""

import contextlib
import sys
from pathlib import Path

import keras
import numpy as np
from tiny import BATCH_SIZE, MODELS, plain_descent

import mmkeras

STEPS = 10


class Losses(keras.callbacks.Callback):
    """The running loss after each step."""

    def on_train_begin(self, logs=None):
        self.found = []

    def on_train_batch_end(self, batch, logs=None):
        self.found.append(float(logs["loss"]))


def fit(name, data_dir, optimizer=None):
    """A model after ten steps, with its own optimizer or the one given, and what `fit` told: arrays by name."""
    keras.utils.set_random_seed(0)
    task, of_data, sizes = MODELS[name]
    package = getattr(mmkeras, task)
    data = package.data("toy", batch_size=BATCH_SIZE, data_dir=data_dir, **of_data)
    model = package.build("toy", vocabulary=data.vocabulary, decay_steps=None, **sizes)
    if optimizer is not None:
        model.optimizer = optimizer
    losses = Losses()
    history = model.fit(
        data.train.repeat().take(STEPS), validation_data=data.validation, callbacks=[losses], verbose=0
    ).history
    return model, {"losses": losses.found} | history


def answers(model):
    """What a model makes of inputs that are always the same: its raw output, and decoded."""
    random = np.random.default_rng(1)
    tokens = random.integers(4, 20, (3, 6)).astype("int32")
    answerer = mmkeras.tasks.answerer(model)
    if model.name == "captioning":
        images = random.integers(0, 256, (3, 64, 64, 3), np.uint8)
        found = {"output": model.predict_on_batch({"image": images, "tokens": tokens})}
        for name, how in {"greedy": {}, "beam": {"beams": 3}, "sampled": {"temperature": 1.0}}.items():
            found[name], found[f"{name} score"] = answerer.generate(images, max_length=12, **how)
    elif model.name == "speech_to_text":
        sounds = [random.normal(size=n).astype("float32") / 10 for n in (16_000, 9_000, 12_000)]
        inputs = answerer._padded(sounds)
        given = inputs | ({"tokens": tokens} if answerer.head == "attention" else {})
        found = {"output": model.predict_on_batch(given)}
        how = {"max_length": 12} if answerer.head == "attention" else {}
        found["greedy"], found["greedy score"] = answerer._generator(inputs, **how)
        if answerer.head == "attention":
            found["beam"], found["beam score"] = answerer._generator(inputs, beams=3, **how)
        # With CTC Keras's search is another on TensorFlow than on JAX, and prunes otherwise where, after ten
        # steps, all paths are about equally probable.
    else:
        text = answerer.encoder.predict_on_batch(tokens)
        noise = random.normal(size=(3, answerer.noise_size)).astype("float32")
        found = {"text": text}
        output = answerer.decoder.predict_on_batch([text, noise] if answerer.noise_size else text)
        found["output"] = output[0] if answerer.noise_size else output
        found["picture"] = answerer("a small red star", seed=3)
    return found


class Stop(keras.callbacks.Callback):
    """Ctrl-C after the first step of the second epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.is_second = epoch == 1

    def on_train_batch_end(self, batch, logs=None):
        if self.is_second:
            raise KeyboardInterrupt


def resume(data_dir, folder):
    """Weights after two epochs of the recipe: undisturbed, and broken off in the second and gone on with."""
    task, of_data, sizes = MODELS["text_to_image"]

    def trained(run, **how):
        keras.utils.set_random_seed(0)
        package = getattr(mmkeras, task)
        data = package.data("toy", batch_size=BATCH_SIZE, data_dir=data_dir, **of_data)
        model = package.build("toy", vocabulary=data.vocabulary, **sizes)
        mmkeras.training.train(model, data, epochs=2, run=folder / run, verbose=0, **how)
        return [*model.get_weights(), *map(keras.ops.convert_to_numpy, model.optimizer.variables)]

    expected = trained("undisturbed")
    with contextlib.suppress(KeyboardInterrupt):
        trained("broken", callbacks=[Stop()])
        raise AssertionError("it was to be broken off")
    found = trained("broken", resume=True)
    return {"same": all(np.array_equal(one, other) for one, other in zip(expected, found, strict=True))}


def train(data_dir, folder):
    folder = Path(folder) / keras.backend.backend()
    folder.mkdir()
    np.savez(folder / "resume.npz", **resume(data_dir, folder))
    for name in MODELS:
        model, told = fit(name, data_dir)
        mmkeras.tasks.answerer(model).save(folder / f"{name}.keras")
        loaded = mmkeras.load(folder / f"{name}.keras").model
        pairs = zip(model.get_weights(), loaded.get_weights(), strict=True)
        same = all(np.array_equal(one, other) for one, other in pairs)
        np.savez(folder / f"{name}.npz", same_weights=same, **told, **answers(model))


def devices(data_dir, folder):
    folder = Path(folder) / keras.backend.backend()
    for name in list(MODELS)[:-1]:  # the adversarial one drifts apart by rounding
        for count, distribution in ((1, None), (2, keras.distribution.DataParallel())):
            keras.distribution.set_distribution(distribution)
            model, told = fit(name, data_dir, plain_descent())
            spread = min(len(variable.value.devices()) for variable in model.weights)
            np.savez(folder / f"{name}.{count}_devices.npz", spread=spread, **told)


def answer(folder, *backends):
    for backend in backends:
        for name in MODELS:
            path = Path(folder) / backend / f"{name}.keras"
            found = answers(mmkeras.load(path).model)
            np.savez(path.with_suffix(f".{keras.backend.backend()}.npz"), **found)


if __name__ == "__main__":
    {"train": train, "devices": devices, "answer": answer}[sys.argv[1]](*sys.argv[2:])
