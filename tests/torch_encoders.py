"""Networks of `transformers` as encoders, in a process with KERAS_BACKEND=torch. `test_backbones.py` runs it.

python tests/torch_encoders.py FOLDER
"""

import sys
from pathlib import Path

import keras
import numpy as np
import transformers

import mmkeras
from mmkeras.methods import joint_training
from mmkeras.nn.hugging_face import TransformersEncoder

SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (4, 64, 64, 3), np.uint8)
TOKENS = RNG.integers(4, 12, (4, 5)).astype("int32")


def vit():
    config = transformers.ViTConfig(image_size=64, patch_size=16, **SIZES)
    image = keras.Input((64, 64, 3))
    layer = TransformersEncoder(transformers.ViTModel(config, add_pooling_layer=False))
    return keras.Model(image, layer(image), name="vit")


def captions(folder):
    """A ViT trains or is frozen, and the file of the model is complete."""
    for fine_tune in (True, False):
        network = vit()
        model = mmkeras.captioning.build(
            "toy", vocabulary=12, encoder=network, fine_tune=fine_tune, units=8, embedding_dim=8
        )
        inner = model.get_layer("encoder").get_layer("grid").network
        assert inner.output_shape == (None, 4, 4, 8)
        before = [w.copy() for w in inner.get_weights()]
        for a, b in zip(before, network.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        model.fit({"image": IMAGES, "tokens": TOKENS}, TOKENS, verbose=0)
        changed = any(not np.array_equal(a, b) for a, b in zip(before, inner.get_weights(), strict=True))
        assert changed == fine_tune
        captioner = mmkeras.captioning.Captioner(model)
        captioner.save(folder / "captioner.keras")
        loaded = mmkeras.load(folder / "captioner.keras")
        np.testing.assert_array_equal(captioner.generate(IMAGES)[0], loaded.generate(IMAGES)[0])
        assert loaded.explain(IMAGES[0], max_length=4).maps.shape[1:] == (4, 4)
        model.save_weights(folder / "captioner.weights.h5")
        expected = model.predict_on_batch({"image": IMAGES, "tokens": TOKENS})
        model.set_weights([np.zeros_like(w) for w in model.get_weights()])
        model.load_weights(folder / "captioner.weights.h5")
        np.testing.assert_array_equal(model.predict_on_batch({"image": IMAGES, "tokens": TOKENS}), expected)


def texts(folder):
    """A BERT is the encoder of the texts, and ignores padding."""
    config = transformers.BertConfig(vocab_size=12, max_position_embeddings=16, **SIZES)
    tokens = keras.Input((None,), dtype="int32")
    layer = TransformersEncoder(transformers.BertModel(config))
    network = keras.Model(tokens, layer(tokens))
    padded = np.pad(TOKENS, ((0, 0), (0, 3)))
    vectors = network.predict_on_batch(padded)[:, :5]
    np.testing.assert_allclose(vectors, network.predict_on_batch(TOKENS), atol=1e-5)
    network = keras.Model(tokens, keras.layers.GlobalAveragePooling1D()(layer(tokens)), name="bert")
    model = joint_training.build({"text": network}, {"shape": ["circle", "star"]}, units=8)
    model.fit({"text": TOKENS}, {"shape": np.array([0, 1, 0, 1])}, verbose=0)
    classifier = mmkeras.tasks.predictor(model)
    classifier.save(folder / "classifier.keras")
    loaded = mmkeras.load(folder / "classifier.keras").model
    expected = model.predict_on_batch({"text": TOKENS})["shape"]
    np.testing.assert_array_equal(loaded.predict_on_batch({"text": TOKENS})["shape"], expected)


def refusals():
    """Modules that are no such network, and one whose averages a copy would lose."""
    import torch

    for module in (torch.nn.Linear(2, 2), transformers.ResNetModel(transformers.ResNetConfig(depths=[1] * 4))):
        try:
            TransformersEncoder(module)
        except ValueError as error:
            assert f"module={type(module).__name__}" in str(error), error
        else:
            raise AssertionError(module)
    image = keras.Input((64, 64, 3))
    plain = keras.layers.TorchModuleWrapper(torch.nn.Identity(), output_shape=(None, 64, 64, 3))
    try:
        mmkeras.captioning.build("toy", vocabulary=12, encoder=keras.Model(image, plain(image)))
    except ValueError as error:
        assert "TorchModuleWrapper" in str(error), error
    else:
        raise AssertionError(plain)


if __name__ == "__main__":
    captions(Path(sys.argv[1]))
    texts(Path(sys.argv[1]))
    refusals()
