"""A disk cache of examples that take long to compute: `cached`."""

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from mmkeras._utils import disk
from mmkeras.data.task_data import Split

CHOICE = "the environment variable MMKERAS_CACHE"


def folder() -> Path:
    """The folder of all caches: the environment variable MMKERAS_CACHE, or `~/.cache/mmkeras`."""
    return Path(os.path.expanduser(os.environ.get("MMKERAS_CACHE", "~/.cache/mmkeras")))  # keeps an unknown ~


def digest(*parts: np.ndarray | object) -> str:
    """A hash of arrays and other objects (by their strings): 16 hexadecimal digits."""
    h = hashlib.sha256()
    for part in parts:
        h.update(part.tobytes() if isinstance(part, np.ndarray) else str(part).encode())
        h.update(b"\0")
    return h.hexdigest()[:16]


def cached(split: Split, name: str, facts: dict, compute: Callable[[], tf.data.Dataset], title: str) -> Split:
    """A split whose examples are read from disk if present and up to date, and otherwise computed and written.

    They are written to a temporary folder, which is renamed when it is complete, so that an interrupted
    computation is never read.

    Args:
        split: The split that the examples are computed from.
        name: str. End of the name of the folder on disk. It starts with a hash of `title` and of the kind of
            texts, so that runs in two languages do not replace each other's examples.
        facts: dict. JSON-able values on which the examples also depend. If these or `split.fingerprint` differ
            from those on disk, the examples are computed again.
        compute: () → dataset of examples.
        title: str. What is computed from which split. Printed before.

    Returns:
        The split with these examples, in the order of `compute`, and with their number.

    Raises:
        OSError: if the disk is full, or the folder cannot be written to. What was written is removed.
    """
    path = folder() / f"{digest(title, split.fingerprint.get('texts'))}-{name}"
    fingerprint = json.loads(json.dumps(split.fingerprint | facts))
    if not _is_current(path, fingerprint):
        print(f"{title} (once, cached in {path})")
        _write(path, fingerprint, compute)
    count = json.loads((path / "meta.json").read_text())["count"]
    return dataclasses.replace(split, count=count, examples=lambda: _read(path, compute().element_spec, count))


def _read(path, spec, count):
    def parse(record):
        parts = tf.unstack(tf.io.parse_tensor(record, tf.string), len(tf.nest.flatten(spec)))
        tensors = [
            tf.ensure_shape(tf.io.parse_tensor(part, one.dtype), one.shape)
            for part, one in zip(parts, tf.nest.flatten(spec), strict=True)
        ]
        return tf.nest.pack_sequence_as(spec, tensors)

    dataset = tf.data.TFRecordDataset(str(path / "data.tfrecord"), buffer_size=2**20)
    dataset = dataset.map(parse, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.apply(tf.data.experimental.assert_cardinality(count))


def _is_current(path, fingerprint):
    try:
        meta = json.loads((path / "meta.json").read_text())
        return meta["made_from"] == fingerprint and meta["bytes"] == (path / "data.tfrecord").stat().st_size
    except (OSError, ValueError, KeyError):
        return False


def _rename(partial, path, fingerprint):
    try:
        os.replace(partial, path)
    except OSError:  # another process has just written there
        if not _is_current(path, fingerprint):
            raise


def _write(path, fingerprint, compute):
    disk.check_writable(path.parent, CHOICE)
    partial = Path(tempfile.mkdtemp(prefix=f"{path.name}.partial-", dir=path.parent))
    records, count = partial / "data.tfrecord", 0
    try:
        with disk.clear_errors(path.name, path.parent, CHOICE):
            # Not Dataset.save, which never returns if an example cannot be computed (TensorFlow 2.21).
            with tf.io.TFRecordWriter(str(records)) as writer:
                for example in compute():
                    parts = [tf.io.serialize_tensor(part) for part in tf.nest.flatten(example)]
                    writer.write(tf.io.serialize_tensor(tf.stack(parts)).numpy())
                    count += 1
            meta = {"made_from": fingerprint, "count": count, "bytes": records.stat().st_size}
            (partial / "meta.json").write_text(json.dumps(meta))
        if not _is_current(path, fingerprint):  # otherwise another process was faster
            shutil.rmtree(path, ignore_errors=True)
            _rename(partial, path, fingerprint)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
