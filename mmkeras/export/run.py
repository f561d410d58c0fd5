"""Answers with the exported model in this folder, without Keras and mmkeras. It needs NumPy, Pillow for images,
tokenizers for subwords, and onnxruntime, or for a SavedModel TensorFlow.

    python run.py photo.png              # a caption, or classes
    python run.py speech.wav             # a transcript; the file must have the sample rate of card.json
    python run.py "a red star"           # an image, image.png
    python run.py "a red star" *.png     # image search: the similarity of each image
    python run.py photo.png "what color is the star?"    # an answer
"""

import json
import re
import sys
import unicodedata
import wave
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent
CARD = {}
if (FOLDER / "card.json").exists():  # not where mmkeras keeps this file to copy it
    CARD = json.loads((FOLDER / "card.json").read_text(encoding="utf-8"))
PAD, UNKNOWN, START, END = range(4)


def load(name):
    """A part of the model as a function: {name: array} → {name: array}."""
    if CARD["format"] == "saved_model":
        import tensorflow as tf

        model = tf.saved_model.load(FOLDER)
        return lambda inputs: {n: x.numpy() for n, x in model.signatures[name](**inputs).items()}
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it would keep a core from others
    try:
        session = onnxruntime.InferenceSession(FOLDER / f"{name}.onnx", options)
    except Exception as error:
        if "IR version" in str(error) or "opset" in str(error):
            sys.exit(f"onnxruntime {onnxruntime.__version__} is too old: pip install -U onnxruntime. {error}")
        raise
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))


# --- inputs ---


