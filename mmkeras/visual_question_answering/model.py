"""Visual question answering (chapter 8.1): the graph, f(X1, X2) = g(h1(X1), h2(X2)).

    image ── image_encoder: CNN → cells of a grid ─────────────────────────┐
    tokens ─ question_encoder: embedding → LSTM → words to look for, kind ─┴─ g: attention → logits of answers

g looks for the words in the cells. The kind of the question selects what is read: the content of the cells
where the first word is found, or where the words are found, if at all. So the weights that read the color of
"the star" are those of "the circle", and pairs that are in no training image can be read. All three are
Functional models: `model.get_layer("g")`, and so on.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import keras
from keras import ops

from mmkeras._utils import checks, presets
from mmkeras.nn import backbones, layers, optimizers
from mmkeras.text.vocabulary import PAD, Vocabulary

TASK = "visual_question_answering"
EPOCHS = 48  # passes over the toy world that the preset "toy" is made for
SHARPNESS = 6.0  # of the attention


@dataclass(frozen=True)
class QuestionAnsweringConfig:
    """Sizes of the graph and settings of its training. The defaults are for photographs.

    Attributes:
        encoder: str or keras.Model. Network of the images, see `mmkeras.nn.backbones.backbone`.
        image_size: int. Side of the images in pixels.
        fine_tune: bool. Whether the network is trained.
        units: int. Channels of cells and words, an even number.
        heads: int. Words of a question that are looked for, as the two shapes of "is the star left of the
            circle?".
        kinds: int. Kinds of questions that are told apart.
        dropout: float. Dropout rate of cells and words.
        label_smoothing: float. Label smoothing of the cross-entropy.
        learning_rate: float. Initial learning rate of Adam.
        decay_steps: int, optional. Steps of the cosine decay to a fiftieth. None: constant.
    """

    encoder: str | keras.Model = "vgg16"
    image_size: int = 224
    fine_tune: bool = False
    units: int = 256
    heads: int = 2
    kinds: int = 8
    dropout: float = 0.3
    label_smoothing: float = 0.0
    learning_rate: float = 1e-3
    decay_steps: int | None = None

    def __post_init__(self):
        if not isinstance(self.encoder, keras.Model):
            backbones.check_name(self.encoder)
        checks.ints(1, image_size=self.image_size, units=self.units, heads=self.heads, kinds=self.kinds)
        checks.numbers(0, dropout=self.dropout, label_smoothing=self.label_smoothing)
        optimizers.check_schedule(self.learning_rate, self.decay_steps)


PRESETS = {
    "document": QuestionAnsweringConfig(),
    "toy": QuestionAnsweringConfig(
        encoder="vgg_small",
        image_size=64,
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

    After Antol et al. 2015 (arXiv:1505.00468) and section 8.1 of the document. As in MAC networks (Hudson &
    Manning 2018, arXiv:1803.03067), attention over the words selects what to look for, and attention over the
    cells finds it.

    Inputs:  image  (B, image_size, image_size, 3) RGB 0..255; for a frozen encoder alternatively its features
             tokens (B, T) int32, with <start> and <end>, padded with 0
    Output:  logits (B, answers) float32

    Args:
        preset: `"toy"` (for the toy world), `"document"` (for photographs), or a `QuestionAnsweringConfig`.
            Defaults to `"toy"`.
        vocabulary: `Vocabulary` of the questions, list of words, or number of tokens. Defaults to 10,000.
        answers: Sequence of str, `data.answers`; or their number. Defaults to 1,000.
        weights: Weights of the network of the images, see `mmkeras.captioning.build`. Defaults to `"auto"`, for
            the frozen `"vgg_small"` of the preset `"toy"` those of the ready-trained `"captioning"`.
        compile: bool. Whether to compile with Adam and the cross-entropy of the answers. Defaults to True.
        **overrides: Sizes in place of the preset's, see `QuestionAnsweringConfig`.

    Raises:
        ValueError, TypeError, OSError: as for `mmkeras.captioning.build`.
    """
    config = presets.with_overrides(PRESETS, preset, overrides)
    if isinstance(answers, int):
        answers = [f"<{number}>" for number in range(answers)]
    if weights == "auto" and config.encoder == "vgg_small" and not config.fine_tune:
        weights = "captioning"  # a frozen network with random weights would be of no use
    h1, h2 = image_encoder(config, weights), question_encoder(config, Vocabulary.of(vocabulary))
    g = answer_model(config, h1.output.shape[1], answers)

    image = keras.Input(h1.input_shape[1:], name="image")
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    logits = g([h1(image), *h2(tokens)])  # (B, answers)
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
    """Image (B, S, S, 3) → cells (B, h*w, units).

    Args:
        config: `QuestionAnsweringConfig`.
        weights: Weights of the network, see `build`. Defaults to None.
    """
    image, grid = backbones.input_and_grid(config.encoder, config.image_size, weights, config.fine_tune)
    # with its neighbors a cell shows the whole of a thing
    cells = keras.layers.Conv2D(config.units, 3, padding="same", activation="relu", name="cells")(grid)
    cells = keras.layers.LayerNormalization()(keras.layers.Reshape((-1, config.units))(cells))  # (B, h*w, U)
    return keras.Model(image, keras.layers.Dropout(config.dropout)(cells), name="image_encoder")


