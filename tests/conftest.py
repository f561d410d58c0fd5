"""Shared by all tests: nothing leaves the temporary folder, and the toy world is written once."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import pytest
from PIL import Image

import mmkeras


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory):
    """Caches and datasets of the tests: apart from the user's, shared by the tests of one run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMKERAS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("TFDS_DATA_DIR", str(tmp_path_factory.mktemp("datasets")))
        yield


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def toy_data(_own_folders):
    return mmkeras.captioning.data("toy")


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
