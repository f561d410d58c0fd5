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
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from mmkeras._utils import checks, progress, saving, terminal
from mmkeras.data.vocabulary import PAD, SPECIAL, UNKNOWN
from mmkeras.distribute import collectives
from mmkeras.evaluation import metrics
from mmkeras.evaluation.explain import Influence
from mmkeras.text_to_image.classifier import AttributeClassifier
from mmkeras.text_to_image.model import TASK

if TYPE_CHECKING:
    from mmkeras.evaluation.plots import Figure

BATCH_SIZE = 32
COLLAPSED = 0.01  # a variety below this share of the expected one is a collapse


class ImageGenerator:
    """Generates images from text prompts.

    Args:
        model: keras.Model. From `build`, or `keras.saving.load_model` once `mmkeras.text_to_image` is imported.
            It is not copied: after more training of `model`, the generator uses the new weights.

    Raises:
        ValueError: for another model.
    """

    def __init__(self, model: keras.Model):
        saving.check(model, TASK, "text-to-image model", "mmkeras.text_to_image.build()")
        self.model = model
        self.encoder = model.get_layer("encoder")
        self.decoder = model.get_layer("decoder")
        # Models outside of the distribution strategy under which the layers may have been built
        self._encode = keras.Model(self.encoder.input, self.encoder.output)
        self._decode = keras.Model(self.decoder.input, self.decoder.output)
        self.vocabulary = self.encoder.get_layer("embedding").vocabulary
        self.image_size = self.decoder.get_layer("image").output.shape[1]
        inputs = {tensor.name: tensor.shape[-1] for tensor in self.decoder.inputs}
        self.noise_size = inputs.get("noise", 0)  # condition_dim + noise_dim

    def __call__(
        self, prompts: str | Sequence[str], *, samples: int | None = None, seed: int = 0
    ) -> np.ndarray | list[np.ndarray]:
        """Generates an image for each prompt.

        Args:
            prompts: str or list of str. A warning names words that are not in the vocabulary.
            samples: int, optional. Images per prompt; more than one only for an adversarial model. Defaults to
                None, one image without the axis of samples.
            seed: int. Seed for the noise. Image number j of a prompt depends on the seed and j only. Defaults
                to 0.

        Returns:
            (S, S, 3) uint8, with `samples` (samples, S, S, 3); for a list of prompts a list of such arrays.

        Raises:
            TypeError: if a prompt is not a string.
            ValueError: if a prompt has no word of the vocabulary, `seed` is negative, or `samples` is above 1
                for a model without noise.
        """
        prompts, is_list = _as_list(prompts)
        text = self._encoded(self._tokens(prompts))  # (N, U)
        if samples is None:
            images = list(self.generate(text, self._noise(1, seed)))  # N of (S, S, 3)
        else:
            checks.ints(1, samples=samples)
            if samples > 1 and not self.noise_size:
                raise ValueError(
                    f"Expected samples to be 1, since a model without noise generates one image per prompt. "
                    f"Build one with adversarial=True for more. Received: samples={samples}"
                )
            noise = np.tile(self._noise(samples, seed), (len(prompts), 1))  # (N * samples, Z)
            images = self.generate(np.repeat(text, samples, axis=0), noise)  # (N * samples, S, S, 3)
            images = list(images.reshape(len(prompts), samples, *images.shape[1:]))
        return images if is_list else images[0]

    def generate(self, text: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Generates images from text embeddings.

        Args:
            text: (N, units). The encoder's output.
            noise: (N, noise_size) or (1, noise_size) standard normal. One row is used for all images.

        Returns:
            (N, S, S, 3) uint8.
        """
        noise = np.broadcast_to(noise, (len(text), self.noise_size)).astype("float32")
        batches = []
        for start in progress.bar(range(0, len(text), BATCH_SIZE), "images"):
            rows = slice(start, start + BATCH_SIZE)
            inputs = [text[rows], noise[rows]] if self.noise_size else text[rows]
            outputs = collectives.predict_alone(self._decode, inputs)
            image = outputs[0] if self.noise_size else outputs  # (B, S, S, 3) in 0..1
            batches.append(np.rint(255 * image).astype(np.uint8))
        return np.concatenate(batches)

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
            path: File to write as well. Defaults to None.

        Raises:
            TypeError, ValueError: as for a call.
        """
        from mmkeras.evaluation import plots

        checks.ints(1, samples=samples)
        prompts, _ = _as_list(prompts)
        rows = self(prompts, samples=samples if self.noise_size else 1, seed=seed)
        return plots.grid(prompts, rows, path)

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

        Raises:
            TypeError, ValueError: as for a call, or if `steps` or the suffix of `path` is invalid.
        """
        checks.ints(2, steps=steps)
        if path is not None and Path(path).suffix not in (".png", ".gif"):
            raise ValueError(f"Expected path to end in .png or .gif. Received: path={str(path)!r}")
        first, last = self._encoded(self._tokens([start, end]))
        share = np.linspace(0, 1, steps, dtype="float32")[:, None]  # (steps, 1)
        images = self.generate((1 - share) * first + share * last, self._noise(1, seed))
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

        Raises:
            TypeError, ValueError: as for a call.
        """
        tokens = self._tokens([prompt])[0]
        words = self.vocabulary.split(prompt)
        without = np.stack([np.append(np.delete(tokens, 1 + i), PAD) for i in range(len(words))])  # (W, T)
        text = self._encoded(np.concatenate([tokens[None], without]))  # (1 + W, U)
        image, *others = self.generate(text, self._noise(1, seed))
        changed = np.abs(np.stack(others).astype(float) - image).mean(axis=-1) / 255  # (W, S, S)
        return Influence(image, prompt, words, np.stack(others), changed)

    @property
    def data_options(self) -> dict[str, Any]:
        """Options of `data` that fit this model."""
        # With max_length given, `data` does not count the words of the training captions.
        return {"vocabulary": self.vocabulary, "image_size": self.image_size, "max_length": 50}

    def save(self, path: str | os.PathLike) -> None:
        """Saves everything in one `.keras` file, which `mmkeras.load` reads."""
        saving.save(self.model, path)

    def _noise(self, samples, seed):
        """(samples, noise_size). Row j does not depend on the number of samples."""
        checks.ints(0, seed=seed)
        return np.stack(
            [np.random.default_rng([seed, j]).standard_normal(self.noise_size) for j in range(samples)]
        )

    def _encoded(self, tokens):
        """(N, T) int32 → (N, U)"""
        starts = range(0, len(tokens), BATCH_SIZE)
        return np.concatenate(
            [collectives.predict_alone(self._encode, tokens[i : i + BATCH_SIZE]) for i in starts]
        )

    def _tokens(self, prompts, strict=True):
        """(N, T) int32, padded. `strict`: raises for a prompt without a word of the vocabulary."""
        if not prompts:
            raise ValueError(
                "Expected prompts to be a string or a non-empty list of strings. Received: prompts=[]"
            )
        rows, unknown = [], {}
        for prompt in prompts:
            if not isinstance(prompt, str):
                raise TypeError(f"Expected each prompt to be a string. Received: prompt={prompt!r}")
            words, ids = self.vocabulary.split(prompt), self.vocabulary.encode(prompt)
            unknown_words = [word for word, i in zip(words, ids[1:-1], strict=True) if i == UNKNOWN]
            if strict and len(unknown_words) == len(words):
                known = ", ".join(map(repr, self.vocabulary.words[len(SPECIAL) :][:10]))
                raise ValueError(
                    f"Expected each prompt to have a word of the vocabulary: {known} ... "
                    f"Received: prompt={prompt!r}"
                )
            unknown |= dict.fromkeys(unknown_words)
            rows.append(ids)
        if unknown:
            terminal.warn(
                f"Words outside the vocabulary of the training captions are treated as unknown: "
                f"{', '.join(map(repr, list(unknown)[:8]))}."
            )
        tokens = np.full((len(rows), max(map(len, rows))), PAD, "int32")
        for row, ids in zip(tokens, rows, strict=True):
            row[: len(ids)] = ids
        return tokens


def evaluate(
    generator: ImageGenerator,
    dataset: tf.data.Dataset,
    classifier: AttributeClassifier | None = None,
    *,
    seed: int = 0,
) -> dict[str, float]:
    """Generates an image for a caption of each real image, and compares them.

    Args:
        generator: ImageGenerator.
        dataset: Batches of {"image", "captions"}, and "labels" for a classifier, as `data(...).test`.
        classifier: AttributeClassifier, optional. From `train_classifier`. Defaults to None.
        seed: int. Seed for the noise, which differs between images. Defaults to 0.

    Returns:
        With a classifier:

        - for each attribute, the share of generated images that have it as the caption says; `all`, the share
          with all of them; `classifier_on_real`, the same as `all` for the real images.
        - `frechet_distance` between the features of generated and real images (Heusel et al. 2017,
          arXiv:1706.08500), here features of the classifier.

        Always:

        - `sharpness`: mean squared gradient (Tenengrad) relative to real images.
        - `variety`: mean distance of two images relative to real images.
        - `seed_variety`, for an adversarial model: mean distance of two images of the same prompt, relative to
          two images of different prompts.

        Scores that compare two images are left out for a dataset of one image. A warning names a collapse: the
        same image for all prompts, or for all seeds.

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
    real, generated, resampled, labels = [], [], [], []
    for number, batch in enumerate(progress.bar(dataset, "images")):
        captions = [[text.decode() for text in texts if text] for texts in batch["captions"].numpy()]
        if not real:
            generator.vocabulary.check_known(text for texts in captions for text in texts)
        first = number * len(captions)
        prompts = [texts[(first + i) % len(texts)] for i, texts in enumerate(captions)]
        # Not strict: one caption without known words is no reason to stop.
        text = generator._encoded(generator._tokens(prompts, strict=False))  # (B, U)
        random = np.random.default_rng([seed, number])
        shape = (len(text), generator.noise_size)
        generated.append(generator.generate(text, random.standard_normal(shape)))
        if generator.noise_size:
            resampled.append(generator.generate(text, random.standard_normal(shape)))
        real.append(batch["image"].numpy())
        if classifier is not None:
            labels.append(classifier.labels(batch))
    if not real:
        raise ValueError("Expected dataset to have at least one batch. Received: dataset without any")
    real, generated = np.concatenate(real), np.concatenate(generated)  # (N, S, S, 3) uint8
    scores: dict[str, float] = {}
    if classifier is not None:
        classes, features = classifier.predict(generated)
        real_classes, real_features = classifier.predict(real)
        scores = classifier.accuracy(classes, labels)
        scores["classifier_on_real"] = classifier.accuracy(real_classes, labels)["all"]
        if len(real) > 1:
            scores["frechet_distance"] = metrics.frechet_distance(features, real_features)
    # Images of one color have no sharpness, and a single image has no variety.
    if sharpness := metrics.sharpness(real):
        scores["sharpness"] = metrics.sharpness(generated) / sharpness
    distance = _distance(generated, np.roll(generated, 1, axis=0))
    if real_distance := _distance(real, np.roll(real, 1, axis=0)):
        scores["variety"] = distance / real_distance
        if generator.noise_size:
            scores["seed_variety"] = _distance(generated, np.concatenate(resampled)) / max(distance, 1e-9)
    _warn_of_collapse(scores)
    return scores


def _as_list(prompts):
    """The prompts as a list, and whether they were a list."""
    is_list = isinstance(prompts, Sequence) and not isinstance(prompts, str)
    return (list(prompts) if is_list else [prompts]), is_list


def _distance(images, others):
    """Mean absolute difference of the pixels."""
    return float(np.abs(images.astype("float32") - others).mean())


def _warn_of_collapse(scores):
    if scores.get("variety", 1) < COLLAPSED:
        terminal.warn(
            f"Collapse: all prompts give the same image (variety={scores['variety']:.4f}). The model ignores "
            f"the text. Train it longer, or lower the learning rate."
        )
    elif scores.get("seed_variety", 1) < COLLAPSED:
        terminal.warn(
            f"Mode collapse: all seeds give the same image (seed_variety={scores['seed_variety']:.4f}). Train "
            f"it longer, or lower the learning rate."
        )
