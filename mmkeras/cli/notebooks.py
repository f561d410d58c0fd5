"""The commands `mmkeras notebooks` and `mmkeras book`."""

import filecmp
import shutil
from pathlib import Path
from typing import Annotated

import typer

import mmkeras
from mmkeras.cli.app import app, clear_errors

_FOLDER = Path("mmkeras-notebooks")
_EXTRA = "pip install 'mmkeras[notebooks]'"


def source() -> Path:
    """The folder of the notebooks: inside of the installed package, in the repository beside it."""
    package = Path(mmkeras.__file__).parent
    installed = package / "notebooks"
    return installed if installed.is_dir() else package.parent / "notebooks"


@app.command()
def notebooks(
    folder: Annotated[Path, typer.Argument(help="Of the copies.")] = _FOLDER,
    options: Annotated[
        list[str] | None,
        typer.Argument(help="Of JupyterLab, after --: -- --no-browser", metavar="[-- OPTION...]"),
    ] = None,
    start: Annotated[bool, typer.Option(help="Start JupyterLab in the folder.")] = True,
) -> None:
    """Copy the notebooks into a folder and start JupyterLab. What you have changed there is kept."""
    with clear_errors():
        if str(folder).startswith("-"):  # the options of JupyterLab without a folder
            folder, options = _FOLDER, [str(folder), *(options or ())]
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(path for path in source().iterdir() if path.suffix in (".ipynb", ".csv", ".md")):
            copy = folder / path.name
            if not copy.exists():
                shutil.copyfile(path, copy)
            elif not filecmp.cmp(path, copy, shallow=False):
                typer.echo(f"Kept {copy}, which differs from the package's. Rename it to get that one, too.")
        typer.echo(f"The notebooks are in {folder}")
        if start:
            try:
                from jupyterlab.labapp import main as jupyterlab
            except ImportError as error:
                raise ImportError(
                    f"JupyterLab is not installed: {_EXTRA}. --no-start does not need it."
                ) from error
            jupyterlab([str(folder), *(options or ())])


@app.command()
def book(
    folder: Annotated[Path, typer.Argument(help="Of the pages; created if missing.")],
    notebooks: Annotated[
        Path | None, typer.Option(help="Folder of the notebooks; by default those of the package.")
    ] = None,
    execute: Annotated[
        bool, typer.Option(help="Execute the notebooks that have no outputs (minutes each).")
    ] = True,
) -> None:
    """Write the notebooks as a book: HTML with a search and a glossary, which loads nothing from outside."""
    with clear_errors():
        try:
            from mmkeras.cli import book as pages
        except ImportError as error:
            raise ImportError(f"The book needs the package {error.name}: {_EXTRA}") from error
        path, failed = pages.write(folder, notebooks or source(), execute, typer.echo)
        typer.echo(f"Look at {path}")
        if failed:
            typer.echo(f"Notebooks that failed: {len(failed)}. Their pages show where.", err=True)
            for name, error in failed.items():
                typer.echo(f"  {name}: {error}", err=True)
            raise typer.Exit(1)
