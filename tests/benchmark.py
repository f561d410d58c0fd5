"""What is fast, as ratios within one run: `python tests/benchmark.py`.

Not a test: it prints figures and judges none. Machines differ; the ratios hardly do.
"""

import functools
import os
import tempfile
import time
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

import mmkeras
from mmkeras import distribute
from mmkeras.captioning import Captioner, build
from mmkeras.captioning import data as captioning_data
from mmkeras.data.vocabulary import END, START
from mmkeras.nn.spectrogram import LogMel
from mmkeras.speech_to_text import Transcriber
from mmkeras.speech_to_text import build as build_speech
from mmkeras.speech_to_text import data as speech_data
from mmkeras.speech_to_text import evaluate as evaluate_speech
from mmkeras.toy import builders, render, scene, speak


def seconds(function, times=5):
    """The best of several runs, after one that compiles."""
    function()
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best


def toy_world():
    def draw():
        for i in range(500):
            rng = scene.generator("train", i, "picture")
            render.render(scene.sample("train", i), 64, rng=rng)

    print(f"toy images, 64 px: {500 / seconds(draw, 3):.0f} scenes a second")


def toy_speech():
    said = [(speak.caption("train", i), speak.voice("train", i), i) for i in range(100)]
    alone = seconds(lambda: [speak.speak(*saying) for saying in said], 2)
    together = seconds(lambda: list(speak.speak_all(said)), 2)
    print(f"toy speech: {100 / together:.0f} utterances a second, {alone / together:.2f} times one at a time")


def log_mel_in_tf_data():
    layer = LogMel(bands=80)
    clips = tf.data.Dataset.from_tensors(tf.random.normal((16, 160_000))).repeat(20)  # 10 s each
    lengths = tf.fill((16,), 160_000)
    spectrograms = clips.map(lambda audio: layer(audio, lengths)[0])
    start = time.process_time()
    best = seconds(lambda: [None for _ in spectrograms], 3)
    cores = (time.process_time() - start) / (4 * best)
    print(f"log-mel in tf.data: {20 * 16 * 10 / best / max(cores, 1):.0f} times real time a core")


@mock.patch.dict(builders.EXAMPLES, train=1000, validation=32, test=32, test_unseen=32)
def waiting_for_speech(folder):
    data = speech_data("toy", data_dir=folder)
    model = build_speech("toy", vocabulary=data.vocabulary)
    model.fit(data.train, verbose=0)  # compiles, and fills the cache
    batches, waited, start = iter(data.train), 0.0, time.perf_counter()
    for number in range(25):
        asked = time.perf_counter()
        inputs, targets = next(batches)
        if number == 5:  # the first ones find the pipeline empty, and train_on_batch still compiles
            waited, start = 0.0, asked
        waited += time.perf_counter() - asked
        model.train_on_batch(inputs, targets)
    share = waited / (time.perf_counter() - start)
    print(f"speech to text: {share:.1%} of a training step is waiting for data")


def noise_in_training(folder):
    """Minutes: two models from nothing, one without noise, speeds and SpecAugment; both in louder noise."""
    scores = {}
    for augment in (True, False):
        data = speech_data("toy", data_dir=folder, augment=augment)
        model = build_speech("toy", vocabulary=data.vocabulary, spec_augment=augment)
        model.fit(data.train, epochs=3, verbose=0)
        for snr_db in (20, 10, 5):
            noisy = speech_data("toy", snr_db=snr_db, vocabulary=data.vocabulary, data_dir=folder).test
            scores[augment, snr_db] = evaluate_speech(Transcriber(model), noisy)["wer"]
    for snr_db in (20, 10, 5):
        print(
            f"WER at {snr_db} dB: {scores[True, snr_db]:.4f}, without augmentation {scores[False, snr_db]:.4f}"
        )


def decoding():
    data = captioning_data("toy")
    model = build("toy", vocabulary=data.vocabulary)
    model.fit(data.train.take(60), verbose=0)
    captioner = Captioner(model)
    pictures = next(iter(data.test))["image"].numpy()  # (32, 64, 64, 3)
    tokens, _ = captioner.generate(pictures)
    given = np.concatenate([np.full((32, 1), START), tokens], axis=1)
    length = int((tokens != 0).sum(axis=1).max())
    given = given[:, :length].astype("int32")

    def teacher_forced():
        model.predict_on_batch({"image": pictures, "tokens": given})

    def word_by_word():  # the way of most tutorials: one predict a word and picture
        for picture in pictures[:2]:
            words = [START]
            while words[-1] != END and len(words) <= length:
                inputs = {"image": picture[None], "tokens": np.array([words])}
                logits = model.predict(inputs, verbose=0)
                words.append(int(logits[0, -1].argmax()))

    greedy = seconds(lambda: captioner.generate(pictures))
    beam = seconds(lambda: captioner.generate(pictures, beams=4))
    forward = seconds(teacher_forced)
    tutorial = seconds(word_by_word, 2) / 2
    print(f"greedy, 32 pictures of {length} tokens: {greedy / 32 * 1e3:.2f} ms a picture")
    print(f"  times faster a picture than one predict a word and picture: {tutorial / (greedy / 32):.0f}")
    print(f"  of one teacher-forced forward pass: {greedy / forward:.2f}")
    print(f"beam of 4: {beam / greedy:.2f} times greedy")


def strategy_of_one_replica():
    """Both models in turns, so that what else the machine does meets them alike."""
    data = captioning_data("toy")
    batches = data.train.take(20).cache()
    epochs = []
    for strategy in (distribute.strategy("one_device"), distribute.strategy("mirrored")):
        with strategy.scope():
            model = build("toy", vocabulary=data.vocabulary)
        epochs.append(functools.partial(model.fit, batches, verbose=0))
    none, one = np.min([[seconds(epoch, 1) for epoch in epochs] for _ in range(6)], axis=0)
    print(f"captioning, one replica under MirroredStrategy: {one / none:.3f} times the step of no strategy")


@mock.patch.dict(builders.EXAMPLES, train=128, validation=32, test=32, test_unseen=32)
def cached_features(folder):
    data = captioning_data("toy", image_size=224, data_dir=folder)
    model = build("document", vocabulary=data.vocabulary, weights=None)
    cached = mmkeras.captioning.with_features(data, model)

    def epoch(train):
        return lambda: model.fit(train, verbose=0)

    features, vgg16 = seconds(epoch(cached.train), 2), seconds(epoch(data.train), 1)
    print(f"'document' at 224 px, an epoch of 128 pictures: {features:.2f} s on cached features,")
    print(f"  {vgg16 / features:.0f} times faster than the one that runs VGG16")


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    toy_world()
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
