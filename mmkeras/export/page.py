"""A static page that answers with the ready-trained models in the visitor's browser, and sends nothing away.

    write("page")                # for a web server: python -m http.server --directory page
    write("page", single=True)   # a file for each language, which opens without a server

The page itself is in `web/`: HTML, style and JavaScript. Here the models become ONNX files, and the emoji that
can be searched an image and vectors.
"""

import base64
import gzip
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import soundfile
from PIL import Image

from mmkeras import _version, zoo
from mmkeras._utils import disk, progress
from mmkeras._utils.parts import Part
from mmkeras.data import cache, emoji
from mmkeras.export import folder as export
from mmkeras.export import onnxruntime_web
from mmkeras.media import artists, long_form
from mmkeras.toy import render, scene, speak

LANGUAGES = ("en", "zh")
SOURCE = Path(__file__).with_name("web")
_BY_LANGUAGE = ("captioning", "text_to_image", "speech_to_text", "speech_to_text_ctc")
_SHARED = ("attribute_classifier", "image_search")  # the same model in all languages
_BITS = 8  # of a weight: with 16 both languages are larger than 12 MB, gzipped
# Enough to find something for most words, in half a megabyte. 48 pixels are shown; the model saw 64.
_EMOJI, _EMOJI_SIZE, _COLUMNS = 800, 48, 40
_EXAMPLES, _CLIPS = 8, 3  # images, half of them of pairs that are not in the training data; clips
_SEEDS = 16  # rows of noise, those of the seeds 0, 1, ... in Python


def write(folder: str | os.PathLike, languages: Sequence[str] = LANGUAGES, single: bool = False) -> list[Path]:
    """Writes the page.

    Args:
        folder: path. A new or empty folder, or one with a page, which is replaced.
        languages: `"en"`, `"zh"` or both. Default to both.
        single: bool. Whether to write one file for each language, which needs no server. Defaults to False: a
            folder for a web server.

    Returns:
        The files to open: `index.html`, or with `single` `mmkeras-{language}.html`.

    Raises:
        ValueError: for another language, a folder with other files, or Keras on another backend than
            TensorFlow.
        ImportError: if a package of the extras `export` or `emoji` is missing.
        OSError: if the folder cannot be written to, or onnxruntime-web cannot be fetched.
    """
    languages = tuple(dict.fromkeys(languages))
    if not languages or set(languages) - set(LANGUAGES):
        known = " or ".join(map(repr, LANGUAGES))
        raise ValueError(f"Expected language to be {known}, or both. Received: language={list(languages)}")
    folder = Path(folder)
    _check(folder)
    export.check_format("onnx")
    runtime = _runtime()
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch)
        facts = _write_data(made, languages)
        with disk.clear_errors("the page", folder, "the argument folder"):
            if single:
                pages = [_single(made, runtime, facts, language, languages) for language in languages]
                for language, page in zip(languages, pages, strict=True):
                    (folder / f"mmkeras-{language}.html").write_bytes(page.encode())
                return [folder / f"mmkeras-{language}.html" for language in languages]
            shutil.copytree(SOURCE, made, dirs_exist_ok=True, ignore=shutil.ignore_patterns("vendor"))
            shutil.copytree(runtime, made / "vendor", ignore=_others_than(onnxruntime_web.FILES))
            (made / "facts.json").write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")
            shutil.copytree(made, folder, dirs_exist_ok=True)
            return [folder / "index.html"]


def _check(folder):
    disk.check_writable(folder, "the argument folder")
    names = {path.name for path in folder.iterdir()}
    of_pages = {path.name for path in SOURCE.iterdir()} | {"models", "examples", "facts.json"}
    of_pages |= {"emoji.webp", "emoji.bin"} | {f"mmkeras-{language}.html" for language in LANGUAGES}
    if others := sorted(names - of_pages):
        raise ValueError(
            f"Expected folder to be new, empty, or one with a page. Received: folder={str(folder)!r} with "
            f"{', '.join(others[:3])}"
        )


def _runtime():
    """The folder of onnxruntime-web: the package's, or one in the cache."""
    cached = cache.folder() / f"onnxruntime-web-{onnxruntime_web.VERSION}"
    for folder in (onnxruntime_web.FOLDER, cached):
        if onnxruntime_web.is_complete(folder):
            return folder
    onnxruntime_web.fetch(cached)
    return cached


def _others_than(names):
    return lambda _, found: [name for name in found if name not in names]


# --- models ---


def _write_data(folder, languages):
    """Writes models, examples and emoji, and returns what the page must know of them."""
    return _write_models(folder, languages) | _write_examples(folder, languages) | _write_emoji(folder)


