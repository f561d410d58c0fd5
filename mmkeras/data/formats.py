"""The formats of tables of captions or transcripts, one reader each.

| format | looks like |
|---|---|
| CSV, TSV, or with `;` or `|`, with a header | `image,caption` (Flickr8k's captions.txt), among other columns |
| Common Voice's TSVs | `client_id<TAB>path<TAB>sentence` with other columns |
| Flickr8k.token.txt, Flickr8k-CN | `beach.jpg#0<TAB>two dogs on a beach`, `beach.jpg#zhb#0 ...` |
| LJSpeech's metadata.csv | `LJ001-0001|as printed|as spoken`, without a header |
| LibriSpeech's .trans.txt, AISHELL | `84-121123-0000 GO DO YOU HEAR` |
| COCO's annotation JSON | `{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}` |
| Karpathy's JSON | `{"images": [{"filename", "split", "sentences": [{"raw"}]}]}` |
| Hugging Face's metadata.jsonl | `{"file_name": ..., "text": ...}`, one object per line |
| NeMo's manifests | `{"audio_filepath": ..., "text": ...}`, one object per line |
| AI Challenger's JSON | `[{"image_id": ..., "caption": [...]}]`, a list of objects |

A file has several texts if it has several rows, a list in a cell or a JSON value, or columns `caption_1`,
`caption_2`, ... A column or key named `split` divides the rows, see `SPLITS`. One of `COLUMNS["speaker"]` names
the speaker, one of `COLUMNS["label"]` the class. One of `COLUMNS["start"]` and `duration` say which part of a
clip a transcript is of. `answer` answers the text, a question.
"""

import ast
import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmkeras.text.vocabulary import has_no_spaces

FILE_COLUMNS = (
    "image", "image_name", "image_path", "image_file", "image_filename", "audio", "audio_file", "audio_path",
    "audio_filepath", "wav", "wav_filename", "clip", "file_name", "filename", "file_path", "filepath", "file",
    "path", "image_id", "video", "video_file", "video_path",
)  # fmt: skip
TEXT_COLUMNS = (
    "caption", "transcript", "transcription", "text", "sentence", "comment", "captions", "sentences",
    "question",
)  # fmt: skip
# field of `Entry` → names of its column; the first one in the table counts
COLUMNS = {
    "file": FILE_COLUMNS,
    "split": ("split",),
    "speaker": ("client_id", "speaker_id", "speaker"),
    "label": ("label", "class", "category"),
    "answer": ("answer",),
    "start": ("offset", "start", "start_time", "start_seconds"),
    "seconds": ("duration", "duration_seconds"),
}
_NUMBERED = re.compile(rf"({'|'.join(TEXT_COLUMNS)})[ _.-]?\d+")
# What tables call a split, and its name here. "restval" are COCO's further training images (Karpathy's split).
SPLITS = {
    "train": "train", "restval": "train", "validation": "validation", "valid": "validation",
    "val": "validation", "dev": "validation", "test": "test",
}  # fmt: skip
# image#0<TAB>caption, or image#zhb#0 caption; before a space, the name has none
_FLICKR = re.compile(r"([^\s|]+?|[^\t|]+?(?=#[\w#]*\t))#(?:\w+#)?\d+\s+(.*)")
_NAMED = re.compile(r"[^\s,;|]*\d[^\s,;|]* [^\t]*")  # BAC009S0002W0122 text; no header starts like that
_LIST = re.compile(r"\[\s*['\"].*\]", re.DOTALL)


class Entry(NamedTuple):
    """A text of a row. `where` names its line. The text is of the file, or of its `seconds` from `start`."""

    where: str
    file: str
    text: str
    split: str | None = None
    speaker: str | None = None
    start: float | None = None
    seconds: float | None = None
    label: str | None = None
    answer: str | None = None


def read(
    path: Path,
    text: str,
    file_column: str | int | None = None,
    text_column: str | int | None = None,
    needs_text: bool = True,
) -> Iterator[Entry]:
    """The texts of a table, including those that are empty or without a file name.

    Args:
        path: Path of the table; some formats are recognized by its name.
        text: str. Content of the table. Lines end in \\n.
        file_column, text_column: str or int, optional. See `mmkeras.data.tables.read`.
        needs_text: bool. Whether a column of labels does not suffice. Defaults to True.

    Raises:
        ValueError: if the format or its columns are not recognized. The message names the file and the line.
    """
    text = re.sub(r'^"?sep=.?"?(?=\n)', "", text, flags=re.IGNORECASE)  # Excel's note; the header shows it too
    first = text.lstrip("\n").split("\n", 1)[0]
    cells = [cell.strip().lower() for cell in first.split("|")]
    suffix = path.suffix.lower()
    if suffix == ".jsonl" or (suffix == ".json" and _is_entry(first)):
        yield from _read_json_lines(path, text)
    elif suffix == ".json":
        yield from _read_json(path, text)
    elif _FLICKR.fullmatch(first):
        yield from _read_flickr(path, text)
    elif path.name.lower().endswith(".trans.txt") or (suffix == ".txt" and _NAMED.fullmatch(first)):
        yield from _read_named(path, text)
    elif len(cells) > 1 and not set(cells) & set(FILE_COLUMNS):
        yield from _read_pipes(path, text, file_column, text_column)
    else:
        yield from _read_columns(path, text, file_column, text_column, needs_text)


