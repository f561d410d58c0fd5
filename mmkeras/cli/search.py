"""The command `mmkeras search`: the images of a folder that fit a text or an image best, also as a page."""

import html
from pathlib import Path
from typing import Annotated

import typer

from mmkeras.cli.app import app, clear_errors, load_model


@app.command()
def search(
    folder: Annotated[Path, typer.Argument(help="Folder of images; those in its subfolders are found, too.")],
    queries: Annotated[list[str], typer.Argument(help="Texts, or files of images.", metavar="QUERY...")],
    model: Annotated[
        str, typer.Option(help="File of an image_search model, or the name of the ready-trained one.")
    ] = "image_search",
    k: Annotated[int, typer.Option(min=1, help="Images per query.")] = 5,
    page: Annotated[Path | None, typer.Option(help="Folder for a page that shows the images.")] = None,
) -> None:
    """Find the images of a folder that fit a text or another image. The index is kept for the next time."""
    with clear_errors():
        if not folder.is_dir():
            raise FileNotFoundError(f"Expected FOLDER to be a folder. Received: {folder}")
        predictor = load_model(model)
        import mmkeras
        from mmkeras.data import cache

        of_both = cache.digest(str(folder.resolve()), str(Path(model).resolve()))
        kept = cache.folder() / "search" / f"{of_both}.keras"
        if not isinstance(predictor, mmkeras.applications.ImageSearch):
            raise ValueError(f"Expected --model to be one of image_search. Received: --model {model}")
        if kept.is_file():
            predictor.restore(kept)
        count = predictor.index(folder)
        kept.parent.mkdir(parents=True, exist_ok=True)
        predictor.save(kept)
        if count:
            typer.echo(f"{count} of {len(predictor)} images were encoded", err=True)
        results = dict(zip(queries, predictor(queries, k=k), strict=True))
        for query, best in results.items():
            for path, score in best or ():
                typer.echo(f"{query}\t{path}\t{score:.3f}" if len(queries) > 1 else f"{path}\t{score:.3f}")
        if page:
            page.mkdir(parents=True, exist_ok=True)
            sections = {query: _section(best) for query, best in results.items() if best}
            typer.echo(f"Look at {mmkeras.cli.demo.write(page, sections, 'mmkeras search')}")


def _section(results):
    """HTML: the images with their similarities, the best first."""
    from mmkeras.cli import demo
    from mmkeras.media import images

    figures = "".join(
        f"<figure>{demo.picture(images.resize(images.crop(images.read(path)), 160), path)}"
        f"{html.escape(Path(path).name)}<br>{score:.2f}</figure>"
        for path, score in results
    )
    return f'<div class="row">{figures}</div>'
