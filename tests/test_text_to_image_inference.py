"""ImageGenerator, AttributeClassifier and their scores."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import mmkeras
from mmkeras.text_to_image import (
    AttributeClassifier,
    ImageGenerator,
    build,
    evaluate,
    evaluate_classifier,
    train_classifier,
)
from mmkeras.text_to_image.classifier import build_classifier

TINY = {"image_size": 16, "units": 16, "embedding_dim": 8, "channels": 16}
PROMPTS = ["a small red circle at the top left", "a large blue star in the center"]


@pytest.fixture(scope="module")
def generator(tiny_images):
    keras.utils.set_random_seed(0)
    model = build("toy", vocabulary=tiny_images.vocabulary, **TINY)
    model.fit(tiny_images.train, epochs=10, verbose=0)
    return ImageGenerator(model)


@pytest.fixture(scope="module")
def classifier(tiny_images):
    return train_classifier(tiny_images, epochs=8, verbose=0)


def test_one_prompt_gives_an_image_and_a_list_gives_a_list(generator):
    image, images = generator(PROMPTS[0]), generator(PROMPTS)
    assert image.shape == (16, 16, 3) and image.dtype == np.uint8
    assert isinstance(images, list) and len(images) == 2
    np.testing.assert_allclose(image.astype(int), images[0], atol=1)
    assert generator(PROMPTS, samples=1)[1].shape == (1, 16, 16, 3)


@pytest.mark.filterwarnings("ignore:Words outside")
def test_prompts_of_unknown_words_in_a_list_give_none(generator):
    with pytest.warns(UserWarning, match="1 of 3 prompts .*prompt='xylophone'"):
        first, second, third = generator([PROMPTS[0], "xylophone", PROMPTS[1]])
    np.testing.assert_allclose(first.astype(int), generator(PROMPTS[0]), atol=1)
    np.testing.assert_allclose(third.astype(int), generator(PROMPTS[1]), atol=1)
    assert second is None
    with pytest.warns(UserWarning, match="1 of 2 prompts"):
        generator.grid([PROMPTS[0], "xylophone"])


@pytest.mark.parametrize("method", ["__call__", "grid", "explain", "walk"])
def test_a_warning_names_unknown_words_at_the_callers_line(generator, method):
    prompts = ["a red xylophone", PROMPTS[0]][: 2 if method == "walk" else 1]
    with pytest.warns(UserWarning, match=": 'xylophone'") as caught:
        getattr(generator, method)(*prompts)
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize(
    ("prompts", "error", "received"),
    [
        ("", ValueError, "prompt=''"),
        ("!?", ValueError, r"prompt='!\?'"),
        ("blorp xylophone", ValueError, "prompt='blorp xylophone'"),
        ([], ValueError, r"prompts=\[\]"),
        (7, TypeError, "prompt=7"),
        (["a red star", 7], TypeError, "prompt=7"),
        (None, TypeError, "prompt=None"),
    ],
)
def test_invalid_prompts_raise(generator, prompts, error, received):
    for method in (generator, generator.grid):
        with pytest.raises(error, match=received):
            method(prompts)


def test_invalid_arguments_raise(generator):
    for method in (generator.explain, lambda prompt: generator.walk(prompt, "a red star")):
        with pytest.raises(TypeError, match="prompt=7"):
            method(7)
    with pytest.raises(ValueError, match="seed=-1"):
        generator("a red star", seed=-1)
    for samples in (0, True, 3):  # the model has no noise
        with pytest.raises(ValueError, match=f"samples={samples}"):
            generator("a red star", samples=samples)
    for samples in (0, True):
        with pytest.raises(ValueError, match=f"samples={samples}"):
            generator.grid("a red star", samples=samples)


def test_a_prompt_may_be_longer_than_in_training(generator):
    assert generator(" and ".join(PROMPTS * 5).replace("and ", "")).shape == (16, 16, 3)


def test_walk_starts_and_ends_at_its_prompts(generator, tmp_path):
    images = generator.walk(*PROMPTS, steps=5, path=tmp_path / "walk.png")
    for image, prompt in zip(images[[0, -1]], PROMPTS, strict=True):
        np.testing.assert_allclose(image.astype(int), generator(prompt), atol=1)
    assert Image.open(tmp_path / "walk.png").size == (5 * 16, 16)
    generator.walk(*PROMPTS, steps=5, path=tmp_path / "walk.gif")
    assert Image.open(tmp_path / "walk.gif").n_frames == 5
    with pytest.raises(ValueError, match="walk.mp4"):
        generator.walk(*PROMPTS, path=tmp_path / "walk.mp4")
    with pytest.raises(ValueError, match="steps=1"):
        generator.walk(*PROMPTS, steps=1)


def test_grid_writes_a_file(generator, tmp_path):
    generator.grid([*PROMPTS, "a red star at the top"], path=tmp_path / "grid.png")
    assert Image.open(tmp_path / "grid.png").size[1] > 300


def test_explain_shows_the_pixels_that_each_word_changes(generator, tmp_path):
    influence = generator.explain(PROMPTS[0])
    assert influence.words == PROMPTS[0].split()
    assert influence.changed.shape == (8, 16, 16) and influence.without.shape == (8, 16, 16, 3)
    without = influence.without[6].astype(int)  # the seventh word is "top"
    np.testing.assert_allclose(without, generator("a small red circle at the left"), atol=1)
    np.testing.assert_allclose(
        influence.changed[6], np.abs(without - influence.image.astype(float)).mean(axis=-1) / 255
    )
    influence.plot(tmp_path / "changed.png")
    assert Image.open(tmp_path / "changed.png").size[0] > 500


@pytest.mark.quality
def test_a_saved_generator_gives_the_same_pixels_in_another_process(generator, tmp_path):
    generator.save(tmp_path / "model.keras")
    code = (
        "import mmkeras, sys; from PIL import Image\n"
        "Image.fromarray(mmkeras.load(sys.argv[1])(sys.argv[2])).save(sys.argv[3])"
    )
    command = [sys.executable, "-W", "error::UserWarning", "-c", code]
    command += [tmp_path / "model.keras", PROMPTS[0], tmp_path / "image.png"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "image.png")), generator(PROMPTS[0]))


def test_the_classifier_learns_and_loads_from_its_file(classifier, tiny_images, tmp_path):
    scores = evaluate_classifier(classifier, tiny_images.test)
    assert scores["place"] > 0.5 and scores["color"] > 0.5  # 320 images of 16 pixels
    images = next(iter(tiny_images.test))["image"].numpy()
    assert classifier.predict(images)[1].shape == (16, 64)
    classifier.save(tmp_path / "classifier.keras")
    loaded = mmkeras.load(tmp_path / "classifier.keras")
    assert isinstance(loaded, AttributeClassifier) and loaded.attributes == classifier.attributes
    assert loaded(images[0]) == classifier([images[0]])[0]
    assert set(loaded(images[0])) == {"size", "color", "shape", "place"}
    with pytest.warns(UserWarning, match="1 of 2 images .*missing.png"):
        assert classifier([images[0], tmp_path / "missing.png"]) == [classifier(images[0]), None]
    with pytest.raises(ValueError, match=r"images=\[\]"):
        classifier([])
    with pytest.raises(ValueError, match="epochs=0"):
        train_classifier(tiny_images, epochs=0)
    with pytest.raises(ValueError, match="dataset without any"):
        evaluate_classifier(classifier, tiny_images.test.take(0))


def test_evaluate_compares_generated_with_real_images(generator, classifier, tiny_images):
    scores = evaluate(generator, tiny_images.test, classifier)
    measures = {"all", "classifier_on_real", "frechet_distance", "sharpness", "variety"}
    assert set(scores) == {"size", "color", "shape", "place"} | measures
    assert scores["all"] <= min(scores[name] for name in classifier.attributes)
    assert scores["sharpness"] < 0.8  # a few epochs of a pixel loss: blurred
    assert set(evaluate(generator, tiny_images.test)) == {"sharpness", "variety"}
    predicted = classifier(generator(PROMPTS))  # text → image → class
    assert all(one[name] in classifier.attributes[name] for one in predicted for name in one)


def test_evaluate_raises_for_invalid_arguments(generator, classifier, tiny_images):
    with pytest.raises(ValueError, match="dataset=None"):
        evaluate(generator, None)
    with pytest.raises(ValueError, match="seed=-1"):
        evaluate(generator, tiny_images.test, seed=-1)
    other = AttributeClassifier(build_classifier(classifier.attributes, 32))
    with pytest.raises(ValueError, match="classifier.image_size=32"):
        evaluate(generator, tiny_images.test, other)
    without_labels = tiny_images.test.map(lambda batch: {k: batch[k] for k in ("image", "captions")})
    with pytest.raises(ValueError, match="color, place, shape, size"):
        evaluate(generator, without_labels, classifier)
    with pytest.raises(ValueError, match="Received: dataset"):
        evaluate(generator, tiny_images.test.take(0))


def test_evaluate_of_one_image_leaves_out_comparisons(generator, tiny_images):
    classifier = AttributeClassifier(build_classifier(tiny_images.attributes, 16))
    scores = evaluate(generator, tiny_images.test.unbatch().take(1).batch(1), classifier)
    assert set(scores) == {*tiny_images.attributes, "all", "classifier_on_real", "sharpness"}
    assert np.isfinite(list(scores.values())).all()


def test_evaluate_scores_captions_of_unknown_words(generator, tiny_images):
    batch = next(iter(tiny_images.test))
    count = batch["captions"].shape[1]
    captions = [["zebra"] * count, ["!!!"] * count, *batch["captions"].numpy()[2:].tolist()]
    dataset = tf.data.Dataset.from_tensors(batch | {"captions": tf.constant(captions)})
    with pytest.warns(UserWarning, match="'zebra'") as caught:
        assert set(evaluate(generator, dataset)) == {"sharpness", "variety"}
    assert caught[0].filename == __file__


def test_evaluate_warns_of_a_collapse(tiny_images):
    model = build("toy", vocabulary=tiny_images.vocabulary, **TINY)
    encoder = model.get_layer("encoder")
    encoder.set_weights([0 * w for w in encoder.get_weights()])  # the same embedding for every prompt
    with pytest.warns(UserWarning, match="variety=0.0000"):
        evaluate(ImageGenerator(model), tiny_images.test)


def test_other_models_raise():
    with pytest.raises(ValueError, match="model='other'"):
        ImageGenerator(keras.Sequential([keras.layers.Dense(1)], name="other"))
    with pytest.raises(ValueError, match="model='text_to_image'"):
        AttributeClassifier(build("toy", vocabulary=20, **TINY))


def test_noise_depends_on_the_seed_only(tiny_images):
    model = build("toy", vocabulary=tiny_images.vocabulary, adversarial=True, **TINY)
    generator = ImageGenerator(model)
    four, two = generator(PROMPTS, samples=4, seed=3), generator(PROMPTS[0], samples=2, seed=3)
    assert four[0].shape == (4, 16, 16, 3)
    np.testing.assert_allclose(four[0][:2].astype(int), two, atol=1)
    assert len({image.tobytes() for image in four[0]}) == 4
    assert (generator(PROMPTS[0], seed=3) != generator(PROMPTS[0], seed=4)).any()
    generator.grid(PROMPTS, samples=3)
    assert "seed_variety" in evaluate(generator, tiny_images.test)
