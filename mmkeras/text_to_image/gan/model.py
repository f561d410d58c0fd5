"""Text to image (chapters 3.4, 4.3 and 5.3): the adversarial model.

    real image ─ posterior_network ─ noise ─┐
    tokens ─ encoder ─ text ────────────────┴─ decoder ─ stage-1 image, image
                         │                                              │
                         ├─────── discriminator ──────── real image or image
                         └───── image_text_matcher ───── real image or image

    network              learns from             its weights are constants in
    decoder              generator_loss          –
    posterior_network    generator_loss          –
    discriminator        discriminator_loss      generator_loss
    image_text_matcher   matcher_loss            generator_loss
    encoder              all three               –

With a pixel loss alone the model learns the average of all images that a text allows. Here the noise encodes
what the text does not determine. Half of each batch is generated from noise that the posterior network infers
from the real image, and is compared with it pixel by pixel (CVAE-GAN: Bao et al. 2017, arXiv:1703.10155;
BicycleGAN: Zhu et al. 2017, arXiv:1711.11586). The other half is generated from random noise.

The discriminator learns to distinguish real images with their texts from generated images, and from real images
with wrong texts (matching-aware: Reed et al. 2016, arXiv:1605.05396). The image-text matcher learns from real
images only; the decoder learns to generate images in which the matcher recognizes the text.
"""

import keras
from keras import ops

from mmkeras._utils import terminal
from mmkeras.distribute import collectives
from mmkeras.nn.losses import contrastive_loss, same_text
from mmkeras.text_to_image.gan import losses
from mmkeras.text_to_image.gan.networks import frozen_call

# Weights of the generator's losses, relative to the adversarial loss. The pixel losses are means over pixels,
# few of which belong to the shape, so they weigh more. The KL divergences are sums over dimensions; with a
# larger weight the noise would hold no information about the image (posterior collapse).
STAGE_1_WEIGHT = 20.0
IMAGE_WEIGHT = 10.0
CONDITION_KL_WEIGHT = 5e-4
NOISE_KL_WEIGHT = 1e-2
# Each kind of negative counts half, so that negatives weigh as much as positives.
NEGATIVE_WEIGHT = 0.5
# Standard deviation of the noise added to the images that discriminator and matcher see (instance noise:
# Sønderby et al. 2017, arXiv:1610.04490). Without it the decoder satisfies the matcher with invisible patterns
# (adversarial examples), and reproduces the toy images' own noise, about 0.025, instead of straight edges.
IMAGE_NOISE = 0.08
COLLAPSED_VARIETY = 0.1  # mode collapse: a standard deviation below this share of that of real images


