"""Image captioning (chapter 5.1): the trained model at work.

captioner = Captioner(model)
captioner("photo.jpg")                     # 'a small red circle at the top left'
captioner(["a.jpg", picture], beams=4)     # a list in, a list out
captioner.explain("photo.jpg").plot()      # what each word looked at
evaluate(captioner, data.test)             # {'bleu_1': ..., 'cider_d': ..., 'scene_accuracy': ...}
"""

import os
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mmkeras._utils import checks, progress, saving
from mmkeras.captioning.model import TASK
from mmkeras.decoding.generator import Writer
from mmkeras.evaluation import metrics
from mmkeras.evaluation.explain import Explanation
from mmkeras.media import images
from mmkeras.toy import scene

BATCH_SIZE = 32


class Captioner:
    """Writes captions for pictures.

    Args:
        model: a captioning model, from `build`; `keras.saving.load_model` reads one too, once
            `mmkeras.captioning` is imported. It stays the same object: train
            it further and the captioner writes what it learned.
    """

    def __init__(self, model: keras.Model):
        saving.check(model, TASK, "captioning model", "mmkeras.captioning.build()")
        self.model = model
        self.encoder = model.get_layer("encoder")
        self.decoder = model.get_layer("decoder")
        self.vocabulary = self.decoder.get_layer("embedding").vocabulary
        self.image_size = self.encoder.get_layer("grid").image_size
        self._writer = Writer(self.encoder, self.decoder)

    def __call__(self, pictures: Any, *, seed: int = 0, **how) -> str | list[str]:
        """A caption, or a list of them for a list of pictures.

        Args:
            pictures: a path, a PIL image, an array (see `mmkeras.media.images.read`), or a list of these.
            seed: of sampling.
            how: to write: `beams`, `length_penalty`, `temperature`, `top_p`, `max_length`, see
                `mmkeras.decoding.generator.Writer`.

        Raises:
            FileNotFoundError, ValueError: a picture is missing or cannot be read. All files are looked at
                before the first caption is written.
        """
        many = isinstance(pictures, list | tuple)
        several = list(pictures) if many else [pictures]
        if not several:
            raise ValueError("Expected at least one picture. Received: an empty list")
        for picture in several:
            if isinstance(picture, str | os.PathLike):
                images.check(picture)
        captions = []
        batches = range(0, len(several), BATCH_SIZE)
        for start in progress.bar(batches, "captions"):
            batch = np.stack([self._read(p) for p in several[start : start + BATCH_SIZE]])
            tokens, _ = self.write(batch, seed=seed + start, **how)
            captions += [self.vocabulary.decode(ids) for ids in tokens]
        return captions if many else captions[0]

    def write(self, batch: np.ndarray, **how) -> tuple[np.ndarray, np.ndarray]:
        """Token ids for a batch, written in one compiled graph.

        Args:
            batch: (B, image_size, image_size, 3) RGB 0..255, or (B, h, w, C) features.
            how: greedily, by beam search, or by sampling, see `mmkeras.decoding.generator.Writer`.

        Returns:
            tokens (B, max_length) int32, padded with 0 after <end>, and their log-probability (B,).
        """
        return self._writer({"image": np.asarray(batch)}, **how)

    def explain(self, picture: Any, **how) -> Explanation:
        """The caption of one picture with the places that each of its words looked at."""
        original = images.read(picture)
        batch = images.resize(original, self.image_size)[None]
        tokens, _ = self.write(batch, **how)
        words = self.vocabulary.decode_words(tokens[0])
        attention = self._writer.attention({"image": batch}, tokens)  # (1, T, h*w)
        _, height, width, _ = self.encoder.get_layer("grid").network.output_shape
        maps = attention[0, : len(words)].reshape(-1, height, width)
        return Explanation(original, self.vocabulary.join(words), words, maps)

    @property
    def data_options(self) -> dict[str, Any]:
        """What `data` is told so that its pictures and tokens suit this model."""
        # max_length is given, so that training captions need not be counted
        return {"vocabulary": self.vocabulary, "image_size": self.image_size, "max_length": 50}

    def save(self, path: str | os.PathLike) -> None:
        """Writes one `.keras` file with everything in it, to be read by `mmkeras.load`."""
        saving.save(self.model, path)

    def _read(self, picture):
        return images.resize(images.read(picture), self.image_size)


def evaluate(captioner: Captioner, dataset: tf.data.Dataset, **how) -> dict[str, float]:
    """Writes a caption for every picture, freely, and scores them against all references.

    Args:
        captioner: what writes.
        dataset: batches of {"image", "captions"}, as `data(...).test`.
        how: to write, see `Captioner.write`.

    Returns:
        `bleu_1` to `bleu_4` and `rouge_l` (0..1), `cider_d` (0..10), see `mmkeras.evaluation.metrics`;
        `distinct_captions`, the number of different captions a picture (1/n: always the same one); and,
        where all references tell of toy scenes, `scene_accuracy`: the share of captions that tell of the
        true one, whatever their wording.
        A collapse (one caption for all pictures, empty captions) is named in a warning.

    Raises:
        ValueError: the dataset is none of pictures and captions, or of another kind than the model: another
            image size, or captions of whose words it knows none.
    """
    checks.images(dataset, captioner.image_size)
    references, candidates = [], []
    for batch in progress.bar(dataset, "captions"):
        texts = [[text.decode() for text in texts if text] for texts in batch["captions"].numpy()]
        if not references:
            captioner.vocabulary.check_known(text for texts_of_one in texts for text in texts_of_one)
        references += texts
        tokens, _ = captioner.write(batch["image"].numpy(), **how)
        candidates += [captioner.vocabulary.decode(ids) for ids in tokens]

    def spaced(text):
        return " ".join(captioner.vocabulary.split(text))

    scores = metrics.caption_scores(
        [[spaced(text) for text in texts] for texts in references], [spaced(c) for c in candidates]
    )
    scores["distinct_captions"] = len(set(candidates)) / len(candidates)
    true_scenes = [scene.parse(texts[0]) for texts in references]
    if all(true_scenes):
        told = [scene.parse(caption) for caption in candidates]
        scores["scene_accuracy"] = float(np.mean([t == s for t, s in zip(told, true_scenes, strict=True)]))
    metrics.name_collapse(candidates, "caption", "picture")
    return scores
