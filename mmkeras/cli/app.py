"""The application that the commands belong to, and their errors: one line each, without a traceback."""

import inspect
import os
import re
import sys
import warnings
from collections.abc import Collection
from pathlib import Path

import typer

from mmkeras._utils import terminal

app = typer.Typer(
    help="Multimodal models in Keras: train, evaluate and use them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class clear_errors:  # noqa: N801 (reads as a statement: with clear_errors(): ...)
    """Bad input ends with the message of its error, without a traceback; a warning is one line. Messages name
    options as the command line does, --batch-size for batch_size. Every answer can be written."""

    def __init__(self):
        commands = [inspect.signature(command.callback).parameters for command in app.registered_commands]
        self.options = {
            name for command in commands for name, given in command.items() if given.default != given.empty
        }

    def __enter__(self):
        warnings.showwarning = lambda message, *args, **kwargs: _print(f"Note: {message}", self.options)
        # Windows redirects in a code page that lacks most letters. Those that a terminal lacks, or an encoding
        # that the user chose, become "?".
        is_free = not sys.stdout.isatty() and "PYTHONIOENCODING" not in os.environ
        sys.stdout.reconfigure(encoding="utf-8" if is_free else None, errors="replace")

    def __exit__(self, kind, error, traceback):
        if isinstance(error, ValueError | OSError | ImportError):
            _print(f"Error: {error}", self.options)
            raise typer.Exit(2) from error
        if isinstance(error, KeyboardInterrupt):
            typer.echo(f"\n{error}" if str(error) else "\nStopped.", err=True)
            raise typer.Exit(130) from error


def load_tensorflow() -> None:
    """Loads it without its start-up notes. A command does so after the checks that need no TensorFlow."""
    with terminal.quiet_stderr():
        import keras  # noqa: F401
        import tensorflow  # noqa: F401


def _print(message: str, options: Collection[str]) -> None:
    def option(match):
        name, value = match.groups()
        if name not in options:
            return match[0]
        return f"--{name.replace('_', '-')}{'' if value else '='}"

    typer.echo(re.sub(r"(?<![\w.-])(\w+)=(True\b)?", option, message), err=True)


def load_model(model: str, language: str = "en"):
    """The predictor in a file, or the ready-trained one of that name."""
    import mmkeras

    is_name = model in mmkeras.zoo.NAMES
    if not is_name and not Path(model).suffix:
        raise ValueError(
            f"Expected MODEL to be a .keras file or one of {', '.join(mmkeras.zoo.NAMES)}. Received: {model}"
        )
    if is_name:
        mmkeras.zoo.path(model, language)
    else:
        mmkeras.tasks.check_file(Path(model))
    load_tensorflow()
    return mmkeras.pretrained(model, language) if is_name else mmkeras.load(model)
