"""Measures speeds and ratios: `python tests/benchmark.py [NAME ...]`, names of the functions below.

Prints a table, from which the README takes its figures, and writes it to `benchmark.json`. Not a test: needs an
idle machine. Ratios within one run vary little between machines. Beside PyTorch: `torch_twins.py`.
"""

import contextlib
import functools
import importlib.util
import inspect
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

# Before Keras: it sets what TensorFlow reads when it loads.
import mmkeras  # isort: skip
import keras
import numpy as np
import soundfile
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from mmkeras import captioning, distribute, speech_to_text, text_to_image, zoo
from mmkeras.nn.spectrogram import LogMel
from mmkeras.text.vocabulary import END, START
from mmkeras.toy import builders, render, scene, speak


def seconds(function, times=5):
    """The time of the fastest run, after one run that compiles."""
    function()
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best


def toy_images():
    def draw():
        for i in range(500):
            rng = scene.generator("train", i, "picture")
            render.render(scene.sample("train", i), 64, rng=rng)

    yield "toy images, 64 px", f"{500 / seconds(draw, 3):.0f} scenes per second"


def toy_speech():
    utterances = [(speak.caption("train", i), speak.voice("train", i), i) for i in range(100)]
    serial = seconds(lambda: [speak.speak(*utterance) for utterance in utterances], 2)
    parallel = seconds(lambda: list(speak.speak_all(utterances)), 2)
    yield "toy sentences spoken", f"{100 / parallel:.0f} per second, {serial / parallel:.2f} times one by one"


def log_mel_in_tf_data():
    layer = LogMel(bands=80)
    clips = tf.data.Dataset.from_tensors(tf.random.normal((16, 160_000))).repeat(20)  # 10 s each
    lengths = tf.fill((16,), 160_000)
    spectrograms = clips.map(lambda audio: layer(audio, lengths)[0])
    start = time.process_time()
    best = seconds(lambda: [None for _ in spectrograms], 3)
    cores = (time.process_time() - start) / (4 * best)
    yield "log-mel in tf.data", f"{20 * 16 * 10 / best / max(cores, 1):.0f} times real time per core"


def share_waiting(model, batches):
    """The share of training that is spent waiting for batches, less that of a batch that lies ready: to take
    one outside of a graph, unlike `fit`, costs up to a millisecond."""
    ready = tf.data.Dataset.from_tensors(next(iter(batches))).repeat().prefetch(2)
    return _share_waiting(model, batches.repeat()) - _share_waiting(model, ready)


def _share_waiting(model, batches, steps=25):
    batches = iter(batches)
    for step in range(5 + steps):
        before = time.perf_counter()
        inputs, targets = next(batches)
        if step == 5:  # in the first steps train_on_batch compiles, and the pipeline fills
            waiting, start = 0.0, before
        if step >= 5:
            waiting += time.perf_counter() - before
        model.train_on_batch(inputs, targets)
    return waiting / (time.perf_counter() - start)


@mock.patch.dict(builders.EXAMPLES, train=1000, validation=32, test=32, test_unseen=32)
def waiting_for_data(folder):
    photos, clips = Path(folder, "photos"), Path(folder, "clips")
    photos.mkdir(), clips.mkdir()
    rows = {"image": ["image,caption"], "path": ["path,transcript"]}
    spoken = speak.speak_all((speak.caption("train", i), speak.voice("train", i), i) for i in range(400))
    for i, samples in enumerate(spoken):
        Image.fromarray(render.draw("train", i, 320)).save(photos / f"{i}.jpg")
        soundfile.write(clips / f"{i}.flac", samples, speak.SAMPLE_RATE_HZ)
        text = speak.caption("train", i)
        rows["image"].append(f"{i}.jpg,{text}")
        rows["path"].append(f"{i}.flac,{text}")
    (photos / "captions.csv").write_text("\n".join(rows["image"]))
    (clips / "transcripts.csv").write_text("\n".join(rows["path"]))
    small = {"image_size": 64, "batch_size": 32}
    sources = {
        captioning: {"toy": {}, "emoji": {}, photos: small, "a dataset of TFDS": small},
        speech_to_text: {"toy": {}, clips: {"batch_size": 32}},
        text_to_image: {"toy": {}, "emoji": {}, photos: small, "a dataset of TFDS": {"image_size": 64}},
    }
    for task, of_task in sources.items():
        for source, options in of_task.items():
            name = source if isinstance(source, str) else "a folder"
            is_tfds = name == "a dataset of TFDS"
            with tfds.testing.mock_data(num_examples=400) if is_tfds else contextlib.nullcontext():
                place = {} if is_tfds or name == "a folder" else {"data_dir": folder}
                given = ("coco_captions" if task is captioning else "oxford_flowers102") if is_tfds else source
                data = task.data(given, **options, **place)
                model = task.build("toy", vocabulary=data.vocabulary)
                model.fit(data.train, verbose=0)  # fills the cache
                share = share_waiting(model, data.train)
            yield f"{model.name}, {name}: share of training spent waiting for data", f"{share:.1%}"


