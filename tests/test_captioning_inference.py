"""The trained model at work: learning, writing, scoring, explaining, saving."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import mmkeras
from mmkeras.captioning import Captioner, build, evaluate
from mmkeras.evaluation.explain import Explanation

WORDS = ["red", "blue", "circle", "square"]
STEPS = 40


@pytest.fixture(scope="module")
def trained(toy_data):
    """A toy model after a few steps, and the loss of each."""
    keras.utils.set_random_seed(0)
    model = build("toy", vocabulary=toy_data.vocabulary)
    means = []  # of the steps so far, as Keras reports them
    note = keras.callbacks.LambdaCallback(on_train_batch_end=lambda i, logs: means.append(logs["loss"]))
    batches = toy_data.train_from(0).take(STEPS)  # the same whatever test has read `train` before
    model.fit(batches, verbose=0, callbacks=[note])
    return Captioner(model), np.diff(np.array(means) * range(1, STEPS + 1), prepend=0)


@pytest.fixture(scope="module")
def pictures(toy_data):
    return next(iter(toy_data.test))["image"].numpy()


def test_the_loss_falls(trained):
    _, losses = trained
    assert losses[-5:].mean() < 0.85 * losses[:5].mean()


def test_one_in_one_out_and_a_list_in_a_list_out(trained, pictures, tmp_path):
    captioner, _ = trained
    path = tmp_path / "picture.png"
    Image.fromarray(pictures[0]).save(path)
    one = captioner(path)
    assert isinstance(one, str) and one
    assert captioner([path]) == [one]
    assert captioner([str(path), Image.open(path), pictures[0], pictures[1]])[:3] == [one] * 3
    assert captioner(tuple(pictures[:40])) == captioner(list(pictures[:40]))


def test_a_larger_photo_is_brought_to_size(trained, tmp_path):
    captioner, _ = trained
    Image.new("CMYK", (300, 200)).save(tmp_path / "photo.jpg")
    assert captioner(tmp_path / "photo.jpg")


def test_batches_and_single_pictures_give_the_same(trained, pictures):
    captioner, _ = trained
    assert captioner(list(pictures[:7])) == [captioner(picture) for picture in pictures[:7]]


def test_a_beam_of_one_is_greedy_and_a_beam_of_four_no_worse(trained, pictures):
    captioner, _ = trained
    tokens, greedy = captioner.write(pictures)
    same, _ = captioner.write(pictures, beams=1)
    np.testing.assert_array_equal(tokens, same)
    _, beam = captioner.write(pictures, beams=4)
    assert (beam >= greedy - 1e-4).all()


def test_log_probabilities_are_those_of_teacher_forcing(trained, pictures):
    """Decoding step by step and one pass over the finished captions agree."""
    captioner, _ = trained
    for how in ({}, {"beams": 4}):
        tokens, found = captioner.write(pictures, **how)
        given = np.concatenate([np.full((len(tokens), 1), 2), tokens[:, :-1]], axis=1)
        logits = captioner.model.predict({"image": pictures, "tokens": given}, verbose=0).astype("float64")
        logits[..., [0, 1, 2]] = -1e9  # never written
        log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        each = np.take_along_axis(log_probs, tokens[..., None], axis=-1)[..., 0]
        np.testing.assert_allclose(found, (each * (tokens != 0)).sum(axis=1), atol=1e-3)


def test_beams_and_sampling_exclude_each_other(trained, pictures):
    captioner, _ = trained
    for sampling in ({"temperature": 0.5}, {"top_p": 0.9}):
        with pytest.raises(ValueError, match="Received: beams=4"):
            captioner(pictures[0], beams=4, **sampling)


def test_samples_follow_their_seed(trained, pictures):
    captioner, _ = trained
    how = {"temperature": 1.0, "top_p": 0.95}
    one, two, three = (captioner.write(pictures, seed=s, **how)[0] for s in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert (one != three).any()


def test_explain_says_what_each_word_looked_at(trained, pictures, tmp_path):
    captioner, _ = trained
    seen = captioner.explain(Image.fromarray(pictures[3]).resize((90, 60)))
    assert seen.caption == " ".join(seen.words) == captioner(Image.fromarray(pictures[3]).resize((90, 60)))
    assert seen.picture.shape == (60, 90, 3)
    assert seen.attention.shape == (len(seen.words), 8, 8)
    np.testing.assert_allclose(seen.attention.sum(axis=(1, 2)), 1, rtol=1e-4)
    seen.plot(tmp_path / "attention.png")
    assert Image.open(tmp_path / "attention.png").width > 500


def test_a_chinese_explanation_is_plotted_without_complaint(pictures, tmp_path, recwarn):
    """With a Chinese font if the system has one, with numbers for the words if not."""
    seen = Explanation(pictures[0], "红色的圆形", list("红色的圆形"), np.ones((5, 2, 2)))
    seen.plot(tmp_path / "attention.png")
    assert (tmp_path / "attention.png").stat().st_size > 1000
    assert not recwarn.list


def test_evaluation_scores_freely_written_captions(trained, toy_data):
    captioner, _ = trained
    scores = evaluate(captioner, toy_data.test.take(3))
    assert set(scores) == {
        "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d", "distinct_captions", "scene_accuracy",
    }  # fmt: skip
    assert all(np.isfinite(value) for value in scores.values())


def test_perfect_captions_score_perfectly(trained, toy_data, monkeypatch):
    captioner, _ = trained
    vocabulary = captioner.vocabulary
    truth = iter([row[1].decode() for b in toy_data.test.take(2) for row in b["captions"].numpy()])

    def write(batch):
        return [vocabulary.encode(next(truth)) for _ in batch], None

    monkeypatch.setattr(captioner, "write", write)
    scores = evaluate(captioner, toy_data.test.take(2))
    assert scores["scene_accuracy"] == scores["rouge_l"] == pytest.approx(1)
    assert scores["bleu_4"] == pytest.approx(1)


@pytest.mark.filterwarnings("ignore:Collapse")  # a few steps on other pictures teach it nothing of these
def test_photos_get_no_scene_accuracy(photos, trained):
    captioner, _ = trained
    data = mmkeras.captioning.data(photos, image_size=64, test_share=0.9, validation_share=0)
    assert "scene_accuracy" not in evaluate(captioner, data.test)


@pytest.mark.parametrize(("favourite", "name"), [(4, "same caption"), (3, "captions are empty")])
def test_a_collapse_is_named(toy_data, favourite, name):
    """A model that always writes the same word, or always ends at once."""
    model = build("toy", vocabulary=WORDS)
    logits = model.get_layer("decoder").get_layer("logits")
    kernel, bias = logits.get_weights()
    bias[favourite] = 100
    logits.set_weights([0 * kernel, bias])
    with pytest.warns(UserWarning, match=f"Collapse.*{name}"):
        scores = evaluate(Captioner(model), toy_data.test.take(1), max_length=3)
    assert scores["distinct_captions"] == 1 / 32


def test_a_saved_captioner_writes_the_same_in_a_fresh_process(trained, pictures, tmp_path):
    captioner, _ = trained
    captioner.save(tmp_path / "captioner.keras")
    np.save(tmp_path / "pictures.npy", pictures)
    code = (
        "import sys, warnings; warnings.simplefilter('error')\n"
        "import numpy as np, mmkeras\n"
        f"captioner = mmkeras.load({str(tmp_path / 'captioner.keras')!r})\n"
        f"print(*captioner(list(np.load({str(tmp_path / 'pictures.npy')!r}))), sep='\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == captioner(list(pictures))
    assert list(tmp_path.glob("*.keras")) == [tmp_path / "captioner.keras"]


def test_a_loaded_model_trains_on(trained, toy_data, tmp_path):
    captioner, _ = trained
    captioner.save(tmp_path / "captioner.keras")
    loaded = mmkeras.load(tmp_path / "captioner.keras").model
    steps = int(loaded.optimizer.iterations)
    assert steps == STEPS
    loaded.fit(toy_data.train.take(1), verbose=0)
    assert int(loaded.optimizer.iterations) == steps + 1


def test_a_failed_save_leaves_the_old_file(trained, tmp_path, monkeypatch):
    captioner, _ = trained
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


# --- bad input ---


def test_bad_pictures_are_named_before_any_caption(trained, tmp_path, pictures):
    captioner, _ = trained
    with pytest.raises(ValueError, match="empty list"):
        captioner([])
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg"):
        captioner([pictures[0], tmp_path / "nowhere.jpg"])
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(ValueError, match=r"text\.jpg"):
        captioner(tmp_path / "text.jpg")
    with pytest.raises(ValueError, match="list"):
        captioner(pictures)
    with pytest.raises(ValueError, match="Multiply it by 255"):
        captioner(pictures[0] / 255)
    with pytest.raises(ValueError, match="beams=2"):
        captioner(pictures[0], beams=2, temperature=1.0)
    with pytest.raises(ValueError, match="max_length=0"):
        captioner(pictures[0], max_length=0)


def test_files_that_are_no_captioner_are_refused(tmp_path):
    other = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name="translator")
    other.save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match="'translator'"):
        mmkeras.load(tmp_path / "other.keras")
    with pytest.raises(ValueError, match="'translator'"):
        Captioner(other)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.keras"):
        mmkeras.load(tmp_path / "nowhere.keras")
    (tmp_path / "text.keras").write_text("no model")
    with pytest.raises(ValueError, match="not a whole .keras file"):
        mmkeras.load(tmp_path / "text.keras")
    with pytest.raises(ValueError, match=r"\.keras"):
        Captioner(build("toy", vocabulary=20)).save(tmp_path / "model.h5")
    with pytest.raises(FileNotFoundError, match="no folder"):
        Captioner(build("toy", vocabulary=20)).save(tmp_path / "nowhere" / "model.keras")


def test_a_cut_model_file_is_refused(trained, tmp_path):
    captioner, _ = trained
    captioner.save(tmp_path / "captioner.keras")
    whole = (tmp_path / "captioner.keras").read_bytes()
    (tmp_path / "captioner.keras").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="captioner.keras"):
        mmkeras.load(tmp_path / "captioner.keras")


def test_a_model_file_with_a_wrong_byte_is_refused(trained, tmp_path):
    captioner, _ = trained
    path = tmp_path / "captioner.keras"
    captioner.save(path)
    whole = path.read_bytes()
    entry = whole.rindex(b"PK\1\2")  # of the last file in the archive: signature, versions, flags, method
    places = {"signature": 0, "weights": len(whole) // 2, "is encrypted": entry + 8, "method": entry + 10}
    for place in places.values():
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match="captioner.keras"):
            mmkeras.load(path)


def test_a_missing_split_is_named(trained):
    captioner, _ = trained
    with pytest.raises(ValueError, match="dataset=None"):
        evaluate(captioner, None)


def test_a_dataset_of_another_kind_is_refused(trained):
    captioner, _ = trained

    def dataset(size, caption):
        image = tf.zeros((2, size, size, 3), tf.uint8)
        return tf.data.Dataset.from_tensors({"image": image, "captions": tf.constant([[caption]] * 2)})

    with pytest.raises(ValueError, match=r"image_size=64. Received: .*\(32, 32\).*data_options"):
        evaluate(captioner, dataset(32, "a red circle"))
    with pytest.raises(ValueError, match="words of the model, Vocabulary.*Received: .*'红色圆形'"):
        evaluate(captioner, dataset(64, "红色圆形"))


def test_tf_is_not_needed_to_be_eager(trained, pictures):
    """The whole of decoding is one graph."""
    captioner, _ = trained
    captioner.write(pictures)
    writer = next(iter(captioner._writer._graphs.values()))
    graph = tf.function(writer.call).get_concrete_function({"image": tf.constant(pictures)})
    assert any("while" in op.type.lower() for op in graph.graph.get_operations())
