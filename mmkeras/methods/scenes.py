"""Multimodal classification of toy scenes: the attributes of a scene from several modalities.

    examples = scenes.examples("train", 2000)        # image, text, and the labels of each attribute
    examples = scenes.degraded(examples, **scenes.DEGRADATION)

`degraded` removes information from each modality, so that no single one shows all attributes.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np

from mmkeras._utils import checks
from mmkeras._utils.predictor import BATCH_SIZE
from mmkeras.distribute import collectives
from mmkeras.nn.spectrogram import LogMel
from mmkeras.text.vocabulary import SPECIAL, UNKNOWN, Vocabulary
from mmkeras.toy import render, scene, speak

ATTRIBUTES = {"size": scene.SIZES, "color": scene.COLORS, "shape": scene.SHAPES, "place": scene.PLACES}
CLASSES = {name: len(values) for name, values in ATTRIBUTES.items()}
LENGTH = 16  # tokens of the longest caption, with <start> and <end>
TOUCHES = 48  # distances of one outline from its center
IMAGE_SIZE = 64
FRAMES, BANDS, STACKED = 48, 40, 8  # time steps of a clip, mel bands, log-mel frames of 10 ms per time step
# what `degraded` removes in experiments
DEGRADATION = {"gray": 0.5, "noise": 20.0, "occluded": 0.1, "masked": 0.35}


@dataclass(frozen=True)
class Examples:
    """Examples of the toy world in several modalities.

    Attributes:
        inputs: {modality: (N, ...) array}. `"image"` (N, 64, 64, 3) float32 in 0..255, `"text"` (N, 16) int32
            token ids, `"touch"` (N, 48) float32, `"speech"` (N, 48, 320) float32, the log-mel frames of 80 ms.
        labels: {attribute: (N,) int32 class ids}, see `ATTRIBUTES`.
        vocabulary: `Vocabulary` of the captions.
        split: Of the scenes.
        numbers: (N,) int. Numbers of the scenes in their split.
    """

    inputs: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    vocabulary: Vocabulary
    split: str
    numbers: np.ndarray

    def __len__(self):
        return len(next(iter(self.labels.values())))

    @property
    def texts(self) -> list[str]:
        """The texts as strings, without masked words."""
        return [self.vocabulary.decode(ids[ids != UNKNOWN]) for ids in self.inputs["text"]]

    def take(self, rows: np.ndarray) -> "Examples":
        """The examples of some rows, (n,) int."""
        inputs = {name: values[rows] for name, values in self.inputs.items()}
        labels = {name: ids[rows] for name, ids in self.labels.items()}
        return replace(self, inputs=inputs, labels=labels, numbers=self.numbers[rows])

    def sample(self, count: int, seed: int = 0) -> "Examples":
        """`count` examples, chosen at random.

        Raises:
            ValueError: if there are not so many, or `count` is not a positive int.
        """
        checks.ints(1, count=count)
        if count > len(self):
            raise ValueError(f"Expected count to be at most {len(self)}. Received: count={count}")
        return self.take(np.random.default_rng(seed).permutation(len(self))[:count])


def examples(
    split: str, count: int, language: str = "en", modalities: Sequence[str] = ("image", "text")
) -> Examples:
    """The first scenes of a split, in some modalities.

    Args:
        split: str. `"train"`, `"validation"`, `"test"` or `"test_unseen"`.
        count: int. Number of scenes.
        language: str. Language of the captions, `"en"` or `"zh"`. Defaults to `"en"`.
        modalities: Sequence of str. Of `"image"`, `"text"`, `"touch"` and `"speech"`, that of the text, which
            takes the longest. Defaults to image and text.

    Raises:
        ValueError: if the split or a modality is unknown, or `count` is not a positive int.
    """
    checks.ints(1, count=count)
    checks.among(_MODALITIES, modalities=modalities)
    things = [scene.sample(split, index).things[0] for index in range(count)]
    texts = [
        scene.pick(scene.generator(split, index, "text"), scene.captions(scene.Scene((thing,)), language))
        for index, thing in enumerate(things)
    ]
    labels = {
        name: np.array([values.index(getattr(thing, name)) for thing in things], "int32")
        for name, values in ATTRIBUTES.items()
    }
    inputs = {name: _MODALITIES[name](split, things, texts, language) for name in modalities}
    return Examples(inputs, labels, _vocabulary(language), split, np.arange(count))


def degraded(
    examples: Examples,
    *,
    gray: float = 0.0,
    noise: float = 0.0,
    occluded: float = 0.0,
    masked: float = 0.0,
    seed: int = 0,
) -> Examples:
    """Removes information from images and texts.

    Args:
        examples: Examples.
        gray: float. Rate of images without color, see `mmkeras.toy.render.render`. Defaults to 0.
        noise: float. Standard deviation of noise in images, of 255. Defaults to 0.
        occluded: float. Share of the image's area that a square of the mean color covers. Defaults to 0.
        masked: float. Rate at which a word is replaced by the unknown word. Defaults to 0.
        seed: int. Seed for all of these. Defaults to 0.

    Raises:
        ValueError: if a rate is not in 0..1, or the noise is negative.
    """
    checks.numbers(0, gray=gray, noise=noise, occluded=occluded, masked=masked)
    for name, rate in {"gray": gray, "occluded": occluded, "masked": masked}.items():
        if rate > 1:
            raise ValueError(f"Expected {name} to be at most 1. Received: {name}={rate}")
    rng, inputs = np.random.default_rng(seed), dict(examples.inputs)
    if "image" in inputs:
        image = inputs["image"].copy()
        for row in np.flatnonzero(rng.random(len(image)) < gray):
            image[row] = render.draw(examples.split, int(examples.numbers[row]), IMAGE_SIZE, gray=True)
        side = round(occluded**0.5 * IMAGE_SIZE)
        corners = rng.integers(0, IMAGE_SIZE - side + 1, (len(image), 2))
        for one, (x, y) in zip(image, corners, strict=True):
            one[y : y + side, x : x + side] = one.mean(axis=(0, 1))
        inputs["image"] = np.clip(image + noise * rng.standard_normal(image.shape, dtype="float32"), 0, 255)
    if "text" in inputs:
        is_masked = (inputs["text"] >= len(SPECIAL)) & (rng.random(inputs["text"].shape) < masked)
        inputs["text"] = np.where(is_masked, UNKNOWN, inputs["text"])
    return replace(examples, inputs=inputs)


def tokens(texts: Sequence[str], language: str = "en") -> np.ndarray:
    """Token ids of texts, (N, 16) int32, as in `Examples.inputs["text"]`. Longer texts are cut."""
    return _vocabulary(language).encode_batch(texts, LENGTH)


# --- the modalities: (split, things, texts, language) → (N, ...) ---


def _images(split, things, texts, language):
    return np.stack([render.draw(split, index, IMAGE_SIZE) for index in range(len(things))]).astype("float32")


def _tokens(split, things, texts, language):
    return tokens(texts, language)


def _touches(split, things, texts, language):
    return np.stack([_touch(thing, scene.generator(split, i, "touch")) for i, thing in enumerate(things)])


def _touch(thing, rng):
    """The distance from the center at evenly spaced points along the outline, with noise."""
    low, high = render.RADIUS[thing.size]
    outline = render.outline(thing.shape)
    outline = np.concatenate([outline, outline[:1]])
    arc_length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(outline, axis=0), axis=1))])
    at = np.linspace(0, arc_length[-1], TOUCHES, endpoint=False)
    points = np.stack([np.interp(at, arc_length, outline[:, axis]) for axis in (0, 1)], axis=1)
    readings = np.linalg.norm(points, axis=1) * (low + (high - low) * rng.random())
    return (10 * readings + 0.1 * (rng.random(TOUCHES) - 0.5)).astype("float32")


def _speech(split, things, texts, language):
    hop = speak.SAMPLE_RATE_HZ // 100
    audio, length = keras.Input((FRAMES * STACKED * hop,)), keras.Input((), dtype="int32")
    log_mel, _ = LogMel(speak.SAMPLE_RATE_HZ, bands=BANDS)(audio, length)  # (B, 1 + FRAMES * STACKED, BANDS)
    stacked = keras.layers.Reshape((FRAMES, STACKED * BANDS))(log_mel[:, : FRAMES * STACKED])
    model = keras.Model([audio, length], stacked)
    utterances = [(text, speak.voice(split, i, language), i) for i, text in enumerate(texts)]
    parts = []
    for start in range(0, len(texts), BATCH_SIZE):  # the samples need more memory than the frames
        spoken = [clip[: audio.shape[1]] for clip in speak.speak_all(utterances[start : start + BATCH_SIZE])]
        clips = np.stack([np.pad(clip, (0, audio.shape[1] - len(clip))) for clip in spoken])
        lengths = np.array([len(clip) for clip in spoken], "int32")
        parts.append(collectives.predict_on_one_device(model, [clips.astype("float32") / 2**15, lengths]))
    return np.concatenate(parts)


_MODALITIES = {"image": _images, "text": _tokens, "touch": _touches, "speech": _speech}


@functools.cache
def _vocabulary(language):
    """Of all captions, the same for every split."""
    texts = (text for index in range(500) for text in scene.captions(scene.sample("train", index), language))
    return Vocabulary.count(texts, unit="character" if language == "zh" else "word")
