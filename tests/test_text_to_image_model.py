"""Text to image's graph: what `build` returns."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from mmkeras.text_to_image import ImageGenerator, build
from mmkeras.text_to_image.gan import model as gan

TINY = {"image_size": 16, "units": 8, "embedding_dim": 8, "channels": 16}
TOKENS = np.array([[2, 5, 6, 3]])


def assert_all_changed(before, variables):
    for old, new in zip(before, variables, strict=True):
        assert np.abs(new.numpy() - old).max() > 0, new.path


def test_the_document_preset_is_a_compiled_functional_model():
    model = build("document")
    assert type(model).__name__ == "Functional" and model.compiled
    assert model.output_shape == (None, 64, 64, 3)
    assert model.get_layer("encoder").get_layer("lstm").units == 256


@pytest.mark.parametrize("image_size", [16, 32, 64, 128, 256])
def test_output_has_the_image_size(image_size):
    model = build("toy", vocabulary=20, **TINY | {"image_size": image_size})
    image = model.predict({"tokens": TOKENS}, verbose=0)
    assert image.shape == (1, image_size, image_size, 3)
    assert image.min() >= 0 and image.max() <= 1


def test_training_changes_every_weight():
    model = build("toy", vocabulary=20, **TINY)
    before = [w.numpy() for w in model.trainable_variables]
    tokens = np.random.default_rng(0).integers(2, 20, (8, 6))
    model.fit({"tokens": tokens}, np.random.default_rng(1).random((8, 16, 16, 3)), epochs=2, verbose=0)
    assert_all_changed(before, model.trainable_variables)


@pytest.mark.slow
def test_loss_decreases_on_the_toy_world(tiny_images):
    model = build("toy", vocabulary=tiny_images.vocabulary, **TINY | {"units": 32, "channels": 32})
    history = model.fit(tiny_images.train, epochs=6, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] - 0.01


def test_invalid_arguments_raise():
    for size in (48, 8, 512, 64.0, "64"):
        with pytest.raises(ValueError, match=f"image_size={size!r}"):
            build("toy", image_size=size)
    with pytest.raises(ValueError, match="preset='huge'"):
        build("huge")
    with pytest.raises(TypeError, match="speling"):
        build("toy", speling="red")


# --- the adversarial model ---

NOISY = TINY | {"condition_dim": 4, "noise_dim": 6}


def build_gan(data, **options):
    return build("toy", vocabulary=data.vocabulary, adversarial=True, **NOISY, **options)


@pytest.fixture(scope="module")
def trained_gan(tiny_images):
    """Initial weights, model and history of one training run."""
    keras.utils.set_random_seed(0)
    model = build_gan(tiny_images)
    before = [w.numpy() for w in model.trainable_variables]
    validation = tiny_images.validation.take(2)
    history = model.fit(tiny_images.train.take(20), validation_data=validation, epochs=3, verbose=0).history
    return before, model, history


@pytest.mark.quality
def test_fit_trains_all_networks(trained_gan):
    before, model, history = trained_gan
    names = {"loss", "generator_loss", "discriminator_loss", "matcher_loss", "variety", "pixels"}
    assert set(history) == names | {f"val_{name}" for name in names}
    assert all(np.isfinite(values).all() for values in history.values())
    for name in ("pixels", "discriminator_loss", "matcher_loss"):
        assert history[name][-1] < history[name][0]
    assert_all_changed(before, model.trainable_variables)


def test_generator_loss_has_no_gradient_in_discriminator_and_matcher(tiny_images):
    model = build_gan(tiny_images)
    inputs, real = next(iter(tiny_images.train))

    def gradients(**weights):
        with pytest.MonkeyPatch.context() as patch, tf.GradientTape(persistent=True) as tape:
            for name, value in weights.items():
                patch.setattr(gan, name, value)
            model.seed_generator.state.assign([1, 1])
            loss = model.compute_loss(inputs, real, model(inputs, training=True), training=True)
        networks = (model.decoder, model.discriminator, model.image_text_matcher)
        return [tape.gradient(loss, network.trainable_variables) for network in networks]

    decoder, *others = gradients()
    new_decoder, *new_others = gradients(IMAGE_WEIGHT=0.0, STAGE_1_WEIGHT=0.0, CONDITION_KL_WEIGHT=0.0)
    for old, new in zip([*others[0], *others[1]], [*new_others[0], *new_others[1]], strict=True):
        np.testing.assert_allclose(old, new, rtol=1e-4, atol=1e-6)
    assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(decoder, new_decoder, strict=True) if a is not None)


def test_only_a_different_text_is_a_negative_for_the_matching_image(tiny_images):
    model = build_gan(tiny_images)
    model.discriminator.set_weights([0 * w for w in model.discriminator.get_weights()])  # all scores are 0
    inputs, real = next(iter(tiny_images.train))

    def discriminator_loss(tokens):
        tracker = model.trackers["discriminator_loss"]
        tracker.reset_state()
        model.compute_loss({"tokens": tokens}, real, model({"tokens": tokens}, training=True), training=True)
        return float(tracker.result())

    one, other, *_ = np.unique(inputs["tokens"], axis=0)
    assert discriminator_loss(np.stack([one, other] * 8)) == 2.0  # real 1, wrong text 0.5, generated 0.5
    assert discriminator_loss(np.stack([one] * 16)) == 1.5


def test_weights_of_examples_are_refused(tiny_images):
    model = build_gan(tiny_images)
    model.compile(model.optimizer, run_eagerly=True)
    inputs, real = next(iter(tiny_images.train))
    with pytest.raises(ValueError, match="sample_weight"):
        model.train_on_batch(inputs, real, sample_weight=np.ones(len(real)))


def test_fit_warns_of_mode_collapse(tiny_images):
    model = build_gan(tiny_images, learning_rate=0.0)
    model.compile(model.optimizer, run_eagerly=True)
    image = model.decoder.get_layer("image")
    image.set_weights([0 * w for w in image.get_weights()])  # gray for every prompt
    with pytest.warns(UserWarning, match="epoch 1 .*variety=0.00") as caught:
        model.fit(tiny_images.train.take(2), verbose=0, callbacks=keras.callbacks.TerminateOnNaN())
    assert [w.filename for w in caught if "variety=" in str(w.message)] == [__file__]


@pytest.mark.quality
def test_the_adversarial_model_gives_the_same_images_in_another_process(trained_gan, tmp_path):
    generator = ImageGenerator(trained_gan[1])
    generator.save(tmp_path / "model.keras")
    code = (
        "import mmkeras, sys, numpy\n"
        "numpy.save(sys.argv[2], mmkeras.load(sys.argv[1])('a small red star at the top', samples=3, seed=5))"
    )
    command = [sys.executable, "-W", "error::UserWarning", "-c", code]
    command += [str(tmp_path / "model.keras"), str(tmp_path / "images.npy")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    images = generator("a small red star at the top", samples=3, seed=5)
    np.testing.assert_array_equal(np.load(tmp_path / "images.npy"), images)
