"""Errors name the invalid argument and its value."""

import numpy as np
import pytest

import mmkeras
from mmkeras._utils import checks
from mmkeras.text.vocabulary import Vocabulary

TASKS = ["captioning", "text_to_image"]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("source", 7),
        ("source", None),
        ("seed", "a"),
        ("seed", -1),
        ("batch_size", "many"),
        ("image_size", 0),
        ("image_size", "small"),
        ("min_count", 0),
        ("min_count", "a"),
        ("max_size", 4),
        ("validation_share", "a"),
        ("test_share", -0.1),
    ],
)
def test_data_names_the_invalid_argument(task, argument, value, photos):
    arguments = {"source": photos, "image_size": 16} | {argument: value}
    with pytest.raises(ValueError, match=f"^Expected {argument} to be .* Received: {argument}={value!r}$"):
        getattr(mmkeras, task).data(**arguments)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("value", [20, ["a"]])
def test_data_accepts_only_a_vocabulary_object(task, value, photos):
    with pytest.raises(TypeError, match="Received: vocabulary="):
        getattr(mmkeras, task).data(photos, image_size=16, vocabulary=value)


@pytest.mark.parametrize(
    ("task", "argument", "value"),
    [
        *((task, name, value) for task in TASKS for name, value in (
            ("units", "x"),
            ("units", True),
            ("embedding_dim", 0),
            ("learning_rate", "fast"),
            ("learning_rate", -1),
            ("decay_steps", -5),
            ("vocabulary", 4),
            ("vocabulary", []),
            ("vocabulary", None),
            ("vocabulary", "words"),
            ("vocabulary", [1, 2]),
            ("vocabulary", Vocabulary([])),
        )),
        ("text_to_image", "channels", 1.5),
        ("text_to_image", "noise_dim", -3),
        ("text_to_image", "condition_dim", "x"),
        ("captioning", "dropout", "x"),
        ("captioning", "label_smoothing", "x"),
    ],
)  # fmt: skip
def test_build_names_the_invalid_argument(task, argument, value):
    with pytest.raises(ValueError) as caught:
        getattr(mmkeras, task).build("toy", **{"vocabulary": 20, argument: value})
    assert str(caught.value).startswith(f"Expected {argument} to be ")
    assert str(caught.value).endswith(f"Received: {argument}={value!r}")


def test_numpy_scalars_are_accepted():
    checks.ints(1, units=np.int64(8))
    checks.numbers(0, share=np.float32(0.5))
    with pytest.raises(ValueError, match="share=nan"):
        checks.numbers(0, share=float("nan"))
