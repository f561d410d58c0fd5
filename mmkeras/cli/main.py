"""The command line: `mmkeras demo`, `predict`, `train`, `evaluate`, `doctor`, `search`, `assistant`,
`export`, `page`, `notebooks`, `book`, `pretrain`.

TensorFlow is loaded inside the commands, so that `mmkeras --help` answers at once.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from mmkeras._utils import presets, saving
from mmkeras.cli import assistant, export, notebooks, page, search  # noqa: F401 (add their commands)
from mmkeras.cli.app import app, clear_errors, load_model, load_tensorflow
from mmkeras.tasks import TASKS

_NAMES = ", ".join(TASKS)

Task = Annotated[str, typer.Argument(help=_NAMES)]
Model = Annotated[
    str, typer.Argument(help="A .keras file, or the name of a ready-trained model: captioning ...")
]
Language = Annotated[str, typer.Option(help="en or zh.")]
Source = Annotated[
    str, typer.Option(help="toy, a TFDS dataset (coco_captions, librispeech ...), or a folder with a table.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any option of the source, such as table=captions.csv."),
]
Beams = Annotated[int | None, typer.Option(min=1, help="Width of the beam search; 1 is greedy.")]


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for the page.")] = Path("mmkeras-demo"),
    language: Language = "en",
    train: Annotated[
        str, typer.Option(help="What to train from scratch: captioning ..., all, or none.")
    ] = "captioning",
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the toy world.")] = None,
) -> None:
    """Write a page with answers of the ready-trained models, then train captioning from scratch (minutes)."""
    with clear_errors():
        import mmkeras

        page = mmkeras.cli.demo
        shown = [name for name in TASKS if page.has_section(name)]
        names = {"all": shown, "none": []}.get(train, [train])
        if set(names) - set(shown):
            known = ", ".join([*shown, "all", "none"])
            raise ValueError(f"Expected --train to be one of {known}. Received: --train {train}")
        for model in mmkeras.zoo.NAMES:
            mmkeras.zoo.path(model, language)
        typer.echo("Loading TensorFlow and the ready-trained models (seconds)")
        load_tensorflow()
        output.mkdir(parents=True, exist_ok=True)
        kinds = {name: mmkeras.tasks.get(name) for name in shown}
        sections = {kind.title: page.ready_section(name, language) for name, kind in kinds.items()}
        sections["In the browser"] = page.browser_section(output)
        path = page.write(output, sections)
        typer.echo(f"Look at {path}")
        page.show(path)
        for name in names:
            kind = mmkeras.tasks.get(name)
            title, count = kind.title, epochs or kind.epochs
            typer.echo(f"\n{title}: training from scratch, {count} epochs ({kind.duration})")
            sections[f"{title}, trained just now"] = _trained_section(name, kind, output, language, epochs)
            page.write(output, sections)
            typer.echo(f"Added to {path}")
    typer.echo("\nUse a ready-trained model: mmkeras predict captioning FILE")


@app.command()
def train(
    task: Task,
    source: Source = "toy",
    preset: Annotated[
        str | None,
        typer.Option(
            help="toy, small or document; by default toy for the toy world, small for emoji, else document."
        ),
    ] = None,
    language: Annotated[str | None, typer.Option(help="en or zh; by default en, of image_search both.")] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="By default those for the toy world, or more if the examples are few."),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="By default the task's.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any option of the model, its data or the source, several times: units=256, head=ctc, "
            "encoder=convnext_tiny, augment=true, adversarial=true, table=captions.csv ...",
        ),
    ] = None,
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
    workers: Annotated[
        str | None,
        typer.Option(help="host:port,host:port: several machines; run this command on each."),
    ] = None,
    index: Annotated[int | None, typer.Option(min=0, help="Index of this worker, from 0.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the weights and of the order of the data.")] = 0,
) -> None:
    """Train a task, save the model, and evaluate it on the test split."""
    with clear_errors():
        import mmkeras

        mmkeras.tasks.check(task)
        if output:
            saving.check_path(output)
        load_tensorflow()
        from mmkeras.training import checkpoint

        options = mmkeras.training.parse_options(task, source, settings or ())
        output = output or Path(mmkeras.tasks.get(task).file)
        saving.check_path(output)
        run = run or output.with_suffix(".run")
        strategy = mmkeras.distribute.strategy(workers=workers, index=index)
        mmkeras.distribute.share_on_jax()
        with mmkeras.distribute.clear_failures():
            # before the data, which can take long
            if mmkeras.distribute.is_chief(strategy):
                checkpoint.check_folder(run, resume)
            if batch_size:
                mmkeras.distribute.describe_batch(batch_size, strategy)
            predictor, data = mmkeras.training.train_task(
                task,
                source,
                preset=preset,
                language=language,
                epochs=epochs,
                batch_size=batch_size,
                precision=precision,
                strategy=strategy,
                run=run,
                resume=resume,
                patience=patience,
                warmup_steps=warmup_steps,
                seed=seed,
                **options,
            )
            is_chief = mmkeras.distribute.write_once(predictor.save, output, strategy)
        if is_chief:
            typer.echo(f"Saved {output}")
            _score(mmkeras.load(output), data)


@app.command()
def evaluate(
    model: Model,
    source: Source = "toy",
    language: Annotated[str | None, typer.Option(help="en or zh; by default the model's.")] = None,
    beams: Beams = None,
    settings: Set = None,
) -> None:
    """Evaluate a trained model on the test split of a source."""
    with clear_errors():
        predictor = load_model(model, language or "en")
        decoding = _decoding(predictor, beams)
        data = _data(predictor, source, language, settings)
        if data.test is None:
            raise ValueError(f"Expected a source with a test split. Received: source={source!r}")
        _score(predictor, data, **decoding)


@app.command()
def doctor(
    model: Model,
    source: Annotated[
        str | None, typer.Argument(help="What it was trained on, as --source of train; by default unknown.")
    ] = None,
    language: Annotated[str | None, typer.Option(help="en or zh; by default the model's.")] = None,
    settings: Set = None,
) -> None:
    """Check a model and its data for the usual reasons why it does not learn, and print one page."""
    with clear_errors():
        import mmkeras

        predictor = load_model(model, language or "en")
        # the length that fits the captions, so that their padding is that of training
        data = source and _data(predictor, source, language, settings, without="max_length")
        typer.echo(mmkeras.training.diagnose(predictor, data))


@app.command()
def predict(
    model: Model,
    inputs: Annotated[list[str], typer.Argument(help="Images, clips or prompts.", metavar="INPUT...")],
    language: Annotated[str, typer.Option(help="Of a ready-trained model: en or zh.")] = "en",
    beams: Beams = None,
    output: Annotated[Path, typer.Option(help="Folder of generated images.")] = Path("generated"),
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Any option of the answer: temperature=0.7, seed=3 ..."
        ),
    ] = None,
    explain: Annotated[Path | None, typer.Option(help="Folder of plots that explain each answer.")] = None,
) -> None:
    """Answer each input: a caption for an image, a transcript for a clip, an image for a prompt."""
    with clear_errors():
        predictor = load_model(model, language)
        if explain and (not hasattr(predictor, "explain") or predictor.inputs == "queries"):
            raise ValueError(f"Expected no --explain for {predictor.model.name}. Received: --explain {explain}")
        options = _decoding(predictor, beams, settings)
        answers = predictor(inputs, **options)
        if predictor.output == "image":
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
            are_texts = predictor.inputs == "prompts"
            names = [f"{number}" if are_texts else Path(text).stem for number, text in enumerate(inputs)]
            if len(set(names)) < len(names):  # a file given twice, or the same name in several folders
                names = [f"{number}_{name}" for number, name in enumerate(names)]
            for name, given, answer in zip(names, inputs, answers, strict=True):
                if answer is not None:
                    predictor.explain(given, **options).plot(explain / f"{name}.png")
                    typer.echo(f"Saved {explain / name}.png", err=True)


@app.command()
def pretrain(
    names: Annotated[
        list[str] | None, typer.Argument(help="Models, see mmkeras.zoo; all by default.", metavar="[NAME]...")
    ] = None,
    language: Language = "en",
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds; the best by validation is kept.")] = 2,
    folder: Annotated[Path | None, typer.Option(help="Of the models; by default that of the package.")] = None,
) -> None:
    """Train ready-trained models again from scratch (a quarter of an hour to hours)."""
    with clear_errors():
        load_tensorflow()
        from mmkeras import zoo
        from mmkeras.zoo import recipes

        # the classifier first: it scores the generators
        for name in names or sorted(recipes.RECIPES):
            typer.echo(f"{name}, {language}: {seeds} seeds")
            card = recipes.pretrain(name, language, seeds=range(seeds), folder=folder or zoo.FOLDER)
            typer.echo(f"Saved {card['file']}, {card['megabytes']} MB: {card['scores']['test']}")


def _data(predictor, source, language, settings, without=None):
    """The data of a source that fit a model."""
    import mmkeras

    fitting = {name: value for name, value in predictor.data_options.items() if name != without}
    options = mmkeras.training.parse_options(predictor.model.name, source, settings or (), of_model=False)
    package = mmkeras.tasks.package(predictor.model.name)
    if language := language or predictor.language:
        options["language"] = language
    return package.data(source, **fitting | options)


def _trained_section(name, kind, output, language, epochs):
    """Trains the models of a task and saves them. All are scored by the same classifier, if there is one."""
    import mmkeras

    predictors, scores, options = {}, {}, None
    for variant, (model, overrides) in kind.variants.items():
        if has_variants := len(kind.variants) > 1:
            typer.echo(f"{variant}:")
        predictor, data = mmkeras.training.train_task(name, language=language, epochs=epochs, **overrides)
        file = output / (f"{model}.keras" if has_variants else kind.file)
        predictor.save(file)
        typer.echo(f"Saved {file}. Use it: {mmkeras.cli.demo.usage(predictor.inputs, file, language)}")
        if options is None:
            options = predictor.evaluation_options(data)
        by_split = _score(predictor, data, **options)
        scores |= {f"{variant}, {s}" if has_variants else s: values for s, values in by_split.items()}
        predictors[variant] = predictor
    return mmkeras.cli.demo.section(name, predictors, scores, language)


def _decoding(predictor, beams, settings=None):
    """The options given to the command for an answer. Raises ValueError for others than the model takes."""
    if beams is not None and "beams" not in predictor.options:
        raise ValueError(f"Expected no --beams for {predictor.model.name}. Received: --beams {beams}")
    known = presets.keywords(type(predictor).__call__) | dict.fromkeys(predictor.options, Any)
    return presets.parse(settings or (), known) | ({} if beams is None else {"beams": beams})


def _save_image(folder, number, image):
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{number}.png"
    Image.fromarray(image).save(path)
    return path


def _score(predictor, data, **options):
    import mmkeras

    scores, options = {}, options or predictor.evaluation_options(data)
    for split in (name for name in data.splits if name.startswith("test")):
        scores[split] = predictor.evaluate(getattr(data, split), **options)
        title = mmkeras.cli.demo.TITLES.get(split) if data.source == "toy" else None
        typer.echo(f"\n{split}: {title}" if title else f"\n{split}")
        for name, value in scores[split].items():
            typer.echo(f"  {name:18} {value:.4f}")
    return scores
