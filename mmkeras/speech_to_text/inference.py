"""Speech to text (chapter 5.2): the trained model at work.

transcriber = Transcriber(model)
transcriber("speech.wav")                            # 'a small red circle at the top left'
transcriber([array, array], sample_rate_hz=44_100)   # a list in, a list out
transcriber.explain("speech.wav").plot()             # when each word was said
evaluate(transcriber, data.test)                     # {'wer': ..., 'cer': ...}
"""

import os
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mmkeras._utils import progress, saving, terminal
from mmkeras.data.vocabulary import END, PAD
from mmkeras.decoding import ctc
from mmkeras.decoding.generator import Writer
from mmkeras.evaluation import metrics
from mmkeras.evaluation.explain import Alignment, Word, monotonic
from mmkeras.media import audio
from mmkeras.speech_to_text.model import TASK
from mmkeras.toy import scene

BATCH_SIZE = 32
# Clips in memory at a time: enough to put those of like length together.
AT_ONCE = 256
# A clip may be so much longer than any that training saw before it is cut.
LEEWAY = 1.2
# An attention decoder may write a token every 40 ms, faster than anyone speaks (one a step where these are
# shorter, as in training), and at the least so many: a clip can be very short without the quiet around it.
TOKEN_SECONDS, LEAST_TOKENS = 0.04, 64
# Below this peak, -80 dB of full scale, there is nothing to hear.
SILENCE = 1e-4


