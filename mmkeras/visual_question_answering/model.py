"""Visual question answering (chapter 8.1): the graph, f(X1, X2) = g(h1(X1), h2(X2)).

    image ── image_encoder: CNN → cells of a grid, with positions ─┐
    tokens ─ question_encoder: embedding → LSTM → words ───────────┴─ g: cross-attention → logits of the answers

g is the fusion of joint training (`mmkeras.nn.fusion`): each word attends to the cells, and each cell to the
words. All three are Functional models: `model.get_layer("g")`, and so on.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import keras

from mmkeras._utils import checks, presets
from mmkeras.nn import backbones, fusion, layers, optimizers
from mmkeras.nn.encoders import word_encoder
from mmkeras.text.vocabulary import Vocabulary

TASK = "visual_question_answering"
EPOCHS = 12  # passes over the toy world that the preset "toy" is made for


@dataclass(frozen=True)
class QuestionAnsweringConfig:
    """Sizes of the graph and settings of its training. The defaults are for photographs.

    Attributes:
        encoder: str or keras.Model. Network of the images, see `mmkeras.nn.backbones.backbone`.
        image_size: int. Side of the images in pixels.
        fine_tune: bool. Whether the network is trained.
        units: int. Channels of cells, words and fusion, a multiple of 4.
        fusion: str. `"cross_attention"`, `"concat"` or `"gated"`, see `mmkeras.methods.joint_training.build`.
        dropout: float. Dropout rate of cells and words.
        label_smoothing: float. Label smoothing of the cross-entropy.
        learning_rate: float. Initial learning rate of Adam.
        decay_steps: int, optional. Steps of the cosine decay to a fiftieth. None: constant.
    """

    encoder: str | keras.Model = "vgg16"
    image_size: int = 224
    fine_tune: bool = False
    units: int = 256
    fusion: str = "cross_attention"
    dropout: float = 0.3
    label_smoothing: float = 0.0
    learning_rate: float = 1e-3
    decay_steps: int | None = None

    def __post_init__(self):
        if not isinstance(self.encoder, keras.Model):
            backbones.check_name(self.encoder)
        checks.ints(1, image_size=self.image_size, units=self.units)
        if self.fusion not in fusion.FUSIONS:
            known = ", ".join(map(repr, fusion.FUSIONS))
            raise ValueError(f"Expected fusion to be one of {known}. Received: fusion={self.fusion!r}")
        checks.numbers(0, dropout=self.dropout, label_smoothing=self.label_smoothing)
        optimizers.check_schedule(self.learning_rate, self.decay_steps)


PRESETS = {
    "document": QuestionAnsweringConfig(),
    "toy": QuestionAnsweringConfig(
        encoder="vgg_small",
        image_size=64,
        fine_tune=True,
        units=64,
        dropout=0.0,
        # as in captioning: otherwise the model learns that no star is yellow
        label_smoothing=0.2,
        learning_rate=2e-3,
        decay_steps=EPOCHS * 4000 // 32,  # of the toy world's 4,000 images, in batches of 32
    ),
}


def build(
    preset: str | QuestionAnsweringConfig = "toy",
    *,
    vocabulary: Vocabulary | int | Sequence[str] = 10_000,
    answers: int | Sequence[str] = 1_000,
    weights: str | os.PathLike | None = "auto",
    compile: bool = True,
    **overrides,
) -> keras.Model:
    """A classifier of answers, from an image and a question.

    After Antol et al. 2015 (arXiv:1505.00468) and section 8.1 of the document, with cross-attention between the
    cells of the image and the words of the question (Lu et al. 2016, arXiv:1606.00061).

    Inputs:  image  (B, image_size, image_size, 3) RGB 0..255; for a frozen encoder alternatively its features
             tokens (B, T) int32, with <start> and <end>, padded with 0
    Output:  logits (B, answers) float32

    Args:
        preset: `"toy"` (for the toy world), `"document"` (for photographs), or a `QuestionAnsweringConfig`.
            Defaults to `"toy"`.
        vocabulary: `Vocabulary` of the questions, list of words, or number of tokens. Defaults to 10,000.
        answers: Sequence of str, `data.answers`; or their number. Defaults to 1,000.
        weights: Weights of the network of the images, see `mmkeras.captioning.build`. Defaults to `"auto"`.
        compile: bool. Whether to compile with Adam and the cross-entropy of the answers. Defaults to True.
        **overrides: Sizes in place of the preset's, see `QuestionAnsweringConfig`.

    Raises:
        ValueError, TypeError, OSError: as for `mmkeras.captioning.build`, and for an unknown fusion.
    """
    config = presets.with_overrides(PRESETS, preset, overrides)
    if isinstance(answers, int):
        answers = [f"<{number}>" for number in range(answers)]
    h1, h2 = image_encoder(config, weights), question_encoder(config, Vocabulary.of(vocabulary))
    g = fusion.fusion_model([h1.outputs, h2.outputs], {"answer": answers}, config.fusion, config.units)

    image = keras.Input(h1.input_shape[1:], name="image")
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    logits = g([h1(image), *h2(tokens)])["answer"]  # (B, answers)
    model = keras.Model({"image": image, "tokens": tokens}, logits, name=TASK)
    if compile:
        optimizers.compile(
            model,
            optimizers.adam(config.learning_rate, config.decay_steps),
            loss=keras.losses.CategoricalCrossentropy(
                from_logits=True, label_smoothing=config.label_smoothing, reduction="mean_with_sample_weight"
            ),
            weighted_metrics=["accuracy"],
        )
    return model


def image_encoder(config: QuestionAnsweringConfig, weights: str | os.PathLike | None = None) -> keras.Model:
    """Image (B, S, S, 3) → cells (B, h*w, units), which keep where they are.

    Args:
        config: `QuestionAnsweringConfig`.
        weights: Weights of the network, see `build`. Defaults to None.
    """
    image, grid = backbones.input_and_grid(config.encoder, config.image_size, weights, config.fine_tune)
    cells = keras.layers.Reshape((-1, grid.shape[-1]))(grid)  # (B, h*w, C)
    cells = keras.layers.LayerNormalization()(keras.layers.Dense(config.units, activation="relu")(cells))
    cells = layers.PositionEmbedding(name="positions")(cells)  # (B, h*w, U)
    return keras.Model(image, keras.layers.Dropout(config.dropout)(cells), name="image_encoder")


def question_encoder(config: QuestionAnsweringConfig, vocabulary: Vocabulary) -> keras.Model:
    """Token ids (B, T) int32 → words in their context (B, T, units), and their mask (B, T).

    Args:
        config: `QuestionAnsweringConfig`.
        vocabulary: `Vocabulary`. Saved in the model's config.
    """
    encoder = word_encoder(vocabulary, config.units, sequence=True)
    words, mask = encoder.output
    words = keras.layers.Dropout(config.dropout)(words)
    return keras.Model(encoder.input, [words, mask], name="question_encoder")
