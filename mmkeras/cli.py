"""The command line: `mmkeras demo`, `train`, `evaluate`, `predict`.

TensorFlow is loaded inside the commands, so that `mmkeras --help` answers at once.
"""

import importlib
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

# task → passes over the toy world that its preset is made for, where its model goes, options of its own
TASKS = {
    "captioning": (6, "captioner.keras", ("image_size", "weights", "fine_tune")),
    "speech_to_text": (3, "transcriber.keras", ("head", "unit")),
    "text_to_image": (16, "painter.keras", ("image_size", "adversarial")),
}
_NAMES = ", ".join(TASKS)

Task = Annotated[str, typer.Argument(help=_NAMES)]
Language = Annotated[str, typer.Option(help="en or zh.")]
Source = Annotated[
    str, typer.Option(help="toy, a TFDS dataset (coco_captions, librispeech ...), or a folder with a table.")
]
Beams = Annotated[int, typer.Option(min=1, help="1 is greedy.")]


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for the page.")] = Path("mmkeras-demo"),
    language: Language = "en",
    task: Annotated[list[str] | None, typer.Option(help=f"{_NAMES}; all by default.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the toy world.")] = None,
) -> None:
    """Train each task on the toy world and write a page of what it learned (two to ten minutes a task)."""
    with _clear_errors():
        import mmkeras

        tasks = [_known(name) for name in task or TASKS]
        output.mkdir(parents=True, exist_ok=True)
        sections = []
        for name in tasks:
            typer.echo(f"{name}: training on the toy world")
            usual, file, _ = TASKS[name]
            if name == "text_to_image":
                section = _demo_of_painting(output, language, epochs or usual)
            else:
                answerer, data = _train(name, "toy", "toy", language, epochs or usual)
                answerer.save(output / file)
                section = mmkeras.demo.SECTIONS[name](answerer, data, _score(answerer, data))
            sections.append(section)
            typer.echo("")
        path = mmkeras.demo.write(output, sections)
    given = "'a large blue star'" if tasks[0] == "text_to_image" else "FILE"
    typer.echo(f"Look at {path}\nUse it: mmkeras predict {output / TASKS[tasks[0]][1]} {given}")


