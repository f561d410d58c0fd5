"""Text to image (chapters 3.4, 4.3 and 5.3): the adversarial model.

    tokens ─ encoder → text ─ augmented, with noise ─ stage I: sketch ─ stage II → image
                        ├──── discriminator ← image: real, and of this text?
                        └──── matcher ← image: which words does it call for?
                      noise ← recogniser ← real image

A pixel loss alone averages over all pictures that a text allows. So the noise has to tell what the text does
not: half of each batch is painted from the noise that a recogniser finds in the real picture, and compared with
it pixel by pixel (CVAE-GAN: Bao et al. 2017, arXiv:1703.10155; BicycleGAN: Zhu et al. 2017, arXiv:1711.11586).
The other half is painted from random noise. A discriminator tells both from real pictures and minds the text
(matching-aware: Reed et al. 2016, arXiv:1605.05396); a matcher that learns from real pictures alone says which
words it reads off the painted ones.
"""

import keras
from keras import ops

from mmkeras._utils import terminal
from mmkeras.data.vocabulary import SPECIAL
from mmkeras.distribute import collectives

# Of the painter's losses, beside the adversarial one: the sketch's and the picture's pixels (means over pixels
# of which few are shape), the divergence of the augmented text and that of the recognised noise.
SKETCH, IMAGE, CONDITION, NOISE = 20.0, 10.0, 5e-4, 1e-2
# The matcher sees pictures through this much noise, real and painted ones: else it is pleased by faint patterns
# that nobody sees (so does a real picture differ, by a fortieth).
MATCHER_NOISE = 0.08
COLLAPSED = 0.1  # so little of the real pictures' variety is none


