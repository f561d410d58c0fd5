"""Clips and transcripts from every source come out as batches for `fit`; what is unusable is named."""

import warnings

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from mmkeras.data import task_data
from mmkeras.data.pipeline import by_length
from mmkeras.data.vocabulary import UNKNOWN, Vocabulary
from mmkeras.media import audio
from mmkeras.speech_to_text import data
from mmkeras.toy import speak


def noise(seconds, rate=16_000, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, int(seconds * rate))


@pytest.fixture
def recordings(tmp_path):
    """Ten clips of one to two seconds in LJSpeech's layout, one of them at 44.1 kHz and in stereo."""
    (tmp_path / "wavs").mkdir()
    lines = []
    for i in range(10):
        soundfile.write(tmp_path / "wavs" / f"A-{i}.wav", noise(1 + i / 10, seed=i), 16_000)
        lines.append(f"A-{i}|Clip No. {i}|clip number {i % 3}")
    soundfile.write(tmp_path / "wavs" / "A-0.wav", noise(2, 44_100).reshape(-1, 2), 44_100)
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    return tmp_path


def transcripts(dataset):
    return [text.decode() for batch in dataset for text in batch["transcript"].numpy()]


def test_the_toy_world_gives_batches_for_fit_and_for_evaluate(small_toy):
    found = data("toy", batch_size=8, data_dir=small_toy)
    assert found.vocabulary.unit == "word" and found.sample_rate_hz == 16_000
    inputs, targets = next(iter(found.train))
    assert inputs["audio"].dtype == tf.float32 and inputs["audio"].shape[0] == 8
    assert int(tf.reduce_max(inputs["length"])) == inputs["audio"].shape[1]
    for row, length in zip(inputs["audio"].numpy(), inputs["length"].numpy(), strict=True):
        assert np.abs(row[:length]).max() > 0.01
    tokens = inputs["tokens"].numpy()
    assert (tokens[:, 0] == 2).all() and tokens.shape == targets.shape
    np.testing.assert_array_equal(tokens[0, 1:], targets.numpy()[0, :-1] * (tokens[0, 1:] > 0))
    assert found.train.cardinality() == 96 // 8
    assert set(transcripts(found.test)) == {speak.caption("test", i) for i in range(16)}
    assert set(transcripts(found.test_unseen)) == {speak.caption("test_unseen", i) for i in range(16)}


@pytest.mark.filterwarnings("ignore:.*is left out")
def test_chinese_is_read_character_by_character(small_toy):
    found = data("toy", language="zh", data_dir=small_toy)
    assert found.vocabulary.unit == "character" and "红" in found.vocabulary.ids
    words = data("toy", unit="character", data_dir=small_toy).vocabulary
    assert " " in words.ids and words.decode(words.encode("a red star")) == "a red star"


def test_noise_lies_at_the_ratio_that_was_asked_for(small_toy):
    clean, noisy = (data("toy", snr_db=snr, data_dir=small_toy).test for snr in (None, 10.0))
    for without, with_noise in zip(clean.unbatch(), noisy.unbatch(), strict=True):
        length = int(without["length"])
        signal = without["audio"].numpy()[:length]
        added = with_noise["audio"].numpy()[:length] - signal
        assert 10 * np.log10((signal**2).mean() / (added**2).mean()) == pytest.approx(10, abs=0.3)
    again = next(iter(data("toy", snr_db=10.0, data_dir=small_toy).test))["audio"]
    np.testing.assert_array_equal(again, next(iter(noisy))["audio"])


def test_augmentation_changes_speed_and_noise_in_training_alone(small_toy):
    def lengths(found):
        return sorted(int(n) for inputs, _ in found for n in inputs["length"])

    plain, augmented = (data("toy", augment=a, data_dir=small_toy) for a in (False, True))
    assert lengths(plain.validation) == lengths(augmented.validation)
    assert lengths(plain.train) != lengths(augmented.train)
    assert len(set(lengths(augmented.train)) - set(lengths(plain.train))) > 30


