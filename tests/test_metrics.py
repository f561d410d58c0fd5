"""Metrics, against hand-computed cases, and those of captions against pycocoevalcap."""

import math
import warnings

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from mmkeras.evaluation import metrics

WORDS = ["a", "the", "dog", "cat", "red", "blue", "small", "circle", "on", "at", "runs", "is"]

# candidate, references: identical, shorter, longer, reordered, repeated, different, one word, Chinese
EXAMPLES = [
    ("a red circle is at the top left", ["a red circle is at the top left"]),
    ("a dog runs", ["a brown dog runs over the wet grass", "the dog is running on grass"]),
    ("a dog", ["a dog runs along the beach with a stick in its mouth"]),
    ("two men play football on a green field in the rain", ["two men play", "men on a field"]),
    ("the cat the cat the cat", ["the cat sits on the mat", "a cat", "there is a cat on a mat"]),
    ("on the mat sits the cat", ["the cat sits on the mat"]),
    ("purple elephants dream", ["a child eats ice cream", "a girl with an ice cream cone"]),
    ("dog", ["dog", "a dog", "the dog sleeps"]),
    ("a", ["a bird on a branch in the morning sun"]),
    (
        "左 上 角 有 一 个 红 色 圆 形",
        ["左 上 角 有 一 个 红 色 的 圆 形", "红 色 圆 形 在 左 上 角"],
    ),
    ("a man and a woman ride a bike", ["a man rides a bike", "a woman and a man on a bike"] * 2),
    ("people at a market", ["people at a market", "a market", "a crowd", "many people", "stalls"]),
]


def sentences(seed, images=40):
    """Random references (1 to 5 per image), and candidates that are noisy copies of the first one."""
    rng = np.random.default_rng(seed)
    references, candidates = [], []
    for _ in range(images):
        texts = [list(rng.choice(WORDS, rng.integers(1, 14))) for _ in range(rng.integers(1, 6))]
        candidate = [w if rng.random() < 0.7 else rng.choice(WORDS) for w in texts[0]]
        if rng.random() < 0.2:  # longer than its reference
            candidate += list(rng.choice(WORDS, 4))
        candidates.append(" ".join(candidate[: rng.integers(1, 15)]))
        references.append([" ".join(text) for text in texts])
    return references, candidates


HAND_WRITTEN = [texts for _, texts in EXAMPLES], [candidate for candidate, _ in EXAMPLES]


@pytest.mark.parametrize(("references", "candidates"), [HAND_WRITTEN, *(sentences(seed) for seed in range(5))])
def test_scores_equal_those_of_pycocoevalcap(references, candidates):
    expected = dict(enumerate(references))
    generated = {i: [text] for i, text in enumerate(candidates)}
    scores = metrics.caption_scores(references, candidates)
    bleus, _ = Bleu(4).compute_score(expected, generated, verbose=0)
    # pycocoevalcap makes each precision (matches + 1e-15) / (n-grams + 1e-9): a relative error of
    # at most 1e-9 as long as every order has a match somewhere in the corpus, as here.
    for n in (1, 2, 3, 4):
        assert scores[f"bleu_{n}"] == pytest.approx(bleus[n - 1], abs=1e-8)
    assert scores["rouge_l"] == pytest.approx(Rouge().compute_score(expected, generated)[0], abs=1e-9)
    assert scores["cider_d"] == pytest.approx(Cider().compute_score(expected, generated)[0], abs=1e-9)


def test_bleu_without_a_match_is_zero_unlike_in_pycocoevalcap():
    references, candidates = [["a red circle at the top"]], ["a big red dog"]
    theirs, _ = Bleu(4).compute_score({0: references[0]}, {0: candidates}, verbose=0)
    assert metrics.bleu(references, candidates, 1) == pytest.approx(theirs[0])
    assert metrics.bleu(references, candidates, 2) == 0 < theirs[1]  # (1e-15 / 3) ** (1 / 2), about
    assert metrics.bleu(references, candidates, 4) == 0 < theirs[3] < 1e-3


@pytest.mark.parametrize(
    ("candidate", "references", "order", "expected"),
    [
        ("a red circle", ["a red circle"], 2, 1.0),
        ("a red dog", ["a red circle"], 1, 2 / 3),
        ("a red dog", ["a red circle"], 2, math.sqrt(2 / 3 * 1 / 2)),
        ("a a a", ["a red circle"], 1, 1 / 3),  # counts are clipped
        ("a red", ["a red circle at"], 1, math.exp(1 - 4 / 2)),  # too short
        ("a red circle", ["a dog", "the red circle"], 1, 1.0),  # over all references
        ("blue", ["a red circle"], 1, 0.0),
        ("", ["a red circle"], 1, 0.0),
        ("a red", ["a red"], 4, 0.0),  # no n-gram of four words
        ("a  red circle ", [" a red  circle"], 2, 1.0),  # repeated spaces
    ],
)
def test_bleu_by_hand(candidate, references, order, expected):
    assert metrics.bleu([references], [candidate], order) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("candidate", "references", "precision", "recall"),
    [
        ("a red circle", ["a red circle"], 1, 1),
        ("a circle red", ["a red circle"], 2 / 3, 2 / 3),
        ("a big red circle", ["a red circle at the top"], 3 / 4, 3 / 6),
        ("a dog", ["a cat sits", "the small dog"], 1 / 2, 1 / 3),
        ("blue", ["a red circle"], 0, 0),
        ("", ["a red circle"], 0, 0),
    ],
)
def test_rouge_l_by_hand(candidate, references, precision, recall):
    f = 0 if not recall else (1 + 1.44) * precision * recall / (recall + 1.44 * precision)
    assert metrics.rouge_l([references], [candidate]) == pytest.approx(f)