@keras.saving.register_keras_serializable("mmkeras")
class Adversarial(keras.Model):
    """Conditional GAN with a variational part, trained by plain `fit` on every backend.

    The networks share one loss, so one gradient step trains them all. `stop_gradient` and `frozen_call` treat
    as constant what a loss must not train: the generated image in the discriminator's loss, the discriminator's
    weights in the generator's loss.

    `fit` records `generator_loss`, `discriminator_loss` and `matcher_loss`; `pixels`, the cross-entropy of
    images generated from inferred noise; and `variety`, the standard deviation of a batch of generated images
    relative to the real ones. In a mode collapse it falls to 0, and `fit` warns.
    `mmkeras.text_to_image.evaluate` warns if the noise has no effect.

    Inputs:  {"tokens": (B, T) int32}
    Outputs: image (B, S, S, 3), stage-1 image (B, S/2, S/2, 3) float32 in 0..1, from random noise ·
             mean, log_variance (B, condition_dim)

    Args:
        encoder: keras.Model. tokens (B, T) → text (B, units).
        decoder: keras.Model. From `networks.two_stage_generator`.
        discriminator: keras.Model. From `networks.discriminator`.
        image_text_matcher: keras.Model. From `networks.image_text_matcher`.
        posterior_network: keras.Model. From `networks.posterior_network`.
    """

    def __init__(
        self,
        encoder: keras.Model,
        decoder: keras.Model,
        discriminator: keras.Model,
        image_text_matcher: keras.Model,
        posterior_network: keras.Model,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.encoder, self.decoder = encoder, decoder
        self.discriminator, self.image_text_matcher = discriminator, image_text_matcher
        self.posterior_network = posterior_network
        self.noise_dim = posterior_network.output_shape[0][-1]
        self.condition_dim = decoder.input_shape[1][-1] - self.noise_dim
        self.vocabulary_size = image_text_matcher.output_shape[-1][-1]
        self.seed_generator = keras.random.SeedGenerator()
        names = ("generator_loss", "discriminator_loss", "matcher_loss", "pixels", "variety")
        self.trackers = {name: keras.metrics.Mean(name) for name in names}
        self.built = True

    def call(self, inputs, training=False):
        text = self.encoder(inputs["tokens"], training=training)  # (B, U)
        if training:
            return text  # `compute_loss` generates the images, since it has the real ones
        noise = self._normal((ops.shape(text)[0], self.condition_dim + self.noise_dim))  # (B, D + Z)
        return self.decoder([text, noise], training=False)

    def generator(self) -> keras.Model:
        """The part that generates images, as a Functional graph that shares the weights:
        {"tokens": (B, T), "noise": (B, D + Z)} → image (B, S, S, 3)."""
        tokens = keras.Input((None,), dtype="int32", name="tokens")
        noise = keras.Input(self.decoder.input_shape[1][1:], name="noise")
        image, *_ = self.decoder([self.encoder(tokens), noise])
        return keras.Model({"tokens": tokens, "noise": noise}, image, name=self.name)

    def fit(self, x=None, y=None, batch_size=None, epochs=1, verbose="auto", callbacks=None, **kwargs):
        """`keras.Model.fit`, with a warning at the end of an epoch that shows a mode collapse."""
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = [*keras.tree.flatten(callbacks or []), _WarnOfCollapse()]
        return super().fit(x, y, batch_size, epochs, verbose, callbacks, **kwargs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        if sample_weight is not None:
            raise ValueError(
                f"Expected sample_weight to be None, since the adversarial losses compare the examples of a "
                f"batch with each other. Use adversarial=False, or leave examples out of the data. Received: "
                f"sample_weight={sample_weight}"
            )
        tokens, real = x["tokens"], ops.convert_to_tensor(y)  # (B, T), (B, S, S, 3)
        text = y_pred if training else self.encoder(tokens)  # (B, U)
        batch_size = ops.shape(tokens)[0]
        half = (batch_size + 1) // 2
        bag = losses.bag_of_words(tokens, self.vocabulary_size)  # (B, V)

        # --- generate: the first half from inferred noise, the second half from random noise ---
        mean, log_variance = self.posterior_network(real[:half], training=training)  # (B/2, Z) each
        random = self._normal((batch_size, self.noise_dim))  # (B, Z)
        inferred = mean + ops.exp(0.5 * log_variance) * random[:half]  # (B/2, Z)
        noise = [
            self._normal((batch_size, self.condition_dim)),  # (B, D)
            ops.concatenate([inferred, random[half:]], axis=0),  # (B, Z)
        ]
        inputs = [text, ops.concatenate(noise, axis=1)]  # (B, U), (B, D + Z)
        # (B, S, S, 3), (B, S/2, S/2, 3), two of (B, D)
        image, stage_1_image, *condition = self.decoder(inputs, training=training)

        # --- the discriminator's loss: the generated image is constant ---
        noisy_real, noisy_fake = self._with_noise(real), self._with_noise(image)  # (B, S, S, 3) each
        fake = ops.stop_gradient(noisy_fake)  # (B, S, S, 3)
        # (B, 1), (B, F), (B, F)
        realness, image_embedding, text_embedding = self.discriminator([noisy_real, text], training=training)
        fake_realness, fake_embedding, _ = self.discriminator([fake, text], training=training)
        match = losses.projection_score(image_embedding, text_embedding)  # (B, 1)
        wrong_match = losses.projection_score(image_embedding, ops.roll(text_embedding, 1, axis=0))  # (B, 1)
        fake_match = losses.projection_score(fake_embedding, text_embedding)  # (B, 1)
        # The next example's text is wrong only if it is another text.
        is_wrong = 1 - same_text(tokens, ops.roll(tokens, 1, axis=0))[:, None]  # (B, 1)
        discriminator_loss = (
            collectives.mean(losses.hinge_real(realness, match))
            + NEGATIVE_WEIGHT * collectives.mean(is_wrong * losses.hinge_fake(realness, wrong_match))
            + NEGATIVE_WEIGHT * collectives.mean(losses.hinge_fake(fake_realness, fake_match))
        )

        # --- the matcher's loss: real images only ---
        inputs = [noisy_real, text]
        # (B, F), (B, F), (B, V)
        embedding, matcher_text, words = self.image_text_matcher(inputs, training=training)
        matcher_loss = contrastive_loss(embedding, matcher_text, tokens)
        matcher_loss += losses.bag_of_words_loss(words, bag)

        # --- the generator's loss: discriminator and matcher are constant ---
        # (B, 1), (B, F)
        realness, embedding, _ = frozen_call(self.discriminator, [noisy_fake, text], training=training)
        match = losses.projection_score(embedding, ops.stop_gradient(text_embedding))  # (B, 1)
        generator_loss = -collectives.mean(realness + match)
        inputs = [noisy_fake, text]
        embedding, _, words = frozen_call(self.image_text_matcher, inputs, training=False)  # (B, F), (B, V)
        contrastive = contrastive_loss(embedding, ops.stop_gradient(matcher_text), tokens)
        generator_loss += contrastive + losses.bag_of_words_loss(words, bag)
        pixels = collectives.mean(ops.binary_crossentropy(real[:half], image[:half]))
        small = ops.average_pool(real[:half], 2, 2)  # (B/2, S/2, S/2, 3)
        stage_1_pixels = collectives.mean(ops.binary_crossentropy(small, stage_1_image[:half]))
        generator_loss += IMAGE_WEIGHT * pixels + STAGE_1_WEIGHT * stage_1_pixels
        noise_kl = losses.kl_divergence(mean, log_variance)
        condition_kl = losses.kl_divergence(*condition)
        generator_loss += NOISE_KL_WEIGHT * noise_kl + CONDITION_KL_WEIGHT * condition_kl

        values = {
            "generator_loss": generator_loss,
            "discriminator_loss": discriminator_loss,
            "matcher_loss": matcher_loss,
            "pixels": pixels,
            "variety": losses.batch_std(image) / (losses.batch_std(real) + 1e-6),
        }
        for name, value in values.items():
            self.trackers[name].update_state(value)
        # divided by the number of replicas, since Keras adds up their losses
        return (generator_loss + discriminator_loss + matcher_loss) / collectives.count()

    def _normal(self, shape):
        return keras.random.normal(shape, seed=self.seed_generator)

    def _with_noise(self, image):
        """(B, S, S, 3) → (B, S, S, 3)"""
        return image + IMAGE_NOISE * self._normal(ops.shape(image))

    def get_config(self):
        networks = {name: keras.saving.serialize_keras_object(getattr(self, name)) for name in _NETWORKS}
        return {"name": self.name, **networks}

    @classmethod
    def from_config(cls, config):
        return cls(*[keras.saving.deserialize_keras_object(config.pop(name)) for name in _NETWORKS], **config)


_NETWORKS = ("encoder", "decoder", "discriminator", "image_text_matcher", "posterior_network")


class _WarnOfCollapse(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if (logs or {}).get("variety", 1) < COLLAPSED_VARIETY:
            terminal.warn(
                f"Mode collapse: in epoch {epoch + 1} the generated images hardly differ from each other "
                f"(variety={logs['variety']:.2f}, 1 for real images). If it stays so low, start again with a "
                f"lower learning_rate or a larger batch_size."
            )
