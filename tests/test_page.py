"""The page: what its command writes, and in Chromium its answers, which must be Python's, and bad input."""

import gzip
import json
import re
import shutil

import numpy as np
import page as visitor
import pytest
from PIL import Image
from typer.testing import CliRunner

from mmkeras.cli.main import app
from mmkeras.export import onnxruntime_web
from mmkeras.export import page as export
from mmkeras.text.vocabulary import Vocabulary
from mmkeras.toy import render, speak

SOURCES = {path.name: path.read_text(encoding="utf-8") for path in sorted(export.SOURCE.glob("*.*"))}
SCRIPTS = "\n".join(text for name, text in SOURCES.items() if name.endswith(".js"))
TEXTS = dict(re.findall(r'^  (\w+): \[("(?:[^"\\]|\\.)*", "(?:[^"\\]|\\.)*")\],$', SOURCES["texts.js"], re.M))


def test_every_text_of_the_page_is_there_in_both_languages():
    assert len(TEXTS) > 100
    for key, pair in TEXTS.items():
        english, chinese = json.loads(f"[{pair}]")
        places = [sorted(re.findall(r"\{\d\}", text)) for text in (english, chinese)]
        assert places[0] == places[1], key
        assert not re.search("[\u4e00-\u9fff]", english) and (
            chinese == "CTC" or re.search(r"[^\x00-\x7f]", chinese)
        )
    used = set(re.findall(r'\bt\(\s*"(\w+)"', SCRIPTS))
    thrown = {f"error_{code}" for code in re.findall(r'new Error\("(\w+)"\)', SCRIPTS)}
    assert (used | thrown) <= TEXTS.keys()


def test_the_page_loads_nothing_from_elsewhere():
    for name, text in SOURCES.items():
        if name == "LICENSES.txt":
            continue
        assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--language", "fr"], "Received: --language=['fr']"),
        (["--language", "en", "xx"], "'xx'"),
    ],
)
def test_an_unknown_language_of_the_page_is_refused(tmp_path, arguments, message):
    result = CliRunner().invoke(app, ["page", str(tmp_path / "made"), *arguments])
    assert result.exit_code == 2 and message in result.output, result.output


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=re.escape("thesis.txt")):
        export.write(tmp_path)


def test_without_npm_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(OSError, match=f"onnxruntime-web@{onnxruntime_web.VERSION}.*no npm.*npm pack"):
        onnxruntime_web.fetch(tmp_path)


def test_another_file_than_the_pinned_one_is_refused(tmp_path):
    for name in onnxruntime_web.FILES:
        (tmp_path / name).write_text("damaged")
    assert not onnxruntime_web.is_complete(tmp_path)


# --- in a browser ---


@pytest.fixture
def browser():
    visitor.require_chromium()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return write_pages(tmp_path_factory.mktemp("site"), export.LANGUAGES)


def write_pages(folder, languages):
    """The folder of the page, and its single files."""
    pytest.importorskip("tf2onnx", reason="needs the extra export")
    if shutil.which("npm") is None and not onnxruntime_web.is_complete(onnxruntime_web.FOLDER):
        pytest.skip("needs npm, which fetches onnxruntime-web")
    data = folder / "data"
    data.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        facts = export._write_data(data, languages)  # the models once, for both

        def copied(made, languages):
            shutil.copytree(data, made, dirs_exist_ok=True)
            return facts

        patch.setattr(export, "_write_data", copied)
        export.write(folder / "folder", languages)
        export.write(folder / "single", languages, single=True)
    return folder


def address(site, kind, language):
    """The path of the folder that is served, or of the single file."""
    return str(site / "folder" if kind == "folder" else site / "single" / f"mmkeras-{language}.html")


@pytest.fixture(scope="module")
def files(site):
    """Paths of what a visitor may choose: images of three things, and bad input."""
    folder = site / "files"
    folder.mkdir()
    paths = []
    for number, index in enumerate([0, 1, 2, 0, 1, 2]):
        image = Image.fromarray(render.draw("test", index)).rotate(4 * (number >= 3), fillcolor="white")
        paths.append(folder / f"{number}.png")
        image.save(paths[-1])
    (folder / "text.png").write_text("no image")
    Image.fromarray(np.full((5000, 8000, 3), 200, np.uint8)).save(folder / "large.png")  # 40 megapixels
    (folder / "silence.wav").write_bytes(visitor.wav(np.zeros(32_000, np.int16)))
    (folder / "long.wav").write_bytes(visitor.wav(np.concatenate(visitor.clips("en")[:4])))
    return {
        "images": list(map(str, paths)),
        **{
            name: str(folder / file)
            for name, file in (
                ("text", "text.png"),
                ("large", "large.png"),
                ("silence", "silence.wav"),
                ("long", "long.wav"),
            )
        },
    }


@pytest.fixture(scope="module")
def microphone(tmp_path_factory):
    """{language: (a WAV that the microphone plays, what it says)}"""
    folder, played = tmp_path_factory.mktemp("microphone"), {}
    for language in export.LANGUAGES:
        text = speak.caption("test", 1, language)  # both models hear it, wherever its frames begin
        path = folder / f"{language}.wav"
        path.write_bytes(visitor.wav(np.pad(speak.speak(text, speak.voice("test", 1, language), 0), 8000)))
        played[language] = str(path), text
    return played


