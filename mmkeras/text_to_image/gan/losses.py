"""Text to image (chapter 4.3): the losses of the adversarial model. Each is averaged over all replicas."""

from keras import ops

from mmkeras.data.vocabulary import SPECIAL
from mmkeras.distribute import collectives

INVERSE_TEMPERATURE = 10.0  # temperature 0.1, as in XMC-GAN


def projection_score(image_embedding, text_embedding):
    """How well each image matches its text: the inner product of a projection discriminator.

    Miyato & Koyama 2018, arXiv:1802.05637. Divided by sqrt(F), so that scores start near 1.

    Args:
        image_embedding: (B, F).
        text_embedding: (B, F).

    Returns:
        (B, 1).
    """
    product = ops.sum(image_embedding * text_embedding, axis=-1, keepdims=True)  # (B, 1)
    return product / image_embedding.shape[-1] ** 0.5


def hinge_real(realness, match):
    """Hinge loss of examples that should score above 1 (Lim & Ye 2017, arXiv:1705.02894).

    Args:
        realness: (B, 1). Score of the image alone.
        match: (B, 1). Score of image and text, from `projection_score`.

    Returns:
        (B, 1).
    """
    return ops.relu(1 - realness - match)


def hinge_fake(realness, match):
    """Hinge loss of examples that should score below -1. Arguments and result as for `hinge_real`."""
    return ops.relu(1 + realness + match)


def contrastive_loss(image_embedding, text_embedding, tokens):
    """Cross-entropy of each image's own text among all texts of the batch, by cosine similarity.

    XMC-GAN (Zhang et al. 2021, arXiv:2101.04702). All texts of the batch are negatives, since a single one
    would rarely differ from the image's own in the shape alone. Texts equal to the image's own are excluded.

    Args:
        image_embedding: (B, F).
        text_embedding: (B, F).
        tokens: (B, T) int. The texts.

    Returns:
        ().
    """
    image_embedding, text_embedding = _normalized(image_embedding), _normalized(text_embedding)  # (B, F)
    positive = INVERSE_TEMPERATURE * ops.sum(image_embedding * text_embedding, axis=-1, keepdims=True)  # (B, 1)
    texts = collectives.gathered(text_embedding)  # (N, F), the batches of all replicas
    is_same = same_text(tokens[:, None], collectives.gathered(tokens)[None])  # (B, N)
    similarity = INVERSE_TEMPERATURE * ops.matmul(image_embedding, ops.transpose(texts))  # (B, N)
    negatives = similarity - 1e9 * is_same  # (B, N)
    logits = ops.concatenate([positive, negatives], axis=1)  # (B, 1 + N)
    return collectives.mean(ops.logsumexp(logits, axis=1) - positive[:, 0])


def bag_of_words(tokens, vocabulary_size: int):
    """(B, T) int token ids → (B, V) float, 1 for each word of the text."""
    return ops.max(ops.one_hot(tokens, vocabulary_size), axis=1)


def bag_of_words_loss(logits, bag):
    """Binary cross-entropy of predicting the words of the caption from the image, summed over the vocabulary.

    After the auxiliary classifier of AC-GAN (Odena et al. 2017, arXiv:1610.09585). Special tokens do not count.

    Args:
        logits: (B, V). One logit per word.
        bag: (B, V). From `bag_of_words`.

    Returns:
        ().
    """
    logits, bag = logits[:, len(SPECIAL) :], bag[:, len(SPECIAL) :]
    return collectives.mean(ops.sum(ops.softplus(logits) - bag * logits, axis=-1))


def kl_divergence(mean, log_variance):
    """KL divergence of diagonal normal distributions from the standard normal.

    Kingma & Welling 2014, arXiv:1312.6114, appendix B.

    Args:
        mean: (B, D).
        log_variance: (B, D).

    Returns:
        ().
    """
    return collectives.mean(ops.sum(ops.exp(log_variance) + mean**2 - 1 - log_variance, axis=-1) / 2)


def batch_std(images):
    """Standard deviation of each pixel over the batches of all replicas, averaged over the pixels.

    Near 0 if all images are the same: a mode collapse.

    Args:
        images: (B, S, S, 3).

    Returns:
        ().
    """
    count = ops.maximum(collectives.total(ops.cast(ops.shape(images)[0], "float32")), 1)
    mean = collectives.total(ops.sum(images, axis=0)) / count  # (S, S, 3)
    variance = collectives.total(ops.sum(ops.square(images - mean), axis=0)) / count  # (S, S, 3)
    return ops.mean(ops.sqrt(variance))


def same_text(tokens, others):
    """1 where two texts (..., T) have the same tokens, else 0: (...) float32."""
    return ops.cast(ops.all(ops.equal(tokens, others), axis=-1), "float32")


def _normalized(x):
    """(B, F) → (B, F) of length 1. Unlike `ops.normalize` on JAX, it has a gradient at zero."""
    return x * ops.rsqrt(ops.sum(ops.square(x), axis=-1, keepdims=True) + 1e-8)
