"""The command line and the package as a user meets them: what starts or trains in a process of its own."""

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import typer
from PIL import Image

import mmkeras
from mmkeras.cli import main as cli

MMKERAS = Path(sysconfig.get_path("scripts")) / "mmkeras"


def run(*command, check=True):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stderr
    return done


def mmkeras_command(*arguments, check=True):
    return run(MMKERAS, *arguments, check=check)


@pytest.fixture
def mmkeras_here(capsys):
    """The command in this process, where TensorFlow is loaded already: its status and what it printed."""

    def invoke(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.app(list(map(str, arguments)))
        return SimpleNamespace(status=ended.value.code, **capsys.readouterr()._asdict())

    return invoke


def test_importing_loads_no_tensorflow():
    loaded = run(sys.executable, "-c", "import mmkeras, sys; print(*sys.modules)").stdout.split()
    assert "mmkeras" in loaded
    assert not {"tensorflow", "keras", "numpy"} & set(loaded)


def test_help_loads_no_tensorflow():
    code = (
        "import sys, mmkeras.cli.main\n"
        "try: mmkeras.cli.main.app(['--help'])\n"
        "except SystemExit: assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    )
    shown = run(sys.executable, "-c", code).stdout
    assert all(command in shown for command in ("demo", "train", "evaluate", "predict"))


def test_building_a_model_warns_of_nothing():
    code = "import mmkeras; mmkeras.captioning.build('toy')"
    assert run(sys.executable, "-W", "error::UserWarning", "-c", code).stdout == ""


def test_importing_the_package_adds_no_filters():
    code = (
        "import logging, warnings; before = list(warnings.filters)\n"
        "import mmkeras; assert warnings.filters == before\n"
        "import keras, tensorflow; before = list(warnings.filters)\n"
        "mmkeras.captioning, mmkeras.training, mmkeras.distribute; assert warnings.filters == before\n"
        "assert not any(logging.getLogger(name).filters for name in ('absl', 'tensorflow'))"
    )
    run(sys.executable, "-c", code)


def test_every_name_of_the_package_resolves():
    for name in dir(mmkeras):
        getattr(mmkeras, name)
    with pytest.raises(AttributeError, match="speling"):
        _ = mmkeras.speling


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of photos, and a model that was trained on them from the command line."""
    folder = tmp_path_factory.mktemp("photos")
    rng, splits = np.random.default_rng(0), ["train", "train", "validation", "test", "test"]
    for i in range(len(splits)):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(folder / f"{i}.png")
    rows = [f"{i}.png,grey number {i},{split}" for i, split in enumerate(splits)]
    (folder / "captions.csv").write_text("\n".join(["image,caption,split", *rows]))
    model = folder / "captioner.keras"
    done = mmkeras_command(
        "train",
        "captioning",
        "--source",
        folder,
        "--preset",
        "toy",
        "--epochs",
        1,
        "--output",
        model,
    )
    return folder, model, done


def test_train_saves_a_model_and_prints_its_scores(trained):
    _, model, done = trained
    assert model.is_file()
    assert "bleu_4" in done.stdout and "Saved" in done.stdout
    assert {path.name for path in model.with_suffix(".run").iterdir()} == {
        "last.keras", "best.keras", "history.csv", "curves.png", "events",
    }  # fmt: skip
    assert "Warning: " not in done.stderr
    assert not [line for line in done.stderr.splitlines() if "Note:" in line and "Collapse" not in line]


def test_evaluate_scores_and_predict_answers(trained, mmkeras_here, tmp_path):
    folder, model, _ = trained
    assert "cider_d" in mmkeras_here("evaluate", model, "--source", folder).out
    shutil.copy(folder / "3.png", tmp_path)
    (tmp_path / "captions.csv").write_text("image,caption,split\n3.png,grey number 3,test")
    assert "cider_d" in mmkeras_here("evaluate", model, "--source", tmp_path).out
    pictures = [folder / "0.png", folder / "1.png"]
    lines = mmkeras_here("predict", model, *pictures, "--explain", folder / "seen").out.splitlines()
    assert [line.split("\t")[0] for line in lines] == list(map(str, pictures))
    assert (folder / "seen" / "0.png").is_file()


def test_bad_input_ends_in_one_line(trained, mmkeras_here, tmp_path):
    folder, model, _ = trained
    nowhere = tmp_path / "nowhere.keras"
    done = mmkeras_command("evaluate", nowhere, check=False)
    assert done.returncode == 2 and done.stderr.endswith(mmkeras_here("evaluate", nowhere).err)
    again = ("train", "captioning", "--source", folder, "--epochs", 1, "--output", model)
    for arguments, named in (
        (("train", "chess"), "Expected TASK to be one of captioning, speech_to_text, text_to_image"),
        (("train", "captioning", "--head", "ctc"), "captioning does not take --head"),
        (("train", "captioning", "--source", "nowhere"), "source='nowhere'"),
        (("train", "captioning", "--preset", "huge"), "preset='huge'"),
        (("train", "captioning", "--output", "model.h5"), ".keras"),
        (("evaluate", nowhere), "nowhere.keras"),
        (("train", "captioning", "--output", "/proc/model.keras"), "cannot be written to"),
        (again, "run="),
        (("predict", model, folder / "captions.csv"), "captions.csv"),
    ):
        done = mmkeras_here(*arguments)
        assert done.status == 2
        assert done.err.startswith("Error: ") and named in done.err
        assert done.err.count("\n") == 1 and "Traceback" not in done.err


def test_ctrl_c_says_how_to_go_on(trained, tmp_path):
    folder, _, _ = trained
    model = tmp_path / "stopped.keras"
    options = ("--source", folder, "--preset", "toy", "--epochs", 10_000, "--output", model)
    command = [MMKERAS, "train", "captioning", *options]
    process = subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # what runs in the background may be deaf to it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        checkpoint, patience = tmp_path / "stopped.run" / "last.keras", time.monotonic() + 120
        while not checkpoint.is_file() and time.monotonic() < patience:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "Traceback" not in error
    assert re.search(r"Stopped in epoch \d+ of 10000\. .*--resume", error)
    assert not model.is_file()


def test_speech_to_text_from_a_folder_of_clips(mmkeras_here, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(4):
        soundfile.write(tmp_path / f"{i}.wav", rng.uniform(-0.5, 0.5, 20_000 + i), 16_000)
    rows = [f"{i}.wav,clip {i},{s}" for i, s in enumerate(["train", "train", "validation", "test"])]
    (tmp_path / "transcripts.csv").write_text("\n".join(["path,transcript,split", *rows]))
    model, wav = tmp_path / "transcriber.keras", tmp_path / "0.wav"
    options = f"--source {tmp_path} --preset toy --head ctc --unit character --epochs 1 --batch-size 2".split()
    done = mmkeras_command("train", "speech_to_text", *options, "--output", model)
    assert model.is_file() and "cer" in done.stdout
    assert "UserWarning" not in done.stderr
    assert "cer" in mmkeras_here("evaluate", model, "--source", tmp_path).out
    (tmp_path / "broken.wav").write_text("no sound")
    done = mmkeras_here("predict", model, wav, tmp_path / "broken.wav", "--explain", tmp_path / "heard")
    assert [line.split("\t")[0] for line in done.out.splitlines()] == [str(wav)]
    assert "1 of 2 clips cannot be read" in done.err and (tmp_path / "heard" / "0.png").is_file()
    soundfile.write(tmp_path / "0.flac", rng.uniform(-0.5, 0.5, 20_000), 16_000)
    mmkeras_here("predict", model, wav, tmp_path / "0.flac", "--explain", tmp_path / "both")
    assert {path.name for path in (tmp_path / "both").iterdir()} == {"0_0.png", "1_0.png"}


def test_text_to_image_from_a_folder(trained, mmkeras_here, tmp_path):
    folder, _, _ = trained
    model = tmp_path / "image_generator.keras"
    options = ("--source", folder, "--image-size", 16, "--epochs", 1, "--batch-size", 2)
    done = mmkeras_here("train", "text_to_image", *options, "--output", model)
    assert model.is_file() and "sharpness" in done.out and "UserWarning" not in done.err
    assert "variety" in mmkeras_here("evaluate", model, "--source", folder).out
    options = ("--output", tmp_path / "painted", "--explain", tmp_path / "why")
    done = mmkeras_here("predict", model, "grey number 1", "number 0", *options)
    paths = [line.split("\t")[1] for line in done.out.splitlines()]
    assert [Image.open(path).size for path in paths] == [(16, 16)] * 2
    assert (tmp_path / "why" / "1.png").is_file()


@pytest.fixture
def small_world(monkeypatch):
    counts = {"train": 20, "validation": 4, "test": 4, "test_unseen": 4}
    monkeypatch.setattr(mmkeras.toy.builders, "EXAMPLES", counts)


def test_a_classifier_is_scored_and_answers(small_world, tmp_path, capsys):
    attributes = mmkeras.text_to_image.data("toy", image_size=16).attributes
    model = tmp_path / "classifier.keras"
    built = mmkeras.text_to_image.classifier.build_classifier(attributes, 16)
    mmkeras.text_to_image.AttributeClassifier(built).save(model)
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "image.png")
    cli.predict(model, [str(tmp_path / "image.png")])
    assert {part.split(": ")[0] for part in capsys.readouterr().out.strip().split(", ")} == set(attributes)
    cli.evaluate(model)
    printed = capsys.readouterr().out
    assert "test_unseen" in printed and all(name in printed for name in (*attributes, "all"))
    with pytest.raises(typer.Exit):
        cli.predict(model, [str(tmp_path / "image.png")], explain=tmp_path)
    assert "--explain" in capsys.readouterr().err


@pytest.mark.parametrize(("source", "preset"), [("toy", "toy"), ("my/photos", "document")])
def test_the_preset_follows_the_source(source, preset, monkeypatch, tmp_path):
    given = []

    def stop(presets, preset, overrides):
        given.append(preset)
        raise ValueError

    monkeypatch.setattr("mmkeras.training.fit.with_overrides", stop)
    with pytest.raises(typer.Exit):
        cli.train("captioning", source=source, output=tmp_path / "captioner.keras")
    assert given == [preset]


def test_the_first_training_learns_what_the_second_does(small_world):
    """The first of them makes the toy world, which draws random numbers; this size is new."""
    sizes = {"image_size": 32, "units": 8, "embedding_dim": 8, "channels": 8}
    first, second = (
        mmkeras.training.train_task("text_to_image", epochs=1, batch_size=4, verbose=0, **sizes)[0].model
        for _ in range(2)
    )
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_the_wheel_works_alone(tmp_path):
    """Built, installed without the repository, and used from elsewhere."""
    root = Path(__file__).parents[1]
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, root)
    (wheel,) = tmp_path.glob("*.whl")
    run(
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--target",
        tmp_path / "site",
        wheel,
    )
    assert (tmp_path / "site" / "mmkeras" / "py.typed").is_file()
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    code = "import mmkeras; print(mmkeras.__file__); mmkeras.captioning.build('toy')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path / "site"))
