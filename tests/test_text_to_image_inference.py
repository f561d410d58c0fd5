"""Painter, evaluate and the judge."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import mmkeras
from mmkeras.text_to_image import Judge, Painter, build, evaluate, train_judge
from mmkeras.text_to_image.classifier import build_judge

TINY = {"image_size": 16, "units": 16, "embedding_dim": 8, "channels": 16}
PROMPTS = ["a small red circle at the top left", "a large blue star in the center"]


@pytest.fixture(scope="module")
def painter(tiny_pictures):
    keras.utils.set_random_seed(0)
    model = build("toy", vocabulary=tiny_pictures.vocabulary, **TINY)
    model.fit(tiny_pictures.train, epochs=10, verbose=0)
    return Painter(model)


@pytest.fixture(scope="module")
def judge(tiny_pictures):
    return train_judge(tiny_pictures, epochs=8, verbose=0)


def test_one_in_one_out_a_list_in_a_list_out(painter):
    one, many = painter(PROMPTS[0]), painter(PROMPTS)
    assert one.shape == (16, 16, 3) and one.dtype == np.uint8
    assert isinstance(many, list) and len(many) == 2
    np.testing.assert_allclose(one.astype(int), many[0], atol=1)
    assert painter(PROMPTS, samples=1)[1].shape == (1, 16, 16, 3)


@pytest.mark.parametrize("entry", ["__call__", "grid", "explain", "walk"])
def test_strange_words_are_named_at_the_line_that_said_them(painter, entry):
    prompts = ["a red xylophone", PROMPTS[0]][: 2 if entry == "walk" else 1]
    with pytest.warns(UserWarning, match="never saw 'xylophone'") as caught:
        getattr(painter, entry)(*prompts)
    assert [warning.filename for warning in caught] == [__file__]


def test_strange_words_are_named_and_only_strange_ones_refused(painter):
    with pytest.warns(UserWarning, match="never saw 'xylophone'"):
        painter("a red xylophone")
    with pytest.raises(ValueError, match="none of the words of 'blorp xylophone'"):
        painter("blorp xylophone")


def test_bad_prompts_are_refused(painter):
    for prompt in ("", "  ", "!?"):
        with pytest.raises(ValueError, match="at least one word"):
            painter(prompt)
    with pytest.raises(ValueError, match="an empty list"):
        painter([])
    for prompt in (7, ["a red star", 7], None):
        with pytest.raises(TypeError, match="to be a text"):
            painter(prompt)
    for paint in (painter.grid, painter.explain, lambda prompt: painter.walk(prompt, "a red star")):
        with pytest.raises(TypeError, match="to be a text"):
            paint(7)
    with pytest.raises(ValueError, match="seed=-1"):
        painter("a red star", seed=-1)
    with pytest.raises(ValueError, match="has no noise"):
        painter("a red star", samples=3)
    with pytest.raises(ValueError, match="samples=0"):
        painter("a red star", samples=0)
    for paint in (painter, painter.grid):
        with pytest.raises(ValueError, match="samples=True"):
            paint("a red star", samples=True)


def test_a_prompt_longer_than_training_saw_is_painted(painter):
    assert painter(" and ".join(PROMPTS * 5).replace("and ", "")).shape == (16, 16, 3)


def test_a_walk_begins_and_ends_at_its_prompts(painter, tmp_path):
    strip, moving = tmp_path / "walk.png", tmp_path / "walk.gif"
    pictures = painter.walk(*PROMPTS, steps=5, path=strip)
    for picture, prompt in zip(pictures[[0, -1]], PROMPTS, strict=True):
        np.testing.assert_allclose(picture.astype(int), painter(prompt), atol=1)
    assert Image.open(strip).size == (5 * 16, 16)
    painter.walk(*PROMPTS, steps=5, path=moving)
    assert Image.open(moving).n_frames == 5
    with pytest.raises(ValueError, match="walk.mp4"):
        painter.walk(*PROMPTS, path=tmp_path / "walk.mp4")
    with pytest.raises(ValueError, match="steps=1"):
        painter.walk(*PROMPTS, steps=1)


def test_a_grid_is_drawn(painter, tmp_path):
    painter.grid([*PROMPTS, "a red star at the top"], path=tmp_path / "grid.png")
    assert Image.open(tmp_path / "grid.png").size[1] > 300


def test_explain_shows_what_each_word_changed(painter, tmp_path):
    seen = painter.explain(PROMPTS[0])
    assert seen.words == PROMPTS[0].split()
    assert seen.changed.shape == (8, 16, 16) and seen.without.shape == (8, 16, 16, 3)
    left = painter("a small red circle at the left")  # without the seventh word
    np.testing.assert_allclose(seen.without[6].astype(int), left, atol=1)
    expected = np.abs(seen.without[6].astype(float) - seen.picture).mean(axis=-1) / 255
    np.testing.assert_allclose(seen.changed[6], expected)
    seen.plot(tmp_path / "changed.png")
    assert Image.open(tmp_path / "changed.png").size[0] > 500


def test_saved_and_loaded_elsewhere_it_paints_the_same_pixels(painter, tmp_path):
    painter.save(tmp_path / "painter.keras")
    code = (
        "import mmkeras, sys; from PIL import Image\n"
        "Image.fromarray(mmkeras.load(sys.argv[1])(sys.argv[2])).save(sys.argv[3])"
    )
    run = [sys.executable, "-c", code, tmp_path / "painter.keras", PROMPTS[0], tmp_path / "painted.png"]
    done = subprocess.run(list(map(str, run)), capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "painted.png")), painter(PROMPTS[0]))


def test_the_judge_learns_from_real_pictures_and_comes_back_from_its_file(judge, tiny_pictures, tmp_path):
    batch = next(iter(tiny_pictures.test))
    read, features = judge.read(batch["image"].numpy())
    right = {name: np.mean(read[name] == batch["labels"][name].numpy()) for name in judge.attributes}
    assert right["place"] > 0.5 and right["color"] > 0.5  # 256 pictures of 16 pixels
    assert features.shape == (16, 64)
    judge.save(tmp_path / "judge.keras")
    again = mmkeras.load(tmp_path / "judge.keras")
    assert isinstance(again, Judge) and again.attributes == judge.attributes
    picture = batch["image"].numpy()[0]
    assert again(picture) == judge([picture])[0]
    assert set(again(picture)) == {"size", "color", "shape", "place"}
    with pytest.raises(ValueError, match="an empty list"):
        judge([])
    with pytest.raises(ValueError, match="epochs=0"):
        train_judge(tiny_pictures, epochs=0)


def test_evaluate_compares_with_real_pictures(painter, judge, tiny_pictures):
    scores = evaluate(painter, tiny_pictures.test, judge)
    seen = judge(painter(PROMPTS))  # text → picture → class
    assert len(seen) == 2 and all(one[name] in judge.attributes[name] for one in seen for name in one)
    assert set(scores) == {
        "size", "color", "shape", "place", "all", "judge_on_real", "frechet_distance", "sharpness", "variety",
    }  # fmt: skip
    assert scores["all"] <= min(scores[name] for name in judge.attributes)
    assert scores["sharpness"] < 0.8  # a few epochs of a pixel loss: a blur
    assert set(evaluate(painter, tiny_pictures.test)) == {"sharpness", "variety"}
    with pytest.raises(ValueError, match="dataset=None"):
        evaluate(painter, None)
    with pytest.raises(ValueError, match="seed=-1"):
        evaluate(painter, tiny_pictures.test, seed=-1)
    with pytest.raises(ValueError, match="pictures of 16 pixels.* Received: judge.image_size=32"):
        evaluate(painter, tiny_pictures.test, Judge(build_judge(judge.attributes, 32)))
    without_labels = tiny_pictures.test.map(lambda batch: {k: batch[k] for k in ("image", "captions")})
    with pytest.raises(ValueError, match="lacks color, place, shape, size"):
        evaluate(painter, without_labels, judge)
    with pytest.raises(ValueError, match="one without any"):
        evaluate(painter, tiny_pictures.test.take(0))


def test_what_a_single_picture_cannot_tell_is_left_out(painter, tiny_pictures):
    judge = Judge(build_judge(tiny_pictures.attributes, 16))
    scores = evaluate(painter, tiny_pictures.test.unbatch().take(1).batch(1), judge)
    assert set(scores) == {*tiny_pictures.attributes, "all", "judge_on_real", "sharpness"}
    assert np.isfinite(list(scores.values())).all()


def test_a_caption_of_strange_words_alone_is_scored_like_the_others(painter, tiny_pictures):
    batch = next(iter(tiny_pictures.test))
    of_one = batch["captions"].shape[1]
    captions = [["zebra"] * of_one, ["!!!"] * of_one, *batch["captions"].numpy()[2:].tolist()]
    strange = tf.data.Dataset.from_tensors(batch | {"captions": tf.constant(captions)})
    with pytest.warns(UserWarning, match="never saw 'zebra'") as caught:
        assert set(evaluate(painter, strange)) == {"sharpness", "variety"}
    assert caught[0].filename == __file__


def test_a_collapse_is_named(tiny_pictures):
    model = build("toy", vocabulary=tiny_pictures.vocabulary, **TINY)
    encoder = model.get_layer("encoder")
    encoder.set_weights([0 * w for w in encoder.get_weights()])  # deaf to every prompt
    with pytest.warns(UserWarning, match="all prompts get the same picture"):
        evaluate(Painter(model), tiny_pictures.test)


def test_another_model_is_refused():
    with pytest.raises(ValueError, match="text-to-image"):
        Painter(keras.Sequential([keras.layers.Dense(1)], name="other"))
    with pytest.raises(ValueError, match="judge"):
        Judge(build("toy", vocabulary=20, **TINY))


def test_with_noise_each_seed_paints_another_picture_and_the_same_seed_the_same(tiny_pictures):
    model = build("toy", vocabulary=tiny_pictures.vocabulary, adversarial=True, **TINY)
    painter = Painter(model)
    four, two = painter(PROMPTS, samples=4, seed=3), painter(PROMPTS[0], samples=2, seed=3)
    assert four[0].shape == (4, 16, 16, 3)
    np.testing.assert_allclose(four[0][:2].astype(int), two, atol=1)
    assert len({picture.tobytes() for picture in four[0]}) == 4
    assert (painter(PROMPTS[0], seed=3) != painter(PROMPTS[0], seed=4)).any()
    painter.grid(PROMPTS, samples=3)
    assert "seed_variety" in evaluate(painter, tiny_pictures.test)
