"""The three methods of chapters 3 and 4."""

import json

import keras
import numpy as np
import pytest
from matplotlib.image import AxesImage

from mmkeras import text_to_image
from mmkeras.data.vocabulary import PAD, SPECIAL, UNKNOWN
from mmkeras.methods import (
    Classifier,
    classification,
    compare,
    cross_modal_pretraining,
    joint_training,
    modality_translation,
    records,
    scenes,
)

MODALITIES = ("image", "text", "touch", "speech")


@pytest.fixture(scope="module")
def examples():
    return scenes.degraded(scenes.examples("train", 48, modalities=MODALITIES), **scenes.DEGRADATION)


@pytest.fixture
def tiny_pairs(monkeypatch):
    """The experiments with few pairs and steps."""
    sizes = {
        "PAIRS": 40,
        "TEST_PAIRS": 12,
        "SEEDS": (0,),
        "FRACTIONS": (0.5,),
        "PRETRAINING_STEPS": 2,
        "STEPS": 2,
    }
    for name, value in sizes.items():
        monkeypatch.setattr(cross_modal_pretraining, name, value)
    monkeypatch.setattr(cross_modal_pretraining, "_SPEECH_SPLITS", (("train", 16), ("test", 8)))
    experiments = (cross_modal_pretraining.pairs, cross_modal_pretraining.spoken_pairs)
    for cached in experiments:
        cached.cache_clear()
    yield
    for cached in experiments:
        cached.cache_clear()


def tiny_encoders(examples):
    """Encoders of vectors (B, 4), for texts (B, 16, 4)."""
    models = {}
    for name, values in examples.inputs.items():
        x = inputs = keras.Input(values.shape[1:], dtype=values.dtype)
        x = keras.layers.Embedding(50, 4)(x) if name == "text" else keras.layers.Rescaling(1 / 255)(x)
        x = x if name == "text" else keras.layers.Dense(4)(keras.layers.Flatten()(x))
        models[name] = keras.Model(inputs, x, name=name)
    return models


def tiny_encoder(vocabulary):
    return cross_modal_pretraining.shared_encoder(vocabulary, width=16, blocks=1, heads=2)


# --- scenes ---


def test_the_labels_of_an_example_are_those_of_its_caption(examples):
    clean = scenes.examples("train", 48)
    for row in range(48):
        text = clean.vocabulary.decode(clean.inputs["text"][row])
        thing = scenes.scene.parse(text).things[0]
        for name, values in scenes.ATTRIBUTES.items():
            assert values[clean.labels[name][row]] == getattr(thing, name)


def test_texts_are_spoken_and_end_with_the_clip():
    clips = scenes.examples("test", 4, modalities=("text", "speech"))
    assert clips.inputs["speech"].shape == (4, scenes.FRAMES, scenes.STACKED * scenes.BANDS)
    valid = np.any(clips.inputs["speech"], axis=-1)  # (4, FRAMES)
    assert (np.diff(valid.astype(int), axis=1) <= 0).all() and (valid.sum(axis=1) > 15).all()
    assert valid.sum() < valid.size
    for text in clips.texts:
        assert scenes.scene.parse(text)
    with pytest.raises(ValueError, match="modalities.*'smell'"):
        scenes.examples("test", 4, modalities=("text", "smell"))


def test_degrading_takes_away_what_it_says():
    clean = scenes.examples("test", 32)
    same = scenes.degraded(clean)
    np.testing.assert_array_equal(same.inputs["image"], clean.inputs["image"])
    np.testing.assert_array_equal(same.inputs["text"], clean.inputs["text"])
    gray = scenes.degraded(clean, gray=1.0, masked=1.0)
    assert np.ptp(gray.inputs["image"], axis=-1).max() < 1e-3
    assert (gray.inputs["text"] < len(SPECIAL)).all()
    assert gray.texts == [""] * 32


# --- joint training ---


@pytest.mark.parametrize("fusion", joint_training.FUSIONS)
def test_joint_training_equals_its_formula(fusion, examples):
    model = joint_training.build(tiny_encoders(examples), scenes.CLASSES, fusion, units=8)
    encoded = [model.get_layer(f"{name}_encoder").encoder(x) for name, x in examples.inputs.items()]
    expected = model.get_layer("g")(encoded)
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
    before = Classifier(model)
    after = Classifier(keras.saving.load_model(tmp_path / "model.keras"))
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
    classifier = Classifier(joint_training.build(encoders, scenes.CLASSES, units=8))
    with pytest.raises(ValueError, match="'image', 'text', 'touch', 'speech'.*smell"):
        classifier({"smell": examples.inputs["touch"]})
    with pytest.raises(ValueError, match="at least one"):
        classifier({})


def test_every_modality_has_an_encoder(examples):
    for name, encoder in joint_training.encoders(examples.vocabulary, MODALITIES, units=8).items():
        assert encoder(examples.inputs[name][:2]).shape == (2, 8)


