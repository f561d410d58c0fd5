"""Methods that explain a model's answer: which pixels of an image does a score depend on?

maps("hires_cam", model, images, score)                      # (B, S, S), any of METHODS by its name
integrated_gradients(model, images, score, baseline=255)     # (B, S, S, 3), signed; each method is a function
maps("hires_cam", shuffled(model), images, score)            # the control: what remains without training?

They take a `keras.Model` on any of Keras's backends, and a score, a function of its outputs. Of several inputs
the one named "image" is explained. The rows of a batch can be the same image, each with another score.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from mmkeras.evaluation.explanations import Explanation

IMAGE = "image"
ROWS = 256  # that a model gets at a time
TOLERANCE = 0.05  # of the sum of integrated gradients
Score = Callable[[Any], Any]  # outputs of a model for B rows → (B,)


# --- with respect to the pixels ---


def gradient(model: keras.Model, inputs: Any, score: Score) -> np.ndarray:
    """The derivative of the score with respect to each pixel (Simonyan et al. 2014, arXiv:1312.6034).

    Args:
        model: keras.Model.
        inputs: Images (B, S, S, 3), or {name: array} of the model's inputs with the images as "image".
        score: Outputs of the model → (B,).

    Returns:
        (B, S, S, 3) float32.

    Raises:
        ValueError: if the model takes no images.
    """
    return _derivative(lambda x: score(model(_with(inputs, x), training=False)), checked_images(model, inputs))


def gradient_x_input(model: keras.Model, inputs: Any, score: Score, baseline: Any = None) -> np.ndarray:
    """The gradient times the difference of the image from a baseline (Shrikumar et al. 2017, arXiv:1605.01713).

    Args:
        model, inputs, score: As for `gradient`.
        baseline: What counts as nothing: a number, a color (3,), or images (S, S, 3) or (B, S, S, 3). Defaults
            to None: the median color of each image, often that of the background.

    Returns:
        (B, S, S, 3) float32.

    Raises:
        ValueError: as `gradient`, or if the baseline has another size than the images.
    """
    images = checked_images(model, inputs)
    return gradient(model, inputs, score) * (images - checked_baseline(images, baseline))


def integrated_gradients(
    model: keras.Model, inputs: Any, score: Score, baseline: Any = None, steps: int = 32
) -> np.ndarray:
    """The mean gradient on the way from a baseline to the image, times their difference (Sundararajan et al.
    2017, arXiv:1703.01365). Summed over the pixels it is the difference of the scores, which is checked.

    Args:
        model, inputs, score, baseline: As for `gradient_x_input`.
        steps: int. Points on the way, tripled until the sum is right. Defaults to 32.

    Returns:
        (B, S, S, 3) float32.

    Raises:
        ValueError: as `gradient_x_input`, or if with more than 300 points the sum is still off by more than 5 %
            of the largest difference of the batch.
    """
    images = checked_images(model, inputs)
    start = checked_baseline(images, baseline)
    before, after = scores(model, inputs, [start, images], score)  # (B,) each
    total, new = np.zeros_like(images), (np.arange(steps) + 0.5) / steps  # the middle of each step
    while True:
        points = (start + share * (images - start) for share in new.astype("float32"))
        for function, stacked in _batches(model, inputs, points, score):
            total += _derivative(function, stacked).reshape(-1, *images.shape).sum(axis=0)
        result = total / steps * (images - start)
        error = np.abs(result.sum(axis=(1, 2, 3)) - (after - before)).max()
        largest = np.abs(after - before).max()
        if error <= TOLERANCE * largest:
            return result
        if steps > 300:
            raise ValueError(
                f"Expected the integrated gradients to sum up to the difference of the scores, at most "
                f"{largest:.3g}. Received: steps={steps}, with a sum that is off by {error:.3g}. Choose a "
                f"baseline that is nearer to the image."
            )
        steps *= 3  # with a third of the middles known
        new = (np.delete(np.arange(steps), np.s_[1::3]) + 0.5) / steps


def occlusion(
    model: keras.Model, inputs: Any, score: Score, baseline: Any = None, size: int = 8, stride: int = 4
) -> np.ndarray:
    """How much the score falls if a window is replaced by the baseline (Zeiler & Fergus 2014, arXiv:1311.2901).

    Args:
        model, inputs, score, baseline: As for `gradient_x_input`.
        size: int. Side of the window in pixels. Defaults to 8.
        stride: int. Pixels from one window to the next. Defaults to 4.

    Returns:
        (B, S, S) float32, at least 0: for each pixel the mean over the windows that cover it.
    """
    images = checked_images(model, inputs)
    start, (height, width) = checked_baseline(images, baseline), images.shape[1:3]
    corners = itertools.product(*(range(0, max(side - size, 0) + 1, stride) for side in (height, width)))
    windows = [np.s_[:, top : top + size, left : left + size] for top, left in corners]

    def hidden():
        for window in windows:
            image = images.copy()
            image[window] = start[window]
            yield image

    before, *after = scores(model, inputs, itertools.chain([images], hidden()), score)  # (B,) each
    fall, count = np.zeros(images.shape[:3], np.float32), np.zeros(images.shape[:3], np.float32)
    for window, value in zip(windows, after, strict=True):
        fall[window] += np.maximum(before - value, 0)[:, None, None]
        count[window] += 1
    return fall / np.maximum(count, 1)


# --- with respect to a layer whose cells have a place in the image ---


def grad_cam(model: keras.Model, inputs: Any, score: Score, layer: str | None = None) -> np.ndarray:
    """The channels of a convolutional layer, weighted by their mean gradient (Selvaraju et al. 2017,
    arXiv:1610.02391). A score that depends on a place has different gradients in different places, which the
    mean mixes.

    Args:
        model, inputs, score: As for `gradient`.
        layer: str, optional. Name of a layer with outputs (B, h, w, C), which all paths from the images to the
            score pass. Defaults to None: "grid" if there is one, else the last.

    Returns:
        (B, S, S) float32, at least 0, interpolated between the cells.

    Raises:
        ValueError: as `gradient`, or if the model has no such layer.
    """
    cells, derivative, size = _at_layer(model, inputs, score, layer)
    return enlarged((cells * derivative.mean(axis=(1, 2), keepdims=True)).sum(axis=-1), size)


def hires_cam(model: keras.Model, inputs: Any, score: Score, layer: str | None = None) -> np.ndarray:
    """The channels of a convolutional layer, each weighted in each cell by its gradient there (Draelos & Carin
    2020, arXiv:2011.08891). Arguments, result and errors as for `grad_cam`."""
    cells, derivative, size = _at_layer(model, inputs, score, layer)
    return enlarged((cells * derivative).sum(axis=-1), size)


METHODS: dict[str, Callable[..., np.ndarray]] = {
    method.__name__: method
    for method in (gradient, gradient_x_input, integrated_gradients, occlusion, grad_cam, hires_cam)
}


def maps(method: str, model: keras.Model, inputs: Any, score: Score, **options: Any) -> np.ndarray:
    """A map per row by a method: at least 0, with as many pixels as the image.

    Args:
        method: str. One of `METHODS`. Where these are signed values per channel, the map has the absolute value
            of their sum; of the gradient, the sum of their absolute values.
        model, inputs, score: As for `gradient`.
        **options: Those of the method.

    Returns:
        (B, S, S) float32.

    Raises:
        ValueError: if there is no such method, and as the method does.
    """
    if method not in METHODS:
        raise ValueError(
            f"Expected method to be one that {model.name!r} has: {', '.join(METHODS)}. Received: "
            f"method={method!r}"
        )
    values = METHODS[method](model, inputs, score, **options)
    if values.ndim == 3:
        return values
    return np.abs(values).sum(axis=-1) if method == "gradient" else np.abs(values.sum(axis=-1))


def explanation(
    method: str,
    model: keras.Model,
    inputs: Any,
    score: Score,
    image: np.ndarray,
    words: Sequence[str],
    caption: str,
    **options: Any,
) -> Explanation:
    """The maps of one image, a row for each word of its answer. Arguments as for `maps` and `Explanation`."""
    values = maps(method, model, inputs, score, **options)
    values = values / np.maximum(values.sum(axis=(1, 2), keepdims=True), 1e-12)
    return Explanation(image, caption, list(words), values, method)


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


def scores(model: keras.Model, inputs: Any, variants: Iterable[np.ndarray], score: Score) -> np.ndarray:
    """The scores of K variants of the images, which the model gets in large batches.

    Args:
        model, inputs, score: As for `gradient`.
        variants: K times images (B, S, S, 3), in place of those of the inputs.

    Returns:
        (K, B) float32.
    """
    rows = len(checked_images(model, inputs))
    batches = _batches(model, inputs, variants, score)
    return np.concatenate([ops.convert_to_numpy(f(x)).reshape(-1, rows) for f, x in batches])


# --- helpers ---


def checked_images(model: keras.Model, inputs: Any) -> np.ndarray:
    """The images of the inputs, (B, S, S, 3) float32. Raises ValueError if there are none."""
    images = inputs.get(IMAGE) if isinstance(inputs, dict) else inputs
    if np.ndim(images) != 4 or np.shape(images)[-1] != 3:
        received = sorted(inputs) if isinstance(inputs, dict) else np.shape(inputs)
        raise ValueError(
            f"Expected inputs to be images (B, S, S, 3), or to have them as {IMAGE!r}: a task without images "
            f"has no map. Received: inputs={received} of {model.name!r}"
        )
    return np.asarray(images, np.float32)


def _batches(model, inputs, variants, score):
    """For about 256 rows at a time: a function from images to scores, and K variants, (K * B, S, S, 3)."""
    rows, variants = len(checked_images(model, inputs)), iter(variants)
    while some := list(itertools.islice(variants, max(1, ROWS // rows))):
        starts = range(0, rows * len(some), rows)
        repeated = keras.tree.map_structure(lambda *x: np.concatenate(x), *[inputs] * len(some))

        def function(x, starts=starts, repeated=repeated):
            outputs = model(_with(repeated, x), training=False)
            parts = (keras.tree.map_structure(lambda y, i=i: y[i : i + rows], outputs) for i in starts)
            return ops.concatenate([score(part) for part in parts])  # the score knows the rows of the inputs

        yield function, np.concatenate(some)


def _with(inputs, images):
    """The inputs with other images, as tensors."""
    inputs = inputs | {IMAGE: images} if isinstance(inputs, dict) else images
    return keras.tree.map_structure(ops.convert_to_tensor, inputs)


def checked_baseline(images: np.ndarray, baseline: Any) -> np.ndarray:
    """The baseline of images, of their shape, see `gradient_x_input`. Raises ValueError if it does not fit."""
    if baseline is None:
        baseline = np.median(images, axis=(1, 2), keepdims=True)
    baseline = np.asarray(baseline, np.float32)
    try:
        return np.broadcast_to(baseline, images.shape)
    except ValueError:
        raise ValueError(
            f"Expected baseline to be a number, a color (3,), or images of the size {images.shape[1:]}. "
            f"Received: baseline of {baseline.shape}"
        ) from None


def _derivative(function, inputs):
    """The derivative of scores (B,), a function of the inputs (B, ...), of their shape. As the score of a row
    does not depend on the other rows, it is that of their sum."""
    x = ops.convert_to_tensor(inputs)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            values = function(x)
        derivative = tape.gradient(values, x)
    elif backend == "jax":
        import jax

        derivative = jax.grad(lambda x: ops.sum(function(x)))(x)
    else:
        import torch

        x = x.detach().requires_grad_()
        (derivative,) = torch.autograd.grad(function(x).sum(), x)
    return ops.convert_to_numpy(derivative)


def _at_layer(model, inputs, score, layer):
    """The outputs of a layer, the derivative of the score with respect to them, (B, h, w, C) each, and the size
    of the images."""
    images = checked_images(model, inputs)
    grids = [
        x.name
        for x in model.layers
        if len(getattr(x.output, "shape", ())) == 4 and not isinstance(x, keras.layers.InputLayer)
    ]
    layer = layer or ("grid" if "grid" in grids else grids[-1] if grids else None)
    if layer not in grids:
        raise ValueError(
            f"Expected layer to be one with outputs (B, h, w, C), of {model.name!r} "
            f"{', '.join(grids) or 'none'}. Received: layer={layer!r}"
        )
    features = model.get_layer(layer).output
    # Two models, since not every backend differentiates with respect to what is computed on the way.
    cells = ops.convert_to_numpy(keras.Model(model.input, features)(_with(inputs, images), training=False))
    others = [name for name in inputs if name != IMAGE] if isinstance(inputs, dict) else []
    tensors = [ops.convert_to_tensor(inputs[name]) for name in others]
    upper = keras.Model([features, *(model.input[name] for name in others)], model.output)
    derivative = _derivative(lambda x: score(upper([x, *tensors], training=False)), cells)
    return cells, derivative, images.shape[1:3]


def enlarged(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Interpolates between cells: (B, h, w) → (B, S, S), 0 in place of what is below."""
    grid = ops.relu(ops.convert_to_tensor(values))[..., None]
    return ops.convert_to_numpy(ops.image.resize(grid, size, data_format="channels_last"))[..., 0]
