"""The command line: `mmkeras demo`, `predict`, `train`, `evaluate`, `doctor`, `pretrain`.

TensorFlow is loaded inside the commands, so that `mmkeras --help` answers at once.
"""

import inspect
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from mmkeras._utils import saving, terminal
from mmkeras.tasks import TASKS

app = typer.Typer(
    help="Multimodal models in Keras: train, evaluate and use them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

_NAMES = ", ".join(TASKS)

Task = Annotated[str, typer.Argument(help=_NAMES)]
Model = Annotated[
    str, typer.Argument(help="A .keras file, or the name of a ready-trained model: captioning ...")
]
Language = Annotated[str, typer.Option(help="en or zh.")]
Source = Annotated[
    str, typer.Option(help="toy, a TFDS dataset (coco_captions, librispeech ...), or a folder with a table.")
]
Table = Annotated[str | None, typer.Option(help="Table of a folder; by default its only one.")]
Encoding = Annotated[
    str | None, typer.Option(help="Encoding of the table, such as gb18030 or cp1252; by default UTF-8.")
]
FileColumn = Annotated[str | None, typer.Option(help="Column of the files, a name or a number from 0.")]
TextColumn = Annotated[str | None, typer.Option(help="Column of the texts.")]
ValidationShare = Annotated[float | None, typer.Option(help="For a folder without splits; by default 0.1.")]
TestShare = Annotated[float | None, typer.Option(help="For a folder without splits; by default 0.1.")]
MaxSeconds = Annotated[float | None, typer.Option(help="speech_to_text: longer clips are not trained on.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder of TensorFlow Datasets.")]
Beams = Annotated[int, typer.Option(min=1, help="Width of the beam search; 1 is greedy.")]


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for the page.")] = Path("mmkeras-demo"),
    language: Language = "en",
    train: Annotated[
        str, typer.Option(help=f"What to train from nothing: {_NAMES}, all, or none.")
    ] = "captioning",
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the toy world.")] = None,
) -> None:
    """Show what the ready-trained models answer on a page, then train captioning from nothing (minutes)."""
    with _clear_errors():
        import mmkeras

        names = list(TASKS) if train == "all" else [] if train == "none" else [train]
        for name in names:
            mmkeras.tasks.get(name)
        for model in mmkeras.zoo.NAMES:
            mmkeras.zoo.path(model, language)
        typer.echo("Loading TensorFlow and the ready-trained models (seconds)")
        _load_tensorflow()
        output.mkdir(parents=True, exist_ok=True)
        sections = {TASKS[name].title: _ready_section(name, language) for name in TASKS}
        page = mmkeras.cli.demo.write(output, sections)
        typer.echo(f"Look at {page}")
        mmkeras.cli.demo.show(page)
        for name in names:
            count = epochs or TASKS[name].epochs
            typer.echo(f"\n{TASKS[name].title}: training from nothing, {count} epochs ({TASKS[name].duration})")
            sections[f"{TASKS[name].title}, trained just now"] = _trained_section(
                name, output, language, epochs
            )
            mmkeras.cli.demo.write(output, sections)
            typer.echo(f"Added to {page}")
    typer.echo("\nUse a ready-trained model: mmkeras predict captioning FILE")


