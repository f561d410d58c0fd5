"""Inputs for the page, Python's answers to them, and the page's own, from tests/page.mjs in Chromium."""

import base64
import io
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

import mmkeras
from mmkeras.toy import render, scene, speak

COUNT = 20
TEXTS = (
    "A red\u3000circle, don\u2019t!",
    "re\u00add CIRCLE\uff01 \u2460",
    "一个 红色的 star",
    "नमस्ते x_y",
    "น้ำ 1",
)


def chromium() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def node_modules() -> Path | None:
    """The folder with puppeteer-core, which NODE_MODULES names."""
    folder = Path(os.environ.get("NODE_MODULES", ""))
    return folder if (folder / "puppeteer-core").is_dir() else None


def require_chromium() -> None:
    """Skips a test where it cannot be driven."""
    if chromium() is None or node_modules() is None:
        pytest.skip("needs Chromium, and puppeteer-core in the folder NODE_MODULES, see tests/README.md")


def visit(folder: Path, **settings) -> dict:
    """Runs tests/page.mjs with its settings."""
    return run("page.mjs", folder, **settings)


def run(script: str, folder: Path, **settings) -> dict:
    """Runs a script of this folder, which drives Chromium, and returns what it prints."""
    file = folder / "settings.json"
    file.write_text(json.dumps({"chromium": chromium(), **settings}))
    command = ["node", str(Path(__file__).with_name(script)), str(file)]
    environment = {**os.environ, "NODE_MODULES": str(node_modules())}
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def images() -> list[np.ndarray]:
    """Scenes of several sizes, so that they must be resized, larger and smaller, and cropped."""
    sizes = [(64, 64), (200, 150), (97, 120), (40, 40)]
    drawn = [Image.fromarray(render.draw(("test", "test_unseen")[i % 2], i, 64)) for i in range(COUNT)]
    return [np.array(image.resize(sizes[i % 4])) for i, image in enumerate(drawn)]


def clips(language: str) -> list[np.ndarray]:
    """int16 at 16 kHz, with silence around some."""
    spoken = [(speak.caption("test", i, language), speak.voice("test", i, language), i) for i in range(COUNT)]
    return [np.pad(samples, (i % 3) * 4000) for i, samples in enumerate(speak.speak_all(spoken))]


def prompts(language: str) -> list[str]:
    return [scene.captions(scene.sample("test", i), language)[0] for i in range(COUNT)]


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def wav(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, speak.SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
    return file.getvalue()


def inputs(language: str, queries: list[str]) -> dict:
    def encoded(files):
        return [base64.b64encode(content).decode() for content in files]

    return {
        "images": encoded(map(png, images())),
        "clips": encoded(map(wav, clips(language))),
        "prompts": prompts(language),
        "queries": queries,
        "texts": TEXTS,
    }


def expected(language: str, queries: list[str], emoji_vectors: np.ndarray) -> dict:
    """Python's answers, of the models as they are shipped."""
    from mmkeras.media import images as reading

    loaded = {name: mmkeras.pretrained(name, language) for name in mmkeras.zoo.NAMES}
    search = loaded["image_search"]
    for name in ("captioning", "attribute_classifier", "image_search"):
        loaded[name].novelty = None
    small = [reading.resize(image, 64) for image in images()]
    heard = [(speak.SAMPLE_RATE_HZ, clip) for clip in clips(language)]
    return {
        "pixels": small,
        "captions": loaded["captioning"](images()),
        "attributes": loaded["attribute_classifier"](images()),
        "drawn": loaded["text_to_image"](prompts(language)),
        "attention": loaded["speech_to_text"](heard),
        "ctc": loaded["speech_to_text_ctc"](heard),
        "found": np.argsort(-search.encode_texts(queries) @ emoji_vectors.T, axis=1, kind="stable")[:, :5],
        "vectors": search.encode_images(small),
    }
