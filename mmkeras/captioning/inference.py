"""Image captioning (chapter 5.1): the trained model.

captioner = Captioner(model)
captioner("photo.jpg")                     # 'a small red circle at the top left'
captioner(["a.jpg", array], beams=4)       # a list in, a list out
captioner.explain("photo.jpg").plot()      # attention map of each word
evaluate(captioner, data.test)             # {'bleu_1': ..., 'cider_d': ..., 'scene_accuracy': ...}
"""

import functools
from typing import TYPE_CHECKING, Any, ClassVar

import keras
import numpy as np

from mmkeras._utils import checks, progress
from mmkeras._utils.predictor import ImagePredictor
from mmkeras.captioning.model import EPOCHS, TASK
from mmkeras.decoding.generator import DEFAULTS, Generator
from mmkeras.evaluation import baselines, explain, metrics
from mmkeras.evaluation.explanations import Explanation
from mmkeras.media import images
from mmkeras.text.vocabulary import START
from mmkeras.toy import scene

if TYPE_CHECKING:
    import tensorflow as tf


class Captioner(ImagePredictor):
    """Generates captions for images.

    Args:
        model: keras.Model. From `build`, or `keras.saving.load_model` once `mmkeras.captioning` is imported.
    """

    names = (TASK,)
    title = "Image captioning"
    builder = "mmkeras.captioning.build()"
    options = ("beams", "length_penalty", "temperature", "top_p", "max_length")
    epochs, file, duration = EPOCHS, "captioner.keras", "about three minutes on two cores"
    variants: ClassVar = {TASK: (TASK, {})}

    def __init__(self, model: keras.Model):
        super().__init__(model)
        self.encoder = model.get_layer("encoder")
        self.decoder = model.get_layer("decoder")
        self.vocabulary = self.decoder.get_layer("embedding").vocabulary
        self.network = self.encoder.get_layer("grid").network
        self.novelty = None

    def _connect(self):
        encoder = self.novelty.with_scores(self.encoder, "grid") if self.novelty else self.encoder
        self._generator = Generator(encoder, self.decoder)

    def __call__(self, inputs: Any, *, seed: int = 0, **options: Any) -> str | list[str | None] | None:
        """Generates a caption for each image.

        Args:
            inputs: Path, open file, PIL image or array (see `mmkeras.media.images.read`), or a list of these.
            seed: int. Seed for sampling. The noise of an image depends on the seed and its position in the list
                only. Defaults to 0.
            **options: `beams`, `length_penalty`, `temperature`, `top_p`, `max_length`, see
                `mmkeras.decoding.generator.Generator`.

        Returns:
            A caption; for a list of images a list of captions, None for an image that cannot be read, which a
            warning names.

        Raises:
            FileNotFoundError, ValueError: if a single image, or every image of a list, cannot be read.
        """

        def predict(values, positions):
            inputs = {"image": np.stack(values)}
            tokens, _, *scores = self._generator(inputs, seed=seed, positions=positions, **options)
            if self.novelty:
                self.novelty.warn(*scores, positions)
            return [self.vocabulary.decode(ids) for ids in tokens]

        return self._answer(inputs, self._read, predict)

    def generate(self, batch: np.ndarray, **options: Any) -> tuple[np.ndarray, np.ndarray]:
        """Generates token ids for a batch in one compiled graph.

        Args:
            batch: (B, image_size, image_size, 3) RGB 0..255, or (B, h, w, C) features.
            **options: `positions` and others, see `mmkeras.decoding.generator.Generator`.

        Returns:
            tokens (B, max_length) int32, padded with 0 after `<end>`, and their log-probability (B,).
        """
        return self._generator({"image": np.asarray(batch)}, **options)[:2]

    def explain(
        self,
        image: Any,
        method: str = "attention",
        *,
        caption: str | None = None,
        baseline: Any = None,
        **options: Any,
    ) -> Explanation:
        """The caption of one image, with a map of each word: its attention, or the pixels that its logit
        depends on, given the words before.

        Args:
            image: Path, open file, PIL image or array.
            method: str. `"attention"`, or one of `mmkeras.evaluation.explain.METHODS`. Defaults to
                `"attention"`.
            caption: str, optional. A caption to explain in place of the generated one. Defaults to None.
            baseline: Of a method that has one, see `mmkeras.evaluation.explain.gradient_x_input`. Defaults to
                None.
            **options: See `mmkeras.decoding.generator.Generator`.

        Raises:
            ValueError: if there is no such method, the encoder has no grid, or no word of the caption is known.
        """
        original = images.read(image)
        batch = images.resize(original, self.image_size)[None]
        if caption is None:
            tokens, _ = self.generate(batch, **options)
        else:
            self.vocabulary.check_known([caption])
            tokens = self.vocabulary.encode_batch([caption])[:, 1:]  # without <start>
        words = self.vocabulary.decode_words(tokens[0])
        caption = self.vocabulary.join(words)
        if method != "attention":
            count = len(words)
            chosen = np.eye(len(self.vocabulary), dtype="float32")[tokens[0, :count]]  # (T, V)
            chosen = np.eye(count, dtype="float32")[..., None] * chosen  # (T, T, V): word i in row i

            def logits(outputs):
                return keras.ops.sum(outputs * chosen, axis=(1, 2))

            before = np.concatenate([[START], tokens[0, : count - 1]])[None]
            inputs = {"image": np.repeat(batch, count, 0), "tokens": np.repeat(before, count, 0)}
            options = {} if baseline is None else {"baseline": baseline}
            return explain.explanation(method, self._flat, inputs, logits, original, words, caption, **options)
        _, height, width, _ = self.network.output_shape
        if height == 1 < width:
            raise ValueError(
                f"Expected an encoder whose vectors form a grid. Received: encoder={self.network.name!r} with "
                f"a sequence of {width}, which have no position in the image."
            )
        attention = self._generator.weights({"image": batch}, tokens)  # (1, T, h*w)
        maps = attention[0, : len(words)].reshape(-1, height, width)  # (words, h, w)
        return Explanation(original, caption, words, maps)

    @functools.cached_property
    def _flat(self):
        """The model, in which the encoder is no layer of its own."""
        encoder, tokens = self.encoder, keras.Input((None,), dtype="int32", name="tokens")
        logits, *_ = self.decoder([tokens, *encoder.outputs])
        return keras.Model({"image": encoder.input, "tokens": tokens}, logits, name=self.model.name)

    def parts(self):
        return Generator(self.encoder, self.decoder).parts(DEFAULTS["attention"]["max_length"])

    def card(self):
        return super().card() | {"answer": "greedy"}

    @property
    def data_options(self) -> dict[str, Any]:
        # With max_length given, `data` need not read all training captions. 50 is also the default of decoding.
        return {"vocabulary": self.vocabulary, "image_size": self.image_size, "max_length": 50}

    def evaluate(self, dataset, **options):
        return evaluate(self, dataset, **options)

    def _read(self, image):
        return images.resize(images.read(image), self.image_size)


