"""Batches of the answering classes: one input in, one answer out; a list in, a list out."""

from collections.abc import Callable
from typing import Any

from mmkeras._utils import progress, terminal

BATCH_SIZE = 32


def answer(
    inputs: Any,
    read: Callable[[Any], Any],
    predict: Callable[[list, list[int]], list],
    name: str,
    *,
    batch_size: int = BATCH_SIZE,
    is_list: bool | None = None,
) -> Any:
    """Answers one input, or a list of inputs in batches.

    In a list, the answer to an input that cannot be read is None, and a warning counts and names such inputs.

    Args:
        inputs: One input, or a list or tuple of inputs.
        read: input → the value that `predict` takes. Raises ValueError or OSError if it cannot be read.
        predict: (values of a batch, their positions in the list) → list of answers.
        name: str. Plural name of the inputs in messages.
        batch_size: int. Inputs in memory at a time. Defaults to 32.
        is_list: bool. Whether `inputs` is a list of inputs. Defaults to None: True for a list or tuple.

    Raises:
        ValueError, OSError: if a single input cannot be read.
        ValueError: if the list is empty, or none of its inputs can be read.
    """
    is_list = isinstance(inputs, list | tuple) if is_list is None else is_list
    inputs = inputs if is_list else [inputs]
    if not inputs:
        raise ValueError(f"Expected {name} to be one input or a list of at least one. Received: {name}=[]")
    answers, errors = {}, {}  # by position
    for start in progress.bar(range(0, len(inputs), batch_size), name):
        values = {}
        for i, item in enumerate(inputs[start : start + batch_size], start):
            try:
                values[i] = read(item)
            except (ValueError, OSError) as error:
                if len(inputs) == 1:
                    raise
                errors[i] = error
        if values:
            answers |= zip(values, predict(list(values.values()), list(values)), strict=True)
    if errors:
        first = "; ".join(f"number {i}: {error}" for i, error in list(errors.items())[:3])
        message = f"{len(errors)} of {len(inputs)} {name} cannot be read: {first}"
        if not answers:
            raise ValueError(message)
        terminal.warn(f"{message}{' ...' if len(errors) > 3 else ''}. Their answers are None.")
    return [answers.get(i) for i in range(len(inputs))] if is_list else answers[0]
