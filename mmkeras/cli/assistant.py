"""The command `mmkeras assistant`: a dialog in the terminal, or of the lines that are piped to it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from mmkeras.cli.app import app, clear_errors, load_tensorflow


@app.command()
def assistant(
    language: Annotated[
        str, typer.Option(help="Of clips and of answers to images: en or zh. A text switches it.")
    ] = "en",
    search: Annotated[Path | None, typer.Option(help="Folder of images that 'show me stars' searches.")] = None,
    output: Annotated[Path, typer.Option(help="Folder of the images and sounds.")] = Path("assistant"),
    sound: Annotated[bool, typer.Option(help="Whether to write what it says as sound.")] = True,
) -> None:
    """Talk about colored shapes: each line is a text, or the file of an image or a clip. Ctrl-D ends."""
    with clear_errors():
        load_tensorflow()
        import soundfile
        from PIL import Image

        from mmkeras.applications import Assistant
        from mmkeras.toy import speak

        helper = Assistant(language, search=search, sound=sound)
        output.mkdir(parents=True, exist_ok=True)
        for number, line in enumerate(_lines()):
            try:
                reply = helper(line)
            except (ValueError, OSError) as error:  # of this line only
                typer.echo(f"Error: {error}", err=True)
                continue
            typer.echo(reply.text)
            if reply.image is not None:
                Image.fromarray(reply.image).save(output / f"{number}.png")
                typer.echo(f"  {output / f'{number}.png'}")
            if reply.audio is not None:
                soundfile.write(output / f"{number}.wav", reply.audio, speak.SAMPLE_RATE_HZ)
                typer.echo(f"  {output / f'{number}.wav'}")


def _lines():
    """The lines of stdin, without spaces and quotes around them, with a prompt in a terminal."""
    while True:
        if sys.stdin.isatty():
            typer.echo("> ", nl=False)
        line = sys.stdin.readline()
        if not line:
            return
        yield line.strip().strip("'\"")
