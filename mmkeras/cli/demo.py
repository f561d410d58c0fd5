"""The page that `mmkeras demo` writes: inputs, answers and explanations of each task."""

import base64
import html
import io
from pathlib import Path

import numpy as np
from PIL import Image

from mmkeras.evaluation import plots

_UNSEEN = "combinations of color and shape that are not in the training data"
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; }
body { margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-weight: 600; } h2 { font-weight: 600; margin-top: 2.5rem; }
table { border-collapse: collapse; } td, th { padding: .2rem 1rem .2rem 0; text-align: left; }
td { font-variant-numeric: tabular-nums; }
.example { display: flex; gap: 1.2rem; padding: 1rem 0; border-top: 1px solid #ddd; align-items: flex-start; }
.example > img { width: 144px; height: 144px; border-radius: 6px; flex: none; }
.caption { font-size: 1.15rem; margin: 0 0 .5rem; } .wrong { color: #b00020; } .right { color: #1b7f3b; }
.words { display: flex; flex-wrap: wrap; gap: .5rem; }
.clip { padding: 1rem 0; border-top: 1px solid #ddd; }
.clip img { max-width: 100%; } audio { height: 2rem; width: 22rem; max-width: 100%; }
figure { margin: 0; text-align: center; font-size: .85rem; }
figure img { width: 80px; height: 80px; border-radius: 4px; display: block; }
.generated { width: 24rem; margin-bottom: .8rem; } .generated img { width: 100%; height: auto; }
.note { color: #666; }
"""


def captioning_section(captioner, data, scores: dict[str, dict[str, float]], images: int = 6) -> str:
    """HTML: the scores, then the first images of both test splits with caption and attention."""
    from mmkeras.toy import scene

    parts = [
        "<h2>Image captioning</h2>",
        "<p>Below each caption: the attention of each word, bright where its weight is high.</p>",
        _table(scores),
    ]
    for split, title in (("test", "New images"), ("test_unseen", _UNSEEN.capitalize())):
        parts.append(f"<h3>{title}</h3>")
        batch = next(iter(getattr(data, split).unbatch().batch(images)))
        for image, texts in zip(batch["image"].numpy(), batch["captions"].numpy(), strict=True):
            explanation = captioner.explain(image)
            truth = texts[0].decode()
            right = scene.parse(explanation.caption) == scene.parse(truth)
            peak = explanation.attention.max(initial=0)  # one scale, so that a diffuse map does not look sharp
            words = "".join(
                f"<figure>{_image(plots.spotlight(_enlarged(image), m, peak))}{html.escape(word)}</figure>"
                for word, m in zip(explanation.words, explanation.attention, strict=True)
            )
            parts.append(
                f'<div class="example">{_image(_enlarged(image))}<div>'
                f"{_answer(explanation.caption, truth, right, 'it is')}"
                f'<div class="words">{words}</div></div></div>'
            )
    return "\n".join(parts)


def speech_section(transcriber, data, scores: dict[str, dict[str, float]], clips: int = 4) -> str:
    """HTML: the scores, then the first clips of both test splits with audio, transcript and alignment."""
    parts = [
        "<h2>Speech to text</h2>",
        "<p>Above each spectrogram: the words at their time. Below: the attention, or posteriors of CTC.</p>",
        _table(scores),
    ]
    for split, title in (
        ("test", "Voices that are not in the training data"),
        ("test_unseen", f"The same, and: {_UNSEEN}"),
    ):
        parts.append(f"<h3>{title}</h3>")
        batch = next(iter(getattr(data, split).unbatch().batch(clips)))
        audio, lengths, texts = (batch[name].numpy() for name in ("audio", "length", "transcript"))
        for samples, length, truth in zip(audio, lengths, texts, strict=True):
            alignment = transcriber.explain(samples[:length], sample_rate_hz=transcriber.sample_rate_hz)
            truth = truth.decode()
            plot = io.BytesIO()
            alignment.plot().savefig(plot, dpi=90, format="png")
            parts.append(
                f'<div class="clip">{_answer(alignment.text, truth, alignment.text == truth, "it says")}'
                f'<audio controls src="data:audio/wav;base64,{_wav(alignment)}"></audio>'
                f'<div><img alt="" src="data:image/png;base64,{_base64(plot)}"></div></div>'
            )
    return "\n".join(parts)


def text_to_image_section(generators, data, scores: dict[str, dict[str, float]], prompts: int = 6) -> str:
    """HTML: scores; for the first prompts of both test splits a real image and the generated ones; samples of
    one prompt; and the effect of each of its words.

    Args:
        generators: {name: ImageGenerator}. The first is trained with a pixel loss, the last is adversarial.
        data: From `mmkeras.text_to_image.data`.
        scores: {row: {score: value}}.
        prompts: int. Number of prompts of each split. Defaults to 6.
    """
    plain, *_, adversarial = generators.values()
    parts = [
        "<h2>Text to image</h2>",
        "<p>Above each prompt from left to right: a real image; the image of the model trained with a pixel "
        "loss, which averages over all positions that the prompt allows; that of the adversarial model.</p>",
        _table(scores),
    ]
    for split, title in (("test", "New images"), ("test_unseen", _UNSEEN.capitalize())):
        parts.append(f'<h3>{title}</h3><div class="words">')
        batch = next(iter(getattr(data, split).unbatch().batch(prompts)))
        texts = [captions[0].decode() for captions in batch["captions"].numpy()]
        for text, *row in zip(texts, batch["image"].numpy(), plain(texts), adversarial(texts), strict=True):
            image = _image(_enlarged(np.concatenate(row, axis=1)))
            parts.append(f'<figure class="generated">{image}{html.escape(text)}</figure>')
        parts.append("</div>")
    samples = _image(_enlarged(np.concatenate(list(adversarial(texts[0], samples=6)), axis=1)))
    plot = io.BytesIO()
    adversarial.explain(texts[0]).plot().savefig(plot, dpi=90, format="png")
    parts.append(
        f'<p class="note">Six images of “{html.escape(texts[0])}”, each from other noise:</p>'
        f'<div class="clip">{samples}</div>'
        f'<p class="note">The image without each of the words, and the pixels that change:</p>'
        f'<div class="clip"><img alt="" src="data:image/png;base64,{_base64(plot)}"></div>'
    )
    return "\n".join(parts)


def write(folder: Path, sections: list[str]) -> Path:
    """Writes `index.html`, one file that contains its images and clips."""
    path = folder / "index.html"
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>mmkeras demo</title>'
        f"<style>{_STYLE}</style><body><h1>mmkeras demo</h1>"
        f"<p>Trained on the toy world on this machine.</p>{''.join(sections)}</body></html>",
        encoding="utf-8",
    )
    return path


def _answer(given, truth, is_right, it_is):
    mark = '<span class="right">✓</span>' if is_right else '<span class="wrong">✗</span>'
    note = "" if is_right else f' <span class="note">{it_is}: {html.escape(truth)}</span>'
    return f'<p class="caption">{mark} {html.escape(given)}{note}</p>'


def _table(scores):
    names = list(next(iter(scores.values())))
    head = "".join(f"<th>{name.replace('_', ' ')}</th>" for name in names)
    rows = "".join(
        f"<tr><th>{split.replace('_', ' ')}</th>"
        + "".join(f"<td>{values[name]:.3f}</td>" for name in names)
        + "</tr>"
        for split, values in scores.items()
    )
    return f"<table><tr><th></th>{head}</tr>{rows}</table>"


def _enlarged(image):
    """Each pixel three times, since a browser blurs what it enlarges."""
    return np.kron(image, np.ones((3, 3, 1), np.uint8))


def _image(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return f'<img alt="" src="data:image/png;base64,{_base64(buffer)}">'


def _wav(alignment):
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, alignment.samples, alignment.sample_rate_hz, format="WAV", subtype="PCM_16")
    return _base64(buffer)


def _base64(buffer):
    return base64.b64encode(buffer.getvalue()).decode()
