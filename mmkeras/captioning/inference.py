"""Image captioning (chapter 5.1): the trained model at work.

captioner = Captioner(model)
captioner("photo.jpg")                     # 'a small red circle at the top left'
captioner(["a.jpg", picture], beams=4)     # a list in, a list out
captioner.explain("photo.jpg").plot()      # what each word looked at
evaluate(captioner, data.test)             # {'bleu_1': ..., 'cider_d': ..., 'scene_accuracy': ...}
"""

import os
import warnings
from collections import Counter
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from tqdm import tqdm

from mmkeras import decoding, images, metrics, saving
from mmkeras.captioning.model import TASK
from mmkeras.explain import Explanation
from mmkeras.toy import scene
from mmkeras.vocabulary import END, PAD, START, UNKNOWN

BATCH_SIZE = 32
NEVER_WRITTEN = (PAD, UNKNOWN, START)


class Captioner:
    """Writes captions for pictures.

    Args:
        model: a captioning model, from `build` or `keras.saving.load_model`. It stays the same object: train
            it further and the captioner writes what it learned.
    """

    def __init__(self, model: keras.Model):
        if getattr(model, "name", None) != TASK:
            raise ValueError(
                f"Expected a captioning model, as mmkeras.captioning.build() returns it. "
                f"Received: model={getattr(model, 'name', model)!r}"
            )
        self.model = model
        self.encoder = model.get_layer("encoder")
        self.decoder = model.get_layer("decoder")
        self.vocabulary = self.decoder.get_layer("embedding").vocabulary
        self.image_size = self.encoder.get_layer("grid").image_size
        self._writers: dict[tuple, _Writer] = {}

    def __call__(self, pictures: Any, *, seed: int = 0, **how) -> str | list[str]:
        """A caption, or a list of them for a list of pictures.

        Args:
            pictures: a path, a PIL image, an array (see `mmkeras.images.read`), or a list of these.
            seed: of sampling.
            how: to write, see `write`: `beams`, `length_penalty`, `temperature`, `top_p`, `max_length`.

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
        for start in tqdm(range(0, len(several), BATCH_SIZE), "captions", delay=2, leave=False):
            batch = np.stack([self._read(p) for p in several[start : start + BATCH_SIZE]])
            tokens, _ = self.write(batch, seed=seed + start, **how)
            captions += [self.vocabulary.decode(ids) for ids in tokens]
        return captions if many else captions[0]

    def write(
        self,
        batch: np.ndarray,
        *,
        beams: int = 1,
        length_penalty: float = 0.0,
        temperature: float | None = None,
        top_p: float = 1.0,
        max_length: int = 50,
        seed: int = 0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Token ids for a batch, written in one compiled graph: greedily, by beam search, or by sampling.

        Args:
            batch: (B, image_size, image_size, 3) RGB 0..255, or (B, h, w, C) features.
            beams: how many prefixes a beam search keeps; 1 is greedy.
            length_penalty: the best beam is that with the highest log-probability / length**length_penalty;
                above 0 favours longer captions.
            temperature: sample instead, from the probabilities at this temperature.
            top_p: sample among the most probable words that together have this probability.
            max_length: at most so many tokens.
            seed: of sampling; the same seed, the same captions.

        Returns:
            tokens (B, max_length) int32, padded with 0 after <end>, and their log-probability (B,).
        """
        if temperature is not None and beams != 1:
            raise ValueError(
                f"Expected either beams or temperature. Received: beams={beams}, temperature={temperature}"
            )
        inputs = {"image": np.asarray(batch)}
        if temperature is None and top_p == 1.0:
            options = {"beams": beams, "length_penalty": length_penalty, "max_length": max_length}
        else:
            options = {"temperature": temperature or 1.0, "top_p": top_p, "max_length": max_length}
            noise = np.random.default_rng(seed).random((len(inputs["image"]), max_length))
            inputs["noise"] = noise.astype("float32")
        key = tuple(options.items())
        if key not in self._writers:
            self._writers[key] = _Writer(self.encoder, self.decoder, **options)
        return self._writers[key].predict_on_batch(inputs)

    def explain(self, picture: Any, **how) -> Explanation:
        """The caption of one picture with the places that each of its words looked at."""
        original = images.read(picture)
        batch = images.resize(original, self.image_size)[None]
        tokens, _ = self.write(batch, **how)
        words = self.vocabulary.decode_words(tokens[0])
        given = ops.convert_to_tensor(np.concatenate([[[START]], tokens[:, :-1]], axis=1))  # (1, T)
        *_, attention = self.decoder([given, *self.encoder(ops.convert_to_tensor(batch))])  # (1, T, h*w)
        _, height, width, _ = self.encoder.get_layer("grid").network.output_shape
        maps = ops.convert_to_numpy(attention)[0, : len(words)].reshape(-1, height, width)
        return Explanation(original, self.vocabulary.join(words), words, maps)

    def save(self, path: str | os.PathLike) -> None:
        """Writes one `.keras` file with everything in it, to be read by `mmkeras.load`."""
        saving.save(self.model, path)

    def _read(self, picture):
        return images.resize(images.read(picture), self.image_size)


