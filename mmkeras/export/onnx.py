"""Parts → ONNX files that share one file of weights."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import tensorflow as tf
import tf2onnx
from onnx import external_data_helper, helper, numpy_helper

from mmkeras._utils import terminal
from mmkeras._utils.parts import Part
from mmkeras.export import lowering

OPSET = 17
WEIGHTS = "weights.bin"
_LEAST_OF_8_BITS = 2**14  # values of a tensor that is stored with 8 bits: small ones would save little
_LEAST = 256  # values of a tensor that is moved to the file of weights: sizes and axes stay in the graph


def write(parts: Mapping[str, Part], folder: Path, bits: int = 32) -> None:
    """Writes {name}.onnx for each part, and their weights once.

    Args:
        parts: {name: Part}.
        folder: Path.
        bits: int. Of a stored weight: 32, 16 (float16), or 8 (large tensors as int8 with a scale per row or
            column, others as float16). Results are computed in float32. Defaults to 32.
    """
    offsets: dict[bytes, tuple[int, int]] = {}
    with open(folder / WEIGHTS, "wb") as weights:
        for name, part in parts.items():
            proto = _converted(part)
            for graph in list(_graphs(proto.graph)):
                _move_weights(graph, weights, offsets, bits)
            onnx.save(proto, folder / f"{name}.onnx")
    for name in parts:  # once their weights are on disk
        onnx.checker.check_model(os.fspath(folder / f"{name}.onnx"), full_check=True)


def run(folder: Path, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of a part that `write` has written, by name."""
    session = onnxruntime.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def _converted(part):
    signature = [tf.TensorSpec(shape, dtype, name) for name, (shape, dtype) in part.inputs.items()]

    function = tf.function(part.__call__, input_signature=signature)
    with lowering.for_onnx(), terminal.quiet_log("tf2onnx.tfonnx", ""):
        proto, _ = tf2onnx.convert.from_function(
            function, signature, opset=OPSET, custom_op_handlers=lowering.FOURIER
        )
    for value in [*proto.graph.input, *proto.graph.output]:
        for axis, size in enumerate(value.type.tensor_type.shape.dim):
            if size.dim_param or not size.dim_value:
                size.dim_param = "batch" if axis == 0 else f"{value.name}_{axis}"
    return proto


def _graphs(graph) -> Iterator:
    """A graph and those of its loops and branches."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _move_weights(graph, file, offsets, bits):
    """Replaces large tensors of a graph by their place in the file, which has equal ones once."""
    restoring = []
    for tensor in list(graph.initializer):
        values = numpy_helper.to_array(tensor)
        if values.size < _LEAST:
            continue
        name = tensor.name
        if bits < 32 and values.dtype == np.float32:
            stored, restored = f"{name}_stored", name
            if bits == 8 and values.size >= _LEAST_OF_8_BITS:
                values, scale = _to_int8(values)
                graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
                restored = f"{name}_integers"
                restoring.append(helper.make_node("Mul", [restored, f"{name}_scale"], [name]))
            else:
                values = values.astype(np.float16)
            restoring.insert(0, helper.make_node("Cast", [stored], [restored], to=onnx.TensorProto.FLOAT))
            tensor.CopyFrom(numpy_helper.from_array(values, stored))
        content = values.tobytes()
        if content not in offsets:
            file.write(b"\0" * (-file.tell() % 64))
            offsets[content] = file.tell(), len(content)
            file.write(content)
        offset, length = offsets[content]
        tensor.raw_data = content
        external_data_helper.set_external_data(tensor, WEIGHTS, offset, length)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
    if restoring:
        nodes = [*restoring, *graph.node]
        del graph.node[:]
        graph.node.extend(nodes)


def _to_int8(values):
    """Integers and the scale along the axis that keeps the values best. A float32 is their product."""

    def along(axis):
        others = tuple(other for other in range(values.ndim) if other != axis)
        scale = np.abs(values).max(axis=others, keepdims=True) / 127
        scale = np.where(scale > 0, scale, 1).astype(np.float32)
        integers = np.rint(values / scale).astype(np.int8)
        return np.square(integers * scale - values).sum(), integers, scale

    return min(map(along, range(values.ndim)), key=lambda result: result[0])[1:]