def _write_models(folder, languages):
    """Writes models/{name}.{part}.onnx, and returns what the page must know of the models."""
    import onnx  # of the extra `export`

    (folder / "models").mkdir()
    given = [(name, language) for language in languages for name in _BY_LANGUAGE]
    given += [(name, languages[0]) for name in _SHARED]
    models, first = {}, {}
    for name, language in progress.bar(given, "models"):
        key = name if name in _SHARED else f"{name}-{language}"
        predictor, card = zoo.pretrained(name, language), zoo.card(name, language)
        parts = _parts(name, predictor)
        with tempfile.TemporaryDirectory() as scratch:
            export.write_parts(predictor, parts, Path(scratch), bits=_BITS)
            for part in parts:
                model = onnx.load(Path(scratch) / f"{part}.onnx")  # with its weights
                (folder / "models" / f"{key}.{part}.onnx").write_bytes(model.SerializeToString())
        models[key] = _facts(predictor, card)
        first.setdefault(name, predictor)
    generator = first["text_to_image"]
    noise = [np.random.default_rng([seed, 0]).standard_normal(generator.noise_size) for seed in range(_SEEDS)]
    classes = first["attribute_classifier"].attributes
    return {
        "version": _version.__version__,
        "languages": languages,
        "models": models,
        "noise": np.round(noise, 7).tolist(),
        "classes": classes,
        "words": {language: {name: scene.words(name, language) for name in classes} for language in LANGUAGES},
    }


def _parts(name: str, predictor: Any) -> dict[str, Part]:
    """The parts that the page runs: as for an export, with the tensors in between as further outputs."""
    parts = predictor.parts()
    if name == "captioning":
        encoder = predictor.novelty.with_scores(predictor.encoder, "grid")
        return {"encoder": Part.of(encoder, ("memory", "hidden", "cell", "novelty")), "step": parts["step"]}
    if name == "attribute_classifier":
        model = predictor.model
        outputs = [*model.outputs, model.get_layer("features").output, predictor.novelty.scores]
        names = (*model.output_names, "features", "novelty")
        return {"answer": Part.of(keras.Model(model.inputs, outputs), names)}
    if name == "image_search":
        encoder = predictor.image_encoder
        grid = keras.layers.Identity()(encoder.get_layer("grid").output)  # (B, h, w, C)
        encoder = keras.Model(encoder.input, [encoder.output, grid])
        encoder = predictor.novelty.with_scores(encoder, "grid")
        return {
            "image_encoder": Part.of(encoder, ("vector", "grid", "novelty")),
            "text_encoder": parts["text_encoder"],
        }
    if name == "text_to_image":
        decoder = predictor.decoder
        grids = [layer.output for layer in decoder.layers if isinstance(layer, keras.layers.LeakyReLU)]
        last = {grid.shape[1]: grid for grid in grids}  # the last of each size
        outputs = {"image": decoder.get_layer("image").output}
        outputs |= {f"grid_{size}": grid for size, grid in last.items()}
        model = keras.Model(decoder.inputs, list(outputs.values()))
        return {"encoder": parts["encoder"], "decoder": Part.of(model, tuple(outputs))}
    encoder = predictor.encoder
    log_mel, _ = predictor.log_mel.output  # (B, F, bands)
    if name == "speech_to_text":
        names = ("memory", "mask", "hidden", "cell", "log_mel")
        encoder = keras.Model(encoder.inputs, [*encoder.outputs, log_mel])
        return {"encoder": Part.of(encoder, names), "step": parts["step"]}
    logits = predictor.model.get_layer("head")(encoder.outputs)
    model = keras.Model(encoder.inputs, [logits, encoder.outputs[0]])
    return {"answer": Part.of(model, ("logits", "memory"))}


def _facts(predictor, card):
    facts = {"data": card["data"], "scores": card["scores"]["test"]}
    facts["novelty_threshold"] = card.get("novelty_threshold")
    if predictor.vocabulary:
        facts |= {"words": predictor.vocabulary.words, "unit": predictor.vocabulary.unit}
    if predictor.inputs == "clips":
        facts |= {
            "sample_rate_hz": predictor.sample_rate_hz,
            "longest_seconds": long_form.LEEWAY * predictor.log_mel.longest_seconds,
            "step_seconds": predictor.step_seconds,
            "has_spaces": predictor.vocabulary.has_spaces,
        }
    elif size := getattr(predictor, "image_size", None):
        facts["image_size"] = size
    return facts


# --- examples and emoji ---


def _write_examples(folder, languages):
    (folder / "examples").mkdir()
    splits = [("test", i) if i % 2 == 0 else ("test_unseen", i) for i in range(_EXAMPLES)]
    for number, (split, index) in enumerate(splits):
        Image.fromarray(render.draw(split, index)).save(folder / "examples" / f"{number}.png", optimize=True)
    captions = {
        language: [scene.captions(scene.sample(split, index), language)[0] for split, index in splits]
        for language in languages
    }
    spoken = {language: [speak.caption("test", i, language) for i in range(_CLIPS)] for language in languages}
    for language, texts in spoken.items():
        for i, text in enumerate(texts):
            samples = speak.speak(text, speak.voice("test", i, language), i)
            path = folder / "examples" / f"{language}-{i}.flac"
            soundfile.write(path, samples, speak.SAMPLE_RATE_HZ, subtype="PCM_16")
    return {"captions": captions, "spoken": spoken}


