"""Metrics: BLEU, ROUGE-L and CIDEr-D of captions, word and character error rates of transcripts, sharpness and
Fréchet distance of images.

    caption_scores([["a red circle", "one red disc"]], ["a red disc"])   # {"bleu_1": 1.0, ...}
    recognition_scores(["a red circle"], ["a red disc"])                 # {"wer": 0.333, ...}
    frechet_distance(generated_features, real_features)                  # 0.0: the same mean and covariance

Texts are words (in Chinese characters) that spaces separate, in one case and without punctuation. On such texts
the scores are those of pycocoevalcap, which the COCO leaderboard uses, except that BLEU is 0 if no n-gram
matches.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from mmkeras._utils import checks, terminal
from mmkeras.evaluation import collapse
from mmkeras.text.vocabulary import has_no_spaces

References = Sequence[Sequence[str]]


def caption_scores(references: References, candidates: Sequence[str]) -> dict[str, float]:
    """All caption scores.

    Args:
        references: List of N lists of one or more reference captions.
        candidates: List of N captions.

    Returns:
        `bleu_1` to `bleu_4` and `rouge_l` (0..1), `cider_d` (0..10).

    Raises:
        ValueError: for empty lists, lists of different lengths, an image without references, or an element that
            is not a text.
    """
    bleus = _bleus(references, candidates, max_order=4)
    return {
        **{f"bleu_{n}": score for n, score in enumerate(bleus, start=1)},
        "rouge_l": rouge_l(references, candidates),
        "cider_d": cider_d(references, candidates),
    }


def bleu(references: References, candidates: Sequence[str], max_order: int = 4) -> float:
    """Corpus BLEU without smoothing (Papineni et al. 2002), with n-grams up to `max_order` (default 4)."""
    checks.ints(1, max_order=max_order)
    return _bleus(references, candidates, max_order)[-1]


def rouge_l(references: References, candidates: Sequence[str]) -> float:
    """ROUGE-L (Lin 2004) as COCO computes it, averaged over the images.

    The F-measure of the best precision and the best recall of the longest common subsequence over the
    references, with beta = 1.2.
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
    """CIDEr-D (Vedantam et al. 2015, arXiv:1411.5726): similarity of TF-IDF weighted n-grams, 0..10.

    Document frequencies of the n-grams (n = 1..4) are counted in these references. The weights of a candidate
    are clipped at those of the reference, and a different length is penalized (sigma = 6 words). For a single
    image all IDF weights, and so the score, are 0.
    """
    _check(references, candidates)
    sigma = 6
    counted = [[_ngrams(text) for text in texts] for texts in references]
    frequency = Counter(gram for texts in counted for gram in set().union(*texts))
    # An n-gram without any reference has the weight of one in the references of a single image.
    idf = {gram: math.log(len(references) / n) for gram, n in frequency.items()}
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
            for (own, norm), (true, true_norm) in zip(given, weigh(counts), strict=True):
                if norm and true_norm:
                    dot = sum(min(v, true[gram]) * true[gram] for gram, v in own.items() if gram in true)
                    cosines += dot / (norm * true_norm)
            gap = _length_in_bigrams(candidate) - _length_in_bigrams(text)
            score += cosines / 4 * math.exp(-(gap**2) / (2 * sigma**2))
        total += 10 * score / len(texts)
    return total / len(candidates)


