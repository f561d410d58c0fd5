"""Text to image (chapters 3.4, 4.3 and 5.3): the adversarial model.

    tokens ─ encoder → text ─ condition + noise ─ stage I: sketch, half the size ─ stage II → image
                        └──────── discriminator ← image (painted or real) ──────────────┘

Stage I is the document's model and learns from its pixel loss; its sketch is an average of all that the text
allows. Stage II refines it (StackGAN: Zhang et al. 2017, arXiv:1612.03242) and learns from a discriminator
alone, which also tells whether picture and text belong together (matching-aware: Reed et al. 2016,
arXiv:1605.05396).
"""

import keras
from keras import ops

from mmkeras.text_to_image.blocks import SEED, doubled, grown, normalised, picture
from mmkeras.vocabulary import SPECIAL

# Of the losses, beside the adversarial one. The sketch's is a mean over pixels of which few are shape.
PIXELS, MATCHING, WORDS, CONDITION = 20.0, 1.0, 0.3, 5e-4


def two_stage_decoder(
    units: int, image_size: int, channels: int, condition_dim: int, noise_dim: int
) -> keras.Model:
    """Text and noise → picture, with conditioning augmentation: a text stands for a normal distribution around
    it, from which each picture draws, so that the space between the texts of training is painted as well.

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
    sketch = grown(drawn, image_size // 2, channels, "sketch")  # (B, S/2, S/2, 3)

    # --- stage II ---
    x = normalised(
        keras.layers.Conv2D(32, 4, strides=2, padding="same", use_bias=False)(sketch)
    )  # (B, S/4, S/4, 32)
    seed = keras.layers.Dense(SEED * SEED * 32, use_bias=False)(drawn)
    seed = normalised(keras.layers.Reshape((SEED, SEED, 32))(seed))
    if (times := image_size // 4 // SEED) > 1:
        seed = keras.layers.UpSampling2D(times)(seed)
    x = keras.layers.Concatenate()([x, seed])
    x = normalised(_convolved(x))
    refined = keras.layers.BatchNormalization(momentum=0.9)(_convolved(normalised(_convolved(x))))
    x = keras.layers.ReLU()(keras.layers.Add()([x, refined]))
    image = picture(doubled(x, 32), "image")
    return keras.Model([text, noise], [image, sketch, mean, log_variance], name="decoder")


def _convolved(x):
    return keras.layers.Conv2D(48, 3, padding="same", use_bias=False)(x)


def discriminator(vocabulary_size: int, image_size: int, units: int, features: int = 128) -> keras.Model:
    """Picture and text → is it real, and do they belong together: a projection discriminator (Miyato & Koyama
    2018, arXiv:1802.05637), whose `seen` and `said` are also compared across the batch.

    Inputs:  image (B, S, S, 3) in 0..1 · text (B, units)
    Outputs: real (B, 1) · seen, said (B, features) · words (B, V) logits, which words the picture calls for
    """
    image = keras.Input((image_size, image_size, 3), name="image")
    text = keras.Input((units,), name="text")
    x = keras.layers.Rescaling(2.0, offset=-1)(image)
    side, filters = image_size, 16
    while side > 8:
        x = _leaky(keras.layers.Conv2D(filters, 4, strides=2, padding="same")(x))
        side, filters = side // 2, min(2 * filters, 96)
    # What there is, wherever it is; and where there is anything.
    what = keras.layers.GlobalMaxPooling2D()(_leaky(keras.layers.Conv2D(96, 3, padding="same")(x)))
    x = _leaky(keras.layers.Conv2D(96, 4, strides=2, padding="same")(x))
    where = keras.layers.Flatten()(_leaky(keras.layers.Conv2D(48, 3, padding="same")(x)))
    x = keras.layers.Concatenate()([where, what])
    outputs = [
        keras.layers.Dense(1, name="real")(x),
        keras.layers.Dense(features, name="seen")(x),
        keras.layers.Dense(features, name="said")(text),
        keras.layers.Dense(vocabulary_size, name="words")(x),
    ]
    return keras.Model([image, text], outputs, name="discriminator")


def _leaky(x):
    return keras.layers.LeakyReLU(0.2)(x)


@keras.saving.register_keras_serializable("mmkeras")
class Adversarial(keras.Model):
    """Encoder, decoder and discriminator, trained together by plain `fit` on every backend.

    Both sides are one loss: in the discriminator's part the painted picture is a constant, in the painter's
    part the discriminator's weights are, so that a single gradient holds each side's own. The text encoder
    learns with both, from real pictures most of all.

    The history has `generator_loss` and `discriminator_loss`; `variety`, the spread of a batch's painted
    pictures relative to the real ones', which falls to 0 in a mode collapse; and `pixels`, the sketch's
    cross-entropy.

    Inputs:  tokens (B, T) int32
    Outputs: image (B, S, S, 3), sketch (B, S/2, S/2, 3) float32 in 0..1, mean, log_variance, text
    """

    def __init__(self, encoder: keras.Model, decoder: keras.Model, discriminator: keras.Model, **kwargs):
        super().__init__(**kwargs)
        self.encoder, self.decoder, self.discriminator = encoder, decoder, discriminator
        self.noise_dim = decoder.input_shape[1][-1]
        self.random = keras.random.SeedGenerator()
        names = ("generator_loss", "discriminator_loss", "variety", "pixels")
        self.followed = {name: keras.metrics.Mean(name) for name in names}
        self.built = True

    def call(self, inputs, training=False):
        tokens = inputs["tokens"]
        text = self.encoder(tokens, training=training)
        noise = keras.random.normal((ops.shape(tokens)[0], self.noise_dim), seed=self.random)
        return [*self.decoder([text, noise], training=training), text]

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        image, sketch, mean, log_variance, text = y_pred
        tokens = x["tokens"]
        bag = ops.max(ops.one_hot(tokens, self.discriminator.output_shape[-1][-1]), axis=1)  # (B, V)
        # a text that is the same is not a wrong one
        same = ops.cast(ops.all(ops.equal(tokens[:, None], tokens[None]), axis=-1), "float32")  # (B, B)

        # --- the discriminator's part: the painted picture is given ---
        real, seen, said, words = self.discriminator([y, text], training=training)
        fake, fake_seen, *_ = self.discriminator([ops.stop_gradient(image), text], training=training)
        wrong = ops.roll(said, 1, axis=0)
        discriminator_loss = (
            ops.mean(ops.relu(1 - real - _projected(seen, said)))
            + 0.5 * ops.mean(ops.relu(1 + real + _projected(seen, wrong)))
            + 0.5 * ops.mean(ops.relu(1 + fake + _projected(fake_seen, said)))
            + MATCHING * _matching(seen, said, same)
            + WORDS * _naming(words, bag)
        )

        # --- the painter's part: the discriminator is given ---
        given = [ops.stop_gradient(variable.value) for variable in self.discriminator.trainable_variables]
        others = [variable.value for variable in self.discriminator.non_trainable_variables]
        (fooled, seen, _, words), _ = self.discriminator.stateless_call(
            given, others, [image, text], training=training
        )
        said = ops.stop_gradient(said)
        pixels = ops.mean(ops.binary_crossentropy(ops.average_pool(y, 2, 2), sketch))
        # from the normal distribution that the noise is drawn from (Kingma & Welling 2014, arXiv:1312.6114)
        divergence = ops.sum(ops.exp(log_variance) + mean**2 - 1 - log_variance, axis=-1) / 2
        generator_loss = (
            -ops.mean(fooled + _projected(seen, said))
            + MATCHING * _matching(seen, said, same)
            + WORDS * _naming(words, bag)
            + PIXELS * pixels
            + CONDITION * ops.mean(divergence)
        )

        variety = ops.mean(ops.std(image, axis=0)) / (ops.mean(ops.std(y, axis=0)) + 1e-6)
        for name, value in (
            ("generator_loss", generator_loss),
            ("discriminator_loss", discriminator_loss),
            ("variety", variety),
            ("pixels", pixels),
        ):
            self.followed[name].update_state(value)
        return generator_loss + discriminator_loss

    def get_config(self):
        parts = {name: getattr(self, name) for name in ("encoder", "decoder", "discriminator")}
        parts = {name: keras.saving.serialize_keras_object(part) for name, part in parts.items()}
        return {"name": self.name, **parts}

    @classmethod
    def from_config(cls, config):
        parts = ("encoder", "decoder", "discriminator")
        return cls(*[keras.saving.deserialize_keras_object(config.pop(name)) for name in parts], **config)


def _projected(seen, said):
    """How well pictures and texts (B, F) go together, (B, 1); scaled so that it begins near 1."""
    return ops.sum(seen * said, axis=-1, keepdims=True) / seen.shape[-1] ** 0.5


def _matching(seen, said, same):
    """Which of the batch's texts is each picture's: cross-entropy of the cosines at temperature 0.1, as XMC-GAN
    has it (Zhang et al. 2021, arXiv:2101.04702). A single wrong text a picture would hardly ever differ in the
    shape alone."""
    own = ops.eye(ops.shape(same)[0])
    cosines = ops.matmul(ops.normalize(seen, axis=-1), ops.transpose(ops.normalize(said, axis=-1)))
    chances = ops.log_softmax(10 * cosines - 1e9 * (same - own))
    return -ops.mean(ops.sum(chances * own, axis=-1))


def _naming(words, bag):
    """Which words a picture calls for: binary cross-entropy in sum over the vocabulary, after the auxiliary
    classifiers of Odena et al. 2017 (arXiv:1610.09585)."""
    words, bag = words[:, len(SPECIAL) :], bag[:, len(SPECIAL) :]
    return ops.mean(ops.sum(ops.softplus(words) - bag * words, axis=-1))
