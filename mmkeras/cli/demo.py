"""The page that `mmkeras demo` writes: a section per task, with inputs, answers, explanations and scores."""

import base64
import html
import io
import os
import sys
import webbrowser
from pathlib import Path

import numpy as np
from PIL import Image

from mmkeras import tasks, zoo
from mmkeras.evaluation import plots
from mmkeras.toy import render, scene, speak

TITLES = {
    "test": "New examples",
    "test_unseen": "Pairs of color and shape that are not in the training data",
}
# What each score means, in one sentence; the page shows no other scores.
MEANINGS = {
    "scene_accuracy": "Share of answers that describe the right scene, in any wording.",
    "cider_d": "Similarity to the reference captions, where rare words count more; 10 is the highest.",
    "bleu_4": "Share of the caption's sequences of one to four words that a reference has.",
    "wer": "Word error rate: wrong, missing and additional words per word that was spoken.",
    "cer": "Character error rate: the same for characters.",
    "color": "Share of images whose color, predicted by the attribute classifier, is that of the prompt.",
    "place": "The same for the place.",
    "shape": "The same for the shape.",
    "size": "The same for the size.",
    "all": "Share of images with all four right.",
    "classifier_on_real": "The same share for real images: the best that this measure allows.",
    "frechet_distance": "Distance between the features of generated and real images; 0 is the lowest.",
    "sharpness": "Sharpness relative to real images; 1 is as sharp.",
    "variety": "Variation between images relative to real ones; near 0 they are all the same.",
    "seed_variety": "Variation between images of one prompt with different seeds.",
    "recall_at_1": "Share of texts that find the right image first, among all of the split.",
    "image_to_text_recall_at_1": "Share of images that find the right text first.",
}
_STYLE = """
:root { color-scheme: light dark; --text: #222; --page: #fff; --line: #ddd; --note: #666; }
@media (prefers-color-scheme: dark) { :root { --text: #ddd; --page: #161616; --line: #3a3a3a; --note: #999; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page);
  margin: 2rem auto; max-width: 72rem; padding: 0 1rem; overflow-wrap: break-word; }
h1, h2, h3 { font-weight: 600; line-height: 1.25; } h2 { margin-top: 3rem; }
nav ul { padding-left: 1.2rem; } a { color: inherit; }
.scores { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: .2rem 1rem .2rem 0; text-align: left; vertical-align: top; font-weight: 400; }
tbody th { font-weight: 600; white-space: nowrap; } thead th { font-weight: 600; vertical-align: bottom; }
td.meaning { min-width: 16rem; color: var(--note); }
.example { display: flex; flex-wrap: wrap; gap: 1.2rem; padding: 1rem 0; border-top: 1px solid var(--line); }
.example > img { width: 144px; height: 144px; border-radius: 6px; flex: none; }
.example > div { flex: 1 1 16rem; min-width: 0; }
.caption { font-size: 1.15rem; margin: 0 0 .5rem; } .wrong { color: #d03048; } .right { color: #2a9a52; }
.row { display: flex; flex-wrap: wrap; gap: .5rem 1.2rem; }
.clip { padding: 1rem 0; border-top: 1px solid var(--line); }
.clip img, .samples img { max-width: 100%; border-radius: 4px; }
audio { height: 2.2rem; width: 22rem; max-width: 100%; }
figure { margin: 0; text-align: center; font-size: .85rem; } figure img { display: block; margin: auto; }
.words { gap: .5rem; } .words figure img { width: 80px; height: 80px; border-radius: 4px; }
.generated { width: 24rem; max-width: 100%; } .generated img { width: 100%; height: auto; border-radius: 4px; }
.note { color: var(--note); }
@media (max-width: 40rem) { td, th { padding-right: .6rem; font-size: .85rem; }
  tbody th { white-space: normal; } td.meaning { min-width: 8rem; } }
"""


def has_section(task: str) -> bool:
    """Whether the page has a section about a task: a function here, named after it."""
    return f"{task}_section" in globals()


def section(task: str, predictors: dict, scores: dict[str, dict[str, float]], language: str) -> str:
    """HTML of the section about a task.

    Args:
        task: str.
        predictors: {variant: predictor}, see `mmkeras._utils.predictor.Predictor`.
        scores: {row: {score: value}}.
        language: str. Language of the texts.
    """
    return globals()[f"{task}_section"](predictors, scores, language)


def ready_section(task: str, language: str) -> str:
    """HTML of the section about the ready-trained models of a task."""
    models = {variant: model for variant, (model, _) in tasks.get(task).variants.items()}
    predictors = {variant: zoo.pretrained(model, language) for variant, model in models.items()}
    scores = {
        (f"{variant}, {split}" if len(models) > 1 else split): zoo.card(model, language)["scores"][split]
        for variant, model in models.items()
        for split in ("test", "test_unseen")
    }
    return section(task, predictors, scores, language)


