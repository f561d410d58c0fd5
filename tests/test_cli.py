"""The command line, and imports of the package in new processes."""

import contextlib
import functools
import io
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
from mmkeras.toy import scene

MMKERAS = Path(sysconfig.get_path("scripts")) / "mmkeras"


def run(*command, check=True):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stderr
    return done


def run_mmkeras(*arguments, check=True):
    return run(MMKERAS, *arguments, check=check)


@pytest.fixture
def invoke(capsys):
    """Runs the command in this process, which saves loading TensorFlow. Returns its status and output."""

    def run_here(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.app(list(map(str, arguments)))
        return SimpleNamespace(status=caught.value.code, **capsys.readouterr()._asdict())

    return run_here


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
    out = run(sys.executable, "-c", code).stdout
    assert all(command in out for command in ("demo", "train", "evaluate", "predict", "pretrain"))


@pytest.mark.slow
def test_importing_the_package_adds_no_filters_and_building_a_model_does_not_warn():
    code = (
        "import logging, warnings; before = list(warnings.filters)\n"
        "import mmkeras; assert warnings.filters == before\n"
        "import keras, tensorflow; before = list(warnings.filters)\n"
        "mmkeras.captioning, mmkeras.training, mmkeras.distribute; assert warnings.filters == before\n"
        "assert not any(logging.getLogger(name).filters for name in ('absl', 'tensorflow'))\n"
        "mmkeras.captioning.build('toy')"
    )
    assert run(sys.executable, "-W", "error::UserWarning", "-c", code).stdout == ""


def test_all_names_of_the_package_resolve():
    for name in dir(mmkeras):
        getattr(mmkeras, name)
    for module in (mmkeras, mmkeras.data, mmkeras.toy, mmkeras.distribute):
        with pytest.raises(AttributeError, match="speling"):
            _ = module.speling


@pytest.mark.slow
def test_every_module_is_an_attribute_of_its_package():
    """Each package after a new import of mmkeras, since what another one has imported is an attribute, too."""
    code = (
        "import operator, pkgutil, sys, keras, tensorflow, tensorflow_datasets as tfds, mmkeras\n"
        "names = [module.name for module in pkgutil.walk_packages(mmkeras.__path__, 'mmkeras.')]\n"
        "last = ''\n"
        "for name in [name for name in names if '._' not in name]:\n"
        "    package = name.rpartition('.')[0]\n"
        "    if package != last:\n"
        "        for module in [module for module in sys.modules if module.partition('.')[0] == 'mmkeras']:\n"
        "            del sys.modules[module]\n"
        "        import mmkeras\n"
        "    with tfds.core.registered.skip_registration():\n"
        "        assert operator.attrgetter(name.removeprefix('mmkeras.'))(mmkeras).__name__ == name\n"
        "    assert name.split('.')[1] in dir(mmkeras)\n"
        "    last = package\n"
        "    print(name)"
    )
    assert len(run(sys.executable, "-c", code).stdout.split()) > 60


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of photos, a model trained on them from the command line, and the finished process."""
    folder = tmp_path_factory.mktemp("photos")
    rng, splits = np.random.default_rng(0), ["train", "train", "validation", "test", "test"]
    for i in range(len(splits)):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(folder / f"{i}.png")
    rows = [f"{i}.png,gray number {i},{split}" for i, split in enumerate(splits)]
    (folder / "captions.csv").write_text("\n".join(["image,caption,split", *rows]))
    model = folder / "captioner.keras"
    options = ("--source", folder, "--preset", "toy", "--epochs", 1, "--output", model)
    done = run_mmkeras("train", "captioning", *options)
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


def test_an_input_given_twice_is_answered_twice(trained, invoke, tmp_path):
    folder, model, _ = trained
    done = invoke("predict", model, folder / "3.png", folder / "3.png", "--explain", tmp_path)
    assert len(done.out.splitlines()) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"0_3.png", "1_3.png"}
    invoke(
        "predict", "text_to_image_pixels", "a red circle", "a red circle", "--output", tmp_path / "generated"
    )
    assert len(list((tmp_path / "generated").iterdir())) == 2


def test_every_answer_can_be_printed(trained, monkeypatch):
    folder = trained[0]
    for encoding, first in (("cp1252", b"?"), (None, "图中左上右下".encode())):
        stdout = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.delenv("PYTHONIOENCODING", raising=False)
        if encoding:
            monkeypatch.setenv("PYTHONIOENCODING", encoding)
        with pytest.raises(SystemExit) as caught:
            cli.app(["predict", "captioning", "--language", "zh", str(folder / "3.png")])
        stdout.flush()
        content = stdout.buffer.getvalue()
        assert caught.value.code == 0 and content.strip()
        assert set(content.strip()) == set(first) if encoding else content.decode()


def test_messages_name_the_options_of_the_command(invoke, tmp_path):
    (tmp_path / "captions.csv").write_text("photo,words\na.jpg,a dog")
    to = ("--output", tmp_path / "a.keras")
    done = invoke("train", "captioning", "--source", tmp_path, *to)
    assert done.status == 2 and "file_column=" in done.err
    done = invoke("train", "captioning", "--source", tmp_path, "--set", "file_column=7", *to)
    assert done.status == 2 and "file_column=7" in done.err
    done = invoke("train", "text_to_image", "--batch-size", 1, *to)
    assert done.status == 2 and "Received: --batch-size=1" in done.err


def test_evaluate_prints_scores_and_predict_prints_captions(trained, invoke, tmp_path):
    folder, model, _ = trained
    assert "cider_d" in invoke("evaluate", model, "--source", folder).out
    shutil.copy(folder / "3.png", tmp_path)
    (tmp_path / "captions.csv").write_text("image,caption,split\n3.png,gray number 3,test")
    assert "cider_d" in invoke("evaluate", model, "--source", tmp_path).out
    images = [folder / "0.png", folder / "1.png"]
    lines = invoke("predict", model, *images, "--explain", folder / "attention").out.splitlines()
    assert [line.split("\t")[0] for line in lines] == list(map(str, images))
    assert (folder / "attention" / "0.png").is_file()


def test_an_error_is_one_line(trained, invoke, tmp_path):
    folder, model, _ = trained
    nowhere = tmp_path / "nowhere.keras"
    done = run_mmkeras("evaluate", nowhere, check=False)
    assert done.returncode == 2 and done.stderr.endswith(invoke("evaluate", nowhere).err)
    repeated = ("train", "captioning", "--source", folder, "--epochs", 1, "--output", model)
    for arguments, message in (
        (("train", "chess"), "Received: chess"),
        (("demo", "--train", "search"), "image_search, all, none. Received: --train search"),
        (("train", "captioning", "--set", "head=ctc"), "--set head=ctc"),
        (("train", "captioning", "--set", "unit=64"), "Close to it: units"),
        (("train", "captioning", "--set", "units=many"), "of type int. Received: --set units=many"),
        (("train", "captioning", "--set", "fine_tune=3"), "of type bool. Received: --set fine_tune=3"),
        (("train", "captioning", "--set", "units"), "NAME=VALUE"),
        (("train", "captioning", "--source", "nowhere"), "source='nowhere'"),
        (("train", "captioning", "--set", "max_seconds=3"), "--set max_seconds=3"),
        (("evaluate", "captioning", "--set", "table=x.csv"), "--set table=x.csv"),
        (("evaluate", model, "--source", folder, "--set", f"data_dir={tmp_path}"), "--set data_dir="),
        (("train", "captioning", "--preset", "huge"), "preset='huge'"),
        (("train", "captioning", "--output", "model.h5"), ".keras"),
        (("evaluate", nowhere), "nowhere.keras"),
        (("train", "captioning", "--output", "/proc/model.keras"), "'/proc'"),
        (repeated, "run="),
        (("predict", model, folder / "captions.csv"), "captions.csv"),
    ):
        done = invoke(*arguments)
        assert done.status == 2
        assert done.err.startswith("Error: ") and message in done.err
        assert done.err.count("\n") == 1 and "Traceback" not in done.err


@pytest.mark.quality
def test_ctrl_c_names_the_option_resume(trained, tmp_path):
    folder, _, _ = trained
    model = tmp_path / "stopped.keras"
    options = ("--source", folder, "--preset", "toy", "--set", "image_size=16", "--batch-size", 2)
    command = [MMKERAS, "train", "text_to_image", *options, "--epochs", 10_000, "--output", model]
    process = subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # background processes may ignore it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        checkpoint, deadline = tmp_path / "stopped.run" / "last.keras", time.monotonic() + 120
        while not checkpoint.is_file() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.1)
        for _ in range(2):  # Python drops an interrupt that arrives within a destructor
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=45)
                break
        _, error = process.communicate(timeout=10)
    finally:
        process.kill()
    assert process.returncode == 130 and "Traceback" not in error
    assert re.search(r"epoch \d+ of 10000\. .*--resume", error)
    assert not model.is_file()


@pytest.mark.slow
def test_speech_to_text_on_a_folder(invoke, eager_models, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(4):
        soundfile.write(tmp_path / f"{i}.wav", rng.uniform(-0.5, 0.5, 10_000 + i), 16_000)
    rows = [f"{i}.wav,clip {i},{s}" for i, s in enumerate(["train", "train", "validation", "test"])]
    (tmp_path / "transcripts.csv").write_text("\n".join(["path,transcript,split", *rows]))
    model, wav = tmp_path / "transcriber.keras", tmp_path / "0.wav"
    options = f"--source {tmp_path} --preset toy --set head=ctc --set unit=character --epochs 1".split()
    options += ["--batch-size", 2]
    done = invoke("train", "speech_to_text", *options, "--output", model)
    assert model.is_file() and "cer" in done.out
    assert all(re.search("Collapse|vocabulary", line) for line in done.err.splitlines() if "Note:" in line)
    assert "cer" in invoke("evaluate", model, "--source", tmp_path).out
    (tmp_path / "broken.wav").write_text("no audio")
    done = invoke("predict", model, wav, tmp_path / "broken.wav", "--explain", tmp_path / "alignment")
    assert [line.split("\t")[0] for line in done.out.splitlines()] == [str(wav)]
    assert "1 of 2 clips" in done.err and (tmp_path / "alignment" / "0.png").is_file()
    soundfile.write(tmp_path / "0.flac", rng.uniform(-0.5, 0.5, 10_000), 16_000)
    invoke("predict", model, wav, tmp_path / "0.flac", "--explain", tmp_path / "both")
    assert {path.name for path in (tmp_path / "both").iterdir()} == {"0_0.png", "1_0.png"}


@pytest.mark.quality
def test_text_to_image_on_a_folder(trained, invoke, eager_models, tmp_path):
    folder, _, _ = trained
    model = tmp_path / "image_generator.keras"
    options = ("--source", folder, "--set", "image_size=16", "--epochs", 1, "--batch-size", 2)
    done = invoke("train", "text_to_image", *options, "--output", model)
    assert model.is_file() and "sharpness" in done.out
    assert all(re.search("Collapse|vocabulary", line) for line in done.err.splitlines() if "Note:" in line)
    assert "variety" in invoke("evaluate", model, "--source", folder).out
    options = ("--output", tmp_path / "images", "--explain", tmp_path / "influence")
    done = invoke("predict", model, "gray number 1", "number 0", "number 0", *options)
    paths = [line.split("\t")[1] for line in done.out.splitlines()]
    assert [Image.open(path).size for path in paths] == [(16, 16)] * 3
    assert "--beams 2" in invoke("predict", model, "gray", "--beams", 2).err
    assert "--beams 2" in invoke("evaluate", model, "--source", folder, "--beams", 2).err
    assert (tmp_path / "influence" / "1.png").is_file()


@pytest.fixture
def small_toy_world(monkeypatch):
    counts = {"train": 20, "validation": 4, "test": 4, "test_unseen": 4}
    monkeypatch.setattr(mmkeras.toy.builders, "EXAMPLES", counts)


def test_evaluate_and_predict_accept_a_classifier(small_toy_world, tmp_path, capsys):
    attributes = mmkeras.text_to_image.data("toy", image_size=16).attributes
    model = tmp_path / "classifier.keras"
    network = mmkeras.text_to_image.classifier.build_classifier(attributes, 16)
    mmkeras.text_to_image.AttributeClassifier(network).save(model)
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "image.png")
    cli.predict(model, [str(tmp_path / "image.png")])
    assert {part.split(": ")[0] for part in capsys.readouterr().out.strip().split(", ")} == set(attributes)
    cli.evaluate(model)
    out = capsys.readouterr().out
    assert all(name in out for name in ("test_unseen", *attributes, "all"))
    cli.predict(model, [str(tmp_path / "image.png")], explain=tmp_path / "maps")
    assert (tmp_path / "maps" / "image.png").is_file()


@pytest.mark.parametrize(("source", "preset"), [("toy", "toy"), ("my/photos", "document")])
def test_the_default_preset_depends_on_the_source(source, preset, monkeypatch, tmp_path):
    chosen = []

    def stop(presets, preset, overrides):
        chosen.append(preset)
        raise ValueError

    monkeypatch.setattr("mmkeras._utils.presets.with_overrides", stop)
    with pytest.raises(typer.Exit):
        cli.train("captioning", source=source, output=tmp_path / "captioner.keras")
    assert chosen == [preset]


@pytest.mark.quality
def test_writing_the_toy_world_does_not_change_training(small_toy_world, eager_models):
    """The first run writes the toy world, which draws random numbers. No other test uses this size."""
    sizes = {"image_size": 32, "units": 8, "embedding_dim": 8, "channels": 8}
    first, second = (
        mmkeras.training.train_task("text_to_image", epochs=1, batch_size=4, verbose=0, **sizes)[0].model
        for _ in range(2)
    )
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_predict_takes_the_name_of_a_ready_trained_model(invoke, tmp_path):
    done = invoke("predict", "text_to_image", "a small red circle at the top left", "--output", tmp_path)
    assert done.status == 0, done.err
    done = invoke("predict", "captioning", tmp_path / "0.png", "--language", "zh")
    assert scene.parse(done.out.strip()) == scene.parse("a small red circle at the top left")
    assert "captioning" in invoke("predict", "captionin", tmp_path / "0.png").err


@pytest.mark.slow
def test_the_demo_shows_the_ready_trained_models_and_trains_a_task(
    invoke, small_toy_world, eager_models, tmp_path, monkeypatch
):
    for section, few in (
        ("captioning", "images"),
        ("speech_to_text", "clips"),
        ("text_to_image", "prompts"),
        ("image_search", "queries"),
    ):
        function = getattr(mmkeras.cli.demo, f"{section}_section")
        monkeypatch.setattr(mmkeras.cli.demo, f"{section}_section", functools.partial(function, **{few: 1}))
    done = invoke("demo", "--output", tmp_path, "--epochs", 1)
    assert done.status == 0, done.err
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    titles = re.findall(r'<h2 id="([^"]+)"', page)
    ready = ["image-captioning", "speech-to-text", "text-to-image", "image-search"]
    assert titles == [*ready, "in-the-browser", "image-captioning-trained-just-now"]
    assert all(f'<a href="#{title}">' in page for title in titles)
    assert page.count("<audio") == 2 and "://" not in page
    assert mmkeras.load(tmp_path / "captioner.keras")
    command = re.search(r"Use it: mmkeras (predict .+)", done.out)[1]
    assert invoke(*command.split()).out.count("\n") == 1


@pytest.mark.slow
def test_the_wheel_works_without_the_repository(tmp_path):
    root = Path(__file__).parents[1]
    site, pip = tmp_path / "site", (sys.executable, "-m", "pip")
    run(*pip, "wheel", "-q", "--no-deps", "-w", tmp_path, root)
    (wheel,) = tmp_path.glob("*.whl")
    run(*pip, "install", "-q", "--no-deps", "--target", site, wheel)
    for name in ("py.typed", "notebooks/04_formulas.ipynb", "notebooks/glossary.csv", "cli/book/page.html"):
        assert (site / "mmkeras" / name).is_file(), name
    environment = os.environ | {"PYTHONPATH": str(site)}
    code = "import mmkeras; print(mmkeras.__file__); mmkeras.pretrained('captioning')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site))


def test_search_finds_the_images_of_a_folder_and_encodes_them_once(invoke, photos, tmp_path):
    vocabulary = mmkeras.text.vocabulary.Vocabulary(("gray", "photo"), "mixed")
    sizes = {"units": 8, "embedding_dim": 8, "image_size": 32}
    search = mmkeras.applications.image_search.build("toy", vocabulary=vocabulary, **sizes)
    model = tmp_path / "search.keras"
    mmkeras.applications.ImageSearch(search).save(model)
    done = invoke("search", photos, "gray photo", "--model", model, "--k", 3, "--page", tmp_path / "page")
    lines = [line for line in done.out.splitlines() if "\t" in line]
    assert done.status == 0 and len(lines) == 3 and "8 of 8 images were encoded" in done.err
    assert (tmp_path / "page" / "index.html").read_text(encoding="utf-8").count("<img") == 3
    again = invoke("search", photos, "gray photo", photos / "0.jpg", "--model", model, "--k", 1)
    assert "encoded" not in again.err and str(photos / "0.jpg") in again.out.splitlines()[1].split("\t")[1]
    for arguments, message in (
        ((photos, "gray", "--model", tmp_path / "no.keras"), "no.keras"),
        ((tmp_path / "nowhere", "gray", "--model", model), "nowhere"),
        ((photos, "zebra", "--model", model), "query='zebra'"),
    ):
        done = invoke("search", *arguments)
        assert done.status == 2 and message in done.err
