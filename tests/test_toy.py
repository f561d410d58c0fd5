"""The toy world: scenes, what is said of them, what they look like, and the dataset."""

import hashlib
import itertools
import multiprocessing

import numpy as np
import pytest

from mmkeras.toy import render, scene
from mmkeras.toy.scene import Scene, Thing


def draw(split, index, objects=1, size=64):
    rng = scene.generator(split, index, "picture", objects)
    return render.render(scene.sample(split, index, objects), size, rng=rng)


def picture_digest(indices):
    return hashlib.sha256(b"".join(draw("train", i).tobytes() for i in indices)).hexdigest()


@pytest.mark.parametrize("language", scene.LANGUAGES)
def test_every_phrasing_of_every_scene_parses_back(language):
    one = [
        Scene((Thing(*parts),))
        for parts in itertools.product(scene.SIZES, scene.COLORS, scene.SHAPES, scene.PLACES)
    ]
    two = [scene.sample("train", i, objects=2) for i in range(200)]
    for seen in one + two:
        said = scene.captions(seen, language)
        assert len(set(said)) == (5 if seen.relation is None else 6)
        for text in said:
            assert scene.parse(text) == scene.parse(text, language) == seen


def test_different_scenes_are_never_said_alike():
    scenes = [
        Scene((Thing(*parts),))
        for parts in itertools.product(scene.SIZES, scene.COLORS, scene.SHAPES, scene.PLACES)
    ]
    for language in scene.LANGUAGES:
        said = [text for seen in scenes for text in scene.captions(seen, language)]
        assert len(set(said)) == len(said)


def test_a_place_leaves_room_to_lie_in():
    """What a pixel loss averages over; without it there would be nothing for the adversarial model to do."""
    assert render.JITTER >= 0.04


@pytest.mark.parametrize(
    ("text", "told"),
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
def test_parse_reads_the_grammar_and_nothing_else(text, told):
    expected = Scene((Thing("small", "red", "circle", "top left"),)) if told else None
    assert scene.parse(text) == expected


def test_a_relation_means_the_same_from_either_side():
    left = scene.parse("a small red circle to the left of a large blue square")
    right = scene.parse("there is a large blue square to the right of a small red circle")
    assert left == right == scene.parse("在一个小的红色圆形的右边有一个大的蓝色方形")


def test_unseen_pairs_are_only_in_test_unseen_and_cover_every_word():
    for split in scene.SPLITS:
        things = [t for i in range(400) for t in scene.sample(split, i, objects=2).things]
        unseen = {(t.color, t.shape) in scene.UNSEEN for t in things}
        assert unseen == {split == "test_unseen"}
    assert {color for color, _ in scene.UNSEEN} == set(scene.COLORS)
    assert {shape for _, shape in scene.UNSEEN} == set(scene.SHAPES)


def test_the_same_version_gives_the_same_scenes():
    said = [
        scene.captions(scene.sample(split, i, n))[0]
        for split in scene.SPLITS
        for i in (0, 1, 4000)
        for n in (1, 2)
    ]
    digest = hashlib.sha256("\n".join(said).encode()).hexdigest()
    assert said[0] == "a large orange square at the right"
    assert digest.startswith("4a3433708043d3cf"), "the scenes changed: raise the builders' VERSION"


def test_the_same_pictures_whatever_the_number_of_processes():
    halves = [range(0, 20), range(20, 40)]
    here = [picture_digest(half) for half in halves]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        there = pool.map(picture_digest, halves)
    assert here == there
    assert here[0] != here[1]


@pytest.mark.parametrize("size", [16, 64, 97, 224])
def test_a_picture_shows_the_right_colour_at_the_right_place(size):
    for i in range(10):
        thing = scene.sample("test", i).things[0]
        picture = draw("test", i, size=size)
        assert picture.shape == (size, size, 3) and picture.dtype == np.uint8
        distance = np.abs(picture.astype(float) - render.RGB[thing.color]).sum(axis=-1)
        y, x = np.argwhere(distance < 75).mean(axis=0) / size
        row, column = divmod(scene.PLACES.index(thing.place), 3)
        assert abs(x - render.CENTERS[column]) < 0.12 and abs(y - render.CENTERS[row]) < 0.12


def test_two_things_stand_in_the_said_relation_and_do_not_touch():
    for i in range(50):
        seen = scene.sample("train", i, objects=2)
        (x1, y1), (x2, y2) = render._centers(seen, scene.generator("train", i, "picture", 2))
        gap = x2 - x1 if seen.relation == "left of" else y2 - y1
        assert gap > 2 * render.RADIUS["large"][1]


def test_edges_are_smooth_and_pictures_of_one_scene_differ():
    seen = scene.sample("train", 0)
    a, b = (render.render(seen, 64, rng=np.random.default_rng(seed)) for seed in (1, 2))
    assert np.abs(a.astype(int) - b).mean() > 3
    blends = len(np.unique(a.reshape(-1, 3) // 16, axis=0))
    assert blends > 8  # a picture without anti-aliasing has a background's and a shape's few tones


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: scene.sample("testing", 0), "split"),
        (lambda: scene.sample("test", 0, objects=3), "objects"),
        (lambda: scene.captions(scene.sample("test", 0), "fr"), "language"),
        (
            lambda: Thing("small", "pink", "circle") and Scene((Thing("small", "pink", "circle", "top"),)),
            "color",
        ),
        (lambda: Scene((Thing("small", "red", "circle", "middle"),)), "place"),
        (lambda: Scene(()), "things="),
        (lambda: draw("test", 0, size=8), "size"),
    ],
)
def test_bad_arguments_are_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()


def test_the_dataset_holds_the_scenes_in_every_split():
    from mmkeras.toy import builders

    builder = builders.toy_images()
    for split, count in builders.EXAMPLES.items():
        assert builder.info.splits[split].num_examples == count
    for example in builder.as_dataset(split="test").take(5):
        index = int(example["index"])
        np.testing.assert_array_equal(example["image"], draw("test", index))
        said = [text.decode() for text in example["captions"]["zh"].numpy()]
        assert said == list(scene.captions(scene.sample("test", index), "zh"))
        thing = scene.sample("test", index).things[0]
        assert scene.COLORS[example["things"]["color"][0]] == thing.color
