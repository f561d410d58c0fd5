"""Full training runs must reach these scores; minutes each."""

import os
import re
import subprocess
import sys
import sysconfig
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import skimage

import mmkeras
from mmkeras.methods import Classifier, classification, cross_modal_pretraining, scenes
from mmkeras.toy import builders

pytestmark = pytest.mark.quality

PHOTOS = {
    "astronaut.png": "a woman in an orange space suit smiles",
    "brick.png": "a wall of bricks",
    "camera.png": "a man in a dark coat looks through a camera",
    "chelsea.png": "the face of a cat with stripes",
    "coffee.png": "a cup of coffee on a wooden table",
    "coins.png": "old coins in four rows",
    "grass.png": "long blades of grass",
    "gravel.png": "small stones on the ground",
    "hubble_deep_field.jpg": "many galaxies in the dark sky",
    "moon.png": "the gray surface of the moon",
    "clock_motion.png": "a blurred clock on a wall",
    "rocket.jpg": "a rocket on its launch pad at night",
}
# a human voice, "front left", "rear center" ..., and noise
RECORDINGS = sorted(Path("/usr/share/sounds/alsa").glob("*.wav"))


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """The folder of the toy world, which is written once for these tests."""
    return tmp_path_factory.mktemp("datasets")


def run_mmkeras(datasets, *options):
    """Runs the command and measures its memory and time. Returns the printed values of each score."""
    command = [Path(sysconfig.get_path("scripts")) / "mmkeras", *options]
    code = (
        "import resource, subprocess, sys, time\n"
        "start = time.time()\n"
        "done = subprocess.run(sys.argv[1:], capture_output=True, text=True)\n"
        "print(done.stdout, done.stderr)\n"
        "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20\n"
        "print(f'MEASURED {peak:.2f} GB {time.time() - start:.0f} s')\n"
    )
    run = [sys.executable, "-c", code, *map(str, command)]
    environment = os.environ | {"TFDS_DATA_DIR": str(datasets)}
    out = subprocess.run(run, env=environment, capture_output=True, text=True).stdout
    scores: dict[str, list[float]] = {}
    for line in out.splitlines():
        if re.fullmatch(r"  \w+ +[\d.]+", line):
            name, value = line.split()
            scores.setdefault(name, []).append(float(value))
    gigabytes, seconds = out.split("MEASURED ")[1].split()[0:3:2]
    print(f"\n{' '.join(map(str, options[:-2]))}: {scores}, {gigabytes} GB, {seconds} s")
    assert float(gigabytes) <= 3
    return scores


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_captioning_demo_reaches_its_scores(language, datasets, tmp_path):
    folder = tmp_path / "demo"
    scores = run_mmkeras(datasets, "demo", "--language", language, "--output", folder)
    test, unseen = scores["scene_accuracy"]
    assert test >= 0.95 and unseen >= 0.85
    assert (folder / "index.html").stat().st_size > 100_000


@pytest.mark.parametrize(
    ("language", "score", "bars"), [("en", "wer", (0.02, 0.04)), ("zh", "cer", (0.03, 0.05))]
)
def test_ctc_reaches_its_scores(language, score, bars, datasets, tmp_path):
    options = ("--language", language, "--set", "head=ctc", "--output", tmp_path / "transcriber.keras")
    test, unseen = run_mmkeras(datasets, "train", "speech_to_text", *options)[score]
    assert test <= bars[0] and unseen <= bars[1]


@pytest.fixture(scope="module")
def speech_demo(datasets, tmp_path_factory):
    """The demo's folder and its scores; English, attention head."""
    folder = tmp_path_factory.mktemp("speech") / "demo"
    return folder, run_mmkeras(datasets, "demo", "--train", "speech_to_text", "--output", folder)


def test_the_speech_demo_reaches_its_scores_also_in_noise_and_with_pauses(datasets, speech_demo):
    folder, scores = speech_demo
    test, unseen = scores["wer"]
    assert test <= 0.02 and unseen <= 0.04
    assert (folder / "index.html").stat().st_size > 300_000

    transcriber = mmkeras.load(folder / "transcriber.keras")
    for snr_db in (10, 5):
        noisy = mmkeras.speech_to_text.data(
            "toy", snr_db=snr_db, data_dir=datasets, **transcriber.data_options
        ).test
        wer = mmkeras.speech_to_text.evaluate(transcriber, noisy)["wer"]
        print(f"{snr_db} dB: WER {wer:.4f}")
        assert wer <= 0.05
    check_pauses(transcriber, datasets)