def memory(folder):
    """The largest memory of a process that reads 200 batches of a folder, by the number of its images. Up to
    5 MB of them are kept in memory, in place of the 512 that small folders fit into."""
    code = (
        "import sys, mmkeras\n"
        "from mmkeras.data import pipeline, task_data\n"
        "task_data.IN_MEMORY_MB = pipeline.IN_MEMORY_MB = 5\n"
        "data = mmkeras.captioning.data(sys.argv[1], image_size=64)\n"
        "for batch in data.train.repeat().take(200): pass\n"
        # not of getrusage, which begins with the memory of the parent
        "print(int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) / 1024)"
    )
    megabytes = {}
    for count in (1_000, 10_000, 100_000):
        photos = Path(folder, str(count))
        photos.mkdir()
        Image.fromarray(render.draw("train", 0, 64)).save(photos / "0.png")
        for i in range(1, count):
            (photos / f"{i}.png").symlink_to("0.png")
        table = ["image,caption", *(f"{i}.png,a caption of image number {i % 100}" for i in range(count))]
        (photos / "captions.csv").write_text("\n".join(table))
        output = subprocess.check_output([sys.executable, "-c", code, photos], stderr=subprocess.DEVNULL)
        megabytes[count] = float(output)
    per_image = 1e3 * np.polyfit(list(megabytes), list(megabytes.values()), 1)[0]
    sizes = ", ".join(f"{count:,}: {size:.0f} MB" for count, size in megabytes.items())
    yield "memory of a process that reads a folder, by its images", f"{sizes}; {per_image:.2f} kB for each"


def growth():
    """How the time of a training step grows: the slope of log(time) over log(size). 1: in proportion."""
    rng = np.random.default_rng(0)

    def batch(batch_size=8, length=12, image_size=64, vocabulary=1000, seconds=2.0):
        tokens = rng.integers(4, vocabulary, (batch_size, length)).astype("int32")
        image = rng.integers(0, 255, (batch_size, image_size, image_size, 3), "uint8")
        return {
            captioning: ({"image": image, "tokens": tokens}, tokens),
            speech_to_text: (
                {
                    "audio": rng.normal(size=(batch_size, round(16_000 * seconds))).astype("float32"),
                    "length": np.full(batch_size, round(16_000 * seconds), "int32"),
                    "tokens": tokens,
                },
                tokens,
            ),
            text_to_image: ({"tokens": tokens}, image / np.float32(255)),
        }

    sizes = {
        "batch_size": (8, 16, 32),
        "length": (8, 16, 32),
        "image_size": (64, 128),
        "vocabulary": (1_000, 4_000, 16_000),
        "seconds": (1, 2, 4),
    }
    for task in (captioning, speech_to_text, text_to_image):
        slopes = []
        for name in sorted(sizes.keys() - {"image_size" if task is speech_to_text else "seconds"}):
            times = []
            for size in sizes[name]:
                options = {"vocabulary": 1000} | ({name: size} if name in ("vocabulary", "image_size") else {})
                model = task.build("toy", **options)
                inputs, targets = batch(**{name: size})[task]
                times.append(seconds(functools.partial(model.train_on_batch, inputs, targets)))
            slopes.append(f"{name} {np.polyfit(np.log(sizes[name]), np.log(times), 1)[0]:.2f}")
        yield f"{model.name}: time of a step over size, slope of the logarithms", ", ".join(slopes)


def noise_in_training(folder):
    """Trains a model with augmentation and one without, and evaluates both in louder noise. Takes minutes."""
    scores = {}
    for augment in (True, False):
        data = speech_to_text.data("toy", data_dir=folder, augment=augment)
        model = speech_to_text.build("toy", vocabulary=data.vocabulary, spec_augment=augment)
        model.fit(data.train, epochs=3, verbose=0)
        for snr_db in (20, 10, 5):
            options = {"snr_db": snr_db, "vocabulary": data.vocabulary, "data_dir": folder}
            transcriber, test = speech_to_text.Transcriber(model), speech_to_text.data("toy", **options).test
            scores[augment, snr_db] = speech_to_text.evaluate(transcriber, test)["wer"]
    for snr_db in (20, 10, 5):
        augmented, plain = scores[True, snr_db], scores[False, snr_db]
        yield f"WER at {snr_db} dB", f"{augmented:.4f}, without augmentation {plain:.4f}"


