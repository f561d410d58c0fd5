"""`Predictor`: a trained model that reads its inputs, predicts in batches and is saved as one file.

It wraps a `keras.Model`, whose training is plain `model.fit`.
"""

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from mmkeras._utils import progress, saving, terminal

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from mmkeras._utils.parts import Part

BATCH_SIZE = 32


class Predictor:
    """The base of the classes that predict with a trained model, such as `Captioner`.

    Attributes that a subclass declares:

    - `names`: names of the models that it takes.
    - `title`: the task's name in headings.
    - `builder`: the function that builds such a model, in messages.
    - `inputs`: plural name of its inputs, such as `"images"`.
    - `output`: kind of its output: `"text"`, `"image"` or `"classes"`.
    - `options`: options of a call, in addition to those in its signature.
    - `epochs`, `file`, `duration`: of `mmkeras train` on the toy world: passes, default file, time in words.
    - `variants`: the kinds of its model: {kind: (name of the ready-trained one, options of `build`)}.

    Args:
        model: keras.Model. It is not copied: after more training of `model`, new weights are used.

    Raises:
        ValueError: if it is not one of its models.
    """

    names: ClassVar[tuple[str, ...]]
    title: ClassVar[str]
    builder: ClassVar[str]
    inputs: ClassVar[str]
    output: ClassVar[str] = "text"
    options: ClassVar[tuple[str, ...]] = ()
    epochs: ClassVar[int]
    file: ClassVar[str]
    duration: ClassVar[str]
    variants: ClassVar[Mapping[str, tuple[str, dict[str, Any]]]]
    vocabulary = None

    def __init__(self, model: "keras.Model"):
        if getattr(model, "name", None) not in self.names:
            raise ValueError(
                f"Expected model to be one from {self.builder}. Received: "
                f"model={getattr(model, 'name', model)!r}"
            )
        self.model = model

    @property
    def language(self) -> str | None:
        """`"zh"` if the vocabulary has Chinese characters, else `"en"`; None without a vocabulary."""
        return self.vocabulary and self.vocabulary.language

    @property
    def data_options(self) -> dict[str, Any]:
        """Options of `data` that fit this model."""
        return {}

    def evaluate(self, dataset: "tf.data.Dataset", **options: Any) -> dict[str, float]:
        """Scores on a test split, as the package's function of that name."""
        raise NotImplementedError

    def evaluation_options(self, data: Any) -> dict[str, Any]:
        """Options of `evaluate` that are made from the data, such as a classifier that scores images."""
        return {}

    def for_inference(self) -> "keras.Model":
        """The model without its optimizer and all that only training needs."""
        import keras

        return keras.Model(self.model.input, self.model.output, name=self.model.name)

    def save(self, path: str | os.PathLike) -> None:
        """Saves everything in one `.keras` file, which `mmkeras.load` reads."""
        saving.save(self.model, path)

    def export(
        self, folder: str | os.PathLike, format: str = "onnx", *, half: bool = False
    ) -> dict[str, float]:
        """Writes the model for use without mmkeras, with a `run.py` that answers. See
        `mmkeras.export.folder.write`."""
        from mmkeras.export import folder as export

        return export.write(self, folder, format, half)

    def parts(self) -> "dict[str, Part]":
        """The functions that `export` writes, by name."""
        from mmkeras._utils.parts import Part

        return {"answer": Part.of(self.for_inference())}

    def card(self) -> dict[str, Any]:
        """What an exported model's `run.py` must know, `"answer"` the part that it runs."""
        return {"answer": "answer"}

    def restore(self, path: str | os.PathLike) -> None:
        """Reads what `save` has written to a file beside the model."""

    def __reduce__(self):  # for pickle and copy; the compiled graphs are made again
        return type(self), (self.model,)

    def _answer(
        self,
        inputs: Any,
        read: Callable[[Any], Any],
        predict: Callable[[list, list[int]], list],
        *,
        batch_size: int = BATCH_SIZE,
        is_list: bool | None = None,
        name: str | None = None,
        unread: str = "Their answers are None.",
    ) -> Any:
        """Predicts for one input, or for a list of inputs in batches.

        In a list, the answer to an input that cannot be read is None, and a warning counts and names such
        inputs.

        Args:
            inputs: One input, or a list or tuple of inputs.
            read: input → the value that `predict` takes. Raises ValueError or OSError if it cannot be read.
            predict: (values of a batch, their positions in the list) → list of answers.
            batch_size: int. Inputs in memory at a time. Defaults to 32.
            is_list: bool. Whether `inputs` is a list of inputs. Defaults to None: True for a list or tuple.
            name: str. What the inputs are called in messages. Defaults to `self.inputs`.
            unread: str. What the warning says becomes of inputs that cannot be read.

        Raises:
            ValueError, OSError: if a single input cannot be read.
            ValueError: if the list is empty, or none of its inputs can be read.
        """
        name = name or self.inputs
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
            terminal.warn(f"{message}{' ...' if len(errors) > 3 else ''}. {unread}")
        return [answers.get(i) for i in range(len(inputs))] if is_list else answers[0]


class ImagePredictor(Predictor):
    """A `Predictor` of images that warns of images unlike any in training.

    A subclass sets `network`, the part of its model that takes images (B, S, S, 3), and then `novelty = None`.
    It defines `_connect`, which builds the graph of its predictions, with `novelty.scores` as a further output.

    Attributes:
        image_size: int. Side of the images in pixels.
        novelty: `Novelty`, optional. If set, as by `mmkeras.pretrained`, it warns of images that are unlike any
            in training.
    """

    inputs = "images"

    network: "keras.Model"

    @property
    def image_size(self) -> int:
        return self.network.input_shape[1]

    @property
    def novelty(self) -> Any:
        return self._novelty

    @novelty.setter
    def novelty(self, novelty: Any):
        self._novelty = novelty
        self._connect()

    def _connect(self) -> None:
        raise NotImplementedError

    def card(self):
        return super().card() | {"image_size": self.image_size, "crop": False}

    def __reduce__(self):
        return *super().__reduce__(), self.novelty and (type(self.novelty), self.novelty.threshold)

    def __setstate__(self, novelty):
        kind, threshold = novelty
        self.novelty = kind(self.network, threshold)
