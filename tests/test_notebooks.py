"""Every notebook runs as it is, and is stored without outputs."""

import ast
import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from threading import Thread

import page as visitor
import pytest

from mmkeras.toy import builders

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))

LONG_EXERCISES = ("03_three_methods",)  # of minutes, so they run nightly

# What a learner may try first: {(notebook, number of the exercise): (code, part of the message)}
MISTAKES = {
    ("01_background", 0): ("features = of_image - of_text", "0 where they match"),
    ("02_core_concepts", 0): ("masked_mean = lambda x, valid: x.mean(axis=1)", "padding counts"),
    ("02_core_concepts", 1): ("fused = lambda p, q: (p + q) / 2", "each rules out one"),
    ("02_core_concepts", 2): (
        "training = lambda parameters, tokens: 2 * parameters * tokens",
        "twice backward",
    ),
    ("02_core_concepts", 3): (
        "classify = lambda x, names: (search.encode_texts(names) @ search.encode_images(x).T).argmax(axis=1)",
        "one name for each image",
    ),
    ("02_core_concepts", 4): ('answer = trained(("image",), 64, 0)', "no size finds"),
    ("03_three_methods", 0): ("ceiling = lambda gray, masked: 1 - gray * masked * 5 / 6", "five colors"),
    ("03_three_methods", 1): (
        'matcher = cross_modal_pretraining.build(encoder.copy(), {"match": 2})\n'
        "answer = Classifier(mmkeras.methods.classification.fit(matcher, matches, steps=20))",
        "train longer",
    ),
    ("03_three_methods", 2): (
        "answer = plain",
        "compare the two losses",
    ),
    ("05_practice", 0): (
        "e = np.exp(np.tanh(q[:, None] + m[None]) @ v)\nanswer = e / e.sum(axis=0)",
        "a softmax over what",
    ),
    ("05_practice", 1): (
        "import itertools\nerrors = lambda a, b: sum(x != y for x, y in itertools.zip_longest(a, b))",
        "one word is new",
    ),
    ("05_practice", 2): ("answer = np.median(many, axis=0)", "what is best"),
    ("06_applications", 0): (
        "recall = lambda s, k: np.mean([i in x for i, x in enumerate(np.argsort(s)[:, :k])])",
        "largest similarity is first",
    ),
    ("06_applications", 1): ("answer = shown[:, :, :, ::-1]", "of growing"),
    ("06_applications", 2): (
        "threshold = lambda question, wrong: question / wrong",
        "a wrong image costs more",
    ),
    ("07_tools", 0): (
        'small = Tokenizer(models.BPE(unk_token="<unknown>"))\n'
        "small.decoder = decoders.Metaspace()\n"
        "small.train_from_iterator(captions, trainers.BpeTrainer(vocab_size=40, show_progress=False))",
        "whose first tokens are",
    ),
    ("07_tools", 1): (
        "kept = lambda x: [i for i in x.argmax(axis=-1) if i]\n"
        "decode = lambda x: [i for i, last in zip(kept(x), [0, *kept(x)]) if i != last]",
        "a, blank, a are two tokens",
    ),
    ("07_tools", 2): ("kernel = lambda weights: weights.transpose(3, 2, 1, 0)", "height and width in order"),
    ("08_challenges", 0): (
        "def fit(x, errors):\n"
        "    slope, intercept = np.polyfit(np.log(x), np.log(errors), 1)\n"
        "    return np.exp(intercept), slope",
        "minus the slope",
    ),
    ("08_challenges", 1): (
        "def delete(image, values, q, color):\n"
        "    changed = image.copy()\n"
        "    changed[values <= np.quantile(values, q)] = color\n"
        "    return changed",
        "turned around",
    ),
    ("08_challenges", 2): ("balance = lambda groups: 1 / np.bincount(groups)[groups]", "learning rate"),
    ("08_challenges", 3): ("auc = lambda x, y: np.mean(np.reshape(x, (-1, 1)) < np.asarray(y))", "a tie"),
    ("09_faq", 0): ("steps_of = len", "a blank between equal neighbors"),
    ("04_formulas", 0): ("answer = [hidden(ops.concatenate([u, v], axis=-1)), 0 * v]", "one modality alone"),
    ("04_formulas", 1): ("answer = [vectors[:, ::-1], mask, types]", "does the mask fit"),
    ("04_formulas", 2): ("answer = image + 8", "sees a star"),
}