@pytest.mark.parametrize(
    ("candidate", "references", "expected"),
    [
        # "a" is in both images and weighs nothing, "b" and "a b" weigh ln 2: two cosines of four
        ("a b", ["a b"], 10 * 2 / 4),
        ("a c", ["a b"], 0.0),
        ("b b", ["a b"], 10 * (1 / 2) / 4),  # clipped: 1 x 1 over the norms 2 x 1
        ("b", ["a b"], 10 * 1 / 4 * math.exp(-(1**2) / (2 * 6**2))),  # one word too short
        ("a b", ["a b", "d e"], (10 * 2 / 4 + 0) / 2),  # the mean over references
        ("", ["a b"], 0.0),
    ],
)
def test_cider_d_by_hand(candidate, references, expected):
    # the second image makes "a" common, scores 0, and halves the mean
    scored = metrics.cider_d([references, ["a z"]], [candidate, "q"])
    assert scored == pytest.approx(expected / 2)


def test_cider_d_of_perfect_captions_is_ten_and_of_one_image_zero():
    texts = ["a red circle at the top", "the dog sits on one cat", "blue squares are large here"]
    assert metrics.cider_d([[t] for t in texts], texts) == pytest.approx(10)
    assert metrics.cider_d([texts[:1]], texts[:1]) == 0


@pytest.mark.parametrize(
    ("references", "candidates", "message"),
    [
        ([["a"]], ["a", "b"], r"len\(references\)=1, len\(candidates\)=2"),
        ([], [], r"len\(candidates\)=0"),
        ([["a"], []], ["a", "b"], r"references\[1\]=\[\]"),
        (["a"], ["a"], r"references\[0\]='a'"),
        ("a", ["a"], "references='a'"),
        ([["a"]], "a", "candidates='a'"),
        ([["a"]], [["a", "b"]], r"candidates\[0\]=\['a', 'b'\]"),
        ([[None]], ["a"], r"references\[0\]=\[None\]"),
    ],
)
@pytest.mark.parametrize("score", [metrics.caption_scores, metrics.bleu, metrics.rouge_l, metrics.cider_d])
def test_invalid_arguments_raise(score, references, candidates, message):
    with pytest.raises(ValueError, match=f"Expected.*{message}"):
        score(references, candidates)


def test_max_order_below_one_raises():
    with pytest.raises(ValueError, match="max_order=0"):
        metrics.bleu([["a"]], ["a"], 0)


def test_word_error_rate_counts_substitutions_insertions_and_deletions():
    references = ["a red circle", "there is a star", "a blue square"]
    candidates = ["a red cross", "there is star", "a big blue square"]  # one of each, of ten words
    scores = metrics.recognition_scores(references, candidates)
    assert scores["wer"] == pytest.approx(0.3)
    parts = [scores[part] for part in ("substitutions", "insertions", "deletions")]
    assert parts == pytest.approx([0.1, 0.1, 0.1])
    assert 0 < scores["cer"] < 0.5
    assert metrics.recognition_scores(references, references) == dict.fromkeys(scores, 0)
    assert metrics.recognition_scores(references, ["", "", ""])["deletions"] == 1


def test_chinese_is_scored_by_characters():
    scores = metrics.recognition_scores(["红色的圆形", "绿色的星形"], ["红色的方形", "绿色星形"])
    assert scores == {"cer": 0.2, "substitutions": 0.1, "insertions": 0.0, "deletions": 0.1}


def test_single_words_have_a_wer_and_chinese_with_spaces_has_none():
    scores = metrics.recognition_scores(["yes", "no", "left", "up"], ["yes", "on", "left", "up"])
    assert scores["wer"] == scores["substitutions"] == 0.25
    assert "wer" not in metrics.recognition_scores(
        ["红色的圆形", "打开 ok", "ok"], ["红色的圆形", "打开 ok", "ok"]
    )


@pytest.mark.parametrize(("references", "candidates"), [([], []), (["a"], []), (["a"], ["a", "b"])])
def test_transcripts_of_different_number_raise(references, candidates):
    with pytest.raises(ValueError, match=f"len\\(candidates\\)={len(candidates)}"):
        metrics.recognition_scores(references, candidates)


def test_frechet_distance_of_normal_distributions():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((20_000, 3))
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    shifted = a + np.array([1, 2, 0])
    assert metrics.frechet_distance(a, shifted) == pytest.approx(5)
    assert metrics.frechet_distance(a, 3 * a) == pytest.approx(
        3 * 2**2, rel=0.05
    )  # tr(1 + 9 - 2 * 3) a dimension
    with pytest.raises(ValueError, match=r"first.shape=\(1, 3\)"):
        metrics.frechet_distance(a[:1], a)


def test_sharpness_falls_with_blur_and_not_with_weak_noise():
    sharp = np.zeros((1, 32, 32, 3), np.uint8)
    sharp[:, :, 16:] = 200
    blurred = sharp.copy()
    blurred[:, :, 14:18] = np.array([40, 80, 120, 160])[None, None, :, None]
    noisy = np.clip(sharp + np.random.default_rng(0).normal(0, 2, sharp.shape), 0, 255)
    assert metrics.sharpness(blurred) < 0.5 * metrics.sharpness(sharp)
    assert metrics.sharpness(noisy) == pytest.approx(metrics.sharpness(sharp), rel=0.05)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["", "", "a"], "2 of 3 transcripts are empty"),
        (["a", "a"], "all 2 clips get the same transcript, 'a'"),
        (["", "a", "b"], None),  # some clips may be silent
        (["", "a"], None),
        (["a"], None),
    ],
)
def test_collapse_is_a_majority_of_empty_texts_or_a_single_text(texts, expected):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        metrics.warn_of_collapse(texts, "transcript", "clip")
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == (expected is not None) and all(expected in message for message in messages)
