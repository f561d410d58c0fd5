"""Speech to text's pipelines: batches from every source, and warnings about clips that cannot be used."""

import itertools
import re
import warnings

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from mmkeras.data import pipeline, task_data
from mmkeras.media import audio
from mmkeras.speech_to_text import data
from mmkeras.text.vocabulary import START, UNKNOWN, Vocabulary
from mmkeras.toy import speak

NO_SHARES = {"validation_share": 0, "test_share": 0}
in_memory_or_not = pytest.mark.parametrize("memory", [512, 0], ids=["in memory", "read again"])


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


def with_splits(recordings, split_of, text=lambda i: f"number {i}"):
    """Replaces the table by one with a column `split`."""
    rows = [f"wavs/A-{i}.wav,{text(i)},{split_of(i)}" for i in range(10)]
    (recordings / "metadata.csv").unlink()
    (recordings / "transcripts.csv").write_text("\n".join(["path,sentence,split", *rows]))


def transcripts(dataset):
    return [text.decode() for batch in dataset for text in batch["transcript"].numpy()]


def targets(dataset, vocabulary):
    return [vocabulary.decode(ids) for _, batch in dataset for ids in batch.numpy()]


def lengths(dataset):
    return sorted(int(n) for inputs, _ in dataset for n in inputs["length"])


# --- the toy world ---


def test_toy_batches_have_the_documented_shapes(small_toy):
    toy = data("toy", batch_size=8, data_dir=small_toy)
    assert toy.vocabulary.unit == "word" and toy.sample_rate_hz == 16_000
    inputs, ids = next(iter(toy.train))
    assert inputs["audio"].dtype == tf.float32 and inputs["audio"].shape[0] == 8
    assert int(tf.reduce_max(inputs["length"])) == inputs["audio"].shape[1]
    for row, length in zip(inputs["audio"].numpy(), inputs["length"].numpy(), strict=True):
        assert np.abs(row[:length]).max() > 0.01
    tokens = inputs["tokens"].numpy()
    assert (tokens[:, 0] == START).all() and tokens.shape == ids.shape
    np.testing.assert_array_equal(tokens[0, 1:], ids.numpy()[0, :-1] * (tokens[0, 1:] > 0))
    assert toy.train.cardinality() == 96 // 8
    assert set(transcripts(toy.test)) == {speak.caption("test", i) for i in range(16)}
    assert set(transcripts(toy.test_unseen)) == {speak.caption("test_unseen", i) for i in range(16)}


@pytest.mark.filterwarnings("ignore:.*is left out")
def test_tokens_of_chinese_are_characters(small_toy):
    chinese = data("toy", language="zh", data_dir=small_toy).vocabulary
    assert chinese.unit == "character" and "红" in chinese.ids
    english = data("toy", unit="character", data_dir=small_toy).vocabulary
    assert " " in english.ids and english.decode(english.encode("a red star")) == "a red star"


def test_noise_has_the_given_ratio(small_toy):
    clean, noisy = (data("toy", snr_db=snr_db, data_dir=small_toy).test for snr_db in (None, 10.0))
    for without, with_noise in zip(clean.unbatch(), noisy.unbatch(), strict=True):
        length = int(without["length"])
        signal = without["audio"].numpy()[:length]
        added = with_noise["audio"].numpy()[:length] - signal
        assert 10 * np.log10((signal**2).mean() / (added**2).mean()) == pytest.approx(10, abs=0.3)
    again = next(iter(data("toy", snr_db=10.0, data_dir=small_toy).test))["audio"]
    np.testing.assert_array_equal(again, next(iter(noisy))["audio"])


@pytest.mark.slow
def test_augmentation_changes_speed_in_training_only(small_toy):
    plain, augmented = (data("toy", augment=augment, data_dir=small_toy) for augment in (False, True))
    assert lengths(plain.validation) == lengths(augmented.validation)
    assert len(set(lengths(augmented.train)) - set(lengths(plain.train))) > 30


def test_the_seed_determines_the_batches(small_toy):
    first, again, other = (
        next(iter(data("toy", seed=seed, batch_size=8, data_dir=small_toy).train))[0] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first["tokens"], again["tokens"])
    np.testing.assert_array_equal(first["audio"], again["audio"])
    assert first["audio"].shape != other["audio"].shape or not np.allclose(first["audio"], other["audio"])


