"""Examples on disk are computed once, and never read if they are incomplete or out of date."""

import errno
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

from mmkeras.data import cache
from mmkeras.data.task_data import Split

ARRAYS = np.random.default_rng(0).normal(size=(6, 2, 2, 3)).astype("float16")
SPEC = {"image": tf.TensorSpec((2, 2, 3), tf.float16), "captions": tf.TensorSpec((None,), tf.string)}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MMKERAS_CACHE", str(tmp_path))
    return tmp_path


def cached(calls=None, facts=None, stop=None, on_read=lambda: None):
    def examples():
        on_read()
        if calls is not None:
            calls.append(1)
        for i, array in enumerate(ARRAYS):
            if stop and i == 3:
                raise stop
            yield {"image": array, "captions": [f"caption {i}"] * (i + 1)}

    split = Split(None, None, 99, {"files": "a"}, 1.0)
    compute = lambda: tf.data.Dataset.from_generator(examples, output_signature=SPEC)  # noqa: E731
    return cache.cached(split, "features", facts or {}, compute, "Features")


def check(split):
    elements = list(split.examples().as_numpy_iterator())
    np.testing.assert_array_equal([e["image"] for e in elements], ARRAYS)
    assert [len(e["captions"]) for e in elements] == [1, 2, 3, 4, 5, 6]
    assert elements[2]["captions"][0] == b"caption 2" and split.count == 6


def test_examples_are_computed_once(capsys):
    calls = []
    for _ in range(3):
        check(cached(calls))
    assert len(calls) == 1 and capsys.readouterr().out.count("Features") == 1


def test_examples_are_computed_again_if_facts_change():
    calls = []
    for facts in ({"size": 1}, {"size": 2}, {"size": 2}):
        check(cached(calls, facts))
    assert len(calls) == 2


def test_an_interrupted_computation_is_not_read(folder):
    with pytest.raises(tf.errors.OpError):
        cached(stop=RuntimeError("stop"))
    assert not list(folder.iterdir())
    check(cached())


@pytest.mark.parametrize("damage", ["truncated", "removed", "no meta", "invalid meta"])
def test_examples_are_computed_again_if_files_are_damaged(folder, damage):
    cached()
    (place,) = folder.iterdir()
    data, meta = place / "data.tfrecord", place / "meta.json"
    if damage == "truncated":
        os.truncate(data, data.stat().st_size // 2)
    elif damage == "removed":
        data.unlink()
    elif damage == "no meta":
        meta.unlink()
    else:
        meta.write_text("{")
    calls = []
    check(cached(calls))
    assert calls


@pytest.mark.parametrize("when", ["before it is renamed", "while it is renamed"])
def test_the_examples_of_a_faster_process_are_used(when, folder, tmp_path_factory, monkeypatch):
    cached()
    (place,) = folder.iterdir()
    faster, rmtree = tmp_path_factory.mktemp("faster") / "copy", shutil.rmtree
    shutil.move(place, faster)

    def write_faster(path=place, **options):
        rmtree(path, **options)
        if path == place:
            shutil.copytree(faster, place)

    if when == "while it is renamed":
        monkeypatch.setattr(cache.shutil, "rmtree", write_faster)
        check(cached())
    else:
        check(cached(on_read=lambda: write_faster(ignore_errors=True)))
    assert os.listdir(folder) == [place.name]
    meta = (place / "meta.json").stat().st_mtime_ns
    assert meta == (faster / "meta.json").stat().st_mtime_ns  # copytree keeps the time


def test_a_full_disk_leaves_no_files(folder):
    with pytest.raises(OSError, match="features.*MMKERAS_CACHE"):
        cached(stop=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert not list(folder.iterdir())
    check(cached())


@pytest.mark.parametrize("home", [None, "read-only"])
def test_an_error_without_a_home_directory_names_the_variable(home, tmp_path, monkeypatch):
    monkeypatch.delenv("MMKERAS_CACHE")
    if home is None:  # as of a container's user whom no password file names
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    else:
        (tmp_path / home).write_text("")  # not even root can write below a file
        monkeypatch.setenv("HOME", str(tmp_path / home))
    with pytest.raises(OSError, match="Received: '.*/mmkeras'.*MMKERAS_CACHE"):
        cached()
    assert not os.path.exists("~")
