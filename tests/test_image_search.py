"""Image search: the graph, its loss, its data, and the index."""

import io
import shutil
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import mmkeras
from mmkeras import captioning
from mmkeras.applications import ImageSearch, image_search
from mmkeras.evaluation import metrics
from mmkeras.nn import losses
from mmkeras.text.vocabulary import Vocabulary

RNG = np.random.default_rng(0)
SIZES = {"units": 8, "embedding_dim": 8, "image_size": 32}


def new_search(**options):
    words = ("photo", "gray", "照", "片")
    vocabulary = Vocabulary(words, "mixed")
    return ImageSearch(image_search.build("toy", vocabulary=vocabulary, **SIZES | options))


@pytest.fixture
def search():
    return new_search()


@pytest.fixture
def folder(tmp_path):
    """A folder with five images, one of them in a subfolder."""
    (tmp_path / "images" / "more").mkdir(parents=True)
    for i in range(5):
        path = tmp_path / "images" / ("more" if i == 4 else "") / f"{i}.png"
        Image.fromarray(RNG.integers(0, 256, (40, 50, 3), np.uint8)).save(path)
    return tmp_path / "images"


# --- the loss ---


def test_the_loss_equals_its_formula_and_equal_meanings_are_no_negatives():
    logits = RNG.normal(size=(4, 2, 4)).astype("float32")
    ids = np.array([2**40, 7, 2**40 + 1, 7])
    loss = float(losses.SymmetricContrastive()(ids, logits))
    log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))  # (B, 2, N)
    expected = 0
    for i in range(4):
        positives = ids == ids[i]
        expected -= log_probs[i][:, positives].mean() / 4
    assert loss == pytest.approx(expected, rel=1e-5)


def test_a_batch_of_one_meaning_has_no_negatives_to_push_apart():
    logits = tf.Variable(np.zeros((3, 2, 3), "float32"))
    with tf.GradientTape() as tape:
        loss = losses.SymmetricContrastive()(np.array([5, 5, 5]), logits)
    assert np.abs(tape.gradient(loss, logits)).max() < 1e-7
    with tf.GradientTape() as tape:
        loss = losses.SymmetricContrastive()(np.array([5, 6, 7]), logits)
    assert np.abs(tape.gradient(loss, logits)).max() > 0.05


def test_vectors_have_length_one_and_the_temperature_is_clipped(search):
    images, texts = RNG.integers(0, 256, (3, 32, 32, 3), np.uint8), ["photo", "gray photo", "照片"]
    for vectors in (search.encode_images(images), search.encode_texts(texts)):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    layer = search.model.get_layer("logits")
    layer.log_scale.assign(20.0)
    inputs = {"image": images, "tokens": search.vocabulary.encode_batch(texts)}
    logits = search.model.predict_on_batch(inputs)
    expected = 100 * search.encode_images(images) @ search.encode_texts(texts).T
    np.testing.assert_allclose(logits[:, 0], expected, rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(logits[:, 1], expected.T, rtol=1e-3, atol=1e-2)


def test_retrieval_equals_a_count_by_hand():
    similarity = np.array([[0.9, 0.5, 0.1], [0.2, 0.8, 0.9], [0.5, 0.5, 0.5]])
    relevant = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0]], bool)
    scores = metrics.retrieval(similarity, relevant)
    assert scores["recall_at_1"] == pytest.approx(1 / 3) and scores["recall_at_5"] == 1
    assert scores["mrr"] == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)  # equal similarities count as worse


# --- words of both languages ---


def test_mixed_tokens_are_words_and_chinese_characters():
    vocabulary = Vocabulary.count(["a red star", "红色星形", "红色 star"], "mixed")
    assert vocabulary.split("A red star!") == ["a", "red", "star"]
    assert vocabulary.split("红色star形") == ["红", "色", "star", "形"]
    assert vocabulary.language == "both"
    for text in ("a red star", "红色星形", "红 star, 色"):
        np.testing.assert_array_equal(vocabulary.encode_tensor(tf.constant([text]))[0], vocabulary.encode(text))


def test_data_have_the_captions_of_both_languages_and_an_id_of_them(small_toy_images):
    data = image_search.data("toy", data_dir=small_toy_images, batch_size=16)
    inputs, meaning = next(iter(data.train))
    assert inputs["image"].shape == (16, 64, 64, 3) and inputs["tokens"].shape == (16, data.max_length)
    assert meaning.dtype == tf.int64 and data.vocabulary.language == "both"
    batch = next(iter(data.test))
    captions = [[text.decode() for text in row if text] for row in batch["captions"].numpy()]
    assert all(len(row) == 10 for row in captions)
    meanings = batch["meaning"].numpy()
    for one, other in ((0, 1), (2, 5)):
        assert (captions[one] == captions[other]) == (meanings[one] == meanings[other])
    english = image_search.data("toy", language="en", data_dir=small_toy_images)
    assert english.vocabulary.language == "en"


