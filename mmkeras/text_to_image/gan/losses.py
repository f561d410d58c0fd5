"""Text to image (chapter 4.3): the losses of the adversarial model. Each is averaged over all replicas."""

from keras import ops

from mmkeras.distribute import collectives
from mmkeras.text.vocabulary import SPECIAL


def projection_score(image_embedding, text_embedding):
    """How well each image matches its text: the inner product of a projection discriminator.

    Miyato & Koyama 2018, arXiv:1802.05637. Divided by sqrt(F), so that scores start near 1.

    Args:
        image_embedding, text_embedding: (B, F).

    Returns:
        (B, 1).
    """
    product = ops.sum(image_embedding * text_embedding, axis=-1, keepdims=True)  # (B, 1)
    return product / image_embedding.shape[-1] ** 0.5


def hinge_real(realness, match):
    """Hinge loss (B, 1) of examples that should score above 1 (Lim & Ye 2017, arXiv:1705.02894).

    Args:
        realness: (B, 1). Score of the image alone.
        match: (B, 1). Score of image and text, from `projection_score`.
    """
    return ops.relu(1 - realness - match)


def hinge_fake(realness, match):
    """Hinge loss (B, 1) of examples that should score below -1. Arguments as for `hinge_real`."""
    return ops.relu(1 + realness + match)


def bag_of_words(tokens, vocabulary_size: int):
    """(B, T) int token ids → (B, V) float, 1 for each word of the text."""
    return ops.max(ops.one_hot(tokens, vocabulary_size), axis=1)


def bag_of_words_loss(logits, bag):
    """Binary cross-entropy () of predicting the caption's words from the image, summed over the vocabulary.

    After the auxiliary classifier of AC-GAN (Odena et al. 2017, arXiv:1610.09585). Special tokens do not count.

    Args:
        logits: (B, V). One logit per word.
        bag: (B, V). From `bag_of_words`.
    """
    logits, bag = logits[:, len(SPECIAL) :], bag[:, len(SPECIAL) :]
    return collectives.mean(ops.sum(ops.softplus(logits) - bag * logits, axis=-1))


def kl_divergence(mean, log_variance):
    """KL divergence () of diagonal normal distributions, with mean and log-variance (B, D), from the standard
    normal (Kingma & Welling 2014, arXiv:1312.6114, appendix B)."""
    return collectives.mean(ops.sum(ops.exp(log_variance) + mean**2 - 1 - log_variance, axis=-1) / 2)


def batch_std(images):
    """Standard deviation of each pixel of images (B, S, S, 3) over the batches of all replicas, averaged
    over the pixels: (). Near 0 if all images are the same, a mode collapse."""
    count = ops.maximum(collectives.total(ops.cast(ops.shape(images)[0], "float32")), 1)
    mean = collectives.total(ops.sum(images, axis=0)) / count  # (S, S, 3)
    variance = collectives.total(ops.sum(ops.square(images - mean), axis=0)) / count  # (S, S, 3)
    return ops.mean(ops.sqrt(variance))
