"""Tables of captions or transcripts: which text belongs to which file, in the formats that people have.

    read("photos/captions.csv")   # [Row(file='beach.jpg', texts=['two dogs on a beach', ...], split=None), ...]
    read("LJSpeech-1.1/metadata.csv")    # [Row(file='LJ001-0001', texts=['printing, in ...']), ...]

| format | looks like |
|---|---|
| CSV or TSV with a header | `image,caption` (Flickr8k as captions.txt), in any order, among other columns |
| Flickr8k.token.txt | `beach.jpg#0<TAB>two dogs on a beach` |
| COCO's annotation JSON | `{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}` |
| LJSpeech's metadata.csv | `LJ001-0001|as printed|as spoken`: no header, no suffix; the last column is taken |

A column named `split` (train, validation, test) divides the rows as it says.
"""

import csv
import io
import json
import os
import posixpath
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from mmkeras._utils import terminal
from mmkeras.data.vocabulary import has_words

FILE_COLUMNS = (
    "image", "image_name", "audio", "audio_file", "wav", "wav_filename", "clip", "file_name", "filename",
    "file", "path",
)  # fmt: skip
TEXT_COLUMNS = ("caption", "transcript", "transcription", "text", "sentence", "comment")
EMPTY = "something is empty or has no letter"
SPLITS = ("train", "validation", "test")
PATTERNS = {
    "captions": ("*caption*.csv", "*caption*.tsv", "*caption*.txt", "*.token.txt", "*caption*.json"),
    "transcripts": ("metadata.csv", "*transcript*.csv", "*transcript*.tsv", "*transcript*.txt"),
}
# What a name in a table may lack; beside a clip there often lies another file of its stem, as A-0.lab.
SUFFIXES = {
    "captions": (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"),
    "transcripts": (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".au"),
}


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
    found = sorted({path for pattern in PATTERNS[of] for path in folder.glob(pattern)})
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ValueError(
            f"Expected one table of {of} in {folder} (a file like {', '.join(PATTERNS[of])}). "
            f"Received: {names}. Name it with table='...'"
        )
    return found[0]


def read(path: Path, encoding: str = "utf-8-sig", of: str = "captions") -> list[Row]:
    """Reads a table of captions or transcripts.

    Args:
        path: a .csv, .tsv, .txt or .json file.
        encoding: of the file. A byte-order mark is understood without it.
        of: `"captions"`: a file may have several. `"transcripts"`: the first counts.

    A row without a file or without a word in its text, or with another transcript of a clip that has one, is
    left out, and a warning says how many are.

    Raises:
        ValueError: the encoding is another one, the columns are missing, a split is unknown, or no row is
            left. The message names the file and the line.
    """
    path = Path(path)
    text = _decode(path, encoding)
    pairs = _read_coco(path, text) if path.suffix.lower() == ".json" else _read_lines(path, text)
    rows: dict[str, Row] = {}
    pairs, empty, second = list(pairs), [], []
    for where, file, caption, split in pairs:
        if not file.strip() or not has_words(caption):
            empty.append(f"{where}, the {f'text for {file!r}' if file.strip() else 'file name'}")
            continue
        if split not in (None, *SPLITS):
            raise ValueError(f"{path.name}, {where}: expected split to be one of {SPLITS}. Received: {split!r}")
        file = posixpath.normpath(file.strip())  # ./beach.jpg is beach.jpg
        row = rows.setdefault(file, Row(file, split=split))
        if row.split != split:
            raise ValueError(f"{path.name}, {where}: {file!r} is in two splits, {row.split!r} and {split!r}.")
        if of == "captions" or not row.texts:
            row.texts.append(caption.strip())
        elif caption.strip() != row.texts[0]:
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
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    here = {path.with_suffix(""): path for path in files if path.suffix.lower() in SUFFIXES[of]}
    here |= {path: path for path in files}
    times = Counter(path.name for path in here)
    unique = {path.name: file for path, file in here.items() if times[path.name] == 1}
    exact = [here.get(folder / row.file) for row in rows]
    elsewhere = not any(exact)
    guesses = [
        path or (unique.get(Path(row.file).name) if elsewhere or "/" not in row.file else None)
        for row, path in zip(rows, exact, strict=True)
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
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path.name}, line {line}: the byte 0x{data[error.start]:02x} is not "
            f"{encoding.removesuffix('-sig')}. Save the table as UTF-8, or say what it is, as in "
            f"encoding='gb18030' or encoding='cp1252'."
        ) from None