def recognition_scores(references: Sequence[str], candidates: Sequence[str]) -> dict[str, float]:
    """Word and character error rate of a corpus, by jiwer.

    Args:
        references: List of N transcripts, in one case and without punctuation.
        candidates: List of N transcripts.

    Returns:
        `wer`, per word of the references; its parts `substitutions`, `insertions`, `deletions`; and `cer`, per
        character. If most references are Chinese, the parts are those of `cer`, and `wer` is left out.

    Raises:
        ValueError: for empty lists, or lists of different lengths.
    """
    import jiwer

    _check([[text] for text in references], candidates)
    references, candidates = list(references), list(candidates)
    characters = jiwer.process_characters(references, candidates)
    has_words = 2 * sum(map(has_no_spaces, references)) <= len(references)
    parts = jiwer.process_words(references, candidates) if has_words else characters
    count = max(parts.hits + parts.substitutions + parts.deletions, 1)
    return {
        **({"wer": parts.wer} if has_words else {}),
        "cer": characters.cer,
        **{name: getattr(parts, name) / count for name in ("substitutions", "insertions", "deletions")},
    }


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Fréchet distance of two sets of features, as of normal distributions (Dowson & Landau 1982):
    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2). With features of Inception it is FID (Heusel et al. 2017,
    arXiv:1706.08500).

    Args:
        first: (n, F), n at least 2.
        second: (m, F), m at least 2.

    Raises:
        ValueError: for other shapes.
    """
    if (
        not first.ndim == second.ndim == 2
        or first.shape[1] != second.shape[1]
        or min(len(first), len(second)) < 2
    ):
        raise ValueError(
            f"Expected features to have the shapes (n, F) and (m, F), n and m at least 2. "
            f"Received: first.shape={first.shape}, second.shape={second.shape}"
        )
    first, second = first.astype("float64"), second.astype("float64")
    gap = first.mean(axis=0) - second.mean(axis=0)
    one, two = np.atleast_2d(np.cov(first.T)), np.atleast_2d(np.cov(second.T))
    # tr (C1 C2)^1/2 = tr (C1^1/2 C2 C1^1/2)^1/2, a symmetric matrix, whose eigenvalues are real
    values, vectors = np.linalg.eigh(one)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ two @ root).clip(0)).sum()
    return float(max(gap @ gap + np.trace(one) + np.trace(two) - 2 * cross, 0))


def sharpness(images: np.ndarray) -> float:
    """Tenengrad (Krotkov 1988): mean squared Sobel gradient of the luminance. Weak noise changes it little.

    Args:
        images: (n, H, W, 3) in 0..255.
    """
    gray = images.astype("float64") @ (0.299, 0.587, 0.114)  # (n, H, W)
    across = gray[:, :, 2:] - gray[:, :, :-2]
    down = gray[:, 2:] - gray[:, :-2]
    x = across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]
    y = down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]
    return float((x**2 + y**2).mean())


def image_scores(
    real: np.ndarray, generated: np.ndarray, resampled: np.ndarray | None = None
) -> dict[str, float]:
    """Sharpness and variety of generated images. A warning names a collapse.

    Args:
        real: (N, H, W, 3) in 0..255.
        generated: (N, H, W, 3) in 0..255.
        resampled: (N, H, W, 3), optional. Images of the same prompts with other noise. Defaults to None.

    Returns:
        - `sharpness`, relative to real images. Left out if those are of one color each.
        - `variety`: mean distance of two images, relative to real images. Left out for a single image.
        - `seed_variety`, with `resampled`: mean distance of two images of the same prompt, relative to two
          images of different prompts.
    """
    scores = {}
    if real_sharpness := sharpness(real):
        scores["sharpness"] = sharpness(generated) / real_sharpness
    scores |= variety(real, generated, resampled)
    _warn(collapse.of_images(scores))
    return scores


def variety(real: np.ndarray, generated: np.ndarray, resampled: np.ndarray | None = None) -> dict[str, float]:
    """`variety` and `seed_variety` of `image_scores`, of the same arguments, without the warning."""
    scores, distance = {}, _distance(generated, np.roll(generated, 1, axis=0))
    if real_distance := _distance(real, np.roll(real, 1, axis=0)):
        scores["variety"] = distance / real_distance
        if resampled is not None:
            scores["seed_variety"] = _distance(generated, resampled) / max(distance, 1e-9)
    return scores


def retrieval(similarity: np.ndarray, relevant: np.ndarray) -> dict[str, float]:
    """How high the first relevant item stands in the list of each query.

    Items of equal similarity count as standing before the relevant one, so that equal answers gain nothing.

    Args:
        similarity: (Q, N) float, of each query to each item.
        relevant: (Q, N) bool. Queries without a relevant item are left out.

    Returns:
        `recall_at_1`, `recall_at_5` and `recall_at_10`, the shares of queries whose first relevant item is
        among the first 1, 5, 10; `mrr`, the mean of 1 / its rank (mean reciprocal rank: Voorhees 1999).

    Raises:
        ValueError: if no query has a relevant item.
    """
    has_any = relevant.any(axis=1)
    if not has_any.any():
        raise ValueError("Expected relevant to be true somewhere. Received: relevant without a true value")
    similarity, relevant = similarity[has_any], relevant[has_any]
    best = np.where(relevant, similarity, -np.inf).max(axis=1, keepdims=True)  # (Q, 1)
    rank = 1 + ((similarity >= best) & ~relevant).sum(axis=1)  # (Q,)
    recalls = {f"recall_at_{k}": float(np.mean(rank <= k)) for k in (1, 5, 10)}
    return recalls | {"mrr": float(np.mean(1 / rank))}


def attribute_accuracy(
    predicted: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Accuracy of each attribute, and `all`, the share of examples with all attributes correct.

    Args:
        predicted, labels: {attribute: (N,) int class ids}.
    """
    correct = {name: predicted[name] == labels[name] for name in labels}
    scores = {name: float(values.mean()) for name, values in correct.items()}
    return scores | {"all": float(np.all(list(correct.values()), axis=0).mean())}