# The sections of the document that the notebooks follow
SECTIONS = {
    "1.1": "多模态学习的兴起",
    "1.2": "大模型时代的多模态挑战",
    "1.3": "本文的意义",
    "2.1": "模态",
    "2.2": "多模态学习",
    "2.3": "大模型",
    "2.4": "多模态大模型",
    "2.5": "联系",
    "3.1": "大模型+多模态的3种实现方法",
    "3.2": "联合训练",
    "3.3": "跨模态预训练",
    "3.4": "模态转换",
    "4.1": "联合训练的数学模型",
    "4.2": "跨模态预训练的数学模型",
    "4.3": "模态转换的数学模型",
    "5.1": "图像描述生成",
    "5.2": "语音识别",
    "5.3": "文本到图像生成",
    "6.1": "图像搜索",
    "6.2": "视频理解",
    "6.3": "人机交互",
    "7.1": "Hugging Face Transformers",
    "7.2": "TensorFlow",
    "7.3": "PyTorch",
    "8.1": "未来发展趋势",
    "8.2": "挑战",
    "9.1": "什么是多模态学习？",
    "9.2": "什么是大模型？",
    "9.3": "多模态大模型有哪些应用场景？",
    "9.4": "多模态大模型面临哪些挑战？",
}


@pytest.fixture(scope="module")
def toy_world(tmp_path_factory):
    """The toy world with fewer test examples, where the notebooks find it, and apart from what other tests have
    written. The first process that needs it writes it for all."""
    written = tmp_path_factory.getbasetemp()
    written = (written.parent if "PYTEST_XDIST_WORKER" in os.environ else written) / "toy_world"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builders, "EXAMPLES", {"train": 4000, "validation": 64, "test": 96, "test_unseen": 64})
        if not written.exists():
            folder = tmp_path_factory.mktemp("datasets")
            for build in (builders.toy_images, builders.toy_speech, builders.toy_videos):
                build(data_dir=folder)
            with contextlib.suppress(OSError):  # another process was faster
                folder.rename(written)
        patch.setenv("TFDS_DATA_DIR", str(written))
        yield


def run_notebook(path, folder, with_exercises=True):
    """Runs a notebook, and each exercise three ways. Returns its cells."""
    import nbclient
    import nbformat

    notebook = nbformat.read(path, 4)
    client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": folder}})
    exercises = exercises_of(notebook.cells) if with_exercises else {}
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
            if index in exercises:
                assert "correct" not in printed(cell)  # before anything is done
                check_exercise(client, cell, index, path.stem, *exercises[index])
    return notebook.cells


def exercises_of(cells):
    """{index: (number, name that is left open, solution)} of each exercise, a cell before a folded solution."""
    exercises = {}
    for index, (cell, following) in enumerate(itertools.pairwise(cells)):
        if cell.cell_type == "code" and following.source.startswith("<details>"):
            (name,) = re.findall(r"^(\w+) = None\b", cell.source, flags=re.M)
            (solution,) = re.findall(r"```python\n(.*?)```", following.source, flags=re.S)
            exercises[index] = (len(exercises), name, solution)
    return exercises


def check_exercise(client, cell, index, notebook, number, name, solution):
    """The solution passes, and a mistake fails with its message. Each runs in the notebook's state, from the
    open line on: what is above has run."""
    import nbclient

    _, line, below = re.split(rf"^({name} = None\b.*\n)", cell.source, flags=re.M)

    def attempt(code):
        return client.execute_cell(type(cell)(cell | {"source": f"{code}\n{below}", "outputs": []}), index)

    assert "correct" in printed(attempt(solution))
    mistake, message = MISTAKES[notebook, number]
    with pytest.raises(nbclient.exceptions.CellExecutionError) as error:
        attempt(mistake)
    assert error.value.ename == "AssertionError" and message in error.value.evalue
    attempt(line)  # nothing is answered, as before


def printed(cell):
    return "".join(output.get("text", "") for output in cell.outputs if output.get("name") == "stdout")


def ends_in_figure(source):
    """Whether the last statement calls `.plot()`, `.grid(...)`, or a function of `plots`."""
    last = ast.parse(source).body[-1]
    is_call = isinstance(last, ast.Expr) and isinstance(last.value, ast.Call)
    return is_call and re.search(r"\.(plot|grid)$|\bplots\.\w+$", ast.unparse(last.value.func)) is not None


