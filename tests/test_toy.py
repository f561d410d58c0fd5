"""The toy world: scenes, their captions and images, and the dataset."""

import errno
import hashlib
import itertools
import multiprocessing
import os

import numpy as np
import pytest

from mmkeras.toy import builders, render, scene
from mmkeras.toy.scene import Scene, Thing

ALL_THINGS = itertools.product(scene.SIZES, scene.COLORS, scene.SHAPES, scene.PLACES)
SINGLE_OBJECT_SCENES = [Scene((Thing(*attributes),)) for attributes in ALL_THINGS]


def draw(split, index, objects=1, size=64):
    rng = scene.generator(split, index, "picture", objects)
    return render.render(scene.sample(split, index, objects), size, rng=rng)


def image_digest(indices):
    return hashlib.sha256(b"".join(draw("train", i).tobytes() for i in indices)).hexdigest()


@pytest.mark.parametrize("language", scene.LANGUAGES)
def test_captions_parse_to_their_scene(language):
    for expected in SINGLE_OBJECT_SCENES + [scene.sample("train", i, objects=2) for i in range(200)]:
        captions = scene.captions(expected, language)
        assert len(set(captions)) == (5 if expected.relation is None else 6)
        for caption in captions:
            assert scene.parse(caption) == scene.parse(caption, language) == expected


@pytest.mark.parametrize("language", scene.LANGUAGES)
def test_different_scenes_have_different_captions(language):
    captions = [caption for one in SINGLE_OBJECT_SCENES for caption in scene.captions(one, language)]
    assert len(set(captions)) == len(captions)


def test_position_varies_within_a_place():
    """A pixel loss blurs over this variation. Without it the adversarial model would have no advantage."""
    assert render.JITTER >= 0.04


@pytest.mark.parametrize(
    ("text", "is_valid"),
    [
        ("A small  red circle at the top left.", True),
        ("左上角有一个小的红色圆形。", True),
        ("左 上 角 有 一 个 小 的 红 色 圆 形", True),
        ("a small red circle at the top left left", False),
        ("a small red circle", False),
        ("a red small circle at the top left", False),
        ("a small pink circle at the top left", False),
        ("", False),
    ],
)
def test_parse_accepts_only_the_grammar(text, is_valid):
    expected = Scene((Thing("small", "red", "circle", "top left"),)) if is_valid else None
    assert scene.parse(text) == expected


def test_inverse_relations_parse_to_the_same_scene():
    left = scene.parse("a small red circle to the left of a large blue square")
    right = scene.parse("there is a large blue square to the right of a small red circle")
    assert left == right == scene.parse("在一个小的红色圆形的右边有一个大的蓝色方形")


def test_only_test_unseen_has_the_unseen_pairs_of_color_and_shape():
    for split in scene.SPLITS:
        things = [t for i in range(400) for t in scene.sample(split, i, objects=2).things]
        unseen = {(t.color, t.shape) in scene.UNSEEN for t in things}
        assert unseen == {split == "test_unseen"}
    assert {color for color, _ in scene.UNSEEN} == set(scene.COLORS)
    assert {shape for _, shape in scene.UNSEEN} == set(scene.SHAPES)


def test_a_version_always_gives_the_same_scenes():
    keys = itertools.product(scene.SPLITS, (0, 1, 4000), (1, 2))
    captions = [scene.captions(scene.sample(*key))[0] for key in keys]
    digest = hashlib.sha256("\n".join(captions).encode()).hexdigest()
    assert captions[0] == "a large orange square at the right"
    assert digest.startswith("4a3433708043d3cf"), "the scenes changed: raise the builders' VERSION"


def test_images_do_not_depend_on_the_process():
    halves = [range(0, 20), range(20, 40)]
    expected = [image_digest(half) for half in halves]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(image_digest, halves) == expected
    assert expected[0] != expected[1]


@pytest.mark.parametrize("size", [16, 64, 97, 224])
def test_an_image_has_the_color_at_the_place(size):
    for i in range(10):
        thing = scene.sample("test", i).things[0]
        image = draw("test", i, size=size)
        assert image.shape == (size, size, 3) and image.dtype == np.uint8
        distance = np.abs(image.astype(float) - render.RGB[thing.color]).sum(axis=-1)
        y, x = np.argwhere(distance < 75).mean(axis=0) / size
        row, column = divmod(scene.PLACES.index(thing.place), 3)
        assert abs(x - render.CENTERS[column]) < 0.12 and abs(y - render.CENTERS[row]) < 0.12


