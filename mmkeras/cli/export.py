"""The command `mmkeras export`: a model for use without mmkeras."""

from pathlib import Path
from typing import Annotated

import typer

from mmkeras.cli.app import app, clear_errors, load_model


@app.command()
def export(
    model: Annotated[
        str, typer.Argument(help="A .keras file, or the name of a ready-trained model: captioning ...")
    ],
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    format: Annotated[str, typer.Option(help="onnx or saved_model.")] = "onnx",
    half: Annotated[bool, typer.Option("--half", help="Store weights as float16: half the size.")] = False,
    language: Annotated[str, typer.Option(help="Of a ready-trained model: en or zh.")] = "en",
) -> None:
    """Write a model for onnxruntime or TensorFlow alone, with a run.py that answers. It is checked."""
    with clear_errors():
        for part, difference in load_model(model, language).export(folder, format, half=half).items():
            typer.echo(f"{part}: differs from the model by at most {difference:.1g}")
        typer.echo(f"Run it: python {folder / 'run.py'} FILE")