def test_the_same_seed_gives_the_same_batches(small_toy):
    first, again, other = (
        next(iter(data("toy", seed=seed, batch_size=8, data_dir=small_toy).train))[0] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first["tokens"], again["tokens"])
    np.testing.assert_array_equal(first["audio"], again["audio"])
    assert first["audio"].shape != other["audio"].shape or not np.allclose(first["audio"], other["audio"])


def test_batches_of_like_length_hold_little_padding():
    # LibriSpeech's train-clean-100 in outline: most clips last 12 to 16 s, some down to 1.5 s
    rng = np.random.default_rng(0)
    seconds = np.clip(
        np.where(rng.random(3_000) < 0.75, rng.normal(14.2, 1.5, 3_000), rng.uniform(1.5, 15, 3_000)), 1.4, 24.5
    )
    clips = tf.data.Dataset.from_tensor_slices((seconds * 100).astype(np.int32))  # 100 frames a second
    clips = clips.map(lambda n: {"audio": tf.zeros([n], tf.int16), "length": n})
    real = total = 0
    for batch in by_length(clips, 32):
        real += int(tf.reduce_sum(batch["length"]))
        total += int(tf.size(batch["audio"]))
    assert real / total > 0.9


def test_a_folder_as_ljspeech_has_it(recordings):
    found = data(recordings, batch_size=4, augment=False)
    assert found.vocabulary.unit == "character"
    assert {"clip number 0", "clip number 1", "clip number 2"} >= set(transcripts(found.test))
    inputs, _ = next(iter(found.train))
    assert inputs["audio"].shape[0] <= 4 and 0.4 < float(tf.reduce_max(inputs["audio"])) <= 1.01


@pytest.mark.filterwarnings("error:.*left out")
def test_notes_beside_the_clips_are_not_taken_for_them(recordings):
    for suffix in ("TextGrid", "lab", "txt", "xml"):
        (recordings / "wavs" / f"A-0.{suffix}").write_text("clip number 0")
    found = data(recordings, batch_size=10, augment=False, validation_share=0, test_share=0)
    assert found.train.cardinality() == 1


def test_a_table_of_path_and_transcript_with_splits(recordings):
    rows = [f"wavs/A-{i}.wav,number {i},{'test' if i > 6 else 'train'}" for i in range(10)]
    (recordings / "transcripts.csv").write_text("\n".join(["path,sentence,split", *rows]))
    found = data(recordings, unit="word", table="transcripts.csv")
    assert sorted(transcripts(found.test)) == ["number 7", "number 8", "number 9"]
    assert found.validation is None and len(found.vocabulary) == 4 + 8


def test_clips_for_testing_alone_will_do_with_a_vocabulary(recordings):
    rows = [f"wavs/A-{i}.wav,number {i},test" for i in range(10)]
    (recordings / "transcripts.csv").write_text("\n".join(["path,sentence,split", *rows]))
    with pytest.raises(ValueError, match="vocabulary=.*a table of 10 rows"):
        data(recordings, table="transcripts.csv")
    vocabulary = Vocabulary(list("number 0123456789"), "character")
    found = data(recordings, table="transcripts.csv", vocabulary=vocabulary)
    assert found.train is None and found.validation is None and found.train_from(0) is None
    assert sorted(transcripts(found.test)) == [f"number {i}" for i in range(10)]