# --- rows with named values ---


def keys_of(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the values of an entry. {name of a column: its key} → {field: key, "texts": keys}."""
    keys = {
        field: next((columns[name] for name in names if name in columns), None)
        for field, names in COLUMNS.items()
    }
    texts = [name for name in TEXT_COLUMNS if name in columns][:1] or filter(_NUMBERED.fullmatch, columns)
    return keys | {"texts": [columns[name] for name in texts]}


def entries_of(where: str, row: Any, keys: Mapping[str, Any]) -> Iterator[Entry]:
    """An entry for each text of a row (cells or a JSON object); one with an empty text if there is none."""
    values = {field: row[key] for field, key in keys.items() if field != "texts" and key is not None}
    values["file"] = _text(values.get("file"))
    for field in ("speaker", "label", "answer"):
        if values.get(field) is not None:
            values[field] = str(values[field]).strip()  # many are numbers
    for field in ("start", "seconds"):
        values[field] = _number(values.get(field))
    texts = [text for key in keys["texts"] for text in _texts(row[key])]
    for text in list(filter(None, texts)) or [""]:
        yield Entry(where, text=text, **values)


def _of_object(where, row):
    if not isinstance(row, dict):
        raise TypeError(f"expected an object, not {row!r}")
    return entries_of(where, row, keys_of({name.strip().lower(): name for name in row}))


def _text(value):
    """The value; null or a missing one counts as empty."""
    if not isinstance(value, str | None):
        raise TypeError(f"expected a string, not {value!r}")
    return value or ""


def _texts(value):
    """The texts of a cell or a JSON value: one, or a list in the syntax of JSON, Python, or NumPy."""
    if isinstance(value, str) and _LIST.fullmatch(value.strip()):
        try:
            value = json.loads(value)
        except ValueError:
            # NumPy's has no commas
            value = ast.literal_eval(re.sub(r"(?<=['\"])\s+(?=['\"])", ", ", value.strip()))
    return list(map(_text, value)) if isinstance(value, list) else [_text(value)]


def _number(value):
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


# --- JSON ---


def _is_entry(line):
    """Whether a line is a complete JSON object. NeMo's manifests have one per line, and end in .json."""
    try:
        return bool(set(FILE_COLUMNS) & set(json.loads(line)))
    except (ValueError, TypeError, RecursionError):
        return False


def _read_json(path, text):
    """COCO's, Karpathy's, and AI Challenger's layout. Without an image or caption an annotation is empty."""
    try:
        content = json.loads(text)
        if isinstance(content, list):
            for i, row in enumerate(content):
                yield from _of_object(f"entry {i}", row)
        elif "annotations" in content:
            files = {image["id"]: image["file_name"] for image in content["images"]}
            for i, note in enumerate(content["annotations"]):
                yield Entry(
                    f"annotation {i}", _text(files.get(note.get("image_id"))), _text(note.get("caption"))
                )
        else:
            for i, image in enumerate(content["images"]):
                file = "/".join(filter(None, (image.get("filepath"), image["filename"])))
                for sentence in image["sentences"]:
                    yield Entry(f"image {i}", file, _text(sentence.get("raw")), image.get("split"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path.name}: expected COCO's annotations ('images' with id and file_name, 'annotations' with "
            f"image_id and caption), Karpathy's 'images' with filename and sentences, or a list of objects "
            f"with file_name and text. Received: {type(error).__name__}: {error}"
        ) from None


def _read_json_lines(path, text):
    for where, line in _lines(text):
        try:
            yield from _of_object(where, json.loads(line))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{path.name}, {where}: expected an object with file_name and text. "
                f"Received: {line[:80]!r} ({error})"
            ) from None


# --- lines ---


