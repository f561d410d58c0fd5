"""The small models on one of Keras's backends, in a process of its own.

    python tests/backends.py train DATA_DIR FOLDER     ten steps per model → FOLDER/BACKEND/NAME.keras, NAME.npz
    python tests/backends.py devices DATA_DIR FOLDER   the same on one and two devices → NAME.N_devices.npz
    python tests/backends.py load FOLDER BACKEND ...   answers of models that others saved → NAME.BACKEND.npz

KERAS_BACKEND selects the backend. `test_backends.py` runs the commands and compares the results.
"""

import contextlib
import sys
from pathlib import Path

import keras
import numpy as np
from tiny import BATCH_SIZE, MODELS, plain_sgd

import mmkeras

STEPS = 10


class Losses(keras.callbacks.Callback):
    """The running loss after each step."""

    def on_train_begin(self, logs=None):
        self.losses = []

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(float(logs["loss"]))


def make(name, data_dir, **build_options):
    """Data and a new model."""
    keras.utils.set_random_seed(0)
    task, data_options, sizes = MODELS[name]
    package = getattr(mmkeras, task)
    data = package.data("toy", batch_size=BATCH_SIZE, data_dir=data_dir, **data_options)
    return data, package.build("toy", vocabulary=data.vocabulary, **sizes, **build_options)


def fit(name, data_dir, optimizer=None):
    """Trains for ten steps on one batch: JAX compiles for each shape.

    Returns the model, and its losses and history by name.
    """
    data, model = make(name, data_dir, decay_steps=None)
    if optimizer is not None:
        model.optimizer = optimizer
    losses = Losses()
    history = model.fit(
        data.train.take(1).cache().repeat(STEPS), validation_data=data.validation, callbacks=[losses], verbose=0
    ).history
    return model, {"losses": losses.losses} | history


def answers(model):
    """The raw output for fixed inputs, and the decoded answers, by name."""
    rng = np.random.default_rng(1)
    tokens = rng.integers(4, 20, (3, 6)).astype("int32")
    predictor = mmkeras.tasks.predictor(model)
    if model.name == "captioning":
        images = rng.integers(0, 256, (3, 64, 64, 3), np.uint8)
        arrays = {"output": model.predict_on_batch({"image": images, "tokens": tokens})}
        for name, options in {"greedy": {}, "sampled": {"temperature": 1.0}}.items():
            arrays[name], arrays[f"{name} score"] = predictor.generate(images, max_length=12, **options)
    elif model.name == "speech_to_text":
        has_attention = predictor.head == "attention"
        clips = [rng.normal(size=n).astype("float32") / 10 for n in (16_000, 9_000, 12_000)]
        inputs = predictor._padded(clips)
        arrays = {"output": model.predict_on_batch(inputs | ({"tokens": tokens} if has_attention else {}))}
        options = {"max_length": 12} if has_attention else {}
        arrays["greedy"], arrays["greedy score"] = predictor._generator(inputs, **options)
        # Keras's beam search for CTC differs between TensorFlow and JAX. It prunes differently if all paths
        # have nearly the same probability, as after ten steps.
        if has_attention:
            arrays["beam"], arrays["beam score"] = predictor._generator(inputs, beams=3, **options)
    else:
        text = predictor.encoder.predict_on_batch(tokens)
        noise = rng.normal(size=(3, predictor.noise_size)).astype("float32")
        output = predictor.decoder.predict_on_batch([text, noise] if predictor.noise_size else text)
        arrays = {"text": text, "output": output[0] if predictor.noise_size else output}
        arrays["image"] = predictor("a small red star", seed=3)
    return arrays


class Interrupt(keras.callbacks.Callback):
    """Ctrl-C after the first step of the second epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.is_second = epoch == 1

    def on_train_batch_end(self, batch, logs=None):
        if self.is_second:
            raise KeyboardInterrupt


def same_arrays(arrays, others):
    return all(np.array_equal(a, b) for a, b in zip(arrays, others, strict=True))


def resume(data_dir, folder):
    """Whether a run that is interrupted and resumed ends with the weights of an uninterrupted one."""

    def weights(run, **options):
        data, model = make("text_to_image", data_dir)
        mmkeras.training.train(model, data, epochs=2, run=folder / run, verbose=0, **options)
        return [*model.get_weights(), *map(keras.ops.convert_to_numpy, model.optimizer.variables)]

    expected = weights("uninterrupted")
    with contextlib.suppress(KeyboardInterrupt):
        weights("interrupted", callbacks=[Interrupt()])
        raise AssertionError("expected an interrupt")
    return same_arrays(expected, weights("interrupted", resume=True))


def train(data_dir, folder):
    folder = Path(folder) / keras.backend.backend()
    folder.mkdir()
    if keras.backend.backend() != "tensorflow":  # test_training.py does the same there
        np.savez(folder / "resume.npz", same=resume(data_dir, folder))
    for name in MODELS:
        model, history = fit(name, data_dir)
        mmkeras.tasks.predictor(model).save(folder / f"{name}.keras")
        loaded = mmkeras.load(folder / f"{name}.keras").model
        same = same_arrays(model.get_weights(), loaded.get_weights())
        np.savez(folder / f"{name}.npz", same_weights=same, **history, **answers(model))


def devices(data_dir, folder):
    folder = Path(folder) / keras.backend.backend()
    folder.mkdir()
    for name in list(MODELS)[:-1]:  # rounding errors of the adversarial model grow too fast
        for count, distribution in ((1, None), (2, keras.distribution.DataParallel())):
            keras.distribution.set_distribution(distribution)
            model, history = fit(name, data_dir, plain_sgd())
            used = min(len(variable.value.devices()) for variable in model.weights)
            np.savez(folder / f"{name}.{count}_devices.npz", devices=used, **history)


def load(folder, *savers):
    for saver in savers:
        for name in MODELS:
            path = Path(folder) / saver / f"{name}.keras"
            arrays = answers(mmkeras.load(path).model)
            np.savez(path.with_suffix(f".{keras.backend.backend()}.npz"), **arrays)


if __name__ == "__main__":
    {"train": train, "devices": devices, "load": load}[sys.argv[1]](*sys.argv[2:])
