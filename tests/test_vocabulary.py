"""Words and ids are the same inside and outside tf.data."""

import sys
import unicodedata
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

import mmkeras
from mmkeras.text.vocabulary import END, PAD, SPECIAL, START, UNKNOWN, Vocabulary, normalize

TEXTS = [
    "A red circle, and a BLUE one!",
    "it's a dog's life - isn't it?",
    "左上角有一个小的红色圆形。",
    "Ein Übermut im Café, 2 mal",
    "a_b c#d  e\tf\ng",
    "naïve हिन्दी text",
    "เด็กกำลังเล่นน้ำ",
    "un\u00adlike zero\u200bwidth\ufeff",
    " 左上角, a 红 b ",
    "",
    "!!!",
]


def test_decode_inverts_encode():
    vocabulary = Vocabulary.count(["a red circle", "a blue square"])
    ids = vocabulary.encode("A red SQUARE!")
    assert (ids[0], ids[-1]) == (START, END)
    assert vocabulary.decode(ids) == "a red square"
    assert vocabulary.decode([START, *ids[1:], PAD, PAD, ids[1]]) == "a red square"


@pytest.mark.parametrize("unit", ["word", "character"])
@pytest.mark.filterwarnings("ignore:Expected texts whose words")
def test_tensors_and_strings_have_the_same_ids(unit):
    vocabulary = Vocabulary.count(TEXTS[:4], unit)
    encoded = vocabulary.encode_tensor(tf.constant(TEXTS)).to_list()
    assert encoded == [vocabulary.encode(text) for text in TEXTS]


@pytest.mark.parametrize(
    ("unit", "text", "tokens"),
    [
        ("word", "Don’t stop,  it's 2_MAL", ["don't", "stop", "it's", "2", "mal"]),
        ("word", unicodedata.normalize("NFD", "Café"), ["café"]),
        ("word", "Ｒｅｄ １２", ["red", "12"]),
        ("word", "un\u00adbelievable می\u200cدوند क्\u200dष", ["unbelievable", "میدوند", "क्ष"]),
        ("word", "space\u200bof no width", ["space", "of", "no", "width"]),
        ("word", "ຄໍາ น้ำ", ["ຄຳ", "น้ำ"]),  # the first one as two letters
        ("character", "左上角, 有一个圆形", list("左上角有一个圆形")),
        ("character", "  A  red, circle! ", list("a red circle")),
        ("character", "a red 圆形 a red", list("a red圆形a red")),
    ],
)
def test_split(unit, text, tokens):
    vocabulary = Vocabulary(sorted(set(tokens)), unit)
    assert vocabulary.split(text) == tokens
    assert vocabulary.encode_tensor(tf.constant([normalize(text)])).to_list() == [vocabulary.encode(text)]


def test_words_are_ordered_by_count_then_alphabet():
    texts, lengths = ["b a c", "b a", "b d d d"], Counter()
    assert Vocabulary.count(texts, lengths=lengths).words[4:] == ("b", "d", "a", "c")
    assert lengths == {5: 1, 4: 1, 6: 1}
    assert Vocabulary.count(reversed(texts)).words == Vocabulary.count(texts).words
    assert Vocabulary.count(texts, min_count=2).words[4:] == ("b", "d", "a")
    small = Vocabulary.count(texts, max_size=6)
    assert small.words[4:] == ("b", "d") and small.encode("c")[1] == UNKNOWN


def test_vocabularies_from_sizes_words_and_configs():
    assert len(Vocabulary.of(10_000)) == 10_000
    assert Vocabulary.of(["red", "blue"]).words[4:] == ("red", "blue")
    vocabulary = Vocabulary(["red"], "character")
    assert Vocabulary.of(vocabulary) is vocabulary
    assert Vocabulary.from_config(vocabulary.get_config()) == vocabulary


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Vocabulary.of(3), "vocabulary=3"),
        (lambda: Vocabulary(["a", "a"]), "'a'"),
        (lambda: Vocabulary(["<end>"]), "'<end>'"),
        (lambda: Vocabulary("abc"), "words='abc'"),
        (lambda: Vocabulary(["a"], "syllable"), "unit='syllable'"),
        (lambda: Vocabulary.count(["a b"], min_count=2), "min_count=2"),
        (
            lambda: Vocabulary.count(["红色圆形", "蓝色方形", "a red circle"]),
            "2 of 3 .*'红色圆形'.*language='zh'",
        ),
        *(
            (lambda text=text: Vocabulary.count([text, "a red circle", text]), f"2 of 3 .*{text}.*'character'")
            for text in ("เด็กกำลังเล่นน้ำ", "ເດັກນ້ອຍ", "កុមារលេងទឹក", "ကလေးကစား")
        ),
        (lambda: Vocabulary(["a", "red"]).check_known(["ein roter Kreis", "红色圆形"]), "'ein roter Kreis'"),
    ],
)
def test_invalid_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_some_chinese_texts_among_words_give_a_warning():
    with pytest.warns(UserWarning, match=" 1 of 3 "):
        Vocabulary.count(["红色圆形", "a blue square", "a red circle"])


