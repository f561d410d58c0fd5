"""An expensive dataset, computed once and kept on disk: `cached`.

Each dataset is a folder of TFRecords and a `meta.json` that says what it was made from. It is written
under another name and takes its own only when it is whole, so an interrupted one is never read; one whose
`meta.json` tells of something else (pictures that changed since) or whose files were damaged is made anew.
"""

import glob
import hashlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import tensorflow as tf


def folder() -> Path:
    """`~/.cache/mmkeras`, or what the environment variable MMKERAS_CACHE says."""
    return Path(os.environ.get("MMKERAS_CACHE", "~/.cache/mmkeras")).expanduser()


def digest(*parts) -> str:
    """A short name for what a dataset was made from; arrays and strings."""
    h = hashlib.sha256()
    for part in parts:
        h.update(part.tobytes() if isinstance(part, np.ndarray) else str(part).encode())
        h.update(b"\0")
    return h.hexdigest()[:16]


def cached(
    name: str,
    made_from: dict,
    compute: Callable[[], Iterable[tuple[np.ndarray, list[bytes]]]],
    *,
    element_shape: tuple[int, ...],
    count: int,
    dtype: str = "float16",
) -> tf.data.Dataset:
    """The dataset `name`: from disk where it is there and still true, otherwise computed and kept.

    Args:
        name: the folder's name; it should differ for whatever may be in use side by side.
        made_from: JSON-able facts about the sources. Other facts than those on disk: computed again.
        compute: yields pairs of one array of `element_shape` and the texts that go with it.
        element_shape: of each array.
        count: how many elements there will be.
        dtype: of each array on disk.

    Returns:
        A dataset of {"image": `element_shape` `dtype`, "captions": (n,) string}, in the order that
        `compute` yields.

    Raises:
        OSError: the disk has no room for it, before computing where that can be told, and otherwise
            after removing what was written.
    """
    place = folder() / name
    if not _is_whole(place, made_from):
        _write(place, made_from, compute, element_shape, count, dtype)
    layout = {
        "image": tf.io.FixedLenFeature((), tf.string),
        "captions": tf.io.RaggedFeature(tf.string),
    }

    def parse(record):
        example = tf.io.parse_single_example(record, layout)
        image = tf.io.decode_raw(example["image"], dtype)
        return {"image": tf.reshape(image, element_shape), "captions": example["captions"]}

    files = sorted(map(str, place.glob("*.tfrecord")))
    dataset = tf.data.TFRecordDataset(files, buffer_size=2**20).map(parse, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.apply(tf.data.experimental.assert_cardinality(count))


def _is_whole(place, made_from):
    try:
        meta = json.loads((place / "meta.json").read_text())
        sizes = {path.name: path.stat().st_size for path in place.glob("*.tfrecord")}
        return meta == {"made_from": made_from, "sizes": sizes}
    except (OSError, ValueError):
        return False


def _write(place, made_from, compute, element_shape, count, dtype):
    place.parent.mkdir(parents=True, exist_ok=True)
    _clear_abandoned(place)
    expected = np.dtype(dtype).itemsize * count * int(np.prod(element_shape))
    free = shutil.disk_usage(place.parent).free
    if expected > free:
        raise OSError(_no_room(place, expected, free))
    prefix = f"{place.name}.partial-{socket.gethostname()}-{os.getpid()}-"
    partial = Path(tempfile.mkdtemp(prefix=prefix, dir=place.parent))
    try:
        path = partial / "data.tfrecord"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for array, texts in compute():
                writer.write(_example(array, texts, dtype))
        meta = {"made_from": made_from, "sizes": {path.name: path.stat().st_size}}
        (partial / "meta.json").write_text(json.dumps(meta))
        shutil.rmtree(place, ignore_errors=True)
        os.replace(partial, place)
    except (OSError, tf.errors.ResourceExhaustedError, tf.errors.UnknownError) as error:
        if _is_full(error):
            free = shutil.disk_usage(place.parent).free
            raise OSError(_no_room(place, expected, free)) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _example(array, texts, dtype):
    kind = np.dtype(dtype).newbyteorder("<")
    limits = np.finfo(kind) if kind.kind == "f" else np.iinfo(kind)
    image = np.clip(array, limits.min, limits.max).astype(kind).tobytes()
    feature = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
        "captions": tf.train.Feature(bytes_list=tf.train.BytesList(value=texts)),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def _clear_abandoned(place):
    """Removes what a killed run of this machine left behind; a run that is still writing keeps its own, and so
    does another machine that shares the disk."""
    for partial in place.parent.glob(f"{glob.escape(place.name)}.partial-*"):
        host_and_pid = partial.name.removeprefix(f"{place.name}.partial-").rpartition("-")[0]
        host, _, pid = host_and_pid.rpartition("-")
        if host != socket.gethostname():
            continue
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            shutil.rmtree(partial, ignore_errors=True)
        except PermissionError:
            pass  # somebody else's, and alive


def _is_full(error):
    return "No space left" in str(error) or getattr(error, "errno", None) == 28


def _no_room(place, expected, free):
    return (
        f"No room for the dataset in {place.parent}: it takes {expected / 1e9:.2f} GB and "
        f"{free / 1e9:.2f} GB are free. Make room, or let the environment variable MMKERAS_CACHE name "
        f"another folder."
    )