def test_what_cannot_be_used_is_left_out_named_and_counted(recordings):
    wavs = recordings / "wavs"
    (wavs / "A-1.wav").write_text("no sound")
    soundfile.write(wavs / "A-2.wav", np.zeros(0), 16_000)
    soundfile.write(wavs / "A-3.wav", np.full(16_000, np.nan, np.float32), 16_000, subtype="FLOAT")
    soundfile.write(wavs / "A-4.wav", noise(0.3), 16_000)  # "clip number 1" does not fit into 8 steps
    soundfile.write(wavs / "A-5.wav", noise(9), 16_000)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = data(recordings, batch_size=2, augment=False, max_seconds=5, validation_share=0, test_share=0)
        lengths = {int(n) for inputs, _ in found.train for n in inputs["length"]}
    said = [str(warning.message) for warning in caught]
    for name, reason in (
        ("A-1.wav", "is no sound file"),
        ("A-2.wav", "lasts 0 seconds"),
        ("A-3.wav", "holds NaN"),
        ("A-4.wav", "13 tokens do not fit into its 8 steps"),
        ("A-5.wav", "longer than max_seconds"),
    ):
        assert sum(name in line and reason in line for line in said) == 1, (name, said)
    assert any("(2 so far)" in line for line in said) and not any(".." in line for line in said)
    assert lengths <= {round(16_000 * (1 + i / 10)) for i in (0, 6, 7, 8, 9)}


@pytest.mark.parametrize(("samples", "fits"), [(12 * 640, False), (12 * 640 + 1, True)])
@pytest.mark.filterwarnings("ignore:.*is left out")
def test_a_step_that_is_begun_counts_as_in_the_model(recordings, samples, fits):
    soundfile.write(recordings / "wavs" / "A-4.wav", noise(samples / 16_000), 16_000)  # 13 tokens
    found = data(recordings, batch_size=1, augment=False, validation_share=0, test_share=0)
    lengths = {int(n) for inputs, _ in found.train for n in inputs["length"]}
    assert (samples in lengths) == fits


@pytest.mark.filterwarnings("ignore:.*is left out")
def test_static_shapes_hold_a_token_for_the_step_that_is_begun(recordings):
    seconds = 12.5 * 0.04
    soundfile.write(recordings / "wavs" / "A-4.wav", noise(seconds), 16_000)  # 13 tokens
    how = {"max_seconds": seconds, "static_shapes": True, "validation_share": 0, "test_share": 0}
    found = data(recordings, batch_size=1, augment=False, **how)
    ((inputs, targets),) = found.train
    assert inputs["tokens"].shape == targets.shape == (1, 14) and targets.numpy().all()


@pytest.mark.parametrize("memory", [512, 0], ids=["in memory", "read again"])
@pytest.mark.filterwarnings("ignore:.*is left out")
def test_an_epoch_holds_each_usable_clip_once_where_most_cannot_be_used(recordings, monkeypatch, memory):
    monkeypatch.setattr(task_data, "IN_MEMORY_MB", memory)
    for i in range(3, 10):
        soundfile.write(recordings / "wavs" / f"A-{i}.wav", noise(9), 16_000)
    how = {"batch_size": 2, "augment": False, "max_seconds": 5, "validation_share": 0, "test_share": 0}
    found = data(recordings, **how)
    for _ in range(2):
        lengths = [int(n) for inputs, _ in found.train for n in inputs["length"]]
        assert sorted(lengths) == [16_000, 17_600, 19_200]
    assert found.train.cardinality() == 2


@pytest.mark.parametrize("memory", [512, 0], ids=["in memory", "read again"])
@pytest.mark.filterwarnings("ignore:.*is left out")
def test_a_source_without_one_usable_clip_is_explained(recordings, small_toy, monkeypatch, memory):
    monkeypatch.setattr(task_data, "IN_MEMORY_MB", memory)
    with pytest.raises(ValueError, match=r"train. Received: none of \d+. A-.* max_seconds"):
        _ = data(recordings, max_seconds=0.5).train
    with pytest.raises(ValueError, match="toy train. Received: none of 96. train .* max_seconds"):
        _ = data("toy", max_seconds=0.5, data_dir=small_toy).train


