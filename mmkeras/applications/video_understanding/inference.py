"""Video understanding (chapter 6.2): the trained models.

classifier = VideoClassifier(model)
classifier("clip.mp4", "a star moves left")       # {'color': 'red', 'shape': 'star', 'motion': 'left', ...}
classifier(["a.gif", "b.mp4", array])             # a list in, a list out
captioner = VideoCaptioner(model)
captioner("clip.gif")                             # 'a red star moves left twice while a sound rises'
evaluate(captioner, data.test)                    # {'bleu_1': ..., 'cider_d': ..., 'event_accuracy': ...}
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from mmkeras._utils import checks, progress
from mmkeras._utils.predictor import Predictor
from mmkeras.applications.video_understanding.datasets import to_float, without_empty
from mmkeras.applications.video_understanding.model import CAPTIONER, CLASSIFIER
from mmkeras.decoding.generator import Generator
from mmkeras.distribute import collectives
from mmkeras.evaluation import metrics
from mmkeras.media import video
from mmkeras.media.video import Sampling
from mmkeras.nn.layers import TokenEmbedding
from mmkeras.nn.spectrogram import LogMel
from mmkeras.toy import motion, scene

if TYPE_CHECKING:
    import tensorflow as tf


class _VideoPredictor(Predictor):
    inputs = "videos"

    def __init__(self, model: keras.Model):
        super().__init__(model)
        layers = {type(layer): layer for layer in model._flatten_layers()}
        rate = layers[LogMel].sample_rate_hz
        _, frames, size, *_ = model.input["frames"].shape
        self.sampling = Sampling(frames, size, model.input["sound"].shape[1] / rate, rate)
        self.vocabulary = layers[TokenEmbedding].vocabulary

    @property
    def data_options(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary, "sampling": self.sampling, "max_length": 50}

    def _read(self, item):
        sampling = self.sampling
        whole = video.read(item, sampling.image_size, sampling.seconds, sampling.frames / sampling.seconds)
        return video.sampled(whole, sampling)

    def _stacked(self, frames, sound):
        return {"frames": np.stack(frames), "sound": np.asarray(to_float(np.stack(sound)))}

    def _check(self, dataset, *fields):
        shape = checks.dataset(dataset, "frames", "sound", *fields)["frames"].shape[1:3]
        if tuple(shape) != (self.sampling.frames, self.sampling.image_size):
            raise ValueError(
                f"Expected dataset to have videos of {self.sampling}, the model's. Make it with data(..., "
                f"**predictor.data_options). Received: frames and image_size {tuple(shape)}"
            )


class VideoClassifier(_VideoPredictor):
    """Predicts the attributes of videos from frames, sound and text.

    Args:
        model: keras.Model. From `build`, or `keras.saving.load_model` once `mmkeras.applications` is imported.

    Attributes:
        attributes: {attribute: names of its classes}.
        sampling: `Sampling`. How the model samples a video.
    """

    names = (CLASSIFIER,)
    title = "Video classification"
    builder = "mmkeras.applications.video_understanding.build()"
    output = "classes"

    def __init__(self, model: keras.Model):
        super().__init__(model)
        g = model.get_layer("g")
        self.attributes = {name: g.get_layer(name).classes for name in model.output}
        # A new model: `predict` must run outside of the strategy in whose scope `model` may have been built.
        self._model = keras.Model(model.input, model.output)

    def __call__(
        self, inputs: Any, texts: str | Sequence[str | None] | None = None
    ) -> dict[str, str] | list[dict[str, str] | None]:
        """Predicts the class of each attribute.

        The start of a video counts, see `mmkeras.media.video.sampled`. A video of one frame is a still. A
        silent sound counts as none. What is missing, sound or text, is replaced by what training learned in
        its place.

        Args:
            inputs: Path, array (F, H, W, 3) or `mmkeras.media.video.Video`, or a list of these.
            texts: str, optional. What is told of the video; for a list of videos a list, with None for no text.
                Defaults to None: no texts.

        Returns:
            {attribute: name of the class}; for a list of videos a list of such dictionaries, None for a video
            that cannot be read, which a warning names.

        Raises:
            FileNotFoundError, ValueError: if a single video, or every video of a list, cannot be read, or if
                there is not a text for each video.
            ImportError: if a format needs PyAV, which is not installed.
        """
        is_list = isinstance(inputs, list | tuple)
        videos, texts = (inputs, texts or [None] * len(inputs)) if is_list else ([inputs], [texts])
        if isinstance(texts, str) or len(texts) != len(videos):
            raise ValueError(
                f"Expected texts to be a list of {len(videos)}, one per video. Received: {texts!r}"
            )

        def read(pair):
            return *self._read(pair[0]), pair[1] or ""

        def predict(values, positions):
            frames, sound, told = zip(*values, strict=True)
            ids = self.predict(self._stacked(frames, sound), told)
            return [
                {name: names[ids[name][i]] for name, names in self.attributes.items()}
                for i in range(len(values))
            ]

        answers = self._answer(list(zip(videos, texts, strict=True)), read, predict)
        return answers if is_list else answers[0]

    def predict(self, batch: dict[str, np.ndarray], texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Class ids of a batch, {attribute: (B,)}.

        Args:
            batch: {"frames" (B, F, S, S, 3), "sound" (B, n) in -1..1}.
            texts: B texts, `""` for none.
        """
        tokens = np.asarray(without_empty(self.vocabulary.encode_batch(list(texts))))
        logits = collectives.predict_batches(self._model, batch | {"text": tokens})
        return {name: values.argmax(axis=-1) for name, values in logits.items()}

    def evaluate(self, dataset):
        """Accuracy, see `mmkeras.evaluation.metrics.attribute_accuracy`. Arguments as for `evaluate`."""
        self._check(dataset, "captions", "labels")
        predicted, labels = [], []
        for batch in progress.bar(dataset, "videos"):
            texts = [text.decode() for text in batch["captions"].numpy()[:, 0]]
            predicted.append(self.predict(self._stacked(batch["frames"], batch["sound"]), texts))
            labels.append({name: batch["labels"][name].numpy() for name in self.attributes})
        checks.not_empty(labels)
        joined = [
            keras.tree.map_structure(lambda *x: np.concatenate(x), *parts) for parts in (predicted, labels)
        ]
        return metrics.attribute_accuracy(*joined)