def test_several_sources_share_training_and_keep_their_tests(small_toy_images, photos):
    data = image_search.data(["toy", photos], data_dir=small_toy_images, test_share=0.25)
    counts = {name: split.count for name, split in data.splits.items()}
    of_toy, of_photos = (
        {name: split.count for name, split in image_search.data(source, **options).splits.items()}
        for source, options in (("toy", {"data_dir": small_toy_images}), (photos, {"test_share": 0.25}))
    )
    assert counts["train"] == of_toy["train"] + of_photos["train"]
    assert counts["test"] == of_toy["test"] and counts[f"test_{photos}"] == of_photos["test"]
    inputs, _ = next(iter(data.train_from(0).unbatch().batch(counts["train"])))
    assert inputs["image"].shape == (counts["train"], 64, 64, 3)
    assert {"number", "star"} < set(data.vocabulary.words)
    with pytest.raises(ValueError, match="nothing=1"):
        image_search.data(["toy", photos], nothing=1)


@pytest.mark.quality
def test_beside_others_the_toy_world_is_not_augmented(small_toy_images, photos):
    def images(source, **options):
        data = image_search.data(source, data_dir=small_toy_images, **options)
        return {image.tobytes() for inputs, _ in data.train for image in inputs["image"].numpy()}

    mixed = images(["toy", photos], augment=True, test_share=0.25)
    assert images("toy") < mixed
    assert not images(["toy", photos], test_share=0.25) - images("toy") & mixed
    assert not images("toy") & images("toy", augment=True)


@pytest.fixture(scope="module")
def small_toy_images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    with pytest.MonkeyPatch.context() as patch:
        counts = {"train": 64, "validation": 16, "test": 16, "test_unseen": 16}
        patch.setattr(mmkeras.toy.builders, "EXAMPLES", counts)
        mmkeras.toy.builders.toy_images(data_dir=folder)
    return folder


