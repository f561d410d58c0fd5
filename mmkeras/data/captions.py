"""The vocabulary and the length of a source's captions."""

import itertools
import os
from collections import Counter
from collections.abc import Mapping

from mmkeras._utils import checks, progress
from mmkeras.data.task_data import Split, training_split
from mmkeras.data.vocabulary import SPECIAL, Vocabulary

# Share of the captions that are encoded in full; a few long ones would make every batch longer.
SHARE_OF_CAPTIONS = 0.99


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

    Args:
        source: str or path. Name of the dataset, or a folder.
        splits: {name: `Split`}.
        language: str. `"en"` (tokens are words) or `"zh"` (tokens are characters).
        vocabulary: `Vocabulary`, optional. Returned unchanged if given; the length may then come from a split
            other than training. For a folder a warning names the words that it lacks.
        min_count: int, optional. Words seen less often become `<unknown>`. None: 1, for COCO 5.
        max_size: int. Maximum size of the vocabulary, special tokens included.
        max_length: int, optional. Returned unchanged if given.

    Returns:
        The vocabulary and the length in tokens, `<start>` and `<end>` included.

    Raises:
        ValueError: if an argument is invalid, or there are neither training captions nor a vocabulary.
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
    if vocabulary is not None and os.path.isdir(source):  # the captions of TFDS take long to read
        vocabulary.warn_of_unknown(
            text for split in splits.values() for texts in split.texts() for text in texts
        )
    if vocabulary is not None and max_length is not None:
        return vocabulary, max_length
    needs_training = vocabulary is None or "train" in splits
    split = training_split(splits) if needs_training else next(iter(splits.values()))
    texts = (text for texts in progress.bar(split.texts(), "captions", split.count) for text in texts)
    unit, lengths = "word" if language == "en" else "character", Counter()
    counted = Vocabulary.count(texts, unit, min_count=min_count, max_size=max_size, lengths=lengths)
    covered = itertools.accumulate(lengths[length] for length in sorted(lengths))
    share = zip(sorted(lengths), covered, strict=True)
    length = next(length for length, number in share if number >= SHARE_OF_CAPTIONS * lengths.total())
    return vocabulary or counted, max_length or length