def test_two_things_have_their_relation_and_do_not_touch():
    for i in range(50):
        two = scene.sample("train", i, objects=2)
        (x1, y1), (x2, y2) = render._centers(two, scene.generator("train", i, "picture", 2))
        gap = x2 - x1 if two.relation == "left of" else y2 - y1
        assert gap > 2 * render.RADIUS["large"][1]


def test_edges_are_smooth_and_images_of_one_scene_differ():
    a, b = (render.render(scene.sample("train", 0), 64, rng=np.random.default_rng(seed)) for seed in (1, 2))
    assert np.abs(a.astype(int) - b).mean() > 3
    colors = np.unique(a.reshape(-1, 3) // 16, axis=0)
    assert len(colors) > 8  # without anti-aliasing: the few colors of the background and the shape


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scene.sample("testing", 0), "split='testing'"),
        (lambda: scene.sample("test", 0, objects=3), "objects=3"),
        (lambda: scene.captions(scene.sample("test", 0), "fr"), "language='fr'"),
        (lambda: Scene((Thing("small", "pink", "circle", "top"),)), "color='pink'"),
        (lambda: Scene((Thing("small", "red", "circle", "middle"),)), "place='middle'"),
        (lambda: Scene(()), r"things=\(\)"),
        (lambda: draw("test", 0, size=8), "size=8"),
    ],
)
def test_invalid_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_dataset_has_the_scenes_of_each_split():
    builder = builders.toy_images()
    for split, count in builders.EXAMPLES.items():
        assert builder.info.splits[split].num_examples == count
    for example in builder.as_dataset(split="test").take(5):
        index = int(example["index"])
        expected = scene.sample("test", index)
        np.testing.assert_array_equal(example["image"], draw("test", index))
        captions = [caption.decode() for caption in example["captions"]["zh"].numpy()]
        assert captions == list(scene.captions(expected, "zh"))
        assert scene.COLORS[example["things"]["color"][0]] == expected.things[0].color


def test_two_first_uses_at_once_read_the_data_of_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(builders, "EXAMPLES", {"train": 2})
    others, draw = [], render.draw

    def draw_beside_another_process(*args):
        if not others:
            others.append("another process")  # which is complete before the first use is
            builders.toy_images(16, data_dir=tmp_path)
        return draw(*args)

    monkeypatch.setattr(render, "draw", draw_beside_another_process)
    builder = builders.toy_images(16, data_dir=tmp_path)
    assert others and int(builder.as_dataset(split="train").cardinality()) == 2
    assert [path.name for path in (tmp_path / "toy_images" / "16px").iterdir()] == ["1.0.0"]


def test_a_full_disk_is_one_line_that_says_how_to_choose_another(tmp_path, monkeypatch):
    def draw(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(render, "draw", draw)
    with pytest.raises(OSError, match=f"room for toy_images/16px/1.0.0 in {tmp_path}.*TFDS_DATA_DIR") as raised:
        builders.toy_images(16, data_dir=tmp_path)
    assert "\n" not in str(raised.value)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=f"Received: '{tmp_path}/file/data'.*TFDS_DATA_DIR"):
        builders.toy_images(16, data_dir=tmp_path / "file" / "data")


def test_attributes_are_found_in_any_sentence():
    found, rest = scene.mentions("Stars at the top left, large and purple")
    assert found == {"size": ["large"], "color": ["purple"], "shape": ["star"], "place": ["top left"]}
    assert rest.split() == ["at", "the", ",", "and"]
    assert scene.mentions("上方的方形", "zh")[0] == {"shape": ["square"], "place": ["top"]}
    assert scene.mentions("red blue red")[0] == {"color": ["red", "blue"]}
    assert scene.mentions("starfish") == ({}, "starfish")
    for language in scene.LANGUAGES:
        for index in range(50):
            (thing,) = scene.sample("test", index).things
            for text in scene.captions(scene.sample("test", index), language):
                found, _ = scene.mentions(text, language)
                assert found == {name: [getattr(thing, name)] for name in scene.ATTRIBUTES}
