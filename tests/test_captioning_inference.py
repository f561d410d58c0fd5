"""Captioner: training, decoding, evaluation, explanation, saving."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import mmkeras
from mmkeras.captioning import Captioner, build, evaluate
from mmkeras.evaluation import baselines
from mmkeras.evaluation.explanations import Explanation

WORDS = ["red", "blue", "circle", "square"]
STEPS = 40
IMAGE = np.full((64, 64, 3), 128)


@pytest.fixture(scope="module")
def captioner():
    """The ready-trained one, and no notes on images that are unlike the toy world's."""
    captioner = mmkeras.pretrained("captioning")
    captioner.novelty = None
    return captioner


@pytest.fixture(scope="module")
def trained(toy_data):
    """A toy model after a few steps, and the loss of each step."""
    keras.utils.set_random_seed(0)
    model = build("toy", vocabulary=toy_data.vocabulary)
    means = []  # of the steps so far, as Keras reports them
    note = keras.callbacks.LambdaCallback(on_train_batch_end=lambda i, logs: means.append(logs["loss"]))
    model.fit(toy_data.train_from(0).take(STEPS), verbose=0, callbacks=[note])
    return Captioner(model), np.diff(np.array(means) * range(1, STEPS + 1), prepend=0)


@pytest.fixture(scope="module")
def images(toy_data):
    return next(iter(toy_data.test))["image"].numpy()


@pytest.mark.quality
def test_the_loss_falls(trained):
    _, losses = trained
    assert losses[-5:].mean() < 0.85 * losses[:5].mean()


