"""Text to image (chapter 5.3): the graph.

    tokens ─ encoder: embedding → LSTM → text embedding ─ decoder: dense grid → Conv2DTranspose ... → image

Encoder and decoder are Functional models: `model.get_layer("encoder")`, `model.get_layer("decoder")`. With
`adversarial=True` the decoder also takes noise and has a second stage, and both are trained as a GAN: see
`gan/model.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import keras

from mmkeras._utils import checks, presets
from mmkeras.nn import losses, optimizers
from mmkeras.nn.convolutions import vector_to_image
from mmkeras.nn.encoders import text_encoder
from mmkeras.text.vocabulary import Vocabulary
from mmkeras.text_to_image.gan import networks
from mmkeras.text_to_image.gan.model import Adversarial

TASK = "text_to_image"
EPOCHS = 16  # passes over the toy world that the preset "toy" is made for


def check_image_size(image_size: int) -> None:
    """Raises ValueError unless `image_size` is a power of two from 16 to 256."""
    if not isinstance(image_size, int) or image_size not in (16, 32, 64, 128, 256):
        raise ValueError(
            f"Expected image_size to be a power of two from 16 to 256, since each layer doubles the image. "
            f"Received: image_size={image_size!r}"
        )


@dataclass(frozen=True)
class TextToImageConfig:
    """Sizes of the graph and settings of its training. The defaults are the document's LSTM of 256; grid and
    halving channels as in DCGAN (Radford et al. 2016, arXiv:1511.06434), condition and noise as in StackGAN.

    Attributes:
        image_size: int. Side in pixels, a power of two from 16 to 256.
        units: int. Units of the LSTM, the size of the text embedding.
        embedding_dim: int. Size of the token embedding.
        channels: int. Channels of the first grid, (4, 4, channels).
        condition_dim, noise_dim: int. Sizes of the conditioning vector and the noise (adversarial model).
        learning_rate: float. Initial learning rate of Adam.
        decay_steps: int, optional. Steps of the cosine decay to a fiftieth. None: constant.
    """

    image_size: int = 64
    units: int = 256
    embedding_dim: int = 256
    channels: int = 512
    condition_dim: int = 128
    noise_dim: int = 100
    learning_rate: float = 1e-3
    decay_steps: int | None = None

    def __post_init__(self):
        check_image_size(self.image_size)
        sizes = ("units", "embedding_dim", "channels", "condition_dim", "noise_dim")
        checks.ints(1, **{name: getattr(self, name) for name in sizes})
        optimizers.check_schedule(self.learning_rate, self.decay_steps)


PRESETS = {
    "document": TextToImageConfig(),
    "toy": TextToImageConfig(
        units=128,
        embedding_dim=64,
        channels=128,
        condition_dim=64,
        noise_dim=16,
        learning_rate=2e-3,
        decay_steps=EPOCHS * 4000 // 16,  # of the toy world's 4,000 images, in batches of 16
    ),
}


def build(
    preset: str | TextToImageConfig = "toy",
    *,
    vocabulary: Vocabulary | int | Sequence[str] = 10_000,
    adversarial: bool = False,
    compile: bool = True,
    **overrides,
) -> keras.Model:
    """Builds a compiled text-to-image model: an LSTM and transposed convolutions (section 5.3 of the document).

    Input:  {"tokens": (B, T) int32}, with <start> and <end>, padded with 0
    Output: image (B, image_size, image_size, 3) float32 in 0..1. For the adversarial model see `Adversarial`.

    Args:
        preset: `"toy"` (learns the toy world in minutes), `"document"` (an LSTM of 256, 64 pixels, for
            photographs), or a `TextToImageConfig`. Defaults to `"toy"`.
        vocabulary: `Vocabulary`, list of words, or int, its size. Defaults to 10,000.
        adversarial: bool. Whether to build a GAN with noise, which generates sharp images. The model without it
            generates the average of all images that a text allows. Defaults to False.
        compile: bool. Whether to compile the model, with Adam and the binary cross-entropy of the pixels or the
            adversarial losses. Defaults to True.
        **overrides: Sizes in place of the preset's, see `TextToImageConfig`.

    Raises:
        ValueError: if the preset is unknown or a value is invalid.
        TypeError: for an unknown override.
    """
    config = presets.with_overrides(PRESETS, preset, overrides)
    size, units = config.image_size, config.units
    vocabulary = Vocabulary.of(vocabulary)

    encoder = text_encoder(vocabulary, config.embedding_dim, units)
    if adversarial:
        model = Adversarial(
            encoder,
            networks.two_stage_generator(
                units, size, config.channels, condition_dim=config.condition_dim, noise_dim=config.noise_dim
            ),
            networks.discriminator(size, units),
            networks.image_text_matcher(len(vocabulary), size, units),
            networks.posterior_network(size, config.noise_dim),
            name=TASK,
        )
        if compile:
            # GAN training oscillates: a lower learning rate and less momentum damp it (beta_1 as in DCGAN), and
            # averaged weights generate better images than those of the last step.
            rate = optimizers.cosine_decay(0.75 * config.learning_rate, config.decay_steps)
            optimizers.compile(model, optimizers.AveragedAdam(rate, beta_1=0.5, beta_2=0.99, momentum=0.99))
        return model
    decoder = plain_decoder(units, size, config.channels)
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    model = keras.Model({"tokens": tokens}, decoder(encoder(tokens)), name=TASK)
    if compile:
        adam = optimizers.adam(config.learning_rate, config.decay_steps)
        optimizers.compile(model, adam, loss=losses.PixelCrossentropy())
    return model


def plain_decoder(units: int, image_size: int, channels: int) -> keras.Model:
    """Text embedding (B, units) → image (B, image_size, image_size, 3) in 0..1.

    Args:
        units: int. Size of the text embedding.
        image_size: int. Side in pixels.
        channels: int. Channels of the first grid, (4, 4, channels). Each layer halves them.
    """
    text = keras.Input((units,), name="text")
    return keras.Model(text, vector_to_image(text, image_size, channels, "image"), name="decoder")
