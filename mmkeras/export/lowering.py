"""What ONNX lacks, in operations that it has. While a graph is traced they stand in for those of Keras.

- tf2onnx turns the masked LSTM of Keras into a slow loop, and drops the lengths of one in both directions. Here
  an LSTM runs over the padding, and its results there are set to 0.
- It takes a Fourier transform under few conditions, and as a matrix. `FOURIER` makes it the operation of ONNX.
- `keras.ops.argmax` becomes operations on bits, which ONNX lacks.
"""

import contextlib
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from onnx import TensorProto

from mmkeras.nn import layers


@contextlib.contextmanager
def for_onnx():
    """What is traced inside holds operations of ONNX only. For masks whose valid positions come first."""

    def stft(x, frame, hop, fft, center):
        start = ops.arange(1 + (ops.shape(x)[1] - fft) // hop) * hop  # (F,)
        first = (fft - frame) // 2  # Keras has the window in the middle of the transform
        window = tf.signal.hann_window(frame, periodic=True)
        frames = ops.take(x, start[:, None] + first + ops.arange(frame), axis=1) * window  # (B, F, frame)
        transform = tf.signal.rfft(frames, [fft])  # begins at the window, which changes the phase alone
        return tf.math.real(transform), tf.math.imag(transform)

    def argmax(x, axis=None):
        return tf.argmax(x, axis=axis, output_type=tf.int32)

    never = property(lambda _: False, lambda *_: None)
    with (
        mock.patch.object(ops, "stft", stft),
        mock.patch.object(ops, "argmax", argmax),
        mock.patch.object(layers.MaskedLSTM, "call", _lstm),
        mock.patch.object(layers.MaskedBidirectional, "call", _bidirectional),
        # on a GPU the graph would hold its own kernel
        mock.patch.object(keras.layers.LSTM, "use_cudnn", never, create=True),
    ):
        yield


def _lstm(layer, sequences, initial_state=None, mask=None, training=False):
    if initial_state is not None:
        raise ValueError("Expected a masked LSTM without an initial state, which its export would lose")
    count = _count(mask)
    outputs = _run(layer, sequences)
    return _padded(outputs, mask) if layer.return_sequences else _last(outputs, count)


def _bidirectional(layer, sequences, initial_state=None, mask=None, training=None):
    count = _count(mask)
    forward = _run(layer.forward_layer, sequences)
    backward = _run(layer.backward_layer, _reversed(sequences, count))
    if not layer.forward_layer.return_sequences:
        return ops.concatenate([_last(forward, count), _last(backward, count)], axis=-1)
    return _padded(ops.concatenate([forward, _reversed(backward, count)], axis=-1), mask)


def _run(lstm, sequences):
    """(B, T, C) → the outputs of all steps (B, T, U), without a mask."""
    with mock.patch.multiple(lstm, return_sequences=True, go_backwards=False):
        return keras.layers.LSTM.call(lstm, sequences)


def _count(mask):
    """(B, T) → (B,) int32, the valid positions."""
    return ops.sum(ops.cast(mask, "int32"), axis=1)


def _reversed(x, count):
    """(B, T, C) with the `count` (B,) valid positions of each row in reverse."""
    position = ops.arange(ops.shape(x)[1])[None]  # (1, T)
    source = ops.where(position < count[:, None], count[:, None] - 1 - position, position)  # (B, T)
    return tf.gather(x, source, batch_dims=1)


def _last(x, count):
    """(B, T, C) → (B, C) at the last of the `count` (B,) valid positions."""
    is_last = ops.arange(ops.shape(x)[1])[None] == count[:, None] - 1  # (B, T)
    return ops.sum(x * ops.cast(is_last, x.dtype)[:, :, None], axis=1)


def _padded(x, mask):
    return x * ops.cast(mask, x.dtype)[:, :, None]


def _transform(graph, node, name, _):
    """(..., n) → (..., bins, 2): ONNX has no complex numbers."""
    (size,), signal, shape = node.inputs[1].get_tensor_value(), node.input[0], graph.get_shape(node.output[0])
    axis, size = (graph.make_const(f"{name}/{i}", np.array(i)).output[0] for i in ([-1], size))
    signal = graph.make_node("Unsqueeze", [signal, axis]).output[0]
    options = {"axis": len(shape) - 1, "onesided": 1}
    _replace(graph, node, "DFT", [signal, size], options, [*shape, 2])


def _take(graph, node, name, parts):
    """Takes the real or the imaginary part of what `_transform` makes."""
    index = graph.make_const(f"{name}/index", np.array(parts[0])).output[0]
    _replace(graph, node, "Gather", [node.input[0], index], {"axis": -1}, graph.get_shape(node.output[0]))


def _replace(graph, node, operation, inputs, options, shape):
    graph.remove_node(node.name)
    kinds = {"shapes": [shape], "dtypes": [TensorProto.FLOAT]}
    graph.make_node(operation, inputs, options, outputs=node.output, name=node.name, **kinds)


# for tf2onnx: {operation of TensorFlow: (function, [its new name, other arguments])}
FOURIER = {"RFFT": (_transform, []), "Real": (_take, ["Gather", 0]), "Imag": (_take, ["Gather", 1])}
