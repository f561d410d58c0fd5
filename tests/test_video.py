"""Videos: the toy videos, files, a folder, the classifier and the captioner."""

import keras
import numpy as np
import pytest
import soundfile

import mmkeras
from mmkeras.applications import VideoCaptioner, VideoClassifier, video_understanding
from mmkeras.applications.video_understanding import Sampling, modalities
from mmkeras.media import video
from mmkeras.nn.encoders import sound_encoder
from mmkeras.nn.fusion import CompleteModalities
from mmkeras.text.vocabulary import Vocabulary
from mmkeras.toy import builders, motion, scene

TINY = Sampling(frames=4, image_size=16, seconds=0.4)
WHOLE = Sampling(frames=4, image_size=16)  # of the duration of the toy videos
ATTRIBUTES = {"color": ("red", "blue"), "sound": ("rises", "falls", "beeps")}


@pytest.fixture(scope="module")
def toy_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy_videos")
    with pytest.MonkeyPatch.context() as patch:
        counts = {"train": 24, "validation": 8, "test": 8, "test_unseen": 8}
        patch.setattr(builders, "VIDEO_EXAMPLES", counts)
        builders.toy_videos(folder)
    return folder


@pytest.fixture(scope="module")
def classifier():
    keras.utils.set_random_seed(0)
    vocabulary = Vocabulary(("a", "red", "star"))
    return VideoClassifier(video_understanding.build(ATTRIBUTES, vocabulary=vocabulary, sampling=TINY, units=8))


@pytest.fixture
def folder(tmp_path):
    """A folder of six GIFs, five of them with sound, and a table with labels and captions."""
    lines = ["video,label,caption"]
    for i in range(6):
        frames, sound = motion.film("train", i)
        video.write(tmp_path / f"{i}.gif", frames, sound=sound if i else None)
        lines.append(
            f"{i}.gif,{motion.sample('train', i).sound},{motion.captions(motion.visible('train', i))[0]}"
        )
    (tmp_path / "videos.csv").write_text("\n".join(lines))
    return tmp_path


# --- the toy videos ---


