"""The formats of tables of captions or transcripts, one reader each.

| format | looks like |
|---|---|
| CSV, TSV, or with `;` or `|`, with a header | `image,caption` (Flickr8k's captions.txt), among other columns |
| Common Voice's TSVs | `client_id<TAB>path<TAB>sentence` with other columns |
| Flickr8k.token.txt | `beach.jpg#0<TAB>two dogs on a beach` |
| LJSpeech's metadata.csv | `LJ001-0001|as printed|as spoken`, without a header |
| LibriSpeech's .trans.txt | `84-121123-0000 GO DO YOU HEAR` |
| COCO's annotation JSON | `{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}` |
| Karpathy's JSON | `{"images": [{"filename", "split", "sentences": [{"raw"}]}]}` |
| Hugging Face's metadata.jsonl | `{"file_name": ..., "text": ...}`, one object per line |
| NeMo's manifests | `{"audio_filepath": ..., "text": ...}`, one object per line |

A column or key named `split` divides the rows, see `SPLITS`. One of `SPEAKER_COLUMNS` names the speaker.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mmkeras.data.vocabulary import has_no_spaces

FILE_COLUMNS = (
    "image", "image_name", "audio", "audio_file", "audio_filepath", "wav", "wav_filename", "clip", "file_name",
    "filename", "file", "path",
)  # fmt: skip
TEXT_COLUMNS = ("caption", "transcript", "transcription", "text", "sentence", "comment")
SPEAKER_COLUMNS = ("client_id", "speaker_id", "speaker")
# What tables call a split, and its name here. "restval" are COCO's further training images (Karpathy's split).
SPLITS = {
    "train": "train", "restval": "train", "validation": "validation", "valid": "validation",
    "val": "validation", "dev": "validation", "test": "test",
}  # fmt: skip


class Entry(NamedTuple):
    """One row of a table, unchanged. `where` names its line."""

    where: str
    file: str
    text: str
    split: str | None = None
    speaker: str | None = None


def read(
    path: Path, text: str, file_column: str | int | None = None, text_column: str | int | None = None
) -> Iterator[Entry]:
    """The rows of a table, including those with an empty file name or text.

    Args:
        path: Path of the table; some formats are recognized by its name.
        text: str. Content of the table. Lines end in \\n.
        file_column, text_column: str or int, optional. See `mmkeras.data.tables.read`.

    Raises:
        ValueError: if the format or its columns are not recognized. The message names the file and the line.
    """
    first = text.split("\n", 1)[0]
    cells = [cell.strip().lower() for cell in first.split("|")]
    if path.name.lower().endswith(".trans.txt"):
        yield from _read_librispeech(path, text)
    elif path.suffix.lower() == ".jsonl" or (path.suffix.lower() == ".json" and _is_entry(first)):
        yield from _read_json_lines(path, text)
    elif path.suffix.lower() == ".json":
        yield from _read_json(path, text)
    elif "#" in first.split("\t")[0] and "\t" in first:
        yield from _read_flickr(path, text)
    elif len(cells) > 1 and not set(cells) & set(FILE_COLUMNS):
        yield from _read_pipes(path, text, file_column, text_column)
    else:
        yield from _read_columns(path, text, file_column, text_column)


# --- JSON ---


def _is_entry(line):
    """Whether a line is a complete JSON object. NeMo's manifests have one per line, and end in .json."""
    try:
        return bool(set(FILE_COLUMNS) & set(json.loads(line)))
    except (ValueError, TypeError, RecursionError):
        return False


def _read_json(path, text):
    """COCO's and Karpathy's layout. An annotation without an image or a caption counts as empty."""
    try:
        content = json.loads(text)
        if "annotations" in content:
            files = {image["id"]: image["file_name"] for image in content["images"]}
            for i, note in enumerate(content["annotations"]):
                yield Entry(
                    f"annotation {i}", _text(files.get(note.get("image_id"))), _text(note.get("caption"))
                )
            return
        for i, image in enumerate(content["images"]):
            file = "/".join(filter(None, (image.get("filepath"), image["filename"])))
            for sentence in image["sentences"]:
                yield Entry(f"image {i}", file, _text(sentence.get("raw")), image.get("split"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path.name}: expected COCO's annotations ('images' with id and file_name, 'annotations' with "
            f"image_id and caption) or Karpathy's 'images' with filename and sentences. "
            f"Received: {type(error).__name__}: {error}"
        ) from None


def _read_json_lines(path, text):
    for where, line in _lines(text):
        try:
            entry = json.loads(line)
            file, caption, speaker = (
                next((entry[name] for name in names if name in entry), None)
                for names in (FILE_COLUMNS, TEXT_COLUMNS, SPEAKER_COLUMNS)
            )
            speaker = None if speaker is None else str(speaker)  # many are numbers
            yield Entry(where, _text(file), _text(caption), entry.get("split"), speaker)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{path.name}, {where}: expected an object with file_name and text. "
                f"Received: {line[:80]!r} ({error})"
            ) from None


