"""How captions are scored: BLEU, ROUGE-L, CIDEr-D, each against several references.

Texts are words with blanks between them (Chinese: characters with blanks between them), already in one case and
without punctuation. The numbers are those of pycocoevalcap, which COCO's leaderboard uses, on such texts.
"""

import math
from collections import Counter
from collections.abc import Sequence

References = Sequence[Sequence[str]]


def caption_scores(references: References, candidates: Sequence[str]) -> dict[str, float]:
    """All scores: `bleu_1` to `bleu_4` and `rouge_l` (0..1), `cider_d` (0..10).

    Args:
        references: for each picture one or more true captions.
        candidates: for each picture the caption to be scored.

    Raises:
        ValueError: nothing to score, lists of different lengths, or a picture without references.
    """
    return {
        **{f"bleu_{n}": bleu(references, candidates, n) for n in (1, 2, 3, 4)},
        "rouge_l": rouge_l(references, candidates),
        "cider_d": cider_d(references, candidates),
    }


def bleu(references: References, candidates: Sequence[str], max_order: int = 4) -> float:
    """BLEU of the whole corpus up to n-grams of `max_order` (Papineni et al. 2002), unsmoothed, by sacrebleu."""
    from sacrebleu.metrics import BLEU

    _check(references, candidates)
    if not any(candidates):
        return 0.0
    most = max(map(len, references))
    # sacrebleu wants the first references of all pictures, then the second ones; None: there is none
    streams = [[texts[i] if i < len(texts) else None for texts in references] for i in range(most)]
    scorer = BLEU(tokenize="none", smooth_method="none", max_ngram_order=max_order, force=True)
    return scorer.corpus_score(list(candidates), streams).score / 100


def rouge_l(references: References, candidates: Sequence[str]) -> float:
    """ROUGE-L (Lin 2004) as COCO computes it, averaged over the pictures.

    The longest common subsequence's best precision and best recall over the references, in an F-measure that
    weighs recall by beta = 1.2.
    """
    _check(references, candidates)
    beta = 1.2
    total = 0.0
    for texts, candidate in zip(references, candidates, strict=True):
        words = candidate.split()
        common = [_longest_common(words, text.split()) for text in texts]
        precision = max(common) / max(len(words), 1)
        recall = max(c / max(len(t.split()), 1) for c, t in zip(common, texts, strict=True))
        if precision and recall:
            total += (1 + beta**2) * precision * recall / (recall + beta**2 * precision)
    return total / len(candidates)


def cider_d(references: References, candidates: Sequence[str]) -> float:
    """CIDEr-D (Vedantam et al. 2015, arXiv:1411.5726): how alike the telling words are, 0..10.

    N-grams (n = 1..4) are weighted by how few pictures mention them, counted in these references; a candidate's
    counts are clipped at the reference's, and a different length costs (sigma = 6 words). With one picture alone
    no word is rarer than another, and the score is 0.
    """
    _check(references, candidates)
    counted = [[_ngrams(text) for text in texts] for texts in references]
    pictures_with = Counter(gram for texts in counted for gram in set().union(*texts))
    log_pictures = math.log(len(references))

    def weigh(counts):  # per n: {n-gram: tf-idf}, its norm
        weights = [{} for _ in range(4)]
        for gram, count in counts.items():
            weights[len(gram) - 1][gram] = count * (log_pictures - math.log(max(1, pictures_with[gram])))
        return weights, [math.sqrt(sum(v * v for v in w.values())) for w in weights]

    total = 0.0
    for texts, candidate in zip(counted, candidates, strict=True):
        counts = _ngrams(candidate)
        given, given_norms = weigh(counts)
        score = 0.0
        for text in texts:
            true, true_norms = weigh(text)
            # pycocoevalcap measures length in bigrams, one fewer than words
            gap = sum(c for g, c in counts.items() if len(g) == 2) - sum(
                c for g, c in text.items() if len(g) == 2
            )
            for n in range(4):
                dot = sum(min(v, true[n].get(g, 0)) * true[n].get(g, 0) for g, v in given[n].items())
                norm = given_norms[n] * true_norms[n]
                score += (dot / norm if norm else dot) * math.exp(-(gap**2) / (2 * 6**2))
        total += 10 * score / 4 / len(texts)
    return total / len(candidates)


def _ngrams(text):
    words = text.split()
    return Counter(tuple(words[i : i + n]) for n in (1, 2, 3, 4) for i in range(len(words) - n + 1))


def _longest_common(a, b):
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, start=1):
            diagonal, row[j] = row[j], diagonal + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


def _check(references, candidates):
    if isinstance(candidates, str) or any(isinstance(texts, str) for texts in references):
        raise ValueError(
            "Expected candidates to be a list of texts and references a list of lists of texts. "
            "Received: a text in the place of a list"
        )
    if not candidates or len(references) != len(candidates):
        raise ValueError(
            f"Expected as many lists of references as candidates, at least one. "
            f"Received: {len(references)} and {len(candidates)}"
        )
    for i, texts in enumerate(references):
        if not texts:
            raise ValueError(f"Expected at least one reference a candidate. Number {i} has none")
