"""Captions tables in the formats that people have, and what is wrong with some."""

import json
import unicodedata

import pytest

from mmkeras.data import tables

COCO = {
    "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 9, "file_name": "b.jpg"}],
    "annotations": [
        {"image_id": 7, "caption": "two dogs, on a beach"},
        {"image_id": 9, "caption": "a cat"},
        {"image_id": 7, "caption": "dogs"},
    ],
}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("captions.csv", 'image,caption\na.jpg,"two dogs, on a beach"\nb.jpg,a cat\na.jpg,dogs\n'),
        (
            "captions.csv",
            'id,Caption,Image\n1,"two dogs, on a beach",a.jpg\n2,a cat,b.jpg\n3,dogs,a.jpg',
        ),
        (
            "captions.tsv",
            "file_name\ttext\na.jpg\ttwo dogs, on a beach\nb.jpg\ta cat\na.jpg\tdogs\n",
        ),
        # Flickr8k as it comes from Kaggle: not quoted
        ("captions.txt", "image,caption\na.jpg,two dogs, on a beach\nb.jpg,a cat\na.jpg,dogs\n"),
        # Flickr8k as it came from its makers
        ("Flickr8k.token.txt", "a.jpg#0\ttwo dogs, on a beach\nb.jpg#0\ta cat\na.jpg#1\tdogs\n"),
        ("captions_val2014.json", json.dumps(COCO)),
        ("captions.csv", "image|caption\na.jpg|two dogs, on a beach\nb.jpg|a cat\na.jpg|dogs\n"),
        # LJSpeech's layout, without a header
        ("captions.csv", "a.jpg|2 dogs|two dogs, on a beach\nb.jpg|1 cat|a cat\na.jpg|dogs|dogs\n"),
    ],
)
def test_every_format_gives_the_same_rows(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    rows = tables.read(tables.find(tmp_path))
    assert [(row.file, row.texts) for row in rows] == [
        ("a.jpg", ["two dogs, on a beach", "dogs"]),
        ("b.jpg", ["a cat"]),
    ]


def test_a_split_column_and_windows_files_are_understood(tmp_path):
    content = "image,caption,split\r\na.jpg,ein Hündchen,train\r\nb.jpg,猫,test\r\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "captions.csv").write_bytes(content.encode(encoding))
        rows = tables.read(tmp_path / "captions.csv")
        assert [(row.texts, row.split) for row in rows] == [
            (["ein Hündchen"], "train"),
            (["猫"], "test"),
        ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"image,caption\na.jpg,caf\xe9\n",
            r"line 2: the byte 0xe9 is not utf-8.*encoding='cp1252'",
        ),
        (b"picture,words\na.jpg,hello\n", "header.*Received: 'picture,words'"),
        (b"", "header"),
        (b"image,caption\n", "no texts"),
        (b"image,caption\nb.jpg,  \n", r"1 of 1 rows are left out, .*: line 2, the text for 'b\.jpg'"),
        (b"image,caption\n,a dog\n", "1 of 1 rows are left out, .*: line 2, the file name"),
        (b"image,caption,split\na.jpg,a dog,dev\n", "line 2: expected split .* Received: 'dev'"),
        (b"image,caption,split\na.jpg,a,train\na.jpg,b,test\n", "two splits"),
        (b"a.jpg#0\ta dog\nb.jpg a cat\n", "line 2: expected image#0<TAB>caption"),
        (b'image,caption\na.jpg,"a\ndog"\nb.jpg,"a cat\nc.jpg,a cow\n', "line 4: expected a quote .* closed"),
        (b'image,caption\na.jpg,"a dog', "line 2: expected a quote .* Received: unexpected end of data"),
        (
            b'image,caption\na.jpg,"a dog\nb.jpg,a cat\nc.jpg,"yes, a cow"\n',
            "line 2: expected a quote .* closed",
        ),
        (b"image,caption,who\na.jpg,a dog, a cat,bob\n", "line 2: expected 3 columns.* Received: 4"),
        (b'image,"caption\na.jpg,a dog\n', "line 1: expected a quote .* closed"),
        (b'image,caption\na.jpg,"' + 9000 * b"b.jpg,a long day\n", "line 2: expected a quote .* field limit"),
    ],
)
def test_a_bad_table_is_named_with_its_line(tmp_path, content, message):
    (tmp_path / "captions.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"captions\.csv.*" + message):
        tables.read(tmp_path / "captions.csv")


@pytest.mark.parametrize("mark", "\t|")
def test_a_quote_between_tabs_is_a_mark_like_any_other(tmp_path, mark):
    rows = [("path", "text"), ("a.wav", '"so he said'), ("b.wav", "yes"), ("c.wav", 'no" 5" "')]
    (tmp_path / "transcripts.tsv").write_text("\n".join(map(mark.join, rows)))
    found = tables.read(tmp_path / "transcripts.tsv")
    assert [(row.file, *row.texts) for row in found] == rows[1:]


def test_quotes_are_understood_between_tabs_too_where_the_header_has_them(tmp_path):
    (tmp_path / "transcripts.tsv").write_text('"path"\t"text"\n"a.wav"\t"so, yes"')
    assert tables.read(tmp_path / "transcripts.tsv") == [tables.Row("a.wav", ["so, yes"])]


def test_a_file_may_be_written_in_several_ways(tmp_path):
    (tmp_path / "captions.csv").write_text("image,caption\na/b.jpg,a dog\n./a/b.jpg,a beach\na//b.jpg,sand\n")
    assert tables.read(tmp_path / "captions.csv") == [tables.Row("a/b.jpg", ["a dog", "a beach", "sand"])]


def test_texts_of_several_lines_are_read(tmp_path):
    (tmp_path / "captions.csv").write_bytes(b'image,caption\r\na.jpg,"a\r\ndog"\r\n\r\nb.jpg,"a ""cat\n"')
    assert [row.texts for row in tables.read(tmp_path / "captions.csv")] == [["a\ndog"], ['a "cat']]


def test_rows_where_something_is_empty_are_left_out_named_and_counted(tmp_path):
    rows = ["a.jpg,fine", "b.jpg,  ", ",a dog", "c.jpg,", "d.jpg,", "e.jpg,good"]
    (tmp_path / "captions.csv").write_text("\n".join(["image,caption", *rows]))
    message = (
        r"captions.csv: 4 of 6 rows are left out, where something is empty or has no letter: "
        r"line 3, the text for 'b.jpg', line 4, the file name, line 5, the text for 'c.jpg' \.\.\."
    )
    with pytest.warns(UserWarning, match=message) as caught:
        assert [row.file for row in tables.read(tmp_path / "captions.csv")] == ["a.jpg", "e.jpg"]
    assert len(caught) == 1


def test_another_encoding_can_be_said(tmp_path):
    (tmp_path / "captions.csv").write_bytes("image,caption\na.jpg,café".encode("cp1252"))
    assert tables.read(tmp_path / "captions.csv", "cp1252")[0].texts == ["café"]


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "[1]",
        "no",
        "[" * 100_000,
        '{"images": [], "annotations": [{"image_id": 1}]}',
        '{"images": [{"id": 1, "file_name": 5}], "annotations": [{"image_id": 1, "caption": "a"}]}',
    ],
    ids=range(6),
)
def test_json_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "captions.json").write_text(content)
    with pytest.raises(ValueError, match="captions.json"):
        tables.read(tmp_path / "captions.json")


