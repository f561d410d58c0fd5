"""Decoding token by token: greedy search, sampling and beam search, for any model.

The model is a function

    next(tokens, state) -> logits, state        # (B,) int32, nest → (B, V), nest

where `state` is any nest of tensors whose first axis is the batch (such as an LSTM's hidden and cell state). It
is returned with the same structure, shapes and dtypes. The loop is one `while_loop` over the state, so that it
can be part of a compiled graph; it ends when every sequence has ended. Tensors that never change, such as an
encoder's memory, stay outside of the state; for beam search, `repeat` them.
"""

from collections.abc import Callable, Sequence
from typing import Any

from keras import ops, tree

from mmkeras._utils import checks

NEVER = -1e9  # logit of a forbidden token; finite, so that sums of it are finite
PAD = 0  # follows the end of a sequence

Next = Callable[[Any, Any], tuple[Any, Any]]


def greedy(
    next: Next,
    state: Any,
    *,
    batch_size: Any,
    start: int,
    end: int,
    max_length: int,
    forbidden: Sequence[int] = (),
) -> tuple[Any, Any]:
    """Greedy search: the most probable token at every step.

    Args:
        next: The model, see the module.
        state: Nest of tensors. The first state.
        batch_size: B, an int or a scalar tensor.
        start: int. First token that `next` is called with.
        end: int. Token that ends a sequence.
        max_length: int. Largest number of tokens.
        forbidden: Tokens that are never generated: usually 0, `start` and the unknown word. Defaults to none.

    Returns:
        tokens (B, max_length) int32, without `start`, with `end` if it was reached, then padded with 0; their
        log-probability (B,) float32.
    """

    def most_probable(step, log_probs):
        return ops.argmax(log_probs, axis=-1)  # (B,)

    return _decode(next, state, most_probable, batch_size, start, end, max_length, forbidden)


def sample(
    next: Next,
    state: Any,
    *,
    noise: Any,
    batch_size: Any,
    start: int,
    end: int,
    max_length: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    forbidden: Sequence[int] = (),
) -> tuple[Any, Any]:
    """Nucleus sampling (Holtzman et al. 2020, arXiv:1904.09751).

    Args:
        noise: (B, max_length) float, uniform in [0, 1). The same noise gives the same tokens on every backend.
        temperature: float. Below 1 sharpens the probabilities, above 1 flattens them. Defaults to 1.
        top_p: float. Samples from the most probable tokens that together have at least this probability.
            Defaults to 1.

    The other arguments and the results are those of `greedy`. The log-probability is at temperature 1.
    """
    if not temperature > 0:
        raise ValueError(f"Expected temperature to be above 0. Received: temperature={temperature}")
    if not 0 < top_p <= 1:
        raise ValueError(f"Expected top_p to be above 0 and at most 1. Received: top_p={top_p}")
    noise = ops.convert_to_tensor(noise, "float32")
    if len(noise.shape) != 2 or noise.shape[1] not in (None, max_length):
        raise ValueError(
            f"Expected noise to have the shape (batch_size, max_length={max_length}). "
            f"Received: noise.shape={tuple(noise.shape)}"
        )
    noise = ops.reshape(noise, (batch_size, max_length))  # as in _log_probs

    def sampled(step, log_probs):
        probs = ops.softmax(log_probs / temperature, axis=-1)
        probs, tokens = ops.top_k(probs, probs.shape[-1])  # (B, V), the most probable first
        total = ops.cumsum(probs, axis=-1)
        probs = ops.where(total - probs < top_p, probs, 0.0)  # the nucleus
        total = ops.cumsum(probs, axis=-1)
        # The first token whose cumulative probability is above the draw; the last token of the nucleus for
        # noise that is rounded to 1.
        draw = ops.take(noise, step, axis=1)[:, None] * total[:, -1:]  # (B, 1)
        rank = ops.sum(ops.cast(total <= draw, "int32"), axis=-1, keepdims=True)
        last = ops.sum(ops.cast(probs > 0, "int32"), axis=-1, keepdims=True) - 1
        return ops.take_along_axis(tokens, ops.minimum(rank, last), axis=-1)[:, 0]  # (B,)

    return _decode(next, state, sampled, batch_size, start, end, max_length, forbidden)


def _decode(next, state, choose, batch_size, start, end, max_length, forbidden):
    checks.ints(1, max_length=max_length)

    def is_open(step, token, ended, tokens, log_probability, state):
        return ops.logical_and(step < max_length, ops.logical_not(ops.all(ended)))

    def decode_step(step, token, ended, tokens, log_probability, state):
        logits, state = next(token, state)
        log_probs = _log_probs(logits, (batch_size,), forbidden)  # (B, V)
        token = ops.cast(choose(step, log_probs), "int32")  # (B,)
        added = ops.take_along_axis(log_probs, token[:, None], axis=-1)[:, 0]
        log_probability = log_probability + ops.where(ended, 0.0, added)
        token = ops.where(ended, PAD, token)
        tokens = ops.where(ops.arange(max_length) == step, token[:, None], tokens)
        ended = ops.logical_or(ended, token == end)
        return step + 1, token, ended, tokens, log_probability, state

    _, _, _, tokens, log_probability, _ = ops.while_loop(
        is_open,
        decode_step,
        (
            ops.convert_to_tensor(0, "int32"),
            ops.full((batch_size,), start, "int32"),
            ops.zeros((batch_size,), "bool"),
            ops.full((batch_size, max_length), PAD, "int32"),
            ops.zeros((batch_size,), "float32"),
            state,
        ),
    )
    return tokens, log_probability