def test_batches_of_similar_length_have_little_padding():
    # LibriSpeech's train-clean-100 in outline: most clips last 12 to 16 s, some down to 1.5 s
    rng = np.random.default_rng(0)
    seconds = np.clip(
        np.where(rng.random(3_000) < 0.75, rng.normal(14.2, 1.5, 3_000), rng.uniform(1.5, 15, 3_000)), 1.4, 24.5
    )
    clips = tf.data.Dataset.from_tensor_slices((seconds * 100).astype(np.int32))  # 100 frames per second
    clips = clips.map(lambda n: {"audio": tf.zeros([n], tf.int16), "length": n})
    valid = total = 0
    for batch in pipeline.by_length(clips, 32):
        valid += int(tf.reduce_sum(batch["length"]))
        total += int(tf.size(batch["audio"]))
    assert valid / total > 0.9


# --- folders ---


@pytest.mark.filterwarnings("error")
def test_ljspeech_layout_with_other_files_beside_the_clips(recordings):
    for suffix in ("TextGrid", "lab", "txt", "xml"):
        (recordings / "wavs" / f"A-0.{suffix}").write_text("clip number 0")
    folder = data(recordings, batch_size=10, augment=False, **NO_SHARES)
    assert folder.vocabulary.unit == "character" and folder.train.cardinality() == 1
    assert set(targets(folder.train, folder.vocabulary)) == {f"clip number {i}" for i in range(3)}
    assert 0.4 < float(tf.reduce_max(next(iter(folder.train))[0]["audio"])) <= 1.01


def test_a_column_divides_the_clips(recordings):
    with_splits(recordings, lambda i: "test" if i > 6 else "train")
    folder = data(recordings, unit="word")
    assert sorted(transcripts(folder.test)) == ["number 7", "number 8", "number 9"]
    assert folder.validation is None and len(folder.vocabulary) == 4 + 8


def test_a_test_split_alone_needs_a_vocabulary(recordings):
    with_splits(recordings, lambda i: "test")
    with pytest.raises(ValueError, match="vocabulary=.* 10 "):
        data(recordings)
    folder = data(recordings, vocabulary=Vocabulary(list("number 0123456789"), "character"))
    assert folder.train is None and folder.validation is None and folder.train_from(0) is None
    assert sorted(transcripts(folder.test)) == [f"number {i}" for i in range(10)]


def test_common_voice_release(tmp_path):
    """Three tables give the splits; `validated.tsv` has the speakers."""
    (tmp_path / "clips").mkdir()
    header = "client_id\tpath\tsentence_id\tsentence\tsentence_domain\tup_votes\tgender\tlocale\tsegment"
    tables = {"train": range(6), "dev": range(6, 8), "test": range(8, 10)}
    tables |= {"validated": range(10), "other": range(10, 12), "invalidated": range(12, 14)}
    for name, numbers in tables.items():
        rows = [f"c{i // 2}\tcommon_voice_en_{i}.mp3\ts{i}\tSay “number” {i}.\t\t2\t\ten\t" for i in numbers]
        (tmp_path / f"{name}.tsv").write_text("\n".join([header, *rows]))
    for i in range(14):
        soundfile.write(tmp_path / "clips" / f"common_voice_en_{i}.mp3", noise(1.5, seed=i), 16_000)
    durations = [f"common_voice_en_{i}.mp3\t1500" for i in range(14)]
    (tmp_path / "clip_durations.tsv").write_text("\n".join(["clip\tduration[ms]", *durations]))
    release = data(tmp_path, unit="word", batch_size=2)
    assert sorted(targets(release.train, release.vocabulary)) == [f"say number {i}" for i in range(6)]
    assert len(lengths(release.validation)) == 2
    assert sorted(transcripts(release.test)) == [f"Say “number” {i}." for i in (8, 9)]
    by_speaker = data(tmp_path, table="validated.tsv", unit="word", batch_size=2)
    assert sorted(itertools.chain(*by_speaker.splits["test"].texts())) in (
        [f"Say “number” {i}." for i in (2 * speaker, 2 * speaker + 1)] for speaker in range(5)
    )