class _Writer(keras.Model):
    """Encoder, decoder and the loop of decoding as one graph: `predict_on_batch` compiles it."""

    def __init__(self, encoder, decoder, *, max_length, beams=1, length_penalty=0.0, **sampling):
        super().__init__(name="writer")
        self.encoder, self.decoder = encoder, decoder
        self.max_length, self.beams, self.length_penalty = max_length, beams, length_penalty
        self.sampling = sampling

    def call(self, inputs):
        memory, *state = self.encoder(inputs["image"], training=False)
        if self.beams > 1:
            memory = decoding.repeat(memory, self.beams)

        def next(tokens, state):
            logits, *state, _ = self.decoder([tokens[:, None], memory, *state], training=False)
            return logits[:, 0], tuple(state)

        common = {
            "batch_size": ops.shape(inputs["image"])[0],
            "start": START,
            "end": END,
            "max_length": self.max_length,
            "forbidden": NEVER_WRITTEN,
        }
        if "noise" in inputs:
            return decoding.sample(next, tuple(state), noise=inputs["noise"], **self.sampling, **common)
        if self.beams == 1:
            return decoding.greedy(next, tuple(state), **common)
        return decoding.beam(next, tuple(state), beams=self.beams, length_penalty=self.length_penalty, **common)


def evaluate(captioner: Captioner, dataset: tf.data.Dataset, **how) -> dict[str, float]:
    """Writes a caption for every picture, freely, and scores them against all references.

    Args:
        captioner: what writes.
        dataset: batches of {"image", "captions"}, as `data(...).test`.
        how: to write, see `Captioner.write`.

    Returns:
        `bleu_1` to `bleu_4` and `rouge_l` (0..1), `cider_d` (0..10), see `mmkeras.metrics`;
        `distinct_captions`, the number of different captions a picture (1/n: always the same one); and,
        where all references tell of toy scenes, `scene_accuracy`: the share of captions that tell of the
        true one, whatever their wording.
        A collapse (one caption for all pictures, empty captions) is named in a warning.
    """
    if dataset is None:
        raise ValueError("Expected a dataset of pictures and references. Received: dataset=None")
    references, candidates = [], []
    for batch in tqdm(dataset, "captions", delay=2, leave=False):
        tokens, _ = captioner.write(batch["image"].numpy(), **how)
        candidates += [captioner.vocabulary.decode(ids) for ids in tokens]
        references += [[t.decode() for t in texts if t] for texts in batch["captions"].numpy()]

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
    _name_collapse(candidates)
    return scores


def _name_collapse(captions):
    empty = sum(not caption for caption in captions)
    if empty:
        warnings.warn(
            f"Collapse: {empty} of {len(captions)} captions are empty. The model ends before the first word; "
            f"train it longer.",
            stacklevel=3,
        )
    caption, times = Counter(captions).most_common(1)[0]
    if times == len(captions) > 1 and caption:
        warnings.warn(
            f"Collapse: all {times} pictures got the same caption, {caption!r}. The model has not learned to "
            f"look at the picture yet; train it longer, or lower the learning rate.",
            stacklevel=3,
        )
