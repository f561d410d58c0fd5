"""The assistant (chapter 6.3): ready-trained models of speech, images and text in one dialog.

assistant = Assistant()
reply = assistant("a small red circle at the top left")     # or "speech.wav", "photo.png", arrays
reply.text, reply.image, reply.audio                        # what it understood, drew, and says
assistant("now the same in blue").image
assistant("a smal pink circle").text                        # "I do not know 'pink'. Which color: ...?"
Assistant(search="my/images")("show me stars").found        # ['my/images/7.png', ...]
"""

import functools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmkeras import zoo
from mmkeras._utils import checks
from mmkeras.applications.assistant import language as words
from mmkeras.applications.image_search import ImageSearch
from mmkeras.applications.image_search.inference import SUFFIXES
from mmkeras.data import tables
from mmkeras.distribute import collectives
from mmkeras.media import audio, images
from mmkeras.toy import scene, speak
from mmkeras.toy.scene import Scene

RESULTS = Path(__file__).with_name("results.json")  # of `experiment`, with the weights of the confidence
# It asks if what it understood is right with a lower probability: a wrong image costs as much as ten questions.
# What is hardly ever right is no use as a question.
ASK_BELOW, GIVE_UP_BELOW = 0.9, 0.1
SAMPLES = 4  # images per drawing, of which the classifier chooses one
NO_SCENE = -50.0  # log-probability of a caption that describes no scene of one thing
VOICES = {"en": speak.Voice("en-us+f3"), "zh": speak.Voice("cmn+f3", rate=220)}  # not among the training voices


@dataclass(frozen=True)
class Reply:
    """An answer of the assistant.

    Attributes:
        text: What it understood, as a caption; or a question or a remark.
        image: (64, 64, 3) uint8, what it drew, or the first image that it found. None without one.
        audio: (n,) int16 at 16 kHz, the text as speech. None without sound.
        scene: What it understood. None if that is not a complete scene.
        confidence: Probability that the scene of a clip or an image is right. None for a text, which is read by
            rules.
        is_question: Whether it waits for an answer.
        found: Names of the images that a search found.
    """

    text: str
    image: np.ndarray | None = None
    audio: np.ndarray | None = None
    scene: Scene | None = None
    confidence: float | None = None
    is_question: bool = False
    found: Sequence[str] = ()


@dataclass(frozen=True)
class _Question:
    """An open question: for the value of an attribute, or (None) whether the draft is what was meant."""

    draft: dict[str, list[str]]  # {attribute: values}; complete if each attribute has one
    attribute: str | None
    is_unsure: bool


