"""Text to image (chapter 5.3): the trained model at work.

painter = Painter(model)
painter("a small red circle at the top left")            # (64, 64, 3) uint8
painter(["a red star", "a blue star"], samples=4)        # with noise: (4, 64, 64, 3) a prompt
painter.grid(prompts, samples=4, path="grid.png")
painter.walk("a red star", "a blue circle", path="walk.gif")
painter.explain("a small red circle").plot()             # which word changed which pixels
evaluate(painter, data.test, judge)                      # {'color': ..., 'all': ..., 'frechet_distance': ...}
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from mmkeras._utils import checks, progress, saving, terminal
from mmkeras.data.vocabulary import PAD, UNKNOWN
from mmkeras.distribute import collectives
from mmkeras.evaluation import metrics
from mmkeras.evaluation.explain import Influence
from mmkeras.text_to_image.classifier import Judge
from mmkeras.text_to_image.model import TASK

BATCH_SIZE = 32


class Painter:
    """Paints pictures of what it is told.

    Args:
        model: a text-to-image model, from `build`; `keras.saving.load_model` reads one too, once
            `mmkeras.text_to_image` is imported. It stays the same object: train it further and the painter
            paints what it learned.
    """

    def __init__(self, model: keras.Model):
        saving.check(model, TASK, "text-to-image model", "mmkeras.text_to_image.build()")
        self.model = model
        self.encoder = model.get_layer("encoder")
        self.decoder = model.get_layer("decoder")
        # without the strategy that they may have been made under
        self._encode = keras.Model(self.encoder.input, self.encoder.output)
        self._decode = keras.Model(self.decoder.input, self.decoder.output)
        self.vocabulary = self.encoder.get_layer("embedding").vocabulary
        self.image_size = self.decoder.get_layer("image").output.shape[1]
        inputs = {tensor.name: tensor.shape[-1] for tensor in self.decoder.inputs}
        self.noise_size = inputs.get("noise", 0)  # condition_dim + noise_dim

    def __call__(
        self, prompts: str | Sequence[str], *, samples: int | None = None, seed: int = 0
    ) -> np.ndarray | list[np.ndarray]:
        """A picture (S, S, 3) uint8, or a list of them for a list of prompts.

        Args:
            prompts: a text or a list of texts. Words that training never saw are named in a warning.
            samples: so many pictures a prompt, (samples, S, S, 3); only for a model with noise.
            seed: of the noise; the same seed, the same pictures, whatever is painted beside them.

        Raises:
            TypeError: a prompt is no text.
            ValueError: a prompt is empty or has no word that training saw, `seed` is negative, or `samples` are
                asked of a model without noise.
        """
        several, many = _listed(prompts)
        text = self._texts(several)  # (N, U)
        if samples is None:
            pictures = list(self.paint(text, self._noise(1, seed)))
        else:
            checks.ints(1, samples=samples)
            if samples > 1 and not self.noise_size:
                raise ValueError(
                    f"This model has no noise, so every sample would be the same picture; build one with "
                    f"adversarial=True. Received: samples={samples}"
                )
            noise = np.tile(self._noise(samples, seed), (len(several), 1))
            pictures = self.paint(np.repeat(text, samples, axis=0), noise)
            pictures = list(pictures.reshape(len(several), samples, *pictures.shape[1:]))
        return pictures if many else pictures[0]

    def paint(self, text: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Pictures (N, S, S, 3) uint8 from what the encoder made of prompts.

        Args:
            text: (N, units).
            noise: (N or 1, noise_size) normal; one row: the same for all.
        """
        noise = np.broadcast_to(noise, (len(text), self.noise_size)).astype("float32")
        painted = []
        for start in progress.bar(range(0, len(text), BATCH_SIZE), "pictures"):
            rows = slice(start, start + BATCH_SIZE)
            inputs = [text[rows], noise[rows]] if self.noise_size else text[rows]
            found = collectives.predict_alone(self._decode, inputs)
            found = found[0] if self.noise_size else found
            painted.append(np.rint(255 * found).astype(np.uint8))
        return np.concatenate(painted)

    def grid(
        self,
        prompts: str | Sequence[str],
        *,
        samples: int = 4,
        seed: int = 0,
        path: str | os.PathLike | None = None,
    ):
        """A row a prompt, a column a sample (one alone without noise). Returns a matplotlib Figure.

        Args:
            prompts: a text or a list of texts.
            samples: pictures a prompt.
            seed: of the noise; a column shares it.
            path: where to write the figure as well.

        Raises:
            TypeError, ValueError: as for a call, though a model without noise takes any `samples`.
        """
        from mmkeras.evaluation import plots

        checks.ints(1, samples=samples)
        prompts, _ = _listed(prompts)
        rows = self(prompts, samples=samples if self.noise_size else 1, seed=seed)
        return plots.grid(prompts, rows, path)

    def walk(
        self, start: str, end: str, *, steps: int = 8, seed: int = 0, path: str | os.PathLike | None = None
    ) -> np.ndarray:
        """From one prompt to another in equal steps through what the encoder makes of them: (steps, S, S, 3)
        uint8.

        Args:
            start, end: the prompts.
            steps: pictures, at least 2.
            seed: of the noise, which stays the same on the way.
            path: where to write it, as a strip (.png) or moving (.gif).

        Raises:
            TypeError, ValueError: as for a call, or `steps` or the end of `path` is another.
        """
        checks.ints(2, steps=steps)
        if path is not None and Path(path).suffix not in (".png", ".gif"):
            raise ValueError(f"Expected path to end in .png or .gif. Received: path={str(path)!r}")
        first, last = self._texts([start, end])
        share = np.linspace(0, 1, steps, dtype="float32")[:, None]
        pictures = self.paint((1 - share) * first + share * last, self._noise(1, seed))
        if path is not None and Path(path).suffix == ".gif":
            frames = [Image.fromarray(picture) for picture in pictures]
            frames[0].save(path, save_all=True, append_images=frames[1:], duration=200, loop=0)
        elif path is not None:
            Image.fromarray(np.concatenate(list(pictures), axis=1)).save(path)
        return pictures

    def explain(self, prompt: str, *, seed: int = 0) -> Influence:
        """Which word changed which pixels: the picture, and what it becomes when each word is left out.

        Args:
            prompt: one text.
            seed: of the noise, the same for all of them.

        Raises:
            TypeError, ValueError: as for a call.
        """
        tokens = self._tokens([prompt])[0]
        words = self.vocabulary.split(prompt)
        without = np.stack([np.append(np.delete(tokens, 1 + i), PAD) for i in range(len(words))])
        text = self._encoded(np.concatenate([tokens[None], without]))
        picture, *others = self.paint(text, self._noise(1, seed))
        changed = np.abs(np.stack(others).astype(float) - picture).mean(axis=-1) / 255  # (T, S, S)
        return Influence(picture, prompt, words, np.stack(others), changed)

    @property
    def data_options(self) -> dict[str, Any]:
        """What `data` is told so that its pictures and tokens suit this model."""
        # max_length is given, so that training captions need not be counted
        return {"vocabulary": self.vocabulary, "image_size": self.image_size, "max_length": 50}

    def save(self, path: str | os.PathLike) -> None:
        """Writes one `.keras` file with everything in it, to be read by `mmkeras.load`."""
        saving.save(self.model, path)

    def _noise(self, samples, seed):
        """(samples, noise_size): sample number j is the same however many there are."""
        checks.ints(0, seed=seed)
        return np.stack(
            [np.random.default_rng([seed, j]).standard_normal(self.noise_size) for j in range(samples)]
        )

    def _texts(self, prompts, refuse=True):
        return self._encoded(self._tokens(prompts, refuse))

    def _encoded(self, tokens):
        return np.concatenate(
            [
                collectives.predict_alone(self._encode, tokens[start : start + BATCH_SIZE])
                for start in range(0, len(tokens), BATCH_SIZE)
            ]
        )

    def _tokens(self, prompts, refuse=True):
        """(N, T) int32, padded. `refuse`: raises where a prompt has no word that training saw."""
        if not prompts:
            raise ValueError("Expected at least one prompt. Received: an empty list")
        rows, unknown = [], {}
        for prompt in prompts:
            if not isinstance(prompt, str):
                raise TypeError(f"Expected a prompt to be a text. Received: {prompt!r}")
            words = self.vocabulary.split(prompt)
            if refuse and not words:
                raise ValueError(f"Expected a prompt with at least one word. Received: {prompt!r}")
            ids = self.vocabulary.encode(prompt)
            strange = [word for word, i in zip(words, ids[1:-1], strict=True) if i == UNKNOWN]
            if refuse and len(strange) == len(words):
                raise ValueError(
                    f"Training saw none of the words of {prompt!r}, so the picture would tell nothing. It saw "
                    f"{', '.join(map(repr, self.vocabulary.words[4:14]))} ..."
                )
            unknown |= dict.fromkeys(strange)
            rows.append(ids)
        if unknown:
            terminal.warn(
                f"Training never saw {', '.join(map(repr, list(unknown)[:8]))}; what is painted does not heed "
                f"{'it' if len(unknown) == 1 else 'them'}."
            )
        tokens = np.full((len(rows), max(map(len, rows))), PAD, "int32")
        for row, ids in zip(tokens, rows, strict=True):
            row[: len(ids)] = ids
        return tokens


