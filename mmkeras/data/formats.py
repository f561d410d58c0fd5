"""The formats of tables of captions or transcripts.

| format | looks like |
|---|---|
| CSV, TSV, or with `;` or `|`, with a header | `image,caption` (Flickr8k's captions.txt), among other columns |
| Flickr8k.token.txt | `beach.jpg#0<TAB>two dogs on a beach` |
| LJSpeech's metadata.csv | `LJ001-0001|as printed|as spoken`, without a header |
| COCO's annotation JSON | `{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}` |
| Karpathy's JSON | `{"images": [{"filename", "split", "sentences": [{"raw"}]}]}` |
| Hugging Face's metadata.jsonl | `{"file_name": ..., "text": ...}`, one object a line |
| NeMo's manifests | `{"audio_filepath": ..., "text": ...}`, one object a line |

A column or key named `split` (train, validation, test) divides the rows.
"""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

from mmkeras.data.vocabulary import is_chinese

FILE_COLUMNS = (
    "image", "image_name", "audio", "audio_file", "audio_filepath", "wav", "wav_filename", "clip", "file_name",
    "filename", "file", "path",
)  # fmt: skip
TEXT_COLUMNS = ("caption", "transcript", "transcription", "text", "sentence", "comment")

# where a row stands, file, text, split
Pairs = Iterator[tuple[str, str, str, str | None]]


def read(path: Path, text: str, file_column: str | int | None, text_column: str | int | None) -> Pairs:
    """The rows of a table, whose lines end in \\n. What is empty is left to the caller.

    Raises:
        ValueError: if the format or its columns are not recognized. The message names the file, and the line.
    """
    first = text.split("\n", 1)[0]
    if path.suffix.lower() == ".jsonl" or (path.suffix.lower() == ".json" and _names_a_file(first)):
        yield from _read_json_lines(path, text)
    elif path.suffix.lower() == ".json":
        yield from _read_json(path, text)
    elif "#" in first.split("\t")[0] and "\t" in first:
        yield from _read_flickr(path, text)
    elif "|" in first and not {cell.strip().lower() for cell in first.split("|")} & set(FILE_COLUMNS):
        yield from _read_pipes(path, text, file_column, text_column)
    else:
        yield from _read_columns(path, text, first, file_column, text_column)


# --- JSON ---


def _names_a_file(line):
    """Whether a line is an object of its own, as in NeMo's manifests, which end in .json."""
    try:
        return bool(set(FILE_COLUMNS) & set(json.loads(line)))
    except (ValueError, TypeError, RecursionError):
        return False


def _read_json(path, text):
    """COCO's and Karpathy's layout. An entry without an image or a caption counts as empty."""
    try:
        content = json.loads(text)
        if "annotations" in content:
            files = {image["id"]: image["file_name"] for image in content["images"]}
            for i, note in enumerate(content["annotations"]):
                yield (
                    f"annotation {i}",
                    _text(files.get(note.get("image_id"))),
                    _text(note.get("caption")),
                    None,
                )
            return
        for i, image in enumerate(content["images"]):
            file = "/".join(filter(None, (image.get("filepath"), image["filename"])))
            split = {"val": "validation", "restval": "train"}.get(image.get("split"), image.get("split"))
            for sentence in image["sentences"]:
                yield f"image {i}", file, _text(sentence.get("raw")), split
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path.name}: expected COCO's annotations ('images' with id and file_name, 'annotations' with "
            f"image_id and caption) or Karpathy's 'images' with filename and sentences. "
            f"Received: {type(error).__name__}: {error}"
        ) from None


def _read_json_lines(path, text):
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            file = next((entry[name] for name in FILE_COLUMNS if name in entry), None)
            caption = next((entry[name] for name in TEXT_COLUMNS if name in entry), None)
            yield f"line {number}", _text(file), _text(caption), entry.get("split")
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{path.name}, line {number}: expected an object with file_name and text. "
                f"Received: {line[:80]!r} ({error})"
            ) from None


def _text(value):
    """null and a missing value are empty texts, which are left out; another kind of value is an error."""
    if not isinstance(value, str | None):
        raise TypeError(f"expected a text, not {value!r}")
    return value or ""


# --- lines ---


def _read_flickr(path, text):
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            file, tab, caption = line.partition("\t")
            if not tab:
                raise ValueError(
                    f"{path.name}, line {number}: expected image#0<TAB>caption. Received: {line!r}"
                )
            yield f"line {number}", file.rpartition("#")[0] or file, caption, None


def _read_pipes(path, text, file_column, text_column):
    lines = [(number, line.split("|")) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    for number, cells in lines:
        if len(cells) < 2:
            raise ValueError(f"{path.name}, line {number}: expected file|text. Received: {cells[0]!r}")
    width = min(len(cells) for _, cells in lines)
    columns = [[cells[i] for _, cells in lines] for i in range(width)]
    file_column = 0 if file_column is None else _number(path, file_column, range(width), "file_column")
    if text_column is None:
        text_column = _text_column(path, columns, file_column)
    text_column = _number(path, text_column, range(width), "text_column")
    for number, cells in lines:
        yield f"line {number}", cells[file_column], cells[text_column], None


def _text_column(path, columns, file_column):
    """The column that holds sentences. Durations, speakers and splits stand in such tables, too: their values
    are numbers, single words, or few. Of several columns of sentences the last one is as spoken (LJSpeech)."""

    def share(column, is_so):
        return sum(map(is_so, column)) / len(column)

    others = [i for i in range(len(columns)) if i != file_column]
    worded = [i for i in others if share(columns[i], lambda cell: any(map(str.isalpha, cell))) >= 0.5]
    sentences = [i for i in worded if share(columns[i], lambda c: len(c.split()) > 1 or is_chinese(c)) >= 0.5]
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


def _read_columns(path, text, first, file_column, text_column):
    delimiter = max(",\t|;", key=first.count)
    # Between tabs a quote is a mark like any other, unless the header is quoted too, as R writes tables.
    quoting = csv.QUOTE_MINIMAL if delimiter in ",;" or '"' in first else csv.QUOTE_NONE
    records = _records(path, text, delimiter=delimiter, quoting=quoting)
    _, header = next(records, (None, []))
    columns = {name.strip().lower(): i for i, name in enumerate(header)}
    known = {"file_column": (file_column, FILE_COLUMNS), "text_column": (text_column, TEXT_COLUMNS)}
    chosen = {}
    for option, (given, names) in known.items():
        if given is not None:
            chosen[option] = _number(path, given, columns, option)
        elif (number := next((columns[name] for name in names if name in columns), None)) is not None:
            chosen[option] = number
        else:
            raise ValueError(
                f"{path.name}: expected a header with a column of files ({', '.join(FILE_COLUMNS)}) and one of "
                f"texts ({', '.join(TEXT_COLUMNS)}). Received: {first[:80]!r}. Name it with {option}="
            )
    file_column, text_column = chosen["file_column"], chosen["text_column"]
    for where, cells in records:
        cells += [""] * (len(header) - len(cells))
        # Flickr8k's captions.txt does not quote: a caption's own commas end up in surplus columns.
        if len(cells) > len(header) and text_column < len(header) - 1:
            raise ValueError(
                f"{path.name}, {where}: expected {len(header)} columns, as in the header; put a text that "
                f"holds {delimiter!r} into quotes. Received: {len(cells)}"
            )
        caption = delimiter.join([cells[text_column], *cells[len(header) :]])
        split = cells[columns["split"]].strip() if "split" in columns else None
        yield where, cells[file_column], caption, split


def _number(path, column, columns, option):
    """A column's number from its name or number."""
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
