"""Transcriber: inputs, long clips, word times, evaluation, errors."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import soundfile
import tensorflow as tf

import mmkeras
from mmkeras.evaluation import alignment
from mmkeras.media import long_form
from mmkeras.speech_to_text import Transcriber, build, evaluate
from mmkeras.text.vocabulary import END, Vocabulary

RATE = 16_000


@pytest.fixture(scope="module", params=["attention", "ctc"])
def transcriber(request):
    """The ready-trained ones."""
    return mmkeras.pretrained("speech_to_text" + "_ctc" * (request.param == "ctc"))


@pytest.fixture(scope="module", params=["attention", "ctc"])
def trained(request, small_toy):
    """Trained for a few steps, so that it generates something and has the longest clip of training."""
    data = mmkeras.speech_to_text.data("toy", batch_size=16, augment=False, data_dir=small_toy)
    sizes = {"units": 32, "embedding_dim": 16, "encoder_layers": 1, "decay_steps": None}
    model = build("toy", vocabulary=data.vocabulary, head=request.param, learning_rate=5e-3, **sizes)
    model.fit(data.train, validation_data=data.validation, epochs=5, verbose=0)
    return Transcriber(model)


@pytest.fixture(scope="module")
def clips(small_toy):
    """16 clips of the toy world's test split, (n,) float32."""
    batches = mmkeras.speech_to_text.data("toy", data_dir=small_toy).test.unbatch()
    return [clip["audio"].numpy()[: int(clip["length"])] for clip in batches]


