"""Encoders: a modality → vectors.

An encoder returns one vector (B, D), or a sequence (B, N, D) and, if some of the N are padding, its mask
(B, N).
"""

from collections.abc import Sequence

import keras
from keras import ops

from mmkeras.nn import layers
from mmkeras.nn.spectrogram import LogMel, SpecAugment
from mmkeras.text.vocabulary import PAD, Vocabulary

FRAME_FILTERS = (24, 48, 48)  # of the CNN of a video's frames
SOUND_BANDS, SOUND_STEP = 24, 8  # mel bands, log-mel frames of 10 ms per time step

# --- images ---


def image_encoder(
    image_size: int, units: int, *, sequence: bool = False, filters: Sequence[int] = (48, 96, 96)
) -> keras.Model:
    """Image (B, S, S, 3) RGB 0..255 → vector (B, units), or a vector per cell of an 8 x 8 grid (B, 64, units).

    A small CNN for images of 64 pixels. For larger ones see `mmkeras.nn.backbones`.

    Args:
        image_size: int. Side S in pixels.
        units: int. Size of a vector.
        sequence: bool. Whether to return the vectors of the cells. Defaults to False.
        filters: Filters of the three layers. Default to 48, 96 and 96.
    """
    pixels = keras.Input((image_size, image_size, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels)
    # a first layer that sees 8 x 8 pixels, every fourth: on two cores a third of the time of 3 x 3 layers
    for number, size, strides in zip(filters, (8, 3, 3), (4, 2, 1), strict=True):
        x = keras.layers.Conv2D(number, size, strides=strides, padding="same", use_bias=False)(x)
        # momentum 0.9: the averages must settle within few steps
        x = keras.layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))  # at last (B, S/8, S/8, 96)
    if sequence:
        cells = keras.layers.Dense(units, activation="relu")(keras.layers.Reshape((-1, filters[-1]))(x))
        return keras.Model(pixels, layers.PositionEmbedding()(cells), name="image")  # (B, 64, U)
    pooled = keras.layers.GlobalMaxPooling2D()(x)  # (B, 96): what the image shows
    cells = keras.layers.Flatten()(keras.layers.Conv2D(8, 1, activation="relu")(x))  # (B, 512): and where
    x = keras.layers.Dense(units, activation="relu")(keras.layers.Concatenate()([pooled, cells]))
    return keras.Model(pixels, x, name="image")  # (B, U)


# --- texts ---


def text_encoder(vocabulary: Vocabulary, embedding_dim: int, units: int) -> keras.Model:
    """Token ids (B, T) int32 → text embedding (B, units): the LSTM's output at the last non-padding token.

    Args:
        vocabulary: `Vocabulary`. Saved in the model's config.
        embedding_dim: int. Size of the word embeddings.
        units: int. Size of the LSTM.
    """
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    # Keras's embeddings start within 0.05 of 0, so close together that blue and purple can remain one color.
    spread = keras.initializers.RandomNormal(stddev=0.5)
    embedding = layers.TokenEmbedding(
        vocabulary, embedding_dim, embeddings_initializer=spread, name="embedding"
    )
    x = embedding(tokens)  # (B, T, E)
    text = layers.MaskedLSTM(units, name="lstm")(x, mask=ops.not_equal(tokens, PAD))  # (B, U)
    return keras.Model(tokens, text, name="encoder")


def word_encoder(
    vocabulary: Vocabulary, units: int, *, length: int | None = None, sequence: bool = False
) -> keras.Model:
    """Token ids (B, T) int32 → vector (B, units), or vectors (B, T, units) and their mask, by an LSTM in both
    directions.

    Args:
        vocabulary: `Vocabulary`. Saved in the model's config.
        units: int. Size of a vector.
        length: int, optional. T. Defaults to None: any.
        sequence: bool. Whether to return the vectors of the words. Defaults to False: their maximum.
    """
    tokens = keras.Input((length,), dtype="int32", name="tokens")
    words = layers.TokenEmbedding(vocabulary, units)(tokens)  # (B, T, U)
    return keras.Model(tokens, _both_ways(words, ops.not_equal(tokens, PAD), units, sequence), name="text")


