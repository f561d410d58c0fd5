"""Methods that explain a model's answer."""

import keras
import numpy as np


def shuffled(model: keras.Model, seed: int = 0) -> keras.Model:
    """A copy of a model in which the values of each weight array are shuffled. An explanation that is the same
    for the copy shows nothing of what the model has learned (Adebayo et al. 2018, arXiv:1810.03292).

    Args:
        model: keras.Model.
        seed: int. Seed of the shuffling. Defaults to 0.
    """
    rng, copy = np.random.default_rng(seed), keras.models.clone_model(model)
    copy.set_weights([rng.permutation(w.ravel()).reshape(w.shape) for w in model.get_weights()])
    return copy
