"""Explanations of answers about images, and the tests of explanations."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from mmkeras.applications import image_search
from mmkeras.applications.image_search import ImageSearch
from mmkeras.captioning import Captioner
from mmkeras.captioning import build as build_captioner
from mmkeras.evaluation import explain, faithfulness, plots
from mmkeras.evaluation.explanations import Explanation, focus
from mmkeras.methods.experiments import saliency
from mmkeras.text_to_image import AttributeClassifier
from mmkeras.text_to_image.classifier import build_classifier

SIZE = 16
ATTRIBUTES = {"color": ("red", "green", "blue"), "place": ("left", "right")}
IMAGE = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
BATCH = np.stack([IMAGE, IMAGE[::-1]]).astype("float32")
WORDS = ["a", "red", "green", "star", "circle"]


def first(outputs):
    """The logit of the first color."""
    return outputs["color"][:, 0]


@pytest.fixture(scope="module")
def classifier():
    keras.utils.set_random_seed(0)
    return AttributeClassifier(build_classifier(ATTRIBUTES, SIZE))


@pytest.fixture(scope="module")
def linear():
    """The score is the sum of the red channel in the top half."""
    image = keras.Input((SIZE, SIZE, 3), name="image")
    return keras.Model(image, ops.sum(image[:, : SIZE // 2, :, 0], axis=(1, 2)), name="linear")


def score(outputs):
    return outputs


def test_the_gradient_equals_finite_differences(classifier):
    found = explain.gradient(classifier.model, BATCH, first)
    assert found.shape == BATCH.shape
    direction = np.random.default_rng(1).normal(size=BATCH.shape).astype("float32")
    step = 1e-2
    high, low = explain.scores(
        classifier.model, BATCH, [BATCH + step * direction, BATCH - step * direction], first
    )
    np.testing.assert_allclose((found * direction).sum(axis=(1, 2, 3)), (high - low) / (2 * step), rtol=0.05)


def test_a_linear_score_is_explained_exactly(linear):
    half = np.zeros((SIZE, SIZE, 3), bool)
    half[: SIZE // 2, :, 0] = True
    assert np.array_equal(explain.gradient(linear, BATCH, score), np.stack([half] * 2).astype("float32"))
    for method in (explain.gradient_x_input, explain.integrated_gradients):
        np.testing.assert_allclose(method(linear, BATCH, score, baseline=7), half * (BATCH - 7), rtol=1e-4)


def test_integrated_gradients_sum_up_to_the_difference_of_the_scores(classifier):
    for baseline in (None, (10, 20, 30)):
        found = explain.integrated_gradients(classifier.model, BATCH, first, baseline, steps=8)
        start = explain.checked_baseline(BATCH, baseline)
        before, after = explain.scores(classifier.model, BATCH, [start, BATCH], first)
        error = np.abs(found.sum(axis=(1, 2, 3)) - (after - before)).max()
        assert error <= 0.05 * np.abs(after - before).max()


def test_integrated_gradients_that_do_not_sum_up_are_an_error():
    """A step has no gradient anywhere, whatever the number of points."""
    image = keras.Input((4, 4, 3), name="image")
    model = keras.Model(
        image, ops.sign(ops.sum(image, axis=(1, 2, 3)) - 1) + 0 * ops.sum(image, axis=(1, 2, 3))
    )
    with pytest.raises(ValueError, match=r"at most 2\. Received: steps=301, .* off by 2\."):
        explain.integrated_gradients(model, BATCH[:1, :4, :4], score, baseline=0, steps=301)


def test_the_default_baseline_is_the_median_color_of_each_image():
    found = explain.checked_baseline(BATCH[:, :15], None)
    assert np.array_equal(found[0, 0, 0], np.median(BATCH[0, :15].reshape(-1, 3), axis=0))
    assert not np.array_equal(found[0], found[1])


def test_occlusion_finds_the_only_pixels_that_count(linear):
    image = np.zeros((1, SIZE, SIZE, 3), np.float32)
    image[0, 2:4, 4:8, 0] = 100
    found = explain.occlusion(linear, image, score, size=4, stride=2)[0]
    assert found[2:4, 4:8].min() > 0 and found[8:].max() == 0
    assert found.max() == found[2:4, 4:8].max() <= 8 * 100
    assert explain.occlusion(linear, image, score, baseline=image)[0].max() == 0


def test_cams_of_a_map_times_a_weight_are_that_map():
    """With global average pooling, Grad-CAM and HiResCAM are equal up to a factor."""
    image = keras.Input((SIZE, SIZE, 3), name="image")
    cells = keras.layers.Conv2D(4, 3, activation="relu", name="cells")(keras.layers.AveragePooling2D(2)(image))
    model = keras.Model(image, keras.layers.Dense(1)(keras.layers.GlobalAveragePooling2D()(cells))[:, 0])
    low, high = (method(model, BATCH, score) for method in (explain.grad_cam, explain.hires_cam))
    np.testing.assert_allclose(low, high, rtol=1e-3, atol=1e-6)
    values = keras.Model(image, cells)(BATCH)
    weights = ops.reshape(
        model.layers[-2].kernel if hasattr(model.layers[-2], "kernel") else model.weights[-2], (-1,)
    )
    expected = ops.relu(ops.sum(values * weights, axis=-1)) / 36
    np.testing.assert_allclose(high, explain.enlarged(ops.convert_to_numpy(expected), (SIZE, SIZE)), atol=1e-5)


def test_grad_cam_mixes_what_hires_cam_keeps_apart():
    """A score that counts the left half and subtracts the right one: the mean gradient is 0."""
    image = keras.Input((SIZE, SIZE, 3), name="image")
    cells = keras.layers.AveragePooling2D(4, name="cells")(image)  # (B, 4, 4, 3)
    model = keras.Model(
        image, ops.sum(cells[:, :, :2], axis=(1, 2, 3)) - ops.sum(cells[:, :, 2:], axis=(1, 2, 3))
    )
    assert explain.grad_cam(model, BATCH, score, "cells").max() < 1e-3
    found = explain.hires_cam(model, BATCH, score, "cells")
    assert found[:, :, :4].min() > 0 and found[:, :, -4:].max() == 0


@pytest.mark.parametrize("method", explain.METHODS)
def test_a_classifier_is_explained_by_every_method(method, classifier):
    explanation = classifier.explain(IMAGE, method)
    answer = classifier(IMAGE)
    assert explanation.words == [answer[name] for name in ATTRIBUTES] and explanation.method == method
    assert explanation.maps.shape == (2, SIZE, SIZE) and explanation.maps.min() >= 0
    sums = explanation.maps.sum(axis=(1, 2))
    assert all(abs(total - 1) < 1e-4 or total == 0 for total in sums) and sums.any()
    assert not np.allclose(*explanation.maps)  # each attribute has its own


def test_a_search_is_explained_by_a_text():
    keras.utils.set_random_seed(0)
    model = image_search.build(vocabulary=WORDS, weights=None, units=8, embedding_dim=8)
    search = ImageSearch(model)
    photo = np.random.default_rng(0).integers(0, 256, (80, 100, 3), np.uint8)
    for method in ("gradient", "hires_cam", "grad_cam"):
        one, other = (search.explain(photo, text, method) for text in ("red star", "green circle"))
        assert one.words == ["red star"] and one.maps.shape == (1, 64, 64)
        assert np.array_equal(one.image, photo) and not np.allclose(one.maps, other.maps)
    with pytest.raises(ValueError, match="query='purple'"):
        search.explain(photo, "purple")


@pytest.fixture(scope="module")
def captioner():
    keras.utils.set_random_seed(0)
    return Captioner(build_captioner("toy", vocabulary=WORDS, weights=None, units=8, embedding_dim=8))


def test_each_word_of_a_caption_is_explained(captioner):
    photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for method in ("attention", "hires_cam"):
        explanation = captioner.explain(photo, method, caption="a red star")
        assert explanation.words == ["a", "red", "star"] and explanation.caption == "a red star"
        assert explanation.method == method and len(explanation.maps) == 3
        longer = captioner.explain(photo, method, caption="a red star a")
        np.testing.assert_allclose(explanation.maps, longer.maps[:3], atol=1e-5)  # only the words before count
    written = captioner.explain(photo, "gradient", max_length=3)
    assert written.caption == captioner(photo, max_length=3)
    black = captioner.explain(photo, "gradient_x_input", caption="a red star", baseline=0).maps
    assert not np.allclose(black, captioner.explain(photo, "gradient_x_input", caption="a red star").maps)


def test_a_shuffled_copy_of_each_model_is_explained(classifier, captioner):
    photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    copy = Captioner(explain.shuffled(captioner.model))
    a, b = (each.explain(photo, caption="a red star").maps for each in (captioner, copy))
    assert not np.allclose(a, b)
    a, b = (
        explain.maps("gradient", x, BATCH, first)
        for x in (classifier.model, explain.shuffled(classifier.model))
    )
    assert not np.allclose(a, b)


def test_what_cannot_be_explained_is_one_clear_error(classifier, captioner):
    with pytest.raises(ValueError, match=r"method.*hires_cam.*Received: method='attention'"):
        classifier.explain(IMAGE, "attention")
    with pytest.raises(ValueError, match=r"baseline.*\(16, 16, 3\).*Received: baseline of \(8, 8, 3\)"):
        classifier.explain(IMAGE, "integrated_gradients", baseline=np.zeros((8, 8, 3)))
    with pytest.raises(ValueError, match=r"layer.*grid.*Received: layer='features'"):
        classifier.explain(IMAGE, layer="features")
    flat = keras.Sequential(
        [keras.Input((SIZE, SIZE, 3)), keras.layers.Flatten(), keras.layers.Dense(1)], name="flat"
    )
    with pytest.raises(ValueError, match=r"layer.*'flat' none"):
        explain.hires_cam(flat, BATCH, lambda y: y[:, 0])
    clip = keras.Sequential([keras.Input((40,)), keras.layers.Dense(1)], name="clip")
    with pytest.raises(ValueError, match=r"images.*Received: inputs=\(2, 40\) of 'clip'"):
        explain.gradient(clip, np.zeros((2, 40)), lambda y: y[:, 0])
    with pytest.raises(ValueError, match=r"images.*Received: inputs=\['audio'\]"):
        explain.maps("gradient", clip, {"audio": np.zeros((2, 40))}, lambda y: y[:, 0])
    with pytest.raises(ValueError, match="purple"):
        captioner.explain(np.zeros((64, 64, 3), np.uint8), caption="purple")


# --- tests of explanations ---


def test_the_right_order_beats_a_random_one(linear):
    image = np.full((2, SIZE, SIZE, 3), 10, np.float32)
    image[:, :4, :4, 0] = 200  # 256 cells of a pixel
    good = faithfulness.difference(image)
    random = np.random.default_rng(0).random(good.shape)
    deletion, insertion = (
        [faithfulness.area(way(linear, image, score, m)) for m in (good, random, -good + good.max())]
        for way in (faithfulness.deletion, faithfulness.insertion)
    )
    assert (deletion[0] < deletion[1]).all() and (deletion[1] < deletion[2]).all()
    assert (insertion[0] > insertion[1]).all() and (insertion[1] > insertion[2]).all()


def test_a_curve_leads_from_the_image_to_the_baseline(classifier):
    maps = np.random.default_rng(0).random((2, 4, 4))
    down, up = (
        way(classifier.model, BATCH, first, maps, 0) for way in (faithfulness.deletion, faithfulness.insertion)
    )
    before, after = explain.scores(classifier.model, BATCH, [np.zeros_like(BATCH), BATCH], first)
    for curve, (start, end) in ((down, (after, before)), (up, (before, after))):
        np.testing.assert_allclose(curve[[0, -1]], [start, end], atol=1e-4)
    assert np.array_equal(faithfulness.area(np.array([[1.0], [0.0], [0.0]])), [0.25])


def test_the_order_of_an_empty_map_is_random(linear):
    """Not from the top, where the score of this model is."""
    image = np.full((1, SIZE, SIZE, 3), 10, np.float32)
    curve = faithfulness.deletion(linear, image, score, np.zeros((1, SIZE, SIZE)), baseline=0)
    assert abs(curve[8, 0] / curve[0, 0] - 0.5) < 0.15


def test_focus_is_the_share_of_the_map_over_that_of_the_area():
    region = np.zeros((8, 8), bool)
    region[:4, :4] = True
    maps = np.stack([np.ones((8, 8)), region, ~region, np.zeros((8, 8))])
    np.testing.assert_allclose(focus(maps, region), [1, 4, 0, 0])
    assert np.array_equal(Explanation(IMAGE, "", list("abcd"), maps).focus(region), focus(maps, region))


def test_explanations_are_plotted_on_one_scale(classifier, tmp_path):
    rows = {method: classifier.explain(IMAGE, method) for method in ("gradient", "hires_cam")}
    figure = plots.explanations(rows, tmp_path / "maps.png", most=5)
    shown = [axis.images[0] for axis in figure.axes[:6]]
    assert {image.get_clim() for i, image in enumerate(shown) if i % 3} == {(0, 5)}
    np.testing.assert_allclose(shown[1].get_array().mean(), 1, rtol=1e-4)
    assert (tmp_path / "maps.png").is_file()


def test_the_shipped_table_has_trained_beside_shuffled():
    results = saliency.results()
    assert results.measured["command"] == saliency.COMMAND
    for which in ("focus", "curves", "words"):
        lines = results.table(which).splitlines()
        assert len(lines) == 1 + len(getattr(results, which))
    assert " to " in results.table().splitlines()[1]
    assert results.plot().axes[0].get_ylabel()


def test_the_shipped_results_tell_what_a_network_has_learned_from_what_a_formula_does():
    results = saliency.results()
    background = results.focus["integrated gradients"]["color"]
    assert min(background["trained"] + background["shuffled"]) > 12  # on the object, whatever the weights
    for attribute in ("color", "shape"):
        kinds = results.focus["HiResCAM"][attribute]
        assert min(kinds["trained"]) > 4 and max(kinds["shuffled"]) < 1.5
    assert results.empty["Grad-CAM"]["place"] > 0.5
    random = results.curves["random"]
    hires = results.curves["HiResCAM"]
    assert max(hires["deletion"]["trained"]) < min(random["deletion"]["trained"]) - 0.3
    assert max(hires["deletion"]["trained"]) < min(hires["deletion"]["shuffled"]) - 0.15
    assert min(hires["insertion"]["trained"]) > max(random["insertion"]["trained"]) + 0.1
    assert min(hires["insertion"]["trained"]) > max(hires["insertion"]["shuffled"]) + 0.1


@pytest.mark.quality
def test_the_experiment_repeats_on_few_images(tmp_path):
    found = saliency.run(tmp_path / "saliency.json", 8, 4, 2)
    shipped = saliency.results()
    for attribute in ("color", "shape"):
        (value,) = found.focus["HiResCAM"][attribute]["trained"]
        assert abs(value - shipped.focus["HiResCAM"][attribute]["trained"][0]) < 3
    assert found.curves["HiResCAM"]["deletion"]["trained"] < found.curves["random"]["deletion"]["trained"]


BACKENDS_SCRIPT = """
import sys
import keras, numpy as np
from mmkeras.evaluation import explain, faithfulness
explain.ROWS = 2  # one size of a batch: JAX compiles each operation for each size
model = keras.saving.load_model(sys.argv[1])
batch = np.load(sys.argv[2])
score = lambda outputs: outputs["color"][:, 0]
found = {name: explain.maps(name, model, batch, score) for name in explain.METHODS}
found["deletion"] = faithfulness.deletion(model, batch, score, found["hires_cam"])
np.savez(sys.argv[3], **found)
"""


@pytest.mark.backends
@pytest.mark.parametrize("backend", [pytest.param("jax", marks=pytest.mark.quality), "torch"])
def test_maps_are_the_same_on_every_backend(backend, classifier, tmp_path):
    classifier.save(tmp_path / "classifier.keras")
    np.save(tmp_path / "batch.npy", BATCH)
    script = "import mmkeras.text_to_image\n" + BACKENDS_SCRIPT
    environment = os.environ | {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    files = [str(tmp_path / name) for name in ("classifier.keras", "batch.npy", "found.npz")]
    done = subprocess.run(
        [sys.executable, "-c", script, *files], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = np.load(files[2])
    for name in explain.METHODS:
        expected = explain.maps(name, classifier.model, BATCH, first)
        np.testing.assert_allclose(found[name], expected, rtol=1e-2, atol=1e-3 * expected.max(), err_msg=name)
    curve = faithfulness.deletion(classifier.model, BATCH, first, found["hires_cam"])
    np.testing.assert_allclose(found["deletion"], curve, atol=1e-3)
