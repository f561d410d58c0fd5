"""The attention decoder of captioning (chapter 5.1) and speech recognition (5.2)."""

import keras
from keras import ops

from mmkeras.nn.layers import GuidedAttention, TokenEmbedding
from mmkeras.text.vocabulary import PAD, Vocabulary


def attention_decoder(
    vocabulary: Vocabulary,
    *,
    memory_dim: int,
    embedding_dim: int,
    units: int,
    dropout: float,
    word_dropout: float = 0.0,
    query_dropout: float = 0.0,
    entropy_penalty: float = 0.0,
    diagonal_penalty: float = 0.0,
    masked: bool = False,
    name: str = "decoder",
) -> keras.Model:
    """LSTM decoder with additive attention: teacher forcing in training, one step at a time in decoding.

    The LSTM output is the query. Additive attention (Bahdanau et al. 2015, arXiv:1409.0473) over the memory
    returns a context vector, and [output; context] is projected to logits, as in Luong et al. 2015
    (arXiv:1508.04025). The attention does not feed back into the LSTM, so that training needs one LSTM call per
    sequence.

    Inputs:  tokens (B, T) int32 · memory (B, N, memory_dim) · if `masked`: mask (B, N) bool, the valid
             positions of the memory · hidden, cell (B, units), the LSTM's state
    Outputs: logits (B, T, V) float32 · hidden, cell (B, units) after the last token · attention (B, T, N)

    Args:
        vocabulary: `Vocabulary` of V tokens.
        memory_dim: int. Channels of the memory.
        embedding_dim: int. Size of the token embedding.
        units: int. Units of the LSTM.
        dropout: float. Dropout rate of the embedding and of the combined vector.
        word_dropout: float. Rate at which the complete embedding of a token is set to 0 (Bowman et al. 2016,
            arXiv:1511.06349), so that the decoder relies on the memory and not on previous tokens. Defaults to
            0.
        query_dropout: float. Rate at which the complete query of a step is set to 0. The attention is then the
            same for all words, so it learns cells from which every word can be predicted. Defaults to 0.
        entropy_penalty, diagonal_penalty: float. Weights of penalties on the attention in the training loss,
            see `mmkeras.nn.layers.GuidedAttention`. Default to 0.
        masked: bool. Whether the memory has padding. Defaults to False.
        name: str. Name of the model. Defaults to `"decoder"`.
    """
    tokens = keras.Input((None,), dtype="int32", name="tokens")  # (B, T)
    memory = keras.Input((None, memory_dim), name="memory")  # (B, N, M)
    mask = [keras.Input((None,), dtype="bool", name="mask")] if masked else []  # (B, N)
    state = [keras.Input((units,), name="hidden"), keras.Input((units,), name="cell")]  # (B, U) each

    # --- tokens → query ---
    x = TokenEmbedding(vocabulary, embedding_dim, name="embedding")(tokens)  # (B, T, E)
    x = keras.layers.Dropout(word_dropout, noise_shape=(None, None, 1), name="word_dropout")(x)
    x = keras.layers.Dropout(dropout)(x)
    lstm = keras.layers.LSTM(units, return_sequences=True, return_state=True, name="lstm")
    x, hidden, cell = lstm(x, initial_state=state)  # (B, T, U), (B, U), (B, U)
    query = keras.layers.Dense(memory_dim, name="query")(x)  # (B, T, M)
    query = keras.layers.Dropout(query_dropout, noise_shape=(None, None, 1), name="query_dropout")(query)

    # --- query, memory → context ---
    masks = [ops.not_equal(tokens, PAD), *mask] if masked else None  # (B, T), (B, N)
    context, attention = GuidedAttention(entropy_penalty, diagonal_penalty, name="attention")(
        [query, memory], mask=masks, return_attention_scores=True
    )  # (B, T, M), (B, T, N)

    # --- output, context → logits ---
    x = keras.layers.Concatenate()([x, context])  # (B, T, U + M)
    x = keras.layers.Dense(units, activation="tanh", name="combine")(x)  # (B, T, U)
    x = keras.layers.Dropout(dropout)(x)
    # float32 also under mixed precision: a softmax over thousands of words needs it
    logits = keras.layers.Dense(len(vocabulary), dtype="float32", name="logits")(x)  # (B, T, V)
    return keras.Model([tokens, memory, *mask, *state], [logits, hidden, cell, attention], name=name)
