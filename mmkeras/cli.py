"""The command line: `mmkeras demo`, `train`, `evaluate`, `predict`.

TensorFlow is loaded inside the commands, so that `mmkeras --help` answers at once.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Multimodal models in Keras: train them, score them, use them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

TASKS = ("captioning",)

Language = Annotated[str, typer.Option(help="en (words) or zh (characters).")]
Source = Annotated[str, typer.Option(help="toy, coco_captions, or a folder of pictures with a captions table.")]


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for the page.")] = Path("mmkeras-demo"),
    language: Language = "en",
    epochs: Annotated[int, typer.Option(help="Passes over the toy pictures.")] = 6,
) -> None:
    """Train image captioning on the toy world and write a page of what it sees (two to three minutes)."""
    with _clear_errors():
        import mmkeras

        output.mkdir(parents=True, exist_ok=True)
        package = mmkeras.captioning
        captioner, data = _train(package, "toy", "toy", language, epochs)
        captioner.save(output / "captioner.keras")
        scores = _score(package, captioner, data)
        section = mmkeras.demo.captioning_section(captioner, data, scores)
        path = mmkeras.demo.write(output, [section])
    typer.echo(f"\nLook at {path}\nUse it: mmkeras predict {output / 'captioner.keras'} photo.jpg")


@app.command()
def train(
    task: Annotated[str, typer.Argument(help="captioning")],
    source: Source = "toy",
    preset: Annotated[str, typer.Option(help="document or toy.")] = "toy",
    language: Language = "en",
    epochs: Annotated[int, typer.Option(min=1)] = 6,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    image_size: Annotated[int | None, typer.Option(help="Pixels; the preset's by default.")] = None,
    weights: Annotated[str, typer.Option(help="auto, imagenet, none, or a file.")] = "auto",
    fine_tune: Annotated[bool | None, typer.Option(help="Let the encoder learn too.")] = None,
    output: Annotated[Path, typer.Option(help="Where the model goes.")] = Path("captioner.keras"),
) -> None:
    """Train a task, score it on the test split, and save it."""
    with _clear_errors():
        package = _task(task)
        if output.suffix != ".keras" or not output.parent.is_dir():
            raise ValueError(
                f"Expected --output to be a .keras file in a folder that exists. Received: {output}"
            )
        overrides: dict[str, Any] = {"weights": None if weights == "none" else weights}
        if image_size is not None:
            overrides["image_size"] = image_size
        if fine_tune is not None:
            overrides["fine_tune"] = fine_tune
        answerer, data = _train(package, source, preset, language, epochs, batch_size, **overrides)
        answerer.save(output)
        typer.echo(f"Saved {output}")
        _score(package, answerer, data)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A .keras file.")],
    source: Source = "toy",
    beams: Annotated[int, typer.Option(min=1, help="1 is greedy.")] = 1,
) -> None:
    """Score a trained model on the test split of a source."""
    with _clear_errors():
        import mmkeras

        answerer = mmkeras.load(model)
        data = mmkeras.captioning.data(
            source,
            language="en" if answerer.vocabulary.unit == "word" else "zh",
            image_size=answerer.image_size,
            vocabulary=answerer.vocabulary,
            max_length=50,  # given, so that the training captions need not be counted
        )
        if data.test is None:
            raise ValueError(f"The source {source!r} has no pictures for testing.")
        _score(mmkeras.captioning, answerer, data, beams=beams)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A .keras file.")],
    inputs: Annotated[list[Path], typer.Argument(help="Pictures.", metavar="INPUT...")],
    beams: Annotated[int, typer.Option(min=1, help="1 is greedy.")] = 1,
    explain: Annotated[
        Path | None, typer.Option(help="Folder for pictures of what each word looked at.")
    ] = None,
) -> None:
    """Answer for one or more inputs: a caption for each picture."""
    with _clear_errors():
        import mmkeras

        answerer = mmkeras.load(model)
        for path, caption in zip(inputs, answerer(inputs, beams=beams), strict=True):
            typer.echo(f"{path}\t{caption}" if len(inputs) > 1 else caption)
        if explain:
            explain.mkdir(parents=True, exist_ok=True)
            for path in inputs:
                answerer.explain(path, beams=beams).plot(explain / f"{path.stem}.png")


def _train(package, source, preset, language, epochs, batch_size=32, **overrides):
    import keras

    keras.utils.set_random_seed(0)
    sizes = {name: value for name, value in overrides.items() if name != "weights"}
    size = package.model.with_overrides(preset, sizes)["image_size"]
    data = package.data(source, language=language, image_size=size, batch_size=batch_size)
    model = package.build(preset, vocabulary=data.vocabulary, **overrides)
    data.refuse_fallback(model)
    data = data.with_features(model)
    model.fit(data.train, validation_data=data.validation, epochs=epochs)
    return package.Captioner(model), data


def _task(name):
    import mmkeras

    if name not in TASKS:
        raise ValueError(f"Expected TASK to be one of {', '.join(TASKS)}. Received: {name}")
    return getattr(mmkeras, name)


def _score(package, answerer, data, **how):
    scores = {}
    for split in ("test", "test_unseen"):
        if getattr(data, split) is not None:
            scores[split] = package.evaluate(answerer, getattr(data, split), **how)
            typer.echo(f"\n{split}")
            for name, value in scores[split].items():
                typer.echo(f"  {name:18} {value:.3f}")
    return scores


class _clear_errors:  # noqa: N801 (reads as a statement: with _clear_errors(): ...)
    """Bad input ends with its message alone, not with a traceback; so do warnings end in one line."""

    def __enter__(self):
        import warnings

        warnings.showwarning = lambda message, *args, **kwargs: typer.echo(f"Note: {message}", err=True)

    def __exit__(self, kind, error, traceback):
        if isinstance(error, ValueError | OSError):
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(2) from error
