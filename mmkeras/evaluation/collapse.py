"""A collapse: the answers of a model do not depend on its inputs. For `evaluate` and `training.diagnose`."""

from collections import Counter
from collections.abc import Sequence

COLLAPSED = 0.01  # a variety or seed_variety below this is a collapse
LONGEST = 60  # characters of a text in a message


def of_texts(texts: Sequence[str], output_name: str, input_name: str, *, share: float = 1.0) -> str | None:
    """Describes a collapse: most texts are empty, or all are the same.

    Args:
        texts: Outputs of a model.
        output_name: str. Name of an output (`"caption"`).
        input_name: str. Name of an input (`"image"`).
        share: float. Share of the texts that counts as all. Defaults to 1.

    Returns:
        What is wrong and what to do; None if nothing is.
    """
    empty = sum(not text for text in texts)
    if empty > len(texts) / 2:
        return f"{empty} of {len(texts)} {output_name}s are empty. Train the model longer."
    text, count = Counter(texts).most_common(1)[0]
    if count >= share * len(texts) > 1 and text:
        of_all = f"all {count}" if count == len(texts) else f"{count} of {len(texts)}"
        shown = text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
        return (
            f"{of_all} {input_name}s get the same {output_name}, {shown!r}. The model ignores the "
            f"{input_name}. Train it longer or on more examples, or lower the learning rate."
        )
    return None


def of_images(scores: dict[str, float]) -> str | None:
    """Describes a collapse of generated images: all prompts, or all seeds, give the same image.

    Args:
        scores: `variety` and `seed_variety` of `mmkeras.evaluation.metrics.image_scores`, as far as known.

    Returns:
        What is wrong and what to do; None if nothing is.
    """
    for name, inputs in (("variety", "prompts"), ("seed_variety", "seeds")):
        if scores.get(name, 1) < COLLAPSED:
            return (
                f"all {inputs} give the same image ({name}={scores[name]:.4f}). Train the model longer, or "
                f"lower the learning rate."
            )
    return None