def question_encoder(config: QuestionAnsweringConfig, vocabulary: Vocabulary) -> keras.Model:
    """Token ids (B, T) int32 → words to look for (B, heads, units), and the kind of the question (B, kinds).

    Args:
        config: `QuestionAnsweringConfig`.
        vocabulary: `Vocabulary`. Saved in the model's config.
    """
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    mask = ops.not_equal(tokens, PAD)[:, :, None]  # (B, T, 1)
    # as in `encoders.text_encoder`: Keras's embeddings start close together
    spread = keras.initializers.RandomNormal(stddev=0.5)
    words = layers.TokenEmbedding(vocabulary, config.units, embeddings_initializer=spread)(tokens)  # (B, T, U)
    lstm = layers.MaskedLSTM(config.units // 2, return_sequences=True)
    in_context = layers.MaskedBidirectional(lstm)(words, mask=mask[:, :, 0])  # (B, T, U)
    # The context says which words to look for, but not what they look like: that is the same in all questions.
    scores = 3 * keras.layers.Dense(config.heads, name="scores")(in_context)
    weights = ops.softmax(ops.where(mask, scores, -1e4), axis=1)  # (B, T, heads)
    words = keras.layers.Dropout(config.dropout)(words)
    words = ops.matmul(ops.transpose(weights, (0, 2, 1)), words)  # (B, heads, U)
    summary = ops.max(ops.where(mask, in_context, -1), axis=1)  # (B, U), an LSTM's outputs are above -1
    kind = keras.layers.Dense(config.kinds, activation="softmax", name="kind")(summary)
    return keras.Model(tokens, [words, kind], name="question_encoder")


def answer_model(config: QuestionAnsweringConfig, cells: int, answers: Sequence[str]) -> keras.Model:
    """g: cells (B, N, units), words (B, heads, units), kind (B, kinds) → logits (B, answers) float32.

    Args:
        config: `QuestionAnsweringConfig`.
        cells: int. Their number N.
        answers: Sequence of str. Saved in the model's config.
    """
    units, heads = config.units, config.heads
    image = keras.Input((cells, units), name="cells")
    words = keras.Input((heads, units), name="words")
    kind = keras.Input((config.kinds,), name="kind")
    # No star is yellow in training, so "star" can learn to turn away from yellow cells, and does so less if the
    # match is bounded, by cosines.
    keys = ops.normalize(keras.layers.Dense(units // 2, name="keys")(image))  # (B, N, U/2)
    queries = ops.normalize(keras.layers.Dense(units // 2, name="queries")(words))  # (B, heads, U/2)
    match = SHARPNESS * ops.matmul(queries, ops.transpose(keys, (0, 2, 1)))  # (B, heads, N)
    attention = ops.softmax(match, axis=-1)
    content = ops.matmul(attention[:, :1], image)[:, 0]  # (B, U), of what the first word is found in
    found = [attention, ops.sigmoid(match - SHARPNESS / 2), ops.max(match, axis=-1, keepdims=True)]
    where = keras.layers.Flatten()(ops.concatenate(found, axis=-1))  # (B, heads (2N + 1))
    where = keras.layers.Dense(units, activation="relu", name="where")(where)  # (B, U)
    read = ops.concatenate([content, where], axis=-1)  # (B, 2U)
    # weights for each kind of question, whatever its words
    x = keras.layers.Flatten()(kind[:, :, None] * read[:, None])  # (B, kinds 2U)
    return keras.Model([image, words, kind], layers.ClassLogits(answers, name="answer")(x), name="g")
