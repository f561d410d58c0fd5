"""Captions made from labels, for images that have a class instead of a caption."""

# More than one phrasing, so that a model learns words and not one sentence.
PHRASINGS = {
    "oxford_flowers102": (
        "a photo of {a}", "a flower, {a}", "this is {a}", "{a} in bloom", "the flower is {a}",
    ),
    "mnist": (
        "a handwritten {name}", "the digit {name}", "{a} in handwriting", "this is {a}", "a {name} by hand",
    ),
    "cifar10": ("a photo of {a}", "a picture of {a}", "this is {a}", "{a} in a photo", "a small photo of {a}"),
}  # fmt: skip
# Names for labels that are numbers, or whose names TFDS has only after the download.
_LABELS = {
    "mnist": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "cifar10": (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    ),
}  # fmt: skip


def label_names(source: str, names: list[str]) -> tuple[str, ...]:
    """The names of a dataset's labels, in words.

    Args:
        source: str. Name of the dataset.
        names: list of str. The names in TFDS.

    Raises:
        ValueError: if the labels are numbers.
    """
    if source in _LABELS:
        return _LABELS[source]
    if all(name.isdigit() for name in names):
        raise ValueError(
            f"Expected source to have labels with names. Received: source={source!r} with labels {names[:3]}. "
            f"Write captions into a table and use its folder as the source."
        )
    return tuple(name.replace("_", " ") for name in names)


def phrasings(name: str, patterns: tuple[str, ...]) -> list[str]:
    """'rose' → ['a photo of a rose', 'this is a rose', ...]"""
    a = f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
    return [pattern.format(name=name, a=a) for pattern in patterns]
