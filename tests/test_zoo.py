"""The ready-trained models: what ships, what it scores, and how it is trained again."""

import copy
import dataclasses
import functools
import json
import math
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data

import mmkeras
from mmkeras import text_to_image, training, zoo
from mmkeras.evaluation.explanations import Explanation
from mmkeras.text.vocabulary import END, PAD
from mmkeras.toy import builders, render, scene, speak
from mmkeras.zoo import recipes

LANGUAGES = ("en", "zh")
# the words of a caption, in Chinese characters, that name an attribute
WORDS = {
    "en": {
        "size": scene.SIZES,
        "color": scene.COLORS,
        "shape": scene.SHAPES,
        "place": ("top", "bottom", "left", "right", "center"),
    },
    "zh": {"size": "大小", "color": "红橙黄绿蓝紫", "shape": "圆三星十菱", "place": "左右上下中"},
}
# shares of right answers, whose sampling error is known
SHARES = ("scene_accuracy", "accuracy", "blind_accuracy", "all", "color", "place", "shape", "size")


@pytest.fixture(scope="module")
def toy_world(tmp_path_factory):
    """A folder with the first examples of the test splits, for `data_dir`."""
    folder = tmp_path_factory.mktemp("toy_world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builders, "EXAMPLES", {"train": 8, "validation": 8, "test": 100, "test_unseen": 100})
        builders.toy_images(data_dir=folder)
        patch.setattr(builders, "EXAMPLES", {"train": 8, "validation": 8, "test": 24, "test_unseen": 24})
        for language in LANGUAGES:
            builders.toy_speech(language, folder)
    return folder


def toy_images(split, count):
    return [render.draw(split, index) for index in range(count)]


def test_every_model_ships_in_both_languages_in_20_megabytes():
    cards = zoo.cards()
    assert {card["file"] for card in cards} == {file.name for file in zoo.FOLDER.glob("*.keras")}
    assert sum((zoo.FOLDER / card["file"]).stat().st_size for card in cards) <= 20e6
    for name in zoo.NAMES:
        assert zoo.path(name, "en") and zoo.path(name, "zh")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["captioning", "attribute_classifier"])
def test_a_model_with_a_note_answers_as_the_first_of_a_process(name):
    """Keras names operations by counting from the start of the process."""
    code = f"import mmkeras, numpy as np; mmkeras.pretrained({name!r})(np.zeros((64, 64, 3), np.uint8))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["captioning", "speech_to_text", "text_to_image", "attribute_classifier"])
def test_predictors_are_pickled_and_copied_after_an_answer(name):
    predictor = mmkeras.pretrained(name)
    image = toy_images("test", 1)[0]
    inputs = {"text_to_image": "a red circle", "speech_to_text": (16_000, np.sin(np.arange(8000.0)))}
    answer = predictor(inputs.get(name, image))
    for other in (pickle.loads(pickle.dumps(predictor)), copy.deepcopy(predictor)):
        np.testing.assert_array_equal(other(inputs.get(name, image)), answer)
        assert other.model is not predictor.model
        if hasattr(other, "encoder"):  # one model, not two
            assert other.encoder is other.model.get_layer("encoder")
        if getattr(predictor, "novelty", None):
            assert other.novelty.threshold == predictor.novelty.threshold


def test_the_table_of_the_models_is_up_to_date():
    readme = Path(__file__).parents[1] / "data" / "README.md"
    assert recipes.table(zoo.cards()) in readme.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", pytest.param("zh", marks=pytest.mark.quality)])
@pytest.mark.parametrize("name", zoo.NAMES)
def test_a_model_scores_what_its_card_says(name, language, toy_world):
    predictor, card = mmkeras.pretrained(name, language), zoo.card(name, language)
    package = mmkeras.tasks.package(predictor.model.name)
    data = package.data("toy", language=language, data_dir=toy_world, **predictor.data_options)
    options = predictor.evaluation_options(data)
    if predictor.output == "image":
        options = {"classifier": mmkeras.pretrained("attribute_classifier")}
    for split in ("test", "test_unseen"):
        scores = predictor.evaluate(getattr(data, split), **options)
        count = data.splits[split].count
        for score in SHARES:
            if score in card["scores"][split]:
                expected = card["scores"][split][score]
                error = math.sqrt(expected * (1 - expected) / count)
                assert scores[score] == pytest.approx(expected, abs=3 * error + 1 / count), score


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_generator_has_the_scores_that_its_chapter_promises(language):
    scores = zoo.card("text_to_image", language)["scores"]
    assert scores["test"]["all"] >= 0.98 and scores["test_unseen"]["all"] >= 0.95
    assert all(0.9 <= scores[split]["sharpness"] <= 1.1 for split in ("test", "test_unseen"))
    assert all(scores[split]["seed_variety"] > 0.2 for split in ("test", "test_unseen"))


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_attention_of_a_word_is_on_the_object(language):
    captioner = mmkeras.pretrained("captioning", language)
    kinds = {word: kind for kind, words in WORDS[language].items() for word in words}
    focuses = {kind: [] for kind in WORDS[language]}
    batch = np.stack(toy_images("test", 100))  # at once, as `explain` does for each
    tokens, _ = captioner.generate(batch)
    _, height, width, _ = captioner.network.output_shape
    for image, ids, maps in zip(
        batch, tokens, captioner._generator.weights({"image": batch}, tokens), strict=True
    ):
        words = captioner.vocabulary.decode_words(ids)
        explanation = Explanation(image, "", words, maps[: len(words)].reshape(-1, height, width))
        for word, focus in zip(words, explanation.focus(render.foreground(image)), strict=True):
            if word in kinds:
                focuses[kinds[word]].append(focus)
    focus = {kind: np.mean(values) for kind, values in focuses.items()}
    print(language, focus)
    assert focus["place"] >= 1.5 and all(focus[kind] >= 3 for kind in ("size", "color", "shape"))


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_attention_of_speech_moves_forward(language):
    """Share of tokens whose highest weight is more than a time step before that of the previous token."""
    transcriber, moves = mmkeras.pretrained("speech_to_text", language), []
    clips = [
        speak.speak(speak.caption("test", index, language), speak.voice("test", index, language), index)
        for index in range(20)
    ]
    inputs = transcriber._padded(clips)  # at once, as `explain` does for each
    tokens, _ = transcriber._generate(inputs)
    for ids, weights in zip(tokens, transcriber._generator.weights(inputs, tokens), strict=True):
        moves += np.diff(weights[(ids != PAD) & (ids != END)].argmax(axis=1)).tolist()
    backward = np.mean(np.array(moves) < -1)
    print(language, backward)
    assert backward < 0.02


