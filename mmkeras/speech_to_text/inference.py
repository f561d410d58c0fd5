"""Speech to text (chapter 5.2): the trained model.

transcriber = Transcriber(model)
transcriber("speech.wav")                            # 'a small red circle at the top left'
transcriber([array, array], sample_rate_hz=44_100)   # a list in, a list out
transcriber.explain("speech.wav").plot()             # start and end of each word
evaluate(transcriber, data.test)                     # {'wer': ..., 'cer': ...}
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import keras
import numpy as np

from mmkeras._utils import checks, predictor, progress, terminal
from mmkeras.decoding.generator import Generator
from mmkeras.evaluation import alignment, metrics
from mmkeras.evaluation.explanations import Alignment
from mmkeras.media import audio, long_form
from mmkeras.speech_to_text.model import EPOCHS, TASK
from mmkeras.text.vocabulary import END, PAD
from mmkeras.toy import scene

if TYPE_CHECKING:
    import tensorflow as tf

CLIPS_IN_MEMORY = 256  # enough that segments of similar length share a batch
# Default max_length of an attention decoder: one token per 40 ms, faster than anyone speaks, or one per time
# step if that is more. At least 64 tokens, since a clip can be very short after trimming.
TOKEN_SECONDS, LEAST_TOKENS = 0.04, 64


class Transcriber(predictor.Predictor):
    """Transcribes clips.

    Args:
        model: keras.Model. From `build`, or `keras.saving.load_model` once `mmkeras.speech_to_text` is
            imported.
    """

    names = (TASK,)
    title = "Speech to text"
    builder = "mmkeras.speech_to_text.build()"
    inputs = "clips"
    options = ("beams", "length_penalty", "temperature", "top_p", "max_length", "seed")
    epochs, file, duration = EPOCHS, "transcriber.keras", "about three minutes on two cores"
    variants: ClassVar = {TASK: (TASK, {})}

    def __init__(self, model: keras.Model):
        super().__init__(model)
        self.encoder = model.get_layer("encoder")
        self.head = "attention" if "decoder" in [layer.name for layer in model.layers] else "ctc"
        head, layer = ("decoder", "embedding") if self.head == "attention" else ("head", "logits")
        self.vocabulary = model.get_layer(head).get_layer(layer).vocabulary
        self._generator = Generator(self.encoder, model.get_layer(head))
        self.log_mel = self.encoder.get_layer("log_mel")
        self.sample_rate_hz = self.log_mel.sample_rate_hz
        self.hop_seconds = self.log_mel.hop / self.sample_rate_hz
        self.step_seconds = self.hop_seconds * self.encoder.get_layer("subsampling").strides[0]
        # Chinese characters are words: no space separates them
        self._has_spaces = self.vocabulary.has_spaces

    def __call__(
        self, inputs: Any, *, sample_rate_hz: int | None = None, **options: Any
    ) -> str | list[str | None] | None:
        """Transcribes each clip.

        The silence before and after speech is trimmed, see `mmkeras.media.long_form.trim`. A clip much longer
        than any in training is split at its quietest points, with a warning.

        Args:
            inputs: Path, array, pair (sample_rate_hz, array), or a list of these (see
                `mmkeras.media.audio.read`).
            sample_rate_hz: int. Sample rate of the arrays. Defaults to None, for files and pairs.
            **options: See `transcribe`.

        Returns:
            A transcript; for a list of clips a list of transcripts, None for a clip that cannot be read, which
            a warning names.

        Raises:
            FileNotFoundError, ValueError: if a single clip, or every clip of a list, cannot be read.
        """

        def read(clip):
            return audio.read(clip, self.sample_rate_hz, sample_rate_hz)

        def predict(clips, positions):
            return self.transcribe(clips, positions=positions, **options)

        is_list = isinstance(inputs, list | tuple) and not audio.is_pair(inputs)
        return self._answer(inputs, read, predict, batch_size=CLIPS_IN_MEMORY, is_list=is_list)

    def transcribe(
        self, clips: Sequence[np.ndarray], *, positions: Sequence[int] | None = None, **options: Any
    ) -> list[str]:
        """Transcribes arrays at the model's sample rate, as `mmkeras.media.audio.read` returns them.

        Args:
            clips: Arrays (n,) float32 in -1..1.
            positions: An int for each clip, which with the seed determines its noise in sampling. Default to 0,
                1, ...
            **options: See `mmkeras.decoding.generator.Generator`. `max_length` defaults to more tokens than
                can be spoken in the duration of a clip. CTC takes `beams` only.
        """
        return self.generate(clips, positions=positions, **options)[0]

    def generate(
        self, clips: Sequence[np.ndarray], *, positions: Sequence[int] | None = None, **options: Any
    ) -> tuple[list[str], np.ndarray]:
        """As `transcribe`, with the log-probability of each transcript.

        Returns:
            The transcripts; the log-probability (N,) of the tokens of each, 0 for a silent clip.
        """
        segments = [self._segments(clip) for clip in clips]
        self._warn_of_splits(segments)
        parts = [clip[a:b] for clip, spans in zip(clips, segments, strict=True) for a, b in spans]
        positions = range(len(clips)) if positions is None else positions
        numbers = [(p, n) for p, spans in zip(positions, segments, strict=True) for n in range(len(spans))]
        by_length = sorted(range(len(parts)), key=lambda i: len(parts[i]))  # for little padding
        texts, log_probability = [""] * len(parts), np.zeros(len(parts))
        for start in progress.bar(range(0, len(parts), predictor.BATCH_SIZE), "transcripts"):
            indices = by_length[start : start + predictor.BATCH_SIZE]
            inputs, rows = self._padded([parts[i] for i in indices]), [numbers[i] for i in indices]
            tokens, log_probability[indices] = self._generate(inputs, positions=rows, **options)  # (B, T), (B,)
            for i, ids in zip(indices, tokens, strict=True):
                texts[i] = self.vocabulary.decode(ids)
        counts = [len(spans) for spans in segments]
        clip_of_part = np.repeat(np.arange(len(clips)), counts)
        total = np.bincount(clip_of_part, log_probability, minlength=len(clips))  # (N,)
        return long_form.merge(texts, counts, " " if self._has_spaces else ""), total

    def explain(self, clip: Any, *, sample_rate_hz: int | None = None, **options: Any) -> Alignment:
        """The transcript of one clip, with the time of each word and the weights of each token over time.

        The weights are the attention of the decoder, or with CTC the probability of the token. A word starts
        at the end of the previous word, and ends at the last time step with a high weight of its last token.

        Args:
            clip: Path, array or pair (sample_rate_hz, array).
            sample_rate_hz: int. Sample rate of an array. Defaults to None, for files and pairs.
            **options: See `transcribe`.
        """
        samples = audio.read(clip, self.sample_rate_hz, sample_rate_hz)
        steps = -(-len(samples) // round(self.step_seconds * self.sample_rate_hz))
        segments = self._segments(samples)
        self._warn_of_splits([segments])
        tokens, words, texts, rows = [], [], [], [np.zeros((0, steps), np.float32)]
        for number, (start, stop) in enumerate(segments):
            inputs = self._padded([samples[start:stop]])
            ids, _ = self._generate(inputs, positions=[(0, number)], **options)  # (1, T)
            ids = ids[:, (ids[0] != PAD) & (ids[0] != END)]
            if not ids.size:
                continue
            first = min(round(start / self.sample_rate_hz / self.step_seconds), steps - 1)
            count = min(-(-(stop - start) * steps // len(samples)), steps - first)
            weights = self._generator.weights(inputs, ids)[0, :, :count]  # (T, S of the segment)
            rows.append(np.pad(weights, ((0, 0), (first, steps - first - weights.shape[1]))))  # (T, S)
            spans = [(first + a, first + b) for a, b in alignment.monotonic(weights)]
            segment_tokens = self.vocabulary.decode_words(ids[0])
            join_characters = self._has_spaces and self.vocabulary.unit == "character"
            words += alignment.words(segment_tokens, spans, self.step_seconds, join_characters)
            tokens += segment_tokens
            texts += self.vocabulary.join(segment_tokens).split()
        log_mel, mask = self.log_mel(samples[None], np.array([len(samples)]))  # (1, F, bands), (1, F)
        return Alignment(
            samples=samples,
            sample_rate_hz=self.sample_rate_hz,
            text=(" " if self._has_spaces else "").join(texts),
            words=words,
            tokens=tokens,
            weights=np.concatenate(rows),
            step_seconds=self.step_seconds,
            log_mel=keras.ops.convert_to_numpy(log_mel)[0][keras.ops.convert_to_numpy(mask)[0]],
            hop_seconds=self.hop_seconds,
        )

    def parts(self):
        longest = long_form.LEEWAY * self.log_mel.longest_seconds
        return self._generator.parts(int(self._most_tokens(longest)))

    def card(self):
        answer = "greedy" if self.head == "attention" else "answer"
        longest = long_form.LEEWAY * self.log_mel.longest_seconds
        return {"answer": answer, "sample_rate_hz": self.sample_rate_hz, "longest_seconds": longest}

    @property
    def data_options(self) -> dict[str, Any]:
        step_ms = round(1000 * self.step_seconds)
        return {"vocabulary": self.vocabulary, "sample_rate_hz": self.sample_rate_hz, "step_ms": step_ms}

    def evaluate(self, dataset, **options):
        return evaluate(self, dataset, **options)

    def _segments(self, clip):
        return long_form.segments(clip, self.sample_rate_hz, self.log_mel.longest_seconds)

    def _warn_of_splits(self, segments):
        if split := sum(len(spans) > 1 for spans in segments):
            terminal.warn(
                f"{split} of {len(segments)} clips are longer than the {self.log_mel.longest_seconds:.1f} s of "
                f"the longest clip in training. They are split at their quietest points."
            )

    def _padded(self, clips):
        """A batch, padded to a multiple of half a second, so that few shapes are compiled."""
        half = self.sample_rate_hz // 2
        batch = np.zeros((len(clips), -(-max(map(len, clips)) // half) * half), np.float32)  # (B, n)
        for row, clip in zip(batch, clips, strict=True):
            row[: len(clip)] = clip
        return {"audio": batch, "length": np.array([len(clip) for clip in clips], np.int32)}

    def _most_tokens(self, seconds):
        """More tokens than can be spoken in clips of a duration. Powers of two, so that few are compiled."""
        steps = seconds / min(self.step_seconds, TOKEN_SECONDS)
        return 2 ** np.ceil(np.log2(np.maximum(steps, LEAST_TOKENS))).astype(int)

    def _generate(self, inputs, **options):
        """Token ids (B, T) of a batch, padded with 0, and their log-probability (B,)."""
        if self.head == "ctc" or options.get("max_length") is not None:
            return self._generator(inputs, **options)
        limits = self._most_tokens(inputs["length"] / self.sample_rate_hz)  # (B,)
        tokens, log_probability = self._generator(inputs, **options | {"max_length": int(limits.max())})
        # A transcript that never reaches <end> must not depend on the other clips of the batch.
        return np.where(np.arange(limits.max()) < limits[:, None], tokens, PAD), log_probability


def evaluate(transcriber: Transcriber, dataset: "tf.data.Dataset", **options: Any) -> dict[str, float]:
    """Transcribes every clip, and compares the transcripts with the references.

    Args:
        transcriber: Transcriber.
        dataset: Batches of {"audio", "length", "transcript"}, as `data(...).test`. "sample_rate_hz", if
            present, must be the model's.
        **options: See `Transcriber.transcribe`.

    Returns:
        - `wer` and its parts `substitutions`, `insertions`, `deletions`, per word of the references. If most
          references are Chinese, the parts are per character and `wer` is left out.
        - `cer`.
        - `scene_accuracy`, if all references describe toy scenes: share of transcripts that describe the same
          scene.

        A warning names a collapse: the same transcript for all clips, or empty transcripts.

    Raises:
        ValueError: if the dataset is empty or does not fit the model (fields, sample rate, vocabulary).
    """
    checks.dataset(dataset, "audio", "length", "transcript")
    vocabulary, own_rate_hz = transcriber.vocabulary, transcriber.sample_rate_hz
    references, texts = [], []
    for batch in progress.bar(dataset, "transcripts"):
        batch_references = [text.decode() for text in batch["transcript"].numpy()]
        if not references:
            vocabulary.check_known(batch_references)
            rate_hz = int(batch.get("sample_rate_hz", [own_rate_hz])[0])
            if rate_hz != own_rate_hz:
                raise ValueError(
                    f"Expected dataset to have the model's sample_rate_hz={own_rate_hz}. Make it with "
                    f"data(..., **transcriber.data_options). Received: sample_rate_hz={rate_hz}"
                )
        rows = zip(batch["audio"].numpy(), batch["length"].numpy(), strict=True)
        positions = range(len(texts), len(texts) + len(batch_references))
        texts += transcriber.transcribe(
            [clip[:length] for clip, length in rows], positions=positions, **options
        )
        references += batch_references
    checks.not_empty(references)

    def plain(text):  # as the model generates it: lower case, no punctuation
        return vocabulary.join(vocabulary.split(text))

    scores = metrics.recognition_scores([plain(text) for text in references], texts)
    accuracy = scene.accuracy(texts, references)
    if accuracy is not None:
        scores["scene_accuracy"] = accuracy
    metrics.warn_of_collapse(texts, "transcript", "clip")
    return scores