class Assistant:
    """A dialog about colored shapes in speech, text and images, English and Chinese.

    It keeps the last scene ("now the same in red") and an open question. A text switches the language.

    Args:
        language: str. `"en"` or `"zh"`: of clips, and of the answers to images. Defaults to `"en"`.
        search: What "show me stars" searches in: a folder of images, {name: image}, or an `ImageSearch` with an
            index. Images other than those of an `ImageSearch` are found by their captions. Defaults to None.
        sound: bool. Whether replies have audio. Defaults to True.

    Raises:
        FileNotFoundError, ValueError: if the language is unknown, or there are no images that can be read.
    """

    def __init__(self, language: str = "en", *, search: Any = None, sound: bool = True):
        checks.among(scene.LANGUAGES, language=[language])
        self.language, self.sound = language, sound
        self._models: dict[tuple[str, str], Any] = {}
        self.images = search
        if search is not None and not isinstance(search, ImageSearch):
            self.images = _images(search)
            captions = self._model("captioning")(list(self.images.values()))
            self._indexed = dict(
                zip(self.images, map(scene.parse, [text or "" for text in captions]), strict=True)
            )
        self.forget()

    def forget(self) -> None:
        """Starts a new dialog."""
        self.scene: scene.Scene | None = None
        self._question: _Question | None = None

    def __call__(self, message: Any) -> Reply:
        """Answers a message.

        Args:
            message: A text; a path of an image or of a clip; a clip as (sample_rate_hz, array); or an image as
                an array (H, W, 3) or PIL image.

        Raises:
            FileNotFoundError, ValueError: if a file, a clip or an image cannot be read.
        """
        suffix = Path(message).suffix.lower() if isinstance(message, str | os.PathLike) else ""
        if suffix in tables.SUFFIXES["transcripts"] or audio.is_pair(message):
            clip = audio.read(message, self._model("speech_to_text").sample_rate_hz)
            (text,), features = self.hear([clip])
            return self._answer(text, float(self.confidence("speech", features)[0]))
        if isinstance(message, str) and suffix not in SUFFIXES:
            return self._answer(message)
        image = images.resize(images.read(message), self._model("captioning").image_size)
        (text,), features = self.see(image[None])
        return self._describe(text, float(self.confidence("image", features)[0]))

    # --- what the models say, and how sure they are ---

    def hear(self, clips: Sequence[np.ndarray]) -> tuple[list[str], np.ndarray]:
        """Transcripts of clips (n,) float32 at the model's sample rate, and features (N, 1) of their
        confidence: the logarithm of minus the log-probability."""
        texts, log_probability = self._model("speech_to_text").generate(clips)
        return texts, _log(log_probability)[:, None]

    def see(self, batch: np.ndarray) -> tuple[list[str], np.ndarray]:
        """Captions of images (N, 64, 64, 3), and features (N, 3) of their confidence: the logarithms of minus
        the log-probability of the caption, of minus that of its attributes to the classifier, and of the
        novelty."""
        captioner = self._model("captioning")
        tokens, log_probability = captioner.generate(batch)
        texts = [captioner.vocabulary.decode(ids) for ids in tokens]
        agreement = self.agreement(batch, [scene.parse(text, self.language) for text in texts])
        return texts, np.stack(
            [_log(log_probability), _log(agreement), _log(-captioner.novelty(batch))], axis=1
        )

    def agreement(self, batch: np.ndarray, scenes: Sequence[scene.Scene | None]) -> np.ndarray:
        """Log-probability (N,) of the attributes of each scene in each image, by the attribute classifier. For
        None and for a scene of two things, below that of any other."""
        names, log_probs = self._attributes, self._log_probs(batch)

        def of(i, seen):
            if seen is None or seen.relation:
                return NO_SCENE
            return sum(log_probs[name][i, names[name].index(getattr(seen.things[0], name))] for name in names)

        return np.array([of(i, seen) for i, seen in enumerate(scenes)])

    def confidence(self, kind: str, features: np.ndarray) -> np.ndarray:
        """Probability (N,) that what was understood is right, from the features (N, F) of `hear` or `see`.

        Logistic regression on the features (Platt 1999), fitted on degraded clips and images of the validation
        split, see `mmkeras.applications.assistant.experiment`.

        Args:
            kind: str. `"speech"` or `"image"`.
            features: (N, F).
        """
        bias, *weights = self.calibration[f"{kind}-{self.language}"]
        return 1 / (1 + np.exp(-bias - features @ weights))

    def classify(self, image: np.ndarray) -> dict[str, str]:
        """The attributes of an image that it drew, by the attribute classifier."""
        log_probs = self._log_probs(image[None])
        return {name: names[log_probs[name][0].argmax()] for name, names in self._attributes.items()}

    def _log_probs(self, batch):
        """{attribute: (N, classes)}"""
        logits = collectives.predict_batches(self._model("attribute_classifier").model, batch)
        return {name: x - np.logaddexp.reduce(x, axis=-1, keepdims=True) for name, x in logits.items()}

    @functools.cached_property
    def calibration(self) -> dict[str, list[float]]:
        """The weights of `confidence`, a bias and one per feature."""
        return json.loads(RESULTS.read_text(encoding="utf-8"))["calibration"]

    @property
    def _attributes(self):
        return self._model("attribute_classifier").attributes

    def _model(self, name):
        """The ready-trained model of that name in the dialog's language, loaded on first use."""
        key = name, self.language
        if key not in self._models:
            self._models[key] = zoo.pretrained(*key)
        return self._models[key]

    # --- the dialog ---

    def _answer(self, text, confidence=None):
        """The reply to a text, or to a transcript with its confidence."""
        if not text.strip():
            return self._say("nothing")
        if confidence is not None and confidence < GIVE_UP_BELOW:
            return self._say("unheard", confidence)
        self.language = words.language_of(text, self.language)
        sentence = words.read(text, self.language)
        if sentence.asks & {"yes", "no"}:
            return self._confirm("yes" in sentence.asks, confidence)
        is_unsure, prefix = confidence is not None and confidence < ASK_BELOW, ""
        if corrected := words.corrected(sentence, self.language):
            is_unsure, sentence = True, words.read(corrected, self.language)
        if sentence.unknown:
            if not sentence.values:
                example = scene.captions(scene.sample("train", 0), self.language)[0]
                return self._say("no_words", confidence, example=example)
            unknown = words.listed([f"“{word}”" for word in sentence.unknown], self.language)
            prefix = words.say("unknown", self.language, words=unknown)
        if "search" in sentence.asks:
            return self._search(sentence.values, prefix)
        if sentence.scene and sentence.scene.relation:
            return self._say("pair", confidence)
        draft, question = sentence.values, self._question
        if question and question.attribute is None and "shape" in draft:
            question = None  # neither yes nor no, but another thing
        if question and len(draft) < len(scene.ATTRIBUTES):
            if question.attribute and question.attribute not in draft:
                return self._say("other_question", confidence, question=self._ask(question).text)
            draft, is_unsure = question.draft | draft, is_unsure or question.is_unsure
        elif "edit" in sentence.asks or (self.scene and "shape" not in draft):
            if self.scene is None:
                return self._say("no_scene", confidence)
            draft = _draft(self.scene) | draft
        return self._continue(draft, is_unsure, confidence, prefix)

    def _describe(self, text, confidence):
        """The reply to an image with that caption."""
        seen = scene.parse(text, self.language)
        if seen is None or seen.relation or confidence < GIVE_UP_BELOW:
            return self._say("unseen", confidence)
        if confidence < ASK_BELOW:
            return self._continue(_draft(seen), True, confidence)
        self.scene, self._question = seen, None
        return self._reply(text, scene=seen, confidence=confidence)

    def _confirm(self, is_yes, confidence):
        """The reply to yes or no."""
        question = self._question
        if question is None:
            return self._say("not_asked", confidence)
        if is_yes and question.attribute:
            return self._say("other_question", confidence, question=self._ask(question).text)
        self._question = None
        return self._draw(_scene(question.draft), confidence) if is_yes else self._say("again", confidence)

    def _continue(self, draft, is_unsure, confidence=None, prefix=""):
        """Draws a draft that is complete and sure, else asks. A question for an attribute also answers what an
        unknown word meant; in a complete draft it may mean anything."""
        attribute = next((name for name in scene.ATTRIBUTES if len(draft.get(name, ())) != 1), None)
        if attribute is None and not is_unsure and not prefix:
            return self._draw(_scene(draft), confidence)
        self._question = _Question(draft, attribute, is_unsure)
        return self._ask(self._question, confidence, prefix)

    def _ask(self, question, confidence=None, prefix=""):
        if question.attribute is None:
            meant = _scene(question.draft)
            text = words.say("confirm", self.language, caption=scene.captions(meant, self.language)[0])
            return self._reply(prefix + text, scene=meant, confidence=confidence, is_question=True)
        known = scene.words(question.attribute, self.language)
        options = [known[value] for value in question.draft.get(question.attribute) or known]
        text = words.say(
            "which",
            self.language,
            attribute=words.say(question.attribute, self.language),
            options=words.listed(options, self.language),
        )
        return self._reply(prefix + text, confidence=confidence, is_question=True)

    def _draw(self, meant, confidence):
        """Draws a scene: of several images the one that shows its attributes best, by the classifier."""
        self.scene, self._question = meant, None
        text = scene.captions(meant, self.language)[0]
        drawn = self._model("text_to_image")(text, samples=SAMPLES)
        image = drawn[self.agreement(drawn, [meant] * SAMPLES).argmax()]
        shown = self.classify(image)
        wrong = [name for name in scene.ATTRIBUTES if shown[name] != getattr(meant.things[0], name)]
        if wrong:
            names = words.listed([words.say(name, self.language) for name in wrong], self.language)
            text = words.say("poor", self.language, caption=text, attributes=names)
        return self._reply(text, image, scene=meant, confidence=confidence)

    def _search(self, values, prefix):
        if self.images is None:
            return self._say("no_images")
        total = len(self.images)
        if isinstance(self.images, ImageSearch):
            parts = [scene.words(name, self.language)[value] for name in values for value in values[name]]
            found = [path for path, _ in self.images.search(("" if self.language == "zh" else " ").join(parts))]
            image = images.read(found[0]) if found else None
        else:
            found = [
                name
                for name, seen in self._indexed.items()
                if seen and any(all(getattr(thing, a) in values[a] for a in values) for thing in seen.things)
            ]
            image = images.read(self.images[found[0]]) if found else None
        if not found:
            return self._say("none", total=total)
        names = words.listed(found, self.language)
        text = prefix + words.say("found", self.language, count=len(found), total=total, names=names)
        return self._reply(text, image, found=found)

    def _say(self, key, confidence=None, **parts):
        is_question = key == "other_question"
        return self._reply(
            words.say(key, self.language, **parts), confidence=confidence, is_question=is_question
        )

    def _reply(self, text, image=None, **options):
        sound = speak.speak(text, VOICES[self.language]) if self.sound else None
        return Reply(text, image, sound, **options)


def _scene(draft):
    return scene.Scene((scene.Thing(**{name: value for name, (value,) in draft.items()}),))


def _draft(seen):
    return {name: [getattr(seen.things[0], name)] for name in scene.ATTRIBUTES}


def _log(log_probability):
    return np.log(np.maximum(-log_probability, 1e-6))


def _images(search):
    """{name: image} of a folder, with its subfolders, or as given."""
    if isinstance(search, Mapping):
        return dict(search)
    folder = Path(search)
    if not folder.is_dir():
        raise FileNotFoundError(f"Expected search to be a folder of images. Received: search={str(search)!r}")
    found = sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise ValueError(f"Expected search to be a folder with images. Received: search={str(search)!r}")
    return dict(zip(found, found, strict=True))