def test_one_known_word_is_enough():
    Vocabulary.count(["a red circle", "a blue square"]).check_known(["ein red Kreis"])


# --- subwords ---


def subwords(texts, special=SPECIAL, decoder=True):
    """A tokenizer of byte pairs."""
    hf = pytest.importorskip("tokenizers")
    tokenizer = hf.Tokenizer(hf.models.BPE(unk_token="<unknown>"))
    tokenizer.pre_tokenizer = hf.pre_tokenizers.Metaspace()
    if decoder:
        tokenizer.decoder = hf.decoders.Metaspace()
    trainer = hf.trainers.BpeTrainer(vocab_size=40, special_tokens=list(special), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


@pytest.mark.backends
def test_subwords_are_the_same_inside_and_outside_tf_data():
    tokenizer = subwords(["a small red circle at the top left", "a blue square", "it's a dog"])
    vocabulary = Vocabulary.of(tokenizer)
    assert len(vocabulary) == tokenizer.get_vocab_size() > len(vocabulary.split("circles"))
    assert len(vocabulary.split("a red circle")) > 3
    for text in ("a red circle", "squares at its left", "a blue dog"):
        ids = vocabulary.encode(text)
        assert (ids[0], ids[-1]) == (START, END) and PAD not in ids
        assert vocabulary.decode([*ids, PAD, 5]) == vocabulary.join(vocabulary.split(text)) == text
        assert ids[1:-1] == [vocabulary.ids[token] for token in vocabulary.split(text)]
    texts = ["a red circle", "左 circle", "a <end> of it", ""]
    encoded = [vocabulary.encode(text) for text in texts]
    assert UNKNOWN in encoded[1] and END not in encoded[2][:-1]
    dataset = tf.data.Dataset.from_tensor_slices(texts).batch(4).map(vocabulary.encode_tensor)
    assert next(iter(dataset)).to_list() == encoded
    padded = vocabulary.encode_batch(texts, 5)
    np.testing.assert_array_equal(padded[0], encoded[0][:5])
    with pytest.warns(UserWarning, match="1 subwords.*'左'"):
        vocabulary.warn_of_unknown(texts[:2])
    with pytest.raises(ValueError, match="圆形"):
        vocabulary.check_known(["圆形"])


@pytest.mark.backends
def test_a_tokenizer_pads_and_cuts_nothing():
    tokenizer = subwords(["a small red circle"])
    vocabulary = Vocabulary.of(tokenizer)
    tokenizer.enable_padding(length=50)
    tokenizer.enable_truncation(2)
    other = Vocabulary.of(tokenizer)
    assert other.encode("a small red circle") == vocabulary.encode("a small red circle")
    assert other == Vocabulary.from_config(other.get_config()) != Vocabulary(["a"])


@pytest.mark.backends
def test_a_model_of_subwords_trains_and_is_one_file(tmp_path):
    captions = mmkeras.captioning.data("toy")
    tokenizer = subwords(text for texts in captions.splits["train"].texts() for text in texts)
    data = mmkeras.captioning.data("toy", vocabulary=tokenizer)
    assert data.max_length > captions.max_length
    model = mmkeras.captioning.build("toy", vocabulary=tokenizer, units=8, embedding_dim=8)
    losses = model.fit(data.train, verbose=0, epochs=2).history["loss"]
    assert losses[1] < losses[0]
    captioner = mmkeras.captioning.Captioner(model)
    captioner.save(tmp_path / "captioner.keras")
    loaded = mmkeras.load(tmp_path / "captioner.keras")
    assert loaded.vocabulary == data.vocabulary == loaded.data_options["vocabulary"]
    images = next(iter(data.test))["image"][:4].numpy()
    assert captioner(list(images)) == loaded(list(images))
    assert loaded.evaluate(data.test.take(1)).keys() >= {"bleu_4", "exact"}


@pytest.mark.backends
def test_a_tokenizer_that_does_not_fit_is_refused():
    for special in ((), ("<unknown>", "<pad>", "<start>", "<end>"), SPECIAL[:3]):
        with pytest.raises(ValueError, match="vocabulary=Tokenizer with the first tokens.*BpeTrainer"):
            Vocabulary.of(subwords(["a small red circle"], special))
    with pytest.raises(ValueError, match="vocabulary=Tokenizer with decoder=None.*Metaspace"):
        mmkeras.captioning.data("toy", vocabulary=subwords(["a small red circle"], decoder=False))


def test_subwords_without_their_package_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"mmkeras\[huggingface\]"):
        Vocabulary.from_config({"tokenizer": "{}"})
