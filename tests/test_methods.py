"""The three methods of chapters 3 and 4."""

import warnings

import keras
import numpy as np
import pytest
from matplotlib.image import AxesImage

import mmkeras
from mmkeras import text_to_image
from mmkeras.methods import (
    Classifier,
    classification,
    cross_modal_pretraining,
    joint_training,
    modality_translation,
    scenes,
)
from mmkeras.methods.experiments import (
    adversarial,
    comparison,
    fusions,
    pretraining,
    protocol,
    saliency,
    translation,
)
from mmkeras.nn.fusion import CompleteModalities
from mmkeras.text.vocabulary import PAD, SPECIAL, UNKNOWN
from mmkeras.toy import builders, render

MODALITIES = ("image", "text", "touch", "speech")


@pytest.fixture(scope="module")
def examples():
    return scenes.degraded(scenes.examples("train", 48, modalities=MODALITIES), **scenes.DEGRADATION)


@pytest.fixture
def tiny_experiments(monkeypatch, tmp_path):
    """The experiments with few examples and steps."""
    sizes = {
        protocol: {
            "PAIRS": 40,
            "VALIDATION_PAIRS": 8,
            "TEST_PAIRS": 12,
            "STEPS": 4,
            "PRETRAINING_STEPS": 2,
            "EVERY": 2,
        },
        fusions: {"TRAIN": 40, "TEST": 12, "STEPS": 2},
        pretraining: {
            "SHORT_STEPS": 2,
            "COMPARED": 8,
            "SPEECH_SIZES": {"train": 40, "validation": 8, "test": 8},
        },
        comparison: {},
    }
    for module, values in sizes.items():
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
        if module is not protocol:
            monkeypatch.setattr(module, "SEEDS", (0,))
            monkeypatch.setattr(module, "RESULTS", tmp_path / f"{module.__name__}.json")
    for module in (pretraining, comparison):
        monkeypatch.setattr(module, "LABELED", (8,))
    for cached in (protocol.pairs, pretraining.spoken_pairs):
        cached.cache_clear()
    yield
    for cached in (protocol.pairs, pretraining.spoken_pairs):
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


def test_degrading_removes_colors_and_words():
    clean = scenes.examples("test", 32)
    same = scenes.degraded(clean)
    np.testing.assert_array_equal(same.inputs["image"], clean.inputs["image"])
    np.testing.assert_array_equal(same.inputs["text"], clean.inputs["text"])
    gray = scenes.degraded(clean, gray=1.0, masked=1.0)
    assert np.ptp(gray.inputs["image"], axis=-1).max() < 1e-3
    assert (gray.inputs["text"] < len(SPECIAL)).all()
    assert gray.texts == [""] * 32
    rows = np.array([5, 3])  # degraded after examples were chosen
    chosen = scenes.degraded(clean.take(rows), gray=1.0)
    np.testing.assert_array_equal(chosen.inputs["image"], gray.inputs["image"][rows])
    with pytest.raises(ValueError, match="masked=1.5"):
        scenes.degraded(clean, masked=1.5)


def test_a_gray_image_does_not_show_the_color():
    """The images of one scene in all colors differ in nothing but their lightness, if at all."""
    images = []
    for color in scenes.ATTRIBUTES["color"]:
        thing = scenes.scene.Thing("large", color, "star", "center")
        rng = np.random.default_rng(0)
        images.append(render.render(scenes.scene.Scene((thing,)), rng=rng, gray=True))
    assert all((image == images[0]).all() for image in images)


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