def _write_emoji(folder):
    """Writes emoji.webp, the drawings side by side, and emoji.bin, their vectors as float16."""
    search = zoo.pretrained("image_search")
    search.novelty = None  # each would warn: the page shows what the model does with them
    every = [one for one in emoji.load() if "\u200d" not in one.text]  # not man, woman and person of each kind
    openmoji = artists.find(dict.fromkeys(artists.SYSTEM_FONTS), 2 * search.image_size)[0]
    every = [every[i] for i in np.linspace(0, len(every) - 1, min(_EMOJI, len(every))).astype(int)]
    drawn = emoji.draw_all(openmoji, every, search.image_size)
    pictures = [Image.open(io.BytesIO(content)).convert("RGB") for content in drawn.values()]
    vectors = search.encode_images([np.array(picture) for picture in pictures])  # (N, D)
    rows = -(-len(pictures) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * _EMOJI_SIZE, rows * _EMOJI_SIZE), "white")
    for i, picture in enumerate(pictures):
        row, column = divmod(i, _COLUMNS)
        small = picture.resize((_EMOJI_SIZE, _EMOJI_SIZE), Image.Resampling.LANCZOS)
        sheet.paste(small, (column * _EMOJI_SIZE, row * _EMOJI_SIZE))
    sheet.save(folder / "emoji.webp", quality=60, method=6)
    (folder / "emoji.bin").write_bytes(vectors.astype("<f2").tobytes())
    names = [[every[i].text, *(every[i].names[language][0] for language in LANGUAGES)] for i in drawn]
    found = {}  # share of the names whose own image is the most similar one
    for column, language in enumerate(LANGUAGES, start=1):
        similarity = search.encode_texts([name[column] for name in names]) @ vectors.T
        found[language] = float(np.mean(similarity.argmax(axis=1) == np.arange(len(names))))
    sizes = {"size": _EMOJI_SIZE, "columns": _COLUMNS, "units": vectors.shape[1]}
    return {"emoji": {"names": names, "found": found, **sizes}}


# --- one file ---


def _single(made: Path, runtime: Path, facts: dict, language: str, languages: Iterable[str]) -> str:
    """HTML that contains all files of a language: modules as addresses with data, others gzipped."""
    others = tuple(f"-{other}." for other in LANGUAGES if other != language)
    names = {name for name in facts["models"] if not f"{name}.".endswith(others)}
    facts = facts | {"languages": [language], "models": {name: facts["models"][name] for name in names}}
    facts["siblings"] = {other: f"mmkeras-{other}.html" for other in languages}
    files = {"facts.json": json.dumps(facts, ensure_ascii=False).encode()}
    for path in sorted(made.rglob("*")):
        name = path.relative_to(made).as_posix()
        is_of_other = any(other in name for other in others) or name.startswith(
            tuple(f"examples/{other}-" for other in LANGUAGES if other != language)
        )
        if path.is_file() and not is_of_other:
            files[name] = path.read_bytes()
    module, wasm = onnxruntime_web.FILES
    files[f"vendor/{wasm}"] = (runtime / wasm).read_bytes()
    modules = {f"mmkeras/{path.name}": path.read_bytes() for path in sorted(SOURCE.glob("*.js"))}
    modules["onnxruntime-web"] = (runtime / module).read_bytes()
    imports = {name: f"data:text/javascript;base64,{_base64(code)}" for name, code in modules.items()}
    scripts = "\n".join(_packed(name, gzip.compress(files[name], 9, mtime=0)) for name in files)
    html = (SOURCE / "index.html").read_text(encoding="utf-8")
    licenses = (SOURCE / "LICENSES.txt").read_text(encoding="utf-8")
    html = html.replace("<title>", f"<!--\n{licenses}-->\n<title>")
    style = (SOURCE / "style.css").read_text(encoding="utf-8")
    html = html.replace('<link rel="stylesheet" href="style.css">', f"<style>\n{style}</style>")
    start, stop = html.index('<script type="importmap">'), html.index("</script>", html.index("importmap"))
    html = f'{html[:start]}<script type="importmap">{json.dumps({"imports": imports})}{html[stop:]}'
    return html.replace("<!-- files -->", scripts)


def _packed(name, content):
    """A file in a <script>, seven bits a character. Those that HTML changes or forbids are moved by 128."""
    bits = np.unpackbits(np.frombuffer(content, np.uint8))
    sevens = np.packbits(np.pad(bits, (0, -len(bits) % 7)).reshape(-1, 7), axis=1) >> 1
    text = sevens.tobytes().decode("ascii").translate({code: code + 128 for code in b"\0\r<"})
    return f'<script type="text/plain" id="file:{name}" data-length="{len(content)}">{text}</script>'


def _base64(content):
    return base64.b64encode(content).decode()
