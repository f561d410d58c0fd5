"""The vocabulary of a source's captions, and how long they are."""

import os
from collections import Counter
from collections.abc import Mapping

from mmkeras._utils import checks, progress
from mmkeras.data.task_data import Split, training_split
from mmkeras.data.vocabulary import SPECIAL, Vocabulary


def vocabulary_and_length(
    source: str | os.PathLike,
    splits: Mapping[str, Split],
    language: str,
    *,
    vocabulary: Vocabulary | None,
    min_count: int | None,
    max_size: int,
    max_length: int | None,
) -> tuple[Vocabulary, int]:
    """The vocabulary of the training captions, and the number of tokens that 99 % of them do not exceed.

    What is given of the two is returned unchanged. With a vocabulary the length may come from another split.

    Args:
        min_count: int. Words seen less often become `<unknown>`. None: 1, for COCO 5.
        max_size: int. Size of the vocabulary, special tokens included.

    Raises:
        ValueError: if an argument is invalid, or the source has no training captions and no vocabulary is
            given.
    """
    if min_count is None:
        min_count = 5 if source == "coco_captions" else 1
    checks.ints(1, min_count=min_count)
    checks.ints(len(SPECIAL) + 1, max_size=max_size)
    if max_length is not None and (not isinstance(max_length, int) or max_length < 3):
        raise ValueError(
            f"Expected max_length to be an int of at least 3, <start> and <end> included. "
            f"Received: max_length={max_length!r}"
        )
    if vocabulary is not None and max_length is not None:
        return vocabulary, max_length
    needs_training = vocabulary is None or "train" in splits
    split = training_split(splits) if needs_training else next(iter(splits.values()))
    unit = "word" if language == "en" else "character"
    splitter, lengths = Vocabulary((), unit), Counter()

    def noting_lengths():
        for texts in progress.bar(split.texts(), "captions", split.count):
            for text in texts:
                lengths[len(splitter.encode(text))] += 1
                yield text

    counted = Vocabulary.count(noting_lengths(), unit, min_count=min_count, max_size=max_size)
    covered = 0
    for length in sorted(lengths):
        covered += lengths[length]
        if covered >= 0.99 * lengths.total():
            return vocabulary or counted, max_length or length
    raise AssertionError("unreachable: all captions are covered at the longest length")
