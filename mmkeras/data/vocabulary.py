"""Words ↔ token ids: counted from captions, carried inside a model's config, the same in tf.data and out.

vocabulary = Vocabulary.count(["a red circle", "a blue square"])
vocabulary.encode("a red square")      # [2, 4, 7, 8, 3]: <start> a red square <end>
vocabulary.decode([2, 4, 7, 8, 3, 0])  # 'a red square'
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from mmkeras._utils import terminal

SPECIAL = ("<pad>", "<unknown>", "<start>", "<end>")
PAD, UNKNOWN, START, END = range(4)
UNITS = ("word", "character")
_TYPOGRAPHIC = "\u2019\u2018\u02bc\uff07"  # apostrophes that become '
_APOSTROPHES = str.maketrans(dict.fromkeys(_TYPOGRAPHIC, "'"))


class Vocabulary:
    """An ordered list of words (or characters); the first four ids are pad, unknown, start and end.

    Text is put into lower case, and all but letters, digits, marks and apostrophes counts as a blank.

    Args:
        words: the words after the four special ones, in the order of their ids.
        unit: `"word"`: text is split at blanks. `"character"`: each character is a token, the blank between
            words too; beside Chinese characters blanks mean nothing and are dropped.
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
            twice = [word for word, n in Counter(self.words).items() if n > 1]
            raise ValueError(
                f"Expected words without repetition, and none of {SPECIAL}. Received twice: {twice[:5]}"
            )
        self._table = None

    @classmethod
    def of(cls, vocabulary: "Vocabulary | int | Sequence[str]") -> "Vocabulary":
        """A vocabulary from what `build(vocabulary=...)` takes: one, its size, or the words themselves."""
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
                f"of words, or a Vocabulary with words in it. Received: vocabulary={vocabulary!r}"
            )
        return vocabulary if isinstance(vocabulary, Vocabulary) else cls(words)

    @classmethod
    def count(
        cls, texts: Iterable[str], unit: str = "word", *, min_count: int = 1, max_size: int = 10_000
    ) -> "Vocabulary":
        """The words of `texts`, the most frequent first.

        Args:
            texts: captions, read once.
            unit: `"word"` or `"character"`.
            min_count: words seen less often become `<unknown>`.
            max_size: how many ids there are at most, the four special ones included.

        Raises:
            ValueError: no word is left, or most texts are in Chinese and `unit` is `"word"`.
        """
        counts, chinese, total = Counter(), [], 0
        splitter = cls((), unit)
        for text in texts:
            total += 1
            counts.update(splitter.split(text))
            if unit == "word" and is_chinese(text):
                chinese.append(text)
        if chinese:
            message = (
                f"Expected texts whose words are separated by spaces. Received: {len(chinese)} of {total} "
                f"texts in Chinese or Japanese, the first {chinese[0]!r}, which count as one word each. Use "
                f"language='zh' or unit='character'."
            )
            if 2 * len(chinese) > total:
                raise ValueError(message)
            terminal.warn(message)
        # Ties in alphabetical order: the ids must not depend on the order of the captions.
        kept = sorted((w for w, n in counts.items() if n >= min_count), key=lambda w: (-counts[w], w))
        if not kept:
            raise ValueError(
                f"No {unit} was found min_count={min_count} times in the texts "
                f"({counts.total()} {unit}s, {len(counts)} different). Lower min_count, or look at the texts."
            )
        return cls(kept[: max_size - len(SPECIAL)], unit)

    def __len__(self) -> int:
        return len(self.words)

    def __eq__(self, other) -> bool:
        same_kind = isinstance(other, Vocabulary)
        return same_kind and (self.words, self.unit) == (other.words, other.unit)

    def __hash__(self) -> int:
        return hash((self.words, self.unit))

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} {self.unit}s: {' '.join(self.words[4:12])} ...)"

    def split(self, text: str) -> list[str]:
        """'A red circle!' → ['a', 'red', 'circle']"""
        words = normalize(text).lower().translate(_KEPT).split()
        return words if self.unit == "word" else list(_BESIDE_CHINESE.sub("", " ".join(words)))

    def join(self, words: Iterable[str]) -> str:
        return (" " if self.unit == "word" else "").join(words)

    def encode(self, text: str) -> list[int]:
        """Token ids with `<start>` and `<end>` around them."""
        return [START, *(self.ids.get(word, UNKNOWN) for word in self.split(text)), END]

    def decode_words(self, ids: Iterable[int]) -> list[str]:
        """The words up to the first `<end>`; `<pad>` and `<start>` are left out."""
        words = []
        for i in map(int, ids):
            if i == END:
                break
            if i not in (PAD, START):
                words.append(self.words[i])
        return words

    def decode(self, ids: Iterable[int]) -> str:
        return self.join(self.decode_words(ids))

    def encode_tensor(self, texts):
        """`encode` inside tf.data: (n,) string tensor → (n, time) int32 RaggedTensor."""
        import tensorflow as tf

        # A table belongs to the graph that made it, so each pipeline gets one of its own.
        table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(tf.constant(self.words), tf.range(len(self), dtype=tf.int32)),
            default_value=UNKNOWN,
        )
        # TensorFlow has no NFKC: the texts of tables are normalized when they are read, see
        # `mmkeras.data.tables`.
        texts_with_one_apostrophe = tf.strings.regex_replace(texts, f"[{_TYPOGRAPHIC}]", "'")
        kept = tf.strings.regex_replace(
            tf.strings.lower(texts_with_one_apostrophe, encoding="utf-8"),
            r"[^\p{L}\p{N}\p{M}']+",  # what _Kept makes blank
            " ",
        )
        if self.unit == "word":
            words = tf.strings.split(kept)  # (n, time) ragged
        else:  # RE2 has no lookaround: the blanks before Chinese characters go, then those behind
            kept = tf.strings.regex_replace(tf.strings.strip(kept), f" ([{_CHINESE}])", r"\1")
            kept = tf.strings.regex_replace(kept, f"([{_CHINESE}]) ", r"\1")
            words = tf.strings.unicode_split(kept, "UTF-8")
        ids = tf.ragged.map_flat_values(table.lookup, words)
        edge = tf.ones_like(texts, tf.int32)[:, None]  # (n, 1)
        return tf.concat([START * edge, ids, END * edge], axis=1)

    def check_known(self, texts: Iterable[str]) -> None:
        """Raises ValueError where it holds no word of any of the texts: they are in another language."""
        texts = list(texts)
        if not any(word in self.ids for text in texts for word in self.split(text)):
            raise ValueError(
                f"Expected data in the words of the model, {self!r}. Received: {texts[:3]}, of which it knows "
                f"no {self.unit}. Make them with data(..., **answerer.data_options), in the model's language."
            )

    def get_config(self) -> dict:
        return {"words": list(self.words[len(SPECIAL) :]), "unit": self.unit}

    @classmethod
    def from_config(cls, config: dict) -> "Vocabulary":
        return cls(**config)


def normalize(text: str) -> str:
    """One form of what is written in several: é as one character or as two, full-width letters, apostrophes."""
    return unicodedata.normalize("NFKC", text.translate(_APOSTROPHES)).translate(_APOSTROPHES)


def has_words(text: str) -> bool:
    """Whether a text has a letter or a digit, so that there is something to learn."""
    return any(unicodedata.category(character)[0] in "LN" for character in text)


def is_chinese(text: str) -> bool:
    """Whether a text has Chinese characters or kana, so that its words are not told by blanks."""
    return bool(re.search(f"[{_CHINESE}]", text))


class _Kept(dict):
    """For str.translate: letters, numbers, marks (Unicode's L, N, M) and apostrophes stay, the rest
    becomes blank. Each character is looked up once."""

    def __missing__(self, code):
        keep = chr(code) == "'" or unicodedata.category(chr(code))[0] in "LNM"
        self[code] = code if keep else " "
        return self[code]


_KEPT = _Kept()
# Han characters (Unicode's blocks of unified and compatibility ideographs), and kana
_CHINESE = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_BESIDE_CHINESE = re.compile(f" (?=[{_CHINESE}])|(?<=[{_CHINESE}]) ")