def beam(
    next: Next,
    state: Any,
    *,
    batch_size: Any,
    start: int,
    end: int,
    max_length: int,
    beams: int,
    length_penalty: float = 0.0,
    forbidden: Sequence[int] = (),
) -> tuple[Any, Any]:
    """Beam search: keeps the `beams` most probable prefixes of each sequence.

    A prefix that has ended stays in the beam with its log-probability. At the end the prefix with the highest
    log-probability / length**length_penalty wins (a simple form of Wu et al. 2016, arXiv:1609.08144, section
    7). The search of a sequence ends when no open prefix can win any more.

    Args:
        next: The model, called with B * beams tokens, the beams of a sequence next to each other.
        state: As for `greedy`, with B rows, which are repeated here.
        beams: int. K; 1 is greedy search.
        length_penalty: float. At least 0; above 0 favors longer sequences. Defaults to 0.

    The other arguments are those of `greedy`.

    Returns:
        tokens (B, max_length) int32 of the best prefix, its log-probability (B,) float32.
    """
    checks.ints(1, max_length=max_length, beams=beams)
    checks.numbers(0, length_penalty=length_penalty)

    def scores(ended, tokens, log_probability):
        """Scores of the ended prefixes, and upper bounds of the scores of the open ones, (B, K) each."""
        lengths = ops.cast(ops.maximum(ops.sum(ops.cast(tokens != PAD, "int32"), axis=-1), 1), "float32")
        score = ops.where(ended, log_probability / lengths**length_penalty, NEVER)
        # Further tokens lower the log-probability and raise the length.
        bound = ops.where(ended, NEVER, log_probability / float(max_length) ** length_penalty)
        return score, bound

    def is_open(step, ended, tokens, log_probability, state):
        score, bound = scores(ended, tokens, log_probability)
        can_win = ops.max(bound, axis=-1) > ops.max(score, axis=-1)  # (B,)
        return ops.logical_and(step < max_length, ops.any(can_win))

    def decode_step(step, ended, tokens, log_probability, state):
        last = ops.where(step > 0, ops.take(tokens, ops.maximum(step - 1, 0), axis=-1), start)
        logits, state = next(ops.reshape(last, (-1,)), state)
        vocabulary = logits.shape[-1]
        log_probs = _log_probs(logits, (batch_size, beams), forbidden)  # (B, K, V)
        only_pad = ops.where(ops.arange(vocabulary) == PAD, 0.0, NEVER)
        log_probs = ops.where(ended[..., None], only_pad, log_probs)
        totals = ops.reshape(log_probability[..., None] + log_probs, (batch_size, beams * vocabulary))
        log_probability, best = ops.top_k(totals, beams)  # (B, K)
        parent, token = best // vocabulary, ops.cast(best % vocabulary, "int32")

        ended = ops.take_along_axis(ended, parent, axis=1)
        tokens = ops.take_along_axis(tokens, parent[..., None], axis=1)  # (B, K, T)
        tokens = ops.where(ops.arange(max_length) == step, token[..., None], tokens)
        ended = ops.logical_or(ended, token == end)
        rows = ops.cast(ops.arange(batch_size), parent.dtype)[:, None] * beams + parent
        rows = ops.reshape(rows, (-1,))  # (B*K,)
        state = tree.map_structure(lambda x: ops.take(x, rows, axis=0), state)
        return step + 1, ended, tokens, log_probability, state

    # All beams of a sequence start the same, so only one of them may be continued.
    first = ops.where(ops.arange(beams) == 0, 0.0, NEVER)
    _, ended, tokens, log_probability, _ = ops.while_loop(
        is_open,
        decode_step,
        (
            ops.convert_to_tensor(0, "int32"),
            ops.zeros((batch_size, beams), "bool"),
            ops.full((batch_size, beams, max_length), PAD, "int32"),
            ops.zeros((batch_size, beams), "float32") + first,
            repeat(state, beams),
        ),
    )
    # At max_length the bound is the score. Before, an ended prefix wins a tie with one that was cut off.
    score, bound = scores(ended, tokens, log_probability)
    has_ended = ops.max(score, axis=-1, keepdims=True) >= ops.max(bound, axis=-1, keepdims=True)
    winner = ops.argmax(ops.where(has_ended, score, bound), axis=-1)[:, None]  # (B, 1)
    return (
        ops.take_along_axis(tokens, winner[..., None], axis=1)[:, 0],
        ops.take_along_axis(log_probability, winner, axis=1)[:, 0],
    )


def repeat(nest: Any, times: int) -> Any:
    """Repeats each row `times` times in succession: (B, ...) → (B * times, ...)."""
    return tree.map_structure(lambda x: ops.repeat(x, times, axis=0), nest)


def _log_probs(logits, rows, forbidden):
    """(*rows, V) float32. Giving `rows` keeps the shapes in a loop of a graph with unknown batch size."""
    vocabulary = logits.shape[-1]
    logits = ops.cast(logits, "float32")
    for token in forbidden:
        logits = ops.where(ops.arange(vocabulary) == token, NEVER, logits)
    return ops.reshape(ops.log_softmax(logits, axis=-1), (*rows, vocabulary))
