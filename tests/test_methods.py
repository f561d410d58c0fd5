"""The three methods of chapters 3 and 4."""

import keras
import numpy as np
import pytest

from mmkeras import text_to_image
from mmkeras.methods import cross_modal_pretraining, joint_training, modality_translation, scenes


@pytest.fixture(scope="module")
def examples():
    return scenes.degraded(scenes.examples("train", 48), gray=0.5, noise=20, occluded=0.1, masked=0.3)


def tiny_encoders(examples):
    """Encoders without any weights to speak of."""
    models = {}
    for name, values in examples.inputs.items():
        x = inputs = keras.Input(values.shape[1:], dtype=values.dtype)
        x = keras.layers.Embedding(50, 4)(x) if name == "text" else keras.layers.Rescaling(1 / 255)(x)
        x = x if name == "text" else keras.layers.Dense(4)(keras.layers.Flatten()(x))
        models[name] = keras.Model(inputs, x, name=name)
    return models


def test_the_labels_of_an_example_are_those_of_its_caption(examples):
    clean = scenes.examples("train", 48)
    for row in range(48):
        text = clean.vocabulary.decode(clean.inputs["text"][row])
        thing = scenes.scene.parse(text).things[0]
        for name, values in scenes.ATTRIBUTES.items():
            assert values[clean.labels[name][row]] == getattr(thing, name)


def test_degrading_takes_away_what_it_says():
    clean = scenes.examples("test", 32)
    same = scenes.degraded(clean)
    np.testing.assert_array_equal(same.inputs["image"], clean.inputs["image"])
    np.testing.assert_array_equal(same.inputs["text"], clean.inputs["text"])
    gray = scenes.degraded(clean, gray=1.0, masked=1.0)
    assert np.ptp(gray.inputs["image"], axis=-1).max() < 1e-3
    assert set(np.unique(gray.inputs["text"])) == {0, 1, 2, 3}  # only special tokens are left


@pytest.mark.parametrize("fusion", joint_training.FUSIONS)
def test_joint_training_equals_its_formula(fusion, examples):
    model = joint_training.build(tiny_encoders(examples), scenes.CLASSES, fusion, units=8)
    encoded = [model.get_layer(f"{name}_encoder").encoder(x) for name, x in examples.inputs.items()]
    expected = model.get_layer("fusion")(encoded)
    logits = model(dict(examples.inputs))
    assert logits.keys() == scenes.CLASSES.keys()
    for name in logits:
        np.testing.assert_allclose(logits[name], expected[name], atol=1e-5)


