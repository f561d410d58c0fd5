"""The book that `mmkeras book` writes: a page per notebook, a table of contents, a glossary, and a search.

The pages load nothing from another machine: formulas are MathML, figures are inside of the pages, and the
search reads an index beside them. They are read from the disk or from any web server.
"""

import csv
import html
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jinja2
import nbclient
import nbformat
from latex2mathml.converter import convert as mathml
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments.formatters import HtmlFormatter

_ASSETS = Path(__file__).parent
_TITLE = "mmkeras · 多模态大模型"


def write(
    folder: Path, notebooks: Path, execute: bool = True, report: Callable[[str], None] = print
) -> tuple[Path, dict[str, str]]:
    """Writes the pages, and beside them the executed notebooks.

    A notebook that holds outputs is shown as it is. So is its copy in `folder`, if an earlier call has executed
    the same cells.

    Args:
        folder: path. Created if missing.
        notebooks: path. Folder of the notebooks, of `README.md` (the text of the first page) and of
            `glossary.csv` (`english`, `chinese`, and a meaning in each); each of the two may be missing.
        execute: bool. Whether to execute notebooks without outputs. Defaults to `True`.
        report: called with a line of progress. Defaults to `print`.

    Returns:
        The first page, and {notebook: error}: the page of a notebook that fails shows where.

    Raises:
        ValueError: If `notebooks` has no notebook, or is `folder`.
    """
    paths = sorted(notebooks.glob("*.ipynb"))
    if not paths:
        raise ValueError(f"Expected notebooks to be a folder of notebooks. Received: notebooks={notebooks}")
    if folder.resolve() == notebooks.resolve():
        raise ValueError(f"Expected folder to be another one than that of the notebooks. Received: {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    chapters = [{"page": f"{path.stem}.html", "title": _title(path)} for path in paths]
    pages = {path.name: f"{path.stem}.html" for path in paths}
    glossary = notebooks / "glossary.csv"
    if glossary.is_file():
        pages[glossary.name] = "glossary.html"
    render = _Renderer(pages, notebooks)
    write_page = _pages(folder, chapters, has_glossary=glossary.is_file())
    failed, index = {}, []
    for number, (path, chapter) in enumerate(zip(paths, chapters, strict=True)):
        notebook, error = _executed(path, folder / path.name, execute, report)
        if error:
            failed[path.name] = error
        body = render.notebook(notebook)
        sections = _sections(body, chapter)
        index += sections
        previous, following = ([None, *chapters, None][number + step] for step in (0, 2))
        write_page(**chapter, body=body, sections=sections, previous=previous, next=following)
    if glossary.is_file():
        terms = list(csv.DictReader(glossary.read_text(encoding="utf-8").splitlines()))
        for term in terms:
            term["sections"] = _occurrences(term, index)
        write_page("glossary.html", "术语表 · Glossary", terms=terms)
        index += [
            {
                "page": "glossary.html",
                "anchor": f"term-{number}",
                "number": "",
                "title": f"{term['chinese']} · {term['english']}",
                "text": f"{term['english_meaning']} {term['chinese_meaning']}",
            }
            for number, term in enumerate(terms, 1)
        ]
    contents = notebooks / "README.md"
    body = render.markdown(contents.read_text(encoding="utf-8")) if contents.is_file() else ""
    write_page("index.html", _TITLE, body=body, next=chapters[0])
    entries = ",\n".join(json.dumps(section, ensure_ascii=False) for section in index)
    (folder / "search-index.js").write_text(f"const SECTIONS = [{entries}];\n", encoding="utf-8")
    shutil.copy(_ASSETS / "search.js", folder)
    light, dark = (HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("default", "monokai"))
    style = f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n"
    (folder / "style.css").write_text(style + (_ASSETS / "style.css").read_text("utf-8"), encoding="utf-8")
    return folder / "index.html", failed


def _pages(folder, chapters, **shared):
    """A function that writes one page from its parts."""
    template = jinja2.Template((_ASSETS / "page.html").read_text(encoding="utf-8"), autoescape=True)

    def write_page(page, title, **parts):
        text = template.render(page=page, title=title, chapters=chapters, book=_TITLE, **shared, **parts)
        (folder / page).write_text(text, encoding="utf-8")

    return write_page


def _executed(path, kept, execute, report):
    """The notebook with outputs, and the error that stopped it or None."""
    notebook = nbformat.read(path, 4)
    if any(cell.get("outputs") for cell in notebook.cells):
        return notebook, None
    if kept.is_file():
        previous = nbformat.read(kept, 4)
        if [cell.source for cell in previous.cells] == [cell.source for cell in notebook.cells]:
            return previous, None
    if not execute:
        return notebook, None
    report(f"{path.name}: executing")
    start, error = time.perf_counter(), None
    with tempfile.TemporaryDirectory() as scratch:  # for the files that a notebook writes
        try:
            options = {"timeout": None, "coalesce_streams": True, "resources": {"metadata": {"path": scratch}}}
            client = nbclient.NotebookClient(notebook, **options)
            client.execute(stderr=subprocess.DEVNULL)  # notes of the kernel, not of the cells
            nbformat.write(notebook, kept)
        except nbclient.exceptions.CellExecutionError as stopped:
            error = f"{stopped.ename}: {stopped.evalue}"
        except nbclient.exceptions.DeadKernelError as stopped:
            error = str(stopped)
    report(f"{path.name}: {time.perf_counter() - start:.0f} s")
    return notebook, error


def _title(path):
    """The first heading of a notebook, or its name."""
    headings = (re.search(r"^# (.+)", cell.source, flags=re.M) for cell in nbformat.read(path, 4).cells)
    return next((heading[1] for heading in headings if heading), path.stem)


class _Renderer:
    """HTML of notebooks and of Markdown, with links between notebooks as links between pages."""

    def __init__(self, pages, notebooks):
        self.pages, self.folder = pages, notebooks

    def notebook(self, notebook) -> str:
        self.anchors = set()
        exporter = HTMLExporter(
            template_name="basic",
            filters={"markdown2html": self._cell},
            exclude_input_prompt=True,
            exclude_output_prompt=True,
        )
        return exporter.from_notebook_node(notebook)[0]

    def markdown(self, text: str) -> str:
        self.anchors = set()
        return self._cell(text)

    def _cell(self, text):
        renderer = _MarkdownRenderer(self.pages, self.anchors, embed_images=True, path=str(self.folder))
        return MarkdownWithMath(renderer=renderer).render(text)


class _MarkdownRenderer(IPythonRenderer):
    def __init__(self, pages, anchors, **options):
        super().__init__(escape=False, **options)
        self.pages, self.anchors = pages, anchors

    def heading(self, text, level, **attributes):
        name = re.sub(r"\W+", "-", re.sub(r"<[^>]+>", "", text)).strip("-").lower()
        anchor, number = name, 1
        while anchor in self.anchors:  # "Exercise" occurs more than once
            number += 1
            anchor = f"{name}-{number}"
        self.anchors.add(anchor)
        return f'<h{level} id="{anchor}">{text}</h{level}>\n'

    def paragraph(self, text):
        is_chinese = re.search("[，。：；？！]", text)  # the browser takes Chinese glyphs, not Japanese ones
        return f'<p lang="zh-Hans">{text}</p>\n' if is_chinese else super().paragraph(text)

    def link(self, text, url, title=None):
        if url in self.pages:
            url = self.pages[url]
        elif not re.match("https?://|mailto:|#", url):  # a file of the repository, which the book lacks
            return text
        return super().link(text, url, title)

    def inline_math(self, body):
        return mathml(html.unescape(body))

    def block_math(self, body):
        return mathml(html.unescape(body), display="block")


def _sections(body, chapter):
    """The parts of a page, each from a heading to the next, as plain text. A heading without a number has the
    number of the one above."""
    sections, number = [], ""
    _, *parts = re.split(r'<h([1-4]) id="([^"]*)">(.*?)</h\1>', body)
    for level, anchor, title, text in zip(*[iter(parts)] * 4, strict=True):
        title = _plain(title)
        if numbered := re.match(r"\d(\.\d)*", title):
            number = numbered[0] if int(level) < 3 else number  # below, steps are counted: 1. 2. 3.
        place = {"page": chapter["page"], "anchor": anchor, "level": int(level), "number": number}
        sections.append({**place, "title": title, "text": _plain(text)})
    return sections


def _plain(text):
    text = re.sub(r"</?(span|code|a|strong|em|m\w+)\b[^>]*>", "", text)  # inside of a word
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


def _occurrences(term, index):
    """The first section of each page that has a term, in one of the languages."""
    pattern = rf"\b{re.escape(term['english'])}s?\b"
    if len(term["chinese"]) > 1:  # one character is part of many other words
        pattern += f"|{re.escape(term['chinese'])}"
    pattern = re.compile(pattern, re.I)
    found = {}
    for section in index:
        if pattern.search(f"{section['title']} {section['text']}"):
            found.setdefault(section["page"], section)
    return list(found.values())
