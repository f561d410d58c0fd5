"""Text to image (chapter 5.3): the graph.

    tokens ─ encoder: embedding → LSTM → text ─ decoder: dense seed grid → Conv2DTranspose ... → image

Both halves are Functional models by themselves, found by name: `model.get_layer("encoder")` and
`model.get_layer("decoder")`. With `adversarial=True` the decoder takes noise as well and refines its picture in
a second stage, and a discriminator teaches both: see `gan/model.py`.
"""

from collections.abc import Sequence

import keras
from keras import ops

from mmkeras._utils import checks
from mmkeras.data.vocabulary import PAD, Vocabulary
from mmkeras.nn import layers
from mmkeras.nn.convolutions import grown
from mmkeras.text_to_image.gan.model import Adversarial
from mmkeras.text_to_image.gan.networks import discriminator, matcher, recogniser, two_stage_decoder

TASK = "text_to_image"

PRESETS = {
    # the document's LSTM of 256; seed grid and halving channels as in DCGAN (Radford et al., arXiv:1511.06434)
    "document": {
        "image_size": 64,
        "units": 256,
        "embedding_dim": 256,
        "channels": 512,
        "condition_dim": 128,  # these two of the adversarial model alone, as in StackGAN
        "noise_dim": 100,
        "learning_rate": 1e-3,
        "decay_steps": None,
    },
    "toy": {
        "image_size": 64,
        "units": 128,
        "embedding_dim": 64,
        "channels": 128,
        "condition_dim": 64,
        "noise_dim": 16,
        "learning_rate": 2e-3,
        "decay_steps": 4000,  # sixteen passes over the toy world's 4,000 pictures, 16 a step
    },
}


def build(
    preset: str = "toy",
    *,
    vocabulary: Vocabulary | int | Sequence[str] = 10_000,
    adversarial: bool = False,
    compile: bool = True,
    **overrides,
) -> keras.Model:
    """Text to image: an LSTM reads the text, transposed convolutions paint it (section 5.3 of the document).

    Inputs:  tokens (B, T) int32, with <start> and <end>, padded with 0
    Output:  image (B, image_size, image_size, 3) float32 in 0..1; of the adversarial model see `Adversarial`

    Args:
        preset: `"toy"` (learns the toy world in minutes) or `"document"` (an LSTM of 256, 64 pixels, for
            photographs).
        vocabulary: the words or characters, a `Vocabulary`, or only its size.
        adversarial: a sharp model instead of one that averages, with noise, see `Adversarial`.
        compile: with Adam, and the binary cross-entropy of the pixels or the adversarial losses; False leaves
            it to the caller.
        overrides: of the preset: `image_size` (a power of two from 16 to 256), `units`, `embedding_dim`,
            `channels` (of the seed grid), `condition_dim` and `noise_dim` (adversarial), `learning_rate`, and
            `decay_steps`, after which it has fallen to a fiftieth along a cosine (None: it stays).

    Raises:
        ValueError, TypeError: a preset, an override or a size that nobody knows.
    """
    sizes = layers.with_overrides(PRESETS, preset, overrides)
    check_image_size(sizes["image_size"])
    counts = ("units", "embedding_dim", "channels", "condition_dim", "noise_dim")
    checks.ints(1, **{name: sizes[name] for name in counts})
    layers.check_schedule(sizes["learning_rate"], sizes["decay_steps"])
    vocabulary = Vocabulary.of(vocabulary)

    encoder = text_encoder(vocabulary, sizes["embedding_dim"], sizes["units"])
    if adversarial:
        names = ("units", "image_size", "channels", "condition_dim", "noise_dim")
        decoder = two_stage_decoder(**{name: sizes[name] for name in names})
        teachers = (
            discriminator(sizes["image_size"], sizes["units"]),
            matcher(len(vocabulary), sizes["image_size"], sizes["units"]),
            recogniser(sizes["image_size"], sizes["noise_dim"]),
        )
        model = Adversarial(encoder, decoder, *teachers, name=TASK)
        if compile:
            # The weights' moving averages paint better than the weights, which the two sides drive to and fro.
            rate = layers.decaying(0.75 * sizes["learning_rate"], sizes["decay_steps"])
            model.compile(layers.AveragedAdam(rate, beta_1=0.5, beta_2=0.99, momentum=0.99))
        return model
    decoder = plain_decoder(sizes["units"], sizes["image_size"], sizes["channels"])
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    model = keras.Model({"tokens": tokens}, decoder(encoder(tokens)), name=TASK)
    if compile:
        model.compile(
            layers.adam(sizes["learning_rate"], sizes["decay_steps"]), loss=layers.PixelCrossentropy()
        )
    return model


def plain_decoder(units: int, image_size: int, channels: int) -> keras.Model:
    """Text (B, units) → image (B, image_size, image_size, 3)."""
    text = keras.Input((units,), name="text")
    return keras.Model(text, grown(text, image_size, channels, "image"), name="decoder")


def text_encoder(vocabulary: Vocabulary, embedding_dim: int, units: int) -> keras.Model:
    """Token ids (B, T) int32 → text (B, units): an LSTM's last output, of the real tokens alone."""
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    x = layers.TokenEmbedding(vocabulary, embedding_dim, name="embedding")(tokens)  # (B, T, E)
    text = layers.MaskedLSTM(units, name="lstm")(x, mask=ops.not_equal(tokens, PAD))  # (B, U)
    return keras.Model(tokens, text, name="encoder")


def check_image_size(image_size: int) -> None:
    """Raises ValueError where a stack of doublings does not end at that size."""
    if not isinstance(image_size, int) or image_size not in (16, 32, 64, 128, 256):
        raise ValueError(
            f"Expected image_size to be a power of two from 16 to 256, since each layer doubles the picture. "
            f"Received: image_size={image_size!r}"
        )