def test_a_video_is_the_same_each_time_and_only_test_unseen_has_the_unseen_pairs():
    for one, other in zip(motion.film("test", 3), motion.film("test", 3), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(motion.film("test", 3)[0], motion.film("test", 4)[0])
    for split in scene.SPLITS:
        events = [motion.sample(split, i) for i in range(50)]
        assert {(e.color, e.shape) in scene.UNSEEN for e in events} == {split == "test_unseen"}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_parse_gives_back_what_a_caption_tells(language):
    for i in range(40):
        event = motion.visible("train", i)
        assert all(motion.parse(text) == event for text in motion.captions(event, language))
        told = motion.parse(motion.sentence("train", i, language))
        true = motion.sample("train", i)
        assert told and all(getattr(told, n) in (None, getattr(true, n)) for n in motion.ATTRIBUTES)
    assert motion.parse("a red star sings") is None


def test_frames_without_color_do_not_depend_on_the_color():
    def film(color):
        event = motion.Event(color, "star", "left", "once", "rises")
        return motion._frames(event, np.random.default_rng(0), True, 32)

    np.testing.assert_array_equal(film("red"), film("yellow"))
    shares = [motion.is_gray("train", i) for i in range(400)]
    assert 0.4 < np.mean(shares) < 0.6


def test_motion_and_sound_happen_as_often_as_the_event_says():
    for number, times in enumerate(motion.TIMES, start=1):
        event = motion.Event("red", "circle", "blink", times, "beeps")
        frames = motion._frames(event, np.random.default_rng(0), False, 32)
        is_there = np.ptp(frames.astype(int), axis=-1).max(axis=(1, 2)) > 60  # (F,)
        is_loud = np.abs(motion._sound(event, np.random.default_rng(0)).reshape(32, -1)).max(axis=1) > 1000
        for present in (is_there, is_loud):
            assert np.count_nonzero(np.diff([0, *present.astype(int)]) == 1) == number


def test_data_have_the_splits_and_leave_words_out_of_the_text(toy_folder):
    data = video_understanding.data("toy", data_dir=toy_folder, batch_size=8, sampling=TINY)
    inputs, labels = next(iter(data.train))
    assert inputs["frames"].shape == (8, 4, 16, 16, 3) and inputs["sound"].shape == (8, TINY.samples)
    assert inputs["text"].shape[0] == 8 and labels.keys() == motion.ATTRIBUTES.keys()
    batch = next(iter(data.test))
    assert batch["captions"].shape == (8, 1) and data.test_unseen is not None
    texts = {text.decode() for text in batch["captions"].numpy()[:, 0]}
    assert texts == {motion.sentence("test", i) for i in range(8)}
    captions = video_understanding.data("toy", target="captions", data_dir=toy_folder, sampling=TINY)
    assert next(iter(captions.test))["captions"].shape == (8, 3)
    with pytest.raises(ValueError, match="target='faces'"):
        video_understanding.data("toy", target="faces")


# --- files ---


def test_a_gif_is_read_as_written_with_its_sound(tmp_path):
    frames, sound = motion.film("train", 3)
    video.write(tmp_path / "clip.gif", frames, sound=sound, sample_rate_hz=motion.SAMPLE_RATE_HZ)
    read = video.read(tmp_path / "clip.gif")
    assert read.seconds == pytest.approx(1.6)
    again, heard = video.sampled(read, Sampling())
    np.testing.assert_array_equal(again, frames)
    np.testing.assert_allclose(heard, sound, atol=40)  # the constant offset is removed


def test_an_mp4_is_read_with_its_sound_in_time(tmp_path):
    pytest.importorskip("av")
    frames, sound = motion.film("train", 3)
    video.write(tmp_path / "clip.mp4", frames[:, :31, :31], sound=sound)  # odd sides are padded
    again, heard = video.sampled(video.read(tmp_path / "clip.mp4"), Sampling())
    assert (
        again.shape == frames.shape and np.abs(again[:, :30, :30].astype(int) - frames[:, :30, :30]).mean() < 12
    )
    assert np.corrcoef(heard, sound)[0, 1] > 0.95
    video.write(tmp_path / "silent.mp4", frames)
    assert video.read(tmp_path / "silent.mp4").sound is None
    content = (tmp_path / "clip.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="video.*cut.mp4"):
        video.read(tmp_path / "cut.mp4")


def test_without_pyav_an_mp4_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    (tmp_path / "clip.mp4").write_bytes(b"x")
    with pytest.raises(ImportError, match=r"mmkeras\[video\]"):
        video.read(tmp_path / "clip.mp4")


def test_a_video_that_ends_in_the_middle_is_used_up_to_there(tmp_path):
    frames, _ = motion.film("train", 3)
    video.write(tmp_path / "clip.gif", frames)
    content = (tmp_path / "clip.gif").read_bytes()
    (tmp_path / "clip.gif").write_bytes(content[: len(content) // 2])
    with pytest.warns(UserWarning, match="clip.gif is damaged after 7 frames"):
        read = video.read(tmp_path / "clip.gif")
    again, _ = video.sampled(read, Sampling())
    np.testing.assert_array_equal(again[:7], frames[:7])
    np.testing.assert_array_equal(again[7:], np.repeat(frames[6:7], 9, axis=0))  # the last frame stays


def test_reading_stops_after_the_seconds_that_are_needed(tmp_path):
    video.write(tmp_path / "long.gif", motion.film("train", 0)[0])
    assert len(video.read(tmp_path / "long.gif", seconds=0.5).frames) == 6


def test_bad_videos_are_refused(tmp_path):
    (tmp_path / "text.gif").write_text("no video")
    for bad, error, message in (
        (tmp_path / "text.gif", ValueError, "video.*text.gif"),
        (tmp_path / "gone.gif", FileNotFoundError, "gone.gif"),
        (np.zeros((32, 32, 3), np.uint8), ValueError, r"shape=\(32, 32, 3\)"),
        (np.zeros((0, 32, 32, 3), np.uint8), ValueError, r"shape=\(0, 32, 32, 3\)"),
        (7, ValueError, "video.*int"),
    ):
        with pytest.raises(error, match=message):
            video.read(bad)
    with pytest.raises(ValueError, match="frames=0"):
        Sampling(frames=0)


# --- missing modalities ---


def test_an_example_whose_mask_is_false_gets_the_learned_vector():
    layer = CompleteModalities(rate=0.9)
    image, sound = np.ones((50, 3), "float32"), np.ones((50, 1, 3), "float32")
    there = np.arange(50)[:, None] % 2 == 0
    layer([[image], [sound, there]])
    layer.missing[1].assign([5.0, 6.0, 7.0])
    _, (vectors, mask) = layer([[image], [sound, there]], training=False)
    np.testing.assert_array_equal(vectors[::2], sound[::2])
    np.testing.assert_array_equal(vectors[1::2, 0], np.tile([5.0, 6.0, 7.0], (25, 1)))
    assert np.all(mask)
    (images,), _ = layer([[image], [sound, there]], training=True)
    assert np.all(np.asarray(images)[1::2] == 1)  # the only modality is never dropped


def test_silence_is_masked_and_the_loudness_does_not_matter():
    encoder = sound_encoder(3200, 8000, 8)
    sound = motion.film("train", 0)[1][None, :3200] / 2**15
    vectors, mask = encoder(np.concatenate([sound, 0.1 * sound, 0 * sound]).astype("float32"))
    np.testing.assert_array_equal(np.all(mask, axis=1), [True, True, False])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-2)


# --- the classifier ---


@pytest.mark.slow
def test_a_list_gives_a_list_and_equals_single_videos(classifier, folder):
    paths = [folder / "1.gif", folder / "0.gif", motion.film("train", 2)[0]]
    answers = classifier(paths, ["a red star", None, "red"])
    assert all(answer.keys() == ATTRIBUTES.keys() for answer in answers)
    assert answers == [classifier(p, t) for p, t in zip(paths, ["a red star", None, "red"], strict=True)]
    assert all(answer[name] in ATTRIBUTES[name] for answer in answers for name in ATTRIBUTES)


def test_a_still_a_silent_video_and_one_without_sound_are_answered(classifier, folder):
    still = motion.film("train", 0)[0][:1]
    assert classifier(still) == classifier(np.repeat(still, 16, axis=0))
    frames = motion.film("train", 0)[0]
    soundfile.write(folder / "0.wav", np.zeros(8000), 8000)
    assert classifier(folder / "0.gif") == classifier(frames)
    sound = np.zeros((1, TINY.samples), "float32")
    inputs = {"frames": video.sampled(video.read(frames), TINY)[0][None], "sound": sound}
    with_none = classifier._model.predict_on_batch(inputs | {"sound": None, "text": None})
    as_silent = classifier._model.predict_on_batch(inputs | {"text": np.zeros((1, 4), "int32")})
    for name in ATTRIBUTES:
        np.testing.assert_allclose(as_silent[name], with_none[name], atol=1e-6)


def test_a_broken_video_in_a_list_is_left_out_and_named(classifier, folder):
    (folder / "broken.gif").write_text("no video")
    with pytest.warns(UserWarning, match="1 of 2 videos cannot be read.*broken.gif"):
        good, bad = classifier([folder / "1.gif", folder / "broken.gif"])
    assert good and bad is None
    with pytest.raises(ValueError, match="texts.*'a red star'"):
        classifier([folder / "1.gif"], "a red star")


@pytest.mark.slow
def test_models_are_trained_scored_and_saved_as_one_file(toy_folder, tmp_path, eager_models):
    data = video_understanding.data("toy", data_dir=toy_folder, batch_size=24, sampling=TINY)
    model = video_understanding.build(data.attributes, vocabulary=data.vocabulary, sampling=TINY, units=16)
    history = model.fit(data.train, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    classifier = VideoClassifier(model)
    scores = video_understanding.evaluate(classifier, data.test)
    assert scores.keys() == {*motion.ATTRIBUTES, "all"}
    classifier.save(tmp_path / "video.keras")
    loaded = mmkeras.load(tmp_path / "video.keras")
    assert isinstance(loaded, VideoClassifier) and loaded.sampling == TINY
    assert loaded.attributes == {name: tuple(kinds) for name, kinds in motion.ATTRIBUTES.items()}
    assert loaded.evaluate(data.test) == pytest.approx(scores)
    other = video_understanding.data(
        "toy", data_dir=toy_folder, sampling=Sampling(frames=2, image_size=16, seconds=0.4)
    )
    with pytest.raises(ValueError, match=r"\(2, 16\)"):
        loaded.evaluate(other.test)


# --- the captioner ---


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Collapse")  # after so few steps
def test_a_captioner_is_trained_scored_and_saved_as_one_file(toy_folder, folder, tmp_path, eager_models):
    data = video_understanding.data("toy", target="captions", data_dir=toy_folder, batch_size=24, sampling=TINY)
    model = video_understanding.build_captioner(
        vocabulary=data.vocabulary, sampling=TINY, units=16, embedding_dim=8
    )
    losses = model.fit(data.train, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    captioner = VideoCaptioner(model)
    scores = captioner.evaluate(data.test, max_length=8)
    assert scores.keys() >= {"cider_d", "exact", "event_accuracy"}
    captioner.save(tmp_path / "captioner.keras")
    loaded = mmkeras.load(tmp_path / "captioner.keras")
    paths = [folder / "0.gif", folder / "1.gif"]  # the first has no sound
    captions = loaded(paths, max_length=8)
    assert captions == captioner(paths, max_length=8) == [captioner(path, max_length=8) for path in paths]


# --- a folder ---


def test_a_folder_has_labels_and_captions(folder, classifier):
    options = {"validation_share": 0.0, "test_share": 0.3, "batch_size": 2, "sampling": WHOLE}
    data = video_understanding.data(folder, **options)
    (kinds,) = data.attributes.values()
    assert set(kinds) <= set(motion.SOUNDS)
    inputs, labels = next(iter(data.train))
    assert labels["label"].shape == (2,) and np.all(inputs["text"].numpy()[:, 0] > 0)
    captions = video_understanding.data(folder, target="captions", **options)
    assert next(iter(captions.train))[0].keys() == {"frames", "sound", "tokens"}


def test_labels_suffice_and_captions_are_then_missing(folder):
    lines = [f"{i}.gif,{'odd' if i % 2 else 'even'}" for i in range(6)]
    (folder / "videos.csv").write_text("\n".join(["video,label", *lines]))
    options = {"validation_share": 0.0, "test_share": 0.0, "batch_size": 6, "sampling": WHOLE}
    data = video_understanding.data(folder, **options)
    inputs, labels = next(iter(data.train))
    assert data.attributes == {"label": ("even", "odd")} and not np.any(inputs["text"])
    assert sorted(labels["label"].numpy()) == [0, 0, 0, 1, 1, 1]
    with pytest.raises(ValueError, match="target='captions'"):
        video_understanding.data(folder, target="captions", **options)
    (folder / "videos.csv").write_text("\n".join(["video,label,caption", *lines[:5], "5.gif,,a star"]))
    with pytest.raises(ValueError, match=r"1 of 6 without one: 5\.gif"):
        video_understanding.data(folder, **options)


def test_videos_of_the_table_that_are_not_there_or_too_long_are_named(folder):
    with open(folder / "videos.csv", "a") as table:
        table.write("\ngone.gif,rises,a star\nlong.gif,rises,a star")
    video.write(folder / "long.gif", np.repeat(motion.film("train", 0)[0], 2, axis=0))
    with pytest.warns(UserWarning) as caught:
        data = video_understanding.data(folder, sampling=WHOLE, validation_share=0.0)
    messages = [str(warning.message) for warning in caught]
    assert any("skipped 1 of 8 files" in m and "gone.gif" in m for m in messages)
    assert any("1 of 7 videos last longer" in m and "long.gif" in m for m in messages)
    assert sum(split.count for split in data.splits.values()) == 7


# --- what each modality adds ---


def test_the_shipped_results_say_that_all_modalities_exceed_each_alone():
    results = modalities.results()
    assert results.measured["command"] == modalities.COMMAND
    for split in modalities.SPLITS:
        shares = {names: scores[split]["all"] for names, scores in results.scores.items()}
        for name in modalities.MODALITIES:
            assert min(shares["frames + sound + text"]) >= max(shares[name]) + 0.05
        assert results.table(split).count("\n") == len(modalities.SETS)


@pytest.mark.slow
def test_the_experiment_trains_the_modalities_it_is_given(toy_folder, eager_models):
    data = video_understanding.data("toy", data_dir=toy_folder)
    train = modalities.examples(data, "train")
    assert len(train) == 24 and train.inputs["sound"].dtype == np.float32
    assert set(train.texts) == {motion.sentence("train", i) for i in range(24)}
    assert modalities.trained(train, ("text",), steps=1).modalities == ("text",)