@pytest.mark.parametrize("subsets", [("train-clean-100", "dev-clean", "test-clean"), ("train-clean-100",)])
@pytest.mark.filterwarnings("error")
def test_librispeech_folders(tmp_path, subsets):
    speakers = {subset: [f"{number}{i}" for i in range(3)] for number, subset in enumerate(subsets, start=1)}
    for folder, speaker in (
        (tmp_path / subset, speaker) for subset, group in speakers.items() for speaker in group
    ):
        chapter = folder / speaker / "7"
        chapter.mkdir(parents=True)
        names = [f"{speaker}-7-{i:04}" for i in range(2)]
        (chapter / f"{speaker}-7.trans.txt").write_text(
            "".join(f"{name} SPEAKER {speaker}\n" for name in names)
        )
        for name in names:
            soundfile.write(chapter / f"{name}.flac", noise(1), 16_000)
    (tmp_path / "SPEAKERS.TXT").write_text("; ID |SEX| SUBSET\n")
    release = data(tmp_path, unit="word", batch_size=2)
    parts = {name: [text for (text,) in split.texts()] for name, split in release.splits.items()}
    if len(subsets) == 3:
        for name, subset in zip(("train", "validation", "test"), subsets, strict=True):
            assert set(parts[name]) == {f"SPEAKER {speaker}" for speaker in speakers[subset]}
    else:
        assert sorted(map(len, parts.values())) == [2, 2, 2]
        assert (
            len(set(itertools.chain(*parts.values()))) == sum(len(set(texts)) for texts in parts.values()) == 3
        )


def test_letters_outside_of_a_given_vocabulary_are_unknown(recordings):
    table = recordings / "metadata.csv"
    table.write_text(table.read_text().replace("A-8|Clip No. 8|clip number 2", "A-8|Eight|a nice plum café"))
    vocabulary = Vocabulary(list("abcdeilmnpru 12"), "character")
    with pytest.warns(UserWarning, match=" 3 characters.* 5 of 10 .*: '0' 'f' 'é'$") as caught:
        folder = data(recordings, vocabulary=vocabulary, batch_size=2, **NO_SHARES)
    assert len(caught) == 1
    assert any(UNKNOWN in ids.numpy() for _, ids in folder.train)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data(recordings, vocabulary=Vocabulary(list("abcdeilmnpru 012fé"), "character"))


def test_warning_names_letters_that_are_not_in_training(recordings):
    with_splits(recordings, lambda i: "train" if i < 8 else "test", lambda i: "dog" if i < 8 else "dig")
    with pytest.warns(UserWarning, match=" 1 characters.* 2 of 10 .*: 'i'$"):
        data(recordings, batch_size=2)


def test_words_outside_of_a_given_vocabulary_are_named(recordings):
    with pytest.warns(UserWarning, match="lacks 2 words.* 7 of 10 texts: '0' '1'$"):
        data(recordings, vocabulary=Vocabulary(["clip", "number", "2"]))


# --- clips that cannot be used ---


def test_warnings_count_and_name_unusable_clips(recordings):
    wavs = recordings / "wavs"
    (wavs / "A-1.wav").write_text("not audio")
    soundfile.write(wavs / "A-2.wav", np.zeros(0), 16_000)
    soundfile.write(wavs / "A-3.wav", np.full(16_000, np.nan, np.float32), 16_000, subtype="FLOAT")
    soundfile.write(wavs / "A-4.wav", noise(0.3), 16_000)  # "clip number 1" does not fit into 8 steps
    soundfile.write(wavs / "A-5.wav", noise(9), 16_000)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        folder = data(recordings, batch_size=2, augment=False, max_seconds=5, **NO_SHARES)
        assert set(lengths(folder.train)) <= {round(16_000 * (1 + i / 10)) for i in (0, 6, 7, 8, 9)}
    messages = [str(warning.message) for warning in caught]
    reasons = {"A-1.wav": "", "A-2.wav": "", "A-3.wav": "NaN", "A-4.wav": "13 .* 8 ", "A-5.wav": "max_seconds"}
    for name, reason in reasons.items():
        (message,) = (message for message in messages if name in message)
        assert re.search(reason, message), message
    assert any("(2 so far)" in message for message in messages)


