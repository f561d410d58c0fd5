"""Visual question answering: the questions, the data, the model and its answers."""

import re
from collections import Counter

import keras
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import mmkeras
from mmkeras import visual_question_answering as vqa
from mmkeras.cli.main import app
from mmkeras.text.vocabulary import Vocabulary
from mmkeras.toy import builders, render, scene
from mmkeras.toy.scene import Scene, Thing
from mmkeras.visual_question_answering import questions
from mmkeras.visual_question_answering.questions import Question

PAIR = Scene((Thing("small", "red", "circle"), Thing("large", "blue", "star")), "left of")
TWO_STARS = Scene((Thing("small", "red", "star"), Thing("large", "red", "star")), "above")
COUNTS = {"train": 48, "validation": 8, "test": 12, "test_unseen": 8}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("questions")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builders, "EXAMPLES", COUNTS)
        return {lang: vqa.data("toy", language=lang, data_dir=folder) for lang in scene.LANGUAGES}


@pytest.fixture(scope="module")
def answerer(toy):
    keras.utils.set_random_seed(0)
    return vqa.QuestionAnswerer(tiny(toy["en"]))


def tiny(data, **options):
    return vqa.build("toy", vocabulary=data.vocabulary, answers=data.answers, units=8, **options)


def drawn(split, count=200, changed=False):
    """[(question, its answer)] about the first scenes of a split."""
    scenes = [scene.sample(split, index, 2) for index in range(count)]
    rng = np.random.default_rng(0)
    return [(q, questions.answer(q, one)) for one in scenes for q in questions.ask(one, rng, changed)]


# --- the questions ---


@pytest.mark.parametrize("language", scene.LANGUAGES)
def test_every_question_is_read_back_in_all_its_wordings(language):
    for question in questions.QUESTIONS:
        for text in questions.texts(question, language):
            assert questions.parse(f" {text.upper().rstrip('?？')} ") == question
            assert "{" not in text
    assert {questions.parse(text).kind for text in questions.examples(language)} == set(questions.KINDS)
    assert questions.parse("is the circle a square?", language) is None


@pytest.mark.parametrize(
    ("text", "of_pair", "of_two_stars"),
    [
        ("what color is the star?", "blue", None),
        ("what shape is the red thing?", "circle", None),
        ("is the star small or large?", "large", None),
        ("is the circle left of the star?", "yes", None),
        ("is the circle right of the star?", "no", None),
        ("is the star left of the circle?", "no", None),
        ("is the star right of the circle?", "yes", None),
        ("is the star above the circle?", None, None),
        ("what color is the cross?", None, None),
        ("how many stars are there?", "1", "2"),
        ("how many red things are there?", "1", "2"),
        ("how many crosses are there?", "0", "0"),
        ("圆形在星形的左边吗？", "yes", None),
        ("星形是什么颜色？", "blue", None),
    ],
)
def test_a_question_has_the_answer_of_the_scene_if_there_is_one(text, of_pair, of_two_stars):
    question = questions.parse(text)
    assert questions.answer(question, PAIR) == of_pair
    assert questions.answer(question, TWO_STARS) == of_two_stars


def test_a_question_supposes_each_thing_that_it_names_once():
    assert questions.supposed(questions.parse("is the circle left of the star?")) == [
        Question("count", ("circle",)),
        Question("count", ("star",)),
    ]
    assert questions.supposed(questions.parse("how many stars are there?")) == []


def test_only_questions_with_one_answer_are_drawn_and_of_every_kind():
    asked = drawn("train")
    assert all(answer in questions.ANSWERS for _, answer in asked)
    assert {question.kind for question, _ in asked} == set(questions.KINDS)
    assert {answer for _, answer in asked} == set(questions.ANSWERS)


def test_the_usual_answer_is_the_most_frequent_and_another_one_with_a_changed_prior():
    for changed in (False, True):
        counts = {kind: Counter() for kind in questions.KINDS}
        for question, answer in drawn("test", changed=changed):
            counts[question.kind][answer == questions.usual(question, changed)] += 1
        for kind, of_kind in counts.items():
            chance = 1 / 5 if kind in ("color", "shape") else 1 / 2
            assert of_kind[True] / of_kind.total() > chance + 0.1, (kind, changed)
    assert all(questions.usual(q) != questions.usual(q, True) for q in questions.QUESTIONS)


