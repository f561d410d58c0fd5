"""Modality translation (chapters 3.4 and 4.3): X2 = f(X1), and a model of the modality X2 reads the result.

    text ─ f: translator (an image generator) ─ image ─ reader (an image classifier) ─ attributes

The chain is one graph, whose output is differentiable with respect to the image. `experiment` measures what a
translation loses, with the ready-trained models.
"""

import os
from dataclasses import dataclass, replace

import keras
import numpy as np

from mmkeras import zoo
from mmkeras.evaluation.metrics import attribute_accuracy
from mmkeras.methods import classification, joint_training, scenes
from mmkeras.text_to_image import ImageGenerator
from mmkeras.text_to_image.gan.model import Adversarial


def build(translator: keras.Model, reader: keras.Model, *, scale: float = 255.0) -> keras.Model:
    """reader(translator(x)) as one graph, which shares the weights of both.

    Inputs:  those of the translator, such as {"tokens": (B, T), "noise": (B, Z)}
    Outputs: {"image": (B, S, S, 3), **the reader's outputs}

    Args:
        translator: keras.Model. X1 → X2, such as the model of an `ImageGenerator`.
        reader: keras.Model. X2 → anything, such as the model of an `AttributeClassifier`.
        scale: float. Factor from the translator's values to the reader's. Defaults to 255, from 0..1 to 0..255.

    Raises:
        ValueError: if the reader does not take what the translator returns.
    """
    if isinstance(translator, Adversarial):
        translator = translator.generator()
    (translated,), expected = translator.outputs, reader.inputs
    if len(expected) != 1 or expected[0].shape[1:] != translated.shape[1:]:
        raise ValueError(
            f"Expected reader to take the translator's output, {tuple(translated.shape)}. Received: reader "
            f"with inputs {[tuple(x.shape) for x in expected]}"
        )
    inputs = {x.name: keras.Input(x.shape[1:], dtype=x.dtype, name=x.name) for x in translator.inputs}
    image = translator(inputs)  # (B, S, S, 3)
    logits = reader(keras.layers.Rescaling(scale, name="scaled")(image))
    named = logits if isinstance(logits, dict) else {"reader": logits}
    return keras.Model(inputs, {"image": image, **named}, name="modality_translation")


# --- the experiment ---


@dataclass(frozen=True)
class Results:
    """What `experiment` measures.

    Attributes:
        scores: {route from an input to the attributes: {attribute: accuracy, "all": share of scenes with all
            attributes right}}.
        texts: Some of the texts.
        images: For each of them the real image, that of the generator with a pixel loss, and that of the
            adversarial one, (3, 64, 64, 3) uint8.
    """

    scores: dict[str, dict[str, float]]
    texts: list[str]
    images: list[np.ndarray]

    def plot(self, path: str | os.PathLike | None = None):
        """Plots the accuracy of each attribute. Returns a matplotlib Figure."""
        from mmkeras.evaluation import plots

        return plots.bars(self.scores, "accuracy", path)

    def grid(self, path: str | os.PathLike | None = None):
        """Plots the images of each text: real, pixel loss, adversarial. Returns a matplotlib Figure."""
        from mmkeras.evaluation import plots

        return plots.grid(self.texts, self.images, path)


def experiment(*, train: int = 2000, test: int = 400, split: str = "test", steps: int = 300) -> Results:
    """Reads the attributes of texts directly and through an image, and those of images directly and through a
    caption.

    The generators, the captioner and the image classifier are ready-trained. The text classifier trains here.

    Args:
        train, test: int. Numbers of scenes. Default to 2,000 and 400.
        split: str. `"test"` or `"test_unseen"`. Defaults to `"test"`.
        steps: int. Training steps of the text classifier. Defaults to 300.
    """
    examples, held_out = scenes.examples("train", train), scenes.examples(split, test)
    text_classifier = classification.Classifier(text_reader(examples, steps=steps))
    image_classifier, captioner = zoo.pretrained("attribute_classifier"), zoo.pretrained("captioning")
    captioner.novelty = None  # a toy image is not unlike toy images
    texts, image = held_out.texts, held_out.inputs["image"].astype("uint8")

    def read(text):
        return text_classifier({"text": scenes.tokens(text)})

    generated = {
        "pixel loss": np.stack(zoo.pretrained("text_to_image_pixels")(texts)),
        "adversarial": np.stack(zoo.pretrained("text_to_image")(texts)),
    }
    predicted = {
        "text → class": read(texts),
        **{f"text → image ({name}) → class": image_classifier.predict(x)[0] for name, x in generated.items()},
        "image → class": image_classifier.predict(image)[0],
        "image → caption → class": read(captioner(list(image))),
    }
    shown = [np.stack(images) for images in zip(image[:4], *(x[:4] for x in generated.values()), strict=True)]
    scores = {route: attribute_accuracy(ids, held_out.labels) for route, ids in predicted.items()}
    return Results(scores, texts[:4], shown)


def text_reader(examples: scenes.Examples, *, steps: int, seed: int = 0) -> keras.Model:
    """A classifier of texts alone, trained on the texts of examples. Arguments as for `experiment`."""
    keras.utils.set_random_seed(seed)
    encoders = joint_training.encoders(examples.vocabulary, ["text"])
    model = joint_training.build(encoders, scenes.CLASSES, decay_steps=steps)
    return classification.fit(model, examples, steps, seed)


def with_translations(generator: ImageGenerator, examples: scenes.Examples) -> scenes.Examples:
    """The images of N examples, then N that are generated from their texts without masked words."""
    images = np.concatenate([examples.inputs["image"], np.stack(generator(examples.texts)).astype("float32")])
    labels = {name: np.tile(ids, 2) for name, ids in examples.labels.items()}
    return replace(examples, inputs={"image": images}, labels=labels)
