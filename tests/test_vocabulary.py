"""Words and ids are the same inside and outside tf.data."""

import unicodedata
from collections import Counter

import pytest
import tensorflow as tf

from mmkeras.text.vocabulary import END, PAD, START, UNKNOWN, Vocabulary, normalize

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
