"""Writing a sequence token by token: greedily, by sampling, by beam search.

A brick that knows no task. The model comes in as a function

    next(tokens, state) -> logits, state        # (B,) int32, nest → (B, V), nest

where `state` is any nest of tensors whose first axis is the batch (an LSTM's hidden and cell state); it comes
back with the same structure, shapes and dtypes. The loop is one `while_loop` that carries the state, so that a
caller's compiled graph holds all of it, and stops when every sequence has ended. What never changes (an
encoder's memory) stays outside the state; for a beam, `repeat` it.
"""

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

from keras import ops, tree

from mmkeras._utils import checks

NEVER = -1e9  # the logit of what must not be written; finite, so that sums of it stay numbers
PAD = 0  # fills a sequence up after its end

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
    """The most probable token at every step.

    Args:
        next: the model, see the module.
        state: what `next` gets first.
        batch_size: B, an int or a scalar tensor.
        start: the token that `next` gets first.
        end: the token after which a sequence has ended.
        max_length: at most so many tokens.
        forbidden: tokens that are never written: usually 0, `start` and the unknown word.

    Returns:
        tokens (B, max_length) int32, without `start`, with `end` where it was reached, then padded with 0;
        their log-probability (B,) float32.
    """

    def most_probable(step, log_probs):
        return ops.argmax(log_probs, axis=-1)

    return _walk(next, state, most_probable, batch_size, start, end, max_length, forbidden)


def sample(
    next: Next,
    state: Any,
    *,
    noise: Any,
    batch_size: Any,
    start: int,
    end: int,
    max_length: int,
    temperature: Any = 1.0,
    top_p: Any = 1.0,
    forbidden: Sequence[int] = (),
) -> tuple[Any, Any]:
    """Tokens drawn from the model's probabilities: nucleus sampling (Holtzman et al. 2020, arXiv:1904.09751).

    Args:
        noise: (B, max_length) float, uniform in [0, 1), drawn by the caller: the same noise, the same tokens,
            on every backend.
        temperature: below 1 sharpens the probabilities, above 1 flattens them.
        top_p: draws among the most probable tokens that together have at least this probability.

    `temperature` and `top_p` are numbers or scalar tensors; only numbers are checked. The other arguments and
    the results are those of `greedy`; the log-probability is at temperature 1.
    """
    if isinstance(temperature, Real) and not temperature > 0:
        raise ValueError(f"Expected temperature to be above 0. Received: temperature={temperature}")
    if isinstance(top_p, Real) and not 0 < top_p <= 1:
        raise ValueError(f"Expected top_p to be above 0 and at most 1. Received: top_p={top_p}")
    noise = ops.convert_to_tensor(noise, "float32")
    if len(noise.shape) != 2 or noise.shape[1] not in (None, max_length):
        raise ValueError(
            f"Expected noise of shape (batch_size, max_length={max_length}), one number for each token. "
            f"Received: noise.shape={tuple(noise.shape)}"
        )
    noise = ops.reshape(noise, (batch_size, max_length))  # as in _log_probs

    def drawn(step, log_probs):
        probs = ops.softmax(log_probs / temperature, axis=-1)
        probs, tokens = ops.top_k(probs, probs.shape[-1])  # (B, V), the most probable first
        total = ops.cumsum(probs, axis=-1)
        probs = ops.where(total - probs < top_p, probs, 0.0)  # the nucleus
        total = ops.cumsum(probs, axis=-1)
        # the first token whose cumulated probability passes the draw; noise that was rounded to 1 draws the
        # last of the nucleus
        draw = ops.take(noise, step, axis=1)[:, None] * total[:, -1:]
        rank = ops.sum(ops.cast(total <= draw, "int32"), axis=-1, keepdims=True)
        last = ops.sum(ops.cast(probs > 0, "int32"), axis=-1, keepdims=True) - 1
        return ops.take_along_axis(tokens, ops.minimum(rank, last), axis=-1)[:, 0]

    return _walk(next, state, drawn, batch_size, start, end, max_length, forbidden)