@pytest.mark.quality
def test_the_page_is_small_and_has_its_licenses(site):
    content = [path.read_bytes() for path in (site / "folder").rglob("*") if path.is_file()]
    assert sum(map(len, content)) <= 30e6
    assert sum(len(gzip.compress(each)) for each in content) <= 12e6
    single = [path.read_bytes() for path in (site / "single").iterdir()]
    assert len(single) == 2 and max(map(len, single)) <= 11e6
    for page in [(site / "folder" / "LICENSES.txt").read_bytes(), *single]:
        assert b"MIT License" in page and b"CC BY-SA 4.0" in page


@pytest.mark.quality
@pytest.mark.parametrize(("kind", "language"), [("folder", "en"), ("folder", "zh"), ("single", "zh")])
def test_the_browser_answers_as_python_does(browser, site, microphone, kind, language):
    answers = check_answers(site, microphone, kind, language)
    print(kind, language, {name: round(time, 1) for name, time in answers["times"].items()})  # medians, in ms
    assert max(answers["fastest"].values()) < 50, answers["times"]


@pytest.mark.slow
def test_a_page_answers_a_few_inputs_as_python_does(browser, microphone, tmp_path, monkeypatch):
    monkeypatch.setattr(visitor, "COUNT", 4)
    check_answers(write_pages(tmp_path, ["zh"]), microphone, "single", "zh", ["camera", "emptyPrompt"])
    assert (tmp_path / "single" / "mmkeras-zh.html").stat().st_size <= 11e6


def check_answers(site, microphone, kind, language, scenarios=()):
    facts = json.loads((site / "folder" / "facts.json").read_text(encoding="utf-8"))
    vectors = np.frombuffer((site / "folder" / "emoji.bin").read_bytes(), "<f2").astype(np.float32)
    vectors = vectors.reshape(-1, facts["emoji"]["units"])
    queries = visitor.prompts(language)
    given = visitor.visit(
        site,
        page=address(site, kind, language),
        language=language,
        microphone=microphone[language][0],
        inputs=visitor.inputs(language, queries),
        isOffline=kind == "folder",
        scenarios=["microphone", *scenarios],
    )
    answers, expected = given["answers"], visitor.expected(language, queries, vectors)
    assert [np.reshape(x, (64, 64, 3)).tolist() for x in answers["pixels"]] == [
        x.tolist() for x in expected["pixels"]
    ]
    assert [said["text"] for said in answers["captions"]] == expected["captions"]
    assert answers["attributes"] == expected["attributes"]
    assert [heard["text"] for heard in answers["attention"]] == expected["attention"]
    assert answers["ctc"] == expected["ctc"]
    assert [found[0] for found in answers["found"]] == [found[0] for found in expected["found"]]
    assert np.abs(np.array(answers["vectors"]) - expected["vectors"]).max() < 0.01
    drawn = np.reshape(answers["drawn"], (visitor.COUNT, 64, 64, 3))
    assert np.abs(drawn - np.stack(expected["drawn"])).max() <= 8  # of 255: weights have 8 bits
    for text, split in zip(visitor.TEXTS, answers["split"], strict=True):
        assert split == [Vocabulary((), unit).split(text) for unit in ("word", "character", "mixed")]
    # what the microphone plays, resampled twice
    assert given["microphone"] == 2 * [microphone[language][1]]
    assert not given["console"] and set(given["requests"]) <= {given["origin"], "null"}
    failed = [name for name in scenarios if str(given[name]).startswith("failed")]
    assert not failed, given
    return answers


@pytest.mark.quality
@pytest.mark.parametrize(("kind", "language"), [("folder", "en"), ("single", "zh")])
def test_bad_input_gets_a_clear_message_and_parts_work_by_keyboard(
    browser, site, files, microphone, kind, language
):
    expected = {
        "noMicrophone": "error_microphone", "refused": "error_permission", "emptyPrompt": "error_empty",
        "unknownPrompt": "error_unknown", "unknownQuery": "error_unknown", "noImage": "error_image",
        "silence": "error_silence", "oneExample": "one_thing", "longClip": "cut", "camera": "novel",
    }  # fmt: skip
    others = ["noSimd", "largeImage", "teach", "keyboard", "layout"]
    given = visitor.visit(
        site,
        page=address(site, kind, language),
        language=language,
        microphone=microphone[language][0],
        files=files,
        scenarios=[*expected, *others],
    )
    for name, key in expected.items():
        text = json.loads(f"[{TEXTS[key]}]")[language == "zh"]
        assert text.split("{0}")[0] in given[name], given[name]
    assert "WebAssembly" in given["noSimd"]
    assert given["largeImage"] and "failed" not in given["largeImage"]
    assert given["teach"] == [
        json.loads(f"[{TEXTS['thing']}]")[language == "zh"].replace("{0}", n) for n in "123"
    ]
    assert len(set(given["keyboard"]["parts"])) == 6 and given["keyboard"]["isChosen"]
    assert not [page for page in given["layout"] if page["overflow"] > 0 or page["nameless"]]
    assert not given["console"]