def warn_of_collapse(texts: Sequence[str], output_name: str, input_name: str) -> None:
    """Warns if most texts are empty, or if all are the same. Arguments as for `collapse.of_texts`."""
    _warn(collapse.of_texts(texts, output_name, input_name))


def _warn(collapsed):
    if collapsed:
        terminal.warn(f"Collapse: {collapsed}")


def _distance(images, others):
    """Mean absolute difference of the pixels."""
    return float(np.abs(images.astype("float32") - others).mean())


def _bleus(references, candidates, max_order):
    """BLEU-1 to BLEU-max_order, counted once, by sacrebleu."""
    from sacrebleu.metrics import BLEU

    _check(references, candidates)
    most = max(map(len, references))
    # sacrebleu expects the first references of all images, then the second ones; None if there is none
    streams = [[t[i] if i < len(t) else None for t in references] for i in range(most)]
    scorer = BLEU(tokenize="none", smooth_method="none", max_ngram_order=max_order, force=True)
    result = scorer.corpus_score(list(candidates), streams)

    def up_to(n):
        lengths = result.sys_len, result.ref_len
        scored = BLEU.compute_bleu(result.counts[:n], result.totals[:n], *lengths, max_ngram_order=n)
        return min(scored.score / 100, 1.0)  # rounding can exceed 1 by 1e-16

    return [up_to(n) for n in range(1, max_order + 1)]


def _ngrams(text):
    words = text.split()
    return Counter(tuple(words[i : i + n]) for n in (1, 2, 3, 4) for i in range(len(words) - n + 1))


def _length_in_bigrams(text):
    """Length as pycocoevalcap measures it."""
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
    for name, texts in (("references", references), ("candidates", candidates)):
        if isinstance(texts, str):
            raise ValueError(f"Expected {name} to be a list. Received: {name}={texts!r}")
    if not len(candidates) or len(references) != len(candidates):
        raise ValueError(
            f"Expected as many references as candidates, at least one. Received: "
            f"len(references)={len(references)}, len(candidates)={len(candidates)}"
        )
    for i, (texts, candidate) in enumerate(zip(references, candidates, strict=True)):
        if not isinstance(candidate, str):
            raise ValueError(f"Expected candidates to be texts. Received: candidates[{i}]={candidate!r}")
        if isinstance(texts, str) or not len(texts) or not all(isinstance(text, str) for text in texts):
            raise ValueError(
                f"Expected references to be lists of at least one text. Received: references[{i}]={texts!r}"
            )
