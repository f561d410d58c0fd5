"""Visual question answering (chapter 8.1): the trained model.

answerer = QuestionAnswerer(model)
answerer("photo.jpg", "what color is the star?")                    # 'red'
answerer("photo.jpg", ["how many stars are there?", "..."])         # a list in, a list out
answerer("photo.jpg", "what color is the star?", k=2)               # [('red', 0.93), ('orange', 0.02)]
answerer.explain("photo.jpg", "what color is the star?").plot()     # the pixels that the answer depends on
evaluate(answerer, data.test)                                       # {'accuracy': ..., 'accuracy_color': ...}
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import keras
import numpy as np

from mmkeras._utils import checks, progress, terminal
from mmkeras._utils.parts import Part
from mmkeras._utils.predictor import ImagePredictor
from mmkeras.distribute import collectives
from mmkeras.evaluation import explain, metrics
from mmkeras.evaluation.explanations import Explanation
from mmkeras.media import images
from mmkeras.text.vocabulary import SPECIAL
from mmkeras.visual_question_answering import questions as grammar
from mmkeras.visual_question_answering.model import EPOCHS, TASK

if TYPE_CHECKING:
    import tensorflow as tf


class QuestionAnswerer(ImagePredictor):
    """Answers questions about images.

    Args:
        model: keras.Model. From `build`, or `keras.saving.load_model` once
            `mmkeras.visual_question_answering` is imported.

    Attributes:
        answers: Names of the answers that it can give.
        of_toy_world: bool. Whether it knows no words but those of the toy world's questions. It then refuses
            others, see `mmkeras.visual_question_answering.questions`.
    """

    names = (TASK,)
    title = "Visual question answering"
    builder = "mmkeras.visual_question_answering.build()"
    inputs = "questions"
    options = ("question",)
    epochs, file, duration = EPOCHS, "question_answerer.keras", "about six minutes on one core"
    variants: ClassVar = {TASK: (TASK, {})}

    def __init__(self, model: keras.Model):
        super().__init__(model)
        self.encoder, self.question_encoder = map(model.get_layer, ("image_encoder", "question_encoder"))
        self.vocabulary = next(
            layer.vocabulary for layer in self.question_encoder.layers if hasattr(layer, "vocabulary")
        )
        self.answers = model.get_layer("g").get_layer("answer").classes
        self.of_toy_world = {*self.vocabulary.words[len(SPECIAL) :]} <= _words(self.vocabulary)
        self.network = self.encoder.get_layer("grid").network
        self.novelty = None

    def _connect(self):
        encoder = self.novelty.with_scores(self.encoder, "grid") if self.novelty else self.encoder
        image = keras.Input(encoder.input_shape[1:], name="image")
        tokens = keras.Input((None,), dtype="int32", name="tokens")
        cells, *scores = keras.tree.flatten(encoder(image))
        logits = self.model.get_layer("g")([cells, *self.question_encoder(tokens)])
        outputs = {"probability": keras.ops.softmax(logits), **dict(zip(("score",), scores, strict=False))}
        self._network = keras.Model({"image": image, "tokens": tokens}, outputs)

    def __call__(
        self, images: Any, question: str | Sequence[str] | None = None, *, k: int | None = None
    ) -> Any:
        """Answers a question about an image.

        Args:
            images: Path, open file, PIL image or array (see `mmkeras.media.images.read`), or a list of these.
            question: str, or a list: one for each of the images, or several about one image.
            k: int, optional. Number of answers with their probability. Defaults to None: the best alone.

        Returns:
            An answer; with `k` a list [(answer, probability)], the best first. If one of the arguments is a
            list, a list of these, None for an image or a question that cannot be read, which a warning names.
            For the toy world a warning names questions about "the star" of images that have none, or two.

        Raises:
            FileNotFoundError, ValueError: if a single image, or every image of a list, cannot be read; if a
                question is empty or has no word of the vocabulary, for the toy world also if its grammar has no
                such question; if the lists have different lengths.
        """
        if k is not None:
            checks.ints(1, k=k)
        is_list = isinstance(images, list | tuple) or isinstance(question, list | tuple)
        given = _pairs(images, question) if is_list else (images, question)

        def predict(values, positions):
            pixels, texts = zip(*values, strict=True)
            outputs = self._predict(np.stack(pixels), texts)
            if self.novelty:
                self.novelty.warn(outputs["score"], positions)
            if self.of_toy_world:
                self._warn_of_missing(np.stack(pixels), texts, positions)
            return [self._best(row, k) for row in outputs["probability"]]

        return self._answer(given, self._read, predict, is_list=is_list)

    def probabilities(self, batch: np.ndarray, questions: Sequence[str]) -> np.ndarray:
        """The probability of each answer, (B, answers).

        Args:
            batch: (B, image_size, image_size, 3) RGB 0..255.
            questions: B texts.
        """
        return self._predict(batch, questions)["probability"]

    def explain(
        self, image: Any, question: str | None = None, method: str = "hires_cam", **options: Any
    ) -> Explanation:
        """The answer to a question, with a map of the pixels that its logit depends on.

        Args:
            image: Path, open file, PIL image or array.
            question: str.
            method: str. One of `mmkeras.evaluation.explain.METHODS`. Defaults to `"hires_cam"`.
            **options: Those of the method, such as `baseline`.

        Raises:
            FileNotFoundError, ValueError: as for a call, or if there is no such method.
        """
        original = images.read(image)
        pixels, question = self._read((original, question))
        inputs = {"image": pixels[None], "tokens": self.vocabulary.encode_batch([question])}
        best = int(self.probabilities(inputs["image"], [question]).argmax())
        answer = self.answers[best]

        def logit(outputs):
            return outputs[:, best]

        tokens = keras.Input((None,), dtype="int32", name="tokens")
        logits = self.model.get_layer("g")([*self.encoder.outputs, *self.question_encoder(tokens)])
        # the model, in which the encoder is no layer of its own
        flat = keras.Model({"image": self.encoder.input, "tokens": tokens}, logits, name=self.model.name)
        return explain.explanation(
            method, flat, inputs, logit, original, [answer], f"{question} {answer}", **options
        )

    def _predict(self, batch, questions):
        tokens = self.vocabulary.encode_batch(list(questions))
        return collectives.predict_batches(self._network, {"image": batch, "tokens": tokens})

    def _best(self, row, k):
        order = np.argsort(-row, kind="stable")[: k or 1]
        best = [(self.answers[i], float(row[i])) for i in order]
        return best[0][0] if k is None else best

    def _read(self, pair):
        image, question = pair
        known = f" It knows questions such as {', '.join(grammar.examples(self.language))}" * self.of_toy_world
        if not isinstance(question, str) or not self.vocabulary.knows(question):
            raise ValueError(
                f"Expected question to be a text with a word of {self.vocabulary!r}.{known} Received: "
                f"{question=}"
            )
        if self.of_toy_world and grammar.parse(question, self.language) is None:
            raise ValueError(f"Expected question to be one that the grammar has.{known} Received: {question=}")
        return images.resize(images.read(image), self.image_size), question

    def _warn_of_missing(self, batch, texts, positions):
        """Asks the model how many there are of what each question supposes to be there once."""
        supposed = [
            (row, thing)
            for row, text in enumerate(texts)
            for thing in grammar.supposed(grammar.parse(text, self.language))
        ]
        if not supposed:
            return
        rows = [row for row, _ in supposed]
        counting = [grammar.texts(thing, self.language)[0] for _, thing in supposed]
        counts = [self._best(row, None) for row in self.probabilities(batch[rows], counting)]
        notes = [
            f"number {positions[row]}, {texts[row]!r}, of an image with {count} for {text!r}"
            for row, text, count in zip(rows, counting, counts, strict=True)
            if count != "1"
        ]
        if notes:
            terminal.warn(
                f"Do not rely on the answer to a question about one thing where the model counts none or two: "
                f"{'; '.join(notes[:3])}{' ...' if len(notes) > 3 else ''}."
            )

    def parts(self):
        image = keras.Input(self.network.input_shape[1:], name="image")
        tokens = keras.Input((None,), dtype="int32", name="tokens")
        outputs = keras.Model(self.model.input, self.model.output)({"image": image, "tokens": tokens})
        return {"answer": Part.of(keras.Model([image, tokens], outputs), ("logits",))}

    def card(self):
        return super().card() | {"answers": self.answers}

    @property
    def data_options(self) -> dict[str, Any]:
        # with max_length given, `data` need not read all training questions
        return {
            "vocabulary": self.vocabulary,
            "answers": self.answers,
            "image_size": self.image_size,
            "max_length": 50,
        }

    def evaluate(self, dataset, **options):
        return evaluate(self, dataset, **options)

    def evaluation_options(self, data):
        return {"train": data.for_evaluate(data.splits["train"])} if "train" in data.splits else {}


def evaluate(
    answerer: QuestionAnswerer, dataset: "tf.data.Dataset", train: "tf.data.Dataset | None" = None
) -> dict[str, float]:
    """Answers all questions about every image.

    Args:
        answerer: QuestionAnswerer.
        dataset: Batches of {"image", "captions", "answers"}, as `data(...).test`.
        train: The same of the training split, as `data.for_evaluate(data.splits["train"])`, for the blind
            baseline. Defaults to None.

    Returns:
        - `accuracy`: share of right answers.
        - With `train`, `blind_accuracy`: that of the answer which the same question has most often in training,
          whatever the image shows. No model that sees the question alone does better on the training split.
        - `accuracy_color` and so on, if all questions are of the toy world: that of each kind.

        A warning names a collapse: the same answer to all questions.

    Raises:
        ValueError: if the dataset is empty or does not fit the model (fields, image size, vocabulary).
    """
    checks.images(dataset, answerer.image_size)
    checks.dataset(dataset, "answers")
    asked, truths, given = [], [], []
    for batch in progress.bar(dataset, "images"):
        pairs = _questions(batch)
        if not asked:
            answerer.vocabulary.check_known(question for _, question, _ in pairs)
        rows, texts, answers = zip(*pairs, strict=True)
        best = answerer.probabilities(batch["image"].numpy()[list(rows)], texts).argmax(axis=1)
        given += [answerer.answers[i] for i in best]
        asked += texts
        truths += answers
    checks.not_empty(asked)
    right = np.array(given) == np.array(truths)
    scores = {"accuracy": float(right.mean())}
    meanings = [grammar.parse(text) or text for text in asked]
    if train is not None:
        counts = defaultdict(Counter)
        for batch in train:
            for _, question, answer in _questions(batch):
                counts[grammar.parse(question) or question][answer] += 1
                counts[None][answer] += 1
        blind = [counts.get(meaning, counts[None]).most_common(1)[0][0] for meaning in meanings]
        scores["blind_accuracy"] = float(np.mean(np.array(blind) == np.array(truths)))
    if all(isinstance(meaning, grammar.Question) for meaning in meanings):
        kinds = np.array([meaning.kind for meaning in meanings])
        scores |= {f"accuracy_{kind}": float(right[kinds == kind].mean()) for kind in dict.fromkeys(kinds)}
    metrics.warn_of_collapse(given, "answer", "question")
    return scores


def _questions(batch):
    """[(row of its image, question, answer)] of a batch, without padding."""
    return [
        (row, question.decode(), answer.decode())
        for row, of_image in enumerate(zip(batch["captions"].numpy(), batch["answers"].numpy(), strict=True))
        for question, answer in zip(*of_image, strict=True)
        if question
    ]


def _pairs(images, questions):
    """A list of (image, question) from two lists of the same length, or from a list and one of the others."""
    lists = [list(x) if isinstance(x, list | tuple) else None for x in (images, questions)]
    if lists[0] is None:
        return [(images, question) for question in lists[1]]
    if lists[1] is None:
        return [(image, questions) for image in lists[0]]
    if len(lists[0]) != len(lists[1]):
        raise ValueError(
            f"Expected a question for each image, one image, or one question. Received: {len(lists[0])} images "
            f"and {len(lists[1])} questions"
        )
    return list(zip(*lists, strict=True))


def _words(vocabulary):
    """All words of the toy world's questions."""
    texts = (text for question in grammar.QUESTIONS for text in grammar.texts(question, vocabulary.language))
    return {word for text in texts for word in vocabulary.split(text)}