class VideoCaptioner(_VideoPredictor):
    """Generates captions for videos from frames and sound.

    Args:
        model: keras.Model. From `build_captioner`, or `keras.saving.load_model` once `mmkeras.applications` is
            imported.

    Attributes:
        sampling: `Sampling`. How the model samples a video.
    """

    names = (CAPTIONER,)
    title = "Video captioning"
    builder = "mmkeras.applications.video_understanding.build_captioner()"
    options = ("beams", "length_penalty", "temperature", "top_p", "max_length")

    def __init__(self, model: keras.Model):
        super().__init__(model)
        self._generator = Generator(model.get_layer("encoder"), model.get_layer("decoder"))

    def __call__(self, inputs: Any, *, seed: int = 0, **options: Any) -> str | list[str | None]:
        """Generates a caption for each video. What is said of the sound of a video without sound is a guess.

        Args:
            inputs: As for `VideoClassifier`.
            seed: int. Seed for sampling. Defaults to 0.
            **options: See `mmkeras.decoding.generator.Generator`.

        Returns, raises: As `VideoClassifier`, with captions in place of classes.
        """

        def predict(values, positions):
            return self.generate(
                self._stacked(*zip(*values, strict=True)), seed=seed, positions=positions, **options
            )

        return self._answer(inputs, self._read, predict)

    def generate(self, batch: dict[str, np.ndarray], **options: Any) -> list[str]:
        """Captions of a batch {"frames" (B, F, S, S, 3), "sound" (B, n) in -1..1}."""
        tokens, _ = self._generator(batch, **options)
        return [self.vocabulary.decode(ids) for ids in tokens]

    def evaluate(self, dataset, **options):
        """`bleu_1` to `bleu_4`, `rouge_l`, `cider_d`; `exact`, the share of captions that equal a reference; of
        toy videos `event_accuracy`, the share that tell the same event in any wording. Arguments as for
        `evaluate`."""
        self._check(dataset, "captions")
        captions, references = [], []
        for batch in progress.bar(dataset, "captions"):
            positions = range(len(captions), len(captions) + len(batch["frames"]))
            stacked = self._stacked(batch["frames"], batch["sound"])
            captions += self.generate(stacked, positions=positions, **options)
            references += [[text.decode() for text in texts if text] for texts in batch["captions"].numpy()]
        checks.not_empty(captions)
        self.vocabulary.check_known(text for texts in references for text in texts)

        spaced = self.vocabulary.spaced
        answers, truths = list(map(spaced, captions)), [list(map(spaced, texts)) for texts in references]
        scores = metrics.caption_scores(truths, answers)
        scores["exact"] = float(np.mean([a in texts for a, texts in zip(answers, truths, strict=True)]))
        accuracy = scene.accuracy(captions, [texts[0] for texts in references], motion.parse)
        metrics.warn_of_collapse(captions, "caption", "video")
        return scores | ({} if accuracy is None else {"event_accuracy": accuracy})


def evaluate(
    predictor: VideoClassifier | VideoCaptioner, dataset: "tf.data.Dataset", **options: Any
) -> dict[str, float]:
    """Scores of a predictor, see its `evaluate`.

    Args:
        predictor: VideoClassifier or VideoCaptioner.
        dataset: Batches of a test split, as `data(...).test`.
        **options: Of a captioner: see `mmkeras.decoding.generator.Generator`.

    Raises:
        ValueError: if the dataset is empty or does not fit the model.
    """
    return predictor.evaluate(dataset, **options)
