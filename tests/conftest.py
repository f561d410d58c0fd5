"""Shared by all tests: nothing leaves the temporary folder, and the toy world is written once."""

import atexit
import os
import shutil
import tempfile

# Apart from the user's, shared by the tests of one run; set here, for TFDS reads its variable when imported.
_FOLDER = tempfile.mkdtemp(prefix="mmkeras-tests-")
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)
os.environ["MMKERAS_CACHE"] = os.path.join(_FOLDER, "cache")
os.environ["TFDS_DATA_DIR"] = os.path.join(_FOLDER, "datasets")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

import mmkeras
from mmkeras.toy import builders

# A third of the toy world's pictures: each test process makes them anew.
builders.EXAMPLES.update(train=1600, validation=64, test=96, test_unseen=64)


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _trains_are_traced_once():
    """TensorFlow traces a step of training twice if the optimizer creates its variables in it, for seconds."""
    make = keras.Model.make_train_function

    def make_train_function(model, force=False):
        if model.built and not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        return make(model, force)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "make_train_function", make_train_function)
        yield


@pytest.fixture(scope="session")
def toy_data():
    return mmkeras.captioning.data("toy")


@pytest.fixture(scope="session")
def small_toy(tmp_path_factory):
    """A folder with a small edition of the toy world's speech, for `data_dir`."""
    folder = tmp_path_factory.mktemp("small_toy")
    counts = dict(builders.EXAMPLES)
    builders.EXAMPLES.update(train=96, validation=16, test=16, test_unseen=16)
    try:
        for language in ("en", "zh"):
            builders.toy_speech(language, folder)
    finally:
        builders.EXAMPLES.update(counts)
    return folder


@pytest.fixture(scope="session")
def tiny_pictures(tmp_path_factory):
    """Text to image's data: a small edition of the toy world, 16 pixels a side."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builders, "EXAMPLES", {"train": 320, "validation": 32, "test": 48, "test_unseen": 32})
        return mmkeras.text_to_image.data(
            "toy", image_size=16, data_dir=tmp_path_factory.mktemp("tiny_pictures")
        )


@pytest.fixture
def photos(tmp_path):
    """A folder of eight small pictures with two captions each, in a CSV."""
    rng = np.random.default_rng(0)
    lines = ["image,caption"]
    for i in range(8):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(tmp_path / f"{i}.jpg")
        lines += [f"{i}.jpg,picture number {i}", f"{i}.jpg,this is number {i}"]
    (tmp_path / "captions.csv").write_text("\n".join(lines))
    return tmp_path


@pytest.fixture
def mock_speech():
    """Makes a context with TFDS's own mocks of its speech datasets: true feature specs, 20 clips."""

    def examples(name):
        rng = np.random.default_rng(0)
        field = "audio" if name == "speech_commands" else "speech"
        for i in range(20):
            yield {
                field: rng.integers(-1000, 1000, rng.integers(16_000, 40_000)),
                "text": "HELLO WORLD",
                "text_normalized": "hello, two!",
                "label": i % 12,
                "id": f"clip-{i}",
            }

    def as_dataset(self, split, decoders=None, **kwargs):
        features = self.info.features
        keep = set(decoders.extract_features(features) if decoders else features) - {"speaker_id", "chapter_id"}

        def generate():
            for example in examples(self.name):
                yield {key: value for key, value in example.items() if key in keep}

        spec = {key: value for key, value in features.get_tensor_spec().items() if key in keep}
        dataset = tf.data.Dataset.from_generator(generate, output_signature=spec)
        return dataset.apply(tf.data.experimental.assert_cardinality(20))

    return lambda: tfds.testing.mock_data(num_examples=20, as_dataset_fn=as_dataset)


@pytest.fixture
def small_data(photos, small_toy):
    """Small data for each task, made anew."""

    def make(task):
        package = getattr(mmkeras, task)
        if task == "speech_to_text":
            return package.data("toy", batch_size=48, data_dir=small_toy)
        size = 64 if task == "captioning" else 32
        return package.data(photos, image_size=size, batch_size=4, validation_share=0, test_share=0)

    return make