def without_warnings(transcriber, *arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return transcriber(*arguments, **options)


@pytest.mark.quality
def test_the_loss_falls(trained):
    history = trained.model.history.history
    assert history["loss"][-1] < 0.92 * history["loss"][0]
    assert np.isfinite(history["val_loss"]).all()
    assert trained.log_mel.longest_seconds > 2


def test_one_clip_gives_one_transcript_and_a_list_a_list(transcriber, clips, tmp_path):
    path = tmp_path / "clip.wav"
    soundfile.write(path, clips[0], RATE, subtype="FLOAT")
    text = without_warnings(transcriber, path)
    assert isinstance(text, str)
    assert without_warnings(transcriber, (RATE, clips[0])) == text
    assert without_warnings(transcriber, clips[0], sample_rate_hz=RATE) == text
    inputs = [path, str(path), (RATE, clips[0]), clips[0]]
    assert without_warnings(transcriber, inputs, sample_rate_hz=RATE) == [text] * 4
    assert without_warnings(transcriber, (path, path)) == [text] * 2
    with pytest.raises(ValueError, match="sample_rate_hz.*tuple of ndarray, int"):
        transcriber((clips[0], RATE))


def test_batching_does_not_change_transcripts(transcriber, clips):
    together = transcriber(clips[:5], sample_rate_hz=RATE)
    assert together == [transcriber(clip, sample_rate_hz=RATE) for clip in clips[:5]]


def endless(**sizes):
    """A transcriber that generates "a" again and again, without end."""
    vocabulary = Vocabulary(["a", "b"], "character")
    model = build("toy", vocabulary=vocabulary, units=8, encoder_layers=1, **sizes)
    logits = model.get_layer("decoder").get_layer("logits")
    kernel, bias = logits.get_weights()
    logits.set_weights([kernel * 0, np.eye(len(bias))[vocabulary.ids["a"]] * 9])
    return Transcriber(model)


def test_samples_of_a_clip_depend_on_seed_and_position_only(clips, monkeypatch):
    transcriber = endless()
    options = {"temperature": 9.0, "max_length": 8, "sample_rate_hz": RATE}
    together = transcriber([clips[0]] * 4, **options)
    monkeypatch.setattr("mmkeras._utils.predictor.BATCH_SIZE", 2)
    assert transcriber([clips[0]] * 4, **options) == together and together[:2] != together[2:]
    assert transcriber.explain(clips[0], **options).text == together[0]


@pytest.mark.quality
@pytest.mark.parametrize(("subsampling", "beams"), [(4, 1), (8, 2)])
def test_max_length_follows_the_duration_of_a_clip(subsampling, beams):
    transcriber = endless(subsampling=subsampling)
    short, long = (np.resize(np.float32([1, -1]), size) for size in (RATE // 2, 3 * RATE))
    texts = transcriber.transcribe([short, long], beams=beams)
    assert texts[1] == "a" * 128  # a token for each of the 75 steps of 40 ms, rounded up
    assert texts == [transcriber.transcribe([clip], beams=beams)[0] for clip in (short, long)]
    assert transcriber.explain(long, sample_rate_hz=RATE, beams=beams).text == texts[1]
    assert transcriber.transcribe([long], beams=beams, max_length=20) == ["a" * 20]


def test_beam_search_gives_transcripts(transcriber, clips):
    assert all(isinstance(text, str) for text in transcriber(clips[:3], sample_rate_hz=RATE, beams=4))


def test_a_transcript_comes_with_its_log_probability(transcriber, clips):
    silence = np.zeros(RATE, np.float32)
    texts, log_probability = transcriber.generate([clips[0], silence, clips[1]])
    assert texts == transcriber.transcribe([clips[0], silence, clips[1]])
    assert log_probability[1] == 0 and (log_probability[[0, 2]] < 0).all()
    ((start, stop),) = transcriber._segments(clips[1])
    _, alone = transcriber._generate(transcriber._padded([clips[1][start:stop]]))
    np.testing.assert_allclose(log_probability[2], alone[0], rtol=1e-3)


def test_long_clips_are_split_and_joined(transcriber, clips):
    pause = np.zeros(RATE // 2, np.float32)
    long = np.concatenate([clips[0], pause, clips[1], pause, clips[2]])
    with pytest.warns(UserWarning, match="1 of 1 clips are longer"):
        text = transcriber(long, sample_rate_hz=RATE)
    segments = long_form.split(long, RATE, transcriber.log_mel.longest_seconds)
    apart = transcriber([long[start:stop] for start, stop in segments], sample_rate_hz=RATE)
    assert len(segments) >= 3 and text == " ".join(filter(None, apart))
    with pytest.warns(UserWarning, match="1 of 1 clips are longer"):
        explanation = transcriber.explain(long, sample_rate_hz=RATE)
    assert explanation.text == text
    times = [word.start for word in explanation.words]
    assert times == sorted(times)
    assert not text or times[-1] > len(clips[0]) / RATE


def test_silence_around_speech_is_trimmed_and_words_keep_their_times(transcriber, clips):
    silence = np.zeros(RATE, np.float32)  # 1 s; with it on both sides the clip would be too long
    clip = np.concatenate([silence, clips[0], silence])
    ((start, stop),) = long_form.segments(clip, RATE, transcriber.log_mel.longest_seconds)
    assert abs(start - RATE) <= RATE // 20 and abs(stop - len(clip) + RATE) <= RATE // 20
    text = without_warnings(transcriber, clip, sample_rate_hz=RATE)
    tokens, _ = transcriber._generate(transcriber._padded([clip[start:stop]]))
    assert text == transcriber.vocabulary.decode(tokens[0])
    explanation = transcriber.explain(clip, sample_rate_hz=RATE)
    assert explanation.text == text
    assert explanation.words or transcriber.head == "ctc"  # which may generate nothing yet
    assert all(0.9 <= word.start < word.end <= len(clip) / RATE - 0.9 for word in explanation.words)
    assert explanation.weights.shape[1] == -(-len(clip) // 640)


def test_silence_has_an_empty_transcript(transcriber):
    assert without_warnings(transcriber, np.zeros(RATE), sample_rate_hz=RATE) == ""
    assert transcriber.explain(np.zeros(RATE), sample_rate_hz=RATE).words == []


def test_empty_transcript_of_speech_is_explained(clips):
    model = build("toy", vocabulary=Vocabulary(["a"]), units=8, encoder_layers=1)
    logits = model.get_layer("decoder").get_layer("logits")
    kernel, bias = logits.get_weights()
    logits.set_weights([kernel * 0, np.eye(len(bias))[END] * 9])
    explanation = Transcriber(model).explain(clips[0], sample_rate_hz=RATE)
    assert explanation.text == "" and explanation.weights.shape == (0, -(-len(clips[0]) // 640))


def test_unreadable_clips_of_a_list_give_none(transcriber, clips, tmp_path):
    good, text, missing = tmp_path / "good.flac", tmp_path / "text.wav", tmp_path / "missing.wav"
    soundfile.write(good, clips[0], RATE)
    text.write_text("not audio")
    with pytest.warns(UserWarning, match="2 of 4 clips .*text.wav.*missing.wav"):
        transcripts = transcriber([good, text, missing, good])
    assert transcripts == [transcriber(good), None, None, transcriber(good)]
    with pytest.warns(UserWarning, match="5 of 6 clips .*number 0: .*number 2: .*number 3: [^;]*$"):
        transcriber([np.zeros(0), good, np.zeros(0), np.zeros(0), missing, missing], sample_rate_hz=RATE)
    for inputs, error, received in (
        (text, ValueError, "text.wav"),
        ([missing], FileNotFoundError, "missing.wav"),
        ([text, missing], ValueError, "2 of 2 clips .*text.wav"),
        ([], ValueError, r"clips=\[\]"),
        (np.zeros(RATE), ValueError, "sample_rate_hz=None"),
    ):
        with pytest.raises(error, match=received):
            transcriber(inputs)


def test_clips_that_are_read_in_parts_keep_their_order(transcriber, clips, tmp_path, monkeypatch):
    first, last = (transcriber(part, sample_rate_hz=RATE) for part in (clips[:4], clips[4:6]))
    monkeypatch.setattr("mmkeras.speech_to_text.inference.CLIPS_IN_MEMORY", 3)
    with pytest.warns(UserWarning, match="1 of 7 clips"):
        transcripts = transcriber([*clips[:4], tmp_path / "missing.wav", *clips[4:6]], sample_rate_hz=RATE)
    assert transcripts == [*first, None, *last]


@pytest.mark.quality
def test_saved_transcriber_gives_the_same_transcripts_in_another_process(trained, clips, tmp_path):
    paths = [tmp_path / f"{i}.wav" for i in range(4)]
    for path, clip in zip(paths, clips, strict=False):
        soundfile.write(path, clip, RATE)
    trained.save(tmp_path / "transcriber.keras")
    code = "import mmkeras, sys; print(*mmkeras.load(sys.argv[1])(sys.argv[2:]), sep='\\n')"
    run = [sys.executable, "-W", "error::UserWarning", "-c", code, tmp_path / "transcriber.keras", *paths]
    done = subprocess.run(list(map(str, run)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == trained(paths)


def test_explain_has_the_time_of_each_word(transcriber, clips, tmp_path):
    explanation = transcriber.explain(clips[0], sample_rate_hz=RATE)
    seconds = len(clips[0]) / RATE
    words = [word.text for word in explanation.words]
    assert explanation.text == transcriber(clips[0], sample_rate_hz=RATE) == " ".join(words)
    assert explanation.weights.shape == (len(explanation.tokens), -(-len(clips[0]) // 640))
    assert all(0 <= word.start < word.end <= seconds + 0.04 for word in explanation.words)
    explanation.plot(tmp_path / "alignment.png")
    assert (tmp_path / "alignment.png").stat().st_size > 10_000


def test_short_final_step_has_a_word_time():
    click = np.zeros(2 * RATE, np.float32)  # 20 steps of 100 ms
    click[-1] = 1
    explanation = endless(subsampling=10).explain(click, sample_rate_hz=RATE, max_length=1)
    assert explanation.weights.shape[1] == 20 and explanation.weights[:, :-1].max() == 0
    assert [(word.start, word.end) for word in explanation.words] == [pytest.approx((1.9, 2.0))]


@pytest.mark.filterwarnings("ignore:Collapse")  # after so little training
def test_evaluate_scores_the_transcripts_of_a_list(transcriber, clips, small_toy):
    test = mmkeras.speech_to_text.data("toy", data_dir=small_toy).test
    scores = evaluate(transcriber, test)
    assert set(scores) == {"wer", "cer", "substitutions", "insertions", "deletions", "scene_accuracy"}
    parts = scores["substitutions"] + scores["insertions"] + scores["deletions"]
    references = [clip["transcript"].numpy().decode() for clip in test.unbatch()]
    transcripts = transcriber(clips, sample_rate_hz=RATE)
    expected = mmkeras.evaluation.metrics.recognition_scores(references, transcripts)
    assert scores["wer"] == pytest.approx(parts) == pytest.approx(expected["wer"])


def test_evaluate_warns_of_a_collapse(small_toy):
    data = mmkeras.speech_to_text.data("toy", data_dir=small_toy)
    model = build("toy", vocabulary=data.vocabulary, head="ctc", units=16)
    logits = model.get_layer("head").get_layer("logits")
    kernel, bias = logits.get_weights()
    logits.set_weights([kernel * 0, np.eye(len(bias))[0] * 9])  # blanks only
    with pytest.warns(UserWarning, match="Collapse.*are empty"):
        evaluate(Transcriber(model), data.test.take(1))


@pytest.mark.filterwarnings("ignore:Collapse")
def test_punctuation_is_not_scored():
    batch = {"audio": np.ones((2, RATE), "float32"), "length": [RATE, RATE], "transcript": ["!!!", "A, a."]}
    scores = evaluate(endless(), tf.data.Dataset.from_tensors(batch), max_length=3)  # "aaa" for both
    assert scores["wer"] == 1.5 and scores["cer"] == pytest.approx(4 / 3)
    assert scores["substitutions"] == scores["deletions"] == scores["insertions"] == 0.5


def test_evaluate_raises_for_datasets_that_do_not_fit(small_toy):
    data = mmkeras.speech_to_text.data("toy", data_dir=small_toy)
    other = {"audio": tf.zeros((1, 8_000)), "length": [8_000], "transcript": ["a"], "sample_rate_hz": [8_000]}
    transcriber = endless()
    for dataset, received in (
        (None, "dataset=None"),
        (data.train, r"dataset=\(\{'audio'"),
        (data, "dataset=TaskData"),
        (data.test.take(0), "dataset"),
        (tf.data.Dataset.from_tensors(other), "sample_rate_hz=16000.* sample_rate_hz=8000"),
        (tf.data.Dataset.from_tensors(other | {"transcript": ["红色"]}), "红色"),
    ):
        with pytest.raises(ValueError, match=received):
            evaluate(transcriber, dataset)


@pytest.mark.parametrize(
    ("options", "error", "received"),
    [
        *(({"beams": beams}, ValueError, f"beams={beams!r}") for beams in (0, "4", 2.5, True)),
        ({"max_length": 3, "length_penalty": 1, "beams": 2}, TypeError, "length_penalty=1, max_length=3"),
    ],
)
def test_invalid_options_raise(options, error, received):
    model = build("toy", vocabulary=Vocabulary(["a"]), head="ctc", units=8, encoder_layers=1)
    with pytest.raises(error, match=received):
        Transcriber(model)(np.resize([1.0, -1.0], RATE), sample_rate_hz=RATE, **options)


def test_explain_takes_one_clip():
    with pytest.raises(ValueError, match="clip=list"):
        endless().explain(["clip.wav"])


def test_other_models_raise():
    with pytest.raises(ValueError, match="model.keras"):
        Transcriber("model.keras")


@pytest.mark.parametrize(
    ("tokens", "join_characters", "words"),
    [
        ("ab c", True, [("ab", 0.0, 0.08), ("c", 0.12, 0.16)]),
        ("红星", False, [("红", 0.0, 0.04), ("星", 0.04, 0.08)]),
    ],
)
def test_spaces_separate_characters_into_words(tokens, join_characters, words):
    spans = [(i, i + 1) for i in range(len(tokens))]
    result = alignment.words(list(tokens), spans, 0.04, join_characters)
    assert [(word.text, pytest.approx(word.start), pytest.approx(word.end)) for word in result] == words


@pytest.mark.parametrize(
    ("weights", "spans"),
    [
        ([[9, 9, 0, 0, 0], [0, 0, 9, 0, 0], [0, 0, 0, 9, 9]], [(0, 2), (2, 3), (3, 5)]),
        ([[0, 9, 2, 0, 0, 0], [0, 0, 1, 9, 9, 0]], [(1, 3), (3, 5)]),  # silence at both ends
        ([[0, 0, 1], [0, 1, 0], [1, 0, 0]], [(0, 1), (1, 2), (2, 3)]),  # in order, whatever the weights
        ([[0, 1, 0]], [(1, 2)]),
        ([[1, 0], [0, 1], [0, 1]], [(0, 1), (1, 2), (1, 2)]),  # more tokens than steps
    ],
)
def test_alignment_is_monotonic(weights, spans):
    assert alignment.monotonic(np.array(weights, float)) == spans
