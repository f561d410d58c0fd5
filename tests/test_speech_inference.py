"""The trained model at work: what goes in, what comes out, what is said when something is wrong."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import soundfile
import tensorflow as tf

import mmkeras
from mmkeras.data.vocabulary import Vocabulary
from mmkeras.evaluation import explain
from mmkeras.speech_to_text import Transcriber, build, evaluate

RATE = 16_000


@pytest.fixture(scope="module", params=["attention", "ctc"])
def transcriber(request, small_toy):
    """Trained for a few steps: it writes something, and knows how long its clips were."""
    data = mmkeras.speech_to_text.data("toy", batch_size=16, augment=False, data_dir=small_toy)
    sizes = {"units": 32, "embedding_dim": 16, "encoder_layers": 1, "decay_steps": None}
    model = build("toy", vocabulary=data.vocabulary, head=request.param, learning_rate=5e-3, **sizes)
    model.fit(data.train, validation_data=data.validation, epochs=5, verbose=0)
    return Transcriber(model)


@pytest.fixture(scope="module")
def clips(small_toy):
    """Sixteen clips of the toy world's test split, (n,) float32."""
    batches = mmkeras.speech_to_text.data("toy", data_dir=small_toy).test.unbatch()
    return [clip["audio"].numpy()[: int(clip["length"])] for clip in batches]


