"""Encoders: a modality → vectors.

An encoder returns one vector (B, D), or a sequence (B, N, D) and, if some of the N are padding, its mask
(B, N).
"""

import keras
from keras import ops

from mmkeras.nn import layers
from mmkeras.nn.spectrogram import LogMel, SpecAugment
from mmkeras.text.vocabulary import PAD, Vocabulary

# --- images ---


def image_encoder(image_size: int, units: int, *, sequence: bool = False) -> keras.Model:
    """Image (B, S, S, 3) RGB 0..255 → vector (B, units), or a vector per cell of an 8 x 8 grid (B, 64, units).

    A small CNN for images of 64 pixels. For larger ones see `mmkeras.nn.backbones`.

    Args:
        image_size: int. Side S in pixels.
        units: int. Size of a vector.
        sequence: bool. Whether to return the vectors of the cells. Defaults to False.
    """
    pixels = keras.Input((image_size, image_size, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels)
    # a first layer that sees 8 x 8 pixels, every fourth: on two cores a third of the time of 3 x 3 layers
    for filters, size, strides in ((48, 8, 4), (96, 3, 2), (96, 3, 1)):
        x = keras.layers.Conv2D(filters, size, strides=strides, padding="same", use_bias=False)(x)
        # momentum 0.9: the averages must settle within few steps
        x = keras.layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))  # at last (B, S/8, S/8, 96)
    if sequence:
        cells = keras.layers.Dense(units, activation="relu")(keras.layers.Reshape((-1, 96))(x))
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
