"""Captioning's pipelines: the toy world, COCO through TFDS, and a user's own folder."""

import os

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

import mmkeras
from mmkeras.captioning import build
from mmkeras.captioning import data as captioning_data
from mmkeras.data.vocabulary import END, PAD, START, Vocabulary
from mmkeras.toy import scene

TINY = {"image_size": 64, "units": 8, "embedding_dim": 8}


def texts(dataset, vocabulary):
    """The target captions of a dataset for fit, in order."""
    return [vocabulary.decode(row) for _, targets in dataset for row in targets.numpy()]


def test_toy_batches_have_the_promised_shapes(toy_data):
    inputs, targets = next(iter(toy_data.train))
    assert inputs["image"].shape == (32, 64, 64, 3) and inputs["image"].dtype == tf.uint8
    assert inputs["tokens"].shape == targets.shape == (32, toy_data.max_length - 1)
    tokens, targets = inputs["tokens"].numpy(), targets.numpy()
    assert (tokens[:, 0] == START).all() and (targets == END).sum(axis=1).max() == 1
    np.testing.assert_array_equal(
        tokens[:, 1:],
        np.where(targets == END, PAD, targets)[:, :-1] + ((targets == END)[:, :-1] * END),
    )
    assert toy_data.train.cardinality() == 1600 // 32
    refs = next(iter(toy_data.test))["captions"].numpy()
    assert refs.shape == (32, 5)


def test_targets_tell_of_the_picture_beside_them(toy_data):
    inputs, targets = next(iter(toy_data.train))
    for picture, row in zip(inputs["image"].numpy()[:8], targets.numpy(), strict=False):
        thing = scene.parse(toy_data.vocabulary.decode(row)).things[0]
        from mmkeras.toy.render import CENTERS, RGB

        distance = np.abs(picture.astype(float) - RGB[thing.color]).sum(axis=-1)
        y, x = np.argwhere(distance < 75).mean(axis=0) / 64
        row_number, column = divmod(scene.PLACES.index(thing.place), 3)
        assert abs(x - CENTERS[column]) < 0.12 and abs(y - CENTERS[row_number]) < 0.12


def test_each_epoch_takes_another_caption_and_each_run_the_same(toy_data):
    runs = []
    for _ in range(2):
        data = captioning_data("toy")
        epochs = [texts(data.train.take(4), data.vocabulary) for _ in range(2)]
        assert epochs[0] != epochs[1]
        runs.append(epochs)
    assert runs[0] == runs[1]
    fixed = [texts(toy_data.validation, toy_data.vocabulary) for _ in range(2)]
    assert fixed[0] == fixed[1]


def test_chinese_is_characters():
    data = captioning_data("toy", language="zh")
    assert data.vocabulary.unit == "character"
    said = texts(data.train.take(1), data.vocabulary)
    assert all(scene.parse(text, "zh") for text in said)


def test_two_things_and_another_size():
    from mmkeras.toy import builders

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builders, "EXAMPLES", dict.fromkeys(builders.EXAMPLES, 40))
        data = captioning_data("toy", image_size=80, objects=2)
        inputs, _ = next(iter(data.train))
        assert inputs["image"].shape[1:] == (80, 80, 3)
        assert all(scene.parse(t).relation for t in texts(data.train, data.vocabulary))


def test_coco_gives_five_references_a_picture():
    with tfds.testing.mock_data(num_examples=12):
        data = captioning_data("coco_captions", image_size=64, batch_size=4, min_count=1)
        inputs, targets = next(iter(data.train))
        assert inputs["image"].shape == (4, 64, 64, 3)
        assert inputs["tokens"].shape == targets.shape
        batch = next(iter(data.test))
        assert batch["image"].shape == (4, 64, 64, 3)
        assert batch["captions"].shape[0] == 4


def test_a_folder_of_photos(photos):
    data = captioning_data(photos, image_size=64, batch_size=4, validation_share=0, test_share=0)
    assert data.validation is None and data.test is None
    assert {"picture", "number", "this", "is", "0", "7"} <= set(data.vocabulary.words)
    said = texts(data.train, data.vocabulary)
    assert sorted(text[-1] for text in said) == list("01234567")


def test_a_folder_is_divided_as_its_table_says(photos):
    rows = ["image,caption,split"]
    rows += [f"{i}.jpg,number {i},{s}" for i, s in enumerate(["train"] * 6 + ["validation", "test"])]
    (photos / "captions.csv").write_text("\n".join(rows))
    data = captioning_data(photos, image_size=64)
    assert sorted(t[-1] for t in texts(data.train, data.vocabulary)) == list("012345")
    assert [r.tolist() for r in next(iter(data.test))["captions"].numpy()] == [[b"number 7"]]


def test_pictures_of_every_kind_train_beside_each_other(photos):
    for i, mode in enumerate(("L", "RGBA", "P", "CMYK", "I;16")):
        path = photos / f"{i}.jpg"
        image = Image.open(path).convert("RGB" if mode in ("P", "I;16") else mode)
        if mode == "P":
            image = image.quantize()
        if mode == "I;16":
            image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
        path.unlink()
        image.save(path, format="TIFF")
    data = captioning_data(photos, image_size=64, batch_size=8, validation_share=0, test_share=0)
    inputs, _ = next(iter(data.train))
    assert inputs["image"].shape == (8, 64, 64, 3)