def _lines(text):
    """The lines that are not empty, each with its number."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"line {number}", line


def _read_named(path, text):
    """LibriSpeech's and AISHELL's layout."""
    for where, line in _lines(text):
        file, _, words = line.partition(" ")
        speaker, dash, _ = file.partition("-")  # LibriSpeech's names are speaker-chapter-number
        yield Entry(where, file, words, speaker=speaker if dash else None)


def _read_flickr(path, text):
    for where, line in _lines(text):
        match = _FLICKR.fullmatch(line)
        if not match:
            raise ValueError(f"{path.name}, {where}: expected image#0<TAB>caption. Received: {line!r}")
        yield Entry(where, *match.groups())


def _read_pipes(path, text, file_column, text_column):
    """LJSpeech's layout: columns without a header."""
    rows = [(where, line.split("|")) for where, line in _lines(text)]
    for where, cells in rows:
        if len(cells) < 2:
            raise ValueError(f"{path.name}, {where}: expected file|text. Received: {cells[0]!r}")
    columns = list(zip(*(cells for _, cells in rows), strict=False))  # as many as the shortest row has
    file_column = 0 if file_column is None else _column(path, file_column, columns, "file_column")
    if text_column is None:
        text_column = _text_column(path, columns, file_column)
    text_column = _column(path, text_column, columns, "text_column")
    for where, cells in rows:
        yield Entry(where, cells[file_column], cells[text_column])


def _text_column(path, columns: Sequence[Sequence[str]], file_column: int) -> int:
    """The number of the column of sentences. Durations, speakers, and splits are numbers, single words, or few
    distinct values. Of two columns of sentences the last one is as spoken (LJSpeech)."""

    def most(column, condition):
        return 2 * sum(map(condition, column)) >= len(column)

    others = [i for i in range(len(columns)) if i != file_column]
    with_letters = [i for i in others if most(columns[i], lambda cell: any(map(str.isalpha, cell)))]
    sentences = [i for i in with_letters if most(columns[i], lambda c: len(c.split()) > 1 or has_no_spaces(c))]
    distinct = {i: len(set(columns[i])) for i in sentences}
    sentences = [i for i in sentences if 5 * distinct[i] >= max(distinct.values())]
    if sentences:
        return sentences[-1]
    if len(with_letters) == 1:
        return with_letters[0]
    examples = "; ".join(f"{i}: {column[0][:30]!r}" for i, column in enumerate(columns))
    raise ValueError(
        f"{path.name}: expected one column of texts. Received these columns: {examples}. Name it with "
        f"text_column=, a number from 0."
    )


def _read_columns(path, text, file_column, text_column, needs_text):
    """A table with a header."""
    first = text.lstrip("\n").split("\n", 1)[0]
    delimiter = max(",\t|;", key=first.count)
    # Between tabs and bars a quote has no meaning, unless the header is quoted too, as R writes tables.
    quoting = csv.QUOTE_MINIMAL if delimiter in ",;" or '"' in first else csv.QUOTE_NONE
    records = _records(path, text, delimiter=delimiter, quoting=quoting)
    _, header = next(records, (None, []))
    columns = {name.strip().lower(): i for i, name in enumerate(header)}
    keys = keys_of(columns)
    if file_column is not None:
        keys["file"] = _column(path, file_column, columns, "file_column")
    if text_column is not None:
        keys["texts"] = [_column(path, text_column, columns, "text_column")]
    texts = keys["texts"] or (None if needs_text else keys["label"])
    for option, key in (("file_column", keys["file"]), ("text_column", texts)):
        if key is None:
            raise ValueError(
                f"{path.name}: expected a header with a column of files ({', '.join(FILE_COLUMNS)}) and one of "
                f"texts ({', '.join(TEXT_COLUMNS)}). Received: {first[:80]!r}. Name it with {option}="
            )
    for where, cells in records:
        cells += [""] * (len(header) - len(cells))
        # Flickr8k's captions.txt has no quotes: the commas of a caption give surplus columns.
        if len(cells) > len(header) and keys["texts"] != [len(header) - 1]:
            raise ValueError(
                f"{path.name}, {where}: expected {len(header)} columns, as in the header; put a text with "
                f"{delimiter!r} into quotes. Received: {len(cells)}"
            )
        cells[len(header) - 1 :] = [delimiter.join(cells[len(header) - 1 :])]
        try:
            yield from entries_of(where, cells, keys)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
            raise ValueError(
                f"{path.name}, {where}: expected a text, or a list of texts. Received: {error}"
            ) from None


def _column(path, column, columns, option):
    """The number of a column that is given by its name or number."""
    if isinstance(column, int) and not isinstance(column, bool) and 0 <= column < len(columns):
        return column
    if isinstance(column, str) and column.isdigit() and int(column) < len(columns):
        return int(column)
    if isinstance(column, str) and isinstance(columns, dict) and column.strip().lower() in columns:
        return columns[column.strip().lower()]
    known = ", ".join(columns) if isinstance(columns, dict) else f"0 to {len(columns) - 1}"
    raise ValueError(f"{path.name}: expected {option} to be one of {known}. Received: {option}={column!r}")


def _records(path, text, **options):
    """Where each record ends, and its cells."""
    reader, before = csv.reader(io.StringIO(text, newline=""), strict=True, **options), 0
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
