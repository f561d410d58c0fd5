"""Transformer blocks."""

import keras


def transformer_block(x, mask, heads: int, dropout: float):
    """Vectors (B, N, W), mask (B, N) bool → (B, N, W): self-attention and a dense network, each after a
    layer normalization and with a residual connection (Vaswani et al. 2017, arXiv:1706.03762; normalization
    first: Xiong et al. 2020, arXiv:2002.04745).

    Args:
        x: (B, N, W).
        mask: (B, N) bool, the valid positions. None: all.
        heads: int. Attention heads, which divide W.
        dropout: float. Dropout rate.
    """
    width = x.shape[-1]
    y = keras.layers.LayerNormalization()(x)
    attention = keras.layers.MultiHeadAttention(heads, width // heads)
    y = attention(y, y, attention_mask=None if mask is None else mask[:, None])
    x = x + keras.layers.Dropout(dropout)(y)  # (B, N, W)
    y = keras.layers.LayerNormalization()(x)
    y = keras.layers.Dense(2 * width, activation="gelu")(y)  # (B, N, 2W)
    return x + keras.layers.Dropout(dropout)(keras.layers.Dense(width)(y))  # (B, N, W)
