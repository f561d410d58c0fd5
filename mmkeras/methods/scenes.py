"""The toy scenes as arrays: one question, which scene is it, asked to several modalities of one example.

    examples = scenes.examples("train", 2000)       # image, text, touch, and the labels of each attribute
    examples = scenes.degraded(examples, image=0.5) # images that have lost part of what they show

What an attribute is told by can be taken away from one modality, so that no single one knows the whole scene.
"""

from dataclasses import dataclass, replace

import numpy as np

from mmkeras._utils import checks
from mmkeras.data.vocabulary import PAD, SPECIAL, UNKNOWN, Vocabulary
from mmkeras.toy import render, scene

ATTRIBUTES = {"size": scene.SIZES, "color": scene.COLORS, "shape": scene.SHAPES, "place": scene.PLACES}
CLASSES = {name: len(values) for name, values in ATTRIBUTES.items()}
LENGTH = 16  # tokens of the longest caption, with <start> and <end>
TOUCHES = 48  # pressure readings of one outline
IMAGE_SIZE = 64


@dataclass(frozen=True)
class Examples:
    """Examples of the toy world in several modalities.

    Attributes:
        inputs: {modality: (N, ...) array}. `"image"` (N, 64, 64, 3) float32 in 0..255, `"text"` (N, 16) int32
            token ids, `"touch"` (N, 48) float32.
        labels: {attribute: (N,) int32 class ids}, see `ATTRIBUTES`.
        vocabulary: `Vocabulary` of the captions.
    """

    inputs: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    vocabulary: Vocabulary

    def __len__(self):
        return len(self.labels["size"])


def examples(split: str, count: int, language: str = "en") -> Examples:
    """Draws, describes and touches the first scenes of a split.

    Args:
        split: str. `"train"`, `"validation"`, `"test"` or `"test_unseen"`.
        count: int. Number of scenes.
        language: str. Language of the captions, `"en"` or `"zh"`. Defaults to `"en"`.

    Raises:
        ValueError: if the split is unknown or `count` is not a positive int.
    """
    checks.ints(1, count=count)
    scenes = [scene.sample(split, index) for index in range(count)]
    things = [one.things[0] for one in scenes]
    images = [render.draw(split, index, IMAGE_SIZE) for index in range(count)]
    texts = [
        scene.pick(scene.generator(split, index, "text"), scene.captions(one, language))
        for index, one in enumerate(scenes)
    ]
    vocabulary = _vocabulary(language)
    tokens = np.full((count, LENGTH), PAD, "int32")
    for row, text in zip(tokens, texts, strict=True):
        ids = vocabulary.encode(text)
        row[: len(ids)] = ids
    touch = [_touch(thing, scene.generator(split, index, "touch")) for index, thing in enumerate(things)]
    labels = {
        name: np.array([values.index(getattr(thing, name)) for thing in things], "int32")
        for name, values in ATTRIBUTES.items()
    }
    inputs = {"image": np.stack(images).astype("float32"), "text": tokens, "touch": np.stack(touch)}
    return Examples(inputs, labels, vocabulary)


def degraded(
    examples: Examples,
    *,
    gray: float = 0.0,
    noise: float = 0.0,
    occluded: float = 0.0,
    masked: float = 0.0,
    seed: int = 0,
) -> Examples:
    """Takes information away from images and texts.

    Args:
        examples: Examples.
        gray: float. Share of images without color. Defaults to 0.
        noise: float. Standard deviation of noise in images, of 255. Defaults to 0.
        occluded: float. Share of the image's area that a square of the mean color covers. Defaults to 0.
        masked: float. Rate at which a word is replaced by the unknown word. Defaults to 0.
        seed: int. Seed for all of these. Defaults to 0.
    """
    rng = np.random.default_rng(seed)
    image, tokens = examples.inputs["image"].copy(), examples.inputs["text"].copy()
    is_gray = rng.random(len(image)) < gray
    image[is_gray] = image[is_gray].mean(axis=-1, keepdims=True)
    side = round(occluded**0.5 * IMAGE_SIZE)
    for picture, (x, y) in zip(image, rng.integers(0, IMAGE_SIZE - side + 1, (len(image), 2)), strict=True):
        picture[y : y + side, x : x + side] = picture.mean(axis=(0, 1))
    image = np.clip(image + noise * rng.standard_normal(image.shape, dtype="float32"), 0, 255)
    tokens[(tokens >= len(SPECIAL)) & (rng.random(tokens.shape) < masked)] = UNKNOWN
    return replace(examples, inputs=examples.inputs | {"image": image, "text": tokens})


def all_right(predicted: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> float:
    """Share of examples with every attribute right.

    Args:
        predicted, labels: {attribute: (N,) int class ids}.
    """
    return float(np.all([predicted[name] == labels[name] for name in labels], axis=0).mean())


def _vocabulary(language):
    """Of all captions, the same for every split."""
    texts = (text for index in range(500) for text in scene.captions(scene.sample("train", index), language))
    return Vocabulary.count(texts, unit="character" if language == "zh" else "word")


def _touch(thing, rng):
    """A finger follows the outline: its distance from the center at evenly spaced points, with noise."""
    low, high = render.RADIUS[thing.size]
    outline = render.outline(thing.shape)
    outline = np.concatenate([outline, outline[:1]])
    travelled = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(outline, axis=0), axis=1))])
    at = np.linspace(0, travelled[-1], TOUCHES, endpoint=False)
    points = np.stack([np.interp(at, travelled, outline[:, axis]) for axis in (0, 1)], axis=1)
    readings = np.linalg.norm(points, axis=1) * (low + (high - low) * rng.random())
    return (10 * readings + 0.1 * (rng.random(TOUCHES) - 0.5)).astype("float32")
