"""Prints speeds and ratios: `python tests/benchmark.py`.

Not a test. Ratios within one run vary little between machines.
"""

import functools
import importlib.util
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import soundfile
import tensorflow as tf
from PIL import Image

import mmkeras
from mmkeras import captioning, distribute, speech_to_text, zoo
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

    print(f"toy images, 64 px: {500 / seconds(draw, 3):.0f} scenes per second")


def toy_speech():
    utterances = [(speak.caption("train", i), speak.voice("train", i), i) for i in range(100)]
    serial = seconds(lambda: [speak.speak(*utterance) for utterance in utterances], 2)
    parallel = seconds(lambda: list(speak.speak_all(utterances)), 2)
    print(f"toy speech: {100 / parallel:.0f} utterances per second, {serial / parallel:.2f} times one by one")


def log_mel_in_tf_data():
    layer = LogMel(bands=80)
    clips = tf.data.Dataset.from_tensors(tf.random.normal((16, 160_000))).repeat(20)  # 10 s each
    lengths = tf.fill((16,), 160_000)
    spectrograms = clips.map(lambda audio: layer(audio, lengths)[0])
    start = time.process_time()
    best = seconds(lambda: [None for _ in spectrograms], 3)
    cores = (time.process_time() - start) / (4 * best)
    print(f"log-mel in tf.data: {20 * 16 * 10 / best / max(cores, 1):.0f} times real time per core")


@mock.patch.dict(builders.EXAMPLES, train=1000, validation=32, test=32, test_unseen=32)
def waiting_for_speech(folder):
    data = speech_to_text.data("toy", data_dir=folder)
    model = speech_to_text.build("toy", vocabulary=data.vocabulary)
    model.fit(data.train, verbose=0)  # compiles, and fills the cache
    batches, waiting, start = iter(data.train), 0.0, time.perf_counter()
    for step in range(25):
        before = time.perf_counter()
        inputs, targets = next(batches)
        if step == 5:  # in the first steps the pipeline is empty and train_on_batch compiles
            waiting, start = 0.0, before
        waiting += time.perf_counter() - before
        model.train_on_batch(inputs, targets)
    share = waiting / (time.perf_counter() - start)
    print(f"speech to text: {share:.1%} of a training step is spent waiting for data")


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
        print(f"WER at {snr_db} dB: {augmented:.4f}, without augmentation {plain:.4f}")


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
    print(f"greedy, 32 images of {length} tokens: {greedy / 32 * 1e3:.2f} ms per image")
    print(f"  {tutorial / (greedy / 32):.0f} times faster than one predict per word and image")
    print(f"  {greedy / forward:.2f} times one teacher-forced forward pass")
    print(f"beam of 4: {beam / greedy:.2f} times greedy")


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
    print(f"captioning, one replica under MirroredStrategy: {mirrored / plain:.3f} times a step without it")


@mock.patch.dict(builders.EXAMPLES, train=128, validation=32, test=32, test_unseen=32)
def cached_features(folder):
    data = captioning.data("toy", image_size=224, data_dir=folder)
    model = captioning.build("document", vocabulary=data.vocabulary, weights=None)
    cached = captioning.with_features(data, model)
    features = seconds(lambda: model.fit(cached.train, verbose=0), 2)
    vgg16 = seconds(lambda: model.fit(data.train, verbose=0), 1)
    print(f"'document' at 224 px, an epoch of 128 images: {features:.2f} s on cached features,")
    print(f"  {vgg16 / features:.0f} times faster than with VGG16")


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
        line = f"{name}{', half' * half}: {size:.2f} MB, differs by {max(differences.values()):.1g}"
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
        print(line)
    print(f"all models in English, half precision: {total:.1f} MB")


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    toy_images()
    toy_speech()
    log_mel_in_tf_data()
    decoding()
    strategy_of_one_replica()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MMKERAS_CACHE"] = folder
        cached_features(folder)
    with tempfile.TemporaryDirectory() as folder:
        noise_in_training(folder)
    with tempfile.TemporaryDirectory() as folder:
        waiting_for_speech(folder)
    with tempfile.TemporaryDirectory() as folder:
        exported_models(folder)