@keras.saving.register_keras_serializable("mmkeras")
class Adversarial(keras.Model):
    """Encoder, decoder and those who teach them, trained together by plain `fit` on every backend.

    All sides are one loss: what a side only reads is a constant in its part (a painted picture for the
    discriminator, the discriminator's weights for the painter), so that a single gradient holds each side's
    own. The text encoder learns with all of them.

    The history has `generator_loss`, `discriminator_loss` and `matcher_loss`; `pixels`, the cross-entropy of a
    picture painted from recognised noise; and `variety`, the spread of a batch's painted pictures relative to
    the real ones', which falls to 0 in a mode collapse. `fit` names one in a warning. That a painter heeds its
    text and no longer its noise is seen, and named, by `evaluate`.

    Inputs:  tokens (B, T) int32
    Outputs: image (B, S, S, 3), sketch (B, S/2, S/2, 3) float32 in 0..1, mean, log_variance; random noise
             painted it
    """

    def __init__(
        self,
        encoder: keras.Model,
        decoder: keras.Model,
        discriminator: keras.Model,
        matcher: keras.Model,
        recogniser: keras.Model,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.encoder, self.decoder = encoder, decoder
        self.discriminator, self.matcher, self.recogniser = discriminator, matcher, recogniser
        self.noise_dim = recogniser.output_shape[0][-1]
        self.condition_dim = decoder.input_shape[1][-1] - self.noise_dim
        self.random = keras.random.SeedGenerator()
        names = ("generator_loss", "discriminator_loss", "matcher_loss", "pixels", "variety")
        self.followed = {name: keras.metrics.Mean(name) for name in names}
        self.built = True

    def call(self, inputs, training=False):
        text = self.encoder(inputs["tokens"], training=training)
        if training:
            return text  # `compute_loss`, which has the real pictures, paints
        noise = self._normal((ops.shape(text)[0], self.condition_dim + self.noise_dim))
        return self.decoder([text, noise], training=False)

    def fit(self, x=None, y=None, batch_size=None, epochs=1, verbose="auto", callbacks=None, **kwargs):
        """Keras's own; it also names a mode collapse at the end of the epoch that shows one."""
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = [*keras.tree.flatten(callbacks or []), _NameCollapse()]
        return super().fit(x, y, batch_size, epochs, verbose, callbacks, **kwargs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        tokens, real = x["tokens"], ops.convert_to_tensor(y)
        text = y_pred if training else self.encoder(tokens)
        count = ops.shape(tokens)[0]
        half = (count + 1) // 2
        bag = ops.max(ops.one_hot(tokens, self.matcher.output_shape[-1][-1]), axis=1)  # (B, V)

        # --- painting: the first half from the noise that is recognised in the real pictures ---
        mean, log_variance = self.recogniser(real[:half], training=training)
        random = self._normal((count, self.noise_dim))
        recognised = mean + ops.exp(0.5 * log_variance) * random[:half]
        noise = [
            self._normal((count, self.condition_dim)),
            ops.concatenate([recognised, random[half:]], axis=0),
        ]
        image, sketch, *condition = self.decoder([text, ops.concatenate(noise, axis=1)], training=training)

        # --- the discriminator's part: the painted pictures are given ---
        is_real, seen, said = self.discriminator([real, text], training=training)
        is_painted, seen_painted, _ = self.discriminator([ops.stop_gradient(image), text], training=training)
        wrong = ops.roll(said, 1, axis=0)
        # a text that is the same is not a wrong one
        is_wrong = 1 - _same(tokens, ops.roll(tokens, 1, axis=0))[:, None]
        discriminator_loss = (
            collectives.mean(ops.relu(1 - is_real - _together(seen, said)))
            + 0.5 * collectives.mean(is_wrong * ops.relu(1 + is_real + _together(seen, wrong)))
            + 0.5 * collectives.mean(ops.relu(1 + is_painted + _together(seen_painted, said)))
        )

        # --- the matcher's part: real pictures alone ---
        seen, matched, words = self.matcher([self._noisy(real), text], training=training)
        matcher_loss = _matching(seen, matched, tokens) + _naming(words, bag)

        # --- the painter's part: discriminator and matcher are given ---
        fooled, seen, _ = _given(self.discriminator, [image, text], training=training)
        generator_loss = -collectives.mean(fooled + _together(seen, ops.stop_gradient(said)))
        seen, _, words = _given(self.matcher, [self._noisy(image), text], training=False)
        generator_loss += _matching(seen, ops.stop_gradient(matched), tokens) + _naming(words, bag)
        pixels = collectives.mean(ops.binary_crossentropy(real[:half], image[:half]))
        coarse = collectives.mean(ops.binary_crossentropy(ops.average_pool(real[:half], 2, 2), sketch[:half]))
        generator_loss += IMAGE * pixels + SKETCH * coarse
        generator_loss += NOISE * _divergence(mean, log_variance) + CONDITION * _divergence(*condition)

        variety = _spread(image) / (_spread(real) + 1e-6)
        for name, value in (
            ("generator_loss", generator_loss),
            ("discriminator_loss", discriminator_loss),
            ("matcher_loss", matcher_loss),
            ("pixels", pixels),
            ("variety", variety),
        ):
            self.followed[name].update_state(value)
        # each replica's share, since Keras adds them up
        return (generator_loss + discriminator_loss + matcher_loss) / collectives.count()

    def _normal(self, shape):
        return keras.random.normal(shape, seed=self.random)

    def _noisy(self, image):
        return image + MATCHER_NOISE * self._normal(ops.shape(image))

    def get_config(self):
        parts = {name: keras.saving.serialize_keras_object(getattr(self, name)) for name in _PARTS}
        return {"name": self.name, **parts}

    @classmethod
    def from_config(cls, config):
        return cls(*[keras.saving.deserialize_keras_object(config.pop(name)) for name in _PARTS], **config)


_PARTS = ("encoder", "decoder", "discriminator", "matcher", "recogniser")


class _NameCollapse(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if (logs or {}).get("variety", 1) < COLLAPSED:
            terminal.warn(
                f"Mode collapse: in epoch {epoch + 1} the painted pictures vary {logs['variety']:.2f} times as "
                f"much as the real ones. If it does not pass, start again with a lower learning_rate or a "
                f"larger batch_size."
            )


def _given(network, inputs, training):
    """What a network makes of its inputs, its own weights being constants."""
    weights = [ops.stop_gradient(variable.value) for variable in network.trainable_variables]
    others = [variable.value for variable in network.non_trainable_variables]
    outputs, _ = network.stateless_call(weights, others, inputs, training=training)
    return outputs


def _together(seen, said):
    """How well pictures and texts (B, F) go together, (B, 1); scaled so that it begins near 1."""
    return ops.sum(seen * said, axis=-1, keepdims=True) / seen.shape[-1] ** 0.5


def _matching(seen, said, tokens):
    """Which of the whole batch's texts is each picture's: cross-entropy of the cosines at temperature 0.1, as
    XMC-GAN has it (Zhang et al. 2021, arXiv:2101.04702). A single wrong text a picture would hardly ever differ
    in the shape alone. A text that is the same as the picture's own is not among the wrong ones."""
    seen, said = _unit(seen), _unit(said)
    own = 10 * ops.sum(seen * said, axis=-1, keepdims=True)  # (B, 1)
    same = _same(tokens[:, None], collectives.gathered(tokens)[None])  # (B, those of all replicas)
    wrong = 10 * ops.matmul(seen, ops.transpose(collectives.gathered(said))) - 1e9 * same
    return collectives.mean(ops.logsumexp(ops.concatenate([own, wrong], axis=1), axis=1) - own[:, 0])


def _same(tokens, others):
    """1 where two texts (..., T) are the same, else 0."""
    return ops.cast(ops.all(ops.equal(tokens, others), axis=-1), "float32")


def _spread(pictures):
    """The standard deviation of each pixel (B, S, S, 3) over the whole batch, on average."""
    count = ops.maximum(collectives.total(ops.cast(ops.shape(pictures)[0], "float32")), 1)
    mean = collectives.total(ops.sum(pictures, axis=0)) / count
    square = collectives.total(ops.sum(ops.square(pictures - mean), axis=0)) / count
    return ops.mean(ops.sqrt(square))


def _unit(x):
    """Of length 1; a vector of zeros has a gradient, too, which `ops.normalize` does not give it on JAX."""
    return x * ops.rsqrt(ops.sum(ops.square(x), axis=-1, keepdims=True) + 1e-8)


def _naming(words, bag):
    """Which words a picture calls for: binary cross-entropy in sum over the vocabulary, after the auxiliary
    classifiers of Odena et al. 2017 (arXiv:1610.09585)."""
    words, bag = words[:, len(SPECIAL) :], bag[:, len(SPECIAL) :]
    return collectives.mean(ops.sum(ops.softplus(words) - bag * words, axis=-1))


def _divergence(mean, log_variance):
    """From the normal distribution that noise is drawn from (Kingma & Welling 2014, arXiv:1312.6114)."""
    return collectives.mean(ops.sum(ops.exp(log_variance) + mean**2 - 1 - log_variance, axis=-1) / 2)