@pytest.mark.quality
def test_a_model_is_trained_by_name_learns_and_is_saved(small_toy_images, tmp_path):
    search, data = mmkeras.training.train_task(
        "image_search", data_dir=str(small_toy_images), batch_size=32, epochs=1, verbose=0
    )
    losses = search.model.fit(data.train, epochs=10, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    scores = search.evaluate(data.test)
    assert scores.keys() >= {"recall_at_1", "mrr", "image_to_text_recall_at_10"}
    search.save(tmp_path / "search.keras")
    loaded = mmkeras.load(tmp_path / "search.keras")
    assert loaded.evaluate(data.test) == pytest.approx(scores)


@pytest.mark.slow
def test_frozen_features_are_cached(small_toy_images):
    data = image_search.data("toy", data_dir=small_toy_images, batch_size=16)
    model = image_search.build("toy", vocabulary=data.vocabulary, fine_tune=False, weights="captioning")
    features = image_search.with_features(data, model)
    inputs, meaning = next(iter(features.train))
    assert inputs["image"].shape == (16, 8, 8, 128) and meaning.shape == (16,)
    model.fit(features.train.take(1), verbose=0)


def test_the_network_of_the_images_is_an_encoder_of_captioning(search):
    network = search.image_network
    model = captioning.build(
        "toy", vocabulary=["a"], encoder=network, image_size=32, fine_tune=False, units=8, embedding_dim=8
    )
    images = RNG.integers(0, 256, (2, 32, 32, 3), np.uint8)
    grid = model.get_layer("encoder").get_layer("grid").network
    np.testing.assert_allclose(grid.predict_on_batch(images)[:, 0], network.predict_on_batch(images), atol=1e-5)


# --- the index ---


def test_an_image_finds_itself_and_a_list_gives_a_list(search, folder):
    assert search.index(folder) == len(search) == 5
    path = str(folder / "more" / "4.png")
    (best, score), *others = search.search(path, k=3)
    assert best == path and score == pytest.approx(1, abs=1e-5) and len(others) == 2
    text, image = search(["gray photo", path], k=2)
    for answer, query in ((text, "gray photo"), (image, path)):
        assert [name for name, _ in answer] == [name for name, _ in search.search(query, k=2)]
    assert len(search.search(np.asarray(Image.open(path)), k=99)) == 5  # no more than there are


def test_only_what_is_new_or_changed_is_encoded(search, folder):
    search.index(folder)
    assert search.index(folder) == 0
    Image.fromarray(RNG.integers(0, 256, (60, 60, 3), np.uint8)).save(folder / "0.png")
    shutil.copy(folder / "1.png", folder / "new.png")
    (folder / "2.png").unlink()
    assert search.index(folder) == 2
    assert sorted(search.paths) == sorted(map(str, folder.rglob("*.png")))
    np.testing.assert_allclose(search._vectors, new_index(search.model, search.paths)._vectors, atol=1e-5)


def new_index(model, paths):
    other = ImageSearch(model)
    other.index(paths)
    return other


def test_images_are_added_and_removed(search, folder):
    search.index([folder / "0.png", folder / "1.png"])
    assert search.add(folder / "2.png") == 1 and len(search) == 3
    search.remove(folder / "1.png")
    assert search.paths == [str(folder / "0.png"), str(folder / "2.png")]
    with pytest.raises(ValueError, match=r"paths=.*1\.png"):
        search.remove([folder / "1.png"])


def test_model_and_index_are_one_file(search, folder, tmp_path):
    search.index(folder)
    search.save(tmp_path / "search.keras")
    loaded = mmkeras.load(tmp_path / "search.keras")
    (paths, scores), expected = zip(*loaded.search("gray photo"), strict=True), search.search("gray photo")
    assert list(paths) == [path for path, _ in expected]
    np.testing.assert_allclose(scores, [score for _, score in expected], atol=1e-5)
    assert loaded.index(folder) == 0


def test_an_index_of_other_weights_is_refused(search, folder):
    search.index(folder)
    weight = search.image_encoder.trainable_weights[-1]
    weight.assign(weight + 1)
    with pytest.raises(ValueError, match="made with other weights"):
        search.search("photo")
    assert search.index(folder) == 5  # encodes all again


def test_broken_and_vanished_files_are_left_out_and_named(search, folder):
    (folder / "broken.png").write_text("no image")
    with pytest.warns(UserWarning, match="1 of 6 images .*broken.png.*left out"):
        assert search.index(folder) == 5
    (folder / "3.png").unlink()
    with pytest.warns(UserWarning, match=r"1 of 5 indexed images .*3\.png"):
        results = search.search("photo", k=10)
    assert len(results) == 4 and str(folder / "3.png") not in dict(results)


def test_bad_queries_and_folders_are_refused(search, folder, tmp_path):
    with pytest.raises(ValueError, match="index.*empty"):
        search.search("photo")
    (tmp_path / "empty").mkdir()
    for source, error, message in (
        (tmp_path / "empty", ValueError, "source=.*empty"),
        (tmp_path / "nowhere", FileNotFoundError, "nowhere"),
    ):
        with pytest.raises(error, match=message):
            search.index(source)
    search.index(folder)
    for query, k, message in (("zebra", 5, "query='zebra'"), ("photo", 0, "k=0"), ("gone.png", 1, "gone.png")):
        with pytest.raises((ValueError, OSError), match=message):
            search.search(query, k=k)
    assert len(search) == 5


def test_other_models_are_refused():
    with pytest.raises(ValueError, match="model='x'"):
        ImageSearch(keras.Sequential([keras.Input((2,))], name="x"))


# --- the ready-trained model ---


def test_photographs_are_found_and_noise_is_noted(tmp_path):
    from skimage import data

    for name in ("astronaut", "coffee", "rocket"):
        Image.fromarray(getattr(data, name)()).save(tmp_path / f"{name}.png")
    search = mmkeras.pretrained("image_search")
    with warnings.catch_warnings(action="error", category=UserWarning):
        search.index(tmp_path)  # without a warning, though they are unlike training
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    with pytest.warns(UserWarning, match="Unlike any training image"):
        search.index(tmp_path)
    assert {path for path, _ in search.search("a rocket")} == set(map(str, tmp_path.glob("*.png")))


@pytest.mark.parametrize("query", ["a large red star at the top left", "左上角有一个大的红色星形"])
def test_a_toy_scene_is_found_in_both_languages(query, tmp_path):
    search = mmkeras.pretrained("image_search")
    truth = mmkeras.toy.scene.parse(query)
    images = [mmkeras.toy.render.draw("test_unseen", i) for i in range(40)]
    wanted = mmkeras.toy.render.render(truth, rng=np.random.default_rng(0))
    similarity = search.encode_texts([query]) @ search.encode_images([*images, wanted]).T
    assert similarity.argmax() == 40


@pytest.mark.parametrize("query", ["pizza", "比萨"])
def test_an_emoji_is_found_in_both_languages(query):
    from mmkeras.data import emoji
    from mmkeras.media import artists

    search = mmkeras.pretrained("image_search")
    texts = ["🍎", "🐱", "🎄", "🚗", "🍕", "🌙", "🎸", "🌵", "🦋", "⚽"]
    artist = artists.find({}, 128)[0]
    drawings = emoji.draw_all(artist, [emoji.Emoji(text, {}) for text in texts], 64)
    images = [np.asarray(Image.open(io.BytesIO(drawings[i]))) for i in range(len(texts))]
    similarity = search.encode_texts([query]) @ search.encode_images(images).T
    assert texts[similarity.argmax()] == "🍕"