@pytest.mark.quality
@pytest.mark.parametrize("fusion", joint_training.FUSIONS)
def test_joint_training_learns_with_modality_dropout_and_is_saved(fusion, examples, eager_models, tmp_path):
    model = joint_training.build(tiny_encoders(examples), scenes.CLASSES, fusion, 0.5, units=8)
    history = model.fit(examples.inputs, examples.labels, epochs=6, batch_size=24, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    before = Classifier(model)
    before.save(tmp_path / "model.keras")
    after = mmkeras.load(tmp_path / "model.keras")
    for given in (("image",), ("text", "touch"), ("image", "text", "touch")):
        inputs = {name: examples.inputs[name] for name in given}
        for name, ids in before(inputs).items():
            np.testing.assert_array_equal(after(inputs)[name], ids)


def test_modality_dropout_never_drops_all():
    layer = CompleteModalities(1.0)
    padded = np.tile([True, False], (200, 1))
    ones = [[np.ones((200, 3), "float32")], [np.ones((200, 2, 3), "float32"), padded]]
    ones.append([np.ones((200, 3), "float32")])

    def stays(modalities, training):
        return [np.asarray(x).reshape(200, -1)[:, 0] == 1 for x, *_ in layer(modalities, training=training)]

    drawn = np.stack(stays(ones, training=True))  # (3, 200)
    assert (drawn.sum(axis=0) == 1).all() and drawn.any(axis=1).all()
    assert np.all(stays(ones, training=False))
    given = stays([[None], ones[1], [None]], training=True)
    assert given[1].all() and not given[0].any() and not given[2].any()  # the only one that is there stays
    mask = layer([ones[0], [None, None], ones[2]])[1][1]
    assert np.all(mask)  # each of the learned vectors counts


def test_cross_attention_chooses_among_the_vectors_of_a_sequence(examples):
    encoders = joint_training.encoders(examples.vocabulary, units=8, sequences=True)
    text, mask = encoders["text"](examples.inputs["text"])
    assert encoders["image"](examples.inputs["image"][:2]).shape == (2, 64, 8) and text.shape == (48, 16, 8)
    model = joint_training.build(encoders, scenes.CLASSES, "cross_attention", units=8)
    grid = encoders["image"](examples.inputs["image"])

    def color(words):
        return np.array(model.get_layer("g")([grid, keras.ops.convert_to_tensor(words), mask])["color"])

    changed = np.array(text)
    changed[~np.array(mask)] = 100
    np.testing.assert_allclose(color(changed), color(text), atol=1e-4)  # padding does not count
    changed[:, 1] = changed[::-1, 1]  # another word
    assert np.abs(color(changed) - color(text)).max() > 1e-4


def test_joint_training_refuses_what_it_cannot_use(examples):
    encoders = tiny_encoders(examples)
    image = keras.Input((4, 4, 3))
    grid = keras.Model(image, keras.layers.Conv2D(2, 3)(image))
    with pytest.raises(ValueError, match=r"encoders\['grid'\].*\(None, 2, 2, 2\)"):
        joint_training.build({"grid": grid}, scenes.CLASSES)
    with pytest.raises(ValueError, match="fusion='sum'"):
        joint_training.build(encoders, scenes.CLASSES, "sum")
    vectors = {name: encoders[name] for name in ("image", "touch")}
    with pytest.raises(ValueError, match="encoders.*'image' and 'touch'"):
        joint_training.build(vectors, scenes.CLASSES, "cross_attention")
    classifier = Classifier(joint_training.build(encoders, scenes.CLASSES, units=8))
    with pytest.raises(ValueError, match="'image', 'text', 'touch', 'speech'.*smell"):
        classifier({"smell": examples.inputs["touch"]})
    with pytest.raises(ValueError, match="at least one"):
        classifier({})


def test_every_modality_has_an_encoder(examples):
    for name, encoder in joint_training.encoders(examples.vocabulary, MODALITIES, units=8).items():
        assert encoder(examples.inputs[name][:2]).shape == (2, 8)
    with pytest.raises(ValueError, match="modalities.*'smell'"):
        joint_training.encoders(examples.vocabulary, ["smell"])


# --- cross-modal pre-training ---


def test_one_encoder_is_pretrained_on_single_modalities_and_fine_tuned_on_pairs(examples, eager_models):
    encoder = tiny_encoder(examples.vocabulary)
    first = [np.array(weight) for weight in encoder.h.weights]
    model = cross_modal_pretraining.pretrain(encoder, examples, "words and patches", steps=4)
    assert np.isfinite(model.history.history["loss"]).all()
    trained = [np.array(weight) for weight in encoder.h.weights]
    assert any((a != b).any() for a, b in zip(first, trained, strict=True))
    with pytest.raises(ValueError, match="kind='pictures'"):
        cross_modal_pretraining.pretrain(encoder, examples, "pictures")


@pytest.mark.parametrize("modalities", [("image", "text"), ("text", "speech")])
def test_cross_modal_pretraining_equals_its_formula(modalities, examples, eager_models, tmp_path):
    encoder = tiny_encoder(examples.vocabulary)
    model = cross_modal_pretraining.build(encoder, scenes.CLASSES, modalities, units=8)
    assert model.get_layer("h") is encoder.h  # the same layer for both modalities
    inputs = {name: examples.inputs[name] for name in modalities}
    expected = model.get_layer("g")([tensor for name, x in inputs.items() for tensor in encoder(name, x)])
    logits = model(inputs)
    for name in scenes.CLASSES:
        np.testing.assert_allclose(logits[name], expected[name], atol=1e-4)
    classification.fit(model, examples, steps=2)
    Classifier(model).save(tmp_path / "model.keras")
    after = mmkeras.load(tmp_path / "model.keras")(inputs)
    for name, ids in Classifier(model)(inputs).items():
        np.testing.assert_array_equal(after[name], ids)
    with pytest.raises(ValueError, match=f"all of '{modalities[0]}', '{modalities[1]}'.*{modalities[0]}"):
        Classifier(model)({modalities[0]: inputs[modalities[0]]})
    with pytest.raises(ValueError, match="modalities.*'smell'"):
        cross_modal_pretraining.build(encoder, scenes.CLASSES, ("image", "smell"))


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
    is_word = text >= len(SPECIAL)
    for kind in ("words", "masked words only"):
        masked, weights = map(np.array, cross_modal_pretraining.masked(text, kind, [0, 1]))
        changed = masked != text
        assert (masked[changed] == UNKNOWN).all() and is_word[changed].all()
        assert 0.2 < changed.sum() / is_word.sum() < 0.4
        np.testing.assert_array_equal(weights, is_word if kind == "words" else changed)
    patches = cross_modal_pretraining.MaskedPatches(0.5)
    np.testing.assert_array_equal(patches(image), image)
    masked = np.array(patches(image, training=True))
    size = cross_modal_pretraining.PATCH
    is_gray = (masked == 127.5).all(axis=-1)[:, ::size, ::size]  # (N, 8, 8)
    assert 0.45 < is_gray.mean() < 0.55
    stays = np.repeat(np.repeat(~is_gray, size, axis=1), size, axis=2)
    np.testing.assert_array_equal(masked[stays], image[stays])


def test_half_of_the_pairs_to_match_have_the_text_of_another_scene():
    clean = scenes.examples("train", 200)
    pairs = cross_modal_pretraining.matching(clean)
    assert 80 < pairs.labels["match"].sum() < 120
    described = [scenes.scene.parse(text).things[0] for text in pairs.texts]
    for row, thing in enumerate(described):
        truth = {name: values[clean.labels[name][row]] for name, values in scenes.ATTRIBUTES.items()}
        assert pairs.labels["match"][row] == all(getattr(thing, name) == value for name, value in truth.items())


@pytest.mark.parametrize("count", [0, -1, 49, 1.5])
def test_a_sample_of_more_examples_than_there_are_is_refused(count, examples):
    with pytest.raises(ValueError, match=f"count={count}"):
        examples.sample(count)
    assert len(examples.sample(24)) == 24


def test_training_a_copy_of_an_encoder_does_not_change_it(examples, eager_models):
    encoder = tiny_encoder(examples.vocabulary)
    model = cross_modal_pretraining.build(encoder.copy(), scenes.CLASSES, units=8)
    text, before = examples.inputs["text"], [np.array(weight) for weight in encoder.h.weights]
    np.testing.assert_array_equal(model.get_layer("h").get_weights()[0], before[0])
    vectors = np.array(encoder("text", text)[0])
    classification.fit(model, examples, steps=1)
    np.testing.assert_array_equal(encoder("text", text)[0], vectors)
    assert (model.get_layer("h").get_weights()[0] != before[0]).any()


# --- modality translation ---


@pytest.mark.parametrize("adversarial", [False, True])
def test_translation_classifies_what_the_translator_generates(adversarial):
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
    with pytest.raises(ValueError, match=r"classifier.*\(None, 16, 16, 3\).*\(None, 32, 32, 3\)"):
        modality_translation.build(generator, text_to_image.classifier.build_classifier(scenes.ATTRIBUTES, 32))


def test_a_text_without_words_is_translated_into_its_own_image(examples):
    generator = text_to_image.ImageGenerator(
        text_to_image.build("toy", vocabulary=examples.vocabulary, units=8, channels=8)
    )
    empty = scenes.degraded(scenes.examples("train", 3), masked=1.0)
    empty.inputs["text"][0] = examples.inputs["text"][0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images = modality_translation.translated(generator, empty)
    own = empty.inputs["image"].astype("uint8")
    assert (images[1:] == own[1:]).all() and (images[0] != own[0]).any()


# --- experiments ---


@pytest.mark.quality
def test_translation_keeps_the_scene_through_a_sharp_image_and_blurs_the_shape_through_a_pixel_loss():
    results = translation.run(train=1000, test=64)
    scores = results.scores
    direct, adversarial = scores["text → class"], scores["text → image (adversarial) → class"]
    assert adversarial["all"] >= direct["all"] - 0.03
    assert scores["text → image (pixel loss) → class"]["shape"] < adversarial["shape"] - 0.05
    assert scores["image → caption → class"]["all"] >= scores["image → class"]["all"] - 0.03
    assert len(results.grid().findobj(AxesImage)) == 12 and len(results.plot().axes[0].patches) == 25


@pytest.mark.quality
def test_training_returns_to_the_weights_that_are_best_on_validation(examples, eager_models, monkeypatch):
    monkeypatch.setattr(protocol, "EVERY", 2)
    monkeypatch.setattr(protocol, "PATIENCE", 2)
    model = joint_training.build(tiny_encoders(examples), scenes.CLASSES, units=8, learning_rate=0.01)
    seen = []
    original = Classifier.evaluate

    def evaluate(self, examples):
        result = original(self, examples)
        seen.append(np.mean([result[name] for name in scenes.CLASSES]))
        return result

    monkeypatch.setattr(Classifier, "evaluate", evaluate)
    trained = protocol.best_fit(model, examples, examples, steps=12)
    assert trained.steps == 2 * (1 + np.argmax(seen)) <= 12
    assert original(trained.classifier, examples)["color"] > 0
    assert np.mean([original(trained.classifier, examples)[name] for name in scenes.CLASSES]) == max(seen)


@pytest.mark.quality
def test_the_experiments_run_and_read_their_results(tiny_experiments, eager_models):
    results = fusions.run(fusions.RESULTS)
    assert fusions.results() == results and "fusions.run()" in results.measured["command"]
    assert set(results.scores["concat of three"]) == {"image + text + touch", "image", "text", "touch"}
    assert len(results.plot().axes[0].lines) == 3
    results = pretraining.run(pretraining.RESULTS)
    assert pretraining.results() == results
    assert {len(shares) for kind in results.accuracy.values() for shares in kind.values()} == {1}
    assert len(results.plot().axes[0].lines) == 3 and len(results.plot_speech().axes[0].lines) == 3
    results = comparison.run(comparison.RESULTS)
    assert comparison.results() == results and set(comparison.METHODS) < set(results.accuracy)
    assert all(0 <= share <= 1 for shares in results.accuracy.values() for share in shares["8"])
    assert results.costs["modality translation"]["pretraining_seconds"] > 60
    assert "joint training" in str(results) and len(results.plot().axes[0].lines) == 6
    assert results.winner(8) is None or results.winner(8) in comparison.METHODS


def test_a_method_wins_only_if_its_worst_seed_is_ahead_of_all_others():
    shares = {"joint training": [0.5, 0.6], "cross-modal pre-training": [0.3, 0.4]}
    for third, winner in ((0.45, "joint training"), (0.55, None)):
        accuracy = {
            name: {"8": values} for name, values in (shares | {"modality translation": [0.1, third]}).items()
        }
        assert comparison.Results(accuracy, {}, {}, {}).winner(8) == winner


@pytest.mark.quality
@pytest.mark.filterwarnings("ignore:Words outside")  # of eight captions
def test_a_stopped_adversarial_experiment_leaves_the_images_drawn_so_far(tmp_path, monkeypatch, eager_models):
    monkeypatch.setattr(builders, "EXAMPLES", {"train": 8, "validation": 2, "test": 2, "test_unseen": 2})
    monkeypatch.setattr(adversarial, "SHOWN", (1, 2))
    monkeypatch.setattr(adversarial, "RESULTS", tmp_path / "adversarial.json")
    original = text_to_image.ImageGenerator.__call__
    calls = []

    def stops(self, *args, **options):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, *args, **options)

    monkeypatch.setattr(text_to_image.ImageGenerator, "__call__", stops)
    with pytest.raises(KeyboardInterrupt):
        adversarial.run(adversarial.RESULTS, data_dir=tmp_path)
    results = adversarial.results()
    assert results.shown == [1] and {len(values) for values in results.losses.values()} == {1}
    assert results.images[1].shape == (6, 64, 64, 3)


def test_the_shipped_images_of_the_adversarial_model_are_one_row_per_epoch():
    results = adversarial.results()
    assert list(results.images) == results.shown == sorted(results.shown)
    assert len(results.losses["generator_loss"]) == results.shown[-1]
    for images in results.images.values():
        assert images.shape == (len(results.prompts) * adversarial.SAMPLES, 64, 64, 3)


@pytest.mark.parametrize("experiment", [adversarial, saliency, fusions, pretraining, comparison])
def test_shipped_results_name_their_command(experiment):
    measured = experiment.results().measured
    assert measured.keys() == {"command", "version", "date", "machine", "minutes"}
    assert experiment.__name__.rpartition(".")[2] in measured["command"]