def decoding():
    data = captioning.data("toy")
    model = captioning.build("toy", vocabulary=data.vocabulary)
    model.fit(data.train.take(60), verbose=0)
    captioner = captioning.Captioner(model)
    images = next(iter(data.test))["image"].numpy()  # (32, 64, 64, 3)
    tokens, _ = captioner.generate(images)
    length = int((tokens != 0).sum(axis=1).max())
    inputs = np.concatenate([np.full((32, 1), START), tokens], axis=1)[:, :length].astype("int32")

    def predict_each_word():  # as most tutorials do
        for image in images[:2]:
            words = [START]
            while words[-1] != END and len(words) <= length:
                logits = model.predict({"image": image[None], "tokens": np.array([words])}, verbose=0)
                words.append(int(logits[0, -1].argmax()))

    greedy = seconds(lambda: captioner.generate(images))
    beam = seconds(lambda: captioner.generate(images, beams=4))
    forward = seconds(lambda: model.predict_on_batch({"image": images, "tokens": inputs}))
    tutorial = seconds(predict_each_word, 2) / 2
    yield f"greedy, 32 images of {length} tokens", f"{greedy / 32 * 1e3:.2f} ms per image"
    yield "greedy", f"{tutorial / (greedy / 32):.0f} times faster than one predict per word and image"
    yield "greedy relative to one teacher-forced forward pass", f"{greedy / forward:.2f} times"
    yield "beam of 4 relative to greedy", f"{beam / greedy:.2f} times"


def strategy_of_one_replica():
    """Alternates between the models, so that other load on the machine affects both."""
    data = captioning.data("toy")
    batches = data.train.take(20).cache()
    epochs = []
    for strategy in (distribute.strategy("one_device"), distribute.strategy("mirrored")):
        with strategy.scope():
            model = captioning.build("toy", vocabulary=data.vocabulary)
        epochs.append(functools.partial(model.fit, batches, verbose=0))
    plain, mirrored = np.min([[seconds(epoch, 1) for epoch in epochs] for _ in range(6)], axis=0)
    yield (
        "captioning, one replica under MirroredStrategy: a step",
        f"{mirrored / plain:.3f} times one without",
    )


@mock.patch.dict(builders.EXAMPLES, train=128, validation=32, test=32, test_unseen=32)
def cached_features(folder):
    data = captioning.data("toy", image_size=224, data_dir=folder)
    model = captioning.build("document", vocabulary=data.vocabulary, weights=None)
    cached = captioning.with_features(data, model)
    features = seconds(lambda: model.fit(cached.train, verbose=0), 2)
    vgg16 = seconds(lambda: model.fit(data.train, verbose=0), 1)
    yield (
        "'document' at 224 px, an epoch of 128 images on cached features",
        f"{features:.2f} s, {vgg16 / features:.0f} times faster than with VGG16",
    )


def exported_models(folder):
    """Answers of `run.py` beside those of the model, its time, and that of a whole process."""
    images = [render.draw("test", i) for i in range(200)]
    clips = [(speak.caption("test", i), speak.voice("test", i), i) for i in range(60)]
    files = {"images": [], "clips": []}
    for i, image in enumerate(images):
        files["images"].append(os.path.join(folder, f"{i}.png"))
        Image.fromarray(image).save(files["images"][-1])
    for i, samples in enumerate(speak.speak_all(clips)):
        files["clips"].append(os.path.join(folder, f"{i}.wav"))
        soundfile.write(files["clips"][-1], samples, 16_000)
    total = 0
    for name, half in itertools.product(zoo.NAMES, (False, True)):
        predictor = mmkeras.load(zoo.path(name))  # without the note on new images
        target = os.path.join(folder, f"{name}-{half}")
        differences = predictor.export(target, half=half)
        size = sum(file.stat().st_size for file in Path(target).iterdir()) / 1e6
        total += size * half
        line = f"{size:.2f} MB, differs by {max(differences.values()):.1g}"
        if predictor.inputs in files and predictor.output == "text":
            spec = importlib.util.spec_from_file_location("run", os.path.join(target, "run.py"))
            script = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(script)
            script.load = functools.cache(script.load)  # one session for all
            answer = script.ANSWERS[predictor.inputs]
            given = files[predictor.inputs]
            equal = sum(map(str.__eq__, map(answer, given), predictor(given)))
            command = [sys.executable, os.path.join(target, "run.py"), given[0]]
            ours, theirs = (seconds(functools.partial(each, given[0]), 30) for each in (predictor, answer))
            process = seconds(functools.partial(subprocess.check_output, command), 3)
            line += (
                f", {equal} of {len(given)} answers equal; one answer {1e3 * ours:.2f} → {1e3 * theirs:.2f} ms "
                f"({ours / theirs:.1f} times), a process {process:.2f} s"
            )
        yield f"exported {name}{', half' * half}", line
    yield "all exported models in English, half precision", f"{total:.1f} MB"


FUNCTIONS = (
    toy_images, toy_speech, log_mel_in_tf_data, decoding, strategy_of_one_replica, cached_features,
    noise_in_training, waiting_for_data, memory, growth, exported_models,
)  # fmt: skip


def main(names):
    keras.utils.set_random_seed(0)
    chosen = [function for function in FUNCTIONS if not names or function.__name__ in names]
    rows = []
    print("| what | figure |\n|---|---|")
    for function in chosen:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["MMKERAS_CACHE"] = folder
            for what, figure in function(*[folder][: len(inspect.signature(function).parameters)]):
                print(f"| {what} | {figure} |", flush=True)
                rows.append({"function": function.__name__, "what": what, "figure": figure})
    machine = f"{os.cpu_count()} cores, {platform.machine()}"
    Path("benchmark.json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