@pytest.mark.quality
def test_the_experiment_of_joint_training_scores_every_combination(monkeypatch, tmp_path):
    results = joint_training.experiment(train=40, test=16, steps=1)
    monkeypatch.setattr(joint_training, "experiment", lambda: results)
    assert set(results.scores["concat of three"]) == {"image + text + touch", "image", "text", "touch"}
    assert all(0 <= share <= 1 for scores in results.scores.values() for share in scores.values())
    assert {len(values) for values in results.curves.values()} == {len(results.noise)}
    assert len(results.plot().axes[0].lines) == 3
    written = joint_training.run(tmp_path / "results.json")
    assert records.read(tmp_path / "results.json", joint_training.Results) == written
    assert written.scores == results.scores and "joint_training" in written.measured["command"]


def test_shipped_results_of_joint_training_keep_what_the_chapter_says():
    results = joint_training.results()
    alone = {name: results.scores[name][name] for name in ("image", "text")}
    fused = results.scores["concat"]
    assert fused["image + text"] >= max(alone.values()) + 0.05
    assert all(fused[name] >= share - 0.03 for name, share in alone.items())


# --- cross-modal pre-training ---


def test_one_encoder_is_pretrained_on_single_modalities_and_fine_tuned_on_pairs(examples):
    encoder = tiny_encoder(examples.vocabulary)
    first = [np.array(weight) for weight in encoder.h.weights]
    model = cross_modal_pretraining.pretrain(encoder, examples, "words and patches", steps=4)
    assert np.isfinite(model.history.history["loss"]).all()
    trained = [np.array(weight) for weight in encoder.h.weights]
    assert any((a != b).any() for a, b in zip(first, trained, strict=True))
    with pytest.raises(ValueError, match="kind='pictures'"):
        cross_modal_pretraining.pretrain(encoder, examples, "pictures")


@pytest.mark.parametrize("modalities", [("image", "text"), ("text", "speech")])
def test_cross_modal_pretraining_equals_its_formula(modalities, examples, tmp_path):
    encoder = tiny_encoder(examples.vocabulary)
    model = cross_modal_pretraining.build(encoder, scenes.CLASSES, modalities, steps=2, units=8)
    assert model.get_layer("h") is encoder.h  # the same layer for both modalities
    inputs = {name: examples.inputs[name] for name in modalities}
    expected = model.get_layer("g")([tensor for name, x in inputs.items() for tensor in encoder(name, x)])
    logits = model(inputs)
    for name in scenes.CLASSES:
        np.testing.assert_allclose(logits[name], expected[name], atol=1e-4)
    classification.fit(model, examples, steps=2)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    after = Classifier(loaded)(inputs)
    for name, ids in Classifier(model)(inputs).items():
        np.testing.assert_array_equal(after[name], ids)
    with pytest.raises(ValueError, match=f"all of '{modalities[0]}', '{modalities[1]}'.*{modalities[0]}"):
        Classifier(model)({modalities[0]: inputs[modalities[0]]})
    with pytest.raises(ValueError, match="modalities.*'smell'"):
        cross_modal_pretraining.build(encoder, scenes.CLASSES, ("image", "smell"), steps=2)


def test_padding_does_not_change_the_answer(examples):
    encoder = tiny_encoder(examples.vocabulary)
    text = examples.inputs["text"][:4].copy()
    padding = np.flatnonzero((text == PAD).all(axis=0))
    vectors, mask, types = encoder.embed["text"](text)
    changed = np.array(vectors)
    changed[:, padding] = 100
    before, after = (
        np.array(encoder.h([x, mask, types])) for x in (vectors, keras.ops.convert_to_tensor(changed))
    )
    valid = np.array(mask)
    np.testing.assert_allclose(after[valid], before[valid], atol=1e-5)


def test_training_masks_words_and_patches_at_their_rates(examples):
    text, image = examples.inputs["text"], examples.inputs["image"]
    words, patches = cross_modal_pretraining.MaskedWords(0.5), cross_modal_pretraining.MaskedPatches(0.5)
    np.testing.assert_array_equal(words(text), text)
    np.testing.assert_array_equal(patches(image), image)
    masked = np.array(words(text, training=True))
    changed = masked != text
    assert (masked[changed] == UNKNOWN).all() and (text[changed] >= len(SPECIAL)).all()
    assert 0.4 < changed.sum() / (text >= len(SPECIAL)).sum() < 0.6
    masked = np.array(patches(image, training=True))
    size = cross_modal_pretraining.PATCH
    is_gray = (masked == 127.5).all(axis=-1)[:, ::size, ::size]  # (N, 8, 8)
    assert 0.45 < is_gray.mean() < 0.55
    kept = np.repeat(np.repeat(~is_gray, size, axis=1), size, axis=2)
    np.testing.assert_array_equal(masked[kept], image[kept])