@pytest.mark.parametrize("fusion", joint_training.FUSIONS)
def test_joint_training_learns_with_modality_dropout_and_is_saved(fusion, examples, tmp_path):
    model = joint_training.build(tiny_encoders(examples), scenes.CLASSES, fusion, 0.5, units=8)
    history = model.fit(examples.inputs, examples.labels, epochs=4, batch_size=16, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    model.save(tmp_path / "model.keras")
    before = joint_training.Classifier(model)
    after = joint_training.Classifier(keras.saving.load_model(tmp_path / "model.keras"))
    for given in (("image",), ("text", "touch"), ("image", "text", "touch")):
        inputs = {name: examples.inputs[name] for name in given}
        for name, ids in before(inputs).items():
            np.testing.assert_array_equal(after(inputs)[name], ids)


def test_modality_dropout_never_drops_all():
    layer = joint_training.CompleteModalities(1.0)
    ones = [np.ones((200, 3), "float32"), np.ones((200, 2, 3), "float32"), np.ones((200, 3), "float32")]
    kept = np.stack([np.asarray(x).reshape(200, -1)[:, 0] == 1 for x in layer(ones, training=True)])  # (3, 200)
    assert (kept.sum(axis=0) == 1).all() and kept.any(axis=1).all()
    assert all((np.asarray(x) == 1).all() for x in layer(ones))


def test_joint_training_refuses_what_it_cannot_use(examples):
    encoders = tiny_encoders(examples)
    image = keras.Input((4, 4, 3))
    grid = keras.Model(image, keras.layers.Conv2D(2, 3)(image))
    with pytest.raises(ValueError, match=r"encoders\['grid'\].*\(None, 2, 2, 2\)"):
        joint_training.build({"grid": grid}, scenes.CLASSES)
    with pytest.raises(ValueError, match="fusion='sum'"):
        joint_training.build(encoders, scenes.CLASSES, "sum")
    classifier = joint_training.Classifier(joint_training.build(encoders, scenes.CLASSES, units=8))
    with pytest.raises(ValueError, match="'image', 'text', 'touch'.*smell"):
        classifier({"smell": examples.inputs["touch"]})
    with pytest.raises(ValueError, match="at least one"):
        classifier({})


def test_the_experiment_of_joint_training_scores_every_combination():
    results = joint_training.experiment(train=64, test=16, epochs=1)
    assert set(results.scores["concat of three"]) == {"image + text + touch", "image", "text", "touch"}
    assert all(0 <= share <= 1 for scores in results.scores.values() for share in scores.values())
    assert {len(values) for values in results.curves.values()} == {len(results.noise)}
    assert len(results.plot().axes[0].lines) == 3


def test_one_encoder_is_pretrained_on_single_modalities_and_fine_tuned_on_pairs(examples):
    encoder = cross_modal_pretraining.shared_encoder(examples.vocabulary, width=16, blocks=1, heads=2)
    first = [np.array(weight) for weight in encoder.h.weights]
    losses = cross_modal_pretraining.pretrain(encoder, examples, "words and patches", steps=4)
    assert len(losses) == 4 and np.isfinite(losses).all()
    trained = [np.array(weight) for weight in encoder.h.weights]
    assert any((a != b).any() for a, b in zip(first, trained, strict=True))
    model = cross_modal_pretraining.build(encoder, scenes.CLASSES, steps=2, units=8)
    assert model.get_layer("h") is encoder.h  # the same layer for both modalities
    inputs = {name: examples.inputs[name] for name in ("image", "text")}
    pooled = []
    for name, x in inputs.items():
        vectors, mask = (np.array(y) for y in encoder(name, x))
        pooled.append((vectors * mask[..., None]).sum(axis=1) / mask.sum(axis=1)[:, None])
    expected = model.get_layer("g")(pooled)
    logits = model(inputs)
    for name in scenes.CLASSES:
        np.testing.assert_allclose(logits[name], expected[name], atol=1e-4)
    model.fit(inputs, examples.labels, epochs=1, batch_size=16, verbose=0)
    with pytest.raises(ValueError, match="kind='pictures'"):
        cross_modal_pretraining.pretrain(encoder, examples, "pictures")


def test_masked_batches_hide_words_and_patches_and_keep_their_targets(examples):
    texts, images = examples.inputs["text"], examples.inputs["image"]
    rng = np.random.default_rng(0)
    inputs, targets, weights = cross_modal_pretraining.masked_batch(texts, images, "words and patches", rng)
    changed = inputs["text"] != texts
    assert (inputs["text"][changed] == 1).all() and (weights["words"][changed] == 1).all()
    np.testing.assert_array_equal(targets["words"], texts)
    np.testing.assert_allclose(targets["pixels"], cross_modal_pretraining.patches(images))
    hidden = cross_modal_pretraining.patches(inputs["image"])[weights["pixels"] == 1]
    np.testing.assert_allclose(hidden, 0, atol=1e-6)
    assert 0.4 < weights["pixels"].mean() < 0.6


def test_translation_reads_what_the_translator_generates():
    generator = text_to_image.build("toy", vocabulary=20, image_size=16, units=8, channels=8)
    classifier = text_to_image.classifier.build_classifier(scenes.ATTRIBUTES, 16)
    chain = modality_translation.build(generator, classifier)
    tokens = np.array([[2, 5, 6, 3], [2, 7, 3, 0]])
    image = np.array(generator({"tokens": tokens}))
    outputs = chain({"tokens": tokens})
    np.testing.assert_allclose(outputs["image"], image, atol=1e-5)
    expected = classifier(255 * image)
    for name in scenes.ATTRIBUTES:
        np.testing.assert_allclose(outputs[name], expected[name], atol=1e-4)
    with pytest.raises(ValueError, match=r"reader.*\(None, 16, 16, 3\).*\(None, 32, 32, 3\)"):
        modality_translation.build(generator, text_to_image.classifier.build_classifier(scenes.ATTRIBUTES, 32))