@pytest.mark.filterwarnings("ignore:.*is left out", "ignore:The vocabulary lacks")
def test_a_validation_split_without_one_usable_clip_is_none(recordings):
    rows = [f"wavs/A-{i}.wav,number {i},{'validation' if i == 9 else 'train'}" for i in range(10)]
    (recordings / "transcripts.csv").write_text("\n".join(["path,sentence,split", *rows]))
    nothing = np.full(16_000, np.nan, np.float32)
    soundfile.write(recordings / "wavs" / "A-9.wav", nothing, 16_000, subtype="FLOAT")
    assert data(recordings, table="transcripts.csv", batch_size=2).validation is None


def test_what_stays_in_memory_is_read_once(recordings, monkeypatch):
    read, paths = audio.read, []
    monkeypatch.setattr(audio, "read", lambda path, rate: (paths.append(path), read(path, rate))[1])
    found = data(recordings, batch_size=2, validation_share=0, test_share=0)
    for _ in range(2):
        list(found.train)
    assert len(paths) == len(set(paths)) == 10


def test_silence_is_learned_from_without_nan(recordings):
    for path in (recordings / "wavs").glob("*.wav"):
        soundfile.write(path, np.zeros(32_000), 16_000)
    inputs, _ = next(iter(data(recordings, batch_size=2).train))
    assert np.abs(inputs["audio"].numpy()).max() < 1e-9


def test_letters_that_a_given_vocabulary_lacks_are_unknown_and_named(recordings):
    table = recordings / "metadata.csv"
    table.write_text(table.read_text().replace("A-8|Clip No. 8|clip number 2", "A-8|Eight|a nice plum café"))
    vocabulary = Vocabulary(list("abcdeilmnpru 12"), "character")
    message = "lacks 3 letters, .* in 5 of 10 transcripts: '0' 'f' 'é'$"
    with pytest.warns(UserWarning, match=message) as caught:
        found = data(recordings, vocabulary=vocabulary, batch_size=2, validation_share=0, test_share=0)
    assert len(caught) == 1
    assert any(UNKNOWN in targets.numpy() for _, targets in found.train)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data(recordings, vocabulary=Vocabulary(list("abcdeilmnpru 012fé"), "character"))


def test_letters_that_training_never_shows_are_named(recordings):
    rows = [f"wavs/A-{i}.wav,{'dog' if i < 8 else 'dig'},{'train' if i < 8 else 'test'}" for i in range(10)]
    (recordings / "transcripts.csv").write_text("\n".join(["path,sentence,split", *rows]))
    with pytest.warns(UserWarning, match="lacks 1 letters, .* in 2 of 10 transcripts: 'i'$"):
        data(recordings, table="transcripts.csv", batch_size=2)


def test_one_bad_row_of_the_table_does_not_stop_the_others(recordings):
    with (recordings / "metadata.csv").open("a") as table:
        table.write("\nB-1|not there|not there\nA-2|Two|")
    with pytest.warns(UserWarning) as caught:
        found = data(recordings, batch_size=2, validation_share=0, test_share=0)
    assert found.train.cardinality() == 5
    said = [str(warning.message) for warning in caught]
    assert len(said) == 2
    assert (
        "metadata.csv: 1 of 12 rows are left out, where" in said[0] and "line 12, the text for 'A-2'" in said[0]
    )
    assert "1 of the 11 files in the table are not in" in said[1] and "left out: B-1" in said[1]


def test_a_second_transcript_of_a_clip_is_left_out_and_named(recordings):
    with (recordings / "metadata.csv").open("a") as table:
        table.write("\nA-2|Clip No. 2|clip number 2\nA-3|Clip No. 3|another one\nA-4|Clip No. 4|one more")
    message = (
        "metadata.csv: 2 of 13 rows are left out, where a clip has another transcript already: "
        "line 12, 'A-3', line 13, 'A-4'$"
    )
    with pytest.warns(UserWarning, match=message) as caught:
        found = data(recordings, validation_share=0, test_share=0)
    assert len(caught) == 1
    assert set(found.vocabulary.words[4:]) == set("clip number 012")