# --- speech ---


def speech_encoder(
    *,
    sample_rate_hz: int = 16_000,
    frame_ms: int = 25,
    hop_ms: int = 10,
    bands: int = 80,
    subsampling: int = 4,
    encoder_layers: int = 3,
    units: int = 256,
    dropout: float = 0.2,
    spec_augment: bool = True,
    with_state: bool = False,
    network: keras.Model | None = None,
) -> keras.Model:
    """Clip (B, n), its valid samples (B,) → memory (B, S, units) and the mask of its valid time steps (B, S).

    Args:
        sample_rate_hz, frame_ms, hop_ms, bands: int. Of the log-mel spectrogram, see
            `mmkeras.nn.spectrogram.LogMel`.
        subsampling: int. Frames per time step. Defaults to 4.
        encoder_layers: int. Number of bidirectional LSTMs. Defaults to 3.
        units: int. Units of each LSTM and channels of the memory. Defaults to 256.
        dropout: float. Dropout rate. Defaults to 0.2.
        spec_augment: bool. Whether training masks parts of the spectrogram. Defaults to True.
        with_state: bool. Whether to return a decoder's first state as well (hidden, cell: (B, units)). Defaults
            to False.
        network: keras.Model, optional. Log-mel (B, F, bands) → (B, ceil(F / subsampling), D), in place of the
            LSTMs. Defaults to None.
    """
    audio = keras.Input((None,), name="audio")
    length = keras.Input((), dtype="int32", name="length")
    log_mel = LogMel(sample_rate_hz, frame_ms, hop_ms, bands, name="log_mel")
    x, mask = log_mel(audio, length)  # (B, F, M), (B, F)
    if spec_augment:
        x = SpecAugment(name="spec_augment")(x)
    if network is not None:
        # complete time steps, so that the number of vectors follows from the number of frames
        x = layers.SequenceFeatures(network, subsampling, name="subsampling")(x)  # (B, S, D)
        mask = mask[:, ::subsampling]  # (B, S)
    else:
        # A time step joins `subsampling` frames without overlap; zeros complete the last one. With "same"
        # padding the number of zeros before the first frame would depend on how far the clip is padded.
        x = keras.layers.ZeroPadding1D((0, subsampling - 1))(x)  # (B, F + subsampling - 1, M)
        x = keras.layers.Conv1D(units, subsampling, strides=subsampling, name="subsampling")(x)  # (B, S, U)
        mask = mask[:, ::subsampling]  # (B, S)
        for number in range(encoder_layers):
            lstm = layers.MaskedLSTM(units, return_sequences=True)
            x = layers.MaskedBidirectional(lstm, name=f"lstm_{number}")(x, mask=mask)  # (B, S, 2U)
            x = keras.layers.Dropout(dropout)(x)
    memory = keras.layers.LayerNormalization()(keras.layers.Dense(units, name="memory")(x))
    memory = memory * ops.cast(mask, memory.dtype)[..., None]  # (B, S, U), 0 on padding
    outputs = [memory, mask]
    if with_state:
        pooled = keras.layers.GlobalAveragePooling1D()(memory, mask=mask)  # (B, U)
        outputs.append(keras.layers.Dense(units, activation="tanh", name="hidden")(pooled))  # (B, U)
        outputs.append(keras.layers.Dense(units, activation="tanh", name="cell")(pooled))  # (B, U)
    return keras.Model([audio, length], outputs, name="encoder")


def frame_encoder(frames: int, size: int, units: int, *, sequence: bool = False) -> keras.Model:
    """Frames of speech (B, F, size), 0 after the end of a clip → vector (B, units), or vectors (B, F, units)
    and their mask, by an LSTM in both directions.

    Args:
        frames, size: int. Frames F of a clip, values per frame.
        units: int. Size of a vector.
        sequence: bool. Whether to return the vectors of the frames. Defaults to False: their maximum.
    """
    x = keras.Input((frames, size), name="speech")
    mask = ops.any(ops.not_equal(x, 0), axis=-1)  # (B, F)
    return keras.Model(x, _both_ways(x, mask, units, sequence), name="speech")


