"""`mmkeras notebooks` copies the notebooks, `mmkeras book` writes them as HTML."""

import csv
import html.parser
import json
import re
import sys
import urllib.parse
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from mmkeras.cli import main as cli

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


@pytest.fixture
def invoke(capsys):
    """Runs the command in this process. Returns its status and all that it printed."""

    def run_here(*arguments):
        with pytest.raises(SystemExit) as caught:
            cli.app(list(map(str, arguments)))
        return caught.value.code, "".join(capsys.readouterr())

    return run_here


@pytest.fixture
def tiny(tmp_path):
    """A folder of two notebooks, a table of contents, and a glossary."""
    from nbformat import v4, write

    folder = tmp_path / "notebooks"
    folder.mkdir()
    first = [
        v4.new_markdown_cell("# 1. 甲 · One\n\n![a dot](dot.png) $x_1 < \\frac{1}{2}$\n\n$$f(x) = x$$"),
        v4.new_code_cell("Path = 6 * 7\nprint('answer', Path)"),
        v4.new_markdown_cell("## 练习 · Exercise\n\n见[下一章](02_two.ipynb)。[data](../data/README.md)"),
        v4.new_markdown_cell("## 练习 · Exercise\n\nThe attention of a zebra. 斑马。"),
    ]
    second = [v4.new_markdown_cell("# 2. 乙 · Two"), v4.new_code_cell("1 + 1"), v4.new_code_cell("1 / 0")]
    for name, cells in (("01_one", first), ("02_two", second)):
        write(v4.new_notebook(cells=cells), folder / f"{name}.ipynb")
    header = "english,chinese,english_meaning,chinese_meaning\n"
    (folder / "glossary.csv").write_text(f"{header}attention,注意力,a sum,和\nmask,掩码,hides,遮盖\n", "utf-8")
    (folder / "README.md").write_text("# 目录\n\n[一](01_one.ipynb) [words](glossary.csv)\n", "utf-8")
    Image.new("RGB", (2, 2)).save(folder / "dot.png")
    return folder


