"""An encoder, a decoder and the loop of decoding as one compiled graph: `Writer`.

A brick between `decoding`, which knows no model, and the tasks whose decoder is `attention_decoder`.
"""

import keras
import numpy as np
from keras import ops

from mmkeras._utils import checks
from mmkeras.data.vocabulary import END, PAD, START, UNKNOWN
from mmkeras.decoding import search
from mmkeras.distribute import collectives

NEVER_WRITTEN = (PAD, UNKNOWN, START)


class Writer:
    """Writes token ids for batches of inputs; each way of writing is compiled once.

    Args:
        encoder: inputs → memory (and its mask, where the decoder is masked), hidden, cell.
        decoder: see `mmkeras.nn.attention_decoder`.
    """

    def __init__(self, encoder: keras.Model, decoder: keras.Model):
        self.encoder, self.decoder = encoder, decoder
        self._graphs: dict[tuple, _Graph] = {}

    def __call__(
        self,
        inputs: dict[str, np.ndarray],
        *,
        beams: int = 1,
        length_penalty: float = 0.0,
        temperature: float | None = None,
        top_p: float = 1.0,
        max_length: int = 50,
        seed: int = 0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Greedily, by beam search, or by sampling.

        Args:
            inputs: the encoder's, by name.
            beams: how many prefixes a beam search keeps; 1 is greedy.
            length_penalty: the best beam is that with the highest log-probability / length**length_penalty;
                above 0 favours longer texts.
            temperature: sample instead, from the probabilities at this temperature.
            top_p: sample among the most probable tokens that together have this probability.
            max_length: at most so many tokens.
            seed: of sampling; the same seed, the same texts.

        Returns:
            tokens (B, max_length) int32, padded with 0 after <end>, and their log-probability (B,).
        """
        checks.ints(1, beams=beams, max_length=max_length)
        if beams != 1 and not (temperature is None and top_p == 1.0):
            raise ValueError(
                f"Expected either a beam search (beams) or sampling (temperature, top_p). "
                f"Received: beams={beams}, temperature={temperature}, top_p={top_p}"
            )
        inputs = dict(inputs)
        if temperature is None and top_p == 1.0:
            options = {"beams": beams, "length_penalty": length_penalty, "max_length": max_length}
        else:
            options = {"temperature": temperature or 1.0, "top_p": top_p, "max_length": max_length}
            rows = len(next(iter(inputs.values())))
            noise = np.random.default_rng(seed).random((rows, max_length))
            inputs["noise"] = noise.astype("float32")
        key = tuple(options.items())
        if key not in self._graphs:
            self._graphs[key] = _Graph(self.encoder, self.decoder, **options)
        return collectives.predict_alone(self._graphs[key], inputs)

    def attention(self, inputs: dict[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
        """What each of these tokens (B, T) looked at, (B, T, N)."""
        first = np.full((len(tokens), 1), START, tokens.dtype)
        given = ops.convert_to_tensor(np.concatenate([first, tokens[:, :-1]], axis=1))
        inputs = {name: ops.convert_to_tensor(x) for name, x in inputs.items()}
        *_, attention = self.decoder([given, *_encoded(self.encoder, inputs)], training=False)
        return ops.convert_to_numpy(attention)


class _Graph(keras.Model):
    """One way of writing; `predict_alone` compiles it."""

    def __init__(self, encoder, decoder, *, max_length, beams=1, length_penalty=0.0, **sampling):
        super().__init__(name="writer")
        self.encoder, self.decoder = encoder, decoder
        self.max_length, self.beams, self.length_penalty = max_length, beams, length_penalty
        self.sampling = sampling
        self.built = (
            True  # its halves are; Keras on JAX would otherwise run all of it once uncompiled, to build it
        )

    def call(self, inputs):
        noise = inputs.get("noise")
        *memory, hidden, cell = _encoded(self.encoder, inputs)
        if self.beams > 1:
            memory = search.repeat(memory, self.beams)

        def next(tokens, state):
            logits, *state, _ = self.decoder([tokens[:, None], *memory, *state], training=False)
            return logits[:, 0], tuple(state)

        state = (hidden, cell)
        common = {
            "batch_size": ops.shape(hidden)[0],
            "start": START,
            "end": END,
            "max_length": self.max_length,
            "forbidden": NEVER_WRITTEN,
        }
        if noise is not None:
            return search.sample(next, state, noise=noise, **self.sampling, **common)
        if self.beams == 1:
            return search.greedy(next, state, **common)
        return search.beam(next, state, beams=self.beams, length_penalty=self.length_penalty, **common)


def _encoded(encoder, inputs):
    """An encoder of one input wants it bare."""
    named = [inputs[tensor.name] for tensor in encoder.inputs]
    return encoder(named if len(named) > 1 else named[0], training=False)
