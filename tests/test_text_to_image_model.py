"""Text to image's graph: what build() returns."""

import subprocess
import sys

import keras
import numpy as np
import pytest

import mmkeras
from mmkeras.text_to_image import build

TINY = {"image_size": 16, "units": 8, "embedding_dim": 8, "channels": 16}


def test_build_without_argument():
    model = build("document")
    assert type(model).__name__ == "Functional" and model.compiled
    assert model.output_shape == (None, 64, 64, 3)
    assert model.get_layer("encoder").get_layer("lstm").units == 256  # the document's


@pytest.mark.parametrize("image_size", [16, 32, 64, 128, 256])
def test_every_power_of_two(image_size):
    model = build("toy", vocabulary=20, **TINY | {"image_size": image_size})
    image = model.predict({"tokens": np.array([[2, 5, 6, 3]])}, verbose=0)
    assert image.shape == (1, image_size, image_size, 3)
    assert image.min() >= 0 and image.max() <= 1


def test_padding_changes_no_pixel():
    model = build("toy", vocabulary=20, **TINY)
    bare, padded = np.array([[2, 5, 6, 3]]), np.array([[2, 5, 6, 3, 0, 0, 0]])
    pictures = [model.predict({"tokens": tokens}, verbose=0) for tokens in (bare, padded)]
    np.testing.assert_allclose(*pictures, atol=1e-6)


def test_every_weight_learns():
    model = build("toy", vocabulary=20, **TINY)
    before = [w.numpy() for w in model.trainable_variables]
    tokens = np.random.default_rng(0).integers(2, 20, (8, 6))
    model.fit({"tokens": tokens}, np.random.default_rng(1).random((8, 16, 16, 3)), epochs=2, verbose=0)
    for old, new in zip(before, model.trainable_variables, strict=True):
        assert np.abs(new.numpy() - old).max() > 0, new.path


def test_the_loss_falls_on_the_toy_world(tiny_pictures):
    model = build("toy", vocabulary=tiny_pictures.vocabulary, **TINY | {"units": 32, "channels": 32})
    history = model.fit(tiny_pictures.train, epochs=6, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] - 0.01