def read_image(path):
    """(1, S, S, 3) float32 RGB 0..255"""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode.startswith("I"):  # 16 bits
        image = Image.fromarray(np.rint(np.asarray(image) * (255 / 65535)).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    if CARD["crop"]:
        side = min(image.size)
        left, top = ((size - side) // 2 for size in image.size)
        image = image.crop((left, top, left + side, top + side))
    size = (CARD["image_size"], CARD["image_size"])
    return np.array(image.resize(size, Image.Resampling.BILINEAR), np.float32)[None]


def read_audio(path):
    """(n,) float32 in -1..1 of a 16-bit WAV, without the silence around speech; (0,) if it is silent"""
    try:
        with wave.open(str(path)) as file:
            rate, width, channels = file.getframerate(), file.getsampwidth(), file.getnchannels()
            content = file.readframes(file.getnframes())
    except wave.Error as error:
        sys.exit(f"{path}: {error}. Expected a WAV of 16-bit integers.")
    if (rate, width) != (CARD["sample_rate_hz"], 2) or not content:
        sys.exit(
            f"{path} has {len(content)} bytes of {8 * width} bits at {rate} Hz. Expected samples of 16 bits at "
            f"{CARD['sample_rate_hz']} Hz."
        )
    samples = np.frombuffer(content, np.int16).reshape(-1, channels).mean(axis=1)
    samples = (samples / 2**15).astype(np.float32)
    samples -= samples.mean(dtype=np.float64).astype(np.float32)
    hop = rate // 100
    power = np.add.reduceat(samples.astype(np.float64) ** 2, np.arange(0, len(samples), hop))
    if len(power) > 5:
        full = np.convolve(power, np.ones(5), mode="valid")
        limit = max(2 * full.min(), 1e-4 * full.max())
        loud = np.flatnonzero(np.convolve(power, np.ones(5), mode="same") > limit)
        if len(loud) and limit * 50 <= full.max():
            samples = samples[loud[0] * hop : (loud[-1] + 1) * hop]
    if CARD["longest_seconds"] and len(samples) > CARD["longest_seconds"] * rate:
        sys.exit(
            f"{path} is much longer than any clip in training: split it at {CARD['longest_seconds']:.1f} s."
        )
    return samples if np.abs(samples).max() > 1e-4 else samples[:0]


def to_tokens(text):
    """(1, T) int32: <start>, the words, characters or subwords of a text, <end>"""
    if TOKENIZER:
        return np.array([[START, *TOKENIZER.encode(text, add_special_tokens=False).ids, END]], np.int32)
    text = (
        unicodedata.normalize("NFKC", text).replace("\u0e4d\u0e32", "\u0e33").replace("\u0ecd\u0eb2", "\u0eb3")
    )
    text = re.sub("[\u2018\u2019\u02bc]", "'", text).lower()
    kinds = [(c, unicodedata.category(c)) for c in text]
    kept = [(c, kind) for c, kind in kinds if kind != "Cf" or c == "\u200b"]  # format characters vanish
    text = "".join(c if kind[0] in "LNM" or c == "'" else " " for c, kind in kept)
    han = "[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
    no_spaces = f"{han}|[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]"  # Chinese and kana; Thai to Khmer
    if VOCABULARY["unit"] == "character":
        text = re.sub(rf" +({han})|({han}) +", r"\1\2", " ".join(text.split()))
    if VOCABULARY["unit"] == "mixed":
        text = re.sub(f"({no_spaces})", r" \1 ", text)
    words = list(text) if VOCABULARY["unit"] == "character" else text.split()
    ids = {word: number for number, word in enumerate(VOCABULARY["words"])}
    known = [ids.get(word, UNKNOWN) for word in words]
    if set(known) <= {UNKNOWN}:
        sys.exit(f"No word of {text!r} is in vocabulary.json: {' '.join(VOCABULARY['words'][4:14])} ...")
    return np.array([[START, *known, END]], np.int32)


# --- outputs ---


def to_text(tokens):
    """Token ids before <end> → text"""
    tokens = [*tokens, END]
    ids = [int(token) for token in tokens[: tokens.index(END)] if token not in (PAD, START)]
    if TOKENIZER:
        return TOKENIZER.decode(ids).strip()
    words = [VOCABULARY["words"][token] for token in ids]
    return ("" if VOCABULARY["unit"] == "character" else " ").join(words)


def best_path(logits):
    """CTC: (S, V) → token ids. The best token of each time step, repetitions joined, blanks (0) dropped."""
    logits = logits.copy()
    logits[:, [UNKNOWN, START, END]] = -np.inf
    best = logits.argmax(axis=-1)
    return [token for token, before in zip(best, [PAD, *best[:-1]], strict=True) if token not in (PAD, before)]


def answer_image(path):
    outputs = load(CARD["answer"])({"image": read_image(path)})
    if CARD["output"] == "text":
        return to_text(outputs["tokens"][0])
    return ", ".join(f"{name}: {CARD['classes'][name][row[0].argmax()]}" for name, row in outputs.items())


def answer_clip(path):
    samples = read_audio(path)
    if not len(samples):
        return ""
    length = np.array([len(samples)], np.int32)
    half = CARD["sample_rate_hz"] // 2
    audio = np.pad(samples, (0, -len(samples) % half))[None]
    outputs = load(CARD["answer"])({"audio": audio, "length": length})
    return to_text(outputs["tokens"][0] if "tokens" in outputs else best_path(outputs["logits"][0]))


def answer_prompt(text, path="image.png"):
    from PIL import Image

    inputs = {"tokens": to_tokens(text)}
    if CARD["noise_size"]:
        noise = np.random.default_rng([0, 0]).standard_normal((1, CARD["noise_size"]))
        inputs["noise"] = noise.astype(np.float32)
    image = load(CARD["answer"])(inputs)["image"][0]
    Image.fromarray(np.rint(255 * image).astype(np.uint8)).save(path)
    return path


def answer_query(text, *paths):
    query = load("text_encoder")({"tokens": to_tokens(text)})["vector"][0]
    encode = load("image_encoder")
    scores = {path: encode({"image": read_image(path)})["vector"][0] @ query for path in paths}
    return "\n".join(f"{path}\t{scores[path]:.3f}" for path in sorted(scores, key=scores.get, reverse=True))


def answer_question(path, text):
    logits = load(CARD["answer"])({"image": read_image(path), "tokens": to_tokens(text)})["logits"]
    return CARD["answers"][logits[0].argmax()]


ANSWERS = {
    "images": answer_image,
    "clips": answer_clip,
    "prompts": answer_prompt,
    "queries": answer_query,
    "questions": answer_question,
}
TOKENIZER = None
if (FOLDER / "tokenizer.json").exists():  # of subwords
    from tokenizers import Tokenizer

    TOKENIZER = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    TOKENIZER.no_padding()
    TOKENIZER.no_truncation()
    TOKENIZER.encode_special_tokens = True  # "<end>" within a text is text
if (FOLDER / "vocabulary.json").exists():
    VOCABULARY = json.loads((FOLDER / "vocabulary.json").read_text(encoding="utf-8"))

if __name__ == "__main__":
    if len(sys.argv) < 2 or CARD["inputs"] not in ANSWERS:
        sys.exit(__doc__ if CARD["inputs"] in ANSWERS else f"run.py takes no {CARD['inputs']}: use the parts.")
    print(ANSWERS[CARD["inputs"]](*sys.argv[1:]))