def no_clip_is_there(folder):
    (folder / "metadata.csv").write_text("B-1|hello\nB-2|hello")


def no_clip_is_sound(folder):
    for path in (folder / "wavs").iterdir():
        path.write_text("no sound")


def only_empty_transcripts(folder):
    (folder / "metadata.csv").write_text("A-1||\nA-2||")


def only_exclamations(folder):
    (folder / "metadata.csv").write_text("A-1|!!!\nA-2|!!!")


def no_table(folder):
    (folder / "metadata.csv").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_clip_is_there, "2 of the 2 files in the table are not in .*B-1, B-2"),
        (only_empty_transcripts, "metadata.csv.* 0: 'A-1'; 1: ''.*text_column="),
        (only_exclamations, "metadata.csv.* 1: '!!!'.*text_column="),
        (no_table, "Expected one table of transcripts"),
        (no_clip_is_sound, "none of 10: .*A-"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*is left out")
def test_a_folder_that_cannot_be_used_is_explained(recordings, spoil, message):
    spoil(recordings)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        data(recordings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "nowhere"}, "source='nowhere'"),
        ({"language": "fr"}, "language='fr'"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"unit": "phone"}, "unit='phone'"),
        ({"source": "librispeech", "language": "zh"}, "'librispeech'.*language='zh'"),
        ({"objects": 2}, "objects"),
        ({"sample_rate_hz": 0}, "sample_rate_hz=0"),
        ({"sample_rate_hz": "16k"}, "sample_rate_hz='16k'"),
        ({"step_ms": 0}, "step_ms=0"),
        ({"max_seconds": 0}, "max_seconds=0"),
        ({"max_seconds": "35"}, "max_seconds='35'"),
        ({"vocabulary": "abc"}, "vocabulary='abc'"),
        ({"min_count": "1"}, "min_count='1'"),
        ({"max_size": 4}, "max_size to be an int of at least 5. Received: max_size=4"),
        ({"seed": "a"}, "seed='a'"),
        ({"snr_db": float("nan")}, "snr_db=nan"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        data(**arguments)


@pytest.mark.parametrize("option", [{"table": 5}, {"encoding": "nope"}, {"encoding": None}])
def test_bad_options_of_a_folder_are_named(recordings, option):
    ((name, value),) = option.items()
    with pytest.raises(ValueError, match=f"Expected {name} to be .* Received: {name}={value!r}"):
        data(recordings, **option)


# --- TensorFlow Datasets, with its own mock data: true feature specs, random content ---


@pytest.mark.parametrize("name", ["librispeech", "ljspeech", "speech_commands"])
def test_datasets_of_tfds_go_through_the_same_pipeline(name, mock_speech):
    with mock_speech():
        found = data(name, batch_size=4, augment=False)
        inputs, targets = next(iter(found.train))
        assert inputs["audio"].shape[0] == 4 and np.abs(inputs["audio"]).max() < 0.1
        written = {found.vocabulary.decode(ids) for ids in targets.numpy()}
        if name == "speech_commands":
            assert found.vocabulary.unit == "word"
            assert set(found.vocabulary.words[4:]) == {
                "down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes",
            }  # fmt: skip
            assert not any(text.startswith("_") for text in transcripts(found.test))
        else:
            assert written == {"hello world" if name == "librispeech" else "hello two"}
            assert len(found.vocabulary) == 4 + 28
        assert len(transcripts(found.test)) > 0


def test_left_out_says_each_clip_once():
    left_out = task_data.SkippedExamples("here")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            left_out("a.wav", "a.wav is broken.")
        left_out("b.wav", "b.wav is broken")
    assert [str(w.message) for w in caught] == [
        "here: a.wav is broken. It is left out (1 so far).",
        "here: b.wav is broken. It is left out (2 so far).",
    ]
