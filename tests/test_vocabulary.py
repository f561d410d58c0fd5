"""Words and ids: inside and outside tf.data they are the same."""

import pytest
import tensorflow as tf

from mmkeras.data.vocabulary import END, PAD, START, UNKNOWN, Vocabulary

TEXTS = [
    "A red circle, and a BLUE one!",
    "it's a dog's life - isn't it?",
    "左上角有一个小的红色圆形。",
    "Ein Übermut im Café, 2 mal",
    "a_b c#d  e\tf\ng",
    "naïve हिन्दी text",
    "",
    "!!!",
]


def test_a_sentence_comes_back():
    vocabulary = Vocabulary.count(["a red circle", "a blue square"])
    ids = vocabulary.encode("A red SQUARE!")
    assert (ids[0], ids[-1]) == (START, END)
    assert vocabulary.decode(ids) == "a red square"
    assert vocabulary.decode([START, *ids[1:], PAD, PAD, ids[1]]) == "a red square"


@pytest.mark.parametrize("unit", ["word", "character"])
@pytest.mark.filterwarnings("ignore:Expected texts whose words")
def test_tensors_are_encoded_as_strings_are(unit):
    vocabulary = Vocabulary.count(TEXTS[:4], unit)
    encoded = vocabulary.encode_tensor(tf.constant(TEXTS)).to_list()
    assert encoded == [vocabulary.encode(text) for text in TEXTS]


def test_characters_keep_the_blanks_of_english_and_drop_those_of_chinese():
    vocabulary = Vocabulary.count(["左上角 有一个圆形", "a red circle"], "character")
    for text, expected in (
        ("左上角, 有一个圆形", "左上角有一个圆形"),
        ("  A  red, circle! ", "a red circle"),
        ("a red 圆形 a red", "a red圆形a red"),
    ):
        assert vocabulary.decode(vocabulary.encode(text)) == expected
        assert vocabulary.encode_tensor(tf.constant([text])).to_list() == [vocabulary.encode(text)]


def test_counting_keeps_the_frequent_words_in_a_fixed_order():
    texts = ["b a c", "b a", "b d d d"]
    assert Vocabulary.count(texts).words[4:] == ("b", "d", "a", "c")
    assert Vocabulary.count(reversed(texts)).words == Vocabulary.count(texts).words
    assert Vocabulary.count(texts, min_count=2).words[4:] == ("b", "d", "a")
    small = Vocabulary.count(texts, max_size=6)
    assert small.words[4:] == ("b", "d") and small.encode("c")[1] == UNKNOWN


def test_what_build_accepts_as_a_vocabulary():
    assert len(Vocabulary.of(10_000)) == 10_000
    assert Vocabulary.of(["red", "blue"]).words[4:] == ("red", "blue")
    vocabulary = Vocabulary(["red"], "character")
    assert Vocabulary.of(vocabulary) is vocabulary
    assert Vocabulary.from_config(vocabulary.get_config()) == vocabulary


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Vocabulary.of(3), "size above 4"),
        (lambda: Vocabulary(["a", "a"]), "without repetition"),
        (lambda: Vocabulary(["<end>"]), "without repetition"),
        (lambda: Vocabulary("abc"), "list of words"),
        (lambda: Vocabulary(["a"], "syllable"), "unit"),
        (lambda: Vocabulary.count(["a b"], min_count=2), "min_count"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_chinese_texts_are_not_counted_as_words():
    with pytest.raises(ValueError, match="Received: 2 of 3 texts .*'红色圆形'.*language='zh'"):
        Vocabulary.count(["红色圆形", "蓝色方形", "a red circle"])
    with pytest.warns(UserWarning, match="Received: 1 of 3 texts"):
        Vocabulary.count(["红色圆形", "a blue square", "a red circle"])


def test_texts_of_unknown_words_alone_are_refused():
    vocabulary = Vocabulary.count(["a red circle", "a blue square"])
    vocabulary.check_known(["ein red Kreis"])
    with pytest.raises(ValueError, match="Vocabulary.*red.*Received: .*'ein roter Kreis'"):
        vocabulary.check_known(["ein roter Kreis", "红色圆形"])
