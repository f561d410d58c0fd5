"""Options as text: `--set name=value`."""

import os

import keras
import pytest

from mmkeras import captioning, training
from mmkeras._utils import presets
from mmkeras.data import sources

KNOWN = {
    "units": int,
    "rate": float,
    "flag": bool,
    "path": str | os.PathLike | None,
    "column": str | int | None,
    "artists": dict[str, str],
    "encoder": str | keras.Model,
}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("units=256", 256),
        ("rate=0.5", 0.5),
        ("rate=1", 1),
        ("flag=true", True),
        ("flag=False", False),
        ("path=none", None),
        ("path=a=b.csv", "a=b.csv"),
        ("path=3", "3"),
        ("column=3", 3),
        ("column=image", "image"),
        ("artists={'me': 'folder'}", {"me": "folder"}),
        ("encoder=vgg16", "vgg16"),
    ],
)
def test_a_text_becomes_a_value_of_the_options_type(setting, value):
    (parsed,) = presets.parse([setting], KNOWN).values()
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("units", "NAME=VALUE.*--set units"),
        ("unitz=3", "among units, rate.*--set unitz=3. Close to it: units"),
        ("units=3.5", "of type int. Received: --set units=3.5"),
        ("units=true", "of type int"),
        ("rate=fast", "of type float"),
        ("flag=1", "of type bool"),
        ("encoder=none", None),
    ],
)
def test_other_texts_are_refused(setting, message):
    if message is None:
        assert presets.parse([setting], KNOWN) == {"encoder": "none"}
        return
    with pytest.raises(ValueError, match=message):
        presets.parse([setting], KNOWN)


def test_the_options_of_a_task_are_those_of_its_model_its_data_and_the_source(tmp_path):
    options = training.parse_options("captioning", "toy", ["dropout=0.1", "augment=true", "objects=2"])
    assert options == {"dropout": 0.1, "augment": True, "objects": 2}
    assert training.parse_options("captioning", tmp_path, ["table=a.csv"]) == {"table": "a.csv"}
    assert {"objects", "snr_db", "data_dir"} <= sources.options("toy").keys()
    for given in ("vocabulary=3", "seed=3", "table=a.csv"):
        with pytest.raises(ValueError, match=f"--set {given}"):
            training.parse_options("captioning", "toy", [given])
    with pytest.raises(ValueError, match="--set dropout"):
        training.parse_options("captioning", "toy", ["dropout=0.1"], of_model=False)


def test_the_learning_rate_decays_over_the_epochs_of_the_run(photos, monkeypatch):
    built = {}

    def build(preset, **options):
        built.update(options)
        raise ValueError("enough")

    build.__wrapped__ = captioning.build  # its signature tells the options
    monkeypatch.setattr(captioning, "build", build)
    cases = [({"epochs": 3}, 3 * 2), ({"epochs": 3, "decay_steps": 7}, 7), ({}, training.task.MIN_STEPS)]
    for options, expected in cases:
        with pytest.raises(ValueError, match="enough"):
            training.train_task("captioning", photos, preset="toy", batch_size=4, **options)
        assert built["decay_steps"] == expected
