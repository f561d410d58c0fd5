"""`TaskData`, which every task's `data(...)` returns, and the `Split`s of a source that it is made of."""

import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import tensorflow as tf

from mmkeras._utils import terminal
from mmkeras.text.vocabulary import Vocabulary

# A split of at most this size is cached decoded in memory. A larger one is read again each epoch.
IN_MEMORY_MB = 512


class Item(NamedTuple):
    """A file of a folder, or a cell of a dataset. `open` returns what `mmkeras.media` reads, such as its path.
    `facts` change when the content changes."""

    name: str
    open: Callable[[], Any]
    facts: tuple


@dataclass(frozen=True)
class Split:
    """One split of a source.

    Attributes:
        examples: () → dataset of dictionaries: {"image" (H, W, 3) uint8, "captions" (n,) string, "labels"
            {attribute: ()}, "concept" () int64}, of which only some sources have the last two, or {"audio" (n,)
            int16, "transcript" () string, "name" () string}.
        texts: () → iterator of the texts of each example, read without its image or audio.
        count: int. Number of examples.
        fingerprint: dict. JSON-able values that change when the split changes.
        megabytes: float. Size of the decoded images or audio.
        seconds: list of float, optional. Duration of each clip according to its header. None: unknown.
        attributes: {attribute: class names} of the labels. Defaults to no labels.
        skipped: `SkippedExamples` that turned out to be unreadable, optional.
    """

    examples: Callable[[], tf.data.Dataset]
    texts: Callable[[], Iterator[list[str]]]
    count: int
    fingerprint: dict
    megabytes: float
    seconds: Sequence[float] | None = None
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    skipped: "SkippedExamples | None" = None

    @property
    def fits_in_memory(self) -> bool:
        return self.megabytes <= IN_MEMORY_MB

    def cached_examples(self, transform: Callable[[dict], dict] | None = None) -> tf.data.Dataset:
        """The examples, cached in memory during the first epoch if they fit.

        Args:
            transform: example → example, applied before they are cached. Defaults to none.
        """
        examples = self.examples()
        if transform is not None:
            examples = examples.map(transform, num_parallel_calls=tf.data.AUTOTUNE)
        return examples.cache() if self.fits_in_memory else examples


@dataclass(frozen=True)
class TaskData:
    """The datasets of a task. Each is built on first access; a split that the source lacks is None.

    Attributes:
        train, validation: Batches for `model.fit`.
        test, test_unseen: Batches for the task's `evaluate`. The toy world and the emoji have `test_unseen`. A
            source's other test splits are attributes as well, such as `data.test_changed_prior`.
        source: str. Name of the dataset, or the folder.
        vocabulary: `Vocabulary` of the training texts.
        batch_size: int. Examples per step, over all devices.
        attributes: {attribute: class names} of the labels. Defaults to no labels.
        extra: Further values by name, such as the `image_size` or the `sample_rate_hz` of a task's inputs. They
            are attributes as well: `data.image_size`.
    """

    source: str
    vocabulary: Vocabulary
    batch_size: int
    splits: Mapping[str, Split] = field(repr=False)
    # (split, its name) → function of the first epoch, see `pipeline.epochs`
    for_fit: Callable[[Split, str], Callable[[int | None], tf.data.Dataset | None]] = field(repr=False)
    for_evaluate: Callable[[Split], tf.data.Dataset] = field(repr=False)
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        if name in (extra := self.__dict__.get("extra", {})):
            return extra[name]
        if name.startswith("test_") and name in self.__dict__.get("splits", {}):
            return self._for_evaluate(name)
        raise AttributeError(f"TaskData has no attribute {name!r}")

    @functools.cached_property
    def _training(self):
        return self.for_fit(self.splits["train"], "train") if "train" in self.splits else lambda start: None

    @functools.cached_property
    def train(self) -> tf.data.Dataset | None:
        return self._training(None)

    @functools.cached_property
    def validation(self) -> tf.data.Dataset | None:
        split = self.splits.get("validation")
        return split and self.for_fit(split, "validation")(None)

    @functools.cached_property
    def test(self) -> tf.data.Dataset | None:
        return self._for_evaluate("test")

    @functools.cached_property
    def test_unseen(self) -> tf.data.Dataset | None:
        return self._for_evaluate("test_unseen")

    def train_from(self, epoch: int) -> tf.data.Dataset | None:
        """The batches of epoch `epoch` and of all following epochs, without end.

        Args:
            epoch: int. First epoch, from 0. The order within an epoch depends only on its number and the seed.
        """
        return self._training(epoch)

    def _for_evaluate(self, name):
        return self.for_evaluate(self.splits[name]) if name in self.splits else None


class SkippedExamples:
    """Counts the examples that cannot be used, and warns of the first ten, the hundredth, the thousandth ...

    Args:
        title: str. Name of the split in the warnings.

    Attributes:
        first: str. Why the first of them was skipped; None if there is none.
    """

    def __init__(self, title: str):
        self.title = title
        self.first: str | None = None
        self._names: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, name: str, reason: str) -> None:
        reason = reason.removesuffix(".") + "."
        with self._lock:
            if name in self._names:
                return
            self._names.add(name)
            self.first = self.first or reason
            number = len(self._names)
        if number <= 10 or number == 10 ** (len(str(number)) - 1):
            terminal.warn(f"{self.title}: {reason} It is left out ({number} so far).")


def training_split(splits: Mapping[str, Split]) -> Split:
    """The split to train on. Raises ValueError if the source has none."""
    if "train" not in splits:
        count = sum(split.count for split in splits.values())
        raise ValueError(
            f"Expected a training split, or vocabulary= for evaluation. Received: {count} examples in the "
            f"splits {', '.join(splits)}"
        )
    return splits["train"]