def test_min_count_and_max_size_bound_the_vocabulary(photos):
    data = captioning_data(photos, min_count=3, image_size=64, validation_share=0, test_share=0)
    assert set(data.vocabulary.words[4:]) == {"number", "picture", "this", "is"}
    data = captioning_data(photos, max_size=6, image_size=64, validation_share=0, test_share=0)
    assert len(data.vocabulary) == 6


def test_a_given_vocabulary_and_length_are_kept(photos):
    vocabulary = Vocabulary(["number"])
    data = captioning_data(photos, vocabulary=vocabulary, max_length=5, image_size=64, test_share=0)
    inputs, _ = next(iter(data.train))
    assert data.vocabulary is vocabulary and inputs["tokens"].shape[1] == 4


# --- features ---


@pytest.fixture
def frozen(photos):
    def make():
        data = captioning_data(photos, image_size=64, batch_size=4, validation_share=0, test_share=0)
        return data, build("document", vocabulary=data.vocabulary, weights=None, **TINY)

    return make


@pytest.fixture
def own_cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("own-cache")
    monkeypatch.setenv("MMKERAS_CACHE", str(folder))
    return folder


def features(data):
    return np.concatenate([inputs["image"].numpy() for inputs, _ in data.train])


def test_features_are_what_the_encoder_sees(frozen, own_cache):
    data, model = frozen()
    with_features = mmkeras.captioning.with_features(data, model)
    grid = model.get_layer("encoder").get_layer("grid")
    by_caption = {}
    for inputs, targets in data.train:
        for picture, row in zip(grid(tf.cast(inputs["image"], tf.float32)), targets, strict=True):
            by_caption[data.vocabulary.decode(row)[-1]] = picture
    for inputs, targets in with_features.train:
        assert inputs["image"].dtype == tf.float16
        for found, row in zip(inputs["image"], targets, strict=True):
            true = by_caption[data.vocabulary.decode(row)[-1]]
            np.testing.assert_allclose(found, true, rtol=2e-3, atol=1e-3)
    model.fit(with_features.train, epochs=1, verbose=0)


def test_features_are_reused_and_rebuilt_when_a_picture_changes(frozen, own_cache, photos, capsys):
    data, model = frozen()
    features(mmkeras.captioning.with_features(data, model))
    assert "Features of" in capsys.readouterr().out
    before = features(mmkeras.captioning.with_features(data, model))
    assert "Features of" not in capsys.readouterr().out
    Image.new("RGB", (40, 50), "red").save(photos / "3.jpg")
    os.utime(photos / "3.jpg", (1, 1))
    data = captioning_data(photos, image_size=64, batch_size=4, validation_share=0, test_share=0)
    after = features(mmkeras.captioning.with_features(data, model))
    assert "Features of" in capsys.readouterr().out
    assert np.abs(np.sort(before, axis=0) - np.sort(after, axis=0)).max() > 0
    assert len(list(own_cache.iterdir())) == 1


def test_other_weights_get_other_features(frozen, own_cache):
    data, model = frozen()
    _, other = frozen()
    a, b = (
        features(mmkeras.captioning.with_features(data, model)),
        features(mmkeras.captioning.with_features(data, other)),
    )
    assert np.abs(a - b).max() > 0 and len(list(own_cache.iterdir())) == 2


def test_an_encoder_that_learns_keeps_its_pictures(toy_data):
    model = build("toy", vocabulary=toy_data.vocabulary)
    assert mmkeras.captioning.with_features(toy_data, model) is toy_data


def test_features_of_another_size_are_refused(frozen):
    data, _ = frozen()
    model = build("document", weights=None, vocabulary=data.vocabulary, **{**TINY, "image_size": 96})
    with pytest.raises(ValueError, match="image_size=96"):
        mmkeras.captioning.with_features(data, model)


# --- bad input ---


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (
            {"source": "imagenet"},
            ValueError,
            "'toy', 'coco_captions', .*or a folder.*source='imagenet'",
        ),
        ({"source": "nowhere/photos"}, ValueError, "source='nowhere/photos'"),
        ({"language": "fr"}, ValueError, "language='fr'"),
        ({"batch_size": 0}, ValueError, "batch_size=0"),
        ({"objects": 3}, ValueError, "objects"),
        ({"table": "a.csv"}, TypeError, "table"),
        ({"source": "coco_captions", "language": "zh"}, ValueError, "English"),
    ],
)
def test_bad_arguments_are_named(arguments, kind, message):
    with pytest.raises(kind, match=message):
        mmkeras.captioning.data(**arguments)


def test_a_broken_picture_is_named_before_training(photos):
    whole = (photos / "5.jpg").read_bytes()
    for damage in (whole[: len(whole) // 2], b"not a picture"):
        (photos / "5.jpg").write_bytes(damage)
        with pytest.warns(UserWarning, match=r"5\.jpg.*left out \(1 so far\)"):
            data = captioning_data(photos, validation_share=0, test_share=0)
        assert data.splits["train"].count == 7
    (photos / "5.jpg").unlink()
    with pytest.warns(UserWarning, match=r"1 of the 8 files.* are left out: 5\.jpg"):
        captioning_data(photos)


def test_shares_that_leave_nothing_are_refused(photos):
    with pytest.raises(ValueError, match="validation_share"):
        captioning_data(photos, validation_share=0.5, test_share=0.5)
