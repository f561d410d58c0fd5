"""Every notebook runs from top to bottom, with fewer epochs, and is stored without outputs."""

import ast
import json
import re
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def ends_in_figure(source):
    """Whether a cell's last statement is a call of `.plot()`, `.grid(...)` or a function of `plots`."""
    last = ast.parse(source).body[-1]
    is_call = isinstance(last, ast.Expr) and isinstance(last.value, ast.Call)
    return is_call and re.search(r"\.(plot|grid)$|\bplots\.\w+$", ast.unparse(last.value.func)) is not None


def images(cell):
    """The texts of a cell's outputs that are shown as an image."""
    shown = [output.get("data", {}) for output in cell.outputs]
    return [data.get("text/plain", "") for data in shown if "image/png" in data]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_short_and_stored_without_outputs(path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    lines = [len("".join(cell["source"]).splitlines()) for cell in cells]
    assert max(lines) <= 30 and sum(lines) <= 150


@pytest.mark.notebooks
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_shows_its_figures_and_warns_of_nothing(path, tmp_path):
    import nbclient
    import nbformat

    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        cell.source = re.sub(r"^EPOCHS = \d+", "EPOCHS = 1", cell.source, flags=re.M)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert any(ends_in_figure(cell.source) for cell in cells)
    for cell in cells:
        assert images(cell) or not ends_in_figure(cell.source), cell.source
        for output in cell.outputs:
            if output.get("name") == "stderr":  # where TensorFlow prints its start-up notes
                # Keras warns of its own default for every tf.data.Dataset.
                assert not re.search(r"Warning: (?!`shuffle=True`)", output.text), output.text
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
    assert [len(images(cell)) for cell in cells] == [0, 1]