def test_saved_and_loaded_it_paints_the_same(tmp_path):
    model = build("toy", vocabulary=["red", "circle"], **TINY)
    mmkeras._utils.saving.save(model, tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    tokens = {"tokens": np.array([[2, 4, 5, 3]])}
    np.testing.assert_array_equal(model.predict(tokens, verbose=0), again.predict(tokens, verbose=0))


def test_bad_arguments_are_named():
    for size in (48, 8, 512, 64.0, "64"):
        with pytest.raises(ValueError, match="power of two from 16 to 256"):
            build("toy", image_size=size)
    with pytest.raises(ValueError, match="preset='huge'"):
        build("huge")
    with pytest.raises(TypeError, match="colour"):
        build("toy", colour="red")


# --- the adversarial model ---

NOISY = TINY | {"condition_dim": 4, "noise_dim": 6}


@pytest.fixture(scope="module")
def adversarial_run(tiny_pictures):
    """One training for the tests below: the weights it began with, the model, its history."""
    keras.utils.set_random_seed(0)
    model = build("toy", vocabulary=tiny_pictures.vocabulary, adversarial=True, **NOISY)
    before = [w.numpy() for w in model.trainable_variables]
    validation = tiny_pictures.validation.take(2)
    history = model.fit(tiny_pictures.train.take(20), validation_data=validation, epochs=3, verbose=0).history
    return before, model, history


def test_all_sides_learn_by_plain_fit(adversarial_run):
    before, model, history = adversarial_run
    names = {"loss", "generator_loss", "discriminator_loss", "matcher_loss", "variety", "pixels"}
    assert set(history) == names | {f"val_{name}" for name in names}
    assert all(np.isfinite(values).all() for values in history.values())
    for name in ("pixels", "discriminator_loss", "matcher_loss"):
        assert history[name][-1] < history[name][0]
    for old, new in zip(before, model.trainable_variables, strict=True):
        assert np.abs(new.numpy() - old).max() > 0, new.path


def test_each_side_gets_its_own_gradient_alone(tiny_pictures):
    """What weighs the painter's own losses moves the painter and leaves those who teach it as they are."""
    import tensorflow as tf

    from mmkeras.text_to_image.gan import model as adversarial

    model = build("toy", vocabulary=tiny_pictures.vocabulary, adversarial=True, **NOISY)
    inputs, real = next(iter(tiny_pictures.train))

    def gradients(**weights):
        with pytest.MonkeyPatch.context() as patch, tf.GradientTape(persistent=True) as tape:
            for name, value in weights.items():
                patch.setattr(adversarial, name, value)
            model.random.state.assign([1, 1])
            loss = model.compute_loss(inputs, real, model(inputs, training=True), training=True)
        parts = (model.decoder, model.discriminator, model.matcher)
        return [tape.gradient(loss, part.trainable_variables) for part in parts]

    decoder, *teachers = gradients()
    other_decoder, *same_teachers = gradients(IMAGE=0.0, SKETCH=0.0, CONDITION=0.0)
    for teacher, same in zip(teachers, same_teachers, strict=True):
        for one, other in zip(teacher, same, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(decoder, other_decoder, strict=True) if a is not None)


def test_a_real_picture_with_a_wrong_text_counts_as_false_but_not_with_the_same_text(tiny_pictures):
    model = build("toy", vocabulary=tiny_pictures.vocabulary, adversarial=True, **NOISY)
    discriminator = model.discriminator
    discriminator.set_weights([0 * w for w in discriminator.get_weights()])  # it says 0 to everything
    inputs, real = next(iter(tiny_pictures.train))
    tokens = inputs["tokens"]

    def loss(tokens):
        model.followed["discriminator_loss"].reset_state()
        inputs = {"tokens": tokens}
        model.compute_loss(inputs, real, model(inputs, training=True), training=True)
        return float(model.followed["discriminator_loss"].result())

    distinct = np.unique(tokens, axis=0)
    assert len(distinct) > 1
    half = np.stack([distinct[0], distinct[1]] * 8)  # each beside another
    assert loss(half) == 2.0  # real, real with a wrong text, painted: 1 + 0.5 + 0.5
    assert loss(np.stack([distinct[0]] * 16)) == 1.5


def test_a_mode_collapse_is_named_while_it_trains(tiny_pictures):
    model = build("toy", vocabulary=tiny_pictures.vocabulary, adversarial=True, **NOISY, learning_rate=0.0)
    model.compile(model.optimizer, run_eagerly=True)
    image = model.decoder.get_layer("image")
    image.set_weights([0 * w for w in image.get_weights()])  # grey, whatever it is told
    with pytest.warns(UserWarning, match="Mode collapse: in epoch 1 .* vary 0.00 times as much") as caught:
        model.fit(tiny_pictures.train.take(2), verbose=0, callbacks=keras.callbacks.TerminateOnNaN())
    named = [warning.filename for warning in caught if "Mode collapse" in str(warning.message)]
    assert named == [__file__]


def test_the_adversarial_model_comes_back_from_its_file(adversarial_run, tmp_path):
    painter = mmkeras.text_to_image.Painter(adversarial_run[1])
    painter.save(tmp_path / "painter.keras")
    code = (
        "import mmkeras, sys, numpy\n"
        "numpy.save(sys.argv[2], mmkeras.load(sys.argv[1])('a small red star at the top', samples=3, seed=5))"
    )
    run = [sys.executable, "-c", code, str(tmp_path / "painter.keras"), str(tmp_path / "painted.npy")]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    here = painter("a small red star at the top", samples=3, seed=5)
    np.testing.assert_array_equal(np.load(tmp_path / "painted.npy"), here)
