"""Modality translation (chapters 3.4 and 4.3): X2 = f(X1), and a classifier of the modality X2.

    text ─ f: translator (an image generator) ─ image ─ classifier of images ─ attributes

The path is one graph, whose output is differentiable with respect to the image.
"""

import keras
import numpy as np

from mmkeras.methods import scenes
from mmkeras.text_to_image import ImageGenerator
from mmkeras.text_to_image.gan.model import Adversarial


def build(translator: keras.Model, classifier: keras.Model, *, scale: float = 255.0) -> keras.Model:
    """classifier(translator(x)) as one graph, which shares the weights of both.

    Inputs:  those of the translator, such as {"tokens": (B, T), "noise": (B, Z)}
    Outputs: {"image": (B, S, S, 3), **the classifier's outputs}

    Args:
        translator: keras.Model. X1 → X2, such as the model of an `ImageGenerator`.
        classifier: keras.Model. X2 → anything, such as the model of an `AttributeClassifier`.
        scale: float. Factor from the translator's values to the classifier's. Defaults to 255, from 0..1 to
            0..255.

    Raises:
        ValueError: if the classifier does not take what the translator returns.
    """
    if isinstance(translator, Adversarial):
        translator = translator.generator()
    (translated,), expected = translator.outputs, classifier.inputs
    if len(expected) != 1 or expected[0].shape[1:] != translated.shape[1:]:
        raise ValueError(
            f"Expected classifier to take the translator's output, {tuple(translated.shape)}. Received: "
            f"classifier with inputs {[tuple(x.shape) for x in expected]}"
        )
    inputs = {x.name: keras.Input(x.shape[1:], dtype=x.dtype, name=x.name) for x in translator.inputs}
    image = translator(inputs)  # (B, S, S, 3)
    logits = classifier(keras.layers.Rescaling(scale, name="scaled")(image))
    named = logits if isinstance(logits, dict) else {"classifier": logits}
    return keras.Model(inputs, {"image": image, **named}, name="modality_translation")


def translated(generator: ImageGenerator, examples: scenes.Examples) -> np.ndarray:
    """The images that a generator generates from the texts of examples, without their masked words.

    Returns:
        (N, S, S, 3) uint8. A text without any word left is replaced by the example's own image.
    """
    texts, images = examples.texts, examples.inputs["image"].round().astype("uint8")
    rows = [row for row, text in enumerate(texts) if text]
    images[rows] = np.stack(generator([texts[row] for row in rows]))
    return images