@app.command()
def train(
    task: Task,
    source: Source = "toy",
    preset: Annotated[
        str | None, typer.Option(help="toy or document; by default toy for the toy world, else document.")
    ] = None,
    language: Language = "en",
    epochs: Annotated[int | None, typer.Option(min=1, help="By default the epochs for the toy world.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="By default the task's.")] = None,
    image_size: Annotated[
        int | None, typer.Option(help="captioning, text_to_image: in pixels; by default the preset's.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="captioning: auto, imagenet, none, or a file.")] = None,
    fine_tune: Annotated[bool | None, typer.Option(help="captioning: train the encoder, too.")] = None,
    head: Annotated[str | None, typer.Option(help="speech_to_text: attention or ctc.")] = None,
    unit: Annotated[str | None, typer.Option(help="speech_to_text: word or character.")] = None,
    adversarial: Annotated[bool | None, typer.Option(help="text_to_image: a GAN, for sharp images.")] = None,
    output: Annotated[Path | None, typer.Option(help="File of the model, ending in .keras.")] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Folder of checkpoints and logs; by default the output's name with .run."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume an interrupted run.")] = False,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop after this many epochs without a lower validation loss.")
    ] = None,
    warmup_steps: Annotated[
        int | None, typer.Option(min=0, help="Steps of linear warm-up of the learning rate.")
    ] = None,
    precision: Annotated[str, typer.Option(help="auto, float32, mixed_float16, mixed_bfloat16.")] = "auto",
    table: Table = None,
    encoding: Encoding = None,
    file_column: FileColumn = None,
    text_column: TextColumn = None,
    validation_share: ValidationShare = None,
    test_share: TestShare = None,
    max_seconds: MaxSeconds = None,
    data_dir: DataDir = None,
    workers: Annotated[
        str | None,
        typer.Option(help="host:port,host:port: several machines; run this command on each."),
    ] = None,
    index: Annotated[int | None, typer.Option(min=0, help="Index of this worker, from 0.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the weights and of the order of the data.")] = 0,
) -> None:
    """Train a task, save the model, and evaluate it on the test split."""
    with _clear_errors():
        import mmkeras

        registered = mmkeras.tasks.get(task)
        output = output or Path(registered.file)
        given = {
            "image_size": image_size,
            "weights": weights,
            "fine_tune": fine_tune,
            "head": head,
            "unit": unit,
            "adversarial": adversarial,
        }
        options = _given(**given)
        if foreign := options.keys() - set(registered.options):
            raise ValueError(
                f"{task} does not take {', '.join('--' + name.replace('_', '-') for name in sorted(foreign))}."
            )
        if weights and weights.lower() == "none":
            options["weights"] = None
        run = run or output.with_suffix(".run")
        saving.check_path(output)
        _load_tensorflow()
        from mmkeras.training import checkpoint

        strategy = mmkeras.distribute.strategy(workers=workers, index=index)
        mmkeras.distribute.share_on_jax()
        with mmkeras.distribute.clear_failures():
            # before the data, which can take long
            if mmkeras.distribute.is_chief(strategy):
                checkpoint.check_folder(run, resume)
            if batch_size:
                mmkeras.distribute.describe_batch(batch_size, strategy)
            answerer, data = mmkeras.training.train_task(
                task,
                source,
                preset=preset,
                language=language,
                epochs=epochs,
                batch_size=batch_size,
                precision=precision,
                strategy=strategy,
                data_options=_given(
                    table=table,
                    encoding=encoding,
                    file_column=file_column,
                    text_column=text_column,
                    validation_share=validation_share,
                    test_share=test_share,
                    max_seconds=max_seconds,
                    data_dir=data_dir and str(data_dir),
                ),
                run=run,
                resume=resume,
                patience=patience,
                warmup_steps=warmup_steps,
                seed=seed,
                **options,
            )
            is_ours = _saved(answerer, output, strategy)
        if is_ours:
            typer.echo(f"Saved {output}")
            _score(mmkeras.load(output), data)


@app.command()
def evaluate(
    model: Model,
    source: Source = "toy",
    language: Annotated[str | None, typer.Option(help="en or zh; by default the model's.")] = None,
    beams: Beams = 1,
    table: Table = None,
    encoding: Encoding = None,
    file_column: FileColumn = None,
    text_column: TextColumn = None,
    validation_share: ValidationShare = None,
    test_share: TestShare = None,
    data_dir: DataDir = None,
) -> None:
    """Evaluate a trained model on the test split of a source."""
    with _clear_errors():
        import mmkeras

        answerer = _load(model, language or "en")
        decoding = _beams(answerer, beams)
        options = _given(
            table=table,
            encoding=encoding,
            file_column=file_column,
            text_column=text_column,
            validation_share=validation_share,
            test_share=test_share,
            data_dir=data_dir and str(data_dir),
        )
        data = mmkeras.tasks.package(answerer).data(
            source, language=language or _language(answerer), **answerer.data_options, **options
        )
        if data.test is None:
            raise ValueError(f"Expected a source with a test split. Received: source={source!r}")
        _score(answerer, data, **decoding)


@app.command()
def doctor(
    model: Model,
    source: Annotated[
        str | None, typer.Argument(help="What it was trained on, as --source of train; by default unknown.")
    ] = None,
    language: Annotated[str | None, typer.Option(help="en or zh; by default the model's.")] = None,
    table: Table = None,
    encoding: Encoding = None,
    file_column: FileColumn = None,
    text_column: TextColumn = None,
    data_dir: DataDir = None,
) -> None:
    """Say why a model does not learn: looks at the model and its data, and prints one page."""
    with _clear_errors():
        import mmkeras

        answerer = _load(model, language or "en")
        data = None
        if source is not None:
            # the length that fits the captions, so that their padding is that of training
            options = {name: value for name, value in answerer.data_options.items() if name != "max_length"}
            options |= _given(
                table=table,
                encoding=encoding,
                file_column=file_column,
                text_column=text_column,
                data_dir=data_dir and str(data_dir),
            )
            language = language or _language(answerer)
            data = mmkeras.tasks.package(answerer).data(source, language=language, **options)
        typer.echo(mmkeras.training.diagnose(answerer, data))


@app.command()
def predict(
    model: Model,
    inputs: Annotated[list[str], typer.Argument(help="Images, clips or prompts.", metavar="INPUT...")],
    language: Annotated[str, typer.Option(help="Of a ready-trained model: en or zh.")] = "en",
    beams: Beams = 1,
    output: Annotated[Path, typer.Option(help="Folder of generated images.")] = Path("generated"),
    seed: Annotated[int, typer.Option(help="Seed of the noise of text_to_image.")] = 0,
    explain: Annotated[Path | None, typer.Option(help="Folder of plots that explain each answer.")] = None,
) -> None:
    """Answer each input: a caption for an image, a transcript for a clip, an image for a prompt."""
    with _clear_errors():
        answerer = _load(model, language)
        if explain and not hasattr(answerer, "explain"):
            raise ValueError(f"Expected no --explain for {answerer.model.name}. Received: --explain {explain}")
        options = _beams(answerer, beams) | ({"seed": seed} if _has_images(answerer) else {})
        answers = answerer(inputs, **options)
        if _has_images(answerer):
            answers = [
                None if image is None else _save_image(output, number, image)
                for number, image in enumerate(answers)
            ]
        for given, answer in zip(inputs, answers, strict=True):
            if isinstance(answer, dict):
                answer = ", ".join(f"{attribute}: {name}" for attribute, name in answer.items())
            if answer is not None:  # None for an unreadable input, which a warning has named
                typer.echo(f"{given}\t{answer}" if len(inputs) > 1 else answer)
        if explain:
            explain.mkdir(parents=True, exist_ok=True)
            names = [
                f"{number}" if _has_images(answerer) else Path(text).stem for number, text in enumerate(inputs)
            ]
            if len(set(names)) < len(names):  # a file given twice, or the same name in several folders
                names = [f"{number}_{name}" for number, name in enumerate(names)]
            for name, given, answer in zip(names, inputs, answers, strict=True):
                if answer is not None:
                    answerer.explain(given, **options).plot(explain / f"{name}.png")


@app.command()
def pretrain(
    names: Annotated[
        list[str] | None, typer.Argument(help="Models, see mmkeras.zoo; all by default.", metavar="[NAME]...")
    ] = None,
    language: Language = "en",
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds; the best by validation is kept.")] = 2,
    folder: Annotated[Path | None, typer.Option(help="Of the models; by default that of the package.")] = None,
) -> None:
    """Train ready-trained models again from nothing (a quarter of an hour to hours)."""
    with _clear_errors():
        _load_tensorflow()
        from mmkeras.zoo import recipes

        # the classifier first: it scores the generators
        for name in names or sorted(recipes.RECIPES):
            typer.echo(f"{name}, {language}: {seeds} seeds")
            card = recipes.pretrain(name, language, seeds=range(seeds), **_given(folder=folder))
            typer.echo(f"Saved {card['file']}, {card['megabytes']} MB: {card['scores']['test']}")


def _load_tensorflow():
    """Loads it without its start-up notes. A command does so after the checks that need no TensorFlow."""
    with terminal.quiet_stderr():
        import keras  # noqa: F401
        import tensorflow  # noqa: F401


def _load(model, language):
    """What answers with a file, or with the ready-trained model of that name."""
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
    _load_tensorflow()
    return mmkeras.pretrained(model, language) if is_name else mmkeras.load(model)


def _language(answerer):
    """The language of the model's vocabulary; a classifier has none."""
    from mmkeras.data.vocabulary import has_no_spaces

    words = answerer.vocabulary.words if hasattr(answerer, "vocabulary") else ()
    return "zh" if any(map(has_no_spaces, words)) else "en"


def _ready_section(name, language):
    """The section of the page about the ready-trained model of a task."""
    import mmkeras

    models = {name: name}
    if name == "text_to_image":
        models = {"pixel loss": "text_to_image_pixels", "adversarial": "text_to_image"}
    answerers = {kind: mmkeras.pretrained(model, language) for kind, model in models.items()}
    scores = {
        (f"{kind}, {split}" if len(models) > 1 else split): mmkeras.zoo.card(model, language)["scores"][split]
        for kind, model in models.items()
        for split in ("test", "test_unseen")
    }
    section = getattr(mmkeras.cli.demo, TASKS[name].section)
    return section(answerers if len(models) > 1 else answerers[name], scores, language)


def _trained_section(name, output, language, epochs):
    """Trains a task and saves the model. Text to image is trained with the pixel loss and adversarially; one
    classifier evaluates both."""
    import mmkeras

    kinds = {"pixel loss": {}, "adversarial": {"adversarial": True}} if name == "text_to_image" else {name: {}}
    answerers, scores, options = {}, {}, {}
    for kind, overrides in kinds.items():
        if len(kinds) > 1:
            typer.echo(f"{kind}:")
        answerer, data = mmkeras.training.train_task(name, language=language, epochs=epochs, **overrides)
        file = TASKS[name].file if kind != "pixel loss" else "image_generator_plain.keras"
        answerer.save(output / file)
        typer.echo(f"Saved {output / file}")
        if name == "text_to_image" and not options:
            options["classifier"] = _classifier(data)
        by_split = _score(answerer, data, **options)
        scores |= {f"{kind}, {s}" if len(kinds) > 1 else s: values for s, values in by_split.items()}
        answerers[kind] = answerer
    section = getattr(mmkeras.cli.demo, TASKS[name].section)
    return section(answerers if len(kinds) > 1 else answerer, scores, language)


def _classifier(data):
    import mmkeras

    typer.echo("classifier: training on real images")
    return mmkeras.text_to_image.train_classifier(data)


def _given(**options):
    return {name: value for name, value in options.items() if value is not None}


def _has_images(answerer):
    return answerer.model.name == "text_to_image"


def _beams(answerer, beams):
    """The option of a model that generates text. Raises ValueError if another one is given beams."""
    if answerer.model.name in ("captioning", "speech_to_text"):
        return {"beams": beams}
    if beams != 1:
        raise ValueError(f"Expected no --beams for {answerer.model.name}. Received: --beams {beams}")
    return {}


def _save_image(folder, number, image):
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{number}.png"
    Image.fromarray(image).save(path)
    return path


def _saved(answerer, output, strategy):
    """Whether this worker is the one that writes the file. All workers take part in reading the weights."""
    import tempfile

    import mmkeras

    if mmkeras.distribute.is_chief(strategy):
        answerer.save(output)
        return True
    with tempfile.TemporaryDirectory() as folder:
        answerer.save(Path(folder) / output.name)
    return False


def _score(answerer, data, **options):
    import mmkeras

    scores, package = {}, mmkeras.tasks.package(answerer)
    evaluate = (
        package.evaluate_classifier if answerer.model.name == "attribute_classifier" else package.evaluate
    )
    if _has_images(answerer) and data.attributes and "classifier" not in options:
        options["classifier"] = _classifier(data)
    for split in ("test", "test_unseen"):
        if getattr(data, split) is not None:
            scores[split] = evaluate(answerer, getattr(data, split), **options)
            typer.echo(f"\n{split}")
            for name, value in scores[split].items():
                typer.echo(f"  {name:18} {value:.4f}")
    return scores


class _clear_errors:  # noqa: N801 (reads as a statement: with _clear_errors(): ...)
    """Bad input ends with the message of its error, without a traceback; a warning is one line. Messages name
    options as the command line does, --file-column for file_column. Every answer can be written."""

    def __enter__(self):
        warnings.showwarning = lambda message, *args, **kwargs: _print(f"Note: {message}")
        # Windows redirects in a code page that lacks most letters. Those that a terminal lacks, or an encoding
        # that the user chose, become "?".
        is_free = not sys.stdout.isatty() and "PYTHONIOENCODING" not in os.environ
        sys.stdout.reconfigure(encoding="utf-8" if is_free else None, errors="replace")

    def __exit__(self, kind, error, traceback):
        if isinstance(error, ValueError | OSError | ImportError):
            _print(f"Error: {error}")
            raise typer.Exit(2) from error
        if isinstance(error, KeyboardInterrupt):
            typer.echo(f"\n{error}" if str(error) else "\nStopped.", err=True)
            raise typer.Exit(130) from error


def _print(message):
    commands = [inspect.signature(command.callback).parameters for command in app.registered_commands]
    options = {name for command in commands for name, given in command.items() if given.default != given.empty}

    def option(match):
        name, value = match.groups()
        if name not in options:
            return match[0]
        return f"--{name.replace('_', '-')}{'' if value else '='}"

    typer.echo(re.sub(r"(?<![\w.-])(\w+)=(True\b)?", option, message), err=True)