class Transcriber:
    """Writes down what is said.

    Args:
        model: a model from `mmkeras.speech_to_text.build`; `keras.saving.load_model` reads one too, once
            `mmkeras.speech_to_text` is imported. It stays the same object: train it further and the transcriber
            writes what it learned.
    """

    def __init__(self, model: keras.Model):
        saving.check(model, TASK, "speech-to-text model", "mmkeras.speech_to_text.build()")
        self.model = model
        self.encoder = model.get_layer("encoder")
        names = [layer.name for layer in model.layers]
        self.head = "attention" if "decoder" in names else "ctc"
        if self.head == "attention":
            decoder = model.get_layer("decoder")
            self.vocabulary = decoder.get_layer("embedding").vocabulary
            self._read = Writer(self.encoder, decoder)
        else:
            head = model.get_layer("head")
            self.vocabulary = head.get_layer("logits").vocabulary
            self._read = ctc.Reader(self.encoder, head)
        self.log_mel = self.encoder.get_layer("log_mel")
        self.sample_rate_hz = self.log_mel.sample_rate_hz
        self.hop_seconds = self.log_mel.hop / self.sample_rate_hz
        self.step_seconds = self.hop_seconds * self.encoder.get_layer("subsampling").strides[0]

    def __call__(
        self, clips: Any, *, sample_rate_hz: int | None = None, **how
    ) -> str | list[str | None] | None:
        """A transcript, or a list of them for a list of clips.

        Quiet before and behind what is said is not read: also a whisper that is 40 dB below a click, see
        `mmkeras.media.audio.trim`. A clip much longer than any that training saw is cut at its quietest places,
        and a warning says so. In a list, a clip that cannot be read has None for its transcript, and a warning
        names it.

        Args:
            clips: a path, an array (see `mmkeras.media.audio.read`), or a list of these.
            sample_rate_hz: of the arrays; files know their own.
            how: to write, see `transcribe`.

        Raises:
            FileNotFoundError, ValueError: a single clip is missing or cannot be read; none of a list can.
        """
        many = isinstance(clips, list | tuple)
        several = list(clips) if many else [clips]
        if not several:
            raise ValueError("Expected at least one clip. Received: an empty list")
        transcripts: list[str | None] = []
        broken, cut = {}, 0  # name → why
        for first in range(0, len(several), AT_ONCE):
            sounds = []
            reading = progress.bar(several[first : first + AT_ONCE], "reading")
            for number, clip in enumerate(reading, start=first):
                try:
                    sounds.append(audio.read(clip, self.sample_rate_hz, sample_rate_hz))
                except (ValueError, OSError) as error:
                    if len(several) == 1:
                        raise
                    sounds.append(None)
                    if isinstance(clip, str | os.PathLike):  # which the error names
                        broken[os.fspath(clip)] = str(error)
                    else:
                        broken[f"clip {number}"] = f"clip {number}: {error}"
            texts, cut_here = self._transcribe([sound for sound in sounds if sound is not None], **how)
            texts, cut = iter(texts), cut + cut_here
            transcripts += [None if sound is None else next(texts) for sound in sounds]
        why, other_names = list(broken.values())[:3], list(broken)[3:]
        if transcripts.count(None) == len(several):
            raise ValueError(f"None of the {len(several)} clips can be read. The first: {why[0]}")
        if broken:
            terminal.warn(
                f"{transcripts.count(None)} of {len(several)} clips cannot be read and have None for a "
                f"transcript: {'; '.join([*why, *other_names])}"
            )
        self._say_cut(cut, len(several))
        return transcripts if many else transcripts[0]

    def transcribe(self, sounds: list[np.ndarray], **how) -> list[str]:
        """Transcripts of sounds (n,) float32 at the model's own rate.

        Args:
            sounds: of any lengths.
            how: with an attention decoder what `mmkeras.decoding.generator.Writer` takes (`beams`,
                `length_penalty`, ...; `max_length` is by default more than can be said in a clip's time); with
                CTC `beams` alone.

        Raises:
            ValueError: a sound is none that `mmkeras.media.audio.read` takes, or holds no sample.
        """
        sounds = [audio.read(sound, self.sample_rate_hz, self.sample_rate_hz) for sound in sounds]
        texts, cut = self._transcribe(sounds, **how)
        self._say_cut(cut, len(sounds))
        return texts

    def _transcribe(self, sounds, **how):
        """The transcripts, and how many of the sounds were cut for them."""
        pieces = [self._pieces(sound) for sound in sounds]
        flat = [
            sound[start:stop] for sound, of_one in zip(sounds, pieces, strict=True) for start, stop in of_one
        ]
        texts = [""] * len(flat)
        by_length = sorted(range(len(flat)), key=lambda i: len(flat[i]))  # clips of like length share a batch
        batches = range(0, len(flat), BATCH_SIZE)
        for first in progress.bar(batches, "transcripts"):
            numbers = by_length[first : first + BATCH_SIZE]
            tokens = self._written(self._inputs([flat[i] for i in numbers]), **how)
            for i, ids in zip(numbers, tokens, strict=True):
                texts[i] = self.vocabulary.decode(ids)
        texts = iter(texts)
        between = self._between_words
        joined = [between.join(filter(None, (next(texts) for _ in of_one))) for of_one in pieces]
        return joined, sum(len(of_one) > 1 for of_one in pieces)

    def _say_cut(self, cut, of):
        if cut:
            terminal.warn(
                f"{int(cut)} of {of} clips are longer than the {self.log_mel.longest_seconds:.1f} s that "
                f"training saw: cut at their quietest places, transcribed piece by piece and joined again."
            )

    def explain(self, clip: Any, *, sample_rate_hz: int | None = None, **how) -> Alignment:
        """The transcript of one clip with the time of each word, and what the model looked at for it.

        With an attention decoder the weights are its attention, with CTC the probability of each token over
        time. A word lasts from where the one before it ends to where its own weight does.
        """
        if isinstance(clip, list | tuple):
            raise ValueError(f"Expected one clip, a path or an array. Received: a {type(clip).__name__}")
        sound = audio.read(clip, self.sample_rate_hz, sample_rate_hz)
        steps = -(-len(sound) // round(self.step_seconds * self.sample_rate_hz))
        tokens, rows, words = [], [], []
        pieces = self._pieces(sound)
        self._say_cut(len(pieces) > 1, 1)
        for start, stop in pieces:
            inputs = self._inputs([sound[start:stop]])
            found = self._written(inputs, **how)[0]
            ids = found[(found != PAD) & (found != END)]
            first = min(round(start / self.sample_rate_hz / self.step_seconds), steps - 1)
            count = min(-(-(stop - start) * steps // len(sound)), steps - first)
            weights = self._weights(inputs, ids)[:, :count]  # (T, S of the piece)
            spans = [(first + a, first + b) for a, b in monotonic(weights)] if len(ids) else []
            words += self._words(ids, spans)
            rows += [np.pad(row, (first, steps - first - len(row))) for row in weights]
            tokens += self.vocabulary.decode_words(ids)
        log_mel, is_real = self.log_mel(sound[None], np.array([len(sound)]))
        return Alignment(
            samples=sound,
            sample_rate_hz=self.sample_rate_hz,
            text=self._between_words.join(word.text for word in words),
            words=words,
            tokens=tokens,
            weights=np.array(rows).reshape(len(tokens), steps),
            step_seconds=self.step_seconds,
            log_mel=keras.ops.convert_to_numpy(log_mel)[0][keras.ops.convert_to_numpy(is_real)[0]],
            hop_seconds=self.hop_seconds,
        )

    @property
    def data_options(self) -> dict[str, Any]:
        """What `data` is told so that its clips and tokens suit this model."""
        step_ms = round(1000 * self.step_seconds)
        return {"vocabulary": self.vocabulary, "sample_rate_hz": self.sample_rate_hz, "step_ms": step_ms}

    def save(self, path: str | os.PathLike) -> None:
        """Writes one `.keras` file with everything in it, to be read by `mmkeras.load`."""
        saving.save(self.model, path)

    @property
    def _between_words(self):
        """A blank, but in a vocabulary of characters without one (Chinese) nothing."""
        return " " if self.vocabulary.unit == "word" or " " in self.vocabulary.ids else ""

    def _pieces(self, sound):
        """Where the pieces of a sound that are read start and end, each without the quiet around it: the toy
        world's clips have none, and all that a model sees of loudness is relative to its clip. Where there is
        nothing to hear, there is no piece."""
        rate, longest = self.sample_rate_hz, self.log_mel.longest_seconds
        start, stop = audio.trim(sound, rate)
        pieces = [(start, stop)]
        if longest and stop - start > LEEWAY * longest * rate:
            pieces = []
            for first, end in audio.cut(sound[start:stop], rate, longest):
                a, b = audio.trim(sound[start + first : start + end], rate)
                pieces.append((start + first + a, start + first + b))
        return [(a, b) for a, b in pieces if np.abs(sound[a:b]).max() > SILENCE]

    def _inputs(self, sounds):
        """Padded to half seconds, so that few shapes are compiled."""
        half = self.sample_rate_hz // 2
        most = -(-max(map(len, sounds)) // half) * half
        batch = np.zeros((len(sounds), most), np.float32)
        for row, sound in zip(batch, sounds, strict=True):
            row[: len(sound)] = sound
        return {"audio": batch, "length": np.array([len(sound) for sound in sounds], np.int32)}

    def _written(self, inputs, **how):
        """Token ids (B, T) of a batch, padded with 0; T grows with the clips, unless `max_length` is given."""
        if self.head == "ctc" and (others := how.keys() - {"beams"}):
            raise TypeError(
                f"A CTC head writes as many tokens as it reads, and takes beams alone. "
                f"Received: {', '.join(f'{name}={how[name]!r}' for name in sorted(others))}"
            )
        if self.head == "ctc" or how.get("max_length") is not None:
            return self._read(inputs, **how)[0]
        steps = inputs["length"] / self.sample_rate_hz / min(self.step_seconds, TOKEN_SECONDS)
        # powers of two, so that few lengths are compiled
        most = 2 ** np.ceil(np.log2(np.maximum(steps, LEAST_TOKENS))).astype(int)  # (B,)
        tokens, _ = self._read(inputs, **how | {"max_length": int(most.max())})
        # what does not end is as long in any company
        return np.where(np.arange(most.max()) < most[:, None], tokens, PAD)

    def _weights(self, inputs, ids):
        if self.head == "attention":
            return self._read.attention(inputs, ids[None])[0]  # (T, S)
        return self._read.posteriors(inputs)[0][:, ids].T

    def _words(self, ids, spans):
        """Tokens and their steps as words and their seconds."""
        words, open_word = [], False
        for token, (start, stop) in zip(self.vocabulary.decode_words(ids), spans, strict=True):
            if token == " ":
                open_word = False
                continue
            if open_word:
                word = words[-1]
                words[-1] = Word(word.text + token, word.start, stop * self.step_seconds)
            else:
                words.append(Word(token, start * self.step_seconds, stop * self.step_seconds))
            open_word = self.vocabulary.unit == "character" and " " in self.vocabulary.ids
        return words


def evaluate(transcriber: Transcriber, dataset: tf.data.Dataset, **how) -> dict[str, float]:
    """Writes a transcript of every clip, freely, and compares it with what was said.

    Args:
        transcriber: what writes.
        dataset: batches of {"audio", "length", "transcript"}, as `data(...).test`; its "sample_rate_hz" is
            compared with the model's.
        how: to write, see `Transcriber.transcribe`.

    Returns:
        `wer` and its parts `substitutions`, `insertions`, `deletions`, each per word said (for Chinese per
        character, and `wer` is left out); `cer`; and, where all transcripts tell of toy scenes,
        `scene_accuracy`: the share of transcripts that tell of the true one.
        A collapse (nothing written, always the same text, one word over and over, an attention that does not
        move) is named in a warning.

    Raises:
        ValueError: the dataset is none of clips and transcripts, or of another kind than the model: another
            sample rate, or transcripts of whose words it knows none.
    """
    spec = getattr(dataset, "element_spec", dataset)
    if not isinstance(spec, dict) or not {"audio", "length", "transcript"} <= spec.keys():
        received = spec if isinstance(spec, dict | tuple | None) else type(dataset).__name__
        raise ValueError(
            f"Expected a dataset of clips and transcripts, as data(...).test is; train and validation are for "
            f"fit. Received: dataset={received}"
        )
    references, found, first = [], [], None
    own = transcriber.sample_rate_hz
    for batch in progress.bar(dataset, "transcripts"):
        lengths = batch["length"].numpy()
        sounds = [row[:length] for row, length in zip(batch["audio"].numpy(), lengths, strict=True)]
        texts = [text.decode() for text in batch["transcript"].numpy()]
        if first is None:
            first = sounds
            transcriber.vocabulary.check_known(texts)
            rate = int(batch.get("sample_rate_hz", [own])[0])
            if rate != own:
                raise ValueError(
                    f"Expected clips at the model's sample_rate_hz={own}. Received: a dataset of clips at "
                    f"sample_rate_hz={rate}. Make it with data(..., **transcriber.data_options)."
                )
        found += transcriber.transcribe(sounds, **how)
        references += texts

    if not references:
        raise ValueError(
            "Expected a dataset of clips and transcripts. Received: one without any that can be read"
        )
    vocabulary = transcriber.vocabulary

    def plain(text):  # as the model writes: lower case, no punctuation
        return vocabulary.join(vocabulary.split(text))

    scores = metrics.recognition_scores([plain(text) for text in references], found)
    true_scenes = [scene.parse(text) for text in references]
    if all(true_scenes):
        heard = [scene.parse(text) for text in found]
        scores["scene_accuracy"] = float(np.mean([h == s for h, s in zip(heard, true_scenes, strict=True)]))
    metrics.name_collapse(found, "transcript", "clip")
    _name_stuck(transcriber, first, found)
    return scores


def _name_stuck(transcriber, sounds, texts):
    split = str.split if transcriber._between_words else transcriber.vocabulary.split
    one_word = sum(len(words) > 2 and len(set(words)) == 1 for words in map(split, texts))
    if one_word > len(texts) / 2:
        terminal.warn(
            f"Collapse: {one_word} of {len(texts)} transcripts are one word over and over. Train the model "
            f"longer, or lower the learning rate."
        )
    if transcriber.head == "attention":
        inputs = transcriber._inputs(sounds[:8])
        tokens = transcriber._written(inputs)
        peaks = transcriber._read.attention(inputs, tokens).argmax(axis=-1)  # (8, T)
        counts = ((tokens != PAD) & (tokens != END)).sum(axis=1)
        moved = [len(set(row[:n])) > 1 for row, n in zip(peaks, counts, strict=True) if n > 2]
        if moved and not any(moved):
            terminal.warn(
                "Collapse: the attention never moves along the clips. What is written cannot follow what is "
                "said; train the model longer, or raise the learning rate."
            )