@app.command()
def train(
    task: Task,
    source: Source = "toy",
    preset: Annotated[
        str | None, typer.Option(help="toy or document; by default toy for the toy world, else document.")
    ] = None,
    language: Language = "en",
    epochs: Annotated[int | None, typer.Option(min=1, help="What the toy world takes, by default.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="The task's own by default.")] = None,
    image_size: Annotated[
        int | None, typer.Option(help="captioning, text_to_image: pixels; the preset's by default.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="captioning: auto, imagenet, none, or a file.")] = None,
    fine_tune: Annotated[bool | None, typer.Option(help="captioning: let the encoder learn too.")] = None,
    head: Annotated[str | None, typer.Option(help="speech_to_text: attention or ctc.")] = None,
    unit: Annotated[str | None, typer.Option(help="speech_to_text: word or character.")] = None,
    adversarial: Annotated[bool | None, typer.Option(help="text_to_image: sharp pictures, with noise.")] = None,
    output: Annotated[Path | None, typer.Option(help="Where the model goes, a .keras file.")] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Folder for checkpoints, logs and curves; by default beside the output, in .run."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was broken off.")] = False,
    patience: Annotated[
        int | None, typer.Option(min=1, help="End after so many epochs without a lower validation loss.")
    ] = None,
    warmup_steps: Annotated[
        int | None, typer.Option(min=0, help="Steps over which the learning rate rises.")
    ] = None,
    precision: Annotated[str, typer.Option(help="auto, float32, mixed_float16, mixed_bfloat16.")] = "auto",
    workers: Annotated[
        str | None, typer.Option(help="host:port,host:port: train on several machines, this command on each.")
    ] = None,
    index: Annotated[int | None, typer.Option(min=0, help="Which of the workers this one is, from 0.")] = None,
) -> None:
    """Train a task, score it on the test split, and save it. A run that was killed goes on with --resume."""
    with _clear_errors():
        import mmkeras

        usual, file, own = TASKS[_known(task)]
        output = output or Path(file)
        given = {
            "image_size": image_size,
            "weights": weights,
            "fine_tune": fine_tune,
            "head": head,
            "unit": unit,
            "adversarial": adversarial,
        }
        options = {name: value for name, value in given.items() if value is not None}
        if foreign := options.keys() - set(own):
            raise ValueError(
                f"{task} does not take {', '.join('--' + name.replace('_', '-') for name in sorted(foreign))}."
            )
        how = {
            "run": run or output.with_suffix(".run"),
            "resume": resume,
            "patience": patience,
            "warmup_steps": warmup_steps,
        }
        mmkeras.saving.check_path(output)
        strategy = mmkeras.distribute.strategy(workers=workers, index=index)
        mmkeras.distribute.share_on_jax()
        with mmkeras.distribute.clear_failures():
            # before the data, which can take long
            if mmkeras.distribute.is_chief(strategy):
                mmkeras.runs.check_folder(how["run"], resume)
            if batch_size:
                mmkeras.distribute.describe_batch(batch_size, strategy)
            answerer, data = _train(
                task,
                source,
                preset or ("toy" if source == "toy" else "document"),
                language,
                epochs or usual,
                batch_size,
                precision=precision,
                strategy=strategy,
                how=how,
                **options,
            )
            is_ours = _saved(answerer, output, strategy)
        if is_ours:
            typer.echo(f"Saved {output}")
            _score(mmkeras.load(output), data)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A .keras file.")],
    source: Source = "toy",
    language: Annotated[str | None, typer.Option(help="en or zh; by default the model's.")] = None,
    beams: Beams = 1,
) -> None:
    """Score a trained model on the test split of a source."""
    with _clear_errors():
        import mmkeras

        answerer = mmkeras.load(model)
        words = getattr(answerer, "vocabulary", mmkeras.vocabulary.Vocabulary(())).words  # a judge has none
        language = language or ("zh" if any(map(mmkeras.vocabulary.is_chinese, words)) else "en")
        data = _package(answerer).data(source, language=language, **answerer.data_options)
        if data.test is None:
            raise ValueError(f"The source {source!r} has nothing for testing.")
        _score(answerer, data, **({"beams": beams} if _writes(answerer) else {}))


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A .keras file.")],
    inputs: Annotated[list[str], typer.Argument(help="Pictures, clips, or prompts.", metavar="INPUT...")],
    beams: Beams = 1,
    output: Annotated[Path, typer.Option(help="Folder for painted pictures.")] = Path("painted"),
    seed: Annotated[int, typer.Option(help="Of painting with noise.")] = 0,
    explain: Annotated[
        Path | None, typer.Option(help="Folder for plots: what each word is read off, or what it changed.")
    ] = None,
) -> None:
    """Answer for each input: a caption for a picture, a transcript for a clip, a picture for a prompt."""
    with _clear_errors():
        import mmkeras

        answerer = mmkeras.load(model)
        if explain and not hasattr(answerer, "explain"):
            raise ValueError(f"Expected no --explain: what a {answerer.model.name} reads has no plot.")
        how = {"beams": beams} if _writes(answerer) else {"seed": seed} if _paints(answerer) else {}
        answers = dict(zip(inputs, answerer(inputs, **how), strict=True))
        if _paints(answerer):
            answers = {text: _painted(output, number, answers[text]) for number, text in enumerate(answers)}
        for given, answer in answers.items():
            if isinstance(answer, dict):
                answer = ", ".join(f"{attribute}: {name}" for attribute, name in answer.items())
            if answer is not None:  # a clip that cannot be read; a note has said so
                typer.echo(f"{given}\t{answer}" if len(inputs) > 1 else answer)
        if explain:
            explain.mkdir(parents=True, exist_ok=True)
            names = [
                f"{number}" if _paints(answerer) else Path(text).stem for number, text in enumerate(answers)
            ]
            if len(set(names)) < len(names):  # files of one name in several folders, or of several kinds
                names = [f"{number}_{name}" for number, name in enumerate(names)]
            for name, (given, answer) in zip(names, answers.items(), strict=True):
                if answer is not None:
                    answerer.explain(given, **how).plot(explain / f"{name}.png")


