"""Speech to text (chapter 5.2): the graph.

    audio ── encoder: log-mel → subsampling → bidirectional LSTMs → memory ──┐
    tokens ─ decoder: embedding → LSTM → attention ──────────────────────────┴→ logits       head="attention"
                                                                 memory ── head → logits     head="ctc"

Encoder, decoder and head are Functional models: `model.get_layer("encoder")`, and `"decoder"` or `"head"`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import keras

from mmkeras._utils import checks, presets
from mmkeras.decoding import ctc
from mmkeras.nn import backbones, layers, losses, optimizers
from mmkeras.nn.attention_decoder import attention_decoder
from mmkeras.nn.encoders import speech_encoder
from mmkeras.text.vocabulary import Vocabulary

TASK = "speech_to_text"
EPOCHS = 3  # passes over the toy world that the preset "toy" is made for

HEADS = ("attention", "ctc")


@dataclass(frozen=True)
class SpeechConfig:
    """Sizes of the graph and settings of its training. The defaults are for read speech: LSTMs of 256 units as
    in the document, in a stack as in Chan et al. 2016.

    Attributes:
        sample_rate_hz: int. Sample rate of the clips.
        frame_ms, hop_ms: int. Length of a frame of the log-mel spectrogram, time from one frame to the next.
        bands: int. Mel bands.
        subsampling: int. Frames per time step of the encoder. A time step lasts hop_ms * subsampling.
        encoder_layers: int. Number of bidirectional LSTMs.
        encoder: keras.Model, optional. Log-mel (B, F, bands) → (B, F / subsampling, D), in place of the LSTMs,
            such as Whisper's encoder. It is copied.
        fine_tune: bool. Whether such an encoder is trained.
        units: int. Units of each LSTM and channels of the memory.
        embedding_dim: int. Size of the token embedding (attention decoder).
        spec_augment: bool. Whether training masks parts of the spectrogram (SpecAugment).
        dropout: float. Dropout rate.
        word_dropout: float. Rate at which the complete embedding of an input token is set to 0 (attention
            decoder).
        label_smoothing: float. Label smoothing of the cross-entropy (attention decoder).
        diagonal_penalty: float. Weight of the attention far from the diagonal in the training loss (attention
            decoder). It makes the attention move from the start to the end of a clip.
        learning_rate: float. Initial learning rate of Adam.
        decay_steps: int, optional. Steps of the cosine decay to a fiftieth. None: constant.
    """

    sample_rate_hz: int = 16_000
    frame_ms: int = 25
    hop_ms: int = 10
    bands: int = 80
    subsampling: int = 4
    encoder_layers: int = 3
    encoder: keras.Model | None = None
    fine_tune: bool = True
    units: int = 256
    embedding_dim: int = 256
    spec_augment: bool = True
    dropout: float = 0.2
    word_dropout: float = 0.0
    label_smoothing: float = 0.1
    diagonal_penalty: float = 0.0
    learning_rate: float = 1e-3
    decay_steps: int | None = None

    def __post_init__(self):
        sizes = ("sample_rate_hz", "frame_ms", "hop_ms", "bands", "subsampling", "encoder_layers", "units")
        checks.ints(1, **{name: getattr(self, name) for name in (*sizes, "embedding_dim")})
        rates = ("dropout", "word_dropout", "label_smoothing", "diagonal_penalty")
        checks.numbers(0, **{name: getattr(self, name) for name in rates})
        optimizers.check_schedule(self.learning_rate, self.decay_steps)


PRESETS = {
    "document": SpeechConfig(),
    "toy": SpeechConfig(
        bands=40,
        encoder_layers=2,
        units=128,
        embedding_dim=64,
        dropout=0.0,
        word_dropout=0.2,
        label_smoothing=0.0,
        diagonal_penalty=1.0,
        learning_rate=2e-3,
        decay_steps=EPOCHS * 4000 // 32,  # of the toy world's 4,000 clips, in batches of 32
    ),
}


def build(
    preset: str | SpeechConfig = "toy",
    *,
    vocabulary: Vocabulary | int | Sequence[str] = 10_000,
    head: str = "attention",
    compile: bool = True,
    **overrides,
) -> keras.Model:
    """Speech recognition: bidirectional LSTMs, then attention (Chan et al. 2016, arXiv:1508.01211) or CTC.

    Inputs:  audio  (B, n) float32 in -1..1, padded at the end
             length (B,) int32, the valid samples of each clip
             tokens (B, T) int32, starting with <start>; with `head="attention"` only
    Output:  logits float32: (B, T, V), or with CTC (B, S, V) for S time steps of hop_ms * subsampling (40 ms)

    Args:
        preset: `"toy"` (for the toy world, trains in minutes on two cores), `"document"` (LSTMs of 256, 80
            bands, for recordings), or a `SpeechConfig`. Defaults to `"toy"`.
        vocabulary: `Vocabulary` of words or characters, list of them, or number of tokens. Defaults to 10,000.
        head: str. `"attention"`: an LSTM decoder, as in the document. `"ctc"`: a token or the blank per time
            step. Defaults to `"attention"`.
        compile: bool. Whether to compile with Adam and the head's loss. Defaults to True.
        **overrides: Sizes in place of the preset's, see `SpeechConfig`.

    Raises:
        ValueError, TypeError: for an unknown preset, head or override, or an invalid size.
    """
    config = presets.with_overrides(PRESETS, preset, overrides)
    if head not in HEADS:
        raise ValueError(f"Expected head to be 'attention' or 'ctc'. Received: head={head!r}")
    vocabulary = Vocabulary.of(vocabulary)

    # --- audio → memory ---
    audio = keras.Input((None,), name="audio")
    length = keras.Input((), dtype="int32", name="length")
    encoder = speech_encoder(
        sample_rate_hz=config.sample_rate_hz,
        frame_ms=config.frame_ms,
        hop_ms=config.hop_ms,
        bands=config.bands,
        subsampling=config.subsampling,
        encoder_layers=config.encoder_layers,
        units=config.units,
        dropout=config.dropout,
        spec_augment=config.spec_augment,
        with_state=head == "attention",
        network=config.encoder
        and backbones.sequence_network(config.encoder, config.bands, config.subsampling, config.fine_tune),
    )
    memory, mask, *state = encoder([audio, length])  # (B, S, U), (B, S)

    # --- memory, and with attention tokens → logits ---
    if head == "attention":
        decoder = attention_decoder(
            vocabulary,
            memory_dim=config.units,
            embedding_dim=config.embedding_dim,
            units=config.units,
            dropout=config.dropout,
            word_dropout=config.word_dropout,
            diagonal_penalty=config.diagonal_penalty,
            masked=True,
        )
        tokens = keras.Input((None,), dtype="int32", name="tokens")
        logits, *_ = decoder([tokens, memory, mask, *state])  # (B, T, V)
        model = keras.Model([audio, length, tokens], logits, name=TASK)
        loss, metrics = losses.TokenCrossentropy(config.label_smoothing), [losses.TokenAccuracy()]
    else:
        logits = ctc_head(vocabulary, memory_dim=config.units)([memory, mask])  # (B, S, V)
        model = keras.Model([audio, length], logits, name=TASK)
        loss, metrics = ctc.CTC(), []
    if compile:
        adam = optimizers.adam(config.learning_rate, config.decay_steps)
        optimizers.compile(model, adam, loss=loss, weighted_metrics=metrics)
    return model


def ctc_head(vocabulary: Vocabulary, *, memory_dim: int) -> keras.Model:
    """Memory (B, S, memory_dim), mask (B, S) → logits (B, S, V), which are the blank on padding.

    Args:
        vocabulary: `Vocabulary` of V tokens.
        memory_dim: int. Channels of the memory.
    """
    memory = keras.Input((None, memory_dim), name="memory")
    mask = keras.Input((None,), dtype="bool", name="mask")
    logits = layers.TokenLogits(vocabulary, name="logits")(memory)  # (B, S, V)
    return keras.Model([memory, mask], ctc.OnlyBlank()(logits, mask), name="head")