def test_each_clip_is_skipped_once():
    skipped = task_data.SkippedExamples("here")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for reason in ("a.wav is broken.", "a.wav is broken.", "b.wav is broken"):
            skipped(reason[:5], reason)
    assert [str(w.message) for w in caught] == [
        "here: a.wav is broken. It is left out (1 so far).",
        "here: b.wav is broken. It is left out (2 so far).",
    ]


@pytest.mark.parametrize(("samples", "fits"), [(12 * 640, False), (12 * 640 + 1, True)])
@pytest.mark.filterwarnings("ignore:.*is left out")
def test_a_partial_last_step_counts_as_in_the_model(recordings, samples, fits):
    soundfile.write(recordings / "wavs" / "A-4.wav", noise(samples / 16_000), 16_000)  # 13 tokens
    folder = data(recordings, batch_size=1, augment=False, **NO_SHARES)
    assert (samples in lengths(folder.train)) == fits


@pytest.mark.filterwarnings("ignore:.*is left out")
def test_static_shapes_have_a_token_for_the_partial_last_step(recordings):
    seconds = 12.5 * 0.04
    soundfile.write(recordings / "wavs" / "A-4.wav", noise(seconds), 16_000)  # 13 tokens
    folder = data(recordings, batch_size=1, augment=False, max_seconds=seconds, static_shapes=True, **NO_SHARES)
    ((inputs, ids),) = folder.train
    assert inputs["tokens"].shape == ids.shape == (1, 14) and ids.numpy().all()


@in_memory_or_not
@pytest.mark.filterwarnings("ignore:.*is left out")
def test_an_epoch_has_each_usable_clip_once_if_most_are_unusable(recordings, monkeypatch, memory):
    monkeypatch.setattr(task_data, "IN_MEMORY_MB", memory)
    for i in range(3, 10):
        soundfile.write(recordings / "wavs" / f"A-{i}.wav", noise(9), 16_000)
    folder = data(recordings, batch_size=2, augment=False, max_seconds=5, **NO_SHARES)
    for _ in range(2):
        assert lengths(folder.train) == [16_000, 17_600, 19_200]
    assert folder.train.cardinality() == 2


def test_only_the_first_of_many_skipped_clips_are_named():
    skipped = task_data.SkippedExamples("here")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(1200):
            skipped(f"{number}.wav", f"{number}.wav is broken.")
    counts = [int(re.search(r"\((\d+) so far", str(w.message))[1]) for w in caught]
    assert counts == [*range(1, 11), 100, 1000]


def test_a_clip_that_is_longer_than_its_table_says_is_left_out(recordings):
    lines = ["path,transcript,duration", "A-0.wav,one,1.0", "A-9.wav,nine,0.8", "A-8.wav,eight,1.8"]
    lines.append("A-7.wav,seven,1:42")  # another unit is ignored
    (recordings / "metadata.csv").write_text("\n".join(lines))
    with pytest.warns(UserWarning, match=r"A-9\.wav lasts 1\.90 s.* 0\.8 s.*\(1 so far\)"):
        folder = data(recordings, **NO_SHARES)
    assert folder.splits["train"].count == 3


@pytest.mark.filterwarnings("ignore:.*is left out")
def test_the_error_of_a_refused_folder_gives_the_first_reason(recordings):
    for path in (recordings / "wavs").iterdir():
        soundfile.write(path, 3000 * noise(1), 16_000, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"none of 10.*A-\d\.wav.*peak=1"):
        _ = data(recordings, **NO_SHARES).train


@in_memory_or_not
@pytest.mark.filterwarnings("ignore:.*is left out")
def test_sources_without_a_usable_clip_are_refused(recordings, small_toy, monkeypatch, memory):
    monkeypatch.setattr(task_data, "IN_MEMORY_MB", memory)
    with pytest.raises(ValueError, match=r"train. .*none of \d+. A-.* max_seconds"):
        _ = data(recordings, max_seconds=0.5).train
    with pytest.raises(ValueError, match="toy train. .*none of 96. train .* max_seconds"):
        _ = data("toy", max_seconds=0.5, data_dir=small_toy).train