def _read_coco(path, text):
    try:
        content = json.loads(text)
        files = {image["id"]: image["file_name"] for image in content["images"]}
        return [
            (f"annotation {i}", _text(files[note["image_id"]]), _text(note["caption"]), None)
            for i, note in enumerate(content["annotations"])
        ]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path.name} is not in COCO's annotation format: expected 'images' with id and file_name and "
            f"'annotations' with image_id and caption. Received: {type(error).__name__}: {error}"
        ) from None


def _text(value):
    """JSON's null is an empty text, which is left out; another kind of value is an error."""
    if not isinstance(value, str | None):
        raise TypeError(f"expected a text, not {value!r}")
    return value or ""


def _read_lines(path, text):
    lines = text.split("\n")
    first = lines[0]
    if "#" in first.split("\t")[0] and "\t" in first:  # beach.jpg#0<TAB>two dogs on a beach
        for number, line in enumerate(lines, start=1):
            if line.strip():
                file, tab, caption = line.partition("\t")
                if not tab:
                    raise ValueError(
                        f"{path.name}, line {number}: expected image#0<TAB>caption. Received: {line!r}"
                    )
                yield f"line {number}", file.rpartition("#")[0] or file, caption, None
        return
    if "|" in first and first.split("|")[0].strip().lower() not in FILE_COLUMNS:  # LJ001-0001|text|text
        for number, line in enumerate(lines, start=1):
            if line.strip():
                file, *texts = line.rstrip("\r").split("|")
                if not texts:
                    raise ValueError(f"{path.name}, line {number}: expected file|text. Received: {line!r}")
                yield f"line {number}", file, texts[-1], None
        return
    delimiter = next((mark for mark in "\t|" if mark in first), ",")
    # Between tabs a quote is a mark like any other, unless the header is quoted too, as R writes tables.
    quoting = csv.QUOTE_MINIMAL if delimiter == "," or '"' in first else csv.QUOTE_NONE
    records = _records(path, text, delimiter=delimiter, quoting=quoting)
    _, header = next(records, (None, []))
    columns = {name.strip().lower(): i for i, name in enumerate(header)}
    file_column = next((columns[name] for name in FILE_COLUMNS if name in columns), None)
    text_column = next((columns[name] for name in TEXT_COLUMNS if name in columns), None)
    if file_column is None or text_column is None:
        raise ValueError(
            f"{path.name}: expected a header with a column of files ({', '.join(FILE_COLUMNS)}) and one of "
            f"texts ({', '.join(TEXT_COLUMNS)}). Received: {first[:80]!r}"
        )
    for where, cells in records:
        cells += [""] * (len(header) - len(cells))
        # Flickr8k's captions.txt does not quote: a caption's own commas end up in surplus columns.
        if len(cells) > len(header) and text_column < len(header) - 1:
            raise ValueError(
                f"{path.name}, {where}: expected {len(header)} columns, as in the header; put a text that "
                f"holds {delimiter!r} into quotes. Received: {len(cells)}"
            )
        caption = ",".join([cells[text_column], *cells[len(header) :]])
        split = cells[columns["split"]].strip() if "split" in columns else None
        yield where, cells[file_column], caption, split


def _records(path, text, **how):
    """Where each record ends, and its cells."""
    reader, before = csv.reader(io.StringIO(text, newline=""), strict=True, **how), 0
    try:
        for cells in reader:
            if cells:
                yield f"line {reader.line_num}", cells
            before = reader.line_num
    except csv.Error as error:
        raise ValueError(
            f"{path.name}, line {before + 1}: expected a quote that opens a text to be closed at its end, and "
            f"one within it to be doubled. Received: {error}"
        ) from None
