"""Video understanding (chapter 6.2): the graphs.

    frames ─ CNN of each frame → LSTM ─┐
    sound ── log-mel → LSTM ───────────┼─ `mmkeras.methods.joint_training` → logits of each attribute
    text ─── embedding → LSTM ─────────┘

    frames ─ CNN of each frame → LSTM ─┬→ memory ──┐
    sound ── log-mel → LSTM ───────────┘           │
    tokens ─ decoder: embedding → LSTM → attention ┴→ logits

A silent sound and an empty text count as missing. Each is replaced by a learned vector.
"""

from collections.abc import Mapping, Sequence

import keras
from keras import ops

from mmkeras._utils import checks
from mmkeras.media.video import Sampling
from mmkeras.methods import joint_training
from mmkeras.nn import losses, optimizers
from mmkeras.nn.attention_decoder import attention_decoder
from mmkeras.nn.encoders import pooled, sound_encoder, video_encoder, word_encoder
from mmkeras.nn.fusion import complete_modalities
from mmkeras.text.vocabulary import Vocabulary

CLASSIFIER, CAPTIONER = "video_classification", "video_captioning"
MODALITIES = ("frames", "sound", "text")
MODALITY_DROPOUT = 0.2  # what is learned with a modality missing


def build(
    attributes: Mapping[str, Sequence[str]],
    *,
    vocabulary: Vocabulary | int | Sequence[str] = 10_000,
    sampling: Sampling | None = None,
    fusion: str = "concat",
    modality_dropout: float = MODALITY_DROPOUT,
    units: int = 128,
    learning_rate: float = 2e-3,
    decay_steps: int | None = None,
    label_smoothing: float = 0.0,
) -> keras.Model:
    """A classifier of videos from frames, sound and text, compiled.

    Inputs:  frames (B, F, S, S, 3) RGB 0..255 · sound (B, n) in -1..1, 0 if missing
             text (B, T) int32, 0 if missing
    Outputs: {attribute: logits (B, classes) float32}

    Args:
        attributes: {attribute: names of its classes}, as `data(...).attributes`.
        vocabulary: `Vocabulary`, list of words, or number of tokens. Defaults to 10,000.
        sampling: `Sampling`, optional. As `data(...).sampling`. Defaults to the toy videos'.
        fusion, units, learning_rate, decay_steps, label_smoothing: See `joint_training.build`.
        modality_dropout: float. See `joint_training.build`. Without it, nothing is learned of videos without
            sound or text. Defaults to 0.2.

    Raises:
        ValueError: if an argument is invalid.
    """
    if not attributes:
        raise ValueError(f"Expected attributes to have at least one. Received: attributes={attributes}")
    return joint_training.build(
        encoders(vocabulary, MODALITIES, sampling or Sampling(), units),
        attributes,
        fusion,
        modality_dropout,
        name=CLASSIFIER,
        units=units,
        learning_rate=learning_rate,
        decay_steps=decay_steps,
        label_smoothing=label_smoothing,
    )


def encoders(
    vocabulary: Vocabulary | int | Sequence[str],
    modalities: Sequence[str] = MODALITIES,
    sampling: Sampling | None = None,
    units: int = 128,
) -> dict[str, keras.Model]:
    """h of each modality, a vector (B, units), or (B, 1, units) and whether it is there, (B, 1).

    Args:
        vocabulary, sampling: See `build`.
        modalities: Sequence of str. Of `"frames"`, `"sound"`, `"text"`. Defaults to all.
        units: int. Size of a vector. Defaults to 128.

    Raises:
        ValueError: if a modality is unknown.
    """
    checks.among(MODALITIES, modalities=modalities)
    sampling = sampling or Sampling()
    makers = {
        "frames": lambda: video_encoder(sampling.frames, sampling.image_size, units),
        "sound": lambda: pooled(sound_encoder(sampling.samples, sampling.sample_rate_hz, units)),
        "text": lambda: pooled(word_encoder(Vocabulary.of(vocabulary), units, sequence=True)),
    }
    return {name: makers[name]() for name in modalities}


def build_captioner(
    *,
    vocabulary: Vocabulary | int | Sequence[str] = 10_000,
    sampling: Sampling | None = None,
    modality_dropout: float = MODALITY_DROPOUT,
    units: int = 128,
    embedding_dim: int = 64,
    dropout: float = 0.3,
    word_dropout: float = 0.3,
    label_smoothing: float = 0.1,
    learning_rate: float = 2e-3,
    decay_steps: int | None = None,
) -> keras.Model:
    """A captioner of videos from frames and sound, compiled: the decoder of image captioning attends to both.

    Inputs:  frames (B, F, S, S, 3) RGB 0..255 · sound (B, n) in -1..1, 0 if missing
             tokens (B, T) int32, starting with <start>
    Output:  logits (B, T, V) float32

    Args:
        vocabulary, sampling, modality_dropout, units: See `build`.
        embedding_dim, dropout, word_dropout, label_smoothing, learning_rate, decay_steps: See
            `mmkeras.captioning.CaptioningConfig`. Default to 64, 0.3, 0.3, 0.1, 2e-3 and None.

    Raises:
        ValueError: if an argument is invalid.
    """
    sampling = sampling or Sampling()
    checks.ints(1, units=units, embedding_dim=embedding_dim)
    checks.numbers(0, dropout=dropout, word_dropout=word_dropout, label_smoothing=label_smoothing)

    # --- frames, sound → memory, first state ---
    inputs, complete = complete_modalities(
        {
            "frames": video_encoder(sampling.frames, sampling.image_size, units, sequence=True),
            "sound": sound_encoder(sampling.samples, sampling.sample_rate_hz, units),
        },
        modality_dropout,
    )
    vectors, masks = zip(*complete, strict=True)
    vectors = [keras.layers.LayerNormalization()(keras.layers.Dense(units)(x)) for x in vectors]
    memory = keras.layers.Concatenate(axis=1, name="memory")(vectors)  # (B, F + N, U)
    mask = keras.layers.Concatenate(axis=1)(list(masks))  # (B, F + N)
    summary = keras.layers.Concatenate()([ops.max(x, axis=1) for x in vectors])  # (B, 2U)
    state = [keras.layers.Dense(units, activation="tanh", name=name)(summary) for name in ("hidden", "cell")]
    encoder = keras.Model(list(inputs.values()), [memory, mask, *state], name="encoder")

    # --- memory, tokens → logits ---
    decoder = attention_decoder(
        Vocabulary.of(vocabulary),
        memory_dim=units,
        embedding_dim=embedding_dim,
        units=units,
        dropout=dropout,
        word_dropout=word_dropout,
        masked=True,
    )
    inputs = {x.name: keras.Input(x.shape[1:], dtype=x.dtype, name=x.name) for x in encoder.inputs}
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    logits, *_ = decoder([tokens, *encoder(list(inputs.values()))])  # (B, T, V)
    model = keras.Model(inputs | {"tokens": tokens}, logits, name=CAPTIONER)
    optimizers.compile(
        model,
        optimizers.adam(learning_rate, decay_steps),
        loss=losses.TokenCrossentropy(label_smoothing),
        weighted_metrics=[losses.TokenAccuracy()],
    )
    return model
