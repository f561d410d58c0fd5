"""Words ↔ token ids: counted from texts, carried in a model's config, the same inside and outside tf.data.

vocabulary = Vocabulary.count(["a red circle", "a blue square"])
vocabulary.encode("a red square")      # [2, 4, 7, 8, 3]: <start> a red square <end>
vocabulary.decode([2, 4, 7, 8, 3, 0])  # 'a red square'
"""

import itertools
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import regex

from mmkeras._utils import terminal

SPECIAL = ("<pad>", "<unknown>", "<start>", "<end>")
PAD, UNKNOWN, START, END = range(4)
UNITS = ("word", "character", "mixed")

# Han characters (Unicode's blocks of unified and compatibility ideographs) and kana
_CHINESE = "[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
_NO_SPACES = rf"{_CHINESE}|[\p{{Thai}}\p{{Lao}}\p{{Khmer}}\p{{Myanmar}}]"
_APOSTROPHES = "\u2019\u2018\u02bc\uff07"
# Replacements before a text is split, in the syntax that the package `regex` and TensorFlow's RE2 share. Format
# characters, such as a soft hyphen or a joiner, are dropped, except the space of zero width. All but letters,
# numbers, marks, and apostrophes becomes a space. Spaces next to Chinese characters are dropped; RE2 has no
# lookaround, so this needs two replacements.
_TO_WORDS = (
    (f"[{_APOSTROPHES}]", "'"),
    ("[^\\P{Cf}\u200b]+", ""),
    (r"[^\p{L}\p{N}\p{M}']+", " "),
)
_TO_CHARACTERS = (*_TO_WORDS, ("^ | $", ""), (f" ({_CHINESE})", r"\1"), (f"({_CHINESE}) ", r"\1"))
_TO_BOTH = (*_TO_WORDS, (f"({_NO_SPACES})", r" \1 "))
_REPLACEMENTS = {
    unit: [(regex.compile(pattern), replacement) for pattern, replacement in replacements]
    for unit, replacements in zip(UNITS, (_TO_WORDS, _TO_CHARACTERS, _TO_BOTH), strict=True)
}
_TO_ASCII = str.maketrans(dict.fromkeys(_APOSTROPHES, "'"))


