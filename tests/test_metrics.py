"""Caption metrics, against hand-computed cases and against pycocoevalcap."""

import math

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from mmkeras import metrics

WORDS = "a the dog cat red blue small large circle square on at top left runs sits there is".split()


def sentences(seed, pictures=40):
    """Candidates that resemble one of their 1 to 5 references more or less, down to one word."""
    rng = np.random.default_rng(seed)
    references, candidates = [], []
    for _ in range(pictures):
        texts = [list(rng.choice(WORDS, rng.integers(1, 14))) for _ in range(rng.integers(1, 6))]
        candidate = [w if rng.random() < 0.7 else rng.choice(WORDS) for w in texts[0]]
        candidates.append(" ".join(candidate[: rng.integers(1, 15)]))
        references.append([" ".join(text) for text in texts])
    return references, candidates


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_pycocoevalcap(seed):
    references, candidates = sentences(seed)
    true = dict(enumerate(references))
    given = {i: [text] for i, text in enumerate(candidates)}
    scores = metrics.caption_scores(references, candidates)
    bleus, _ = Bleu(4).compute_score(true, given, verbose=0)
    # pycocoevalcap adds 1e-15 and 1e-9 to each n-gram fraction, which moves the last digits
    for n in (1, 2, 3, 4):
        assert scores[f"bleu_{n}"] == pytest.approx(bleus[n - 1], abs=1e-6)
    assert scores["rouge_l"] == pytest.approx(Rouge().compute_score(true, given)[0], abs=1e-9)
    assert scores["cider_d"] == pytest.approx(Cider().compute_score(true, given)[0], abs=1e-9)


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


def test_cider_d_of_perfect_captions_is_ten_and_of_one_picture_nothing():
    texts = ["a red circle at the top", "the dog sits on one cat", "blue squares are large here"]
    assert metrics.cider_d([[t] for t in texts], texts) == pytest.approx(10)
    assert metrics.cider_d([texts[:1]], texts[:1]) == 0


@pytest.mark.parametrize(
    ("references", "candidates"),
    [([["a"]], ["a", "b"]), ([], []), ([["a"], []], ["a", "b"]), (["a"], ["a"]), ([["a"]], "a")],
)
def test_bad_arguments_are_refused(references, candidates):
    with pytest.raises(ValueError, match="Expected"):
        metrics.caption_scores(references, candidates)
