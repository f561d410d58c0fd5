"""What a translation loses: the attributes of texts, directly and through an image, and those of images,
directly and through a caption. The generators, the captioner and the image classifier are ready-trained."""

import os
from dataclasses import dataclass

import keras
import numpy as np

from mmkeras import zoo
from mmkeras.evaluation.metrics import attribute_accuracy
from mmkeras.methods import classification, joint_training, scenes

# of the ready-trained image classifier, so that both sides have the same loss
LABEL_SMOOTHING = 0.2


@dataclass(frozen=True)
class Results:
    """What `run` measures.

    Attributes:
        scores: {path from an input to the attributes: {attribute: accuracy, "all": share of scenes with all
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


def run(*, train: int = 2000, test: int = 400, split: str = "test", steps: int = 300) -> Results:
    """Measures each path.

    Args:
        train, test: int. Numbers of scenes. Default to 2,000 and 400.
        split: str. `"test"` or `"test_unseen"`. Defaults to `"test"`.
        steps: int. Training steps of the text classifier. Defaults to 300.
    """
    held_out = scenes.examples(split, test)
    classifier = text_classifier(
        scenes.examples("train", train, modalities=("text",)), steps=steps, label_smoothing=LABEL_SMOOTHING
    )
    image_classifier, captioner = zoo.pretrained("attribute_classifier"), zoo.pretrained("captioning")
    captioner.novelty = None  # a toy image is not unlike toy images
    texts, image = held_out.texts, held_out.inputs["image"].astype("uint8")

    def classify(text):
        return classifier({"text": scenes.tokens(text)})

    generated = {
        "pixel loss": np.stack(zoo.pretrained("text_to_image_pixels")(texts)),
        "adversarial": np.stack(zoo.pretrained("text_to_image")(texts)),
    }
    predicted = {
        "text → class": classify(texts),
        **{f"text → image ({name}) → class": image_classifier.predict(x)[0] for name, x in generated.items()},
        "image → class": image_classifier.predict(image)[0],
        "image → caption → class": classify(captioner(list(image))),
    }
    shown = [np.stack(images) for images in zip(image[:4], *(x[:4] for x in generated.values()), strict=True)]
    scores = {path: attribute_accuracy(ids, held_out.labels) for path, ids in predicted.items()}
    return Results(scores, texts[:4], shown)


def text_classifier(
    examples: scenes.Examples, *, steps: int, label_smoothing: float, seed: int = 0
) -> classification.Classifier:
    """A classifier of texts alone.

    Args:
        examples: Examples with texts.
        steps: int. Training steps.
        label_smoothing: float. See `joint_training.build`.
        seed: int. Seed of the weights and of the order of the examples. Defaults to 0.
    """
    keras.utils.set_random_seed(seed)
    encoders = joint_training.encoders(examples.vocabulary, ["text"])
    model = joint_training.build(encoders, scenes.CLASSES, decay_steps=steps, label_smoothing=label_smoothing)
    return classification.Classifier(classification.fit(model, examples, steps, seed))