def captioning_section(
    predictors: dict, scores: dict[str, dict[str, float]], language: str, images: int = 4
) -> str:
    """HTML: scores, then `images` images of both test splits with caption and attention. Arguments as for
    `section`."""
    (captioner,) = predictors.values()
    parts = [
        "<p>Below each caption: the attention of each word, bright where its weight is high.</p>",
        _table(scores),
    ]
    for split, title in TITLES.items():
        parts.append(f"<h3>{title}</h3>")
        for index in range(images):
            image, truth = render.draw(split, index), scene.captions(scene.sample(split, index), language)[0]
            explanation = captioner.explain(image)
            right = scene.parse(explanation.caption) == scene.parse(truth)
            peak = explanation.maps.max(initial=0)  # one scale, so that a diffuse map does not look sharp
            words = "".join(
                f"<figure>{picture(plots.spotlight(_enlarged(image), m, peak))}{html.escape(word)}</figure>"
                for word, m in zip(explanation.words, explanation.maps, strict=True)
            )
            parts.append(
                f'<div class="example">{picture(_enlarged(image))}<div>'
                f"{_answer(explanation.caption, truth, right, 'it is')}"
                f'<div class="row words">{words}</div></div></div>'
            )
    return "\n".join(parts)


def speech_to_text_section(
    predictors: dict, scores: dict[str, dict[str, float]], language: str, clips: int = 2
) -> str:
    """HTML: scores, then `clips` clips of both test splits with audio, transcript and alignment. Arguments as
    for `section`."""
    (transcriber,) = predictors.values()
    parts = [
        "<p>The voices are not in the training data. Above each spectrogram: the words at their time. Below: "
        "the attention, or with CTC the probability, of each word over time.</p>",
        _table(scores),
    ]
    for split, title in TITLES.items():
        parts.append(f"<h3>{title}</h3>")
        for index in range(clips):
            truth = speak.caption(split, index, language)
            samples = speak.speak(truth, speak.voice(split, index, language), index)
            alignment = transcriber.explain((speak.SAMPLE_RATE_HZ, samples))
            parts.append(
                f'<div class="clip">{_answer(alignment.text, truth, alignment.text == truth, "it says")}'
                f'<audio controls src="data:audio/wav;base64,{_wav(alignment)}"></audio>'
                f"<div>{_plot(alignment.plot())}</div></div>"
            )
    return "\n".join(parts)


def text_to_image_section(
    predictors: dict, scores: dict[str, dict[str, float]], language: str, prompts: int = 6
) -> str:
    """HTML: scores; for `prompts` prompts of both test splits a real image and the generated ones; samples of
    one prompt; and the effect of each of its words. Arguments as for `section`; the first predictor is trained
    with a pixel loss, the last is adversarial."""
    plain, *_, adversarial = predictors.values()
    parts = [
        "<p>Above each prompt from left to right: a real image; the image of the model trained with a pixel "
        "loss, which averages over all positions that the prompt allows; that of the adversarial model.</p>",
        _table(scores),
    ]
    for split, title in TITLES.items():
        parts.append(f'<h3>{title}</h3><div class="row">')
        texts = [scene.captions(scene.sample(split, index), language)[0] for index in range(prompts)]
        real = [render.draw(split, index) for index in range(prompts)]
        for text, *row in zip(texts, real, plain(texts), adversarial(texts), strict=True):
            image = picture(_enlarged(np.concatenate(row, axis=1)))
            parts.append(f'<figure class="generated">{image}{html.escape(text)}</figure>')
        parts.append("</div>")
    samples = picture(_enlarged(np.concatenate(list(adversarial(texts[0], samples=6)), axis=1)))
    parts.append(
        f'<p class="note">Six images of “{html.escape(texts[0])}” with different noise:</p>'
        f'<div class="samples">{samples}</div>'
        f'<p class="note">The image without each of the words, and the pixels that change:</p>'
        f'<div class="samples">{_plot(adversarial.explain(texts[0]).plot())}</div>'
    )
    return "\n".join(parts)


def image_search_section(
    predictors: dict, scores: dict[str, dict[str, float]], language: str, queries: int = 3
) -> str:
    """HTML: scores, then the best images for `queries` texts of both test splits, among 100 of the split.
    Arguments as for `section`."""
    (search,) = predictors.values()
    parts = ["<p>The images that fit each text best, with their similarity.</p>", _table(scores)]
    for split, title in TITLES.items():
        parts.append(f"<h3>{title}</h3>")
        gallery = [render.draw(split, index) for index in range(100)]
        texts = [scene.captions(scene.sample(split, index), language)[0] for index in range(queries)]
        similarity = search.encode_texts(texts) @ search.encode_images(gallery).T  # (queries, 100)
        for text, row in zip(texts, similarity, strict=True):
            figures = "".join(
                f"<figure>{picture(_enlarged(gallery[i])[::2, ::2])}{row[i]:.2f}</figure>"
                for i in np.argsort(-row)[:6]
            )
            parts.append(f'<p class="caption">{html.escape(text)}</p><div class="row">{figures}</div>')
    return "\n".join(parts)