@pytest.mark.filterwarnings("ignore:.*is left out", "ignore:The vocabulary lacks")
def test_validation_without_a_usable_clip_is_none(recordings):
    with_splits(recordings, lambda i: "validation" if i == 9 else "train")
    invalid = np.full(16_000, np.nan, np.float32)
    soundfile.write(recordings / "wavs" / "A-9.wav", invalid, 16_000, subtype="FLOAT")
    assert data(recordings, batch_size=2).validation is None


def test_clips_in_memory_are_read_once(recordings, monkeypatch):
    read, paths = audio.read, []
    monkeypatch.setattr(audio, "read", lambda path, rate: (paths.append(path), read(path, rate))[1])
    folder = data(recordings, batch_size=2, **NO_SHARES)
    for _ in range(2):
        list(folder.train)
    assert len(paths) == len(set(paths)) == 10


def test_silent_clips_give_no_nan(recordings):
    for path in (recordings / "wavs").glob("*.wav"):
        soundfile.write(path, np.zeros(32_000), 16_000)
    inputs, _ = next(iter(data(recordings, batch_size=2).train))
    assert np.abs(inputs["audio"].numpy()).max() < 1e-9


@pytest.mark.parametrize(
    ("rows", "messages"),
    [
        (
            ["B-1|not there|not there", "A-2|Two|"],
            [r"metadata.csv.* 1 of 12 .*line 12 \('A-2'\)", " 1 of 11 .*: B-1$"],
        ),
        (
            ["A-2|Clip No. 2|clip number 2", "A-3|Clip No. 3|another one", "A-4|Clip No. 4|one more"],
            [r"metadata.csv.* 2 of 13 .*: line 12 \('A-3'\), line 13 \('A-4'\)$"],
        ),
    ],
)
def test_unusable_rows_do_not_stop_the_others(recordings, rows, messages):
    with (recordings / "metadata.csv").open("a") as table:
        table.write("\n".join(["", *rows]))
    with pytest.warns(UserWarning) as caught:
        folder = data(recordings, batch_size=2, **NO_SHARES)
    assert folder.train.cardinality() == 5 and set(folder.vocabulary.words[4:]) == set("clip number 012")
    assert len(caught) == len(messages)
    for warning, message in zip(caught, messages, strict=True):
        assert re.search(message, str(warning.message))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("B-1|hello\nB-2|hello", " 2 of 2 .*: B-1, B-2"),
        ("A-1||\nA-2||", "metadata.csv.* 0: 'A-1'; 1: ''.*text_column="),
        ("A-1|!!!\nA-2|!!!", "metadata.csv.* 1: '!!!'.*text_column="),
        (None, "table="),
    ],
)
def test_unusable_tables_are_refused(recordings, table, message):
    (recordings / "metadata.csv").unlink()
    if table:
        (recordings / "metadata.csv").write_text(table)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        data(recordings)


