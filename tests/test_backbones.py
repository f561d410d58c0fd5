"""Any network as the encoder of captioning and of speech."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import mmkeras
from mmkeras import captioning, speech_to_text
from mmkeras.nn import backbones, hugging_face

DECODER = {"units": 8, "embedding_dim": 8}
WORDS = [f"w{i}" for i in range(8)]
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 64, 64, 3), np.uint8)
TOKENS = np.full((3, 5), 5, "int32")


def grid(size=64, channels=3):
    image = keras.Input((size, size, channels))
    return keras.Model(image, keras.layers.Conv2D(6, 16, strides=16)(image), name="mine")


def sequence(count):
    """As a ViT: a class token, which is 1 everywhere, and patches."""
    image = keras.Input((64, 64, 3))
    patches = keras.layers.Reshape((-1, 6))(keras.layers.Conv2D(6, 16, strides=16)(image))  # (B, 16, 6)
    return keras.Model(image, keras.layers.ZeroPadding1D((count - 16, 0))(patches), name="vit")


def build(encoder, **options):
    return captioning.build("toy", vocabulary=WORDS, encoder=encoder, weights=None, **DECODER | options)


def fit_save_load(model, folder, inputs=IMAGES):
    before = [w.copy() for w in model.get_layer("encoder").get_layer("grid").network.get_weights()]
    model.fit({"image": inputs, "tokens": TOKENS}, TOKENS, verbose=0)
    captioner = captioning.Captioner(model)
    captioner.save(folder / "captioner.keras")
    loaded = mmkeras.load(folder / "captioner.keras")
    np.testing.assert_array_equal(captioner.generate(IMAGES)[0], loaded.generate(IMAGES)[0])
    assert loaded.explain(IMAGES[0], max_length=4).maps.ndim == 3
    after = model.get_layer("encoder").get_layer("grid").network.get_weights()
    return any(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fine_tune"),
    [
        pytest.param("mobilenet_v3_small", False, marks=pytest.mark.quality),
        ("mine", True),
        ("mine", False),
        ("vit", True),
    ],
)
def test_a_network_trains_is_saved_and_answers_the_same(name, fine_tune, tmp_path):
    encoder = {"mine": grid(), "vit": sequence(17)}.get(name, name)
    assert fit_save_load(build(encoder, fine_tune=fine_tune), tmp_path) == fine_tune


def test_the_class_token_is_left_out_and_the_rest_is_a_grid():
    network = sequence(17)
    cells, _ = backbones.backbone(network, 64)
    expected = network.predict_on_batch(IMAGES)[:, 1:].reshape(-1, 4, 4, 6)
    np.testing.assert_array_equal(cells.predict_on_batch(IMAGES), expected)


def test_a_sequence_that_is_no_grid_answers_and_cannot_be_explained():
    captioner = captioning.Captioner(build(sequence(19)))
    assert len(captioner(list(IMAGES), max_length=3)) == 3
    with pytest.raises(ValueError, match="sequence of 19"):
        captioner.explain(IMAGES[0])


def test_the_network_of_the_user_is_copied():
    network = grid()
    first = build(network, fine_tune=True)
    build(network, fine_tune=False)
    assert network.trainable and first.get_layer("encoder").get_layer("grid").network.trainable
    kernel = first.get_layer("encoder").get_layer("grid").network.weights[0]
    np.testing.assert_array_equal(kernel, network.weights[0])
    kernel.assign(kernel + 1)
    assert np.abs(np.asarray(kernel) - np.asarray(network.weights[0])).min() > 0.5


@pytest.mark.parametrize(
    "name", ["resnet50", "resnet50_v2", "densenet121", "convnext_tiny", "vgg16", "xception"]
)
def test_preprocessing_equals_that_of_keras(name):
    create = backbones._create(name)
    preprocess = sys.modules[create.__module__].preprocess_input
    x = IMAGES.astype("float32")
    ours = x
    for layer in backbones._preprocessing(preprocess):
        ours = layer(ours)
    np.testing.assert_allclose(ours, preprocess(x.copy()), rtol=1e-4, atol=1e-3)


def test_shipped_weights_start_a_model_of_other_words():
    ours = build("vgg_small", fine_tune=False)
    theirs = mmkeras.pretrained("captioning").network
    model = captioning.build("toy", vocabulary=WORDS, weights="captioning", fine_tune=False, **DECODER)
    network = model.get_layer("encoder").get_layer("grid").network
    for a, b in zip(network.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    fresh = ours.get_layer("encoder").get_layer("grid").network
    assert not np.array_equal(fresh.get_weights()[0], theirs.get_weights()[0])


def test_weights_come_from_a_keras_file_of_the_same_network(tmp_path):
    network = backbones.vgg_small(64)
    network.save(tmp_path / "network.keras")
    loaded, _ = backbones.backbone("vgg_small", 64, tmp_path / "network.keras")
    np.testing.assert_array_equal(loaded.predict_on_batch(IMAGES), network.predict_on_batch(IMAGES))
    with pytest.raises(ValueError, match="network.keras.*vgg16"):
        backbones.backbone("vgg16", 64, tmp_path / "network.keras")
    with pytest.raises(FileNotFoundError, match="'nowhere.keras'"):
        backbones.backbone("vgg_small", 64, "nowhere.keras")


@keras.saving.register_keras_serializable("test_backbones")
class Registered(keras.layers.Layer):
    def call(self, x):
        return x


class Unregistered(keras.layers.Layer):
    def call(self, x):
        return x


def with_layer(layer):
    image = keras.Input((64, 64, 3))
    return keras.Model(image, layer(keras.layers.Conv2D(6, 16, strides=16)(image)), name="mine")


def test_layers_of_ones_own_must_be_registered():
    assert build(with_layer(Registered()))
    for layer in (Unregistered(), keras.layers.Lambda(lambda x: x)):
        with pytest.raises(ValueError, match=f"encoder='mine' with {type(layer).__name__}.*register_keras"):
            build(with_layer(layer))


@pytest.mark.parametrize(
    ("encoder", "options", "message"),
    [
        ("efficentnet_v2_b0", {}, "encoder='efficentnet_v2_b0'.*EfficientNetV2B0"),
        (
            keras.Sequential([keras.Input((64, 64, 3)), keras.layers.Flatten()], name="flat"),
            {},
            "encoder='flat'",
        ),
        (grid(32), {}, "encoder='mine' with inputs .*32, 32"),
        (grid(channels=1), {}, "encoder='mine' with inputs"),
        (grid(), {"weights": "imagenet"}, "weights='imagenet'"),
        ("vgg_small", {"weights": "imagenet"}, "weights='imagenet'"),
    ],
)
def test_encoders_that_do_not_fit_are_refused(encoder, options, message):
    with pytest.raises(ValueError, match=message):
        captioning.build("toy", vocabulary=WORDS, encoder=encoder, **DECODER | options)


def test_images_of_another_size_are_refused_by_the_package():
    model = build("vgg_small", fine_tune=True)
    with pytest.raises(ValueError, match=r"image_size=64. Received: images of \(96, 96\)"):
        model.predict_on_batch({"image": np.zeros((1, 96, 96, 3), np.uint8), "tokens": TOKENS[:1]})


def test_features_of_a_network_of_ones_own_are_cached_once(photos):
    digests, data = set(), captioning.data(photos, image_size=64)
    for _ in range(2):
        keras.utils.set_random_seed(0)
        features = captioning.with_features(data, build(grid()))
        digests.add(str(features.splits["train"].fingerprint))
    assert len(digests) == 1


# --- speech ---


def frames(bands=8, stride=2):
    x = keras.Input((None, bands))
    return keras.Model(x, keras.layers.Conv1D(6, 3, strides=stride, padding="same")(x), name="whisper")


@pytest.mark.parametrize("head", ["attention", "ctc"])
def test_an_encoder_of_speech_trains_is_saved_and_ignores_padding(head, tmp_path):
    model = speech_to_text.build(
        "toy", vocabulary=WORDS, encoder=frames(), bands=8, subsampling=2, units=8, embedding_dim=8, head=head
    )
    transcriber = speech_to_text.Transcriber(model)
    assert transcriber.step_seconds == 0.02
    transcriber.save(tmp_path / "transcriber.keras")
    loaded = mmkeras.load(tmp_path / "transcriber.keras")
    clips = [RNG.normal(size=n).astype("float32") / 10 for n in (16_000, 9_111)]
    assert transcriber(clips, sample_rate_hz=16_000) == loaded(clips, sample_rate_hz=16_000)
    alone, padded = (transcriber.encoder.predict_on_batch(transcriber._padded(c)) for c in (clips[1:], clips))
    steps = alone[1].sum()
    # the last step of the network may look beyond the end of the clip
    np.testing.assert_allclose(padded[0][1, : steps - 1], alone[0][0, : steps - 1], atol=1e-5)
    assert padded[1][1].sum() == steps


@pytest.mark.parametrize("encoder", [frames(bands=9), frames(stride=1), grid()])
def test_encoders_of_speech_that_do_not_fit_are_refused(encoder):
    with pytest.raises(ValueError, match=f"encoder={encoder.name!r} with inputs"):
        speech_to_text.build("toy", vocabulary=WORDS, encoder=encoder, bands=8, subsampling=2)


# --- KerasHub ---


@pytest.mark.backends
def test_encoders_of_keras_hub_are_built_trained_and_saved(tmp_path):
    import keras_hub as hub

    clip = hub.models.CLIPVisionEncoder(
        patch_size=16, hidden_dim=8, num_layers=1, num_heads=2, intermediate_dim=8, image_shape=(64, 64, 3)
    )
    model = build(clip, fine_tune=True)
    assert model.get_layer("encoder").get_layer("grid").network.output_shape == (None, 4, 4, 8)
    assert fit_save_load(model, tmp_path)
    whisper = hub.models.WhisperBackbone(
        vocabulary_size=10, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=8, num_mels=8,
        max_encoder_sequence_length=400, max_decoder_sequence_length=10,
    )  # fmt: skip
    encoder = keras.Model(whisper.input["encoder_features"], whisper.output["encoder_sequence_output"])
    model = speech_to_text.build(
        "toy", vocabulary=WORDS, encoder=encoder, bands=8, subsampling=2, units=8, embedding_dim=8, head="ctc"
    )
    speech_to_text.Transcriber(model).save(tmp_path / "transcriber.keras")
    clip = RNG.normal(size=16_000).astype("float32") / 10
    loaded = mmkeras.load(tmp_path / "transcriber.keras")
    assert loaded(clip, sample_rate_hz=16_000) == speech_to_text.Transcriber(model)(clip, sample_rate_hz=16_000)


# --- transformers ---


@pytest.mark.backends
def test_encoders_of_transformers_are_trained_and_saved_on_torch(tmp_path):
    pytest.importorskip("transformers")
    environment = os.environ | {"KERAS_BACKEND": "torch", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(Path(__file__).with_name("torch_encoders.py")), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_encoders_of_transformers_need_torch_and_their_package(monkeypatch):
    assert keras.saving.get_registered_object("mmkeras>TransformersEncoder") is hugging_face.TransformersEncoder
    with pytest.raises(ValueError, match="KERAS_BACKEND=torch|backend='tensorflow'"):
        hugging_face.TransformersEncoder({"class": "ViTModel", "config": {}})
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"mmkeras\[huggingface\]"):
        hugging_face.TransformersEncoder({"class": "ViTModel", "config": {}})
