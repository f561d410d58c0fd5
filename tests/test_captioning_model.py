"""Captioning's graph: what `build` returns, and the weights of its encoder."""

import warnings

import h5py
import keras
import numpy as np
import pytest
from keras import ops

import mmkeras
from mmkeras.captioning import build
from mmkeras.text.vocabulary import Vocabulary

TINY = {"image_size": 64, "units": 8, "embedding_dim": 8}


@pytest.fixture(scope="module")
def no_imagenet(tmp_path_factory):
    """ImageNet's weights are neither in Keras's cache nor available from a network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("keras.src.applications.vgg16.WEIGHTS_PATH_NO_TOP", "http://localhost:9/vgg16.h5")
        home = str(tmp_path_factory.mktemp("keras"))
        patch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: home)
        yield


def test_the_document_preset_falls_back_to_random_weights(no_imagenet):
    with pytest.warns(UserWarning, match="weights=None") as caught:
        model = build("document")
    assert [warning.filename for warning in caught] == [__file__]
    assert type(model).__name__ == "Functional" and model.compiled
    assert model.output_shape == (None, None, 10_000)
    grid = model.get_layer("encoder").get_layer("grid")
    assert grid.network.output_shape == (None, 7, 7, 512) and not grid.trainable
    logits = model({"image": np.zeros((1, 224, 224, 3)), "tokens": np.array([[2, 5, 6]])})
    assert logits.shape == (1, 3, 10_000) and np.isfinite(logits).all()


def test_unavailable_imagenet_weights_raise(no_imagenet):
    with pytest.raises(OSError, match="weights=.vgg16"):
        build("document", weights="imagenet", image_size=64)


def test_training_on_photos_refuses_random_weights(no_imagenet, photos):
    data = mmkeras.captioning.data(photos, image_size=64)
    with pytest.warns(UserWarning, match="weights=None"):
        model = build("document", vocabulary=data.vocabulary, **TINY)
    with pytest.raises(ValueError, match="weights=None"):
        mmkeras.captioning.with_features(data, model)


def write_keras_layout(path, layers):
    """Writes weights as Keras does: one group per layer, and an attribute with the names of its arrays."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in layers]
        file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", b"2"
        for layer in layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{w.name}:0" for w in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, layer.weights, strict=True):
                group[name] = ops.convert_to_numpy(weight)


def test_weights_are_loaded_from_a_file(tmp_path):
    expected = keras.applications.VGG16(include_top=False, weights=None)
    path = tmp_path / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
    write_keras_layout(path, expected.layers)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = build("document", weights=path, vocabulary=50, **TINY)
    loaded = model.get_layer("encoder").get_layer("grid").network.weights
    assert len(loaded) == len(expected.weights) == 26
    for a, b in zip(loaded, expected.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_files_without_the_weights_of_vgg16_are_refused(tmp_path):
    layers = keras.applications.VGG16(include_top=False, weights=None).layers[:5]
    write_keras_layout(tmp_path / "other.h5", layers)
    (tmp_path / "text.h5").write_text("no weights")
    for name in ("other.h5", "text.h5"):
        with pytest.raises(ValueError, match=f"{name}.*vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"):
            build("document", weights=tmp_path / name, **TINY)


def test_fine_tune_makes_the_encoder_trainable():
    frozen = build("document", weights=None, vocabulary=20, **TINY)
    tuned = build("document", weights=None, vocabulary=20, fine_tune=True, **TINY)
    assert len(tuned.trainable_weights) - len(frozen.trainable_weights) == 26
    assert not any("block" in w.path for w in frozen.trainable_weights)


def test_a_frozen_encoder_accepts_grid_features():
    model = build("document", weights=None, vocabulary=20, **TINY)
    image = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    tokens = np.array([[2, 5, 6], [2, 7, 0]])
    grid = model.get_layer("encoder").get_layer("grid").network(image)
    np.testing.assert_allclose(
        model({"image": image, "tokens": tokens}),
        model({"image": ops.convert_to_numpy(grid), "tokens": tokens}),
        atol=1e-5,
    )


def test_the_graph_normalizes_pixels():
    model = build("toy", vocabulary=20)
    tokens = np.array([[2, 5]])
    dark, light = (np.full((1, 64, 64, 3), v, "uint8") for v in (0, 255))
    grids = [model.get_layer("encoder").get_layer("grid")(ops.cast(x, "float32")) for x in (dark, light)]
    assert all(np.abs(grid).max() < 50 for grid in grids)
    assert model({"image": light, "tokens": tokens}).shape == (1, 2, 20)


def test_the_vocabulary_is_saved_with_the_model(tmp_path):
    vocabulary = Vocabulary(["红", "圆"], "character")
    model = build("toy", vocabulary=vocabulary)
    mmkeras.captioning.Captioner(model).save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("decoder").get_layer("embedding").vocabulary == vocabulary


def test_compile_false_leaves_the_model_uncompiled():
    assert not build("toy", vocabulary=20, compile=False).compiled


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"preset": "huge"}, ValueError, "preset='huge'"),
        ({"preset": "toy", "unit": 3}, TypeError, "Received: unit"),
        ({"preset": "toy", "encoder": "resnet"}, ValueError, "encoder='resnet'"),
        ({"preset": "toy", "image_size": 8}, ValueError, "image_size=8"),
        ({"preset": "toy", "weights": "imagenet"}, ValueError, "weights='imagenet'"),
        ({"preset": "document", "weights": "nowhere.h5"}, FileNotFoundError, "nowhere.h5"),
        ({"preset": "toy", "vocabulary": 2}, ValueError, "vocabulary=2"),
    ],
)
def test_invalid_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        build(**arguments)
