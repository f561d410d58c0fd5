"""The Python code of README.md runs as written, on small data and for one epoch."""

import contextlib
import dataclasses
import re
import runpy
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import soundfile
from PIL import Image

import mmkeras
from mmkeras import captioning, speech_to_text, text_to_image
from mmkeras.applications import image_search
from mmkeras.toy import builders

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
SMALL = {"units": 8, "embedding_dim": 4}


def python_code(text):
    """The text with all lines outside Python blocks empty, so that errors have the right line numbers."""
    lines, inside = [], False
    for line in text.splitlines():
        fence = line.startswith("```")
        inside = line == "```python" if fence else inside
        lines.append(line if inside and not fence else "")
    return "\n".join(lines)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with the files that the code of the README names."""
    rng = np.random.default_rng(0)
    (tmp_path / "my" / "photos").mkdir(parents=True)
    names = [f"{number}.jpg" for number in range(8)]
    for path in ("photo.jpg", "other.jpg", *(f"my/photos/{name}" for name in names)):
        Image.fromarray(rng.integers(0, 255, (64, 80, 3), np.uint8)).save(tmp_path / path)
    table = ["image,caption,split"]
    table += [f"{name},photo number {name[0]},{'train' if name < '6' else 'validation'}" for name in names]
    (tmp_path / "my" / "photos" / "captions.csv").write_text("\n".join(table))
    soundfile.write(tmp_path / "speech.wav", rng.uniform(-0.5, 0.5, 22_050), 22_050)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Collapse")  # so few examples give one answer for all inputs
@pytest.mark.filterwarnings("ignore:The structure of `inputs`")  # Keras, of eager models alone
def test_the_python_code_of_the_readme_runs(folder, eager_models, monkeypatch):
    few = {"train": 32, "validation": 8, "test": 8, "test_unseen": 8}
    monkeypatch.setattr(builders, "EXAMPLES", few)
    monkeypatch.setattr(builders, "VIDEO_EXAMPLES", few)
    changes = {
        captioning: {
            "document": {"encoder": "vgg_small"},  # VGG16's weights would be downloaded
            "toy": {"units": 128, "embedding_dim": 64},  # the sizes of the ready-trained model
        },
        speech_to_text: {"toy": {"encoder_layers": 1}},
        text_to_image: {"toy": {"channels": 8}},
        image_search: {},
    }
    for task, overrides in changes.items():
        for preset, config in task.model.PRESETS.items():
            names = {field.name for field in dataclasses.fields(config)}
            small = {name: value for name, value in SMALL.items() if name in names} | overrides.get(preset, {})
            monkeypatch.setitem(task.model.PRESETS, preset, dataclasses.replace(config, **small))
    code = re.sub(r"epochs=\d+", "epochs=1", python_code(README))
    code = re.sub(r'"train", \d+', '"train", 32', code)
    code = code.replace('.data("toy"', f'.data("toy", data_dir={str(folder / "toy")!r}')
    answers = re.compile(r"^(mmkeras\.pretrained.*\))  # ('.*')$", flags=re.M)
    code, count = answers.subn(r"assert \1 == \2", code)
    assert count == 3
    variables = {}
    exec(compile(code, "README.md", "exec"), variables)
    assert variables["image"].shape == (64, 64, 3)
    assert variables["classifier"](variables["image"]).keys() == {"color", "place", "shape", "size"}
    assert isinstance(variables["captioner"], captioning.Captioner)
    assert isinstance(variables["model"], keras.Model)
    written = {"captioner.keras", "attention.png", "words.png", "captioner.run"}
    assert written <= {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("version", [(3, 9), (3, 10), (3, 13), (3, 14)])
def test_the_first_command_names_the_python_to_take(version, monkeypatch):
    script = re.search(r"^python3 (\S+\.py) && python3 -m venv", README, re.MULTILINE)[1]
    monkeypatch.setattr(sys, "version_info", (*version, 0))
    refused = pytest.raises(SystemExit, match=r"3\.10 to 3\.13.*uv venv.*3\.13")
    with contextlib.nullcontext() if (3, 10) <= version <= (3, 13) else refused:
        runpy.run_path(str(Path(__file__).parents[1] / script))


def test_the_chinese_readme_has_the_same_code():
    """So that the test above runs it, too. Comments are translated."""

    def blocks(text):
        return [re.sub(" *# .*", "", code) for code in re.findall(r"```\w+\n.*?```", text, flags=re.S)]

    chinese = (Path(__file__).parents[1] / "README.zh-CN.md").read_text(encoding="utf-8")
    assert blocks(chinese) == blocks(README)


def test_the_citation_names_this_version():
    citation = (Path(__file__).parents[1] / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {mmkeras.__version__}\n" in citation


def test_files_that_the_readmes_link_to_exist():
    root = Path(__file__).parents[1]
    names = ("README.md", "README.zh-CN.md", "tests/README.md", "data/README.md", "notebooks/README.md")
    for readme in map(root.joinpath, names):
        for target in re.findall(r"\]\(([^)#:]+)\)", readme.read_text(encoding="utf-8")):
            assert (readme.parent / target).exists(), f"{readme}: {target}"
