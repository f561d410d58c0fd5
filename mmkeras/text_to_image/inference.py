"""Text to image (chapter 5.3): the trained model.

generator = ImageGenerator(model)
generator("a small red circle at the top left")            # (64, 64, 3) uint8
generator(["a red star", "a blue star"], samples=4)        # adversarial model: (4, 64, 64, 3) per prompt
generator.grid(prompts, samples=4, path="grid.png")
generator.walk("a red star", "a blue circle", path="walk.gif")
generator.explain("a small red circle").plot()             # the pixels that each word changes
evaluate(generator, data.test, classifier)                 # {'color': ..., 'all': ..., 'frechet_distance': ...}
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import keras
import numpy as np
from PIL import Image

from mmkeras._utils import checks, progress, terminal
from mmkeras._utils.parts import Part, inputs_of
from mmkeras._utils.predictor import Predictor
from mmkeras.distribute import collectives
from mmkeras.evaluation import metrics
from mmkeras.evaluation.explanations import Influence
from mmkeras.media import images
from mmkeras.text.vocabulary import PAD, SPECIAL
from mmkeras.text_to_image.classifier import AttributeClassifier, train_classifier
from mmkeras.text_to_image.gan.model import Adversarial
from mmkeras.text_to_image.model import EPOCHS, TASK

if TYPE_CHECKING:
    import tensorflow as tf

    from mmkeras.evaluation.plots import Figure


class ImageGenerator(Predictor):
    """Generates images from text prompts.

    Args:
        model: keras.Model. From `build`, or `keras.saving.load_model` once `mmkeras.text_to_image` is imported.
    """

    names = (TASK,)
    title = "Text to image"
    builder = "mmkeras.text_to_image.build()"
    inputs = "prompts"
    output = "image"
    epochs, file, duration = EPOCHS, "image_generator.keras", "about a quarter of an hour on two cores"
    variants: ClassVar = {
        "pixel loss": ("text_to_image_pixels", {}),
        "adversarial": ("text_to_image", {"adversarial": True}),
    }

    def __init__(self, model: keras.Model):
        super().__init__(model)
        self.encoder = model.get_layer("encoder")
        self.decoder = model.get_layer("decoder")
        # New models: `predict` must run outside of the strategy in whose scope `model` may have been built.
        self._encode = keras.Model(self.encoder.input, self.encoder.output)
        self._decode = keras.Model(self.decoder.input, self.decoder.output)
        self.vocabulary = self.encoder.get_layer("embedding").vocabulary
        self.image_size = self.decoder.get_layer("image").output.shape[1]
        inputs = {tensor.name: tensor.shape[-1] for tensor in self.decoder.inputs}
        self.noise_size = inputs.get("noise", 0)  # condition_dim + noise_dim

    def __call__(
        self, prompts: str | Sequence[str], *, samples: int | None = None, seed: int = 0
    ) -> np.ndarray | list[np.ndarray | None]:
        """Generates an image for each prompt.

        Args:
            prompts: str, or list or tuple of str. A warning names words that are not in the vocabulary.
            samples: int, optional. Images per prompt; more than one only for an adversarial model. Defaults to
                None, one image without the axis of samples.
            seed: int. Seed for the noise. Image number j of a prompt depends on the seed and j only. Defaults
                to 0.

        Returns:
            (S, S, 3) uint8, with `samples` (samples, S, S, 3). For a list of prompts a list of such arrays,
            None for a prompt without a word of the vocabulary, which a warning names.

        Raises:
            TypeError: if a prompt is not a string.
            ValueError: if a single prompt, or every prompt of a list, has no word of the vocabulary; if `seed`
                is negative, or `samples` is above 1 for a model without noise.
        """
        if samples is not None:
            checks.ints(1, samples=samples)
            if samples > 1 and not self.noise_size:
                raise ValueError(
                    f"Expected samples to be 1, since a model without noise generates one image per prompt. "
                    f"Build one with adversarial=True for more. Received: samples={samples}"
                )
        noise = self._noise(samples or 1, seed)  # (samples, Z)

        def predict(texts, positions):
            text = collectives.predict_batches(self._encode, self._tokens(texts))  # (N, U)
            images = self.generate(np.repeat(text, len(noise), axis=0), np.tile(noise, (len(text), 1)))
            return list(images if samples is None else images.reshape(len(text), samples, *images.shape[1:]))

        return self._answer(prompts, self._check, predict)

    def generate(self, text: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Generates images from text embeddings.

        Args:
            text: (N, units). The encoder's output.
            noise: (N, noise_size) or (1, noise_size) standard normal. One row is used for all images.

        Returns:
            (N, S, S, 3) uint8.
        """
        noise = np.broadcast_to(noise, (len(text), self.noise_size)).astype("float32")
        outputs = collectives.predict_batches(self._decode, [text, noise] if self.noise_size else text)
        image = outputs[0] if self.noise_size else outputs  # (N, S, S, 3) in 0..1
        return np.rint(255 * image).astype(np.uint8)

    def grid(
        self,
        prompts: str | Sequence[str],
        *,
        samples: int = 4,
        seed: int = 0,
        path: str | os.PathLike | None = None,
    ) -> "Figure":
        """Plots one row of images per prompt. Returns a matplotlib Figure.

        Args:
            prompts: str or list of str.
            samples: int. Images per prompt; a model without noise generates one. Defaults to 4.
            seed: int. Seed for the noise, which all images of a column share. Defaults to 0.
            path: str or path, optional. A file to write as well.
        """
        from mmkeras.evaluation import plots

        checks.ints(1, samples=samples)
        prompts = [prompts] if isinstance(prompts, str) else prompts
        images = self(prompts, samples=samples if self.noise_size else 1, seed=seed)
        rows = [(prompt, row) for prompt, row in zip(prompts, images, strict=True) if row is not None]
        return plots.grid(*zip(*rows, strict=True), path)

    def walk(
        self, start: str, end: str, *, steps: int = 8, seed: int = 0, path: str | os.PathLike | None = None
    ) -> np.ndarray:
        """Interpolates linearly between the embeddings of two prompts.

        Args:
            start: str. First prompt.
            end: str. Last prompt.
            steps: int. Number of images, at least 2. Defaults to 8.
            seed: int. Seed for the noise, the same for all images. Defaults to 0.
            path: File to write as well: one row of images (.png) or an animation (.gif). Defaults to None.

        Returns:
            (steps, S, S, 3) uint8.
        """
        checks.ints(2, steps=steps)
        if path is not None and Path(path).suffix not in (".png", ".gif"):
            raise ValueError(f"Expected path to end in .png or .gif. Received: path={str(path)!r}")
        tokens = self._tokens([self._check(start), self._check(end)])  # (2, T)
        first, last = collectives.predict_batches(self._encode, tokens)  # (U,) each
        share = np.linspace(0, 1, steps, dtype="float32")[:, None]  # (steps, 1)
        images = self.generate((1 - share) * first + share * last, self._noise(1, seed))  # (steps, S, S, 3)
        if path is not None and Path(path).suffix == ".gif":
            frames = [Image.fromarray(image) for image in images]
            frames[0].save(path, save_all=True, append_images=frames[1:], duration=200, loop=0)
        elif path is not None:
            Image.fromarray(np.concatenate(list(images), axis=1)).save(path)
        return images

    def explain(self, prompt: str, *, seed: int = 0) -> Influence:
        """Leaves out each word of a prompt in turn and shows which pixels change.

        Args:
            prompt: str.
            seed: int. Seed for the noise, the same for all images. Defaults to 0.
        """
        tokens = self._tokens([self._check(prompt)])[0]  # (T,)
        words = self.vocabulary.split(prompt)
        without = np.stack([np.append(np.delete(tokens, 1 + i), PAD) for i in range(len(words))])  # (W, T)
        text = collectives.predict_batches(self._encode, np.concatenate([tokens[None], without]))  # (1 + W, U)
        image, *others = self.generate(text, self._noise(1, seed))  # 1 + W of (S, S, 3)
        changed = np.abs(np.stack(others).astype(float) - image).mean(axis=-1) / 255  # (W, S, S)
        return Influence(image, prompt, words, np.stack(others), changed)

    def parts(self):
        decoder = Part.of(keras.Model(self.decoder.inputs, self.decoder.get_layer("image").output), ("image",))
        others = {
            name: spec for name, spec in decoder.inputs.items() if name != "text"
        }  # noise, if it takes any

        def answer(inputs):
            text = self.encoder(inputs["tokens"], training=False)
            return decoder.function({"text": text} | {name: inputs[name] for name in others})

        return {
            "encoder": Part.of(self.encoder, ("text",)),
            "decoder": decoder,
            "answer": Part(answer, inputs_of(self.encoder) | others, (self.encoder, *decoder.models)),
        }

    def card(self):
        return super().card() | {"image_size": self.image_size, "noise_size": self.noise_size}

    @property
    def data_options(self) -> dict[str, Any]:
        # With max_length given, `data` does not count the words of the training captions.
        return {"vocabulary": self.vocabulary, "image_size": self.image_size, "max_length": 50}

    def evaluate(self, dataset, **options):
        return evaluate(self, dataset, **options)

    def evaluation_options(self, data):
        return {"classifier": train_classifier(data)} if data.attributes else {}

    def for_inference(self):
        """The generator alone: the discriminator and the other networks are for training."""
        return self.model.generator() if isinstance(self.model, Adversarial) else super().for_inference()

    def _noise(self, samples, seed):
        """(samples, noise_size). Row j does not depend on the number of samples."""
        checks.ints(0, seed=seed)
        return np.stack(
            [np.random.default_rng([seed, j]).standard_normal(self.noise_size) for j in range(samples)]
        )

    def _check(self, prompt):
        """The prompt, if it has a word of the vocabulary."""
        if not isinstance(prompt, str):
            raise TypeError(f"Expected each prompt to be a string. Received: prompt={prompt!r}")
        if not self.vocabulary.knows(prompt):
            known = ", ".join(map(repr, self.vocabulary.words[len(SPECIAL) :][:10]))
            raise ValueError(
                f"Expected each prompt to have a word of the vocabulary: {known} ... "
                f"Received: prompt={prompt!r}"
            )
        return prompt

    def _tokens(self, prompts):
        """(N, T) int32, padded. A warning names words that are not in the vocabulary."""
        words = dict.fromkeys(word for prompt in prompts for word in self.vocabulary.split(prompt))
        if unknown := [repr(word) for word in words if word not in self.vocabulary.ids]:
            terminal.warn(
                f"Words outside the vocabulary of the training captions are treated as unknown: "
                f"{', '.join(unknown[:8])}."
            )
        return self.vocabulary.encode_batch(prompts)


