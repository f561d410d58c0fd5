"""The tables of a folder, which assign texts to files.

    read("photos/captions.csv")        # [Row(file='beach.jpg', texts=['two dogs on a beach', ...]), ...]
    read("LJSpeech-1.1/metadata.csv")  # [Row(file='LJ001-0001', texts=['printing, in ...']), ...]

`mmkeras.data.formats` lists the formats.
"""

import os
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from mmkeras._utils import terminal
from mmkeras.data import formats
from mmkeras.data.formats import SPLITS, Entry
from mmkeras.text.vocabulary import has_words, normalize

PATTERNS = {
    "captions": (
        "*caption*.csv", "*caption*.tsv", "*caption*.txt", "*.token.txt", "*caption*.json", "dataset*.json",
        "metadata.jsonl",
    ),
    "transcripts": (
        "metadata.csv", "*transcript*.csv", "*transcript*.tsv", "*transcript*.txt", "metadata.jsonl",
        "*manifest*.json", "*manifest*.jsonl",
    ),
    "questions": ("*question*.csv", "*question*.tsv", "*question*.json", "*question*.jsonl", "metadata.jsonl"),
    "videos": ("*caption*.csv", "*caption*.tsv", "*video*.csv", "*video*.tsv", "*label*.csv", "metadata.jsonl"),
}  # fmt: skip
# If no file has such a name: a table for each split, such as Common Voice's train.tsv, then tables in
# sub-folders.
SPLIT_PATTERNS = tuple(f"{name}.{suffix}" for name in SPLITS for suffix in ("tsv", "csv", "jsonl", "json"))
FOLDER_PATTERNS = {
    "captions": ("metadata.csv", "*/metadata.jsonl", "*/metadata.csv", "*/*caption*.json"),  # imagefolder, COCO
    "transcripts": (  # audiofolder, LibriSpeech, AISHELL
        "*/metadata.jsonl", "*/metadata.csv", "**/*.trans.txt", "*/*transcript*.txt",
    ),
    "questions": ("metadata.csv", "*/metadata.jsonl", "*/metadata.csv"),
    "videos": ("metadata.csv", "*/metadata.jsonl", "*/metadata.csv"),
}  # fmt: skip
SPLIT_WORD = re.compile(rf"(?<![a-z])({'|'.join(SPLITS)})(?![a-z])")
# A name in a table may lack one of these. Other files may have a clip's stem, such as A-0.lab.
SUFFIXES = {
    **dict.fromkeys(
        ("captions", "questions"), (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")
    ),
    "transcripts": (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".au"),
    "videos": (".gif", ".webp", ".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi"),
}
_DRIVE = re.compile(r"^[A-Za-z]:/*")  # of a path as written on Windows
BINARY = (".xlsx", ".xls", ".ods", ".parquet", ".arrow", ".feather", ".db", ".sqlite")


@dataclass
class Row:
    """A file with all its texts. `speaker`, `label` and the duration of the clip are None if the table does not
    say. `answers` has one for each text that is a question."""

    file: str
    texts: list[str] = field(default_factory=list)
    split: str | None = None
    speaker: str | None = None
    seconds: float | None = None
    label: str | None = None
    answers: list[str] = field(default_factory=list)


class Table(NamedTuple):
    """A table, the split of its rows, and the folder that the names of its files are relative to."""

    path: Path
    split: str | None = None
    folder: str = ""


def find(folder: Path, name: str | os.PathLike | None = None, kind: str = "captions") -> list[Table]:
    """The tables of a folder: the only one, or one for each split; for LibriSpeech, one for each chapter.

    Words such as train, dev, or test in the path of a table name its split, unless all paths name the same one.

    Args:
        folder: Path of the folder.
        name: str or path, optional. Name of the table. Defaults to the files whose names look like tables.
        kind: str. `"captions"`, `"transcripts"`, `"videos"` or `"questions"`; their tables have different
            names. Defaults to `"captions"`.

    Raises:
        FileNotFoundError: if there is no table `name`.
        ValueError: if there is no table, or more than one for a split.
    """
    if name is not None:
        if not isinstance(name, str | os.PathLike):
            raise ValueError(f"Expected table to be the name of a file in {folder}. Received: table={name!r}")
        if not (folder / name).is_file():
            raise FileNotFoundError(f"Expected table to be a file in {folder}. Received: table={str(name)!r}")
        return [Table(folder / name)]
    for patterns in (PATTERNS[kind], SPLIT_PATTERNS, FOLDER_PATTERNS[kind]):
        paths = {path.relative_to(folder) for pattern in patterns for path in folder.glob(pattern)}
        paths = sorted(path for path in paths if not any(part.startswith(".") for part in path.parts))
        if paths:
            break
    splits = [_split(path) for path in paths]
    is_librispeech = bool(paths) and all(path.name.endswith(".trans.txt") for path in paths)
    has_one_for_each = None not in splits and len(set(splits)) == len(splits)
    if not paths or not (is_librispeech or has_one_for_each or len(paths) == 1):
        names = ", ".join(map(str, paths)) or "none"
        raise ValueError(
            f"Expected one table of {kind} in {folder} (a file like {', '.join(PATTERNS[kind])}), or one for "
            f"each split (train, validation, test). Received: {names}. Name one with table='...'"
        )
    if len(set(splits)) == 1:  # a split alone leaves nothing to validate or test with
        splits = [None] * len(paths)
    return [Table(folder / path, split, _base(folder, path)) for path, split in zip(paths, splits, strict=True)]


def _base(folder, path):
    """The folder that the names in a table are relative to."""
    if path.parent == Path() or path.name.startswith("metadata.") or path.name.endswith(".trans.txt"):
        return "" if path.parent == Path() else path.parent.as_posix()
    images = path.stem.rpartition("_")[2]  # COCO: annotations/captions_train2017.json is of train2017/
    return images if (folder / images).is_dir() else ""


def read(
    tables: str | os.PathLike | Iterable[Table],
    encoding: str = "utf-8-sig",
    kind: str = "captions",
    file_column: str | int | None = None,
    text_column: str | int | None = None,
) -> list[Row]:
    """Reads tables of captions or transcripts. Texts are normalized, see `mmkeras.text.vocabulary.normalize`.

    A row is skipped if its file name is empty, its text has no letter or digit, or its clip has another
    transcript already. A warning counts and names these rows. Transcripts of parts of a clip are refused.

    Args:
        tables: Path of one table, or the tables that `find` returns.
        encoding: str. Encoding of the tables. Defaults to UTF-8; a byte-order mark is recognized.
        kind: str. `"captions"`: a file may have more than one. `"transcripts"`: the first counts. `"videos"`:
            captions, of which a file with a label may have none. Defaults to `"captions"`.
        file_column, text_column: str or int, optional. Name of the column, or its number from 0. Default to
            the column with a usual name or, without a header, the usual content.

    Returns:
        A row for each file, in the order of the tables.

    Raises:
        ValueError: if the encoding is wrong, a column is missing, a split is unknown, a transcript starts
            within its clip, or no row remains. The message names the file and the line.
    """
    tables = [Table(Path(tables))] if isinstance(tables, str | os.PathLike) else list(tables)

    def entries(table):
        if table.path.suffix.lower() in BINARY:
            raise ValueError(f"Expected a text table. Received: {table.path.name}; save it as CSV in UTF-8.")
        content = _decode(table.path, encoding)
        return formats.read(table.path, content, file_column, text_column, needs_text=kind != "videos")

    return merge([(table, entries) for table in tables], kind)


def merge(tables: Sequence[tuple[Table, Callable[[Table], Iterable[Entry]]]], kind: str) -> list[Row]:
    """A row for each file of tables, each of them with a function that reads its entries, see `read`."""
    title = tables[0][0].path.name if len(tables) == 1 else f"{len(tables)} tables"
    rows: dict[str, Row] = {}
    count, empty, unanswered, repeated = 0, [], [], []
    for table, entries in tables:
        name = table.path.name
        for entry in entries(table):
            count += 1
            where = f"{entry.where if len(tables) == 1 else f'{name} {entry.where}'} ({entry.file.strip()!r})"
            is_labeled = kind == "videos" and entry.label
            if not entry.file.strip() or not (has_words(entry.text) or is_labeled):
                empty.append(where)
                continue
            if kind == "questions" and not entry.answer:
                unanswered.append(where)
                continue
            if kind == "transcripts" and entry.start and entry.start > 0:
                raise ValueError(
                    f"{name}, {where}: expected transcripts of complete clips. Received: one that starts at "
                    f"{entry.start:g}. Cut the clips; if they are cut already, remove the column of starts."
                )
            text = normalize(entry.text).strip()
            row = _row(rows, table, entry)
            if kind != "transcripts" or not row.texts:
                row.texts += [text] if text or kind != "videos" else []
                row.answers += [entry.answer.lower()] if kind == "questions" else []
            elif text != row.texts[0]:
                repeated.append(where)
    skipped = [
        f"{title}: skipped {len(names)} of {count} rows {reason}: {_few(names)}"
        for names, reason in (
            (empty, "whose file name is empty or whose text has no letter"),
            (unanswered, "whose question has no answer, which a column 'answer' would have"),
            (repeated, "whose clip has another transcript already"),
        )
        if names
    ]
    if not rows:
        raise ValueError(
            f"Expected a table with texts. Received: {skipped[0] if skipped else f'{title}, empty'}"
        )
    for message in skipped:
        terminal.warn(message)
    return list(rows.values())


def _row(rows: dict[str, Row], table: Table, entry: Entry) -> Row:
    """The row of the entry's file, which is added if it is new."""
    split = entry.split.strip().lower() if isinstance(entry.split, str) else entry.split
    if split not in (None, *SPLITS):
        raise ValueError(
            f"{table.path.name}, {entry.where}: expected split to be one of {tuple(SPLITS)}. "
            f"Received: split={entry.split!r}"
        )
    split = table.split if split is None else SPLITS[split]
    file = entry.file.strip().replace("\\", "/")
    if not _DRIVE.match(file):
        file = posixpath.join(table.folder, file)
    file = posixpath.normpath(file)  # ./beach.jpg is beach.jpg
    row = rows.setdefault(file, Row(file, [], split, entry.speaker, entry.seconds, entry.label))
    if row.split != split:
        raise ValueError(
            f"{table.path.name}, {entry.where}: expected {file!r} to be in one split. "
            f"Received: {row.split!r} and {split!r}"
        )
    return row


def locate(folder: Path, rows: list[Row], kind: str = "captions") -> tuple[list[Row], list[Path]]:
    """The rows whose files exist, and these files.

    A name in a table may lack its suffix or have other letter cases. A name without a folder may be that of a
    file in any sub-folder. So may every name if no path of the table exists, as in a table from another
    machine. Such a name must be that of one file and one row.

    The other rows are skipped, and a warning counts and names them. If no row has a split, and the folders of
    the files are named after splits, such as wav/train/, each row gets its folder's.

    Raises:
        FileNotFoundError: if no file exists.
    """
    by_path, by_name = _index(folder, SUFFIXES[kind])
    keys = [_key(_DRIVE.sub("", row.file)) for row in rows]
    exact = [
        path if os.path.isfile(path := folder / row.file) else by_path(key)
        for row, key in zip(rows, keys, strict=True)
    ]
    no_path_exists = not any(exact)

    def candidate(key):
        key = re.sub(rf"(?i)({'|'.join(map(re.escape, SUFFIXES[kind]))})\.\d+$", r"\1", key)  # Flickr8k: .jpg.1
        is_name = no_path_exists or "/" not in key
        return by_path(key) or (by_name(posixpath.basename(key)) if is_name else None)

    candidates = [path or candidate(key) for key, path in zip(keys, exact, strict=True)]
    uses = Counter(candidates)
    paths = [
        path or (other if uses[other] == 1 else None) for path, other in zip(exact, candidates, strict=True)
    ]
    located = [(row, path) for row, path in zip(rows, paths, strict=True) if path]
    missing = [row.file for row, path in zip(rows, paths, strict=True) if not path]
    message = (
        f"{folder}: skipped {len(missing)} of {len(rows)} files of the table that are not in the folder or its "
        f"sub-folders, or share their name with others: {_few(missing)}"
    )
    if not located:
        raise FileNotFoundError(message)
    if missing:
        terminal.warn(message)
    moved = [
        f"{row.file} → {path.relative_to(folder).as_posix()}"
        for row, path in located
        if no_path_exists and "/" in row.file
    ]
    if moved:
        terminal.warn(
            f"{folder}: no path of the table exists; {len(moved)} of its {len(rows)} files are identified by "
            f"their name alone: {_few(moved)}"
        )
    rows, paths = map(list, zip(*located, strict=True))
    splits = [_split(Path(*path.parent.parts[len(folder.parts) :])) for path in paths]
    if not any(row.split for row in rows) and None not in splits and len(set(splits)) > 1:
        rows = [replace(row, split=split) for row, split in zip(rows, splits, strict=True)]
    return rows, paths


def _split(path):
    """The split that a path names, or None."""
    word = SPLIT_WORD.search(path.as_posix().lower())
    return word and SPLITS[word[1]]


def _index(folder, suffixes):
    """Two functions of a folder, path → file and name → file. The suffix of an image or clip may be missing."""
    files, visited = [], set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        resolved = os.path.realpath(parent)
        if resolved in visited:  # links may form a circle
            folders.clear()
            continue
        visited.add(resolved)
        files += [path for name in names if not name.startswith(".") and (path := Path(parent, name)).is_file()]
    pairs = [(_key(path.relative_to(folder)), path) for path in files]
    pairs += [(_key(p.relative_to(folder).with_suffix("")), p) for p in files if p.suffix.lower() in suffixes]
    return _lookup(pairs), _lookup([(posixpath.basename(key), path) for key, path in pairs])


def _lookup(pairs):
    """A function: key → the only path of that key, else the only one in any letter case, else None."""

    def unique(pairs):
        paths = {}
        for key, path in pairs:
            paths[key] = path if paths.get(key, path) == path else None
        return paths

    exact, folded = unique(pairs), unique([(key.casefold(), path) for key, path in pairs])
    return lambda key: exact[key] if key in exact else folded.get(key.casefold())


def _key(path):
    """The NFC form of a name. File systems and tables differ, such as é as one or two characters."""
    return unicodedata.normalize("NFC", Path(path).as_posix())


def _few(names):
    return f"{', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"


def _decode(path, encoding):
    try:
        "".encode(encoding)
    except (LookupError, TypeError):
        raise ValueError(
            f"Expected encoding to be one that Python knows, such as 'utf-8' or 'gb18030'. "
            f"Received: encoding={encoding!r}"
        ) from None
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    try:
        return re.sub("\r\n?", "\n", data.decode(encoding))
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path.name}, line {line}: expected {encoding.removesuffix('-sig')}. Received: byte "
            f"0x{data[error.start]:02x}. Save the table as UTF-8, or name its encoding, such as "
            f"encoding='gb18030' or encoding='cp1252'."
        ) from None
