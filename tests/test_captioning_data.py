"""Captioning's pipelines: the toy world, COCO through TFDS, and a folder."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from mmkeras.captioning import build, with_features
from mmkeras.captioning import data as captioning_data
from mmkeras.data import augmentation, image_captions
from mmkeras.data.task_data import Split
from mmkeras.text.vocabulary import END, PAD, START, Vocabulary
from mmkeras.toy import builders, scene
from mmkeras.toy.render import CENTERS, RGB

TINY = {"image_size": 64, "units": 8, "embedding_dim": 8}
FOLDER = {"image_size": 64, "validation_share": 0, "test_share": 0}


def texts(dataset, vocabulary):
    """The target captions of a dataset for fit, in order."""
    return [vocabulary.decode(row) for _, targets in dataset for row in targets.numpy()]


def test_toy_batches_have_the_documented_shapes(toy_data):
    inputs, targets = next(iter(toy_data.train))
    assert inputs["image"].shape == (32, 64, 64, 3) and inputs["image"].dtype == tf.uint8
    assert inputs["tokens"].shape == targets.shape == (32, toy_data.max_length - 1)
    tokens, targets = inputs["tokens"].numpy(), targets.numpy()
    assert (tokens[:, 0] == START).all() and (targets == END).sum(axis=1).max() == 1
    np.testing.assert_array_equal(
        tokens[:, 1:],
        np.where(targets == END, PAD, targets)[:, :-1] + ((targets == END)[:, :-1] * END),
    )
    assert toy_data.train.cardinality() == 640 // 32
    assert next(iter(toy_data.test))["captions"].shape == (32, 5)


def test_targets_describe_their_image(toy_data):
    inputs, targets = next(iter(toy_data.train))
    for image, row in zip(inputs["image"].numpy()[:8], targets.numpy(), strict=False):
        thing = scene.parse(toy_data.vocabulary.decode(row)).things[0]
        distance = np.abs(image.astype(float) - RGB[thing.color]).sum(axis=-1)
        y, x = np.argwhere(distance < 75).mean(axis=0) / 64
        row_number, column = divmod(scene.PLACES.index(thing.place), 3)
        assert abs(x - CENTERS[column]) < 0.12 and abs(y - CENTERS[row_number]) < 0.12


@pytest.mark.slow
def test_epochs_differ_and_runs_do_not(toy_data):
    runs = []
    for _ in range(2):
        data = captioning_data("toy")
        epochs = [texts(data.train.take(4), data.vocabulary) for _ in range(2)]
        assert epochs[0] != epochs[1]
        runs.append(epochs)
    assert runs[0] == runs[1]
    validation = [texts(toy_data.validation, toy_data.vocabulary) for _ in range(2)]
    assert validation[0] == validation[1]


def test_tokens_of_chinese_are_characters():
    data = captioning_data("toy", language="zh")
    assert data.vocabulary.unit == "character"
    assert all(scene.parse(text, "zh") for text in texts(data.train.take(1), data.vocabulary))


def test_scenes_of_two_objects_at_another_size(monkeypatch):
    monkeypatch.setattr(builders, "EXAMPLES", dict.fromkeys(builders.EXAMPLES, 40))
    data = captioning_data("toy", image_size=80, objects=2)
    assert next(iter(data.train))[0]["image"].shape[1:] == (80, 80, 3)
    assert all(scene.parse(text).relation for text in texts(data.train, data.vocabulary))


def test_coco_batches_have_the_documented_shapes():
    with tfds.testing.mock_data(num_examples=12):
        data = captioning_data("coco_captions", image_size=64, batch_size=4, min_count=1)
        inputs, targets = next(iter(data.train))
        batch = next(iter(data.test))
    assert inputs["image"].shape == batch["image"].shape == (4, 64, 64, 3)
    assert inputs["tokens"].shape == targets.shape and batch["captions"].shape[0] == 4


# --- folders ---


def test_a_folder_is_read(photos):
    data = captioning_data(photos, batch_size=4, **FOLDER)
    assert data.validation is None and data.test is None
    assert {"image", "number", "this", "is", "0", "7"} <= set(data.vocabulary.words)
    assert sorted(text[-1] for text in texts(data.train, data.vocabulary)) == list("01234567")


def test_a_column_divides_the_images(photos):
    rows = ["image,caption,split"]
    rows += [f"{i}.jpg,number {i},{s}" for i, s in enumerate(["train"] * 6 + ["validation", "test"])]
    (photos / "captions.csv").write_text("\n".join(rows))
    data = captioning_data(photos, image_size=64)
    assert sorted(text[-1] for text in texts(data.train, data.vocabulary)) == list("012345")
    assert [row.tolist() for row in next(iter(data.test))["captions"].numpy()] == [[b"number 7"]]


def test_images_of_every_mode_share_a_batch(photos):
    for i, mode in enumerate(("L", "RGBA", "P", "CMYK", "I;16")):
        path = photos / f"{i}.jpg"
        image = Image.open(path).convert("RGB" if mode in ("P", "I;16") else mode)
        if mode == "P":
            image = image.quantize()
        if mode == "I;16":
            image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
        path.unlink()
        image.save(path, format="TIFF")
    data = captioning_data(photos, batch_size=8, **FOLDER)
    assert next(iter(data.train))[0]["image"].shape == (8, 64, 64, 3)


def test_options_of_the_vocabulary(photos):
    words = captioning_data(photos, min_count=3, **FOLDER).vocabulary.words
    assert set(words[4:]) == {"number", "image", "this", "is"}
    assert len(captioning_data(photos, max_size=6, **FOLDER).vocabulary) == 6
    vocabulary = Vocabulary(["number"])
    with pytest.warns(UserWarning, match="lacks 11 words.* 16 of 16 texts: 'image' 'is' 'this' '0' "):
        data = captioning_data(photos, vocabulary=vocabulary, max_length=5, **FOLDER)
    assert data.vocabulary is vocabulary and next(iter(data.train))[0]["tokens"].shape[1] == 4


def test_damaged_and_missing_images_are_named(photos):
    content = (photos / "5.jpg").read_bytes()
    for damaged in (content[: len(content) // 2], b"not an image"):
        (photos / "5.jpg").write_bytes(damaged)
        with pytest.warns(UserWarning, match=r"5\.jpg.*\(1 so far\)"):
            data = captioning_data(photos, **FOLDER)
        assert data.splits["train"].count == 7
    (photos / "5.jpg").unlink()
    with pytest.warns(UserWarning, match=r" 1 of 8 .*: 5\.jpg$"):
        captioning_data(photos)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"source": "imagenet"}, ValueError, "'toy', 'emoji', 'coco_captions'.*source='imagenet'"),
        ({"source": "nowhere/photos"}, ValueError, "source='nowhere/photos'"),
        ({"language": "fr"}, ValueError, "language='fr'"),
        ({"batch_size": 0}, ValueError, "batch_size=0"),
        ({"objects": 3}, ValueError, "objects=3"),
        ({"table": "a.csv"}, ValueError, "objects, data_dir.*table='a.csv'"),
        ({"source": "coco_captions", "language": "zh"}, ValueError, "language='zh'"),
    ],
)
def test_invalid_arguments_are_named(arguments, kind, message):
    with pytest.raises(kind, match=message):
        captioning_data(**arguments)


def test_shares_that_leave_nothing_to_train_on_are_refused(photos):
    with pytest.raises(ValueError, match="validation_share=0.5, test_share=0.5"):
        captioning_data(photos, validation_share=0.5, test_share=0.5)


# --- features ---


@pytest.fixture
def frozen(photos):
    def make():
        data = captioning_data(photos, batch_size=4, **FOLDER)
        return data, build("document", vocabulary=data.vocabulary, weights=None, **TINY)

    return make


@pytest.fixture
def own_cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("own-cache")
    monkeypatch.setenv("MMKERAS_CACHE", str(folder))
    return folder


def features(data):
    return np.concatenate([inputs["image"].numpy() for inputs, _ in data.train])


def test_features_equal_the_encoder_output(frozen, own_cache, eager_models):
    data, model = frozen()
    featured = with_features(data, model)
    grid = model.get_layer("encoder").get_layer("grid")
    expected = {}
    for inputs, targets in data.train:
        for values, row in zip(grid(tf.cast(inputs["image"], tf.float32)), targets, strict=True):
            expected[data.vocabulary.decode(row)[-1]] = values
    for inputs, targets in featured.train:
        assert inputs["image"].dtype == tf.float16
        for values, row in zip(inputs["image"], targets, strict=True):
            np.testing.assert_allclose(values, expected[data.vocabulary.decode(row)[-1]], rtol=2e-3, atol=1e-3)
    model.fit(featured.train, epochs=1, verbose=0)


def test_features_are_computed_again_if_an_image_changes(frozen, own_cache, photos, capsys):
    data, model = frozen()
    features(with_features(data, model))
    assert "Features of" in capsys.readouterr().out
    before = features(with_features(data, model))
    assert "Features of" not in capsys.readouterr().out
    Image.new("RGB", (40, 50), "red").save(photos / "3.jpg")
    os.utime(photos / "3.jpg", (1, 1))
    after = features(with_features(captioning_data(photos, batch_size=4, **FOLDER), model))
    assert "Features of" in capsys.readouterr().out
    assert np.abs(np.sort(before, axis=0) - np.sort(after, axis=0)).max() > 0
    assert len(list(own_cache.iterdir())) == 1


@pytest.mark.slow
def test_other_weights_have_other_features(frozen, own_cache):
    data, model = frozen()
    _, other = frozen()
    difference = features(with_features(data, model)) - features(with_features(data, other))
    assert np.abs(difference).max() > 0 and len(list(own_cache.iterdir())) == 2


@pytest.mark.quality
def test_features_of_each_language_have_its_captions(own_cache, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(builders, "EXAMPLES", dict.fromkeys(builders.EXAMPLES, 8))

    def featured(language):
        data = captioning_data("toy", language=language, data_dir=tmp_path)
        keras.utils.clear_session()  # the same names, seed and so weights of the encoder for both languages
        keras.utils.set_random_seed(0)
        model = build("toy", vocabulary=data.vocabulary, fine_tune=False, **TINY)
        return with_features(data, model)

    for language in ("en", "zh", "en"):
        data = featured(language)
        assert all(scene.parse(text) for text in texts(data.train, data.vocabulary))
    assert capsys.readouterr().out.count("Features of toy train") == 2


def test_trainable_encoders_keep_images(toy_data):
    assert with_features(toy_data, build("toy", vocabulary=toy_data.vocabulary)) is toy_data


def test_models_frozen_after_they_are_built_are_refused_before_features_are_computed(frozen, own_cache):
    data, _ = frozen()
    model = build("document", weights=None, vocabulary=data.vocabulary, fine_tune=True, **TINY)
    model.get_layer("encoder").trainable = False
    with pytest.raises(ValueError, match="fine_tune=False.*Received: a model built with fine_tune=True"):
        with_features(data, model)
    assert not list(own_cache.iterdir())
    _, other = frozen()
    other.set_weights(model.get_weights())  # as the message says
    for one, two in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(one, two)


def test_features_of_another_size_are_refused(frozen):
    data, _ = frozen()
    model = build("document", weights=None, vocabulary=data.vocabulary, **{**TINY, "image_size": 96})
    with pytest.raises(ValueError, match="image_size=96"):
        with_features(data, model)


# --- augmentation, further fields ---


def test_augmented_images_move_and_keep_what_they_show():
    image = np.full((64, 32, 32, 3), 255, np.uint8)
    image[:, 12:20, 12:20] = (200, 40, 40)
    moved = augmentation.augmented(tf.constant(image), tf.constant(3, tf.int64)).numpy()
    assert moved.dtype == np.uint8 and moved.shape == image.shape
    assert len({image.tobytes() for image in moved}) == 64
    red = moved[..., 0].astype(int) - moved[..., 1] > 60  # (B, H, W)
    sizes = red.sum(axis=(1, 2))  # 64 pixels before; some images are gray, or covered
    assert np.mean((sizes > 30) & (sizes < 150)) > 0.6
    centers = np.array([np.argwhere(mask).mean(axis=0) for mask in red if mask.sum() > 30])
    assert np.abs(centers.mean(axis=0) - 15.5).max() < 1 < centers.std(axis=0).min()
    again = augmentation.augmented(tf.constant(image), tf.constant(3, tf.int64)).numpy()
    other = augmentation.augmented(tf.constant(image), tf.constant(4, tf.int64)).numpy()
    np.testing.assert_array_equal(moved, again)
    assert not np.array_equal(moved, other)


def test_only_training_images_are_augmented_and_differently_in_each_epoch(photos):
    plain, data = (captioning_data(photos, augment=augment, **FOLDER) for augment in (False, True))
    first, second = ({image.tobytes() for x, _ in data.train for image in x["image"].numpy()} for _ in range(2))
    assert len(first) == 8 and not first & second
    assert not first & {image.tobytes() for x, _ in plain.train for image in x["image"].numpy()}
    model = build("document", vocabulary=data.vocabulary, encoder="vgg_small", **TINY)
    assert with_features(data, model) is data  # features would stay the same


def test_fields_of_a_text_are_drawn_with_it():
    def examples():
        return tf.data.Dataset.range(6).map(
            lambda i: {
                "image": i,
                "captions": tf.constant(["a", "b"]),
                "answer": tf.constant([0, 1]),
                "label": i,
            }
        )

    split = Split(examples, lambda: iter(()), 6, {}, megabytes=1)
    dataset = image_captions.batches(
        split,
        "train",
        to_inputs=lambda batch: batch,
        vocabulary=Vocabulary(("a", "b")),
        max_length=3,
        batch_size=2,
        seed=0,
        with_text=("answer",),
    )(None)
    seen = set()
    for batch in dataset.repeat(8):
        np.testing.assert_array_equal(batch["label"], batch["image"])
        np.testing.assert_array_equal(batch["tokens"][:, 1] - 4, batch["answer"])
        seen |= set(batch["answer"].numpy().tolist())
    assert seen == {0, 1}


# --- datasets of Hugging Face ---


class Rows:
    """The least that counts as a dataset."""

    def __init__(self, rows):
        self.rows, self.column_names = rows, list(rows[0]) if rows else []

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, number):
        return self.rows[number]


def captions_of(photos):
    """The rows of the folder: the path of an image, and a list of its captions."""
    texts = [[f"image number {i}", f"this is number {i}"] for i in range(8)]
    return [{"image": str(photos / f"{i}.jpg"), "captions": texts[i]} for i in range(8)]


def assert_same_batches(data, other):
    assert data.vocabulary == other.vocabulary and data.splits.keys() == other.splits.keys()
    for name in data.splits:
        pairs = zip(getattr(data, name), getattr(other, name), strict=True)
        batches = [(tf.nest.flatten(a), tf.nest.flatten(b)) for a, b in pairs]
        assert batches
        for batch, other_batch in batches:
            for a, b in zip(batch, other_batch, strict=True):
                np.testing.assert_array_equal(a, b)


SHARES = {"image_size": 64, "batch_size": 4, "validation_share": 0.3, "test_share": 0.3}


def test_a_dataset_gives_the_batches_of_its_folder(photos):
    assert len(captioning_data(photos, **SHARES).splits) > 1
    rows = captions_of(photos)
    assert_same_batches(captioning_data(Rows(rows), **SHARES), captioning_data(photos, **SHARES))
    one_by_one = [{"Image": row["image"], "caption": text} for row in rows for text in row["captions"]]
    assert_same_batches(captioning_data(Rows(one_by_one), **SHARES), captioning_data(photos, **SHARES))


@pytest.mark.backends
def test_a_dataset_of_hugging_face_gives_the_batches_of_its_folder(photos, tmp_path_factory):
    hf = pytest.importorskip("datasets")
    rows = captions_of(photos)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    dataset = hf.Dataset.from_dict(columns).cast_column("image", hf.Image())
    assert_same_batches(captioning_data(dataset, **SHARES), captioning_data(photos, **SHARES))
    # images within the dataset, and a dataset for each split
    split = ["train"] * 5 + ["val"] * 2 + ["test"]
    lines = [f"{i}.jpg,{c},{split[i]}" for i in range(8) for c in rows[i]["captions"]]
    (photos / "captions.csv").write_text("\n".join(["image,caption,split", *lines]))
    content = [{"path": None, "bytes": (photos / f"{i}.jpg").read_bytes()} for i in range(8)]
    whole = hf.Dataset.from_dict({"image": content, "captions": columns["captions"]})
    whole = whole.cast_column("image", hf.Image())
    parts = {"train": whole.select(range(5)), "val": whole.select(range(5, 7)), "test": whole.select([7])}
    folder = captioning_data(photos, image_size=64, batch_size=4)
    data = captioning_data(hf.DatasetDict(parts), image_size=64, batch_size=4)
    assert_same_batches(data, folder)
    model = build("toy", vocabulary=data.vocabulary, **TINY)
    assert model.fit(data.train, verbose=0).history["loss"][0] > 0


def test_rows_of_a_dataset_that_cannot_be_read_are_left_out(photos):
    rows = [
        *captions_of(photos),
        {"image": {"bytes": b"no image", "path": "9.jpg"}, "captions": ["image number 9"]},
        {"image": None, "captions": ["image number 10"]},
        {"image": np.zeros((30, 30, 3), np.uint8), "captions": []},
    ]
    with pytest.warns(UserWarning) as warned:
        data = captioning_data(Rows(rows), **FOLDER)
    messages = "\n".join(str(warning.message) for warning in warned)
    assert data.splits["train"].count == 8
    for name in ("row 8", "row 9", "row 10"):
        assert name in messages


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"img": "a.jpg", "caption": "a"}], {}, "column of images, such as 'image'.*columns 'img', 'caption'"),
        ([{"image": "a.jpg", "title": "a"}], {}, "column of texts, such as 'caption'.*'image', 'title'"),
        (
            [{"image": "a.jpg", "caption": "a"}],
            {"text_column": "title"},
            "a column 'title'.*'image', 'caption'",
        ),
        ([{"image": "a.jpg", "caption": 3}], {}, "row 0.*caption to be a text.*3"),
        ([{"image": "a.jpg", "caption": "a"}], {"table": "a.csv"}, "dataset of 1 rows.*table='a.csv'"),
    ],
)
def test_a_dataset_without_the_columns_is_refused(rows, options, message):
    with pytest.raises(ValueError, match=message):
        captioning_data(Rows(rows), **options)
    with pytest.raises(ValueError, match="train, restval.*Received: 'dev2'"):
        captioning_data({"dev2": Rows(rows)})
