"""`Generator`: encoder, head and decoding loop as one compiled graph."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from mmkeras._utils import checks
from mmkeras._utils.parts import Part, inputs_of
from mmkeras.decoding import ctc, search
from mmkeras.distribute import collectives
from mmkeras.text.vocabulary import END, PAD, START, UNKNOWN

FORBIDDEN = (PAD, UNKNOWN, START)  # an attention decoder never generates these
DEFAULTS = {
    "attention": {
        "beams": 1, "length_penalty": 0.0, "temperature": None, "top_p": 1.0, "max_length": 50, "seed": 0,
    },
    "ctc": {"beams": 1},
}  # fmt: skip


class Generator:
    """Generates token ids with an attention decoder or a CTC head.

    Its parts can be used one by one: `encoder`, `head`, and of an attention decoder `step`.

    Args:
        encoder: keras.Model. Inputs → memory, then its mask (unless the decoder is unmasked), then for an
            attention decoder its first state (hidden, cell). Further outputs are returned after the tokens.
        head: keras.Model. `mmkeras.nn.attention_decoder`, or a CTC head: memory (B, S, M), mask (B, S) → logits
            (B, S, V) as `mmkeras.decoding.ctc.OnlyBlank` returns them.
    """

    def __init__(self, encoder: keras.Model, head: keras.Model):
        self.encoder, self.head = encoder, head
        # An attention decoder also returns its state and its attention.
        self.kind = "attention" if len(head.outputs) > 1 else "ctc"
        self._graphs: dict[tuple, _Graph] = {}

    def __call__(
        self, inputs: dict[str, np.ndarray], *, positions: Sequence | None = None, **options: Any
    ) -> tuple[np.ndarray, ...]:
        """Generates token ids: greedily, by beam search, or by sampling. Each combination of options is
        compiled once.

        Args:
            inputs: {name: array} of the encoder.
            positions: For each row one or more ints, which with the seed determine its noise in sampling.
                Default to 0, 1, ...
            **options: `beams` (int, prefixes that a beam search keeps; 1 is greedy. Defaults to 1). An
                attention decoder also takes `length_penalty` (float; the best beam maximizes log-probability /
                length**length_penalty. Defaults to 0), `temperature` (float, samples at this temperature.
                Defaults to None), `top_p` (float, samples from the most probable tokens that together have this
                probability. Defaults to 1), `max_length` (int, number of tokens. Defaults to 50), and `seed`
                (int, seed for sampling. Defaults to 0).

        Returns:
            tokens (B, T) int32, padded with 0 after `<end>`; their log-probability (B,); further outputs of the
            encoder. T is `max_length`, with CTC the number of time steps or less.

        Raises:
            TypeError: for an option that the head does not take.
            ValueError: for an invalid value, or for `beams` together with `temperature` or `top_p`.
        """
        defaults = DEFAULTS[self.kind]
        if unknown := options.keys() - defaults.keys():
            raise TypeError(
                f"Expected the options of decoding with head={self.kind!r} to be among {', '.join(defaults)}. "
                f"Received: {', '.join(f'{name}={options[name]!r}' for name in sorted(unknown))}"
            )
        options = defaults | options
        checks.ints(1, **{name: options[name] for name in ("beams", "max_length") if name in options})
        inputs = dict(inputs)
        if self.kind == "attention":
            seed, temperature, top_p = (options.pop(name) for name in ("seed", "temperature", "top_p"))
            if temperature is not None or top_p != 1.0:
                if options["beams"] != 1:
                    raise ValueError(
                        f"Expected either beams (beam search), or temperature or top_p (sampling). Received: "
                        f"beams={options['beams']}, temperature={temperature}, top_p={top_p}"
                    )
                # Drawn here, so that the same seed gives the same tokens on every backend; and for each row of
                # its own, so that they do not depend on the other rows.
                rows = range(len(next(iter(inputs.values())))) if positions is None else positions
                rngs = [np.random.default_rng([seed, *np.atleast_1d(row)]) for row in rows]
                noise = np.stack([rng.random(options["max_length"]) for rng in rngs])  # (B, T)
                inputs["noise"] = noise.astype("float32")
                options |= {"temperature": 1.0 if temperature is None else temperature, "top_p": top_p}
        key = tuple(options.items())
        if key not in self._graphs:
            decode = self._attention_decode if self.kind == "attention" else self._ctc_decode
            self._graphs[key] = _Graph(partial(decode, **options), self.encoder, self.head)
        return collectives.predict_on_one_device(self._graphs[key], inputs)

    def weights(self, inputs: dict[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
        """Attention of each token, or with CTC its probability at each time step.

        Args:
            inputs: {name: array} of the encoder.
            tokens: (B, T) int, as generated.

        Returns:
            (B, T, S) float32, S the length of the memory.
        """
        encoded, _ = self._encoded({name: ops.convert_to_tensor(x) for name, x in inputs.items()})
        if self.kind == "ctc":
            probabilities = ops.convert_to_numpy(ops.softmax(self.head(encoded, training=False)))  # (B, S, V)
            return np.take_along_axis(probabilities, tokens[:, None], axis=2).swapaxes(1, 2)
        first = np.full((len(tokens), 1), START, tokens.dtype)
        shifted = ops.convert_to_tensor(np.concatenate([first, tokens[:, :-1]], axis=1))  # (B, T)
        *_, attention = self.head([shifted, *encoded], training=False)
        return ops.convert_to_numpy(attention)

    def parts(self, max_length: int) -> dict[str, Part]:
        """What is exported: `encoder`; with attention `step`, its decoder, and the whole answers `greedy` and
        `beam` (4 beams); with CTC `answer`, the logits from which an answer is decoded.

        Args:
            max_length: int. Largest number of tokens of an answer.
        """
        models, inputs = (self.encoder, self.head), inputs_of(self.encoder)
        memory = [tensor.name for tensor in self.head.inputs if tensor.name != "tokens"]
        encoder = Part.of(self.encoder, memory)
        if self.kind == "ctc":

            def logits(inputs):
                encoded, _ = self._encoded(inputs)
                return {"logits": self.head(encoded, training=False)}

            return {"encoder": encoder, "answer": Part(logits, inputs, models)}

        def answer(inputs, beams):
            tokens, score, *_ = self._attention_decode(inputs, beams, 0.0, max_length)
            return {"tokens": tokens, "log_probability": score}

        return {
            "encoder": encoder,
            "step": Part.of(self.head, ("logits", "next_hidden", "next_cell", "attention")),
            "greedy": Part(partial(answer, beams=1), inputs, models),
            "beam": Part(partial(answer, beams=4), inputs, models),
        }

    def step(self, tokens, state, memory):
        """One step of an attention decoder.

        Args:
            tokens: (B,) int32, the last token of each row.
            state: (hidden, cell), (B, units) each.
            memory: [(B, S, M)], and its mask (B, S) if the decoder takes one.

        Returns:
            Logits (B, V) of the next token, and the next state.
        """
        logits, *state, _ = self.head([tokens[:, None], *memory, *state], training=False)
        return logits[:, 0], tuple(state)

    def _encoded(self, inputs):
        """The outputs of the encoder that the head takes, and the others."""
        tensors = [inputs[tensor.name] for tensor in self.encoder.inputs]
        # Keras expects a tensor, not a list, for one input.
        outputs = self.encoder(tensors if len(tensors) > 1 else tensors[0], training=False)
        count = len(self.head.inputs) - (self.kind == "attention")  # without the tokens
        return outputs[:count], outputs[count:]

    def _ctc_decode(self, inputs, beams):
        encoded, others = self._encoded(inputs)
        return *ctc.decode(self.head(encoded, training=False), beams), *others

    def _attention_decode(self, inputs, beams, length_penalty, max_length, **sampling):
        # (B, S, M) and mask (B, S), (B, U), (B, U)
        (*memory, hidden, cell), others = self._encoded(inputs)
        if beams > 1:
            memory = search.repeat(memory, beams)  # (B * K, S, M)

        arguments = {
            "batch_size": ops.shape(hidden)[0],
            "start": START,
            "end": END,
            "max_length": max_length,
            "forbidden": FORBIDDEN,
        }
        if sampling:
            decode, options = search.sample, {"noise": inputs["noise"], **sampling}
        elif beams == 1:
            decode, options = search.greedy, {}
        else:
            decode, options = search.beam, {"beams": beams, "length_penalty": length_penalty}
        return *decode(partial(self.step, memory=memory), (hidden, cell), **options, **arguments), *others


class _Graph(keras.Model):
    """A function of named inputs as a Keras model, which `predict_on_batch` compiles."""

    def __init__(self, function: Callable, *models: keras.Model):
        super().__init__(name="generator")
        self.function, self.models = function, models  # Keras tracks the models' weights
        self.built = True  # otherwise Keras on JAX calls the function once uncompiled, to build it

    def call(self, inputs):
        return self.function(inputs)