def test_null_is_an_empty_caption(tmp_path):
    content = {
        "images": COCO["images"],
        "annotations": [*COCO["annotations"], {"image_id": 7, "caption": None}],
    }
    (tmp_path / "captions.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=f"captions.json: 1 of {len(content['annotations'])} rows"):
        tables.read(tmp_path / "captions.json")


def test_the_table_of_a_folder(tmp_path):
    with pytest.raises(ValueError, match="Received: none"):
        tables.find(tmp_path)
    for name in ("captions.csv", "my_captions.json"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"captions\.csv, my_captions\.json.*table="):
        tables.find(tmp_path)
    assert tables.find(tmp_path, "captions.csv") == tmp_path / "captions.csv"
    with pytest.raises(FileNotFoundError, match="table='other.csv'"):
        tables.find(tmp_path, "other.csv")


def test_pictures_are_found_in_sub_folders_and_missing_ones_named(tmp_path):
    (tmp_path / "Images").mkdir()
    (tmp_path / "Images" / "a.jpg").touch()
    (tmp_path / "b.jpg").touch()
    a, b, c = (tables.Row(name) for name in ("a.jpg", "b", "c.jpg"))  # one without its suffix
    found = [tmp_path / "Images" / "a.jpg", tmp_path / "b.jpg"]
    assert tables.locate(tmp_path, [a, b]) == ([a, b], found)
    with pytest.warns(UserWarning, match=r"1 of the 3 files .* are not in .*, and are left out: c\.jpg"):
        assert tables.locate(tmp_path, [a, c, b]) == ([a, b], found)
    with pytest.raises(FileNotFoundError, match=r"1 of the 1 files .* are not in .*: c\.jpg"):
        tables.locate(tmp_path, [c])


@pytest.mark.parametrize(
    ("files", "rows", "found"),
    [
        (["s1/0.wav", "s1/1.wav"], ["s1/0.wav", "s2/0.wav"], ["s1/0.wav", None]),
        (["s1/0.wav", "s1/1.wav"], ["s1/1.wav", "s2/0.wav"], ["s1/1.wav", None]),
        (["s1/0.wav", "s1/1.wav"], ["s1/1", "s2/0"], ["s1/1.wav", None]),
        (["s1/0.wav", "s2/0.wav", "1.wav"], ["0.wav", "1"], [None, "1.wav"]),  # which of two is not known
        (["wavs/0.wav", "wavs/1.wav"], ["wavs/0.wav", "0", "1"], ["wavs/0.wav", None, "wavs/1.wav"]),
        # from another machine
        (["wavs/0.wav", "wavs/1.wav"], ["/home/a/0.wav", "/home/a/1"], ["wavs/0.wav", "wavs/1.wav"]),
        (["wavs/0.wav", "wavs/1.wav"], ["/a/0.wav", "/b/0.wav", "/a/1.wav"], [None, None, "wavs/1.wav"]),
    ],
)
@pytest.mark.filterwarnings("ignore:.* are left out", "ignore:None of the paths")
def test_no_row_is_given_the_file_of_another(tmp_path, files, rows, found):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    rows = [tables.Row(name) for name in rows]
    there = [(row, tmp_path / name) for row, name in zip(rows, found, strict=True) if name]
    assert tables.locate(tmp_path, rows, "transcripts") == tuple(map(list, zip(*there, strict=True)))


def test_files_that_were_found_by_their_name_alone_are_told(tmp_path):
    for name in ("s1/0.wav", "s1/1.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    rows = [tables.Row(name) for name in ("s2/0.wav", "s2/1.wav")]  # another machine's, or another speaker's
    with pytest.warns(UserWarning, match="None of the paths .* 2 of its 2 files .*: s2/0.wav → s1/0.wav, s2/1"):
        tables.locate(tmp_path, rows, "transcripts")


def test_a_name_without_suffix_means_a_picture_or_a_sound(tmp_path):
    for name in ("a.JPG", "a.jpg.txt", "a.lab", "a.txt", "a.wav", "b.txt"):
        (tmp_path / name).touch()
    a, b = tables.Row("a"), tables.Row("b")
    for of, found in (("captions", "a.JPG"), ("transcripts", "a.wav")):
        with pytest.warns(UserWarning, match="left out: b$"):
            assert tables.locate(tmp_path, [a, b], of) == ([a], [tmp_path / found])


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("Word {i} please.|word {i} please|1.50", "word {i} please"),
        ("the door is open|speaker{i}", "the door is open"),
        ("打开第{i}扇门|spk1|train", "打开第{i}扇门"),
        ("go{i}|0.7", "go{i}"),
    ],
)
def test_text_column_is_found_by_its_content(rest, expected, tmp_path):
    path = tmp_path / "metadata.csv"
    path.write_text("\n".join(f"c{i}.wav|" + rest.format(i=i) for i in range(4)))
    rows = tables.read(path, of="transcripts")
    assert [row.texts for row in rows] == [[expected.format(i=i)] for i in range(4)]


