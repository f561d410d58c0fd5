"""Draws every figure that a user can get, and all of them on one sheet, index.png, for a person to look at:

python tests/gallery.py DIR                   about ten minutes on two cores, for the notebooks
python tests/gallery.py DIR --no-notebooks
PYTHONPATH=tests python -c "import gallery; gallery.page_animation('.github/page.webp')"
"""

import argparse
import base64
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import page as visitor
import soundfile
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont, ImageOps
from test_notebooks import NOTEBOOKS, run_notebook

import mmkeras
from mmkeras.cli import demo
from mmkeras.cli import main as cli
from mmkeras.evaluation import plots
from mmkeras.evaluation.alignment import Word
from mmkeras.export import page as export

MODELS = {  # name here → name in mmkeras.zoo
    "captioning": "captioning",
    "attention": "speech_to_text",
    "ctc": "speech_to_text_ctc",
    "plain": "text_to_image_pixels",
    "adversarial": "text_to_image",
}
PROMPTS = ["a small red circle at the top left", "there is a large green star at the bottom right"]
CHINESE = "左上角有一个小的红色圆形"
PAGE_WIDTH, PAGE_HEIGHT = 1300, 1500  # pixels of one screenshot of the demo's page
THUMBNAIL, COLUMNS = (640, 480), 4  # pixels of an image on the sheet, images per row


def ready_trained():
    """{name: (predictor, data)}."""
    models = {}
    for name, model in MODELS.items():
        predictor = mmkeras.pretrained(model)
        data = mmkeras.tasks.package(predictor.model.name).data("toy", **predictor.data_options)
        models[name] = predictor, data
    return models