def count_images(cell):
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_short_and_stored_without_outputs(path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    lines = [len(re.findall(r"^.*\S", "".join(cell["source"]), flags=re.M)) for cell in cells]
    assert max(lines) <= 40 and sum(lines) <= 385


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_first_cell_says_where_mmkeras_is_missing(path, monkeypatch):
    cells = json.loads(path.read_text())["cells"]
    first = next("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    monkeypatch.setitem(sys.modules, "mmkeras", None)
    with pytest.raises(ModuleNotFoundError, match="Install mmkeras first: README, 'Colab and Kaggle'"):
        exec(first, {})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_section_of_the_document_has_its_heading_and_code(path):
    chapter, section = re.match(r"0(\d)(?:_(\d)_)?", path.stem).groups()
    sections = {}  # {number: [title, whether code follows]}
    for cell in json.loads(path.read_text())["cells"]:
        heading = re.search(r"^##? (\d\.\d) ([^·\n]+)", "".join(cell["source"]), flags=re.M)
        if (
            heading and cell["cell_type"] == "markdown" and heading[1] in SECTIONS
        ):  # chapter 9 has more of its own
            sections[heading[1]] = [heading[2].strip(), False]
        elif sections and cell["cell_type"] == "code":
            sections[list(sections)[-1]][1] = True
    expected = f"{chapter}.{section or ''}"
    assert sections == {n: [title, True] for n, title in SECTIONS.items() if n.startswith(expected)}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_text_is_in_both_languages(path):
    for cell in json.loads(path.read_text())["cells"]:
        text = re.sub(r"```.*?```|`[^`]*`|\$[^$]*\$", "", "".join(cell["source"]), flags=re.S)
        if cell["cell_type"] == "markdown":
            assert re.search("[\u4e00-\u9fff]{2}", text) and re.search(r"[A-Za-z]{3}", text), text


def test_the_contents_list_every_notebook():
    contents = (NOTEBOOKS[0].parent / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\((\w+\.ipynb)\)", contents) == [path.name for path in NOTEBOOKS]


@pytest.mark.quality
@pytest.mark.parametrize("stem", LONG_EXERCISES)
def test_exercises_that_train_pass_with_their_solution_alone(stem, toy_world, tmp_path):
    (path,) = [path for path in NOTEBOOKS if path.stem == stem]
    run_notebook(path, tmp_path)


@pytest.mark.notebooks
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_without_warnings_and_show_their_figures(path, toy_world, tmp_path):
    cells = run_notebook(path, tmp_path, with_exercises=path.stem not in LONG_EXERCISES)
    cells = [cell for cell in cells if cell.cell_type == "code"]
    assert any(ends_in_figure(cell.source) for cell in cells)
    for cell in cells:
        assert count_images(cell) or not ends_in_figure(cell.source), cell.source
        for output in cell.outputs:
            assert output.get("name") != "stderr", output.text
            data = output.get("data", {})
            is_object = re.match(r"<(Figure|mmkeras)", data.get("text/plain", ""))
            assert "image/png" in data or not is_object, cell.source


@pytest.mark.notebooks
@pytest.mark.parametrize("first", ["", "import matplotlib.pyplot", "%matplotlib inline"])
def test_jupyter_shows_a_figure_once(first):
    import nbclient
    from nbformat import v4

    cells = [
        v4.new_code_cell(first),
        v4.new_code_cell("import mmkeras\nmmkeras.evaluation.plots.curves({'loss': [2, 1]})"),
    ]
    nbclient.NotebookClient(v4.new_notebook(cells=cells), timeout=120).execute()
    assert [count_images(cell) for cell in cells] == [0, 1]


@pytest.mark.quality
@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_jupyterlab_runs_every_notebook(theme, toy_world, tmp_path):
    """With Restart & Run All, as a reader does. The screenshots are for a person to look at: `SCREENSHOTS`."""
    visitor.require_chromium()
    preferences = {
        "notebook-extension/tracker": {"windowingMode": "none"},  # all cells are in the page
        "apputils-extension/themes": {"theme": f"JupyterLab {theme}"},
        "apputils-extension/notification": {"fetchNews": "false"},
    }
    for name, values in preferences.items():
        file = tmp_path / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    screenshots = Path(os.environ.get("SCREENSHOTS", tmp_path / "screenshots"))
    screenshots.mkdir(exist_ok=True)
    command = [Path(sys.executable).with_name("mmkeras"), "notebooks", tmp_path / "copies", "--"]
    options = ["--no-browser", "--allow-root", "--port=0", "--IdentityProvider.token=a"]
    environment = os.environ | {"JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings")}
    with subprocess.Popen([*command, *options], env=environment, stderr=subprocess.PIPE, text=True) as server:
        try:
            address = next(m[1] for m in map(re.compile(r"(http://127\S+?)/lab").search, server.stderr) if m)
            Thread(target=server.stderr.read, daemon=True).start()  # so that the server never waits
            seen = visitor.run(
                "jupyterlab.mjs",
                tmp_path,
                address=address,
                token="a",
                theme=theme,
                notebooks=[path.name for path in NOTEBOOKS],
                screenshots=str(screenshots),
            )
        finally:
            server.terminate()
    for name, notebook in seen.items():
        assert notebook["images"] and notebook["cells"], name
        assert not (notebook["errors"] or notebook["stderr"] or notebook["broken"]), (name, notebook)