@pytest.mark.filterwarnings("ignore:.*is left out")
def test_a_folder_without_a_readable_clip_is_refused(recordings):
    for path in (recordings / "wavs").iterdir():
        path.write_text("not audio")
    with pytest.raises(ValueError, match="none of 10: .*A-"):
        data(recordings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "nowhere"}, "source='nowhere'"),
        ({"language": "fr"}, "language='fr'"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"unit": "phone"}, "unit='phone'"),
        ({"source": "librispeech", "language": "zh"}, "'librispeech'.*language='zh'"),
        ({"objects": 2}, "snr_db, syllables, data_dir.*objects=2"),
        ({"sample_rate_hz": 0}, "sample_rate_hz=0"),
        ({"sample_rate_hz": "16k"}, "sample_rate_hz='16k'"),
        ({"step_ms": 0}, "step_ms=0"),
        ({"max_seconds": 0}, "max_seconds=0"),
        ({"max_seconds": "35"}, "max_seconds='35'"),
        ({"vocabulary": "abc"}, "vocabulary='abc'"),
        ({"min_count": "1"}, "min_count='1'"),
        ({"max_size": 4}, "max_size=4"),
        ({"seed": "a"}, "seed='a'"),
        ({"snr_db": float("nan")}, "snr_db=nan"),
    ],
)
def test_invalid_arguments_are_named(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        data(**arguments)


@pytest.mark.parametrize("option", [{"table": 5}, {"encoding": "nope"}, {"encoding": None}])
def test_invalid_options_of_a_folder_are_named(recordings, option):
    ((name, value),) = option.items()
    with pytest.raises(ValueError, match=f"{name}={value!r}"):
        data(recordings, **option)


# --- TensorFlow Datasets, with its own mock data: true feature specs, random content ---


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("librispeech", {"hello world"}),
        ("ljspeech", {"hello two"}),
        ("speech_commands", {"down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes"}),
    ],
)
def test_datasets_of_tfds_give_the_same_batches(name, texts, mock_speech):
    with mock_speech():
        dataset = data(name, batch_size=4, augment=False)
        inputs, _ = next(iter(dataset.train))
        assert inputs["audio"].shape[0] == 4 and np.abs(inputs["audio"]).max() < 0.1
        assert set(targets(dataset.train, dataset.vocabulary)) == texts
        assert len(transcripts(dataset.test)) > 0
        if name == "speech_commands":
            assert dataset.vocabulary.unit == "word" and set(dataset.vocabulary.words[4:]) == texts
            assert set(transcripts(dataset.test)) <= texts
        else:
            assert len(dataset.vocabulary) == 4 + 28


def test_a_dataset_gives_the_batches_of_its_folder(recordings):
    rate, rows = 16_000, []
    (recordings / "wavs" / "A-0.wav").unlink()
    for i in range(1, 10):
        path = recordings / "wavs" / f"A-{i}.wav"
        samples, _ = soundfile.read(path)
        forms = (
            str(path),
            {"path": None, "bytes": path.read_bytes()},
            {"array": samples, "sampling_rate": rate},
        )
        rows.append({"audio": forms[i % 3], "text": f"clip number {i % 3}", "split": "train"})

    class Rows(list):
        column_names = ("audio", "text", "split")

    options = {"batch_size": 10, "augment": False}
    with pytest.warns(UserWarning, match="A-0"):
        folder = data(recordings, **options, **NO_SHARES)
    (batch,), (other,) = folder.train, data(Rows(rows), **options).train
    order, other_order = (np.argsort(inputs["length"]) for inputs, _ in (batch, other))
    for a, b in zip(tf.nest.flatten(batch), tf.nest.flatten(other), strict=True):
        np.testing.assert_array_equal(a.numpy()[order], b.numpy()[other_order])


def test_unvoiced_stretches_get_other_spectra_and_voiced_ones_keep_theirs():
    time = np.arange(8_000) / 16_000
    voiced = 0.3 * np.sin(2 * np.pi * 300 * time)
    hiss = np.diff(np.random.default_rng(0).normal(0, 0.1, 8_001))
    clip = np.concatenate([voiced, hiss, voiced, hiss]).astype("float32")
    changed = pipeline.recolor_unvoiced(tf.constant(np.stack([clip, clip])), tf.constant(3, tf.int64)).numpy()
    assert changed.shape == (2, 32_000)

    def spectrum(samples, stretch):
        middle = samples[stretch * 8_000 + 2_000 :][:4_000]
        return 20 * np.log10(np.abs(np.fft.rfft(middle))[:2_000].reshape(40, 50).mean(axis=1))

    def change(one, other, stretch, other_stretch):
        return np.std(spectrum(one, stretch) - spectrum(other, other_stretch))

    assert change(clip, clip, 1, 3) < 1
    for stretch in (1, 3):
        assert change(changed[0], clip, stretch, stretch) > 1.5
    assert change(changed[0], changed[0], 1, 3) > 1.5  # each stretch has its own
    assert change(changed[0], changed[1], 1, 1) > 1.5  # in each clip
    for stretch in (0, 2):
        loud = np.abs(np.corrcoef(changed[0][stretch * 8_000 + 2_000 :][:4_000], voiced[2_000:6_000])[0, 1])
        assert loud > 0.99