def _listed(prompts):
    """The prompts as a list, and whether they came as one."""
    many = isinstance(prompts, Sequence) and not isinstance(prompts, str)
    return (list(prompts) if many else [prompts]), many


def evaluate(
    painter: Painter, dataset: tf.data.Dataset, judge: Judge | None = None, *, seed: int = 0
) -> dict[str, float]:
    """Paints a picture for a caption of every real one and compares both.

    Args:
        painter: what paints.
        dataset: batches of {"image", "captions"}, with "labels" for a judge, as `data(...).test`.
        judge: reads the labels off the painted pictures, see `train_judge`.
        seed: of the noise, another for each picture.

    Returns:
        By the judge: for each attribute the share of painted pictures of which it reads what the caption says,
        `all` for all of them together, `judge_on_real` the same `all` on the real pictures, and
        `frechet_distance` between painted and real in the judge's features (Heusel et al. 2017,
        arXiv:1706.08500, there in Inception's).
        Without a judge, too: `sharpness`, the mean squared gradient (Tenengrad) relative to real pictures;
        `variety`, how far two of the pictures are apart on average, relative to real ones; with noise
        `seed_variety`, how far two pictures of one prompt are apart, relative to two of different prompts.
        What cannot be compared is left out: of a single picture the distance and the varieties.
        A collapse (one picture for all prompts, or for all seeds) is named in a warning.

    Raises:
        ValueError: there is no dataset, or of another kind than the model (another image size, or captions of
            whose words it knows none), `seed` is negative, or the judge has no labels to compare with or reads
            pictures of another size.
    """
    checks.images(dataset, painter.image_size)
    checks.ints(0, seed=seed)
    if judge is not None and judge.image_size != painter.image_size:
        raise ValueError(
            f"Expected a judge of pictures of {painter.image_size} pixels, as the painter paints them; train "
            f"one on data of that image_size. Received: judge.image_size={judge.image_size}"
        )
    real, painted, again, labels = [], [], [], []
    for number, batch in enumerate(progress.bar(dataset, "pictures")):
        images = batch["image"].numpy()
        captions = [[text.decode() for text in texts if text] for texts in batch["captions"].numpy()]
        if not real:
            painter.vocabulary.check_known(text for texts in captions for text in texts)
        first = number * len(captions)
        prompts = [texts[(first + i) % len(texts)] for i, texts in enumerate(captions)]
        text = painter._texts(prompts, refuse=False)  # one strange caption is no reason to score nothing
        random = np.random.default_rng([seed, number])
        painted.append(painter.paint(text, random.standard_normal((len(text), painter.noise_size))))
        if painter.noise_size:
            again.append(painter.paint(text, random.standard_normal((len(text), painter.noise_size))))
        real.append(images)
        if judge is not None:
            labels.append(judge.labels(batch))
    if not real:
        raise ValueError("Expected a dataset of pictures and captions. Received: one without any")
    real, painted = np.concatenate(real), np.concatenate(painted)
    scores: dict[str, float] = {}
    if judge is not None:
        on_real, real_features = judge.read(real)
        on_painted, painted_features = judge.read(painted)
        scores = judge.accuracy(on_painted, labels)
        scores["judge_on_real"] = judge.accuracy(on_real, labels)["all"]
        if len(real) > 1:
            scores["frechet_distance"] = metrics.frechet_distance(painted_features, real_features)
    # images of one color have no sharpness, and a single image no variety to compare with
    if sharpness := metrics.sharpness(real):
        scores["sharpness"] = metrics.sharpness(painted) / sharpness
    others = _apart(painted, np.roll(painted, 1, axis=0))
    if apart := _apart(real, np.roll(real, 1, axis=0)):
        scores["variety"] = others / apart
        if painter.noise_size:
            scores["seed_variety"] = _apart(painted, np.concatenate(again)) / max(others, 1e-9)
    _name_collapse(scores)
    return scores


def _apart(pictures, others):
    return float(np.abs(pictures.astype("float32") - others).mean())


def _name_collapse(scores):
    """Below a hundredth of what it should be there is no variety to speak of."""
    if scores.get("variety", 1) < 0.01:
        terminal.warn(
            "Collapse: all prompts get the same picture. The model has not learned to heed the text yet; train "
            "it longer, or lower the learning rate."
        )
    elif scores.get("seed_variety", 1) < 0.01:
        terminal.warn(
            "Mode collapse: a prompt gets the same picture whatever the seed. Train it longer, or lower the "
            "learning rate."
        )
