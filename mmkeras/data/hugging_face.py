"""A dataset of Hugging Face's `datasets` as a source, in place of a folder.

dataset = datasets.load_dataset("imagefolder", data_dir="my/photos")  # columns image and caption
data = mmkeras.captioning.data(dataset)

A row is an image or a clip with its text, or a list of texts. The columns are found by their usual names, see
`mmkeras.data.formats`. A `DatasetDict`, or another dictionary of datasets, names its splits. Images and clips
are read by `mmkeras.media`, not by `datasets`. What has `column_names`, a length and `[number]` is a
dataset.
"""

import io
import os
import posixpath
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mmkeras.data import formats, tables
from mmkeras.data.formats import FILE_COLUMNS, SPLITS, TEXT_COLUMNS, Entry
from mmkeras.data.tables import Row, Table
from mmkeras.data.task_data import Item

# kind → the column that counts first
MEDIA = {"captions": "image", "questions": "image", "transcripts": "audio"}


def is_dataset(source: Any) -> bool:
    """Whether it is a dataset, or a dictionary of datasets. A streamed one, without a length, is none."""
    if isinstance(source, Mapping):
        return bool(source) and all(map(is_dataset, source.values()))
    return all(hasattr(source, name) for name in ("column_names", "__len__", "__getitem__"))


def title(source: Any) -> str:
    """How messages name a dataset."""
    datasets = _splits(source).values()
    return f"the dataset of {sum(map(len, datasets)):,} rows"


def read(
    source: Any, kind: str, media_column: str | None = None, text_column: str | None = None
) -> tuple[list[Row], list[Item]]:
    """The rows of a dataset, and its images or clips. An image that is a file counts once, with all its texts.

    Args:
        source: The dataset, or {split: dataset}.
        kind: str. A key of `MEDIA`.
        media_column, text_column: str, optional. Names of the columns. Default to the usual ones.

    Raises:
        ValueError: if a column is missing or has other values, a split is unknown, or no row remains.
    """
    items: dict[str, Item] = {}
    parts = [
        (Table(Path(title(source)), split), _reader(dataset, split, kind, media_column, text_column, items))
        for split, dataset in _splits(source).items()
    ]
    rows = tables.merge(parts, kind)
    files = [row.file for row in rows if os.path.isabs(row.file)]
    base = os.path.commonpath([os.path.dirname(file) for file in files]) if files else ""
    # As in a folder, the name of a file chooses its split.
    named = [replace(row, file=row.file.removeprefix(base).lstrip("/")) for row in rows]
    return named, [items[row.file] for row in rows]


def _splits(source):
    if not isinstance(source, Mapping):
        return {None: source}
    if unknown := [name for name in source if name not in SPLITS]:
        raise ValueError(
            f"Expected splits among {', '.join(SPLITS)}. Received: {', '.join(map(repr, unknown))}"
        )
    return {SPLITS[name]: dataset for name, dataset in source.items()}


def _reader(dataset, split, kind, media_column, text_column, items):
    """A function that reads the entries of one dataset, and adds its images or clips to `items`."""
    names = list(dataset.column_names)
    known = {name.strip().lower(): name for name in names}
    media = _column(names, known, (MEDIA[kind], *FILE_COLUMNS), media_column, "file_column", MEDIA[kind])
    keys = formats.keys_of({name: column for name, column in known.items() if column != media})
    if text_column is not None or not keys["texts"]:
        keys["texts"] = [_column(names, known, TEXT_COLUMNS, text_column, "text_column", "text")]
    keys["file"] = "file"  # which no column is, see below
    feature = (getattr(dataset, "features", None) or {}).get(media)
    if getattr(feature, "decode", False):  # else Pillow or torchcodec decode each row
        dataset = dataset.cast_column(media, type(feature)(decode=False))
    fingerprint = getattr(dataset, "_fingerprint", None) or uuid.uuid4().hex

    def entries(table: Table) -> Iterator[Entry]:
        for number in range(len(dataset)):
            row, where = dataset[number], f"row {number}"
            path = _path(row[media])
            name = posixpath.normpath(path) if path else f"{split or ''} {where}".strip()
            open_ = lambda number=number: _content(dataset[number][media], kind)  # noqa: E731
            changed = os.path.getmtime(path) if path and os.path.isfile(path) else None
            items.setdefault(name, Item(os.path.basename(name), open_, (name, fingerprint, changed)))
            try:
                yield from formats.entries_of(where, {**row, "file": name}, keys)
            except (ValueError, TypeError, SyntaxError) as error:
                raise ValueError(
                    f"{where} of the dataset: expected {', '.join(keys['texts'])} to be a text, or a list of "
                    f"texts. Received: {error}"
                ) from None

    return entries


def _column(names, known, usual, given, option, what):
    """The name of a column: the one that is given, or the first usual one."""
    wanted = usual if given is None else (str(given).strip().lower(),)
    column = next((known[name] for name in wanted if name in known), None)
    if column is None:
        expected = f"a column of {what}s, such as {usual[0]!r}" if given is None else f"a column {given!r}"
        raise ValueError(
            f"Expected a dataset with {expected}. Received: the columns {', '.join(map(repr, names))}. "
            f"Name it with {option}="
        )
    return column


def _path(cell):
    """The path of a cell that is a file, or None."""
    path = cell.get("path") if isinstance(cell, dict) and cell.get("bytes") is None else cell
    return os.path.abspath(path) if isinstance(path, str | os.PathLike) else None


def _clip(content):
    import soundfile

    try:
        samples, rate = soundfile.read(io.BytesIO(content), dtype="float32")
    except soundfile.LibsndfileError as error:
        raise ValueError(f"Expected bytes of a clip that libsndfile reads. Received: {error}") from None
    return rate, samples


def _content(cell, kind):
    """What `mmkeras.media` reads: a path, bytes of an image, an array, or a clip (sample_rate_hz, array)."""
    if isinstance(cell, dict) and cell.get("bytes") is not None:
        return cell["bytes"] if MEDIA[kind] == "image" else _clip(cell["bytes"])
    if path := _path(cell):
        return Path(path)
    if isinstance(cell, dict) and cell.get("array") is not None:
        return int(cell["sampling_rate"]), np.asarray(cell["array"], np.float32)
    if cell is None or isinstance(cell, dict):
        raise ValueError(f"Expected a file, bytes or an array. Received: {cell!r:.80}")
    return np.asarray(cell) if isinstance(cell, list) else cell