def test_unseen_pairs_are_in_no_question_of_training():
    def pairs(asked):
        return {(a, q.about[0]) if q.kind == "color" else (q.about[0], a) for q, a in asked}

    asked = {split: [x for x in drawn(split) if x[0].kind in ("color", "shape")] for split in scene.SPLITS}
    assert pairs(asked["test_unseen"]) == scene.UNSEEN
    assert not pairs(asked["train"]) & scene.UNSEEN


# --- the data ---


@pytest.mark.parametrize("language", scene.LANGUAGES)
def test_toy_batches_have_an_image_a_question_and_its_answer(toy, language):
    data = toy[language]
    (inputs, targets), *_ = data.train
    assert inputs["image"].shape == (32, 64, 64, 3) and targets.shape == (32, len(questions.ANSWERS))
    np.testing.assert_array_equal(np.sum(targets, axis=1), 1)
    words, known = questions.answers(language), {}
    for split, of_scenes in {
        "test": "test",
        "test_unseen": "test_unseen",
        "test_changed_prior": "test",
    }.items():
        (batch,) = getattr(data, split)
        drawn = [render.draw(of_scenes, i, 64, 2).tobytes() for i in range(COUNTS[of_scenes])]
        indices = [drawn.index(image.tobytes()) for image in batch["image"].numpy()]
        for index, texts, answers in zip(indices, batch["captions"], batch["answers"], strict=True):
            for text, given in zip(texts.numpy(), answers.numpy(), strict=True):
                if text:
                    question = questions.parse(text.decode(), language)
                    answer = questions.answer(question, scene.sample(of_scenes, index, 2))
                    assert given.decode() == words[answer]
        known[split] = batch
    test, changed = known["test"], known["test_changed_prior"]
    shown = [{image.tobytes() for image in batch["image"].numpy()} for batch in (test, changed)]
    assert shown[0] == shown[1]
    assert (
        test["captions"].shape != changed["captions"].shape
        or (test["captions"] != changed["captions"]).numpy().any()
    )


def table(folder, *rows, header="image,question,answer"):
    for name in {row.split(",")[0] for row in rows}:
        Image.fromarray(np.full((20, 30, 3), 99, np.uint8)).save(folder / name)
    (folder / "questions.csv").write_text("\n".join([header, *rows]))
    return folder


def test_a_folder_has_a_table_of_questions_and_answers(tmp_path):
    rows = [f"{i}.png,{text}" for i in range(4) for text in ("what is it?,A Cat", "how many?,2")]
    data = vqa.data(table(tmp_path, *rows), image_size=32, validation_share=0, test_share=0, batch_size=4)
    assert data.answers == ("a cat", "2") and data.image_size == 32
    seen = set()
    for inputs, targets in data.train.repeat(8):
        for tokens, target in zip(inputs["tokens"], targets, strict=True):
            seen.add((data.vocabulary.decode(tokens.numpy()), data.answers[np.argmax(target)]))
    assert seen == {("what is it", "a cat"), ("how many", "2")}


def test_questions_without_answers_are_left_out_and_counted(tmp_path):
    folder = table(tmp_path, "a.png,how many?,2", "a.png,what is it?,", "b.png,which?,")
    with pytest.warns(UserWarning, match=r"skipped 2 of 3 rows .*'answer'.*line 3 \('a.png'\)"):
        data = vqa.data(folder, validation_share=0, test_share=0)
    assert data.splits["train"].count == 1 and data.answers == ("2",)


def test_a_folder_without_answers_is_one_error(tmp_path):
    folder = table(tmp_path, "a.png,how many?", "b.png,what is it?", header="image,question")
    with pytest.raises(ValueError, match="skipped 2 of 2 rows whose question has no answer"):
        vqa.data(folder)


