"""Alignment of tokens with time, from attention weights or the probabilities of CTC."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Word:
    """A word (in Chinese: a character) with its start and end in seconds."""

    text: str
    start: float
    end: float


def monotonic(weights: np.ndarray) -> list[tuple[int, int]]:
    """Aligns tokens with time: a monotonic segmentation of the steps with the highest sum of log weights.

    Args:
        weights: (T, S) float, at least 0: attention or probability of token t at step s.

    Returns:
        T pairs (start, stop): token t covers the steps start, ..., stop - 1. The segments
        are adjacent. Each ends at the last step at which its token has a high weight; the first starts at the
        first such step.
    """
    tokens, steps = weights.shape
    if not tokens:
        return []
    if tokens > steps:  # no segmentation exists: each token gets the step of its highest weight
        peaks = np.maximum.accumulate(weights.argmax(axis=1))
        return [(int(peak), int(peak) + 1) for peak in peaks]
    gains = np.log(weights + 1e-6)  # (T, S)
    best = np.full((tokens, steps), -np.inf)
    stays = np.zeros((tokens, steps), bool)
    best[0] = np.cumsum(gains[0])
    stays[0] = True
    for step in range(1, steps):
        stay, advance = best[1:, step - 1], best[:-1, step - 1]
        stays[1:, step] = stay >= advance
        best[1:, step] = np.maximum(stay, advance) + gains[1:, step]
    starts, step = [0] * tokens, steps - 1
    for token in range(tokens - 1, 0, -1):
        while stays[token, step]:
            step -= 1
        starts[token] = step
        step -= 1
    # CTC's probabilities are short peaks, and a peak comes late in its word. So a segment ends with the
    # peak of its token, and the steps after it belong to the next token.
    spans = []
    for row, start, stop in zip(weights, starts, [*starts[1:], steps], strict=True):
        peak = start + np.flatnonzero(row[start:stop] >= 0.1 * row[start:stop].max())
        spans.append((spans[-1][1] if spans else int(peak[0]), int(peak[-1]) + 1))
    return spans


def words(
    tokens: Sequence[str], spans: Sequence[tuple[int, int]], step_seconds: float, join_characters: bool
) -> list[Word]:
    """The words of a transcript, with their times.

    Args:
        tokens: T words or characters.
        spans: T pairs (start, stop) of time steps, see `monotonic`.
        step_seconds: float. Duration of a time step.
        join_characters: bool. Whether tokens are characters, and a space separates words.
    """
    result, inside = [], False
    for token, (start, stop) in zip(tokens, spans, strict=True):
        if token == " ":
            inside = False
        elif inside:
            result[-1] = Word(result[-1].text + token, result[-1].start, stop * step_seconds)
        else:
            result.append(Word(token, start * step_seconds, stop * step_seconds))
            inside = join_characters
    return result
