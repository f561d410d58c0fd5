"""Text to image: the networks that the adversarial model is made of, see `model.py`."""

import keras
from keras import ops

from mmkeras.nn import layers
from mmkeras.nn.convolutions import SEED, picture, what_and_where


def two_stage_decoder(
    units: int, image_size: int, channels: int, condition_dim: int, noise_dim: int
) -> keras.Model:
    """Text and noise → picture, in two stages (StackGAN: Zhang et al. 2017, arXiv:1612.03242): a sketch of half
    the size by the document's stack of transposed convolutions, then a refined picture.

    The text is augmented as there: it stands for a normal distribution around it, from which each picture
    draws, so that the space between the texts of training is painted as well. Text and noise reach every layer
    (conditional batch normalisation, as in DF-GAN: Tao et al. 2022, arXiv:2008.05865): the seed says where a
    thing is, and what it looks like need not be learned again for every place.

    Inputs:  text (B, units) · noise (B, condition_dim + noise_dim) normal
    Outputs: image (B, S, S, 3) · sketch (B, S/2, S/2, 3), both in 0..1 · mean, log_variance (B, condition_dim)
    """
    text = keras.Input((units,), name="text")
    noise = keras.Input((condition_dim + noise_dim,), name="noise")
    mean = keras.layers.Dense(condition_dim, name="mean")(text)
    # It begins with little variance: noise as loud as the text would drown it before it has been learned.
    quiet = keras.initializers.Constant(-4.0)
    log_variance = keras.layers.Dense(condition_dim, bias_initializer=quiet, name="log_variance")(text)
    condition = mean + ops.exp(0.5 * log_variance) * noise[:, :condition_dim]  # (B, D)
    drawn = keras.layers.Concatenate()([condition, noise[:, condition_dim:]])  # (B, D + Z)

    # --- stage I ---
    x = keras.layers.Dense(SEED * SEED * channels, use_bias=False)(drawn)
    x = _modulated(keras.layers.Reshape((SEED, SEED, channels))(x), drawn)
    side = SEED
    while 4 * side < image_size:
        side, channels = 2 * side, max(channels // 2, 32)
        x = keras.layers.Conv2DTranspose(channels, 4, strides=2, padding="same", use_bias=False)(x)
        x = _modulated(x, drawn)
    sketch = picture(x, "sketch")  # (B, S/2, S/2, 3)

    # --- stage II ---
    seen = keras.layers.Conv2D(32, 4, strides=2, padding="same", use_bias=False)(sketch)
    x = keras.layers.Concatenate()([_modulated(seen, drawn), x])  # (B, S/4, S/4, C)
    for _ in range(2):
        x = _modulated(_convolved(x, 48), drawn)
    # enlarged, then convolved: transposed convolutions would leave a checkerboard
    x = _modulated(_convolved(keras.layers.UpSampling2D()(x), 32), drawn)  # (B, S/2, S/2, 32)
    # float32 also under mixed precision, as `blocks.picture`
    image = keras.layers.Conv2D(3, 3, padding="same", activation="sigmoid", dtype="float32", name="image")(
        keras.layers.UpSampling2D()(x)
    )
    return keras.Model([text, noise], [image, sketch, mean, log_variance], name="decoder")


def _convolved(x, filters):
    return keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)


def _modulated(x, drawn):
    filters = x.shape[-1]
    x = layers.BatchNormalization(momentum=0.95, center=False, scale=False)(x)
    scale = keras.layers.Dense(filters, bias_initializer="ones")(drawn)
    shift = keras.layers.Dense(filters)(drawn)
    return _leaky(x * scale[:, None, None] + shift[:, None, None])


def discriminator(image_size: int, units: int, features: int = 128) -> keras.Model:
    """Picture and text → is it real, and do they belong together: a projection discriminator (Miyato & Koyama
    2018, arXiv:1802.05637).

    Inputs:  image (B, S, S, 3) in 0..1 · text (B, units)
    Outputs: real (B, 1) · seen, said (B, features), whose product tells whether they belong together
    """
    image = keras.Input((image_size, image_size, 3), name="image")
    text = keras.Input((units,), name="text")
    x = keras.layers.Rescaling(2.0, offset=-1)(image)
    x = _down_to_eight(x, 96)
    # What there is, wherever it is; and where there is anything.
    what = keras.layers.GlobalMaxPooling2D()(_leaky(keras.layers.Conv2D(96, 3, padding="same")(x)))
    x = _leaky(keras.layers.Conv2D(96, 4, strides=2, padding="same")(x))
    where = keras.layers.Flatten()(_leaky(keras.layers.Conv2D(48, 3, padding="same")(x)))
    x = keras.layers.Concatenate()([where, what])
    outputs = [
        keras.layers.Dense(1, name="real")(x),
        keras.layers.Dense(features, name="seen")(x),
        keras.layers.Dense(features, name="said")(text),
    ]
    return keras.Model([image, text], outputs, name="discriminator")


def _down_to_eight(x, most):
    filters = 16
    while x.shape[1] > 8:
        x = _leaky(keras.layers.Conv2D(filters, 4, strides=2, padding="same")(x))
        filters = min(2 * filters, most)
    return x


def _leaky(x):
    return keras.layers.LeakyReLU(0.2)(x)


def matcher(vocabulary_size: int, image_size: int, units: int, features: int = 128) -> keras.Model:
    """Picture and text → do they belong together. It learns from real pictures alone, as the pretrained one of
    AttnGAN does (Xu et al. 2018, arXiv:1711.10485), though here beside the painter.

    Inputs:  image (B, S, S, 3) in 0..1 · text (B, units)
    Outputs: seen, said (B, features), to be compared · words (B, V) logits, which words the picture calls for
    """
    image = keras.Input((image_size, image_size, 3), name="image")
    text = keras.Input((units,), name="text")
    x = what_and_where(keras.layers.Rescaling(2.0, offset=-1)(image))
    x = keras.layers.Dense(features, activation="relu")(x)
    outputs = [
        keras.layers.Dense(features, name="seen")(x),
        keras.layers.Dense(features, name="said")(text),
        keras.layers.Dense(vocabulary_size, name="words")(x),
    ]
    return keras.Model([image, text], outputs, name="matcher")


def recogniser(image_size: int, noise_dim: int) -> keras.Model:
    """Picture → the noise that it could have been painted from: mean, log_variance (B, noise_dim) of a normal
    distribution, as in a variational autoencoder.

    Input: image (B, S, S, 3) in 0..1
    """
    image = keras.Input((image_size, image_size, 3), name="image")
    x = _down_to_eight(keras.layers.Rescaling(2.0, offset=-1)(image), 64)
    x = _leaky(keras.layers.Conv2D(32, 3, padding="same")(x))
    x = _leaky(keras.layers.Dense(64)(keras.layers.Flatten()(x)))
    certain = keras.initializers.Constant(-2.0)
    outputs = [
        keras.layers.Dense(noise_dim, name="mean")(x),
        keras.layers.Dense(noise_dim, bias_initializer=certain, name="log_variance")(x),
    ]
    return keras.Model(image, outputs, name="recogniser")
