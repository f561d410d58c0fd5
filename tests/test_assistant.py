"""The assistant: what it understands, asks, keeps, draws and finds, with the ready-trained models."""

import functools
import io
import sys

import numpy as np
import pytest
import soundfile
from PIL import Image

from mmkeras import zoo
from mmkeras.applications import ImageSearch, assistant
from mmkeras.applications.assistant import Assistant, experiment, language
from mmkeras.cli import main as cli
from mmkeras.toy import render, scene, speak

pytestmark = pytest.mark.slow  # a dozen ready-trained models

SCENE = "a small red circle at the top left"
GALLERY = {f"{i}.png": render.draw("test_unseen", i) for i in range(12)}


@pytest.fixture(scope="module", autouse=True)
def loaded():
    """An assistant. Each model is loaded and compiled once for all assistants of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zoo, "pretrained", functools.cache(zoo.pretrained))
        yield Assistant(search=GALLERY, sound=False)


@pytest.fixture
def helper(loaded):
    loaded.forget()
    loaded.language = "en"
    return loaded


def spoken(text, language="en"):
    return speak.SAMPLE_RATE_HZ, speak.speak(text, assistant.dialog.VOICES[language])


def shown(helper, reply):
    """The attributes of the image of a reply, as the captioner sees them."""
    (text,), _ = helper.see(reply.image[None])
    return scene.parse(text, helper.language)


@pytest.mark.parametrize("change", ["now the same in blue", "but in blue", "blue"])
def test_a_change_keeps_the_other_attributes_of_the_last_scene(helper, change):
    assert shown(helper, helper(SCENE)) == scene.parse(SCENE)
    reply = helper(change)
    assert reply.text == "a small blue circle at the top left" and not reply.is_question
    assert shown(helper, reply) == scene.parse(reply.text)


def test_a_change_is_understood_in_chinese(helper):
    helper("左上角有一个小的蓝色圆形")
    reply = helper("同样的，换成红色")
    assert reply.scene == scene.parse(SCENE) and reply.text == "左上角有一个小的红色圆形"
    assert helper("换成三角形").scene.things[0].shape == "triangle"
    assert helper("大一点").scene.things[0].size == "large"


def test_a_scene_is_kept_across_languages_and_modalities(helper):
    assert helper(render.draw("test_unseen", 1)).scene == scene.sample("test_unseen", 1)
    changed = helper("同样的，换成红色").scene.things[0]
    assert changed.color == "red" and changed.shape == scene.sample("test_unseen", 1).things[0].shape


@pytest.mark.parametrize(
    "text, asked",
    [
        ("a smal red circel at the top left", SCENE),
        ("a small pink circle at the top left", "pink"),
        ("a small red blue circle at the top left", "red, blue"),
        ("a small red circle", "top left, top, top right"),
        ("a small red circle at the top left of the hill", "hill"),
        ("一个小的粉色圆形在左上角", "粉色"),
        ("一个小的红色蓝色圆形在左上角", "红色、蓝色"),
        ("左上角有一个红色圆形", "小、大"),
    ],
)
def test_a_wrong_or_missing_word_is_asked_about_and_nothing_is_drawn(helper, text, asked):
    reply = helper(text)
    assert reply.is_question and reply.image is None and asked in reply.text


def test_an_answer_completes_the_scene(helper):
    helper("a pink circle at the top left")
    assert "color" in helper("small").text
    assert helper("red").scene == scene.parse(SCENE)
    helper("a smal red circle at the top left")
    assert helper("yes").image is not None
    helper("一个小的粉色圆形在左上角")
    assert helper("红色").scene == scene.parse(SCENE)


def test_no_drops_what_was_understood(helper):
    helper("a smal red circle at the top left")
    assert helper("no").image is None
    assert "asked nothing" in helper("yes").text
    assert helper.scene is None


def test_an_answer_to_another_question_is_refused(helper):
    assert "asked nothing" in helper("yes").text
    assert "没有提问" in helper("不是").text
    helper("a small red circle")
    for answer in ("blue", "yes"):
        reply = helper(answer)
        assert reply.is_question and "does not answer" in reply.text and "top left" in reply.text
    assert helper("top left").scene == scene.parse(SCENE)


@pytest.mark.parametrize("text", ["hello how are you", "你好吗", "cats", "12"])
def test_a_sentence_without_known_words_changes_nothing(helper, text):
    helper(SCENE)
    reply = helper(text)
    assert reply.image is None and not reply.is_question and reply.scene is None
    assert helper.scene == scene.parse(SCENE)


def test_an_empty_line_and_a_silent_clip_get_an_answer(helper):
    for message in ("", "  ", (16_000, np.zeros(16_000, np.float32))):
        assert "hear nothing" in helper(message).text
    assert "one shape" in helper("a small red circle above a large blue square").text
    assert "no scene" in helper("now the same in red").text


def test_files_that_cannot_be_read_are_errors(helper, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    (tmp_path / "broken.png").write_bytes(b"no image")
    for file in tmp_path.iterdir():
        with pytest.raises(ValueError, match=file.name):
            helper(str(file))
    with pytest.raises(FileNotFoundError, match=r"none\.wav"):
        helper("none.wav")
    with pytest.raises(ValueError, match="language.*'fr'"):
        Assistant("fr")
    with pytest.raises(FileNotFoundError, match="search='none'"):
        Assistant(search="none")


def test_speech_and_images_come_with_a_confidence(helper):
    reply = helper(spoken(SCENE))
    assert reply.scene == scene.parse(SCENE) and reply.confidence > 0.9 and reply.image is not None
    reply = helper(render.draw("test_unseen", 0))
    assert reply.confidence > 0.9 and reply.scene == scene.sample("test_unseen", 0)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    reply = helper(noise)
    assert reply.confidence < 0.1 and reply.scene is None and "no colored shape" in reply.text


def test_an_uncertain_transcript_is_confirmed_before_it_is_drawn(helper, monkeypatch):
    monkeypatch.setattr(helper, "confidence", lambda kind, features: np.array([0.5]))
    reply = helper(spoken(SCENE))
    assert reply.is_question and reply.image is None and reply.confidence == 0.5
    assert helper("yes").scene == scene.parse(SCENE)


def test_search_finds_all_scenes_with_the_attributes(helper):
    reply = helper("show me stars")
    things = [scene.sample("test_unseen", i).things[0] for i in range(12)]
    expected = [f"{i}.png" for i, thing in enumerate(things) if thing.shape == "star"]
    assert expected and reply.found == expected
    np.testing.assert_array_equal(reply.image, GALLERY[expected[0]])
    assert helper("给我看星星").found == expected
    assert len(helper("show me red and green shapes").found) == sum(t.color in ("red", "green") for t in things)
    assert not helper("show me small large orange yellow blue purple circle cross").is_question
    assert "no images" in Assistant(sound=False)("show me stars").text


def test_search_can_be_an_image_search(helper, tmp_path, monkeypatch):
    Image.fromarray(GALLERY["0.png"]).save(tmp_path / "0.png")
    search = object.__new__(ImageSearch)
    search.paths = [str(tmp_path / "0.png")]
    monkeypatch.setattr(
        ImageSearch, "search", lambda self, query: [(self.paths[0], 0.9)] * (query == "red star")
    )
    monkeypatch.setattr(helper, "images", search)
    assert helper("show me red stars").found == search.paths


@pytest.mark.parametrize("language", scene.LANGUAGES)
def test_scenes_survive_a_round_trip(language):
    scores = experiment.round_trip(2, language)
    assert scores.pop("without_question") >= 0.5 and set(scores.values()) == {1.0}


def test_the_shipped_round_trip_and_reliability_reach_their_bars():
    results = experiment.results()
    for values in results.round_trip.values():
        assert values["without_question"] >= 0.85
    for values in results.reliability.values():
        assert values["calibration_error"] < 0.05 and values["right_if_not_asked"] > 0.95
        assert sum(count for _, count, _, _ in values["bins"]) == 1200
    for values in results.questions.values():
        assert values["misspelled"] == values["contradiction"] == values["unknown"] == 1
    assert "speech-en" in str(results)


def test_logistic_regression_recovers_the_probabilities():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((20_000, 2))
    is_right = rng.random(20_000) < 1 / (1 + np.exp(-(0.5 + features @ (2.0, -1.0))))
    np.testing.assert_allclose(experiment.fit(features, is_right), [0.5, 2, -1], atol=0.1)


def test_calibration_error_is_the_distance_of_confidence_and_accuracy():
    measured = experiment.reliability(np.array([0.95, 0.95, 0.15, 0.15]), np.array([True, False, False, False]))
    assert measured["calibration_error"] == pytest.approx((0.45 + 0.15) / 2)
    assert measured["asked"] == measured["right_if_not_asked"] == 0.5


@pytest.mark.parametrize("name", scene.LANGUAGES)
def test_every_caption_has_known_words_only(name):
    for index in range(50):
        for text in scene.captions(scene.sample("test", index), name):
            assert language.read(text, name).unknown == []


def test_the_command_reads_lines_and_writes_images_and_sound(tmp_path, capsys, monkeypatch):
    soundfile.write(tmp_path / "said.wav", spoken(SCENE)[1], 16_000)
    lines = f"{SCENE}\nnow the same in blue\n\n'{tmp_path / 'said.wav'}'\nnone.png\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    with pytest.raises(SystemExit) as caught:
        cli.app(["assistant", "--output", str(tmp_path / "out")])
    output = capsys.readouterr()
    assert caught.value.code == 0 and "a small blue circle" in output.out and "hear nothing" in output.out
    assert "Error" in output.err and "none.png" in output.err
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "0.png", "0.wav", "1.png", "1.wav", "2.wav", "3.png", "3.wav",
    }  # fmt: skip
    monkeypatch.setattr(sys, "stdin", io.StringIO("左上角有一个小的红色圆形\n"))
    with pytest.raises(SystemExit):
        cli.app(["assistant", "--no-sound", "--output", str(tmp_path / "quiet")])
    assert [file.name for file in (tmp_path / "quiet").iterdir()] == ["0.png"]