def _demo_of_painting(output, language, epochs):
    """Both models, read by one judge: what the pixel loss averages, and what the adversarial one paints."""
    import mmkeras

    painters, scores, judge = {}, {}, None
    for kind, adversarial in (("pixels alone", False), ("adversarial", True)):
        typer.echo(f"{kind}:")
        painter, data = _train("text_to_image", "toy", "toy", language, epochs, adversarial=adversarial)
        painter.save(output / ("painter.keras" if adversarial else "painter_plain.keras"))
        judge = judge or _judge(data)
        found = _score(painter, data, judge=judge)
        scores |= {f"{kind}, {split}": values for split, values in found.items()}
        painters[kind] = painter
    return mmkeras.demo.SECTIONS["text_to_image"](painters, data, scores)


def _judge(data):
    import mmkeras

    typer.echo("judge: training on real pictures")
    return mmkeras.text_to_image.train_judge(data)


def _paints(answerer):
    return answerer.model.name == "text_to_image"


def _writes(answerer):
    return answerer.model.name in ("captioning", "speech_to_text")


def _painted(folder, number, picture):
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{number}.png"
    Image.fromarray(picture).save(path)
    return path


def _train(
    task,
    source,
    preset,
    language,
    epochs,
    batch_size=None,
    *,
    precision="auto",
    strategy=None,
    how=None,
    unit=None,
    **overrides,
):
    """`how`: the options of `training.train`; `strategy`: from `distribute.strategy`, None for one device."""
    import mmkeras

    package = getattr(mmkeras, task)  # before Keras, so that TensorFlow starts quietly
    distribute = mmkeras.distribute
    import keras
    import tensorflow as tf

    strategy = strategy or tf.distribute.get_strategy()
    mmkeras.training.use_precision(precision)
    made_with = {"preset": preset, "language": language, "options": overrides | {"unit": unit}}
    options: dict[str, Any] = {"unit": unit, "batch_size": batch_size}
    options = {name: value for name, value in options.items() if value is not None}
    options["static_shapes"] = distribute.wants_static_shapes(strategy)
    if task in ("captioning", "text_to_image"):
        if overrides.get("weights") == "none":
            overrides["weights"] = None
        sizes = {name: value for name, value in overrides.items() if name not in ("weights", "adversarial")}
        sizes = mmkeras.layers.with_overrides(package.model.PRESETS, preset, sizes)
        options["image_size"] = sizes["image_size"]
    with distribute.chief_first(strategy):
        data = package.data(source, language=language, **options)
    keras.utils.set_random_seed(0)  # now, since data that are made for the first time draw numbers
    with strategy.scope():
        model = package.build(preset, vocabulary=data.vocabulary, **overrides)
    if task == "captioning":
        data.refuse_fallback(model)
        with distribute.chief_first(strategy):
            data = data.with_features(model)
    mmkeras.training.train(model, data, epochs=epochs, made_with=made_with, **(how or {}))
    return mmkeras.saving.answerer(model), data


def _saved(answerer, output, strategy):
    """Whether this worker is the one that writes; all of them must take part in reading the weights."""
    import tempfile

    import mmkeras

    if mmkeras.distribute.is_chief(strategy):
        answerer.save(output)
        return True
    with tempfile.TemporaryDirectory() as folder:
        answerer.save(Path(folder) / output.name)
    return False


def _known(task):
    if task not in TASKS:
        raise ValueError(f"Expected TASK to be one of {_NAMES}. Received: {task}")
    return task


def _package(answerer):
    import mmkeras

    return importlib.import_module(mmkeras.saving.ANSWERERS[answerer.model.name][0])


def _score(answerer, data, **how):
    scores, package = {}, _package(answerer)
    evaluate = package.evaluate_judge if answerer.model.name == "judge" else package.evaluate
    if _paints(answerer) and data.attributes and "judge" not in how:
        how["judge"] = _judge(data)
    for split in ("test", "test_unseen"):
        if getattr(data, split) is not None:
            scores[split] = evaluate(answerer, getattr(data, split), **how)
            typer.echo(f"\n{split}")
            for name, value in scores[split].items():
                typer.echo(f"  {name:18} {value:.4f}")
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
        if isinstance(error, KeyboardInterrupt):
            typer.echo(f"\n{error}" if str(error) else "\nStopped.", err=True)
            raise typer.Exit(130) from error
