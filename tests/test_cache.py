"""Features on disk: computed once, never read when they are not whole or not true any more."""

import errno
import multiprocessing
import os
import shutil
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest

from mmkeras import cache

ARRAYS = np.random.default_rng(0).normal(size=(6, 2, 2, 3)).astype("float16")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MMKERAS_CACHE", str(tmp_path))
    return tmp_path


def cached(calls=None, facts=None, stop_at=None, name="features"):
    def compute():
        if calls is not None:
            calls.append(1)
        for i, array in enumerate(ARRAYS):
            if i == stop_at:
                raise KeyboardInterrupt
            yield array, [f"caption {i}".encode()] * (i + 1)

    return cache.cached(name, facts or {}, compute, element_shape=(2, 2, 3), count=len(ARRAYS))


def read(dataset):
    elements = list(dataset.as_numpy_iterator())
    np.testing.assert_array_equal([e["image"] for e in elements], ARRAYS)
    assert [len(e["captions"]) for e in elements] == [1, 2, 3, 4, 5, 6]
    assert elements[2]["captions"][0] == b"caption 2"


def test_it_is_computed_once():
    calls = []
    for _ in range(3):
        read(cached(calls))
    assert len(calls) == 1


def test_changed_facts_are_noticed():
    calls = []
    read(cached(calls, {"files": "a"}))
    read(cached(calls, {"files": "b"}))
    read(cached(calls, {"files": "b"}))
    assert len(calls) == 2


def test_an_interrupted_one_is_not_read(folder):
    with pytest.raises(KeyboardInterrupt):
        cached(stop_at=3)
    assert not list(folder.iterdir())
    read(cached())


@pytest.mark.parametrize("damage", ["cut", "removed", "no meta", "bad meta"])
def test_damage_is_noticed(folder, damage):
    cached()
    data, meta = folder / "features" / "data.tfrecord", folder / "features" / "meta.json"
    if damage == "cut":
        os.truncate(data, data.stat().st_size // 2)
    elif damage == "removed":
        data.unlink()
    elif damage == "no meta":
        meta.unlink()
    else:
        meta.write_text("{")
    calls = []
    read(cached(calls))
    assert calls


def _write_slowly():
    def compute():
        for array in ARRAYS:
            yield array, []
            time.sleep(60)

    cache.cached("features", {}, compute, element_shape=(2, 2, 3), count=6)


def test_what_a_killed_run_left_is_removed(folder):
    process = multiprocessing.get_context("spawn").Process(target=_write_slowly)
    process.start()
    while not list(folder.glob("features.partial-*/data.tfrecord")):
        time.sleep(0.05)
        assert process.is_alive()
    cached(name="other")  # a run that is alive keeps its own
    assert list(folder.glob("features.partial-*"))
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    read(cached())
    assert sorted(path.name for path in folder.iterdir()) == ["features", "other"]


def test_what_another_machine_writes_is_left_alone(folder, monkeypatch):
    other = folder / "features.partial-node-2-1-abc"
    other.mkdir(parents=True)
    for host in ("node", "node-2-1"):
        monkeypatch.setattr("socket.gethostname", lambda host=host: host)
        read(cached())
        assert other.is_dir()
        shutil.rmtree(folder / "features")


def test_a_disk_without_room_is_said_before_computing(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    calls = []
    with pytest.raises(OSError, match=r"No room .*MMKERAS_CACHE"):
        cached(calls)
    assert not calls


def test_a_disk_that_fills_leaves_nothing_half_written(folder):
    def compute():
        yield ARRAYS[0], []
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No room"):
        cache.cached("features", {}, compute, element_shape=(2, 2, 3), count=6)
    assert not list(folder.iterdir())
    read(cached())
