"""Checks that every model of the package has to pass, and a table of models and checks.

    python -m tests.harness

The models are tiny and run eagerly, since one step is faster than its compilation.
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from mmkeras import captioning, speech_to_text, text_to_image, visual_question_answering
from mmkeras.methods import cross_modal_pretraining, joint_training, modality_translation, scenes
from mmkeras.nn import optimizers
from mmkeras.text.vocabulary import Vocabulary
from mmkeras.text_to_image.classifier import build_classifier

BATCH, WORDS = 4, 20
CLASSES = {"color": 3, "shape": 2}
DECODER = {"vocabulary": WORDS, "units": 8, "embedding_dim": 8}
SPEECH = DECODER | {"bands": 8, "encoder_layers": 1, "hop_ms": 20}
# a high learning rate, since all pixels of a model that has hardly trained have the same loss
IMAGES = DECODER | {"image_size": 16, "channels": 8, "learning_rate": 0.1}
NOISE = {"adversarial": True, "condition_dim": 4, "noise_dim": 6}

rng = np.random.default_rng(0)
TOKENS = rng.integers(4, WORDS, (BATCH, 5)).astype("int32")
TOKENS[0, 3:] = TOKENS[2, 2:] = 0  # texts of different lengths
LENGTH = np.array([8000, 5000, 8000, 6000], "int32")
AUDIO = np.where(np.arange(8000) < LENGTH[:, None], rng.normal(size=(BATCH, 8000)) / 10, 0).astype("float32")


def images(size: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 255, (BATCH, size, size, 3)).astype("float32")


def labels(classes: dict[str, int]) -> dict[str, np.ndarray]:
    return {name: np.arange(BATCH) % count for name, count in classes.items()}


def one_hot(classes: dict[str, int]) -> dict[str, np.ndarray]:
    return {name: np.eye(classes[name])[ids] for name, ids in labels(classes).items()}


def padded(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Texts and clips with more padding at the end: 0 for texts, any noise for clips."""
    more = {"tokens": np.zeros((BATCH, 3), "int32"), "audio": np.full((BATCH, 3000), 0.2, "float32")}
    return {name: np.concatenate([x, more[name]], axis=1) if name in more else x for name, x in inputs.items()}


@dataclass(frozen=True)
class Model:
    """A model and a batch for it.

    Attributes:
        build: () → compiled keras.Model.
        inputs: {name: (B, ...)}.
        targets: Targets of the batch.
        answer: (model, inputs) → outputs, if those of the model are random. Defaults to the model's outputs.
        without: {check: reason why the model has none}.
    """

    build: Callable[[], keras.Model]
    inputs: dict[str, np.ndarray] | np.ndarray
    targets: dict[str, np.ndarray] | np.ndarray
    answer: Callable = lambda model, inputs: model(inputs, training=False)
    without: dict[str, str] = field(default_factory=dict)


def fused(fusion: str) -> Model:
    def build():
        return joint_training.build(
            joint_training.encoders(Vocabulary.of(WORDS), units=8, sequences=fusion == "cross_attention"),
            CLASSES,
            fusion,
            0.3,
            units=8,
        )

    return Model(build, SCENES, labels(CLASSES), without=FIXED_LENGTH)


def cross_modal() -> keras.Model:
    encoder = cross_modal_pretraining.shared_encoder(Vocabulary.of(WORDS), width=16, blocks=1, heads=2)
    return cross_modal_pretraining.build(encoder, CLASSES, units=8)


def translation() -> keras.Model:
    names = {name: [str(i) for i in range(count)] for name, count in CLASSES.items()}
    translator, classifier = text_to_image.build("toy", compile=False, **IMAGES), build_classifier(names, 16)
    model = modality_translation.build(translator, classifier)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizers.compile(model, "adam", loss={"image": None} | dict.fromkeys(CLASSES, loss))
    return model


def generated(model: keras.Model, inputs: dict[str, np.ndarray]):
    """Images of an adversarial model from the same noise."""
    noise = np.random.default_rng(2).normal(size=(BATCH, 10)).astype("float32")
    return model.generator()(inputs | {"noise": noise})


