"""How answers are scored: captions by BLEU, ROUGE-L and CIDEr-D, transcripts by WER and CER, pictures by their
sharpness and the Fréchet distance.

    caption_scores([["a red circle", "one red disc"]], ["a red disc"])   # {"bleu_1": 1.0, ...}
    recognition_scores(["a red circle"], ["a red disc"])                 # {"wer": 0.333, ...}
    frechet_distance(features_of_painted, features_of_real)              # 0.0: the same mean and covariance

Texts are words with blanks between them (Chinese: characters with blanks between them), already in
one case and without punctuation. The numbers are those of pycocoevalcap, which COCO's leaderboard
uses, on such texts; unlike it, BLEU is exactly 0 where no n-gram matches.
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from mmkeras._utils import terminal
from mmkeras.data.vocabulary import is_chinese

References = Sequence[Sequence[str]]


def caption_scores(references: References, candidates: Sequence[str]) -> dict[str, float]:
    """All scores: `bleu_1` to `bleu_4` and `rouge_l` (0..1), `cider_d` (0..10).

    Args:
        references: for each picture one or more true captions.
        candidates: for each picture the caption to be scored.

    Raises:
        ValueError: nothing to score, lists of different lengths, a picture without references, or
            something else than a text in the place of a text.
    """
    bleus = _bleus(references, candidates, max_order=4)
    return {
        **{f"bleu_{n}": score for n, score in enumerate(bleus, start=1)},
        "rouge_l": rouge_l(references, candidates),
        "cider_d": cider_d(references, candidates),
    }


def bleu(references: References, candidates: Sequence[str], max_order: int = 4) -> float:
    """BLEU of the whole corpus up to n-grams of `max_order` (Papineni et al. 2002), unsmoothed."""
    if max_order < 1:
        raise ValueError(f"Expected max_order to be at least 1. Received: max_order={max_order}")
    return _bleus(references, candidates, max_order)[-1]


def rouge_l(references: References, candidates: Sequence[str]) -> float:
    """ROUGE-L (Lin 2004) as COCO computes it, averaged over the pictures.

    The longest common subsequence's best precision and best recall over the references, in an
    F-measure that weighs recall by beta = 1.2.
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

    N-grams (n = 1..4) are weighted by how few pictures mention them, counted in these references;
    a candidate's weights are clipped at the reference's, and a different length costs (sigma = 6
    words). With one picture alone no word is rarer than another, and the score is 0.
    """
    _check(references, candidates)
    sigma = 6
    counted = [[_ngrams(text) for text in texts] for texts in references]
    pictures_with = Counter(gram for texts in counted for gram in set().union(*texts))
    # An n-gram that no reference has is as rare as one that a single picture has.
    idf = {gram: math.log(len(references) / n) for gram, n in pictures_with.items()}
    idf_unseen = math.log(len(references))

    def weigh(counts):  # per n: {n-gram: tf-idf} and its norm
        weights = [{}, {}, {}, {}]
        for gram, count in counts.items():
            weights[len(gram) - 1][gram] = count * idf.get(gram, idf_unseen)
        return [(w, math.sqrt(sum(v * v for v in w.values()))) for w in weights]

    total = 0.0
    for texts, true_counts, candidate in zip(references, counted, candidates, strict=True):
        given = weigh(_ngrams(candidate))
        score = 0.0
        for text, counts in zip(texts, true_counts, strict=True):
            cosines = 0.0
            for (mine, norm), (true, true_norm) in zip(given, weigh(counts), strict=True):
                if norm and true_norm:
                    dot = sum(min(v, true[gram]) * true[gram] for gram, v in mine.items() if gram in true)
                    cosines += dot / (norm * true_norm)
            gap = _length_in_bigrams(candidate) - _length_in_bigrams(text)
            score += cosines / 4 * math.exp(-(gap**2) / (2 * sigma**2))
        total += 10 * score / len(texts)
    return total / len(candidates)


def recognition_scores(references: Sequence[str], candidates: Sequence[str]) -> dict[str, float]:
    """Word and character error rate of the whole corpus, by jiwer.

    Args:
        references: what was said, already in one case and without punctuation.
        candidates: what was written for each.

    Returns:
        `wer` and `cer`, and `wer`'s parts `substitutions`, `insertions`, `deletions`; all per word (`cer`: per
        character) of the references. Where most references are Chinese the parts are those of `cer`, and `wer`
        is left out.

    Raises:
        ValueError: nothing to score, or lists of different lengths.
    """
    import jiwer

    if not len(references) or len(references) != len(candidates):
        raise ValueError(
            f"Expected as many references as candidates, at least one. Received: "
            f"len(references)={len(references)}, len(candidates)={len(candidates)}"
        )
    references, candidates = list(references), list(candidates)
    characters = jiwer.process_characters(references, candidates)
    has_words = 2 * sum(map(is_chinese, references)) <= len(references)
    parts = jiwer.process_words(references, candidates) if has_words else characters
    count = max(parts.hits + parts.substitutions + parts.deletions, 1)
    return {
        **({"wer": parts.wer} if has_words else {}),
        "cer": characters.cer,
        **{name: getattr(parts, name) / count for name in ("substitutions", "insertions", "deletions")},
    }


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """How far two sets of features lie apart, each taken for a normal distribution (Dowson & Landau 1982):
    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2). With Inception's features it is the FID of Heusel et al. 2017.

    Args:
        first, second: (n, F) and (m, F), at least two of each.

    Raises:
        ValueError: shapes that do not fit, or a single row.
    """
    if (
        first.ndim != 2
        or second.ndim != 2
        or first.shape[1] != second.shape[1]
        or min(len(first), len(second)) < 2
    ):
        raise ValueError(
            f"Expected features of shape (n, F) and (m, F), n and m at least 2. "
            f"Received: {first.shape} and {second.shape}"
        )
    first, second = first.astype("float64"), second.astype("float64")
    gap = first.mean(axis=0) - second.mean(axis=0)
    one, two = np.atleast_2d(np.cov(first.T)), np.atleast_2d(np.cov(second.T))
    # tr (C1 C2)^1/2 = tr (C1^1/2 C2 C1^1/2)^1/2, whose inside is symmetric: no complex rounding errors
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ two @ root).clip(0)).sum()
    return float(max(gap @ gap + np.trace(one) + np.trace(two) - 2 * cross, 0))


def sharpness(pictures: np.ndarray) -> float:
    """Tenengrad (Krotkov 1988): the mean squared gradient of the luminance, by Sobel's operator. Edges rule it;
    a light noise hardly counts.

    Args:
        pictures: (n, H, W, 3) in 0..255.
    """
    grey = pictures.astype("float64") @ (0.299, 0.587, 0.114)
    across = grey[:, :, 2:] - grey[:, :, :-2]
    down = grey[:, 2:] - grey[:, :-2]
    x = across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]
    y = down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]
    return float((x**2 + y**2).mean())


def name_collapse(texts: Sequence[str], text: str, input: str) -> None:
    """Warns where a model has collapsed: most texts are empty, or there is one text whatever the input.

    Args:
        texts: what it wrote.
        text: what one of them is called (`"caption"`).
        input: what one of them was written for (`"picture"`).
    """
    empty = sum(not written for written in texts)
    if empty > len(texts) / 2:
        terminal.warn(
            f"Collapse: {empty} of {len(texts)} {text}s are empty. The model ends before the first word; "
            f"train it longer."
        )
    written, times = Counter(texts).most_common(1)[0]
    if times == len(texts) > 1 and written:
        terminal.warn(
            f"Collapse: all {times} {input}s got the same {text}, {written!r}. The model has not learned to "
            f"attend to the {input} yet; train it longer, or lower the learning rate."
        )


def _bleus(references, candidates, max_order):
    """BLEU-1 to BLEU-max_order, counted once, by sacrebleu."""
    from sacrebleu.metrics import BLEU

    _check(references, candidates)
    most = max(map(len, references))
    # sacrebleu wants the first references of all pictures, then the second ones; None: no more
    streams = [[t[i] if i < len(t) else None for t in references] for i in range(most)]
    scorer = BLEU(tokenize="none", smooth_method="none", max_ngram_order=max_order, force=True)
    found = scorer.corpus_score(list(candidates), streams)

    def up_to(n):
        lengths = found.sys_len, found.ref_len
        scored = BLEU.compute_bleu(found.counts[:n], found.totals[:n], *lengths, max_ngram_order=n)
        return min(scored.score / 100, 1.0)  # the logarithms' rounding can pass 1 by 1e-16

    return [up_to(n) for n in range(1, max_order + 1)]


def _ngrams(text):
    words = text.split()
    return Counter(tuple(words[i : i + n]) for n in (1, 2, 3, 4) for i in range(len(words) - n + 1))


def _length_in_bigrams(text):
    """pycocoevalcap measures length so: one fewer than words, but 0 for an empty text as well."""
    return max(len(text.split()) - 1, 0)


def _longest_common(a, b):
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, start=1):
            diagonal, row[j] = row[j], diagonal + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


def _check(references, candidates):
    if isinstance(candidates, str):
        raise ValueError(
            "Expected candidates to be a list of texts, one for each picture; put a single one "
            f"into a list. Received: candidates={candidates!r}"
        )
    if isinstance(references, str):
        raise ValueError(
            "Expected references to be a list of lists of texts, one list for each picture. "
            f"Received: references={references!r}"
        )
    if not len(candidates) or len(references) != len(candidates):
        raise ValueError(
            "Expected as many lists of references as candidates, at least one. Received: "
            f"len(references)={len(references)}, len(candidates)={len(candidates)}"
        )
    for i, (texts, candidate) in enumerate(zip(references, candidates, strict=True)):
        if not isinstance(candidate, str):
            raise ValueError(
                "Expected each candidate to be a text, its words separated by blanks. "
                f"Received: candidates[{i}]={candidate!r}"
            )
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise ValueError(
                "Expected references to be a list of texts for each picture; put a single one into "
                f"a list. Received: references[{i}]={texts!r}"
            )
        if not len(texts):
            raise ValueError(
                "Expected at least one reference for each picture; leave out pictures without. "
                f"Received: references[{i}]={texts!r}"
            )
