"""Text to image (chapter 4.3): the networks of the adversarial model, see `model.py`."""

import keras
from keras import ops

from mmkeras.nn import layers
from mmkeras.nn.convolutions import GRID_SIZE, image_features, output_image


def two_stage_generator(
    units: int, image_size: int, channels: int, condition_dim: int, noise_dim: int
) -> keras.Model:
    """Text and noise → image, in two stages (StackGAN: Zhang et al. 2017, arXiv:1612.03242).

    Stage 1 generates an image of half the size, by the document's stack of transposed convolutions. Stage 2
    refines it. Text and noise modulate every layer (conditional batch normalization, as in DF-GAN: Tao et al.
    2022, arXiv:2008.05865), so that the grid has to represent where the shape is, but not how it looks.

    Inputs:  text (B, units) · noise (B, condition_dim + noise_dim), standard normal
    Outputs: image (B, S, S, 3) · stage-1 image (B, S/2, S/2, 3), both in 0..1 ·
             mean, log_variance (B, condition_dim)

    Args:
        units: int. Size of the text embedding.
        image_size: int. Side S in pixels, a power of two from 16 to 256.
        channels: int. Channels of the first grid, (4, 4, channels). Each layer halves them.
        condition_dim: int. Size of the augmented text.
        noise_dim: int. Size of the noise that is concatenated with the augmented text.

    Returns:
        A model named `"decoder"`, as the decoder of the model without adversarial training.
    """
    text = keras.Input((units,), name="text")
    noise = keras.Input((condition_dim + noise_dim,), name="noise")

    # --- conditioning augmentation (StackGAN, section 3.2): a sample from a normal distribution around the
    # text, so that training covers the space between the texts ---
    mean = _head(condition_dim, "mean")(text)  # (B, D)
    # The variance starts small, since noise as strong as the text would hide it at the start of training.
    small = keras.initializers.Constant(-4.0)
    log_variance = _head(condition_dim, "log_variance", bias_initializer=small)(text)  # (B, D)
    augmented = mean + ops.exp(0.5 * log_variance) * noise[:, :condition_dim]  # (B, D)
    condition = keras.layers.Concatenate()([augmented, noise[:, condition_dim:]])  # (B, D + Z)

    # --- stage 1 ---
    x = keras.layers.Dense(GRID_SIZE * GRID_SIZE * channels, use_bias=False)(condition)  # (B, 16 C)
    x = _modulated(keras.layers.Reshape((GRID_SIZE, GRID_SIZE, channels))(x), condition)  # (B, 4, 4, C)
    side = GRID_SIZE
    while 4 * side < image_size:
        side, channels = 2 * side, max(channels // 2, 32)
        x = keras.layers.Conv2DTranspose(channels, 4, strides=2, padding="same", use_bias=False)(x)
        x = _modulated(x, condition)  # (B, side, side, channels), at last (B, S/4, S/4, C)
    stage_1_image = output_image(x, "stage_1_image")  # (B, S/2, S/2, 3)

    # --- stage 2 ---
    encoded = keras.layers.Conv2D(32, 4, strides=2, padding="same", use_bias=False)(stage_1_image)
    # (B, S/4, S/4, 32) and (B, S/4, S/4, C)
    x = keras.layers.Concatenate()([_modulated(encoded, condition), x])  # (B, S/4, S/4, 32 + C)
    for _ in range(2):
        x = _modulated(_convolved(x, 48), condition)  # (B, S/4, S/4, 48)
    # Upsampling and a convolution: a transposed convolution would leave a checkerboard pattern. Bilinear, since
    # copied pixels would make blocks of edges, which the convolution has to smooth.
    x = keras.layers.UpSampling2D(interpolation="bilinear")(x)  # (B, S/2, S/2, 48)
    x = _modulated(_convolved(x, 32), condition)  # (B, S/2, S/2, 32)
    x = keras.layers.UpSampling2D(interpolation="bilinear")(x)  # (B, S, S, 32)
    # Without a convolution at full size the smallest detail would be 2 x 2 pixels: circles become octagons.
    x = _modulated(_convolved(x, 16), condition)  # (B, S, S, 16)
    # float32 also under mixed precision: the cross-entropy of a sigmoid needs it
    image = keras.layers.Conv2D(3, 3, padding="same", activation="sigmoid", dtype="float32", name="image")(x)
    return keras.Model([text, noise], [image, stage_1_image, mean, log_variance], name="decoder")


def discriminator(image_size: int, units: int, features: int = 128) -> keras.Model:
    """Image and text → is the image real, and does the text match it?

    A projection discriminator (Miyato & Koyama 2018, arXiv:1802.05637): `losses.projection_score` of the two
    embeddings is the score of the pair.

    Inputs:  image (B, S, S, 3) in 0..1 · text (B, units)
    Outputs: realness (B, 1) · image_embedding, text_embedding (B, features)

    Args:
        image_size: int. Side S in pixels.
        units: int. Size of the input text embedding.
        features: int. Size F of the embeddings. Defaults to 128.
    """
    image = keras.Input((image_size, image_size, 3), name="image")
    text = keras.Input((units,), name="text")
    x = _downsampled(keras.layers.Rescaling(2.0, offset=-1)(image), 96)  # (B, 8, 8, C)
    # global features: what the image shows, at any position
    pooled = _leaky(keras.layers.Conv2D(96, 3, padding="same")(x))  # (B, 8, 8, 96)
    pooled = keras.layers.GlobalMaxPooling2D()(pooled)  # (B, 96)
    # local features: what each grid cell shows
    x = _leaky(keras.layers.Conv2D(96, 4, strides=2, padding="same")(x))  # (B, 4, 4, 96)
    cells = keras.layers.Flatten()(_leaky(keras.layers.Conv2D(48, 3, padding="same")(x)))  # (B, 768)
    x = keras.layers.Concatenate()([cells, pooled])  # (B, 864)
    outputs = [
        _head(1, "realness")(x),  # (B, 1)
        _head(features, "image_embedding")(x),  # (B, F)
        _head(features, "text_embedding")(text),  # (B, F)
    ]
    return keras.Model([image, text], outputs, name="discriminator")


def image_text_matcher(vocabulary_size: int, image_size: int, units: int, features: int = 128) -> keras.Model:
    """Image and text → embeddings of both, and logits of the words in the image's caption.

    The role of AttnGAN's pretrained image and text encoders (Xu et al. 2018, arXiv:1711.10485), here trained
    together with the generator, on real images only.

    Inputs:  image (B, S, S, 3) in 0..1 · text (B, units)
    Outputs: image_embedding, text_embedding (B, features) · words (B, V) logits

    Args:
        vocabulary_size: int. Number of token ids V.
        image_size: int. Side S in pixels.
        units: int. Size of the input text embedding.
        features: int. Size F of the embeddings. Defaults to 128.
    """
    image = keras.Input((image_size, image_size, 3), name="image")
    text = keras.Input((units,), name="text")
    x = image_features(keras.layers.Rescaling(2.0, offset=-1)(image))  # (B, 608)
    x = keras.layers.Dense(features, activation="relu")(x)  # (B, F)
    outputs = [
        _head(features, "image_embedding")(x),  # (B, F)
        _head(features, "text_embedding")(text),  # (B, F)
        _head(vocabulary_size, "words")(x),  # (B, V)
    ]
    return keras.Model([image, text], outputs, name="image_text_matcher")


def posterior_network(image_size: int, noise_dim: int) -> keras.Model:
    """Image → normal distribution of the noise that generates it, as the encoder of a variational autoencoder
    (Kingma & Welling 2014, arXiv:1312.6114).

    Input:   image (B, S, S, 3) in 0..1
    Outputs: mean, log_variance (B, noise_dim)

    Args:
        image_size: int. Side S in pixels.
        noise_dim: int. Size of the noise.
    """
    image = keras.Input((image_size, image_size, 3), name="image")
    x = _downsampled(keras.layers.Rescaling(2.0, offset=-1)(image), 64)  # (B, 8, 8, C)
    x = _leaky(keras.layers.Conv2D(32, 3, padding="same")(x))  # (B, 8, 8, 32)
    x = _leaky(keras.layers.Dense(64)(keras.layers.Flatten()(x)))  # (B, 64)
    # The variance starts small, so that the noise is informative and the decoder learns to use it.
    small = keras.initializers.Constant(-2.0)
    outputs = [
        _head(noise_dim, "mean")(x),  # (B, Z)
        _head(noise_dim, "log_variance", bias_initializer=small)(x),  # (B, Z)
    ]
    return keras.Model(image, outputs, name="posterior_network")


def frozen_call(network: keras.Model, inputs, training: bool):
    """Calls a network with its weights as constants: gradients reach the inputs only.

    Args:
        network: The network.
        inputs: Inputs of the network.
        training: bool. Whether it is called in training mode.

    Returns:
        Outputs of the network. The state of its layers does not change.
    """
    weights = [ops.stop_gradient(variable.value) for variable in network.trainable_variables]
    state = [variable.value for variable in network.non_trainable_variables]
    outputs, _ = network.stateless_call(weights, state, inputs, training=training)
    return outputs


def _head(units, name, **options):
    # float32 also under mixed precision: the losses are computed from it
    return keras.layers.Dense(units, dtype="float32", name=name, **options)


def _convolved(x, filters):
    """(B, H, W, C) → (B, H, W, filters)"""
    return keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)


def _modulated(x, condition):
    """Conditional batch normalization: (B, H, W, C) → (B, H, W, C), scale and shift from (B, D + Z)."""
    filters = x.shape[-1]
    x = layers.BatchNormalization(momentum=0.95, center=False, scale=False)(x)
    scale = keras.layers.Dense(filters, bias_initializer="ones")(condition)  # (B, C)
    shift = keras.layers.Dense(filters)(condition)  # (B, C)
    return _leaky(x * scale[:, None, None] + shift[:, None, None])  # (B, H, W, C)


def _downsampled(x, max_filters):
    """(B, S, S, C) → (B, 8, 8, filters), each layer with twice the filters of the one before."""
    filters = 16
    while x.shape[1] > 8:
        x = _leaky(keras.layers.Conv2D(filters, 4, strides=2, padding="same")(x))  # (B, S/2, S/2, filters)
        filters = min(2 * filters, max_filters)
    return x


def _leaky(x):
    return keras.layers.LeakyReLU(0.2)(x)