def browser_section(folder: Path) -> str:
    """HTML: links to the pages that `mmkeras page` has written to `folder`/page, or how to write them."""
    files = sorted(folder.glob("page/mmkeras-*.html"))
    links = ", ".join(f'<a href="page/{file.name}">{file.stem}</a>' for file in files)
    command = html.escape(f"mmkeras page {folder / 'page'} --single")
    made = f"Open {links}." if links else f"Write it with <code>{command}</code>, and this page links it."
    return f"<p>Try the models with your own images, sentences and voice, without a network. {made}</p>"


def usage(inputs: str, file: Path, language: str) -> str:
    """The command that uses the model in a file, with an input of the test split, an image or a clip beside it.

    Args:
        inputs: str. What the model takes: `"images"`, `"clips"`, `"prompts"` or `"queries"`.
    """
    given = f'"{scene.captions(scene.sample("test", 0), language)[0]}"'
    if inputs == "queries":
        return f"mmkeras search my/photos {given} --model {file}"
    if inputs == "images":
        given = file.with_name("example.png")
        Image.fromarray(render.draw("test", 0)).save(given)
    elif inputs == "clips":
        import soundfile

        given = file.with_name("example.wav")
        samples = speak.speak(speak.caption("test", 0, language), speak.voice("test", 0, language), 0)
        soundfile.write(given, samples, speak.SAMPLE_RATE_HZ)
    return f"mmkeras predict {file} {given}"


def write(folder: Path, sections: dict[str, str], title: str = "mmkeras demo") -> Path:
    """Writes `index.html`, one file that contains its images and clips.

    Args:
        folder: path. Must exist.
        sections: {title: HTML}.
        title: str. Defaults to `"mmkeras demo"`.
    """
    path = folder / "index.html"
    names = {name: html.escape(name.lower().replace(" ", "-").replace(",", "")) for name in sections}
    index = "".join(f'<li><a href="#{names[name]}">{html.escape(name)}</a></li>' for name in sections)
    body = "".join(
        f'<h2 id="{names[name]}">{html.escape(name)}</h2>{section}' for name, section in sections.items()
    )
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>'
        f"<style>{_STYLE}</style><body><h1>{title}</h1>"
        f"<nav><ul>{index}</ul></nav>{body}</body></html>",
        encoding="utf-8",
    )
    return path


def show(path: Path) -> None:
    """Opens a page in the browser, if a person sits at a terminal of a desktop."""
    is_desktop = sys.platform in ("darwin", "win32") or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()
    if sys.stdout.isatty() and is_desktop:
        webbrowser.open(path.resolve().as_uri())


def _answer(given, truth, is_right, it_is):
    mark = '<span class="right">✓</span>' if is_right else '<span class="wrong">✗</span>'
    note = "" if is_right else f' <span class="note">{it_is}: {html.escape(truth)}</span>'
    return f'<p class="caption">{mark} {html.escape(given)}{note}</p>'


def _table(scores):
    """A row per score, with its value on each split and its meaning."""
    head = "".join(f"<th>{split.replace('_', ' ')}</th>" for split in scores)
    rows = "".join(
        f"<tr><th>{name.replace('_', ' ')}</th>"
        + "".join(
            f"<td>{values[name]:.3f}</td>" if name in values else "<td>–</td>" for values in scores.values()
        )
        + f'<td class="meaning">{meaning}</td></tr>'
        for name, meaning in MEANINGS.items()
        if any(name in values for values in scores.values())
    )
    table = f"<thead><tr><th></th>{head}<th></th></tr></thead><tbody>{rows}</tbody>"
    return f'<div class="scores"><table>{table}</table></div>'


def _enlarged(image):
    """Each pixel three times, since a browser blurs what it enlarges."""
    return np.kron(image, np.ones((3, 3, 1), np.uint8))


def picture(image, alt: str = "") -> str:
    """HTML of an image (H, W, 3) uint8."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{_base64(buffer)}">'


def _plot(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=90, format="png")
    return f'<img alt="" src="data:image/png;base64,{_base64(buffer)}">'


def _wav(alignment):
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, alignment.samples, alignment.sample_rate_hz, format="WAV", subtype="PCM_16")
    return _base64(buffer)


def _base64(buffer):
    return base64.b64encode(buffer.getvalue()).decode()