def quietly(transcriber, *arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return transcriber(*arguments, **options)


def test_the_loss_falls(transcriber):
    history = transcriber.model.history.history
    assert history["loss"][-1] < 0.92 * history["loss"][0]
    assert np.isfinite(history["val_loss"]).all()
    assert transcriber.log_mel.longest_seconds > 2


def test_one_in_one_out_a_list_in_a_list_out(transcriber, clips, tmp_path):
    path = tmp_path / "clip.wav"
    soundfile.write(path, clips[0], RATE, subtype="FLOAT")
    text = quietly(transcriber, path)
    assert isinstance(text, str)
    assert quietly(transcriber, [path, str(path)]) == [text, text]
    assert quietly(transcriber, clips[0], sample_rate_hz=RATE) == text
    assert quietly(transcriber, [clips[0]], sample_rate_hz=RATE) == [text]


def test_answers_do_not_depend_on_the_company(transcriber, clips):
    together = transcriber(clips[:5], sample_rate_hz=RATE)
    assert together == [transcriber(clip, sample_rate_hz=RATE) for clip in clips[:5]]


def chatterbox(**sizes):
    """Writes "a" over and over, and never ends."""
    vocabulary = Vocabulary(["a", "b"], "character")
    model = build("toy", vocabulary=vocabulary, units=8, encoder_layers=1, **sizes)
    logits = model.get_layer("decoder").get_layer("logits")
    kernel, bias = logits.get_weights()
    logits.set_weights([kernel * 0, np.eye(len(bias))[vocabulary.ids["a"]] * 9])
    return Transcriber(model)


@pytest.mark.parametrize(("subsampling", "beams"), [(4, 1), (8, 2)])
def test_a_transcript_may_be_as_long_as_its_clip_has_time_for(subsampling, beams):
    writer = chatterbox(subsampling=subsampling)
    short, long = np.ones(RATE // 2, "float32"), np.ones(6 * RATE, "float32")
    texts = writer.transcribe([short, long], beams=beams)
    assert texts[1] == "a" * 256  # a token for each of the 150 steps of 40 ms, rounded up
    assert texts == [writer.transcribe([sound], beams=beams)[0] for sound in (short, long)]
    assert writer.explain(long, sample_rate_hz=RATE, beams=beams).text == texts[1]
    assert writer.transcribe([long], beams=beams, max_length=20) == ["a" * 20]


def test_what_only_an_attention_decoder_takes_is_refused_with_ctc():
    reader = Transcriber(build("toy", vocabulary=Vocabulary(["a"]), head="ctc", units=8, encoder_layers=1))
    with pytest.raises(TypeError, match="takes beams alone. Received: length_penalty=1, max_length=3"):
        reader(np.ones(RATE, "float32"), sample_rate_hz=RATE, max_length=3, length_penalty=1, beams=2)


def test_a_beam_of_one_is_greedy_and_wider_ones_answer_too(transcriber, clips):
    greedy = transcriber(clips[:3], sample_rate_hz=RATE)
    assert transcriber(clips[:3], sample_rate_hz=RATE, beams=1) == greedy
    assert all(isinstance(text, str) for text in transcriber(clips[:3], sample_rate_hz=RATE, beams=4))
    with pytest.raises(ValueError, match="beams=0"):
        transcriber(clips[:3], sample_rate_hz=RATE, beams=0)


def test_a_long_clip_is_cut_joined_and_said_to_be(transcriber, clips):
    pause = np.zeros(RATE // 2, np.float32)
    long = np.concatenate([clips[0], pause, clips[1], pause, clips[2]])
    with pytest.warns(UserWarning, match="1 of 1 clips are longer than the .* s that training saw"):
        text = transcriber(long, sample_rate_hz=RATE)
    pieces = mmkeras.media.audio.cut(long, RATE, transcriber.log_mel.longest_seconds)
    apart = transcriber([long[start:stop] for start, stop in pieces], sample_rate_hz=RATE)
    assert len(pieces) >= 3 and text == " ".join(filter(None, apart))
    with pytest.warns(UserWarning, match="cut at their quietest places"):
        aligned = transcriber.explain(long, sample_rate_hz=RATE)
    assert aligned.text == text
    times = [word.start for word in aligned.words]
    assert times == sorted(times)
    assert not text or times[-1] > len(clips[0]) / RATE


def test_quiet_around_a_clip_is_not_read_and_words_keep_their_times(transcriber, clips):
    quiet = np.zeros(RATE, np.float32)  # a second; with it on both sides the clip would be one to cut
    clip = np.concatenate([quiet, clips[0], quiet])
    ((start, stop),) = transcriber._pieces(clip)
    assert abs(start - RATE) <= RATE // 20 and abs(stop - len(clip) + RATE) <= RATE // 20
    text = quietly(transcriber, clip, sample_rate_hz=RATE)
    assert text == quietly(transcriber, clip[start:stop], sample_rate_hz=RATE)
    aligned = transcriber.explain(clip, sample_rate_hz=RATE)
    assert aligned.text == text and (aligned.words or transcriber.head == "ctc")  # which may say nothing yet
    assert all(0.9 <= word.start < word.end <= len(clip) / RATE - 0.9 for word in aligned.words)
    assert aligned.weights.shape[1] == -(-len(clip) // 640)
    long = np.concatenate([clips[0], quiet, clips[1], quiet, clips[2]])
    lengths = [stop - start for start, stop in transcriber._pieces(long)]
    assert sum(lengths) < len(long) - 1.8 * RATE


def test_silence_says_nothing(transcriber):
    assert quietly(transcriber, np.zeros(RATE), sample_rate_hz=RATE) == ""
    assert transcriber.explain(np.zeros(RATE), sample_rate_hz=RATE).words == []
    assert transcriber._pieces(np.zeros(60 * RATE, np.float32)) == []  # however long


def test_an_array_without_its_rate_is_refused(transcriber):
    with pytest.raises(ValueError, match="sample_rate_hz=None"):
        transcriber(np.zeros(RATE, np.int16))


@pytest.mark.parametrize(
    ("sound", "message"),
    [
        (np.zeros(0, np.float32), r"at least one sample. Received: shape=\(0,\)"),
        (np.zeros((1, 2, 3), np.float32), r"shape=\(1, 2, 3\)"),
        (np.array([0.1, np.nan]), "holds NaN"),
        (0.5, r"shape=\(\)"),
    ],
)
def test_sounds_that_cannot_be_transcribed_are_described(transcriber, sound, message):
    with pytest.raises(ValueError, match=message):
        transcriber.transcribe([np.ones(RATE, np.float32), sound])


def test_one_broken_clip_does_not_stop_the_others(transcriber, clips, tmp_path):
    good, text, gone = tmp_path / "good.flac", tmp_path / "text.wav", tmp_path / "gone.wav"
    soundfile.write(good, clips[0], RATE)
    text.write_text("not a sound")
    with pytest.warns(UserWarning, match="2 of 4 clips cannot be read.*text.wav.*gone.wav"):
        first, second, third, fourth = transcriber([good, text, gone, good])
    assert first == fourth and isinstance(first, str) and second is third is None
    with pytest.warns(UserWarning, match="5 of 6 clips .*: clip 0: .*; clip 2: .*; clip 3: .*; [^ ]*gone.wav$"):
        transcriber([np.zeros(0), good, np.zeros(0), np.zeros(0), gone, gone], sample_rate_hz=RATE)
    with pytest.raises(ValueError, match="text.wav is no sound file"):
        transcriber(text)
    with pytest.raises(FileNotFoundError, match="gone.wav"):
        transcriber([gone])
    with pytest.raises(ValueError, match="None of the 2 clips can be read"):
        transcriber([text, gone])
    with pytest.raises(ValueError, match="empty list"):
        transcriber([])


def test_more_clips_than_are_read_at_once_keep_their_order(transcriber, clips, tmp_path, monkeypatch):
    first, last = (transcriber(some, sample_rate_hz=RATE) for some in (clips[:4], clips[4:6]))
    several = [*clips[:4], tmp_path / "gone.wav", *clips[4:6]]
    monkeypatch.setattr("mmkeras.speech_to_text.inference.AT_ONCE", 3)
    with pytest.warns(UserWarning, match="1 of 7 clips cannot be read.*gone.wav"):
        assert transcriber(several, sample_rate_hz=RATE) == [*first, None, *last]


def test_the_file_alone_gives_the_same_transcripts_elsewhere(transcriber, clips, tmp_path):
    paths = [tmp_path / f"{i}.wav" for i in range(4)]
    for path, clip in zip(paths, clips, strict=False):
        soundfile.write(path, clip, RATE)
    transcriber.save(tmp_path / "transcriber.keras")
    code = "import mmkeras, sys; print(*mmkeras.load(sys.argv[1])(sys.argv[2:]), sep='\\n')"
    run = [sys.executable, "-W", "error::UserWarning", "-c", code, tmp_path / "transcriber.keras", *paths]
    done = subprocess.run(list(map(str, run)), capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.splitlines() == transcriber(paths)


def test_an_explanation_gives_each_word_its_time(transcriber, clips, tmp_path):
    aligned = transcriber.explain(clips[0], sample_rate_hz=RATE)
    seconds = len(clips[0]) / RATE
    assert aligned.text == transcriber(clips[0], sample_rate_hz=RATE) == " ".join(w.text for w in aligned.words)
    assert aligned.weights.shape == (len(aligned.tokens), -(-len(clips[0]) // 640))
    assert all(0 <= word.start < word.end <= seconds + 0.04 for word in aligned.words)
    aligned.plot(tmp_path / "aligned.png")
    assert (tmp_path / "aligned.png").stat().st_size > 10_000


def test_what_is_said_in_less_than_the_last_step_is_explained_there():
    click = np.zeros(2 * RATE, np.float32)  # 20 steps of 100 ms
    click[-1] = 1
    aligned = chatterbox(subsampling=10).explain(click, sample_rate_hz=RATE, max_length=1)
    assert aligned.weights.shape[1] == 20 and aligned.weights[:, :-1].max() == 0
    assert [(word.start, word.end) for word in aligned.words] == [pytest.approx((1.9, 2.0))]


def test_evaluate_scores_and_names_a_collapse(transcriber, small_toy):
    test = mmkeras.speech_to_text.data("toy", data_dir=small_toy).test
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so little training may well collapse
        scores = evaluate(transcriber, test)
    assert set(scores) == {"wer", "cer", "substitutions", "insertions", "deletions", "scene_accuracy"}
    parts = scores["substitutions"] + scores["insertions"] + scores["deletions"]
    assert scores["wer"] == pytest.approx(parts)

    untrained = build("toy", vocabulary=transcriber.vocabulary, head=transcriber.head, units=16)
    if transcriber.head == "ctc":  # nothing but blanks
        logits = untrained.get_layer("head").get_layer("logits")
        kernel, bias = logits.get_weights()
        logits.set_weights([kernel * 0, np.eye(len(bias))[0] * 9])
        expected = "transcripts are empty"
    else:  # the same word, never an end, and an attention without an opinion
        logits = untrained.get_layer("decoder").get_layer("logits")
        kernel, bias = logits.get_weights()
        logits.set_weights([kernel * 0, np.eye(len(bias))[7] * 9])
        attention = untrained.get_layer("decoder").get_layer("attention")
        attention.set_weights([w * 0 for w in attention.get_weights()])
        expected = "one word over and over"
    with pytest.warns(UserWarning) as caught:
        evaluate(Transcriber(untrained), test.take(1))
    said = " ".join(str(warning.message) for warning in caught)
    assert expected in said
    assert ("attention never moves" in said) == (transcriber.head == "attention")


@pytest.mark.filterwarnings("ignore:Collapse. the attention")
def test_a_word_over_and_over_is_named_in_letters_too(monkeypatch):
    model = build("toy", vocabulary=Vocabulary(list(" abc"), "character"), units=8, encoder_layers=1)
    transcriber = Transcriber(model)
    monkeypatch.setattr(transcriber, "transcribe", lambda sounds: ["ab ab ab", "cab cab cab"])
    batch = {"audio": np.ones((2, RATE), "float32"), "length": [RATE, RATE], "transcript": ["ab c", "c"]}
    with pytest.warns(UserWarning, match="2 of 2 transcripts are one word over and over"):
        evaluate(transcriber, tf.data.Dataset.from_tensors(batch))


@pytest.mark.filterwarnings("ignore:Collapse")
def test_a_transcript_of_punctuation_alone_is_scored_like_the_others():
    batch = {"audio": np.ones((2, RATE), "float32"), "length": [RATE, RATE], "transcript": ["!!!", "A, a."]}
    scores = evaluate(chatterbox(), tf.data.Dataset.from_tensors(batch), max_length=3)  # "aaa" for both
    assert scores["wer"] == 1.5 and scores["cer"] == pytest.approx(4 / 3)
    assert scores["substitutions"] == scores["deletions"] == scores["insertions"] == 0.5


def test_bad_arguments_are_named(transcriber, small_toy):
    found = mmkeras.speech_to_text.data("toy", data_dir=small_toy)
    for dataset, named in (
        (None, "dataset=None"),
        (found.train, r"dataset=\(\{'audio'"),
        (found, "dataset=TaskData"),
    ):
        with pytest.raises(ValueError, match=f"as data\\(...\\).test is; .*{named}"):
            evaluate(transcriber, dataset)
    other = {"audio": tf.zeros((1, 8_000)), "length": [8_000], "transcript": ["a"], "sample_rate_hz": [8_000]}
    with pytest.raises(ValueError, match="sample_rate_hz=16000. Received: .* sample_rate_hz=8000"):
        evaluate(transcriber, tf.data.Dataset.from_tensors(other))
    with pytest.raises(ValueError, match="words of the model, Vocabulary.*Received: .*'红色'"):
        evaluate(transcriber, tf.data.Dataset.from_tensors(other | {"transcript": ["红色"]}))
    for beams in (0, "4", 2.5, True):
        with pytest.raises(ValueError, match=f"beams to be an int of at least 1. Received: beams={beams!r}"):
            transcriber(np.ones(RATE), sample_rate_hz=RATE, beams=beams)
    with pytest.raises(ValueError, match="Expected one clip, a path or an array. Received: a list"):
        transcriber.explain(["clip.wav"])
    with pytest.raises(ValueError, match="speech-to-text model"):
        Transcriber("model.keras")


@pytest.mark.parametrize(
    ("letters", "text", "words"),
    [
        (" abc", "ab c", [("ab", 0.0, 0.08), ("c", 0.12, 0.16)]),
        ("红星", "红星", [("红", 0.0, 0.04), ("星", 0.04, 0.08)]),
    ],
)
def test_characters_are_put_together_to_words_where_blanks_divide_them(letters, text, words):
    vocabulary = Vocabulary(list(letters), "character")
    reader = Transcriber(build("toy", vocabulary=vocabulary, head="ctc", units=8, encoder_layers=1))
    ids = vocabulary.encode(text)[1:-1]
    found = reader._words(ids, [(i, i + 1) for i in range(len(ids))])
    assert [(word.text, pytest.approx(word.start), pytest.approx(word.end)) for word in found] == words


@pytest.mark.parametrize(
    ("weights", "spans"),
    [
        ([[9, 9, 0, 0, 0], [0, 0, 9, 0, 0], [0, 0, 0, 9, 9]], [(0, 2), (2, 3), (3, 5)]),
        ([[0, 9, 2, 0, 0, 0], [0, 0, 1, 9, 9, 0]], [(1, 3), (3, 5)]),  # silence around what is said
        ([[0, 0, 1], [0, 1, 0], [1, 0, 0]], [(0, 1), (1, 2), (2, 3)]),  # order holds, whatever the weights
        ([[0, 1, 0]], [(1, 2)]),
        ([[1, 0], [0, 1], [0, 1]], [(0, 1), (1, 2), (1, 2)]),  # more tokens than steps
    ],
)
def test_time_is_divided_among_tokens_in_their_order(weights, spans):
    assert explain.monotonic(np.array(weights, float)) == spans