class Page(html.parser.HTMLParser):
    """The links, the loaded files, and the anchors of a page, and the text outside of tags."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loaded, self.anchors, self.text = [], [], [], ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.anchors += [attributes["id"]] if "id" in attributes else []
        if tag == "a":
            self.links.append(attributes["href"])
        else:
            self.loaded += [
                attributes[name] for name in ("href", "src", "srcset", "data") if name in attributes
            ]

    def handle_data(self, data):
        self.text += data


def check_links(folder):
    """Each link of each page has its file and its anchor. Nothing is loaded from elsewhere."""
    pages = {path.name: Page(path) for path in folder.glob("*.html")}
    for name, page in pages.items():
        assert len(set(page.anchors)) == len(page.anchors), name
        for url in page.loaded:
            assert url.startswith("data:image/") or (folder / url).is_file(), f"{name}: {url[:80]}"
        for url in page.links:
            if not url.startswith(("http://", "https://")):
                target, anchor = urllib.parse.unquote(url).partition("#")[::2]
                assert (folder / (target or name)).is_file(), f"{name}: {url}"
                assert not anchor or anchor in pages[target or name].anchors, f"{name}: {url}"
    for path in (*folder.glob("*.css"), *folder.glob("*.js"), *folder.glob("*.html")):
        text = path.read_text(encoding="utf-8") if path.name != "search-index.js" else ""
        assert not re.search(r"@import|url\(|\bfetch\(|\bimport\(|XMLHttpRequest", text), path.name
    for section in search_index(folder):
        assert section["anchor"] in pages[section["page"]].anchors
    return pages


def search_index(folder):
    text = (folder / "search-index.js").read_text(encoding="utf-8")
    return json.loads(text.removeprefix("const SECTIONS = ").removesuffix(";\n"))


@pytest.mark.notebooks
def test_the_book_executes_notebooks_and_shows_where_one_fails(tiny, tmp_path, invoke, monkeypatch):
    folder = tmp_path / "book"
    status, printed = invoke("book", folder, "--notebooks", tiny)
    assert (
        status == 1
        and "02_two.ipynb: ZeroDivisionError" in printed
        and "01_one" not in printed.split("failed")[1]
    )
    pages = check_links(folder)
    one, two = pages["01_one.html"], pages["02_two.html"]
    assert "answer 42" in one.text and "ZeroDivisionError" in two.text
    assert "02_two.html" in one.links and "01_one.html" in two.links  # previous and next
    assert one.loaded[-1].startswith("data:image/png") and "../data/README.md" not in one.links
    body = (folder / "01_one.html").read_text(encoding="utf-8")
    assert body.count("<math") == 2 and "<mfrac>" in body and "$" not in one.text
    assert '<p lang="zh-Hans">见' in body
    # What was executed is not executed again, but what has failed is.
    status, printed = invoke("book", folder, "--notebooks", tiny)
    assert status == 1 and "01_one" not in printed and "02_two.ipynb: executing" in printed
    assert "answer 42" in Page(folder / "01_one.html").text


@pytest.mark.notebooks
def test_the_glossary_and_the_search_lead_to_the_sections(tiny, tmp_path, invoke):
    folder = tmp_path / "book"
    assert invoke("book", folder, "--notebooks", tiny, "--no-execute")[0] == 0
    pages = check_links(folder)
    assert "01_one.html#练习-exercise-2" in pages["glossary.html"].links  # attention; no section names a mask
    (found,) = (section for section in search_index(folder) if "zebra" in section["text"])
    assert found["title"] == "练习 · Exercise" and found["number"] == "1" and "斑马" in found["text"]


@pytest.mark.notebooks
def test_the_book_of_the_package_has_no_broken_link(tmp_path, invoke):
    status, printed = invoke("book", tmp_path / "book", "--no-execute")
    assert status == 0, printed
    pages = check_links(tmp_path / "book")
    assert {f"{path.stem}.html" for path in NOTEBOOKS.glob("*.ipynb")} <= set(pages["index.html"].links)
    assert "$" not in pages["04_formulas.html"].text


@pytest.mark.notebooks
def test_the_book_refuses_the_folder_of_its_notebooks(tiny, tmp_path, invoke):
    status, printed = invoke("book", tiny, "--notebooks", tiny)
    assert status == 2 and str(tiny) in printed
    status, printed = invoke("book", tmp_path / "book", "--notebooks", tmp_path)
    assert status == 2 and f"notebooks={tmp_path}" in printed


def test_notebooks_are_copied_and_changed_ones_kept(tmp_path, invoke):
    folder = tmp_path / "mine"
    status, printed = invoke("notebooks", folder, "--no-start")
    assert status == 0 and "Kept" not in printed
    names = {path.name for path in NOTEBOOKS.glob("*.*") if path.suffix in (".ipynb", ".csv", ".md")}
    assert {path.name for path in folder.iterdir()} == names
    changed = folder / "04_formulas.ipynb"
    changed.write_text("mine", encoding="utf-8")
    (folder / "03_three_methods.ipynb").unlink()
    status, printed = invoke("notebooks", folder, "--no-start")
    assert status == 0 and printed.count("Kept") == 1 and f"Kept {changed}" in printed
    assert changed.read_text(encoding="utf-8") == "mine" and (folder / "03_three_methods.ipynb").is_file()


def test_jupyterlab_is_started_in_the_folder_and_named_if_missing(tmp_path, invoke, monkeypatch):
    started = []
    monkeypatch.setitem(sys.modules, "jupyterlab", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "jupyterlab.labapp", SimpleNamespace(main=started.append))
    monkeypatch.chdir(tmp_path)
    assert invoke("notebooks", tmp_path, "--", "--no-browser")[0] == 0
    assert invoke("notebooks", "--", "--no-browser", "--ip=*")[0] == 0
    assert started == [[str(tmp_path), "--no-browser"], ["mmkeras-notebooks", "--no-browser", "--ip=*"]]
    monkeypatch.setitem(sys.modules, "jupyterlab.labapp", None)  # an import of it fails
    status, printed = invoke("notebooks", tmp_path)
    assert status == 2 and "mmkeras[notebooks]" in printed and len(started) == 2


def test_the_glossary_names_each_term_once_in_both_languages():
    with open(NOTEBOOKS / "glossary.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    terms = [row["english"] for row in rows]
    assert 60 <= len(rows) <= 120 and terms == sorted(set(terms), key=str.lower)
    assert all(re.search("[\u4e00-\u9fff]", row["chinese"]) and all(row.values()) for row in rows)