def test_half_of_the_pairs_to_match_have_the_text_of_another_scene():
    clean = scenes.examples("train", 200)
    pairs = cross_modal_pretraining.matching(clean)
    assert 80 < pairs.labels["match"].sum() < 120
    described = [scenes.scene.parse(text).things[0] for text in pairs.texts]
    for row, thing in enumerate(described):
        truth = {name: values[clean.labels[name][row]] for name, values in scenes.ATTRIBUTES.items()}
        assert pairs.labels["match"][row] == all(getattr(thing, name) == value for name, value in truth.items())


@pytest.mark.parametrize("fraction", [0.001, 0.0, -0.1, 1.5])
def test_a_fraction_that_leaves_no_pair_is_refused(fraction, examples):
    with pytest.raises(ValueError, match=f"fraction={fraction}"):
        cross_modal_pretraining.subset(examples, fraction)
    assert len(cross_modal_pretraining.subset(examples, 0.5)) == 24


@pytest.mark.quality
def test_the_experiment_of_pretraining_fills_its_grid(tiny_pairs, tmp_path):
    results = cross_modal_pretraining.run(tmp_path / "results.json")
    assert records.read(tmp_path / "results.json", cross_modal_pretraining.Results) == results
    assert {len(shares) for kind in results.accuracy.values() for shares in kind.values()} == {1}
    assert results.accuracy.keys() == set(cross_modal_pretraining.KINDS)
    assert len(results.plot().axes[0].lines) == 3 and len(results.plot_speech().axes[0].lines) == 2


def test_fine_tuning_in_an_experiment_leaves_the_encoder_as_it_was(tiny_pairs):
    encoder = cross_modal_pretraining.pretrained("words")
    before = [np.array(weight) for weight in encoder.weights]
    cross_modal_pretraining.accuracy(encoder, 0.5)
    for weight, values in zip(encoder.weights, before, strict=True):
        np.testing.assert_array_equal(weight, values)


def test_shipped_results_of_pretraining_keep_what_the_chapter_says():
    results = cross_modal_pretraining.results()
    scratch, words = (results.accuracy[kind]["0.05"] for kind in ("none", "words"))
    assert len(scratch) == len(words) == 3 and min(words) > max(scratch)
    for file in (joint_training.RESULTS, cross_modal_pretraining.RESULTS):
        assert json.loads(file.read_text())["measured"].keys() == {
            "command",
            "version",
            "date",
            "machine",
            "minutes",
        }


# --- modality translation ---


@pytest.mark.parametrize("adversarial", [False, True])
def test_translation_reads_what_the_translator_generates(adversarial):
    sizes = {"image_size": 16, "units": 8, "channels": 8}
    generator = text_to_image.build("toy", vocabulary=20, adversarial=adversarial, **sizes)
    classifier = text_to_image.classifier.build_classifier(scenes.ATTRIBUTES, 16)
    chain = modality_translation.build(generator, classifier)
    inputs = {"tokens": keras.ops.array([[2, 5, 6, 3], [2, 7, 3, 0]])}
    if adversarial:
        inputs["noise"] = keras.random.normal((2, *chain.input["noise"].shape[1:]), seed=0)
        image = np.array(generator.decoder([generator.encoder(inputs["tokens"]), inputs["noise"]])[0])
    else:
        image = np.array(generator(inputs))
    outputs = chain(inputs)
    np.testing.assert_allclose(outputs["image"], image, atol=1e-5)
    expected = classifier(255 * image)
    for name in scenes.ATTRIBUTES:
        np.testing.assert_allclose(outputs[name], expected[name], atol=1e-4)
    with pytest.raises(ValueError, match=r"reader.*\(None, 16, 16, 3\).*\(None, 32, 32, 3\)"):
        modality_translation.build(generator, text_to_image.classifier.build_classifier(scenes.ATTRIBUTES, 32))


def test_translation_keeps_the_scene_through_a_sharp_image_and_loses_the_shape_through_a_blurred_one():
    results = modality_translation.experiment(train=1000, test=64)
    scores = results.scores
    direct, adversarial = scores["text → class"], scores["text → image (adversarial) → class"]
    assert adversarial["all"] >= direct["all"] - 0.03
    assert scores["text → image (pixel loss) → class"]["shape"] < adversarial["shape"] - 0.05
    assert scores["image → caption → class"]["all"] >= scores["image → class"]["all"] - 0.03
    assert len(results.grid().findobj(AxesImage)) == 12 and len(results.plot().axes[0].patches) == 25


def test_the_comparison_asks_all_methods_the_same_question(tiny_pairs, monkeypatch):
    monkeypatch.setattr("mmkeras.methods.comparison.STEPS", 2)
    comparison = compare(fraction=0.5)
    assert [row["labeled_pairs"] for row in comparison.rows] == [20, 20, 20]
    assert all(0 <= row["accuracy"] <= 1 and row["parameters"] > 100_000 for row in comparison.rows)
    assert comparison.rows[2]["seconds_before"] > 60 and "modality translation" in str(comparison)
    assert len(comparison.plot().axes[0].patches) == 15
