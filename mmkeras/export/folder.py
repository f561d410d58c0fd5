"""`write` exports a predictor: its parts, vocabulary, card and `run.py`, checked against the model."""

import importlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mmkeras import _version
from mmkeras._utils import disk
from mmkeras._utils.parts import Part

FORMATS = {"onnx": ("onnx", "onnxruntime", "tf2onnx"), "saved_model": ()}  # {format: the packages it needs}
TOLERANCE = {32: 1e-4, 16: 3e-2, 8: 1e-1}  # by the bits of a weight, relative to the largest value of a tensor
# Example inputs: samples of a clip, steps of other sequences, and the valid share of each of the rows
_SAMPLES, _STEPS, _VALID = 16_000, 12, (1.0, 0.6, 0.3)


def write(
    predictor: Any, folder: str | os.PathLike, format: str = "onnx", half: bool = False
) -> dict[str, float]:
    """Writes a predictor to a folder, and compares what was written with it on a padded batch.

    Args:
        predictor: Predictor.
        folder: path. A new or empty folder.
        format: str. `"onnx"` or `"saved_model"`. Defaults to `"onnx"`.
        half: bool. ONNX only: whether weights are stored as float16. Results are computed in float32. Defaults
            to False.

    Returns:
        {part: largest difference from the model's own results}, relative to the largest value above 1.

    Raises:
        ValueError: for another format, a folder with files, Keras on another backend than TensorFlow, a model
            with an operation that the format lacks, or results that differ by more than 1e-4 (3e-2 with
            `half`). The folder is then empty.
        ImportError: if packages for the format are missing.
    """
    check_format(format)
    if half and format != "onnx":
        raise ValueError(f"Expected half=True with format='onnx' only. Received: format={format!r}")
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"Expected folder to be new or empty. Received: folder={str(folder)!r} with files")
    disk.check_writable(folder, "the argument folder")
    parts = predictor.parts()
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch)
        differences = write_parts(predictor, parts, made, format, bits=16 if half else 32)
        _write_others(predictor, parts, made, differences, format, half)
        shutil.copytree(made, folder, dirs_exist_ok=True)
    return differences


def check_format(format: str) -> None:
    """Raises ValueError for an unknown format, or Keras on another backend than TensorFlow; ImportError if
    packages for the format are missing."""
    if format not in FORMATS:
        known = " or ".join(map(repr, FORMATS))
        raise ValueError(f"Expected format to be {known}. Received: format={format!r}")
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"Expected Keras to run on TensorFlow, where every model file can be loaded: run the command with "
            f"KERAS_BACKEND=tensorflow. Received: KERAS_BACKEND={keras.backend.backend()}"
        )
    for package in FORMATS[format]:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ImportError(
                f"format={format!r} needs the package {package}: pip install 'mmkeras[export]'"
            ) from error


def write_parts(
    predictor: Any, parts: Mapping[str, Part], folder: Path, format: str = "onnx", bits: int = 32
) -> dict[str, float]:
    """Writes parts of a predictor alone. Arguments, result and errors as for `write`; `bits` of a stored weight
    other than 32 are for ONNX only."""
    writer = importlib.import_module(f"mmkeras.export.{format}")
    try:
        writer.write(parts, folder, **({"bits": bits} if format == "onnx" else {}))
    except Exception as error:  # the converters raise many kinds
        layers = {
            layer for part in parts.values() for model in part.models for layer in model._flatten_layers()
        }
        own = sorted({type(layer).__name__ for layer in layers if not _is_known(layer)})
        of_own = f" It has layers of your own: {', '.join(own)}." if own else ""
        raise ValueError(
            f"Expected a model whose operations format={format!r} has.{of_own} Try the other format. Received: "
            f"{type(error).__name__}: {str(error)[:500]}"
        ) from error
    differences = {}
    for name, part in parts.items():
        inputs = examples(predictor, part)
        expected = part.function({name: keras.ops.convert_to_tensor(x) for name, x in inputs.items()})
        expected = {name: keras.ops.convert_to_numpy(x) for name, x in expected.items()}
        differences[name] = difference(writer.run(folder, name, inputs), expected)
        if not differences[name] <= TOLERANCE[bits]:
            raise ValueError(
                f"Expected the exported {name!r} to equal the model up to {TOLERANCE[bits]} on a padded batch. "
                f"Received: a difference of {differences[name]:.3g}. Nothing was written"
            )
    return differences


def _is_known(layer):
    return type(layer).__module__.split(".")[0] in ("keras", "mmkeras")


def examples(predictor: Any, part: Part) -> dict[str, np.ndarray]:
    """Three rows of random inputs of a part, of which the second and third are padded."""
    rng = np.random.default_rng(0)

    def example(name, shape, dtype):
        size = getattr(predictor, "image_size", None) if name == "image" else None
        size = size or (_SAMPLES if name == "audio" else _STEPS)
        shape = (len(_VALID), *(size if axis is None else axis for axis in shape[1:]))
        if name == "length":
            return (np.array(_VALID) * _SAMPLES).astype(dtype)
        if name == "image":
            return rng.uniform(0, 255, shape).astype(dtype)
        if dtype == "bool" or "int" in dtype:
            valid = np.arange(shape[1]) < np.array(_VALID)[:, None] * shape[1]
            top = len(predictor.vocabulary) if predictor.vocabulary else 2
            return valid if dtype == "bool" else (valid * rng.integers(1, top, shape)).astype(dtype)
        return rng.normal(size=shape).astype(dtype)

    return {name: example(name, *spec) for name, spec in part.inputs.items()}


def difference(received: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> float:
    """The largest difference of all tensors, relative to the largest value of a tensor if that is above 1; of
    ids and masks the share that differs. Infinite for another shape, NaN if there is one."""

    def of(name):
        a, b = np.asarray(received[name]), np.asarray(expected[name])
        if a.shape != b.shape:
            return np.inf
        if not np.issubdtype(b.dtype, np.floating):
            return np.mean(a != b)
        is_never = (a < -1e8) & (b < -1e8)  # logits of tokens that are never generated
        a, b = (np.where(is_never, 0, x).astype(np.float64) for x in (a, b))
        return np.abs(a - b).max() / max(1, np.abs(b).max())

    return float(np.max([of(name) for name in expected]))


def _write_others(predictor, parts, folder, differences, format, half):
    shapes = {
        part: {name: list(map(str, shape)) for name, (shape, _) in parts[part].inputs.items()} for part in parts
    }
    card = {
        "model": predictor.model.name,
        "inputs": predictor.inputs,
        "output": predictor.output,
        "format": format,
        "half": half,
        **predictor.card(),
        "parts": shapes,
        "largest_difference": {name: float(f"{value:.2g}") for name, value in differences.items()},
        "made_with": f"mmkeras {_version.__version__}",
    }
    texts = {"card.json": card}
    if predictor.vocabulary:
        vocabulary = predictor.vocabulary
        texts["vocabulary.json"] = {"words": vocabulary.words, "unit": vocabulary.unit}
        if tokenizer := vocabulary.get_config().get("tokenizer"):
            texts["tokenizer.json"] = json.loads(tokenizer)
    for name, content in texts.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    shutil.copy(Path(__file__).with_name("run.py"), folder)