def test_an_answer_that_a_model_cannot_give_teaches_nothing_and_is_wrong(tmp_path):
    folder = table(tmp_path, *(f"{i}.png,how many?,{i}" for i in range(3)))
    data = vqa.data(folder, image_size=64, answers=("0", "1"), validation_share=0, test_share=0, min_count=1)
    ((_, targets),) = data.train
    assert sorted(np.sum(targets, axis=1)) == [0, 1, 1]
    model = tiny(data)
    with pytest.warns(UserWarning, match="Collapse"):
        scores = vqa.evaluate(vqa.QuestionAnswerer(model), data.for_evaluate(data.splits["train"]))
    assert scores == {"accuracy": pytest.approx(1 / 3)}


def test_the_source_and_the_language_are_checked():
    with pytest.raises(ValueError, match="source.*'toy'.*source='emoji'"):
        vqa.data("emoji")
    with pytest.raises(ValueError, match="language='de'"):
        vqa.data("toy", language="de")
    with pytest.raises(ValueError, match="objects=1"):
        vqa.data("toy", objects=1)


# --- the model ---


def test_the_answer_depends_on_the_image_the_question_and_the_place(answerer):
    image = np.stack([render.draw("test", index, 64, 2) for index in range(2)])
    flipped, texts = image[:, :, ::-1], ["is the star left of the circle?", "how many stars are there?"]
    first = answerer.probabilities(image, texts)
    np.testing.assert_allclose(first.sum(axis=1), 1, rtol=1e-5)
    for other in (
        answerer.probabilities(image[::-1], texts),
        answerer.probabilities(image, texts[::-1]),
        answerer.probabilities(flipped, texts),
    ):
        assert np.abs(first - other).max() > 1e-5


def test_an_invalid_size_is_named():
    for name, value in {"heads": 0, "kinds": 0, "units": 0, "encoder": "vgg99", "dropout": -1}.items():
        with pytest.raises(ValueError, match=f"{name}.*{name}='?{value}"):
            vqa.build("toy", **{name: value})
    with pytest.raises(ValueError, match="visual_question_answering.build.*'captioning'"):
        vqa.QuestionAnswerer(mmkeras.captioning.build("toy", vocabulary=20, units=8, embedding_dim=8))


def test_a_file_has_the_vocabulary_and_the_answers(answerer, tmp_path):
    answerer.save(tmp_path / "answerer.keras")
    loaded = mmkeras.load(tmp_path / "answerer.keras")
    image = render.draw("test", 0, 64, 2)
    assert loaded.answers == answerer.answers and loaded.vocabulary == answerer.vocabulary
    question = "how many stars are there?"
    assert loaded(image, question, k=3) == answerer(image, question, k=3)


