"""Tables of captions and transcripts: their formats, invalid tables, and which file a row means."""

import json
import unicodedata
import warnings

import pytest

from mmkeras.data import folder, tables
from mmkeras.data.tables import Row

CAPTIONS = {"a.jpg": ["two dogs, on a beach", "dogs"], "b.jpg": ["a cat"]}
COCO = {
    "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 9, "file_name": "b.jpg"}],
    "annotations": [
        {"image_id": 7, "caption": "two dogs, on a beach"},
        {"image_id": 9, "caption": "a cat"},
        {"image_id": 7, "caption": "dogs"},
    ],
}
KARPATHY = {
    "images": [
        {"filename": name, "split": "restval", "sentences": [{"raw": text} for text in texts]}
        for name, texts in CAPTIONS.items()
    ]
}
LINES = [(name, text) for name, texts in CAPTIONS.items() for text in texts]


def write(folder, files):
    """Writes {name: content}; a list is a list of lines."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = "\n".join(content) if isinstance(content, list) else content
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("captions.csv", ["image,caption", 'a.jpg,"two dogs, on a beach"', "b.jpg,a cat", "a.jpg,dogs"]),
        (
            "captions.csv",
            ["id,Caption,Image", '1,"two dogs, on a beach",a.jpg', "2,a cat,b.jpg", "3,dogs,a.jpg"],
        ),
        ("captions.tsv", ["file_name\ttext", "a.jpg\ttwo dogs, on a beach", "b.jpg\ta cat", "a.jpg\tdogs"]),
        ("captions.csv", ["image|caption", "a.jpg|two dogs, on a beach", "b.jpg|a cat", "a.jpg|dogs"]),
        ("captions.csv", ["image;caption", "a.jpg;two dogs, on a beach", "b.jpg;a cat", "a.jpg;dogs"]),
        ("captions.csv", "image,caption\ra.jpg,two dogs, on a beach\ra.jpg,dogs\rb.jpg,a cat\r"),
        # Flickr8k on Kaggle, without quotes, and the original one
        ("captions.txt", ["image,caption", "a.jpg,two dogs, on a beach", "b.jpg,a cat", "a.jpg,dogs"]),
        ("Flickr8k.token.txt", ["a.jpg#0\ttwo dogs, on a beach", "b.jpg#0\ta cat", "a.jpg#1\tdogs"]),
        ("Flickr8k.token.txt", "a.jpg#0\ttwo dogs, on a beach\ra.jpg#1\tdogs\rb.jpg#0\ta cat\r"),
        # LJSpeech's layout, without a header
        ("captions.csv", ["a.jpg|2 dogs|two dogs, on a beach", "b.jpg|1 cat|a cat", "a.jpg|dogs|dogs"]),
        ("captions.csv", "a.jpg|two dogs, on a beach\ra.jpg|dogs\rb.jpg|a cat\r"),
        ("captions_val2014.json", json.dumps(COCO)),
        ("dataset_flickr8k.json", json.dumps(KARPATHY)),
        ("metadata.jsonl", [json.dumps({"file_name": name, "text": text}) for name, text in LINES]),
        # several texts in a row
        (
            "captions.csv",
            ["image_path,caption_1,caption_2", 'a.jpg,"two dogs, on a beach",dogs', "b.jpg,a cat,"],
        ),
        ("captions.tsv", ["captions\tfile", '["two dogs, on a beach", "dogs"]\ta.jpg', "['a cat']\tb.jpg"]),
        (
            "captions.csv",
            ["image,text", "a.jpg,['two dogs, on a beach'\n 'dogs']".replace("\n", ""), "b.jpg,a cat"],
        ),
        (
            "metadata.jsonl",
            [json.dumps({"file_name": name, "text": texts}) for name, texts in CAPTIONS.items()],
        ),
        # AI Challenger; Flickr8k-CN with a tab or a space; Excel
        (
            "captions.json",
            json.dumps([{"image_id": name, "caption": texts} for name, texts in CAPTIONS.items()]),
        ),
        ("f.caption.txt", ["a.jpg#zhb#0\ttwo dogs, on a beach", "a.jpg#zhb#1\tdogs", "b.jpg#zhb#0\ta cat"]),
        ("f.caption.txt", ["a.jpg#zhb#0 two dogs, on a beach", "a.jpg#zhb#1 dogs", "b.jpg#zhb#0 a cat"]),
        ("captions.csv", ["sep=;", "image;caption", "a.jpg;two dogs, on a beach", "b.jpg;a cat", "a.jpg;dogs"]),
    ],
)
def test_every_format_gives_the_same_rows(tmp_path, name, content):
    write(tmp_path, {name: content})
    rows = tables.read(tables.find(tmp_path))
    assert {row.file: row.texts for row in rows} == CAPTIONS


def test_nemo_manifests_have_files_and_speakers(tmp_path):
    entry = {"audio_filepath": "a.wav", "text": "go on", "duration": 1.5, "speaker": 7}
    write(tmp_path, {"manifest.json": json.dumps(entry)})
    assert tables.read(tables.find(tmp_path, kind="transcripts")) == [
        Row("a.wav", ["go on"], speaker="7", seconds=1.5)
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("manifest.json", '{"audio_filepath": "a.wav", "offset": 0, "text": "one"}\n'
                          '{"audio_filepath": "a.wav", "offset": 3.5, "text": "two"}'),
        ("transcripts.csv", "start,file,text\n0,a.wav,one\n3.5,a.wav,two"),
    ],
)  # fmt: skip
def test_transcripts_of_parts_of_a_clip_are_refused(tmp_path, name, content):
    write(tmp_path, {name: content})
    with pytest.raises(ValueError, match=rf"{name}, line [23] \('a.wav'\).* 3\.5"):
        tables.read(tables.find(tmp_path, kind="transcripts"), kind="transcripts")


@pytest.mark.parametrize("cell", ['["a dog", 5]', "['a dog', 'two]", '["a" + "b"]'])
def test_a_list_that_cannot_be_read_is_refused(tmp_path, cell):
    write(tmp_path, {"captions.tsv": ["image\tcaption", f"a.jpg\t{cell}"]})
    with pytest.raises(ValueError, match="captions.tsv, line 2.*list of texts"):
        tables.read(tmp_path / "captions.tsv")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_with_byte_order_marks_are_recognized(tmp_path, encoding):
    content = "image,caption,split\r\na.jpg,ein Hündchen,Train\r\nb.jpg,猫,test\r\n"
    write(tmp_path, {"captions.csv": content.encode(encoding)})
    expected = [Row("a.jpg", ["ein Hündchen"], "train"), Row("b.jpg", ["猫"], "test")]
    assert tables.read(tmp_path / "captions.csv") == expected


def test_other_encodings_can_be_named(tmp_path):
    write(tmp_path, {"captions.csv": "image,caption\na.jpg,café".encode("cp1252")})
    assert tables.read(tmp_path / "captions.csv", "cp1252")[0].texts == ["café"]


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"image,caption\na.jpg,caf\xe9\n", r"line 2.*0xe9.*encoding='cp1252'"),
        (b"photo,words\na.jpg,hello\n", "'photo,words'.*file_column="),
        (b"image,words\na.jpg,hello\n", "'image,words'.*text_column="),
        (b"", "Received: ''"),
        (b"image,caption\n", ""),
        (b"image,caption\nb.jpg,  \n", r"1 of 1 .*line 2 \('b\.jpg'\)"),
        (b"image,caption\n,a dog\n", r"1 of 1 .*line 2 \(''\)"),
        (b"image,caption,split\na.jpg,a dog,half\n", "line 2.*split='half'"),
        (b"image,caption,split\na.jpg,a,train\na.jpg,b,test\n", "line 3.*'a.jpg'.*'train' and 'test'"),
        (b"a.jpg#0\ta dog\nb.jpg a cat\n", "line 2.*'b.jpg a cat'"),
        (b"a.jpg|a dog\nb.jpg a cat\n", "line 2.*'b.jpg a cat'"),
        (b'image,caption\na.jpg,"a\ndog"\nb.jpg,"a cat\nc.jpg,a cow\n', "line 4"),
        (b'image,caption\na.jpg,"a dog', "line 2"),
        (b'image,caption\na.jpg,"a dog\nb.jpg,a cat\nc.jpg,"yes, a cow"\n', "line 2"),
        (b"image,caption,who\na.jpg,a dog, a cat,bob\n", "line 2.* 3 .*Received: 4"),
        (b'image,"caption\na.jpg,a dog\n', "line 1"),
        (b'image,caption\na.jpg,"' + 9000 * b"b.jpg,a long day\n", "line 2"),
    ],
)
def test_errors_name_the_table_and_the_line(tmp_path, content, where):
    write(tmp_path, {"captions.csv": content})
    with pytest.raises(ValueError, match=r"captions\.csv.*" + where):
        tables.read(tmp_path / "captions.csv")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("captions.json", "{}"),
        ("captions.json", "[1]"),
        ("captions.json", "no"),
        ("captions.json", "[" * 100_000),
        ("captions.json", json.dumps({"images": [], "annotations": [{"image_id": 1}]})),
        ("captions.json", json.dumps(COCO | {"annotations": [{"image_id": 7, "caption": 5}]})),
        ("metadata.jsonl", '{"file_name": "a.jpg", "text": 5}'),
        ("metadata.jsonl", "[" * 100_000),
        ("captions.xlsx", "PK"),
    ],
    ids=range(9),
)
def test_unknown_formats_are_refused(tmp_path, name, content):
    write(tmp_path, {name: content})
    with pytest.raises(ValueError, match=name):
        tables.read(tmp_path / name)


@pytest.mark.parametrize("delimiter", "\t|")
def test_quotes_are_literal_between_tabs_and_bars(tmp_path, delimiter):
    rows = [("path", "text"), ("a.wav", '"so he said'), ("b.wav", "yes"), ("c.wav", 'no" 5" "')]
    write(tmp_path, {"transcripts.tsv": list(map(delimiter.join, rows))})
    assert [(row.file, *row.texts) for row in tables.read(tmp_path / "transcripts.tsv")] == rows[1:]


def test_quotes_are_read_between_tabs_if_the_header_is_quoted(tmp_path):
    write(tmp_path, {"transcripts.tsv": '"path"\t"text"\n"a.wav"\t"so, yes"'})
    assert tables.read(tmp_path / "transcripts.tsv") == [Row("a.wav", ["so, yes"])]


def test_quoted_texts_may_have_several_lines(tmp_path):
    write(tmp_path, {"captions.csv": b'image,caption\r\na.jpg,"a\r\ndog"\r\n\r\nb.jpg,"a ""cat\n"'})
    assert [row.texts for row in tables.read(tmp_path / "captions.csv")] == [["a\ndog"], ['a "cat']]


def test_spellings_of_one_path_are_one_file(tmp_path):
    write(tmp_path, {"captions.csv": ["image,caption", "a/b.jpg,a dog", "./a/b.jpg,a beach", "a//b.jpg,sand"]})
    assert tables.read(tmp_path / "captions.csv") == [Row("a/b.jpg", ["a dog", "a beach", "sand"])]


def test_warning_counts_and_names_skipped_rows(tmp_path):
    rows = ["a.jpg,fine", "b.jpg,  ", ",a dog", "c.jpg,...", "d.jpg,🙂", "e.jpg,good"]
    write(tmp_path, {"captions.csv": ["image,caption", *rows]})
    message = r"captions.csv.* 4 of 6 .*: line 3 \('b.jpg'\), line 4 \(''\), line 5 \('c.jpg'\) \.\.\.$"
    with pytest.warns(UserWarning, match=message) as caught:
        assert [row.file for row in tables.read(tmp_path / "captions.csv")] == ["a.jpg", "e.jpg"]
    assert len(caught) == 1


@pytest.mark.parametrize(
    "note", [{"image_id": 7, "caption": None}, {"image_id": 7}, {"image_id": 3, "caption": "a"}]
)
def test_coco_annotations_without_caption_or_image_are_skipped(tmp_path, note):
    write(tmp_path, {"captions.json": json.dumps(COCO | {"annotations": [*COCO["annotations"], note]})})
    with pytest.warns(UserWarning, match="captions.json.* 1 of 4 .*annotation 3"):
        assert {row.file: row.texts for row in tables.read(tmp_path / "captions.json")} == CAPTIONS


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("Word {i} please.|word {i} please|1.50", "word {i} please"),
        ("the door is open|speaker{i}", "the door is open"),
        ("打开第{i}扇门|spk1|train", "打开第{i}扇门"),
        ("go{i}|0.7", "go{i}"),
    ],
)
def test_content_determines_the_text_column(rest, expected, tmp_path):
    write(tmp_path, {"metadata.csv": [f"c{i}.wav|" + rest.format(i=i) for i in range(4)]})
    rows = tables.read(tmp_path / "metadata.csv", kind="transcripts")
    assert [row.texts for row in rows] == [[expected.format(i=i)] for i in range(4)]


def test_columns_can_be_named(tmp_path):
    path = tmp_path / "metadata.csv"
    write(tmp_path, {"metadata.csv": ["a.wav|yes|anna", "b.wav|no|ben"]})
    with pytest.raises(ValueError, match="metadata.csv.*1: 'yes'; 2: 'anna'.*text_column="):
        tables.read(path, kind="transcripts")
    assert [row.texts for row in tables.read(path, kind="transcripts", text_column=1)] == [["yes"], ["no"]]
    for option in ({"text_column": 7}, {"file_column": "seven"}):
        ((name, value),) = option.items()
        with pytest.raises(ValueError, match=f"{name}={value!r}"):
            tables.read(path, kind="transcripts", **{"text_column": 1} | option)
    write(tmp_path, {"metadata.csv": ["id;said", "a.wav;go on; now"]})
    assert tables.read(path, file_column="id", text_column="said") == [Row("a.wav", ["go on; now"])]


# --- the tables of a folder ---


@pytest.mark.parametrize(
    ("kind", "names", "splits"),
    [
        ("captions", ["captions.csv"], [None]),
        ("captions", ["captions_train2017.json", "captions_val2017.json"], ["train", "validation"]),
        ("captions", ["metadata.csv"], [None]),
        ("captions", ["test/metadata.jsonl", "train/metadata.jsonl"], ["test", "train"]),
        ("transcripts", ["dev_manifest.json", "train_manifest.json"], ["validation", "train"]),
        ("transcripts", ["dev.tsv", "test.tsv", "train.tsv"], ["validation", "test", "train"]),
        ("transcripts", ["train.tsv"], [None]),
        ("transcripts", ["train-clean-100/8/1/8-1.trans.txt"], [None]),
    ],
)
def test_tables_and_their_splits_are_found(tmp_path, kind, names, splits):
    beside = ("._captions.csv", "._dev.tsv", "other.tsv", "validated.tsv", "clip_durations.tsv", "notes.txt")
    write(tmp_path, dict.fromkeys((*names, *beside), ""))
    assert [(table.path, table.split) for table in tables.find(tmp_path, kind=kind)] == [
        (tmp_path / name, split) for name, split in zip(names, splits, strict=True)
    ]
    assert tables.find(tmp_path, "notes.txt") == [tables.Table(tmp_path / "notes.txt")]


@pytest.mark.parametrize("names", [[], ["captions.csv", "my_captions.json"], ["train.csv", "train.tsv"]])
def test_folders_without_a_clear_table_are_refused(tmp_path, names):
    write(tmp_path, dict.fromkeys(names, ""))
    with pytest.raises(ValueError, match=f"Received: {', '.join(names) or 'none'}.*table="):
        tables.find(tmp_path)
    with pytest.raises(FileNotFoundError, match="table='other.csv'"):
        tables.find(tmp_path, "other.csv")


def test_files_are_relative_to_a_table_in_a_sub_folder(tmp_path):
    for split in ("train", "test"):
        write(tmp_path, {f"{split}/metadata.csv": ["file_name,text", f"0.png,{split}"], f"{split}/0.png": ""})
    rows, paths = tables.locate(tmp_path, tables.read(tables.find(tmp_path)))
    assert rows == [Row(f"{split}/0.png", [split], split) for split in ("test", "train")]
    assert paths == [tmp_path / "test/0.png", tmp_path / "train/0.png"]


def test_coco_is_read_as_unpacked(tmp_path):
    files = {f"{split}2017/7.jpg": "" for split in ("train", "val")}  # another image of the same name
    tables_of = {
        f"annotations/captions_{split}2017.json": json.dumps(
            {"images": [{"id": 1, "file_name": "7.jpg"}], "annotations": [{"image_id": 1, "caption": split}]}
        )
        for split in ("train", "val")
    }
    write(tmp_path, files | tables_of | {"annotations/instances_val2017.json": "{}"})
    rows, paths = tables.locate(tmp_path, tables.read(tables.find(tmp_path)))
    assert [(row.texts, row.split) for row in rows] == [(["train"], "train"), (["val"], "validation")]
    assert paths == [tmp_path / name for name in files]


def test_aishell_is_read_as_unpacked(tmp_path):
    lines = ["BAC009S0002W0122 而 对 楼市", "BAC009S0724W0121 广州 市", "BAC009S0764W0121 甚至"]
    names = ["wav/train/S0002/BAC009S0002W0122.wav", "wav/dev/S0724/BAC009S0724W0121.wav"]
    names += ["wav/test/S0764/BAC009S0764W0121.wav"]
    write(tmp_path, dict.fromkeys(names, "") | {"transcript/aishell_transcript_v0.8.txt": lines})
    found = tables.find(tmp_path, kind="transcripts")
    rows, paths = tables.locate(tmp_path, tables.read(found, kind="transcripts"), "transcripts")
    assert [row.texts for row in rows] == [["而 对 楼市"], ["广州 市"], ["甚至"]]
    assert [row.split for row in rows] == ["train", "validation", "test"]
    assert paths == [tmp_path / name for name in names]


def test_speakers_are_in_one_split():
    rows = [Row(f"{i}.wav", ["a"], speaker=f"speaker {i % 10}") for i in range(100)]
    splits = folder.divide(rows, 0.1, 0.2)
    assert {name: len(numbers) for name, numbers in splits.items()} == {
        "train": 70,
        "validation": 10,
        "test": 20,
    }
    speakers = [{rows[i].speaker for i in numbers} for numbers in splits.values()]
    assert sum(map(len, speakers)) == len(set.union(*speakers)) == 10


@pytest.mark.parametrize(("clips", "expected"), [([9, 1], {"test"}), ([4, 3, 3], {"test", "validation"})])
def test_the_speaker_with_most_clips_trains(clips, expected):
    rows = [Row(f"{s}-{i}.wav", ["a"], speaker=str(s)) for s, n in enumerate(clips) for i in range(n)]
    splits = folder.divide(rows, 0.1, 0.1)
    assert {rows[i].speaker for i in splits.pop("train")} == {"0"} and set(splits) == expected


def test_one_speaker_is_divided_by_file():
    rows = [Row(f"{i}.wav", ["a"], speaker="anna") for i in range(200)]
    assert folder.divide(rows, 0.1, 0.1) == folder.divide([Row(row.file) for row in rows], 0.1, 0.1)


# --- the files of a table ---


def test_files_are_found_in_sub_folders_and_missing_ones_named(tmp_path):
    write(tmp_path, {"Images/a.jpg": "", "b.jpg": ""})
    a, b, c = (Row(name) for name in ("a.jpg", "b", "c.jpg"))  # one without its suffix
    paths = [tmp_path / "Images" / "a.jpg", tmp_path / "b.jpg"]
    assert tables.locate(tmp_path, [a, b]) == ([a, b], paths)
    with pytest.warns(UserWarning, match=r" 1 of 3 .*: c\.jpg$"):
        assert tables.locate(tmp_path, [a, c, b]) == ([a, b], paths)
    with pytest.raises(FileNotFoundError, match=r" 1 of 1 .*: c\.jpg$"):
        tables.locate(tmp_path, [c])


@pytest.mark.parametrize(
    ("files", "names", "expected"),
    [
        (["s1/0.wav", "s1/1.wav"], ["s1/0.wav", "s2/0.wav"], ["s1/0.wav", None]),
        (["s1/0.wav", "s1/1.wav"], ["s1/1.wav", "s2/0.wav"], ["s1/1.wav", None]),
        (["s1/0.wav", "s1/1.wav"], ["s1/1", "s2/0"], ["s1/1.wav", None]),
        (["s1/0.wav", "s2/0.wav", "1.wav"], ["0.wav", "1"], [None, "1.wav"]),  # ambiguous
        (["wavs/0.wav", "wavs/1.wav"], ["wavs/0.wav", "0", "1"], ["wavs/0.wav", None, "wavs/1.wav"]),
        # from another machine
        (["wavs/0.wav", "wavs/1.wav"], ["/home/a/0.wav", "/home/a/1"], ["wavs/0.wav", "wavs/1.wav"]),
        (["wavs/0.wav", "wavs/1.wav"], ["/a/0.wav", "/b/0.wav", "/a/1.wav"], [None, None, "wavs/1.wav"]),
        (["wavs/0.WAV", "wavs/1.wav"], ["D:/a/0.wav", "D:/a/1.wav"], ["wavs/0.WAV", "wavs/1.wav"]),
        (["0.wav", "0.flac", "1.wav"], ["0", "1"], [None, "1.wav"]),  # as an image and its mask
        (["0.WAV", "0.wav", "1.wav"], ["0.Wav", "1.wav"], [None, "1.wav"]),
        # Flickr8k's table names an image that does not exist
        (["wavs/0.wav", "1.wav"], ["0.wav.1", "1.wav"], ["wavs/0.wav", "1.wav"]),
        (["0.wav", "1.wav"], ["0.wav", "0.wav.1", "1.wav"], ["0.wav", None, "1.wav"]),
    ],
)
def test_no_row_gets_the_file_of_another_row(tmp_path, files, names, expected):
    write(tmp_path, dict.fromkeys(files, ""))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows, paths = tables.locate(tmp_path, list(map(Row, names)), "transcripts")
    assert dict(zip([row.file for row in rows], paths, strict=True)) == {
        name: tmp_path / path for name, path in zip(names, expected, strict=True) if path
    }
    assert any(f"{names[-1]} → " in str(w.message) for w in caught) == names[0].startswith(("/", "D:"))
    assert any(f" {expected.count(None)} of " in str(w.message) for w in caught) == (None in expected)


def test_absolute_paths_and_links_are_followed(tmp_path):
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    write(elsewhere, {"a.jpg": "", "b.jpg": ""})
    folder.mkdir()
    (folder / "images").symlink_to(elsewhere)
    (elsewhere / "circle").symlink_to(folder)
    rows = [Row((elsewhere / "a.jpg").as_posix()), Row("images/a.jpg"), Row("b.jpg")]
    expected = [elsewhere / "a.jpg", folder / "images" / "a.jpg", folder / "images" / "b.jpg"]
    assert tables.locate(folder, rows) == (rows, expected)


def test_a_name_without_suffix_is_an_image_or_a_clip(tmp_path):
    write(tmp_path, dict.fromkeys(("a.JPG", "a.jpg.txt", "a.lab", "a.txt", "a.wav", "b.txt"), ""))
    for of, path in (("captions", "a.JPG"), ("transcripts", "a.wav")):
        with pytest.warns(UserWarning, match=": b$"):
            assert tables.locate(tmp_path, [Row("a"), Row("b")], of) == ([Row("a")], [tmp_path / path])


def test_texts_and_file_names_are_normalized(tmp_path):
    decomposed = unicodedata.normalize("NFD", "café")
    lines = ["image,caption", f"café.jpg,don’t {decomposed}", "C:\\sub\\b.jpg,Ｒｅｄ １２"]
    write(tmp_path, {f"{decomposed}.jpg": "", "sub/B.JPG": "", "captions.csv": lines})
    rows, paths = tables.locate(tmp_path, tables.read(tmp_path / "captions.csv"))
    assert [row.texts for row in rows] == [["don't café"], ["Red 12"]]
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [f"{decomposed}.jpg", "sub/B.JPG"]