def test_one_image_gives_one_caption_and_a_list_a_list(captioner, images, tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(images[0]).save(path)
    one = captioner(path)
    assert isinstance(one, str) and one
    with path.open("rb") as file:
        inputs = [path, str(path), Image.open(path), file, path.read_bytes(), images[0]]
        assert captioner(inputs) == [one] * len(inputs)
    assert captioner(tuple(images[:40])) == [captioner(image) for image in images[:40]]


def test_unreadable_images_of_a_list_give_none(captioner, images, tmp_path):
    (tmp_path / "text.jpg").write_text("not an image")
    inputs = [images[0], tmp_path / "text.jpg", images[1], tmp_path / "missing.jpg"]
    with pytest.warns(UserWarning, match="2 of 4 images .*text.jpg.*missing.jpg"):
        captions = captioner(inputs)
    assert captions == [captioner(images[0]), None, captioner(images[1]), None]
    with pytest.raises(ValueError, match="2 of 2 images .*text.jpg"):
        captioner(inputs[1::2])


def test_beam_search_finds_captions_that_are_more_probable_than_greedy(captioner, images):
    _, greedy = captioner.generate(images)
    _, beam = captioner.generate(images, beams=16)
    assert beam.mean() > greedy.mean()  # not each: the prefix of the greedy caption can fall out of the beam


def test_log_probabilities_equal_those_of_teacher_forcing(captioner, images):
    for options in ({}, {"beams": 4}):
        tokens, log_probability = captioner.generate(images, **options)
        shifted = np.concatenate([np.full((len(tokens), 1), 2), tokens[:, :-1]], axis=1)
        logits = captioner.model.predict({"image": images, "tokens": shifted}, verbose=0).astype("float64")
        logits[..., [0, 1, 2]] = -1e9  # never generated
        log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        each = np.take_along_axis(log_probs, tokens[..., None], axis=-1)[..., 0]
        np.testing.assert_allclose(log_probability, (each * (tokens != 0)).sum(axis=1), atol=1e-3)


def test_samples_depend_on_the_seed(captioner, images):
    options = {"temperature": 1.0, "top_p": 0.95}
    one, two, three = (captioner.generate(images, seed=s, **options)[0] for s in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert (one != three).any()


def test_samples_of_an_image_depend_on_seed_and_position_only(captioner, images):
    same = [images[0]] * 40  # more than a batch
    captions = captioner(same, seed=0, temperature=2.0)
    assert captions[:3] == captioner(same[:3], seed=0, temperature=2.0)
    assert captions[32:] != captioner(same[:8], seed=32, temperature=2.0)
    tokens, _ = captioner.generate(np.stack(same[:8]), seed=0, positions=range(32, 40), temperature=2.0)
    assert captions[32:] == [captioner.vocabulary.decode(ids) for ids in tokens]


def test_explain_has_an_attention_map_per_word(captioner, images, tmp_path):
    image = Image.fromarray(images[3]).resize((90, 60))
    explanation = captioner.explain(image)
    assert explanation.caption == " ".join(explanation.words) == captioner(image)
    assert explanation.image.shape == (60, 90, 3)
    assert explanation.maps.shape == (len(explanation.words), 8, 8)
    np.testing.assert_allclose(explanation.maps.sum(axis=(1, 2)), 1, rtol=1e-4)
    explanation.plot(tmp_path / "attention.png")
    assert Image.open(tmp_path / "attention.png").width > 500


def test_evaluate_returns_all_scores(captioner, toy_data):
    scores = evaluate(captioner, toy_data.test.take(3))
    assert set(scores) == {
        "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d", "distinct_captions", "scene_accuracy",
        "exact", "first_word",
    }  # fmt: skip
    assert all(np.isfinite(value) for value in scores.values())


def test_the_nearest_training_image_is_a_baseline(captioner, toy_data):
    batches = toy_data.test.take(2)
    scores = evaluate(captioner, batches, train=batches)  # each image is the nearest to itself
    assert scores["nearest_exact"] == 1 and "hard_exact" not in scores
    scores = evaluate(captioner, batches, train=toy_data.test_unseen.take(1))
    assert 0 <= scores["hard_exact"] <= 1 and scores["nearest_exact"] < 1


def test_the_nearest_image_is_the_one_with_the_smallest_squared_distance():
    known, images = np.random.default_rng(0).integers(0, 256, (2, 300, 4, 4, 3), np.uint8)
    distances = ((images[:, None].astype(float) - known[None]) ** 2).sum(axis=(2, 3, 4))
    np.testing.assert_array_equal(baselines.nearest(known, images), distances.argmin(axis=1))


def test_gradients_tell_the_direction_of_edges_and_not_their_colors():
    stripes = np.zeros((16, 16, 3), np.uint8)
    stripes[:, ::4] = stripes[:, 1::4] = 200
    turned, inverted = stripes.transpose(1, 0, 2), 200 - stripes
    vectors = baselines.gradients(np.stack([stripes, turned, inverted, 0 * stripes]), cells=4)
    np.testing.assert_allclose(vectors @ vectors[0], [1, 0, 1, 0], atol=1e-6)


def test_reference_captions_have_perfect_scores(captioner, toy_data, monkeypatch):
    references = iter([row[1].decode() for b in toy_data.test.take(2) for row in b["captions"].numpy()])

    def generate(batch, positions):
        return [captioner.vocabulary.encode(next(references)) for _ in batch], None

    monkeypatch.setattr(captioner, "generate", generate)
    scores = evaluate(captioner, toy_data.test.take(2))
    assert scores["scene_accuracy"] == scores["rouge_l"] == pytest.approx(1)
    assert scores["bleu_4"] == pytest.approx(1)


@pytest.mark.filterwarnings("ignore:Collapse")
def test_photos_have_no_scene_accuracy(photos, captioner):
    data = mmkeras.captioning.data(photos, image_size=64, test_share=0.9, validation_share=0)
    assert "scene_accuracy" not in evaluate(captioner, data.test)


@pytest.mark.parametrize(("token", "name"), [(4, "same caption"), (3, "captions are empty")])
def test_evaluate_warns_of_a_collapse(toy_data, token, name):
    """A model that always generates the same word, or an empty caption."""
    model = build("toy", vocabulary=WORDS)
    logits = model.get_layer("decoder").get_layer("logits")
    kernel, bias = logits.get_weights()
    bias[token] = 100
    logits.set_weights([0 * kernel, bias])
    with pytest.warns(UserWarning, match=f"Collapse.*{name}"):
        scores = evaluate(Captioner(model), toy_data.test.take(1), max_length=3)
    assert scores["distinct_captions"] == 1 / 32


@pytest.mark.quality
def test_saved_captioner_gives_the_same_captions_in_another_process(trained, images, tmp_path):
    captioner, _ = trained
    captioner.save(tmp_path / "captioner.keras")
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys, warnings; warnings.simplefilter('error')\n"
        "import numpy as np, mmkeras\n"
        f"captioner = mmkeras.load({str(tmp_path / 'captioner.keras')!r})\n"
        f"print(*captioner(list(np.load({str(tmp_path / 'images.npy')!r}))), sep='\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == captioner(list(images))
    assert list(tmp_path.glob("*.keras")) == [tmp_path / "captioner.keras"]


@pytest.mark.quality
def test_loaded_model_continues_training(trained, toy_data, tmp_path):
    captioner, _ = trained
    captioner.save(tmp_path / "captioner.keras")
    loaded = mmkeras.load(tmp_path / "captioner.keras").model
    steps = int(loaded.optimizer.iterations)
    assert steps == STEPS
    loaded.fit(toy_data.train.take(1), verbose=0)
    assert int(loaded.optimizer.iterations) == steps + 1


def test_failed_save_keeps_the_old_file(captioner, tmp_path, monkeypatch):
    captioner.save(tmp_path / "captioner.keras")
    before = (tmp_path / "captioner.keras").read_bytes()

    def fill_the_disk(path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(captioner.model, "save", fill_the_disk)
    with pytest.raises(OSError, match="No space"):
        captioner.save(tmp_path / "captioner.keras")
    assert (tmp_path / "captioner.keras").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


# --- invalid input ---


@pytest.mark.parametrize(
    ("inputs", "options", "error", "received"),
    [
        ([], {}, ValueError, r"images=\[\]"),
        ("missing.jpg", {}, FileNotFoundError, "missing.jpg"),
        (["missing.jpg"], {}, FileNotFoundError, "missing.jpg"),
        (np.zeros((2, 64, 64, 3)), {}, ValueError, r"shape=\(2, 64, 64, 3\)"),
        (IMAGE / 255, {}, ValueError, "255"),
        (IMAGE, {"max_length": 0}, ValueError, "max_length=0"),
        (IMAGE, {"beams": 4, "temperature": 0.5}, ValueError, "beams=4, temperature=0.5"),
        (IMAGE, {"beams": 4, "top_p": 0.9}, ValueError, "beams=4, .*top_p=0.9"),
        (IMAGE, {"temperature": 0}, ValueError, "temperature=0"),
        (IMAGE, {"beam": 4, "k": 2}, TypeError, "beams.*Received: beam=4, k=2"),
    ],
)
def test_invalid_inputs_raise(captioner, inputs, options, error, received):
    with pytest.raises(error, match=received):
        captioner(inputs, **options)


def test_other_files_raise(tmp_path):
    other = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name="translator")
    other.save(tmp_path / "other.keras")
    (tmp_path / "text.keras").write_text("no model")
    captioner = Captioner(build("toy", vocabulary=20))
    for function, argument, error, received in (
        (mmkeras.load, tmp_path / "other.keras", ValueError, "'translator'"),
        (Captioner, other, ValueError, "'translator'"),
        (mmkeras.load, tmp_path / "missing.keras", FileNotFoundError, "missing.keras"),
        (mmkeras.load, tmp_path / "text.keras", ValueError, "text.keras"),
        (captioner.save, tmp_path / "model.h5", ValueError, "model.h5"),
        (captioner.save, tmp_path / "no" / "m.keras", FileNotFoundError, "m.keras"),
    ):
        with pytest.raises(error, match=received):
            function(argument)


def test_damaged_model_files_raise(captioner, tmp_path):
    path = tmp_path / "captioner.keras"
    captioner.save(path)
    content = path.read_bytes()
    entry = content.rindex(b"PK\1\2")  # of the last file in the archive: signature, versions, flags, method
    damaged = [content[: len(content) // 2]]
    for at in (0, len(content) // 2, entry + 8, entry + 10):
        damaged.append(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(ValueError, match="captioner.keras"):
            mmkeras.load(path)


def test_evaluate_raises_for_datasets_that_do_not_fit(captioner):
    def dataset(size, caption):
        image = tf.zeros((2, size, size, 3), tf.uint8)
        return tf.data.Dataset.from_tensors({"image": image, "captions": tf.constant([[caption]] * 2)})

    for data, received in (
        (None, "dataset=None"),
        (dataset(32, "a red circle"), r"image_size=64.*\(32, 32\)"),
        (dataset(64, "红色圆形"), "红色圆形"),
        (dataset(64, "a red circle").take(0), "dataset without any"),
    ):
        with pytest.raises(ValueError, match=received):
            evaluate(captioner, data)


def test_decoding_is_one_graph(captioner, images):
    captioner.generate(images)
    model = next(iter(captioner._generator._graphs.values()))
    graph = tf.function(model.call).get_concrete_function({"image": tf.constant(images)})
    assert any("while" in op.type.lower() for op in graph.graph.get_operations())


def test_focus_is_the_attention_on_a_region_relative_to_its_area():
    image, region = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), bool)
    region[:4, :4] = True  # the first of four cells
    maps = np.array([[[0.25, 0.25], [0.25, 0.25]], [[1, 0], [0, 0]], [[0, 0], [0, 1]]])
    explanation = Explanation(image, "a red star", ["a", "red", "star"], maps)
    np.testing.assert_allclose(explanation.focus(region), [1, 4, 0])
