"""Shared fixtures. Caches and datasets are in a temporary folder, and the toy world is written once."""

import atexit
import os
import shutil
import tempfile

# Set before the imports, because TFDS reads its variable when it is imported.
_FOLDER = tempfile.mkdtemp(prefix="mmkeras-tests-")
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)
os.environ["MMKERAS_CACHE"] = os.path.join(_FOLDER, "cache")
os.environ["TFDS_DATA_DIR"] = os.path.join(_FOLDER, "datasets")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as mmkeras, which is imported after Keras here
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads of PyTorch that wait leave the cores to others
import keras
import numpy as np
import pytest
import soundfile
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

import mmkeras
from mmkeras.toy import builders

# Few of the toy world's examples: each test process writes them again.
builders.EXAMPLES.update(train=640, validation=64, test=96, test_unseen=64)


# As they are traced: to optimize a graph takes longer than a few steps of a small model gain from it.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


def pytest_collection_modifyitems(items):
    """Notebooks take minutes each, so they come first: at the end a core would wait for the last one."""
    items.sort(key=lambda item: "notebooks" not in item.keywords)


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


@pytest.fixture
def eager_models(monkeypatch):
    """All models run eagerly: a few steps are faster than their compilation."""
    monkeypatch.setattr(keras.Model, "run_eagerly", property(lambda model: True, lambda model, value: None))


@pytest.fixture(scope="session")
def toy_data():
    return mmkeras.captioning.data("toy")


@pytest.fixture(scope="session")
def small_toy(tmp_path_factory):
    """A folder with few clips of the toy world, for `data_dir`."""
    folder = tmp_path_factory.mktemp("small_toy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builders, "EXAMPLES", {"train": 96, "validation": 16, "test": 16, "test_unseen": 16})
        for language in ("en", "zh"):
            builders.toy_speech(language, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_images(tmp_path_factory):
    """Text to image's data: few images of the toy world, at 16 pixels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builders, "EXAMPLES", {"train": 320, "validation": 32, "test": 48, "test_unseen": 32})
        return mmkeras.text_to_image.data("toy", image_size=16, data_dir=tmp_path_factory.mktemp("tiny_images"))


@pytest.fixture
def photos(tmp_path):
    """A folder of eight small images and a CSV file with two captions for each."""
    rng = np.random.default_rng(0)
    lines = ["image,caption"]
    for i in range(8):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(tmp_path / f"{i}.jpg")
        lines += [f"{i}.jpg,image number {i}", f"{i}.jpg,this is number {i}"]
    (tmp_path / "captions.csv").write_text("\n".join(lines))
    return tmp_path


@pytest.fixture
def mock_speech():
    """Returns a context in which TFDS's speech datasets have 20 random clips and their true feature specs."""

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
def short_clips(tmp_path_factory):
    """A folder of eight clips of about half a second: a model steps through each time step of a clip."""
    folder, rng = tmp_path_factory.mktemp("short_clips"), np.random.default_rng(0)
    for i in range(8):
        soundfile.write(folder / f"{i}.wav", rng.uniform(-0.5, 0.5, 8_000 + 800 * i), 16_000)
    rows = [f"{i}.wav,number {i}" for i in range(8)]
    (folder / "transcripts.csv").write_text("\n".join(["path,transcript", *rows]))
    return folder


@pytest.fixture
def small_data(photos, short_clips):
    """A function that makes new small data for a task."""

    def make(task):
        package, options = (
            mmkeras.tasks.package(task),
            {"batch_size": 4, "validation_share": 0, "test_share": 0},
        )
        if task == "speech_to_text":
            return package.data(short_clips, **options)
        if task == "visual_question_answering":
            rows = [f"{i}.jpg,{question},{i % 2}" for i in range(8) for question in ("how many?", "which one?")]
            (photos / "questions.csv").write_text("\n".join(["image,question,answer", *rows]))
        return package.data(photos, image_size=64 if task == "captioning" else 32, **options)

    return make
