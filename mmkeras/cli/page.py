"""The command `mmkeras page`: the ready-trained models in a page, which needs no server and no network."""

from pathlib import Path
from typing import Annotated

import typer

from mmkeras.cli.app import app, clear_errors, load_tensorflow


@app.command(context_settings={"allow_extra_args": True})
def page(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Folder for the page.")],
    language: Annotated[
        list[str], typer.Option(help="en, zh, or both: --language en zh.", metavar="LANGUAGE...")
    ] = ("en", "zh"),
    single: Annotated[
        bool, typer.Option("--single", help="One file for each language, which opens without a server.")
    ] = False,
) -> None:
    """Write a page that answers in the browser: images, speech, prompts, search. Nothing leaves the machine."""
    with clear_errors():
        load_tensorflow()
        from mmkeras.export import page as export

        files = export.write(folder, [*language, *context.args], single)
        for path in [folder] if not single else files:
            parts = path.rglob("*") if path.is_dir() else [path]
            size = sum(part.stat().st_size for part in parts if part.is_file())
            typer.echo(f"Wrote {path}, {size / 1e6:.1f} MB")
        if single:
            typer.echo(f"Open {files[0].resolve().as_uri()}")
        else:
            typer.echo(f"Open http://127.0.0.1:8000 once this runs: python -m http.server --directory {folder}")