@pytest.mark.skipif(
    not RECORDINGS, reason="no recordings in /usr/share/sounds/alsa: install Debian's alsa-utils"
)
def test_recordings_of_a_human_voice_get_transcripts_of_known_words(speech_demo):
    """The vocabulary has 'left' and 'right' and no other word of the recordings."""
    transcriber = mmkeras.load(speech_demo[0] / "transcriber.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        transcripts = transcriber(RECORDINGS)
        assert transcripts == [transcriber(path) for path in RECORDINGS]
    for path, transcript in zip(RECORDINGS, transcripts, strict=True):
        print(f"{path.name}: {transcript!r}")
        assert set(transcript.split()) <= set(transcriber.vocabulary.words[4:])
        explanation = transcriber.explain(path)
        assert explanation.text == transcript and len(explanation.words) == len(transcript.split())
    assert sum(map(bool, transcripts)) > len(transcripts) / 2


def check_pauses(transcriber, datasets):
    """Forty clips with 200 ms of silence on both sides, and all of them as one clip with pauses of 0.4 s."""
    test = mmkeras.speech_to_text.data("toy", data_dir=datasets, **transcriber.data_options).test
    examples = list(test.unbatch().take(40))
    texts = [example["transcript"].numpy().decode() for example in examples]
    clips = [np.pad(example["audio"][: example["length"]], 3_200) for example in examples]
    transcripts = transcriber(clips, sample_rate_hz=16_000)
    with pytest.warns(UserWarning, match="1 of 1 clips"):
        joined = transcriber(np.concatenate(clips), sample_rate_hz=16_000)
    for references, hypotheses in ((texts, transcripts), ([" ".join(texts)], [joined])):
        wer = mmkeras.evaluation.metrics.recognition_scores(references, hypotheses)["wer"]
        print(f"with pauses, {len(hypotheses)} transcripts: WER {wer:.4f}")
        assert wer <= 0.02


def test_the_text_to_image_demo_reaches_its_scores(datasets, tmp_path):
    """A classifier scores the document's model, which blurs shapes, and the adversarial model."""
    folder = tmp_path / "demo"
    scores = run_mmkeras(datasets, "demo", "--train", "text_to_image", "--output", folder)
    assert scores["classifier_on_real"][0] >= 0.99 and scores["classifier_on_real"][1] >= 0.95
    check_pixel_loss_model(scores)
    blurred, blurred_unseen, test, unseen = scores["sharpness"]
    assert 0.8 <= test <= 1.2 and 0.8 <= unseen <= 1.2 and max(blurred, blurred_unseen) < 0.5
    assert scores["all"][2] >= 0.90 and scores["all"][3] >= 0.80
    plain, plain_unseen, adversarial, adversarial_unseen = scores["frechet_distance"]
    assert adversarial < plain and adversarial_unseen < plain_unseen
    assert min(scores["seed_variety"]) > 0.2  # 1: as different as images of two prompts
    assert (folder / "index.html").stat().st_size > 100_000


def test_text_to_image_in_chinese_reaches_its_scores(datasets, tmp_path):
    options = ("--language", "zh", "--output", tmp_path / "image_generator.keras")
    check_pixel_loss_model(run_mmkeras(datasets, "train", "text_to_image", *options))


def check_pixel_loss_model(scores):
    for name, bar in (("color", 0.97), ("place", 0.97), ("size", 0.95)):
        assert scores[name][0] >= bar and scores[name][1] >= 0.90


def test_twelve_photos_are_memorized(tmp_path):
    folder = Path(skimage.__file__).parent / "data"
    rows = [f"{name},{caption}" for name, caption in PHOTOS.items()]
    (tmp_path / "captions.csv").write_text("\n".join(["image,caption", *rows]))
    for name in PHOTOS:
        (tmp_path / name).symlink_to(folder / name)
    data = mmkeras.captioning.data(tmp_path, image_size=64, validation_share=0, test_share=0)
    # overfitting is the goal, so there is no regularization
    options = {"dropout": 0.0, "word_dropout": 0.0, "decay_steps": None, "learning_rate": 1e-3}
    model = mmkeras.captioning.build("toy", vocabulary=data.vocabulary, **options)
    model.fit(data.train, epochs=150, verbose=0)
    captioner = mmkeras.captioning.Captioner(model)
    paths = [folder / name for name in PHOTOS]
    assert captioner(paths) == list(PHOTOS.values())
    assert captioner(paths, beams=4) == list(PHOTOS.values())

    captioner.save(tmp_path / "photos.keras")
    code = "import mmkeras, sys; print(*mmkeras.load(sys.argv[1])(sys.argv[2:]), sep='\\n')"
    run = [sys.executable, "-c", code, str(tmp_path / "photos.keras"), *map(str, paths)]
    out = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == list(PHOTOS.values())


def test_the_document_preset_trains_on_cached_features(tmp_path, monkeypatch):
    """Even with random weights and 64 pixels, the loss halves."""
    monkeypatch.setenv("MMKERAS_CACHE", str(tmp_path))
    monkeypatch.setattr(builders, "EXAMPLES", builders.EXAMPLES | {"train": 1000})
    keras.utils.set_random_seed(0)
    data = mmkeras.captioning.data("toy", data_dir=tmp_path)
    model = mmkeras.captioning.build("document", vocabulary=data.vocabulary, weights=None, image_size=64)
    history = model.fit(mmkeras.captioning.with_features(data, model).train, epochs=6, verbose=0).history
    assert history["loss"][-1] < 0.5 * history["loss"][0]


def test_a_shared_encoder_predicts_whether_a_text_describes_an_image():
    train, test = scenes.examples("train", 4000), scenes.examples("test", 1000)
    encoder = cross_modal_pretraining.shared_encoder(train.vocabulary)
    cross_modal_pretraining.pretrain(encoder, train, "words")
    model = cross_modal_pretraining.build(encoder, {"match": 2}, decay_steps=800)
    classification.fit(model, cross_modal_pretraining.matching(train), 800)
    accuracy = Classifier(model).evaluate(cross_modal_pretraining.matching(test))["match"]
    print(f"text matches image: {accuracy:.3f}")
    assert accuracy > 0.85