SCENES = {"image": images(scenes.IMAGE_SIZE), "text": np.pad(TOKENS, ((0, 0), (0, scenes.LENGTH - 5)))}
FIXED_LENGTH = {"padding": "texts have a fixed length"}
CLIPS = {"audio": AUDIO, "length": LENGTH}
CAPTIONS = {"image": images(64), "tokens": TOKENS}
PIXELS = images(16) / 255
MODELS = {
    "captioning": Model(lambda: captioning.build("toy", **DECODER), CAPTIONS, TOKENS),
    "captioning, frozen encoder": Model(
        lambda: captioning.build("document", encoder="vgg_small", image_size=64, **DECODER), CAPTIONS, TOKENS
    ),
    "speech to text, attention": Model(
        lambda: speech_to_text.build("toy", **SPEECH), CLIPS | {"tokens": TOKENS}, TOKENS
    ),
    "speech to text, CTC": Model(lambda: speech_to_text.build("toy", head="ctc", **SPEECH), CLIPS, TOKENS),
    "text to image": Model(lambda: text_to_image.build("toy", **IMAGES), {"tokens": TOKENS}, PIXELS),
    "text to image, adversarial": Model(
        lambda: text_to_image.build("toy", **IMAGES, **NOISE),
        {"tokens": TOKENS},
        PIXELS,
        generated,
        {"weights of examples": "refused: the losses compare examples with each other"},
    ),
    "classifier": Model(
        lambda: build_classifier({name: "abc"[:count] for name, count in CLASSES.items()}, 16),
        images(16),
        one_hot(CLASSES),
        without={"padding": "images have a fixed size"},
    ),
    "visual question answering": Model(
        lambda: visual_question_answering.build("toy", vocabulary=WORDS, answers=3, units=8),
        CAPTIONS,
        np.eye(3)[np.arange(BATCH) % 3],
    ),
    **{f"joint training, {fusion}": fused(fusion) for fusion in joint_training.FUSIONS},
    "cross-modal pre-training": Model(cross_modal, SCENES, labels(CLASSES), without=FIXED_LENGTH),
    "modality translation": Model(translation, {"tokens": TOKENS}, labels(CLASSES)),
}


# --- checks: each raises AssertionError if the model, which has trained for one step, does not pass ---


def trained(model: Model, precision: str) -> keras.Model:
    """The built model after a step on its batch in that precision."""
    keras.utils.set_random_seed(0)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        network = model.build()
    finally:
        keras.config.set_dtype_policy(before)
    assert network.optimizer.built  # else TensorFlow traces the first step twice
    network.run_eagerly = True
    first = [keras.ops.convert_to_numpy(variable) for variable in network.trainable_variables]
    logs = network.train_on_batch(model.inputs, model.targets, return_dict=True)
    assert np.isfinite(list(logs.values())).all(), logs
    last = [keras.ops.convert_to_numpy(variable) for variable in network.trainable_variables]
    assert all(x.dtype == np.float32 and np.isfinite(x).all() for x in last)
    # float16 may skip the first steps, until the loss is scaled so that its gradients are finite
    assert precision == "mixed_float16" or any((a != b).any() for a, b in zip(first, last, strict=True))
    return network


def trains_in_bfloat16(model: Model, network: keras.Model) -> None:
    trained(model, "mixed_bfloat16")


def trains_in_float16(model: Model, network: keras.Model) -> None:
    trained(model, "mixed_float16")


def answers(model, network, inputs):
    return [np.array(x) for x in keras.tree.flatten(model.answer(network, inputs))]


def loads_from_its_file(model: Model, network: keras.Model) -> None:
    with tempfile.TemporaryDirectory() as folder:
        network.save(Path(folder) / "model.keras")
        loaded = keras.saving.load_model(Path(folder) / "model.keras")
    for one, other in zip(*(answers(model, x, model.inputs) for x in (network, loaded)), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(network.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one, other)


def weighs_examples(model: Model, network: keras.Model) -> None:
    """Examples of weight 0 are as if they were not in the batch."""

    def loss(count, weights=None):
        inputs, targets = keras.tree.map_structure(lambda x: x[:count], (model.inputs, model.targets))
        return network.test_on_batch(inputs, targets, sample_weight=weights, return_dict=True)["loss"]

    weighted, first = loss(BATCH, np.array([2.0, 2.0, 0.0, 0.0])), loss(2)
    np.testing.assert_allclose(weighted, first, rtol=1e-4)
    assert abs(loss(BATCH) - first) > 1e-4 * abs(first)


def ignores_padding(model: Model, network: keras.Model) -> None:
    longer = padded(model.inputs)
    for one, other in zip(*(answers(model, network, x) for x in (model.inputs, longer)), strict=True):
        np.testing.assert_allclose(other[:, : one.shape[1]], one, atol=1e-4)


CHECKS = {
    "bfloat16": trains_in_bfloat16,
    "float16": trains_in_float16,
    "save and load": loads_from_its_file,
    "weights of examples": weighs_examples,
    "padding": ignores_padding,
}


def check_model(name: str) -> dict[str, str]:
    """Runs all checks of a model.

    Args:
        name: str. A key of `MODELS`.

    Returns:
        {check: `"ok"`, or why the model has no such check}.

    Raises:
        AssertionError: if one of them fails.
    """
    model = MODELS[name]
    network, results = trained(model, "float32"), {"float32": "ok"}
    for title, check in CHECKS.items():
        results[title] = model.without.get(title, "ok")
        if results[title] == "ok":
            check(model, network)
    return results


def main():
    for name in MODELS:
        try:
            results = check_model(name)
        except Exception as error:  # whatever a model raises is a result of the table
            results = {"failed": f"{type(error).__name__}: {str(error).strip()[:300]}"}
        print(f"{name:32}", " · ".join(f"{check} {result}" for check, result in results.items()), flush=True)


if __name__ == "__main__":
    main()