@pytest.mark.slow
def test_a_photograph_is_answered_with_a_note_and_toy_images_without():
    photographs = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea()]
    for name in ("captioning", "attribute_classifier"):
        predictor = mmkeras.pretrained(name)
        for photograph in photographs:
            with pytest.warns(UserWarning, match="Unlike any training image"):
                assert predictor(photograph)
        for split in ("test", "test_unseen"):
            batch = np.stack(toy_images(split, 300))
            assert np.mean(predictor.novelty(batch) > predictor.novelty.threshold) < 0.01


@pytest.mark.parametrize("name", ("captioning", "attribute_classifier"))
def test_the_note_numbers_images_as_in_the_list(name):
    inputs = ["missing.png", *toy_images("test", 1), skimage.data.coffee()]
    with pytest.warns(UserWarning, match=r"image number 2 \(score"), pytest.warns(UserWarning, match="missing"):
        mmkeras.pretrained(name)(inputs)


def test_the_score_beside_the_caption_is_that_of_the_image_alone():
    captioner, batch = mmkeras.pretrained("captioning"), np.stack(toy_images("test", 3))
    *_, scores = captioner._generator({"image": batch})
    np.testing.assert_allclose(scores, captioner.novelty(batch), rtol=1e-4)
    assert captioner.generate(batch)[0].shape == (3, 50)


def test_an_unknown_name_or_language_is_refused():
    with pytest.raises(ValueError, match="name.*'captioning', 'speech_to_text'.*'capptioning'"):
        mmkeras.pretrained("capptioning")
    with pytest.raises(ValueError, match="language of 'captioning'.*'en', 'zh'.*'de'"):
        mmkeras.pretrained("captioning", "de")


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the shipped captioner and of the cards, in place of the zoo."""
    shutil.copy(zoo.path("captioning"), tmp_path)
    shutil.copy(zoo.FOLDER / zoo.CARDS, tmp_path)
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    return zoo.path("captioning")


def test_a_changed_or_missing_file_is_named_with_the_command_that_trains_it(copied):
    copied.write_bytes(copied.read_bytes()[::-1])
    with pytest.raises(ValueError, match=f"{copied}.*mmkeras pretrain captioning"):
        mmkeras.pretrained("captioning")
    copied.unlink()
    with pytest.raises(FileNotFoundError, match=f"{copied}.*mmkeras pretrain captioning"):
        mmkeras.pretrained("captioning")
    (copied.parent / zoo.CARDS).unlink()
    with pytest.raises(FileNotFoundError, match="cards"):
        mmkeras.pretrained("captioning")


@pytest.mark.quality
@pytest.mark.filterwarnings("ignore:Collapse")  # so little training
def test_pretrain_keeps_the_best_of_several_seeds(tmp_path, eager_models, monkeypatch):
    monkeypatch.setattr(builders, "EXAMPLES", {"train": 64, "validation": 16, "test": 16, "test_unseen": 16})
    train = functools.partial(training.train_task, "captioning", epochs=1, units=16, data_dir=str(tmp_path))
    ranks = []

    def rank(scores):
        ranks.append(scores["cider_d"])
        return (scores["cider_d"],)

    recipe = dataclasses.replace(recipes.RECIPES["captioning"], train=train, rank=rank)
    monkeypatch.setitem(recipes.RECIPES, "captioning", recipe)
    card = recipes.pretrain("captioning", seeds=(3, 4), folder=tmp_path, verbose=0)
    assert card["seed"] == (4 if ranks[1] > ranks[0] else 3)
    assert json.loads((tmp_path / zoo.CARDS).read_text()) == [card]
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    captioner = mmkeras.pretrained("captioning")
    assert captioner.novelty.threshold == card["novelty_threshold"]
    assert not hasattr(captioner.model, "optimizer")


@pytest.mark.parametrize("adversarial", (False, True))
def test_half_precision_hardly_changes_an_image(adversarial, tiny_images, tmp_path):
    model = text_to_image.build(
        "toy", vocabulary=tiny_images.vocabulary, image_size=16, adversarial=adversarial
    )
    full, half = tmp_path / "full.keras", tmp_path / "half.keras"
    before = text_to_image.ImageGenerator(model)
    before.save(full)
    recipes.save_for_inference(before, half)
    assert half.stat().st_size < 0.6 * full.stat().st_size
    prompts = ["a small red circle at the top left", "a large blue star in the center"]
    after = mmkeras.load(half)
    np.testing.assert_allclose(before(prompts)[0].astype(int), after(prompts)[0], atol=2)
    np.testing.assert_allclose(before(prompts)[1].astype(int), after(prompts)[1], atol=2)