def _text(value):
    """The value; null or a missing one counts as empty."""
    if not isinstance(value, str | None):
        raise TypeError(f"expected a string, not {value!r}")
    return value or ""


# --- lines ---


def _lines(text):
    """The lines that are not empty, each with its number."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"line {number}", line


def _read_librispeech(path, text):
    for where, line in _lines(text):
        file, _, words = line.partition(" ")
        yield Entry(where, file, words, speaker=file.partition("-")[0])  # speaker-chapter-number


def _read_flickr(path, text):
    for where, line in _lines(text):
        file, tab, caption = line.partition("\t")
        if not tab:
            raise ValueError(f"{path.name}, {where}: expected image#0<TAB>caption. Received: {line!r}")
        yield Entry(where, file.rpartition("#")[0] or file, caption)


def _read_pipes(path, text, file_column, text_column):
    """LJSpeech's layout: columns without a header."""
    rows = [(where, line.split("|")) for where, line in _lines(text)]
    for where, cells in rows:
        if len(cells) < 2:
            raise ValueError(f"{path.name}, {where}: expected file|text. Received: {cells[0]!r}")
    columns = list(zip(*(cells for _, cells in rows), strict=False))  # as many as the shortest row has
    file_column = 0 if file_column is None else _number(path, file_column, columns, "file_column")
    if text_column is None:
        text_column = _text_column(path, columns, file_column)
    text_column = _number(path, text_column, columns, "text_column")
    for where, cells in rows:
        yield Entry(where, cells[file_column], cells[text_column])


def _text_column(path, columns: Sequence[Sequence[str]], file_column: int) -> int:
    """The number of the column of sentences. Durations, speakers, and splits are numbers, single words, or few
    distinct values. Of two columns of sentences the last one is as spoken (LJSpeech)."""

    def most(column, condition):
        return 2 * sum(map(condition, column)) >= len(column)

    others = [i for i in range(len(columns)) if i != file_column]
    worded = [i for i in others if most(columns[i], lambda cell: any(map(str.isalpha, cell)))]
    sentences = [i for i in worded if most(columns[i], lambda c: len(c.split()) > 1 or has_no_spaces(c))]
    distinct = {i: len(set(columns[i])) for i in sentences}
    sentences = [i for i in sentences if 5 * distinct[i] >= max(distinct.values())]
    if sentences:
        return sentences[-1]
    if len(worded) == 1:
        return worded[0]
    examples = "; ".join(f"{i}: {column[0][:30]!r}" for i, column in enumerate(columns))
    raise ValueError(
        f"{path.name}: expected one column of texts. Received these columns: {examples}. Name it with "
        f"text_column=, a number from 0."
    )


def _read_columns(path, text, file_column, text_column):
    """A table with a header."""
    first = text.split("\n", 1)[0]
    delimiter = max(",\t|;", key=first.count)
    # Between tabs and bars a quote has no meaning, unless the header is quoted too, as R writes tables.
    quoting = csv.QUOTE_MINIMAL if delimiter in ",;" or '"' in first else csv.QUOTE_NONE
    records = _records(path, text, delimiter=delimiter, quoting=quoting)
    _, header = next(records, (None, []))
    columns = {name.strip().lower(): i for i, name in enumerate(header)}

    def number(given, names, option=None):
        if given is not None:
            return _number(path, given, columns, option)
        known = next((columns[name] for name in names if name in columns), None)
        if known is None and option:
            raise ValueError(
                f"{path.name}: expected a header with a column of files ({', '.join(FILE_COLUMNS)}) and one of "
                f"texts ({', '.join(TEXT_COLUMNS)}). Received: {first[:80]!r}. Name it with {option}="
            )
        return known

    file_column = number(file_column, FILE_COLUMNS, "file_column")
    text_column = number(text_column, TEXT_COLUMNS, "text_column")
    others = [number(None, ("split",)), number(None, SPEAKER_COLUMNS)]
    for where, cells in records:
        cells += [""] * (len(header) - len(cells))
        # Flickr8k's captions.txt has no quotes: the commas of a caption give surplus columns.
        if len(cells) > len(header) and text_column < len(header) - 1:
            raise ValueError(
                f"{path.name}, {where}: expected {len(header)} columns, as in the header; put a text with "
                f"{delimiter!r} into quotes. Received: {len(cells)}"
            )
        caption = delimiter.join([cells[text_column], *cells[len(header) :]])
        split, speaker = (None if column is None else cells[column].strip() for column in others)
        yield Entry(where, cells[file_column], caption, split, speaker)


def _number(path, column, columns, option):
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