def _walk(next, state, choose, batch_size, start, end, max_length, forbidden):
    _check_lengths(max_length)

    def going(step, token, ended, tokens, log_probability, state):
        return ops.logical_and(step < max_length, ops.logical_not(ops.all(ended)))

    def write(step, token, ended, tokens, log_probability, state):
        logits, state = next(token, state)
        log_probs = _log_probs(logits, (batch_size,), forbidden)  # (B, V)
        token = ops.cast(choose(step, log_probs), "int32")  # (B,)
        gained = ops.take_along_axis(log_probs, token[:, None], axis=-1)[:, 0]
        log_probability = log_probability + ops.where(ended, 0.0, gained)
        token = ops.where(ended, PAD, token)
        tokens = ops.where(ops.arange(max_length) == step, token[:, None], tokens)
        ended = ops.logical_or(ended, token == end)
        return step + 1, token, ended, tokens, log_probability, state

    _, _, _, tokens, log_probability, _ = ops.while_loop(
        going,
        write,
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

    A prefix that has ended stays among them with its log-probability. The best at the end is that with the
    highest log-probability / length**length_penalty (a simple form of Wu et al. 2016, arXiv:1609.08144, section
    7). The search of a sequence is over when no prefix that goes on could still win.

    Args:
        next: the model, called with B * beams tokens; the beams of a sequence lie side by side.
        state: as for `greedy`, with B rows; it is repeated here.
        beams: K; 1 is greedy.
        length_penalty: at least 0; above 0 favours longer sequences.

    The other arguments are those of `greedy`.

    Returns:
        tokens (B, max_length) int32 of the best beam, its log-probability (B,) float32.
    """
    _check_lengths(max_length)
    checks.ints(1, beams=beams)
    if isinstance(length_penalty, Real) and not length_penalty >= 0:
        raise ValueError(f"Expected length_penalty to be at least 0. Received: length_penalty={length_penalty}")

    def scores(ended, tokens, log_probability):
        """What the ended prefixes have reached and the others can at most reach, (B, K) each."""
        lengths = ops.cast(ops.maximum(ops.sum(ops.cast(tokens != PAD, "int32"), axis=-1), 1), "float32")
        reached = ops.where(ended, log_probability / lengths**length_penalty, NEVER)
        # what goes on loses log-probability and can at most gain by being longer
        hoped = ops.where(ended, NEVER, log_probability / float(max_length) ** length_penalty)
        return reached, hoped

    def going(step, ended, tokens, log_probability, state):
        reached, hoped = scores(ended, tokens, log_probability)
        is_open = ops.max(hoped, axis=-1) > ops.max(reached, axis=-1)  # (B,)
        return ops.logical_and(step < max_length, ops.any(is_open))

    def write(step, ended, tokens, log_probability, state):
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

    # at first the beams of a sequence are all the same: only one of them may be continued
    first = ops.where(ops.arange(beams) == 0, 0.0, NEVER)
    _, ended, tokens, log_probability, _ = ops.while_loop(
        going,
        write,
        (
            ops.convert_to_tensor(0, "int32"),
            ops.zeros((batch_size, beams), "bool"),
            ops.full((batch_size, beams, max_length), PAD, "int32"),
            ops.zeros((batch_size, beams), "float32") + first,
            repeat(state, beams),
        ),
    )
    # at max_length the hope is the score; before, a tie must not be won by a prefix that was cut off
    reached, hoped = scores(ended, tokens, log_probability)
    has_won = ops.max(reached, axis=-1, keepdims=True) >= ops.max(hoped, axis=-1, keepdims=True)
    winner = ops.argmax(ops.where(has_won, reached, hoped), axis=-1)[:, None]  # (B, 1)
    return (
        ops.take_along_axis(tokens, winner[..., None], axis=1)[:, 0],
        ops.take_along_axis(log_probability, winner, axis=1)[:, 0],
    )


def repeat(nest: Any, times: int) -> Any:
    """Each row `times` times in succession: (B, ...) → (B * times, ...)."""
    return tree.map_structure(lambda x: ops.repeat(x, times, axis=0), nest)


def _log_probs(logits, rows, forbidden):
    """(*rows, V) float32; rows are stated, as a graph of unknown batch must keep its shapes in a loop."""
    vocabulary = logits.shape[-1]
    logits = ops.cast(logits, "float32")
    for token in forbidden:
        logits = ops.where(ops.arange(vocabulary) == token, NEVER, logits)
    return ops.reshape(ops.log_softmax(logits, axis=-1), (*rows, vocabulary))


def _check_lengths(max_length):
    if max_length < 1:
        raise ValueError(f"Expected max_length to be at least 1. Received: max_length={max_length}")