@pytest.mark.quality
def test_train_task_trains_it_on_cached_features_of_a_ready_trained_network(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(builders, "EXAMPLES", COUNTS)
    trained, data = mmkeras.training.train_task(
        "visual_question_answering", epochs=1, verbose=0, weights="captioning", fine_tune=False, units=8,
        data_dir=str(tmp_path),
    )  # fmt: skip
    assert next(iter(data.train))[0]["image"].shape == (32, 8, 8, 128)
    assert trained.answers == data.answers


# --- the answers ---


def test_one_in_one_out_and_a_list_in_a_list_out(answerer):
    images, question = [render.draw("test", index, 64, 2) for index in range(3)], "how many stars are there?"
    one = answerer(images[0], question)
    assert one in questions.ANSWERS
    assert answerer(images, question) == [answerer(image, question) for image in images]
    several = [question, "how many crosses are there?"]
    assert answerer(images[0], several) == [answerer(images[0], text) for text in several]
    assert answerer(images[:2], several) == [answerer(i, q) for i, q in zip(images, several, strict=False)]
    (best, probability), (_, second) = answerer(images[0], question, k=2)
    assert best == one and probability >= second > 0
    with pytest.raises(ValueError, match="3 images and 2 questions"):
        answerer(images, several)
    with pytest.raises(ValueError, match="k=0"):
        answerer(images[0], question, k=0)


@pytest.mark.parametrize("question", ["what is the weather?", "is the star red?", "", "  ", "?", None, 5])
def test_another_question_is_answered_with_the_kinds_that_are_known(answerer, question):
    image = render.draw("test", 0, 64, 2)
    received = re.escape(f"question={question!r}")
    with pytest.raises(ValueError, match=f"question.*what color is the circle.*how many.*{received}"):
        answerer(image, question)


def test_what_cannot_be_read_in_a_list_is_left_out_and_named(answerer):
    image, known = render.draw("test", 0, 64, 2), "how many stars are there?"
    with pytest.warns(UserWarning, match="1 of 2 questions.*question='why\\?'"):
        answers = answerer(image, [known, "why?"])
    assert answers[0] in questions.ANSWERS and answers[1] is None
    with pytest.warns(UserWarning, match="missing.png"):
        assert answerer([image, "missing.png"], known)[1] is None


def counting(answerer, monkeypatch, count):
    """The answerer as if it counted so many of everything, and were sure of red otherwise."""

    def predict(batch, texts):
        right = [count if questions.parse(text).kind == "count" else "red" for text in texts]
        return {"probability": np.eye(len(answerer.answers))[[answerer.answers.index(x) for x in right]]}

    monkeypatch.setattr(answerer, "_predict", predict)


@pytest.mark.parametrize("count", ["0", "2"])
def test_a_question_about_one_thing_where_there_are_two_or_none_has_a_note(answerer, monkeypatch, count):
    counting(answerer, monkeypatch, count)
    image = render.render(TWO_STARS, rng=np.random.default_rng(0))
    with pytest.warns(
        UserWarning, match=f"number 1, 'what color is the star\\?'.*with {count} for 'how many stars"
    ):
        answers = answerer([image] * 2, ["how many red things are there?", "what color is the star?"])
    assert answers == [count, "red"]


def test_a_question_about_one_thing_has_no_note(answerer, monkeypatch, recwarn):
    counting(answerer, monkeypatch, "1")
    assert answerer(render.render(PAIR, rng=np.random.default_rng(0)), "what color is the star?") == "red"
    assert not recwarn


def test_a_model_of_other_questions_takes_any_with_a_known_word(recwarn):
    model = vqa.build("toy", vocabulary=Vocabulary(("who", "what", "is")), answers=("cat", "dog"), units=8)
    other = vqa.QuestionAnswerer(model)
    assert not other.of_toy_world
    assert other(np.zeros((64, 64, 3), np.uint8), "who barks?") in ("cat", "dog")
    with pytest.raises(ValueError, match="question='why'"):
        other(np.zeros((64, 64, 3), np.uint8), "why")


def test_accuracy_and_the_blind_baseline_equal_those_by_hand(answerer, toy, monkeypatch):
    data = toy["en"]
    red, right, blind, most = [], [], [], {}
    for batch in data.for_evaluate(data.splits["train"]):
        for text, answer in zip(
            batch["captions"].numpy().ravel(), batch["answers"].numpy().ravel(), strict=True
        ):
            if text:
                most.setdefault(questions.parse(text.decode()), []).append(answer.decode())
    overall = Counter(answer for answers in most.values() for answer in answers)
    for batch in data.test:
        for text, answer in zip(
            batch["captions"].numpy().ravel(), batch["answers"].numpy().ravel(), strict=True
        ):
            if text:
                question = questions.parse(text.decode())
                red.append(question.kind == "color")
                right.append(answer.decode() == ("1" if question.kind == "count" else "red"))
                known = Counter(most.get(question, overall))
                blind.append(known.most_common(1)[0][0] == answer.decode())
    counting(answerer, monkeypatch, "1")
    scores = answerer.evaluate(data.test, **answerer.evaluation_options(data))
    assert scores["accuracy"] == pytest.approx(np.mean(right))
    assert scores["accuracy_color"] == pytest.approx(np.mean(np.array(right)[red]))
    assert scores["blind_accuracy"] == pytest.approx(np.mean(blind))


def test_an_explanation_is_of_the_answer(answerer):
    image, question = render.draw("test", 0, 64, 2), "what color is the triangle?"
    explanation = answerer.explain(image, question)
    assert explanation.words == [answerer(image, question)] and explanation.caption.startswith(question)
    assert explanation.maps.shape == (1, 64, 64) and explanation.maps.sum() in (0, pytest.approx(1, rel=1e-4))
    with pytest.raises(ValueError, match="question='why\\?'"):
        answerer.explain(image, "why?")
    with pytest.raises(ValueError, match="method='attention'"):
        answerer.explain(image, question, "attention")


# --- the command line, export ---


@pytest.mark.slow
def test_predict_and_evaluate_from_the_command_line(answerer, toy, tmp_path, monkeypatch):
    monkeypatch.setattr(builders, "EXAMPLES", COUNTS)
    model, image = tmp_path / "answerer.keras", tmp_path / "scene.png"
    answerer.save(model)
    Image.fromarray(render.draw("test", 0, 64, 2)).save(image)
    runner = CliRunner()
    done = runner.invoke(
        app, ["predict", str(model), str(image), "--set", "question=how many stars are there?"]
    )
    assert done.exit_code == 0 and done.stdout.strip() in questions.ANSWERS
    for question in ([], ["--set", "question=why?"]):
        done = runner.invoke(app, ["predict", str(model), str(image), *question])
        assert done.exit_code == 2 and "how many circles are there?" in done.stderr
    done = runner.invoke(app, ["evaluate", str(model), "--set", f"data_dir={tmp_path}"])
    assert done.exit_code == 0, done.stderr
    assert all(name in done.stdout for name in ("test_unseen", "test_changed_prior", "blind_accuracy"))


@pytest.mark.slow
def test_an_exported_model_answers_without_mmkeras(answerer, tmp_path):
    pytest.importorskip("tf2onnx", reason="needs the extra export")
    from tests.test_export import answer

    image = tmp_path / "scene.png"
    Image.fromarray(render.draw("test", 0, 64, 2)).save(image)
    assert answerer.export(tmp_path / "made").keys() == {"answer"}
    for question in ("how many stars are there?", "how many crosses are there?"):
        assert answer(tmp_path / "made", image, question) == answerer(image, question)


# --- the ready-trained models ---


@pytest.mark.parametrize("language", scene.LANGUAGES)
def test_the_ready_trained_model_reaches_its_scores(language):
    card = mmkeras.zoo.card("visual_question_answering", language)
    test, unseen, changed = (card["scores"][x] for x in ("test", "test_unseen", "test_changed_prior"))
    assert card["megabytes"] <= 1
    assert test["accuracy"] >= 0.95 and unseen["accuracy"] >= 0.85 and changed["accuracy"] >= 0.95
    assert test["blind_accuracy"] < 0.7 and changed["blind_accuracy"] < 0.3


@pytest.mark.parametrize(
    ("language", "question", "note"),
    [("en", "what color is the star?", "how many stars"), ("zh", "星形是什么颜色？", "有几个星形")],
)
def test_the_ready_trained_model_answers_and_notes_two_stars(language, question, note, recwarn):
    answerer = mmkeras.pretrained("visual_question_answering", language)
    rng = np.random.default_rng(0)
    assert answerer(render.render(PAIR, rng=rng), question) == questions.answers(language)["blue"]
    assert not recwarn
    with pytest.warns(UserWarning, match=f"with 2 for '{note}"):
        answerer(render.render(TWO_STARS, rng=rng), question)


@pytest.mark.slow
@pytest.mark.parametrize("language", scene.LANGUAGES)
def test_the_explanation_of_a_color_is_on_the_thing_that_is_asked_about(language):
    answerer = mmkeras.pretrained("visual_question_answering", language)
    focuses = []
    for index in range(20):
        image, (first, _) = render.draw("test", index, 64, 2), scene.sample("test", index, 2).things
        question = Question("color", (first.shape,))
        if questions.answer(question, scene.sample("test", index, 2)):
            half = render.foreground(image)
            is_above = scene.sample("test", index, 2).relation == "above"
            half[32:] &= not is_above
            half[:, 32:] &= is_above
            explanation = answerer.explain(image, questions.texts(question, language)[0])
            focuses.append(explanation.focus(half).item())
    print(language, focuses)
    assert np.mean(focuses) >= 3


@pytest.mark.quality
def test_training_from_scratch_reaches_the_scores(tmp_path):
    answerer, data = mmkeras.training.train_task("visual_question_answering", data_dir=str(tmp_path), verbose=0)
    bars = {"test": 0.95, "test_unseen": 0.85, "test_changed_prior": 0.9}
    scores = {split: answerer.evaluate(getattr(data, split)) for split in bars}
    print(scores)
    assert all(scores[split]["accuracy"] >= bar for split, bar in bars.items())