def from_functions(folder, trained):
    captioner, data = trained["captioning"]
    readme_figure(captioner, data, folder / "readme.png")
    readme_images(trained, folder / "readme_images.png")
    explanation = captioner.explain(next(iter(data.test))["image"][0].numpy())
    explanation.plot(folder / "attention.png")
    experiments = mmkeras.methods.experiments
    experiments.fusions.results().plot(folder / "fusions.png")
    experiments.pretraining.results().plot(folder / "pretraining.png")
    experiments.pretraining.results().plot_speech(folder / "pretraining_speech.png")
    translation = experiments.translation.run(test=100)
    translation.grid(folder / "translation_grid.png")
    translation.plot(folder / "translation.png")
    experiments.comparison.results().plot(folder / "comparison.png")
    words = list(CHINESE)
    maps = np.resize(explanation.maps, (len(words), *explanation.maps.shape[1:]))
    replace(explanation, caption=CHINESE, words=words, maps=maps).plot(folder / "attention_chinese.png")
    clips = next(iter(trained["attention"][1].test))
    clip = clips["audio"][0, : clips["length"][0]].numpy()
    for head in ("attention", "ctc"):
        explanation = trained[head][0].explain(clip, sample_rate_hz=16_000)
        explanation.plot(folder / f"alignment_{head}.png")
    starts = np.linspace(0, len(clip) / 16_000, len(words) + 1)
    intervals = [Word(*word) for word in zip(words, starts[:-1], starts[1:], strict=True)]
    weights = np.resize(explanation.weights, (len(words), explanation.weights.shape[1]))
    chinese = replace(explanation, text=CHINESE, words=intervals, tokens=words, weights=weights)
    chinese.plot(folder / "alignment_chinese.png")
    for name in ("plain", "adversarial"):
        generator, _ = trained[name]
        generator.grid(PROMPTS, samples=5, path=folder / f"grid_{name}.png")
        generator.walk(*PROMPTS, path=folder / f"walk_{name}.png")
        generator.walk(*PROMPTS, path=folder / "walk.gif")
        gif = Image.open(folder / "walk.gif")
        gif.seek(gif.n_frames // 2)
        gif.convert("RGB").save(folder / f"walk_{name}_frame_of_gif.png")
        explanation = generator.explain(PROMPTS[0])
        explanation.plot(folder / f"influence_{name}.png")
    words = CHINESE[: len(explanation.words)]
    replace(explanation, prompt=words, words=list(words)).plot(folder / "influence_chinese.png")
    plots.grid([CHINESE], [generator(PROMPTS[0], samples=5)], folder / "grid_chinese.png")


def readme_figure(captioner, data, path, images=4):
    """Draws the first test images with their captions and attention maps: `.github/demo.png`."""
    batch = next(iter(data.test))["image"].numpy()[:images]
    explanations = [captioner.explain(image) for image in batch]
    columns = max(len(one.words) for one in explanations)
    figure = Figure(figsize=(1.5 + columns, 1.5 * images), layout="constrained")
    for row, image, one in zip(figure.subfigures(images, 1), batch, explanations, strict=True):
        left, right = row.subfigures(1, 2, width_ratios=(1.5, columns))
        left.subplots().imshow(image)
        right.suptitle(one.caption, x=0.01, ha="left")
        for axis, word, weights in zip(right.subplots(1, columns), one.words, one.maps, strict=False):
            axis.imshow(plots.spotlight(image, weights, one.maps.max()))  # one scale per caption
            axis.set_xlabel(word)
    for axis in figure.axes:
        axis.set(xticks=[], yticks=[], frame_on=False, visible=bool(axis.images))
    figure.savefig(path, dpi=100)
    Image.open(path).convert("RGB").save(path, optimize=True)


def readme_images(trained, path, prompts=6):
    """Draws unseen pairs of color and shape: a real image, the generated ones: `.github/painting.png`."""
    (plain, data), (adversarial, _) = trained["plain"], trained["adversarial"]
    batch = next(iter(data.test_unseen))
    texts = [captions[0].decode() for captions in batch["captions"].numpy()[:prompts]]
    rows = [
        np.stack([real, plain(text), *adversarial(text, samples=3)])
        for real, text in zip(batch["image"].numpy(), texts, strict=False)
    ]
    plots.grid(texts, rows, path)


def page_animation(path, language="en"):
    """A visit of the page of `mmkeras page`: `.github/page.webp`, with `"zh"` `.github/page-zh.webp`."""
    with tempfile.TemporaryDirectory() as work:
        (page,) = export.write(Path(work), [language], single=True)
        settings = {"page": str(page), "language": language, "screenshots": work, "scenarios": ["tour"]}
        durations = visitor.visit(Path(work), **settings)["tour"]
        first, *others = [Image.open(file).convert("RGB") for file in sorted(Path(work).glob("*.png"))]
        options = {"duration": durations, "loop": 0, "quality": 70, "method": 4}
        first.save(path, save_all=True, append_images=others, **options)


def from_predict(folder, trained, work):
    """What `mmkeras predict --explain` writes."""
    clips = next(iter(trained["attention"][1].test))
    Image.fromarray(next(iter(trained["captioning"][1].test))["image"][1].numpy()).save(work / "image.png")
    soundfile.write(work / "clip.wav", clips["audio"][1, : clips["length"][1]].numpy(), 16_000)
    inputs = {"captioning": work / "image.png", "attention": work / "clip.wav", "plain": PROMPTS[1]}
    for name, value in inputs.items():
        trained[name][0].save(work / f"{name}.keras")
        cli.predict(work / f"{name}.keras", [str(value)], output=folder, explain=folder / name)


def from_demo(folder, trained, work):
    """Screenshots of the page of `mmkeras demo`."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not browser:
        return print("No screenshots of the demo's page: Chromium is not installed.")
    sections, generators = {}, {name: trained[name][0] for name in ("plain", "adversarial")}
    for name in ("captioning", "attention", "plain"):
        predictor, data = trained[name]
        task = predictor.model.name
        scores = {"test": predictor.evaluate(data.test.take(3))}
        section = getattr(demo, f"{task}_section")
        predictors = generators if name == "plain" else {name: predictor}
        sections[predictor.title] = section(predictors, scores, "en")
    page = demo.write(work, sections)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    options += [f"--user-data-dir={work / 'browser'}", f"--window-size={PAGE_WIDTH},{8 * PAGE_HEIGHT}"]
    path = work / "page.png"
    subprocess.run([browser, *options, f"--screenshot={path}", page.as_uri()], check=True, capture_output=True)
    screenshot = Image.open(path).convert("RGB")
    height = int(np.flatnonzero(np.ptp(np.asarray(screenshot), axis=(1, 2)))[-1]) + 20
    for number, top in enumerate(range(0, height, PAGE_HEIGHT), start=1):
        box = (0, top, screenshot.width, min(top + PAGE_HEIGHT, height))
        screenshot.crop(box).save(folder / f"page_{number}.png")


def from_notebooks(folder, work):
    for path in NOTEBOOKS:
        for number, cell in enumerate(run_notebook(path, work)):
            for i, output in enumerate(cell.get("outputs", ())):
                if png := output.get("data", {}).get("image/png"):
                    (folder / f"{path.stem[:4]}_cell{number:02}_{i}.png").write_bytes(base64.b64decode(png))


def sheet(folder):
    """Draws all figures on one sheet. Each folder starts a new row, each figure has its file name above it."""
    groups = [sorted(group.rglob("*.png")) for group in sorted(folder.iterdir()) if group.is_dir()]
    rows = [group[i : i + COLUMNS] for group in groups for i in range(0, len(group), COLUMNS)]
    margin, text_height, font = 20, 30, ImageFont.load_default(18)
    strips = []
    for row in rows:
        thumbnails = [ImageOps.contain(Image.open(path).convert("RGB"), THUMBNAIL) for path in row]
        height = max(image.height for image in thumbnails) + text_height + margin
        strip = Image.new("RGB", (COLUMNS * (THUMBNAIL[0] + margin), height), "lightgray")
        for column, (path, image) in enumerate(zip(row, thumbnails, strict=True)):
            x = column * (THUMBNAIL[0] + margin) + margin // 2
            ImageDraw.Draw(strip).text((x, 4), str(path.relative_to(folder)), "black", font)
            strip.paste(image, (x, text_height))
        strips.append(np.asarray(strip))
    Image.fromarray(np.concatenate(strips)).save(folder / "index.png")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--no-notebooks", action="store_true", help="leave the notebooks' figures out")
    arguments = parser.parse_args()
    names = ("1_functions", "2_predict", "3_demo", "4_notebooks")
    functions, predict, demo, notebooks = (arguments.folder / name for name in names)
    for folder in (functions, predict, demo, notebooks):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        trained = ready_trained()
        from_functions(functions, trained)
        from_predict(predict, trained, work)
        from_demo(demo, trained, work)
        if not arguments.no_notebooks:
            from_notebooks(notebooks, work)
    sheet(arguments.folder)
    print(f"Look at {arguments.folder / 'index.png'}")


if __name__ == "__main__":
    main()
