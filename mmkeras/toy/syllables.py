"""Sentences joined from syllables that were spoken one by one.

A synthesizer lets one syllable flow into the next always in the same way, and a model learns to lean on that.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from mmkeras.toy import scene, speak

VOICES = 64
SHORTEST, LONGEST = 0.2, 0.55  # seconds that are kept of a syllable
OVERLAP, PAUSE = 0.06, 0.15  # at most, in seconds
LEVEL = 0.25  # standard deviation of the logarithm
FADE = 80  # samples at the end of a syllable that was cut


def spoken(sentences: Iterable[tuple[int, str]], language: str) -> Iterator[np.ndarray]:
    """Sentences of the split `train`, each joined from the syllables of one of 64 voices.

    Args:
        sentences: (number of the clip, text).
        language: str. `"en"`, where a word stands for a syllable, or `"zh"`.

    Yields:
        (n,) int16 at 16 kHz.
    """
    voices = [speak.voice("train", number, language) for number in range(VOICES)]
    known = {}
    for number, text in sentences:
        rng = scene.generator("train", number, "syllables", language)
        parts = text.split() if language == "en" else list(text)
        voice = scene.pick(rng, voices)
        new = [part for part in dict.fromkeys(parts) if (part, voice) not in known]
        clips = speak.speak_all((part, voice, 0) for part in new)
        known |= zip(((part, voice) for part in new), clips, strict=True)
        yield join([known[part, voice] for part in parts], rng)


def join(syllables: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """One clip of syllables: long ones cut, at random levels, overlapping, side by side or with pauses.

    Args:
        syllables: (n,) int16 each, at 16 kHz.
        rng: Generator.

    Returns:
        (m,) int16.
    """
    kept = round(speak.SAMPLE_RATE_HZ * rng.uniform(SHORTEST, LONGEST))
    overlap = round(speak.SAMPLE_RATE_HZ * rng.choice([rng.uniform(0, OVERLAP), 0, -rng.uniform(0, PAUSE)]))
    clip = np.zeros(0, np.float32)
    for syllable in syllables:
        part = syllable[:kept].astype(np.float32) * np.exp(rng.normal(0, LEVEL))
        if len(syllable) > kept:
            part[-FADE:] *= np.linspace(1, 0, FADE)
        shared = min(overlap, len(part), len(clip))
        if shared < 0:
            clip, shared = np.concatenate([clip, np.zeros(-shared, np.float32)]), 0
        before, both = clip[: len(clip) - shared], clip[len(clip) - shared :] + part[:shared]
        clip = np.concatenate([before, both, part[shared:]])
    limits = np.iinfo(np.int16)
    return np.clip(clip, limits.min, limits.max).astype(np.int16)
