"""Parts → one SavedModel with an endpoint for each, which TensorFlow loads without Keras and mmkeras."""

from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from mmkeras._utils import terminal
from mmkeras._utils.parts import Part


def write(parts: Mapping[str, Part], folder: Path) -> None:
    """Writes the SavedModel.

    Args:
        parts: {name: Part}. Its endpoints.
        folder: Path.
    """
    archive = keras.export.ExportArchive()
    for name, part in parts.items():
        for model in part.models:
            archive.track(model)
        signature = [tf.TensorSpec(shape, dtype, name) for name, (shape, dtype) in part.inputs.items()]
        archive.add_endpoint(name, part.__call__, signature)
    with terminal.quiet_log("tensorflow", "Assets written to"):
        archive.write_out(folder, verbose=False)


def run(folder: Path, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of an endpoint that `write` has written, by name."""
    outputs = tf.saved_model.load(folder).signatures[name](**{n: tf.constant(x) for n, x in inputs.items()})
    return {name: output.numpy() for name, output in outputs.items()}
