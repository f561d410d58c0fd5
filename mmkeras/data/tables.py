"""Tables of captions or transcripts: which text belongs to which file, in the formats that people have.

    read("photos/captions.csv")        # [Row(file='beach.jpg', texts=['two dogs on a beach', ...]), ...]
    read("LJSpeech-1.1/metadata.csv")  # [Row(file='LJ001-0001', texts=['printing, in ...']), ...]

`mmkeras.data.formats` lists the formats.
"""

import os
import posixpath
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from mmkeras._utils import terminal
from mmkeras.data import formats
from mmkeras.data.vocabulary import has_words, normalize

SPLITS = ("train", "validation", "test")
PATTERNS = {
    "captions": (
        "*caption*.csv", "*caption*.tsv", "*caption*.txt", "*.token.txt", "*caption*.json", "dataset*.json",
        "metadata.jsonl",
    ),
    "transcripts": (
        "metadata.csv", "*transcript*.csv", "*transcript*.tsv", "*transcript*.txt", "metadata.jsonl",
        "*manifest*.json", "*manifest*.jsonl",
    ),
}  # fmt: skip
# What a name in a table may lack; beside a clip there often lies another file of its stem, as A-0.lab.
SUFFIXES = {
    "captions": (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"),
    "transcripts": (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".au"),
}
BINARY = (".xlsx", ".xls", ".ods", ".parquet", ".arrow", ".feather", ".db", ".sqlite")
EMPTY = "something is empty or has no letter"


@dataclass
class Row:
    """A file with all its texts."""

    file: str
    texts: list[str] = field(default_factory=list)
    split: str | None = None


def find(folder: Path, name: str | None = None, of: str = "captions") -> Path:
    """The table of a folder: the one called `name`, or the only file that looks like one.

    Args:
        folder: where to look.
        name: of the table.
        of: `"captions"` or `"transcripts"`; they are usually called otherwise.
    """
    if name is not None:
        if not isinstance(name, str | os.PathLike):
            raise ValueError(f"Expected table to be the name of a file in {folder}. Received: table={name!r}")
        if not (folder / name).is_file():
            raise FileNotFoundError(f"There is no table {folder / name}. Received: table={name!r}")
        return folder / name
    found = sorted({path for pattern in PATTERNS[of] for path in folder.glob(pattern) if _is_visible(path)})
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ValueError(
            f"Expected one table of {of} in {folder} (a file like {', '.join(PATTERNS[of])}). "
            f"Received: {names}. Name it with table='...' (--table)"
        )
    return found[0]


def read(
    path: Path,
    encoding: str = "utf-8-sig",
    of: str = "captions",
    file_column: str | int | None = None,
    text_column: str | int | None = None,
) -> list[Row]:
    """Reads a table of captions or transcripts. Texts are normalized, see `mmkeras.data.vocabulary.normalize`.

    Args:
        path: Path of a .csv, .tsv, .txt, .json or .jsonl file.
        encoding: str. Encoding of the file. Defaults to UTF-8; a byte-order mark is recognized.
        of: str. `"captions"`: a file may have several. `"transcripts"`: the first counts. Defaults to
        `"captions"`. file_column, text_column: str or int. Name of the column, or its number from 0. Default to
            what the names of the columns or, without a header, their content tell.

    A row without a file or without a word in its text, or with another transcript of a clip that has one, is
    left out, and a warning says how many are.

    Raises:
        ValueError: the encoding is another one, the columns are missing, a split is unknown, or no row is
            left. The message names the file and the line.
    """
    path = Path(path)
    if path.suffix.lower() in BINARY:
        raise ValueError(f"Expected a text table. Received: {path.name}; save it as CSV in UTF-8.")
    text = _decode(path, encoding)
    pairs = formats.read(path, text, file_column, text_column)
    rows: dict[str, Row] = {}
    pairs, empty, second = list(pairs), [], []
    for where, file, caption, split in pairs:
        if not file.strip() or not has_words(caption):
            empty.append(f"{where}, the {f'text for {file!r}' if file.strip() else 'file name'}")
            continue
        if split not in (None, *SPLITS):
            raise ValueError(f"{path.name}, {where}: expected split to be one of {SPLITS}. Received: {split!r}")
        file = posixpath.normpath(_portable(file.strip()))  # ./beach.jpg is beach.jpg
        row = rows.setdefault(file, Row(file, split=split))
        if row.split != split:
            raise ValueError(f"{path.name}, {where}: {file!r} is in two splits, {row.split!r} and {split!r}.")
        if of == "captions" or not row.texts:
            row.texts.append(normalize(caption).strip())
        elif normalize(caption).strip() != row.texts[0]:
            second.append(f"{where}, {row.file!r}")

    def said(found, what):
        return f"{path.name}: {len(found)} of {len(pairs)} rows are left out, where {what}: {_few(found)}"

    if not rows:
        raise ValueError(said(empty, EMPTY) if empty else f"{path.name} holds no texts.")
    if empty:
        terminal.warn(said(empty, EMPTY))
    if second:
        terminal.warn(said(second, "a clip has another transcript already"))
    return list(rows.values())


def locate(folder: Path, rows: list[Row], of: str = "captions") -> tuple[list[Row], list[Path]]:
    """The rows whose files are in the folder or its sub-folders, and these files. A picture's suffix, of
    transcripts a sound's, may be missing in the table.

    A row without a folder, and all where not one path of the table is here, as of one that was written on
    another machine, may mean a file anywhere below: the only one of that name, where no other row means it.

    The other rows are left out, and a warning counts them and names the first.

    Raises:
        FileNotFoundError: all files are missing.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and _is_visible(path))
    here = {
        _key(path.with_suffix("").relative_to(folder)): path
        for path in files
        if path.suffix.lower() in SUFFIXES[of]
    }
    here |= {_key(path.relative_to(folder)): path for path in files}
    names = Counter(map(posixpath.basename, here))
    unique = {
        posixpath.basename(key): path for key, path in here.items() if names[posixpath.basename(key)] == 1
    }
    folded = Counter(map(str.casefold, here))
    here |= {key.casefold(): path for key, path in here.items() if folded[key.casefold()] == 1}
    keys = [_key(row.file) for row in rows]
    exact = [here.get(key) or here.get(key.casefold()) for key in keys]
    elsewhere = not any(exact)
    guesses = [
        path or (unique.get(posixpath.basename(key)) if elsewhere or "/" not in key else None)
        for key, path in zip(keys, exact, strict=True)
    ]
    meant = Counter(guesses)
    paths = [path or (guess if meant[guess] == 1 else None) for path, guess in zip(exact, guesses, strict=True)]
    by_name = [
        f"{row.file} → {path.relative_to(folder).as_posix()}"
        for row, path in zip(rows, paths, strict=True)
        if elsewhere and path and "/" in row.file
    ]
    if by_name:
        terminal.warn(
            f"None of the paths in the table is in {folder}; {len(by_name)} of its {len(rows)} files were "
            f"found by their name alone: {_few(by_name)}"
        )
    missing = [row.file for row, path in zip(rows, paths, strict=True) if path is None]
    if missing:
        said = (
            f"{len(missing)} of the {len(rows)} files in the table are not in {folder} or its sub-folders, or "
            f"cannot be told from others of their name"
        )
        if len(missing) == len(rows):
            raise FileNotFoundError(f"{said}: {_few(missing)}")
        terminal.warn(f"{said}, and are left out: {_few(missing)}")
    there = [(row, path) for row, path in zip(rows, paths, strict=True) if path is not None]
    return [row for row, _ in there], [path for _, path in there]


def _is_visible(path):
    return not path.name.startswith(".")  # as ._captions.csv, which macOS writes beside a file


def _portable(name):
    """A file name as written on Windows, with this system's separators and without the drive."""
    return re.sub(r"^[A-Za-z]:[\\/]*", "", name).replace("\\", "/")


def _key(path):
    """One form of the names that file systems and tables write in several: é as one character or as two."""
    return unicodedata.normalize("NFC", Path(path).as_posix())


def _few(names):
    return f"{', '.join(names[:3])}{' ...' if len(names) > 3 else ''}"


def _decode(path, encoding):
    try:
        "".encode(encoding)
    except (LookupError, TypeError):
        raise ValueError(
            f"Expected encoding to be one that Python knows, as 'utf-8' or 'gb18030'. "
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
            f"{path.name}, line {line}: the byte 0x{data[error.start]:02x} is not "
            f"{encoding.removesuffix('-sig')}. Save the table as UTF-8, or say what it is, as in "
            f"encoding='gb18030' or encoding='cp1252'."
        ) from None
