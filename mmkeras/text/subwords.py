"""Subwords as tokens: a tokenizer of Hugging Face's `tokenizers` in place of a vocabulary of words.

tokenizer = Tokenizer(BPE(unk_token="<unknown>"))  # any model, trained with the four special tokens first
data = mmkeras.captioning.data("toy", vocabulary=tokenizer)
model = mmkeras.captioning.build("toy", vocabulary=tokenizer)  # its .keras file holds the tokenizer
"""

import json
from collections.abc import Iterable
from typing import Any

from mmkeras.text.vocabulary import END, SPECIAL, START, UNKNOWN, Vocabulary

_TRAIN = (
    f"Train it with BpeTrainer(special_tokens={list(SPECIAL)}) on a model with "
    f"unk_token={SPECIAL[UNKNOWN]!r}, such as BPE."
)
_WORDS = Vocabulary((), "mixed")


class SubwordVocabulary(Vocabulary):
    """The tokens of a `tokenizers.Tokenizer`, such as byte pairs. The first four ids are the special tokens.

    The tokenizer's own normalizer, pre-tokenizer, model and decoder are used. Its post-processor, padding and
    truncation are not: `encode` adds `<start>` and `<end>` as every vocabulary does.

    Args:
        tokenizer: `tokenizers.Tokenizer`, or str, its JSON. It is copied.

    Raises:
        ImportError: if `tokenizers` is not installed.
        ValueError: if its first four tokens are not the special tokens, or it cannot join subwords to words.
    """

    def __init__(self, tokenizer: Any):
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise ImportError(
                "A vocabulary of subwords needs the package tokenizers, which is not installed: "
                "pip install 'mmkeras[huggingface]'"
            ) from None
        self._json = tokenizer if isinstance(tokenizer, str) else tokenizer.to_str()
        self.tokenizer = Tokenizer.from_str(self._json)
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.tokenizer.encode_special_tokens = True  # "<end>" within a text is text
        self.unit = "subword"
        self.words = tuple(map(self.tokenizer.id_to_token, range(self.tokenizer.get_vocab_size())))
        self.ids = {word: i for i, word in enumerate(self.words)}
        if self.words[: len(SPECIAL)] != SPECIAL:
            raise ValueError(
                f"Expected vocabulary to be a tokenizer whose first tokens are {', '.join(SPECIAL)}. "
                f"Received: vocabulary=Tokenizer with the first tokens "
                f"{self.words[: len(SPECIAL)]}. {_TRAIN}"
            )
        kind = json.loads(self._json)["model"]["type"]
        if self.tokenizer.decoder is None and kind != "WordLevel":
            raise ValueError(
                "Expected vocabulary to be a tokenizer that joins subwords to words. Received: "
                "vocabulary=Tokenizer with decoder=None. Give it a pre-tokenizer and a decoder "
                "of the same kind before its training: tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(); "
                "tokenizer.decoder = decoders.Metaspace()"
            )

    def __eq__(self, other) -> bool:
        return isinstance(other, SubwordVocabulary) and self._json == other._json

    def __hash__(self) -> int:
        return hash(self._json)

    @property
    def has_spaces(self) -> bool:
        return True

    def split(self, text: str) -> list[str]:
        """'A red circle!' → ['▁a', '▁red', '▁cir', 'cle']. What the tokenizer does not know stays as it is."""
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        parts = zip(encoding.ids, encoding.tokens, encoding.offsets, strict=True)
        return [text[slice(*span)] if i == UNKNOWN else token for i, token, span in parts]

    def spaced(self, text: str) -> str:
        return " ".join(_WORDS.split(text))  # metrics compare words, however these are split into tokens

    def join(self, words: Iterable[str]) -> str:
        """['▁a', '▁red', '▁cir', 'cle'] → 'a red circle'"""
        decoder = self.tokenizer.decoder
        return " ".join(words) if decoder is None else decoder.decode(list(words)).strip()

    def encode(self, text: str) -> list[int]:
        return [START, *self.tokenizer.encode(text, add_special_tokens=False).ids, END]

    def encode_tensor(self, texts):
        import tensorflow as tf

        def encode(texts):
            return self.encode_batch([text.decode() for text in texts])

        tokens = tf.numpy_function(encode, [texts], tf.int32, stateful=False)  # (n, T), padded
        return tf.RaggedTensor.from_tensor(tf.ensure_shape(tokens, (texts.shape[0], None)), padding=0)

    def get_config(self) -> dict:
        return {"tokenizer": self._json}
