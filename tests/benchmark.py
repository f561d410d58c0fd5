"""What is fast, as ratios within one run: `python tests/benchmark.py`.

Not a test: it prints figures and judges none. Machines differ; the ratios hardly do.
"""

import os
import tempfile
import time

import keras
import numpy as np

from mmkeras.captioning import Captioner, build
from mmkeras.captioning import data as captioning_data
from mmkeras.toy import builders, render, scene
from mmkeras.vocabulary import END, START


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

    print(f"toy pictures, 64 px: {500 / seconds(draw, 3):.0f} scenes a second")


def decoding():
    data = captioning_data("toy")
    model = build("toy", vocabulary=data.vocabulary)
    model.fit(data.train.take(60), verbose=0)
    captioner = Captioner(model)
    pictures = next(iter(data.test))["image"].numpy()  # (32, 64, 64, 3)
    tokens, _ = captioner.write(pictures)
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

    greedy = seconds(lambda: captioner.write(pictures))
    beam = seconds(lambda: captioner.write(pictures, beams=4))
    forward = seconds(teacher_forced)
    tutorial = seconds(word_by_word, 2) / 2
    print(f"greedy, 32 pictures of {length} tokens: {greedy / 32 * 1e3:.2f} ms a picture")
    print(f"  times faster a picture than one predict a word and picture: {tutorial / (greedy / 32):.0f}")
    print(f"  of one teacher-forced forward pass: {greedy / forward:.2f}")
    print(f"beam of 4: {beam / greedy:.2f} times greedy")


def cached_features(folder, pictures=128):
    builders.EXAMPLES.update(train=pictures, validation=32, test=32, test_unseen=32)
    data = captioning_data("toy", image_size=224, data_dir=folder)
    model = build("document", vocabulary=data.vocabulary, weights=None)
    cached = data.with_features(model)

    def epoch(train):
        return lambda: model.fit(train, verbose=0)

    features, vgg16 = seconds(epoch(cached.train), 2), seconds(epoch(data.train), 1)
    print(f"'document' at 224 px, an epoch of {pictures} pictures: {features:.2f} s on cached features,")
    print(f"  {vgg16 / features:.0f} times faster than the one that runs VGG16")


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    toy_world()
    decoding()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MMKERAS_CACHE"] = folder
        cached_features(folder)