def evaluate(
    generator: ImageGenerator,
    dataset: "tf.data.Dataset",
    classifier: AttributeClassifier | None = None,
    *,
    search: Any = None,
    seed: int = 0,
) -> dict[str, float]:
    """Generates an image for a caption of each real image, and compares them.

    Args:
        generator: ImageGenerator.
        dataset: Batches of {"image", "captions"}, and "labels" for a classifier, as `data(...).test`.
        classifier: AttributeClassifier, optional. From `train_classifier`. Defaults to None.
        search: mmkeras.applications.ImageSearch, optional. For images without labels: it looks for the prompt
            of each generated image among the prompts of all. Defaults to None.
        seed: int. Seed for the noise, which differs between images. Defaults to 0.

    Returns:
        - `sharpness`, `variety`, and for an adversarial model `seed_variety`, see
          `mmkeras.evaluation.metrics.image_scores`.
        - With a classifier, for each attribute the share of generated images that it classifies as labeled;
          `all`, the share with all attributes correct; `classifier_on_real`, `all` of the real images.
        - With a classifier and more than one image, `frechet_distance` between its features of generated and
          of real images (Heusel et al. 2017, arXiv:1706.08500).
        - With a search model, `recall_at_1`, `_5`, `_10` and `mrr` of the prompt of each generated image; with
          the prefix `real_` of the real images: the best that this measure allows.

    Raises:
        ValueError: if the dataset is empty or does not fit the model (image size, vocabulary), `seed` is
            negative, or the classifier takes another image size or attributes without labels.
    """
    checks.images(dataset, generator.image_size)
    checks.ints(0, seed=seed)
    if classifier is not None and classifier.image_size != generator.image_size:
        raise ValueError(
            f"Expected classifier.image_size to be the generator's, {generator.image_size}. Train a classifier "
            f"on data of that size. Received: classifier.image_size={classifier.image_size}"
        )
    real, generated, resampled, labels, asked = [], [], [], [], []
    for number, batch in enumerate(progress.bar(dataset, "images")):
        captions = [[text.decode() for text in texts if text] for texts in batch["captions"].numpy()]
        if not real:
            generator.vocabulary.check_known(text for texts in captions for text in texts)
        first = number * len(captions)
        # another of its captions for each image, so that every phrasing occurs
        prompts = [texts[(first + i) % len(texts)] for i, texts in enumerate(captions)]
        asked += prompts
        text = collectives.predict_batches(generator._encode, generator._tokens(prompts))  # (B, U)
        random = np.random.default_rng([seed, number])
        shape = (len(text), generator.noise_size)
        generated.append(generator.generate(text, random.standard_normal(shape)))
        if generator.noise_size:
            resampled.append(generator.generate(text, random.standard_normal(shape)))
        real.append(batch["image"].numpy())
        if classifier is not None:
            labels.append(classifier.labels(batch))
    checks.not_empty(real)
    real, generated = np.concatenate(real), np.concatenate(generated)  # (N, S, S, 3) uint8
    scores: dict[str, float] = {}
    if classifier is not None:
        classes, features = classifier.predict(generated)
        real_classes, real_features = classifier.predict(real)
        scores = classifier.accuracy(classes, labels)
        scores["classifier_on_real"] = classifier.accuracy(real_classes, labels)["all"]
        if len(real) > 1:
            scores["frechet_distance"] = metrics.frechet_distance(features, real_features)
    if search is not None:
        scores |= _retrieval(search, generated, asked)
        scores |= {f"real_{name}": score for name, score in _retrieval(search, real, asked).items()}
    return scores | metrics.image_scores(real, generated, np.concatenate(resampled) if resampled else None)


def _retrieval(search, pictures, prompts):
    """How high the prompt of each image stands among all prompts."""
    vectors = search.encode_images(
        [images.resize(picture, search.image_size) for picture in pictures]
    )  # (N, D)
    relevant = np.array(prompts)[:, None] == np.array(prompts)  # (N, N)
    return metrics.retrieval(vectors @ search.encode_texts(prompts).T, relevant)