# --- videos ---


def video_encoder(frames: int, image_size: int, units: int, *, sequence: bool = False) -> keras.Model:
    """Frames (B, F, S, S, 3) RGB 0..255 → vector (B, 2 units), or vectors (B, F, 2 units) and their mask: a CNN
    for each frame, then an LSTM in both directions.

    Args:
        frames, image_size: int. Frames F of a video, their side S in pixels.
        units: int. Size of a vector of the CNN and of the LSTM.
        sequence: bool. Whether to return the vectors of the frames. Defaults to False: the maximum of the
            LSTM's and the mean of the CNN's.
    """
    video = keras.Input((frames, image_size, image_size, 3), name="frames")
    x = ops.reshape(video, (-1, image_size, image_size, 3))  # (B F, S, S, 3)
    x = image_encoder(image_size, units, filters=FRAME_FILTERS)(x)  # (B F, U)
    x = ops.reshape(x, (-1, frames, units))  # (B, F, U)
    mask = ops.ones_like(x[:, :, 0], "bool")  # (B, F)
    changes, _ = _both_ways(x, mask, units, sequence=True)  # (B, F, U)
    # beside the LSTM's vectors those of the CNN: what is there is learned slowly through the LSTM alone
    if sequence:
        return keras.Model(video, [keras.layers.Concatenate()([changes, x]), mask], name="frames")
    summary = keras.layers.Concatenate()([ops.max(changes, axis=1), ops.mean(x, axis=1)])  # (B, 2U)
    return keras.Model(video, summary, name="frames")


def sound_encoder(samples: int, sample_rate_hz: int, units: int) -> keras.Model:
    """Sound (B, n) → vectors (B, N, units), one per 80 ms, and their mask, False for a silent sound: log-mel
    frames, then an LSTM in both directions.

    Args:
        samples, sample_rate_hz: int. Samples n of a sound, their rate.
        units: int. Size of a vector.
    """
    sound = keras.Input((samples,), name="sound")
    log_mel, _ = LogMel(sample_rate_hz, bands=SOUND_BANDS, name="log_mel")(
        sound, ops.full_like(sound[:, 0], samples, "int32")
    )  # (B, F, M)
    steps = log_mel.shape[1] // SOUND_STEP
    x = ops.reshape(log_mel[:, : steps * SOUND_STEP], (-1, steps, SOUND_STEP * SOUND_BANDS))  # (B, N, 8M)
    mask = ops.repeat(ops.any(ops.not_equal(sound, 0), axis=1, keepdims=True), steps, axis=1)  # (B, N)
    return keras.Model(sound, _both_ways(x, mask, units, sequence=True), name="sound")


def pooled(encoder: keras.Model) -> keras.Model:
    """An encoder of vectors (B, N, D) and their mask → one of their maximum, as a sequence of one vector
    (B, 1, D), and whether any was valid, (B, 1)."""
    vectors, mask = encoder.output
    outputs = [ops.max(vectors, axis=1, keepdims=True), ops.any(mask, axis=1, keepdims=True)]
    return keras.Model(encoder.input, outputs, name=encoder.name)


# --- other modalities ---


def dense_encoder(size: int, units: int, name: str) -> keras.Model:
    """Values (B, size) of the modality `name` → vector (B, units), by two dense layers."""
    x = values = keras.Input((size,), name=name)
    for _ in range(2):
        x = keras.layers.Dense(units, activation="relu")(x)  # (B, U)
    return keras.Model(values, x, name=name)


def _both_ways(x, mask, units, sequence):
    both_ways = layers.MaskedBidirectional(layers.MaskedLSTM(units // 2, return_sequences=True))
    x = both_ways(x, mask=mask)  # (B, N, U)
    return [ops.where(mask[:, :, None], x, 0), mask] if sequence else ops.max(x, axis=1)
