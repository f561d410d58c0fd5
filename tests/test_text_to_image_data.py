"""Text to image's pipelines: the toy world, captions made from labels, COCO, and folders."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

import mmkeras
from mmkeras.data import task_data
from mmkeras.text.vocabulary import END, START, Vocabulary
from mmkeras.text_to_image import data as image_data
from mmkeras.text_to_image import labeled
from mmkeras.toy import builders, scene


@pytest.fixture(scope="module")
def toy():
    return image_data("toy")


def test_toy_batches_have_the_documented_shapes(toy):
    inputs, target = next(iter(toy.train))
    assert inputs["tokens"].shape == (16, toy.max_length)
    tokens = inputs["tokens"].numpy()
    assert (tokens[:, 0] == START).all() and ((tokens == END).sum(axis=1) == 1).all()
    assert target.shape == (16, 64, 64, 3) and target.dtype == tf.float32
    assert target.numpy().min() >= 0 and 0.5 < target.numpy().max() <= 1
    assert toy.train.cardinality() == 640 // 16


def test_labels_captions_and_images_describe_the_same_scene(toy):
    batch = next(iter(toy.test))
    for number, captions in enumerate(batch["captions"].numpy()):
        thing = scene.parse(captions[0].decode()).things[0]
        for name, classes in toy.attributes.items():
            assert classes[batch["labels"][name].numpy()[number]] == getattr(thing, name)
    captioning = next(iter(mmkeras.captioning.data("toy").test))
    np.testing.assert_array_equal(batch["image"], captioning["image"][:16])


def test_scenes_of_two_objects_have_labels_of_both(tmp_path, monkeypatch):
    monkeypatch.setattr(builders, "EXAMPLES", dict.fromkeys(builders.EXAMPLES, 40))
    data = image_data("toy", image_size=32, objects=2, data_dir=tmp_path)
    batch = next(iter(data.test))
    assert set(batch["labels"]) == set(data.attributes) > {"color", "color 2", "relation"}
    parsed = scene.parse(batch["captions"].numpy()[0, 0].decode())
    thing = parsed.things[1]
    for name, value in {"color 2": thing.color, "shape 2": thing.shape, "relation": parsed.relation}.items():
        assert data.attributes[name][batch["labels"][name].numpy()[0]] == value
    assert [len(image) for image, _ in labeled(data)] == [16, 16, 8]


@pytest.mark.parametrize(
    ("source", "beginning"),
    [("oxford_flowers102", "a photo of a"), ("mnist", "a handwritten"), ("cifar10", "a picture of a")],
)
def test_captions_are_made_from_labels(source, beginning):
    with tfds.testing.mock_data(num_examples=20):
        data = image_data(source, batch_size=4, image_size=32)
        inputs, target = next(iter(data.train))
        assert inputs["tokens"].shape[0] == 4 and target.shape == (4, 32, 32, 3)
        batch = next(iter(data.test))
    captions = [text.decode() for text in batch["captions"].numpy()[0]]
    name = data.attributes["label"][batch["labels"]["label"].numpy()[0]]
    assert len(set(captions)) == 5 and all(name in text for text in captions)
    assert any(text.startswith(beginning) for text in captions)


def test_coco_has_captions_but_no_labels():
    with tfds.testing.mock_data(num_examples=12):
        data = image_data("coco_captions", batch_size=4, min_count=1)
        inputs, target = next(iter(data.train))
        assert target.shape == (4, 64, 64, 3) and len(inputs["tokens"]) == 4
        assert data.attributes == {} and "labels" not in next(iter(data.test))
        with pytest.raises(ValueError, match="split='train'"):
            labeled(data)


def test_images_are_cropped_to_the_square_in_the_middle(tmp_path):
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:, 40:80] = 255
    for name in ("a", "b"):
        Image.fromarray(wide).save(tmp_path / f"{name}.png")
    (tmp_path / "captions.csv").write_text("image,caption\na.png,white\nb.png,white")
    data = image_data(tmp_path, image_size=32, batch_size=2, validation_share=0, test_share=0)
    _, target = next(iter(data.train))
    np.testing.assert_array_equal(target, 1)


@pytest.mark.parametrize("package", [mmkeras.captioning, mmkeras.text_to_image])
def test_sources_without_a_training_split_need_a_vocabulary(photos, package):
    rows = [f"{i}.jpg,number {i},{'validation' if i == 0 else 'test'}" for i in range(8)]
    (photos / "captions.csv").write_text("\n".join(["image,caption,split", *rows]))
    with pytest.raises(ValueError, match="vocabulary="):
        package.data(photos, image_size=16)
    data = package.data(photos, image_size=16, vocabulary=Vocabulary(["number", *"01234567"]))
    assert data.train is None and data.max_length == 4
    assert len(list(data.validation.unbatch())) == 1 and len(list(data.test.unbatch())) == 7


def test_images_that_exceed_memory_are_resized_once(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("MMKERAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(task_data, "IN_MEMORY_MB", 0.01)
    options = {"image_size": 32, "batch_size": 4, "validation_share": 0, "test_share": 0}
    first = [target.numpy() for _, target in image_data(photos, **options).train]
    assert list((tmp_path / "cache").glob("*-square-32px/data.tfrecord"))
    with monkeypatch.context() as patch:
        patch.setattr(mmkeras.media.images, "read", None)  # not called again
        second = [target.numpy() for _, target in image_data(photos, **options).train]
    np.testing.assert_array_equal(np.concatenate(first), np.concatenate(second))


def test_cached_images_keep_their_labels(tmp_path, monkeypatch):
    monkeypatch.setenv("MMKERAS_CACHE", str(tmp_path))

    def read():
        with tfds.testing.mock_data(num_examples=6):
            images, labels = next(iter(labeled(image_data("cifar10", batch_size=6, image_size=32))))
        order = np.lexsort(images.numpy().reshape(6, -1).T)  # undoes the shuffling
        return images.numpy()[order], labels["label"].numpy()[order]

    in_memory = read()
    monkeypatch.setattr(task_data, "IN_MEMORY_MB", 1e-3)
    cached = read()
    assert list(tmp_path.glob("*-square-32px"))
    for expected, received in zip(in_memory, cached, strict=True):
        np.testing.assert_array_equal(expected, received)


def test_cached_images_of_each_language_have_its_captions(tmp_path, monkeypatch):
    monkeypatch.setenv("MMKERAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(task_data, "IN_MEMORY_MB", 1e-3)
    monkeypatch.setattr(builders, "EXAMPLES", dict.fromkeys(builders.EXAMPLES, 8))
    for language in ("en", "zh"):
        data = image_data("toy", language=language, image_size=16, data_dir=tmp_path)
        ((inputs, _),) = data.train
        assert all(scene.parse(data.vocabulary.decode(row)) for row in inputs["tokens"].numpy())
    assert len(list((tmp_path / "cache").glob("*-square-16px"))) == 4


def test_enlarged_images_are_counted_in_a_warning(photos):
    with pytest.warns(UserWarning, match="8 of 8 .* 64") as caught:
        data = image_data(photos, batch_size=4)
    assert caught[0].filename == __file__
    assert next(iter(data.train))[1].shape == (4, 64, 64, 3)


@pytest.mark.parametrize(
    ("source", "option", "value", "error"),
    [
        ("toy", "image_size", 48, ValueError),
        ("toy", "batch_size", 1, ValueError),
        ("toy", "language", "fr", ValueError),
        ("cifar10", "language", "zh", ValueError),
        ("folder", "max_length", -1, ValueError),
        ("folder", "max_length", 0, ValueError),
        ("folder", "max_length", "long", ValueError),
        ("folder", "vocabulary", 20, TypeError),
    ],
)
def test_invalid_arguments_are_named(source, option, value, error, photos):
    with pytest.raises(error, match=f"{option}={value!r}"):
        image_data(photos if source == "folder" else source, **{"image_size": 32, option: value})


def test_a_single_image_is_refused(photos):
    (photos / "captions.csv").write_text("image,caption\n0.jpg,alone")
    with pytest.raises(ValueError, match="Received: 1 in"):
        image_data(photos, image_size=16, validation_share=0, test_share=0)