def test_ambiguous_columns_are_refused_and_can_be_named(tmp_path):
    path = tmp_path / "metadata.csv"
    path.write_text("a.wav|yes|anna\nb.wav|no|ben")
    with pytest.raises(ValueError, match="metadata.csv.*1: 'yes'; 2: 'anna'.*text_column="):
        tables.read(path, of="transcripts")
    assert [row.texts for row in tables.read(path, of="transcripts", text_column=1)] == [["yes"], ["no"]]
    with pytest.raises(ValueError, match="text_column=7"):
        tables.read(path, of="transcripts", text_column=7)
    path.write_text("id;said\na.wav;go on; now\n")
    (row,) = tables.read(path, of="transcripts", file_column="id", text_column="said")
    assert (row.file, row.texts) == ("a.wav", ["go on; now"])


def test_texts_and_file_names_are_normalized(tmp_path):
    decomposed = unicodedata.normalize("NFD", "café")
    (tmp_path / "sub").mkdir()
    for name in (f"{decomposed}.jpg", "sub/B.JPG"):
        (tmp_path / name).touch()
    path = tmp_path / "captions.csv"
    lines = ["image,caption", f"café.jpg,don’t {decomposed}", "C:\\sub\\b.jpg,Ｒｅｄ １２"]
    path.write_text("\n".join(lines), encoding="utf-8")
    rows = tables.read(path)
    assert [row.texts for row in rows] == [["don't café"], ["Red 12"]]
    _, paths = tables.locate(tmp_path, rows)
    assert [p.relative_to(tmp_path).as_posix() for p in paths] == [f"{decomposed}.jpg", "sub/B.JPG"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("captions.csv", "image,caption\ra.jpg,a dog\rb.jpg,a cat\r"),
        ("metadata.csv", "a.jpg|a dog\rb.jpg|a cat\r"),
        ("Flickr8k.token.txt", "a.jpg#0\ta dog\rb.jpg#0\ta cat\r"),
        ("metadata.jsonl", '{"file_name": "a.jpg", "text": "a dog"}\n{"file_name": "b.jpg", "text": "a cat"}'),
        (
            "manifest.json",
            '{"audio_filepath": "a.jpg", "text": "a dog"}\n{"audio_filepath": "b.jpg", "text": "a cat"}',
        ),
        (
            "dataset_flickr8k.json",
            '{"images": [{"filename": "a.jpg", "sentences": [{"raw": "a dog"}]}, '
            '{"filename": "b.jpg", "sentences": [{"raw": "a cat"}]}]}',
        ),
    ],
)
def test_more_formats_give_the_same_rows(name, content, tmp_path):
    (tmp_path / name).write_bytes(content.encode())
    assert [(row.file, row.texts) for row in tables.read(tmp_path / name)] == [
        ("a.jpg", ["a dog"]),
        ("b.jpg", ["a cat"]),
    ]


def test_hidden_files_are_no_tables(tmp_path):
    (tmp_path / "captions.csv").write_text("image,caption\na.jpg,a cup\n")
    (tmp_path / "._captions.csv").write_bytes(b"\0\5\26\7")
    assert tables.find(tmp_path).name == "captions.csv"


def test_binary_tables_say_what_to_do(tmp_path):
    (tmp_path / "captions.xlsx").write_bytes(b"PK")
    with pytest.raises(ValueError, match="captions.xlsx.*CSV"):
        tables.read(tmp_path / "captions.xlsx")