class Vocabulary:
    """An ordered list of words or characters. The first four ids are pad, unknown, start, and end.

    Texts are put into lower case. All but letters, digits, marks, and apostrophes counts as a space.

    Args:
        words: iterable of str. The words after the four special tokens, in the order of their ids.
        unit: str. `"word"`: texts are split at spaces. `"character"`: each character is a token, the space
            between words included; spaces next to Chinese characters are dropped. `"mixed"`: words, and single
            characters of scripts without spaces, for texts in several languages. Defaults to `"word"`.

    Raises:
        ValueError: if a word is repeated or a special token, or an argument is invalid.
    """

    def __init__(self, words: Iterable[str], unit: str = "word"):
        if unit not in UNITS:
            raise ValueError(f"Expected unit to be one of {UNITS}. Received: unit={unit!r}")
        if isinstance(words, str):
            raise ValueError(f"Expected words to be a list of words. Received: words={words!r}")
        self.unit = unit
        self.words = (*SPECIAL, *words)
        self.ids = {word: i for i, word in enumerate(self.words)}
        if len(self.ids) < len(self.words):
            repeated = [word for word, n in Counter(self.words).items() if n > 1]
            raise ValueError(
                f"Expected words without repetition and without {SPECIAL}. Received twice: {repeated[:5]}"
            )

    @classmethod
    def of(cls, vocabulary: Any) -> "Vocabulary":
        """A vocabulary from what `build(vocabulary=...)` takes: a vocabulary, its size, a list of words, or a
        `tokenizers.Tokenizer`, see `mmkeras.text.subwords`."""
        if is_tokenizer(vocabulary):
            return cls.from_config({"tokenizer": vocabulary.to_str()})
        if isinstance(vocabulary, int):
            words = [f"<{i}>" for i in range(len(SPECIAL), vocabulary)]
        elif isinstance(vocabulary, Vocabulary):
            words = vocabulary.words[len(SPECIAL) :]
        else:
            are_words = isinstance(vocabulary, Iterable) and not isinstance(vocabulary, str)
            words = list(vocabulary) if are_words else []
        if not words or not all(isinstance(word, str) for word in words):
            raise ValueError(
                f"Expected vocabulary to be a size above {len(SPECIAL)} (the special tokens), a list "
                f"of words, a tokenizer, or a Vocabulary with words in it. Received: vocabulary={vocabulary!r}"
            )
        return vocabulary if isinstance(vocabulary, Vocabulary) else cls(words)

    @classmethod
    def count(
        cls,
        texts: Iterable[str],
        unit: str = "word",
        *,
        min_count: int = 1,
        max_size: int = 10_000,
        lengths: Counter | None = None,
    ) -> "Vocabulary":
        """The words of `texts`, the most frequent first.

        Args:
            texts: iterable of str. Read once.
            unit: str. `"word"` or `"character"`. Defaults to `"word"`.
            min_count: int. Words seen less often become `<unknown>`. Defaults to 1.
            max_size: int. Maximum size of the vocabulary, special tokens included. Defaults to 10,000.
            lengths: Counter, optional. Filled with {number of tokens, `<start>` and `<end>` included: number of
                texts}.

        Raises:
            ValueError: if no word remains, or most texts are in a script without spaces between words and
                `unit` is `"word"`.
        """
        counts, unspaced, total = Counter(), [], 0
        splitter = cls((), unit)
        lengths = Counter() if lengths is None else lengths
        for text in texts:
            total += 1
            words = splitter.split(text)
            counts.update(words)
            lengths[len(words) + 2] += 1
            if unit == "word" and has_no_spaces(text):
                unspaced.append(text)
        if unspaced:
            message = (
                f"Expected texts whose words are separated by spaces. Received: {len(unspaced)} of {total} "
                f"texts in Chinese, Japanese, Thai, Lao, Khmer, or Burmese, the first {unspaced[0]!r}, which "
                f"count as one word each. Use language='zh' or unit='character', whose tokens are characters."
            )
            if 2 * len(unspaced) > total:
                raise ValueError(message)
            terminal.warn(message)
        # Ties in alphabetical order: the ids must not depend on the order of the texts.
        words = sorted((w for w, n in counts.items() if n >= min_count), key=lambda w: (-counts[w], w))
        if not words:
            raise ValueError(
                f"Expected texts with {unit}s that occur at least min_count times. Received: "
                f"min_count={min_count}, {counts.total()} {unit}s, {len(counts)} distinct. Lower min_count."
            )
        return cls(words[: max_size - len(SPECIAL)], unit)

    def __len__(self) -> int:
        return len(self.words)

    def __eq__(self, other) -> bool:
        return isinstance(other, Vocabulary) and (self.words, self.unit) == (other.words, other.unit)

    def __hash__(self) -> int:
        return hash((self.words, self.unit))

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} {self.unit}s: {' '.join(self.words[4:12])} ...)"

    def split(self, text: str) -> list[str]:
        """'A red circle!' → ['a', 'red', 'circle']"""
        text = normalize(text).lower()
        for pattern, replacement in _REPLACEMENTS[self.unit]:
            text = pattern.sub(replacement, text)
        return list(text) if self.unit == "character" else text.split()

    def join(self, words: Iterable[str]) -> str:
        """['a', 'red', 'circle'] → 'a red circle'"""
        return ("" if self.unit == "character" else " ").join(words)

    def spaced(self, text: str) -> str:
        """The text as the metrics expect it: words, or characters, separated by spaces."""
        return " ".join(self.split(text))

    def encode(self, text: str) -> list[int]:
        """Token ids, `<start>` and `<end>` included."""
        return [START, *(self.ids.get(word, UNKNOWN) for word in self.split(text)), END]

    def encode_batch(self, texts: Sequence[str], length: int | None = None) -> np.ndarray:
        """`encode` of many texts, padded: (N, T) int32.

        Args:
            texts: N texts.
            length: int, optional. T; longer texts are cut. Defaults to None, the length of the longest.
        """
        rows = [self.encode(text)[:length] for text in texts]
        tokens = np.full((len(rows), length or max(map(len, rows))), PAD, "int32")
        for row, ids in zip(tokens, rows, strict=True):
            row[: len(ids)] = ids
        return tokens

    def decode_words(self, ids: Iterable[int]) -> list[str]:
        """The words before the first `<end>`, without `<pad>` and `<start>`."""
        words = []
        for i in map(int, ids):
            if i == END:
                break
            if i not in (PAD, START):
                words.append(self.words[i])
        return words

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids, see `decode_words`."""
        return self.join(self.decode_words(ids))

    def encode_tensor(self, texts):
        """`encode` inside tf.data. TensorFlow has no NFKC, so the texts must be in that form, see `normalize`.

        Args:
            texts: (n,) string tensor.

        Returns:
            (n, T) int32 RaggedTensor of token ids.
        """
        import tensorflow as tf

        # A table belongs to the graph that made it, so each pipeline gets its own.
        table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(tf.constant(self.words), tf.range(len(self), dtype=tf.int32)),
            default_value=UNKNOWN,
        )
        edge = tf.ones_like(texts, tf.int32)[:, None]  # (n, 1)
        texts = tf.strings.lower(texts, encoding="utf-8")
        for pattern, replacement in _REPLACEMENTS[self.unit]:
            texts = tf.strings.regex_replace(texts, pattern.pattern, replacement)
        is_split = self.unit == "character"
        words = tf.strings.unicode_split(texts, "UTF-8") if is_split else tf.strings.split(texts)
        ids = tf.ragged.map_flat_values(table.lookup, words)  # (n, T - 2)
        return tf.concat([START * edge, ids, END * edge], axis=1)  # (n, T)

    def knows(self, text: str) -> bool:
        """Whether a word of the text is in the vocabulary. A mark that starts a word alone is none."""
        return any(word in self.ids and has_words(word) for word in self.split(text))

    def check_known(self, texts: Iterable[str]) -> None:
        """Raises ValueError if no word of the texts is in the vocabulary: they are in another language."""
        texts = list(texts)
        if not any(map(self.knows, texts)):
            raise ValueError(
                f"Expected texts with at least one {self.unit} of {self!r}. Received: texts={texts[:3]}. Make "
                f"the dataset with data(..., **predictor.data_options), in the model's language."
            )

    def warn_of_unknown(self, texts: Iterable[str]) -> None:
        """Warns of the words of the texts that are not in the vocabulary: their number, the most frequent ones,
        and in how many texts they are."""
        texts = list(texts)
        unknown = [[word for word in self.split(text) if word not in self.ids] for text in texts]
        if counts := Counter(itertools.chain(*unknown)):
            first = " ".join(map(repr, sorted(counts, key=lambda word: (-counts[word], word))[:20]))
            terminal.warn(
                f"The vocabulary lacks {len(counts)} {self.unit}s, which become <unknown> and are never "
                f"generated, in {sum(map(bool, unknown))} of {len(texts)} texts: "
                f"{first}{' ...' if len(counts) > 20 else ''}"
            )

    @property
    def has_spaces(self) -> bool:
        """Whether the texts have spaces between words."""
        return self.unit == "word" or " " in self.ids

    @property
    def language(self) -> str:
        """`"zh"` if a word is in a script without spaces between words, else `"en"`; `"both"` of mixed ones."""
        kinds = {has_no_spaces(word) for word in self.words[len(SPECIAL) :]}
        return "both" if kinds == {True, False} and self.unit == "mixed" else "zh" if True in kinds else "en"

    def get_config(self) -> dict:
        return {"words": list(self.words[len(SPECIAL) :]), "unit": self.unit}

    @classmethod
    def from_config(cls, config: dict) -> "Vocabulary":
        if "tokenizer" in config:
            from mmkeras.text.subwords import SubwordVocabulary

            return SubwordVocabulary(**config)
        return cls(**config)


def is_tokenizer(vocabulary: Any) -> bool:
    """Whether it is a `tokenizers.Tokenizer`, which is not imported for this."""
    return hasattr(vocabulary, "token_to_id") and hasattr(vocabulary, "to_str")


def normalize(text: str) -> str:
    """One form (NFKC) of accents and full-width letters, which Unicode encodes in different ways, and of
    apostrophes. Thai's and Lao's letter am, which NFKC takes apart, stays one character."""
    text = unicodedata.normalize("NFKC", text).translate(_TO_ASCII)
    return text.replace("\u0e4d\u0e32", "\u0e33").replace("\u0ecd\u0eb2", "\u0eb3")


def has_words(text: str) -> bool:
    """Whether a text has a letter or a digit."""
    return regex.search(r"[\p{L}\p{N}]", text) is not None


def has_no_spaces(text: str) -> bool:
    """Whether a text has characters of a script without spaces between words: Chinese characters, kana, Thai,
    Lao, Khmer, or Burmese."""
    return regex.search(_NO_SPACES, text) is not None
