"""Speech to text (chapter 5.2): the data.

    data = mmkeras.speech_to_text.data("toy")               # the toy world
    data = mmkeras.speech_to_text.data("librispeech")       # through TensorFlow Datasets
    data = mmkeras.speech_to_text.data("my/recordings")     # a folder with a table of transcripts

Clips of similar length share a batch, so that little of it is padding.
"""

import dataclasses
import math
from numbers import Real
from typing import Any

from mmkeras._utils import checks, progress
from mmkeras.data import clips, sources
from mmkeras.data.task_data import TaskData, training_split
from mmkeras.text.vocabulary import SPECIAL, UNITS, Vocabulary

# Datasets whose transcripts take an hour to read, and the characters that are known to be in them.
SLOW_TEXTS = ("librispeech", "ljspeech", "speech_commands")
ENGLISH = tuple(" 'abcdefghijklmnopqrstuvwxyz")


def data(
    source: Any = "toy",
    *,
    language: str = "en",
    batch_size: int = 32,
    unit: str | None = None,
    vocabulary: Vocabulary | None = None,
    min_count: int = 1,
    max_size: int = 10_000,
    sample_rate_hz: int = 16_000,
    step_ms: int = 40,
    max_seconds: float = 35.0,
    augment: bool = True,
    recolor: bool = False,
    seed: int = 0,
    static_shapes: bool = False,
    **options,
) -> TaskData:
    """Clips and transcripts, ready for `model.fit`. A clip that cannot be used is left out, and a warning names
    it.

    Args:
        source: str or path. `"toy"`; `"librispeech"` (61 GB are downloaded on first use), `"ljspeech"` (2.75
            GB), `"speech_commands"`; a folder of clips (wav, flac, ogg, mp3, at any sample rate) with a table
            of transcripts (see `mmkeras.data.tables`); or a dataset (see `mmkeras.data.hugging_face`). Defaults
            to `"toy"`.
        language: str. `"en"` or `"zh"`. Defaults to `"en"`.
        batch_size, max_size: As for `mmkeras.captioning.data`.
        unit: str. Unit of the tokens, `"word"` or `"character"`. Defaults to words for the toy world in English
            and for speech_commands, otherwise to characters.
        vocabulary: `Vocabulary`. Defaults to the tokens of the training transcripts, for LibriSpeech and
            LJSpeech by character to the English letters. Other tokens become `<unknown>`; for a folder or the
            toy world a warning names such characters, and such words if the vocabulary is given. If given, a
            source without training transcripts can be evaluated.
        min_count: int. Tokens seen less often become `<unknown>`. Defaults to 1.
        sample_rate_hz: int. Sample rate that clips are resampled to. Defaults to 16,000.
        step_ms: int. Duration of a time step of the model, `hop_ms * subsampling`. A clip with fewer time steps
            than its transcript has tokens is left out, since the transcript must be wrong. Defaults to 40.
        max_seconds: float. Longer clips are left out of training. Defaults to 35.
        augment: bool. Whether to change the speed of training clips (0.9 to 1.1) and add white noise (at 5 to
            40 dB). SpecAugment is part of the model. Defaults to True.
        recolor: bool. Whether augmentation gives each unvoiced stretch another random spectrum, which a model
            of synthetic speech needs to understand people (`mmkeras.data.pipeline.recolor_unvoiced`). Defaults
            to False.
        seed: int. Seed for the order and for augmentation. Defaults to 0.
        static_shapes: bool. As for `mmkeras.captioning.data`. All clips are then padded to `max_seconds` (with
            `augment`, to its length at the slowest speed), and all transcripts to the most tokens that fit, so
            choose a short `max_seconds`. Defaults to False.
        **options: Of the source. Toy world: `snr_db` (signal-to-noise ratio in dB, 20; None: no noise),
            `syllables` (half of the training clips are joined from single syllables, False), `data_dir`.
            LibriSpeech: `train` (splits of TFDS), `data_dir`. LJSpeech and speech_commands: `data_dir`.
            Folder: see `mmkeras.data.folder.read`.

    Returns:
        `TaskData` with these batches:

        - `train`, `validation`: ({"audio", "length", "tokens"}, targets); audio (B, n) float32 in -1..1, length
          (B,) int32, tokens and targets (B, T) int32. Every epoch holds every usable clip exactly once, in
          batches of clips of similar length; the last batch may be smaller. If a clip of a source too large
          for memory turns out to be damaged, other clips are repeated to fill the epoch. None if no clip can be
          used.
        - `test`, `test_unseen`: {"audio", "length", "transcript", "sample_rate_hz"}; transcript (B,) string,
          sample_rate_hz (B,) int32.

    Raises:
        ValueError: if an argument is invalid, the table is malformed, or no clip can be used for training.
        FileNotFoundError: if none of the clips in the table exists.
        OSError: if eSpeak NG, the voice of the toy world, is missing.
    """
    vocabulary = sources.check_options(language, vocabulary)
    checks.ints(1, batch_size=batch_size, sample_rate_hz=sample_rate_hz, step_ms=step_ms)
    checks.ints(1, min_count=min_count)
    checks.ints(len(SPECIAL) + 1, max_size=max_size)
    checks.ints(0, seed=seed)
    if not isinstance(max_seconds, Real) or not 0 < max_seconds < math.inf:
        raise ValueError(f"Expected max_seconds to be a number above 0. Received: max_seconds={max_seconds!r}")
    if unit not in (None, *UNITS):
        raise ValueError(f"Expected unit to be one of {UNITS}, or None. Received: unit={unit!r}")
    is_given = vocabulary is not None
    if is_given:
        unit = vocabulary.unit
    elif unit is None:
        unit = "word" if source == "speech_commands" or (source == "toy" and language == "en") else "character"
    splits = sources.read_clips(source, language, sample_rate_hz, **options)
    if source == "toy" and augment:  # augmentation adds its own noise
        clean = sources.read_clips(source, language, sample_rate_hz, **options | {"snr_db": None})
        splits["train"] = clean["train"]
    if vocabulary is None and unit == "character" and source in ("librispeech", "ljspeech"):
        vocabulary = Vocabulary(ENGLISH, unit)
    elif vocabulary is None:
        train = training_split(splits)
        bar = progress.bar(train.texts(), "transcripts", train.count)
        texts = [text for clip_texts in bar for text in clip_texts]
        vocabulary = Vocabulary.count(texts, unit, min_count=min_count, max_size=max_size)
        splits["train"] = dataclasses.replace(train, count=len(texts))  # speech_commands skips some
    if (is_given or unit == "character") and source not in SLOW_TEXTS:
        vocabulary.warn_of_unknown(
            text for split in splits.values() for clip_texts in split.texts() for text in clip_texts
        )

    batches = clips.ClipBatches(
        sources.title(source),
        vocabulary,
        batch_size,
        sample_rate_hz,
        step_ms,
        max_seconds,
        augment,
        recolor,
        seed,
        static_shapes,
    )
    return TaskData(
        sources.title(source),
        vocabulary,
        batch_size,
        splits,
        batches.for_fit,
        batches.for_evaluate,
        extra={"sample_rate_hz": sample_rate_hz, "step_ms": step_ms},
    )