def evaluate(
    captioner: Captioner, dataset: "tf.data.Dataset", train: "tf.data.Dataset | None" = None, **options: Any
) -> dict[str, float]:
    """Generates a caption for every image, and scores it against all references.

    Args:
        captioner: Captioner.
        dataset: Batches of {"image", "captions"}, as `data(...).test`.
        train: Batches of {"image", "captions"} to compare with, as `data.for_evaluate(data.splits["train"])`.
            They are kept in memory. Defaults to None.
        **options: See `mmkeras.decoding.generator.Generator`.

    Returns:
        - `bleu_1` to `bleu_4` and `rouge_l` (0..1), `cider_d` (0..10), see `mmkeras.evaluation.metrics`.
        - `exact`: share of captions that equal a reference; `first_word`: share whose first word is that of a
          reference. Where validation loss and CIDEr-D disagree, these two show what is learned.
        - With `train`, `nearest_exact` and `nearest_cider_d`: the scores of answering with the first caption of
          the training image that is nearest by raw pixels; `hard_exact`: `exact` of the images that it gets
          wrong.
        - `distinct_captions`: number of different captions per image; 1/n if all are the same.
        - `scene_accuracy`, if all references describe toy scenes: share of captions that describe the same
          scene, in any wording.

        A warning names a collapse: the same caption for all images, or empty captions.

    Raises:
        ValueError: if the dataset is empty or does not fit the model (fields, image size, vocabulary).
    """
    checks.images(dataset, captioner.image_size)
    vocabulary = captioner.vocabulary
    references, captions, pictures = [], [], []
    for batch in progress.bar(dataset, "captions"):
        batch_references = [[text.decode() for text in texts if text] for texts in batch["captions"].numpy()]
        if not references:
            vocabulary.check_known(text for texts in batch_references for text in texts)
        positions = range(len(references), len(references) + len(batch_references))
        references += batch_references
        if train is not None:
            pictures.append(batch["image"].numpy())
        tokens, _ = captioner.generate(batch["image"].numpy(), positions=positions, **options)
        captions += [vocabulary.decode(ids) for ids in tokens]
    checks.not_empty(captions)

    spaced = vocabulary.spaced
    answers, truths = list(map(spaced, captions)), [list(map(spaced, texts)) for texts in references]
    scores = metrics.caption_scores(truths, answers)
    exact = np.array([answer in texts for answer, texts in zip(answers, truths, strict=True)])
    scores["exact"] = float(exact.mean())
    first = [
        answer.split()[:1] in [text.split()[:1] for text in texts]
        for answer, texts in zip(answers, truths, strict=True)
    ]
    scores["first_word"] = float(np.mean(first))
    if train is not None:
        known = [(batch["image"].numpy(), batch["captions"].numpy()[:, 0]) for batch in train]
        near = baselines.nearest(*(np.concatenate(x) for x in ([image for image, _ in known], pictures)))
        texts = [spaced(text.decode()) for text in np.concatenate([text for _, text in known])[near]]
        is_right = np.array([text in truth for text, truth in zip(texts, truths, strict=True)])
        scores["nearest_exact"] = float(is_right.mean())
        scores["nearest_cider_d"] = metrics.cider_d(truths, texts)
        if not is_right.all():
            scores["hard_exact"] = float(exact[~is_right].mean())
    scores["distinct_captions"] = len(set(captions)) / len(captions)
    accuracy = scene.accuracy(captions, [texts[0] for texts in references])
    if accuracy is not None:
        scores["scene_accuracy"] = accuracy
    metrics.warn_of_collapse(captions, "caption", "image")
    return scores
