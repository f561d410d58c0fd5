"""Speech to text (chapter 5.2): the graph.

    audio ── encoder: log-mel → subsampling → bidirectional LSTMs → memory ──┐
    tokens ─ decoder: embedding → LSTM → attention ──────────────────────────┴→ logits       head="attention"
                                                                 memory ── head → logits     head="ctc"

The halves are Functional models by themselves: `model.get_layer("encoder")`, and `"decoder"` or `"head"`.
"""

from collections.abc import Sequence

import keras

from mmkeras._utils import checks, presets
from mmkeras.data.vocabulary import Vocabulary
from mmkeras.decoding import ctc
from mmkeras.nn import encoders, layers, losses, optimizers
from mmkeras.nn.attention_decoder import attention_decoder

TASK = "speech_to_text"

PRESETS = {
    # the document's size: LSTMs of 256; deep enough for read speech, as in Chan et al. 2016
    "document": {
        "sample_rate_hz": 16_000,
        "frame_ms": 25,
        "hop_ms": 10,
        "bands": 80,
        "subsampling": 4,
        "encoder_layers": 3,
        "units": 256,
        "embedding_dim": 256,
        "spec_augment": True,
        "dropout": 0.2,
        "word_dropout": 0.0,
        "label_smoothing": 0.1,
        "learning_rate": 1e-3,
        "decay_steps": None,
    },
    "toy": {
        "sample_rate_hz": 16_000,
        "frame_ms": 25,
        "hop_ms": 10,
        "bands": 40,
        "subsampling": 4,
        "encoder_layers": 2,
        "units": 128,
        "embedding_dim": 64,
        "spec_augment": True,
        "dropout": 0.0,
        "word_dropout": 0.2,
        "label_smoothing": 0.0,
        "learning_rate": 2e-3,
        "decay_steps": 375,  # three passes over the toy world's 4,000 utterances
    },
}
HEADS = ("attention", "ctc")


def build(
    preset: str = "toy",
    *,
    vocabulary: Vocabulary | int | Sequence[str] = 10_000,
    head: str = "attention",
    compile: bool = True,
    **overrides,
) -> keras.Model:
    """Speech to text: bidirectional LSTMs, then attention (Chan et al. 2016, arXiv:1508.01211) or CTC.

    Inputs:  audio  (batch, samples) float32 in -1..1, padded at the end
             length (batch,) int32, the real samples of each clip
             tokens (batch, time) int32, starting with <start>; with `head="attention"` alone
    Output:  logits float32: (batch, time, vocabulary), or with CTC (batch, steps, vocabulary), where a step
             is hop_ms * subsampling long (40 ms)

    Args:
        preset: `"toy"` (learns the toy world in minutes on two cores) or `"document"` (LSTMs of 256, 80 bands,
            for recordings).
        vocabulary: the words or characters, a `Vocabulary`, or only its size.
        head: `"attention"`: an LSTM that writes, as the document has it. `"ctc"`: one label or none a step.
        compile: with Adam and the head's loss; False leaves it to the caller.
        overrides: of the preset: `sample_rate_hz`, `frame_ms`, `hop_ms`, `bands` (of the log-mel spectrogram),
            `subsampling` (frames a step), `spec_augment`, `encoder_layers`, `units`, `dropout`; of the
            attention decoder alone `embedding_dim`, `word_dropout`, `label_smoothing`; `learning_rate`, and
            `decay_steps`, after which the learning rate has fallen to a fiftieth along a cosine.

    Raises:
        ValueError, TypeError: a preset, a head or an override that nobody knows, or a size below 1.
    """
    sizes = presets.with_overrides(PRESETS, preset, overrides)
    checks.ints(1, **{name: sizes[name] for name in _AT_LEAST_ONE})
    checks.numbers(0, dropout=sizes["dropout"])
    optimizers.check_schedule(sizes["learning_rate"], sizes["decay_steps"])
    if head not in HEADS:
        raise ValueError(f"Expected head to be 'attention' or 'ctc'. Received: head={head!r}")
    vocabulary = Vocabulary.of(vocabulary)

    encoder = encoders.speech_encoder(
        **{name: sizes[name] for name in _ENCODER_SIZES}, with_state=head == "attention"
    )
    audio = keras.Input((None,), name="audio")
    length = keras.Input((), dtype="int32", name="length")
    memory, is_real, *state = encoder([audio, length])  # (B, S, U), (B, S)
    if head == "attention":
        decoder = attention_decoder(
            vocabulary,
            memory_dim=sizes["units"],
            embedding_dim=sizes["embedding_dim"],
            units=sizes["units"],
            dropout=sizes["dropout"],
            word_dropout=sizes["word_dropout"],
            masked=True,
        )
        tokens = keras.Input((None,), dtype="int32", name="tokens")
        logits, *_ = decoder([tokens, memory, is_real, *state])  # (B, T, V)
        model = keras.Model([audio, length, tokens], logits, name=TASK)
        loss, metrics = losses.TokenCrossentropy(sizes["label_smoothing"]), [losses.TokenAccuracy()]
    else:
        logits = ctc_head(vocabulary, memory_dim=sizes["units"])([memory, is_real])  # (B, S, V)
        model = keras.Model([audio, length], logits, name=TASK)
        loss, metrics = ctc.CTC(), []
    if compile:
        model.compile(optimizers.adam(sizes["learning_rate"], sizes["decay_steps"]), loss=loss, metrics=metrics)
    return model


_AT_LEAST_ONE = (
    "sample_rate_hz", "frame_ms", "hop_ms", "bands", "subsampling", "encoder_layers", "units", "embedding_dim",
)  # fmt: skip
_ENCODER_SIZES = (
    "sample_rate_hz", "frame_ms", "hop_ms", "bands", "subsampling", "encoder_layers", "units", "dropout",
    "spec_augment",
)  # fmt: skip


def ctc_head(vocabulary: Vocabulary, *, memory_dim: int) -> keras.Model:
    """Memory (B, S, memory_dim) and which steps are real (B, S) → logits (B, S, V); padded steps say blank."""
    memory = keras.Input((None, memory_dim), name="memory")
    is_real = keras.Input((None,), dtype="bool", name="real")
    logits = layers.TokenLogits(vocabulary, name="logits")(memory)
    return keras.Model([memory, is_real], ctc.OnlyBlank()(logits, is_real), name="head")
