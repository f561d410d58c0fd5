"""Speech of the toy world: captions of the same scenes. Speakers of training are in no other split."""

import importlib.util
import sys

import numpy as np
import pytest

from mmkeras.toy import builders, scene, speak, syllables
from mmkeras.toy.speak import Voice

VOICE = Voice("en-us+f3", rate=170, pitch=50)


def test_speech_does_not_depend_on_earlier_utterances():
    first = speak.speak("a small red circle", VOICE, seed=3)
    speak.speak("绿色", Voice("cmn+m1", 230))
    speak.speak("a large blue star", Voice("en+m7", 140, 70))
    np.testing.assert_array_equal(speak.speak("a small red circle", VOICE, seed=3), first)
    assert first.dtype == np.int16 and 0.5 < len(first) / speak.SAMPLE_RATE_HZ < 3
    assert np.abs(first.astype(int)).max() > 1_000


def test_speak_all_equals_speak():
    utterances = [(speak.caption("train", i), speak.voice("train", i), i) for i in range(40)]
    for clip, utterance in zip(speak.speak_all(utterances), utterances, strict=True):
        np.testing.assert_array_equal(clip, speak.speak(*utterance))


def test_voice_rate_and_pitch_change_the_audio():
    slow, fast = (speak.speak("a small red circle", Voice("en-us+f3", rate)) for rate in (140, 200))
    assert len(slow) > 1.2 * len(fast)
    voices = VOICE, Voice("en-us+m3", 170), Voice("en+f3", 170), Voice("en-us+f3", 170, 60)
    assert len({speak.speak("a red star", voice).tobytes() for voice in voices}) == 4


def test_speakers_of_training_are_in_no_other_split():
    speakers = {split: set(speak._SPEAKERS[split]) for split in scene.SPLITS}
    assert not speakers["train"] & (speakers["validation"] | speakers["test"] | speakers["test_unseen"])
    for split in scene.SPLITS:
        names = [speak.voice(split, i, language).name for i in range(300) for language in ("en", "zh")]
        assert {name.split("+")[1] for name in names} == speakers[split]


def test_espeak_knows_every_voice():
    for language, accents in speak._ACCENTS.items():
        text = {"en": "red", "zh": "红"}[language]
        speakers = set().union(*speak._SPEAKERS.values())
        voices = [*accents, *(f"{accents[0]}+{speaker}" for speaker in speakers)]
        clips = {speak.speak(text, Voice(name)).tobytes() for name in voices}
        assert len(clips) == len(voices)  # an unknown speaker would sound like the accent alone


@pytest.mark.parametrize("language", scene.LANGUAGES)
def test_transcripts_describe_the_scene_of_their_index(language, small_toy):
    records = list(builders.toy_speech(language, small_toy).as_dataset(split="test").as_numpy_iterator())
    for record in records:
        index, caption = int(record["index"]), record["caption"].decode()
        assert scene.parse(caption, language) == scene.sample("test", index)
        assert caption == speak.caption("test", index, language)
        assert record["voice"].decode() == speak.voice("test", index, language).name
        assert record["audio"].dtype == np.int16 and len(record["audio"]) > 8_000
    assert {int(record["index"]) for record in records} == set(range(16))


def test_every_other_clip_of_training_is_joined_from_syllables(tmp_path, monkeypatch):
    monkeypatch.setattr(builders, "EXAMPLES", {"train": 6, "validation": 2, "test": 2, "test_unseen": 2})
    clips, joined = (
        {
            (split, int(record["index"])): record["audio"].tobytes()
            for split in ("train", "test")
            for record in builders.toy_speech("zh", tmp_path, joined=joined)
            .as_dataset(split=split)
            .as_numpy_iterator()
        }
        for joined in (False, True)
    )
    assert {key for key in clips if clips[key] != joined[key]} == {("train", 1), ("train", 3), ("train", 5)}


@pytest.mark.parametrize("seed", range(8))
def test_joined_syllables_are_in_order_and_none_is_lost(seed):
    tones = [np.full(size, 1000 * (i + 1), np.int16) for i, size in enumerate((9_000, 12_000, 3_000))]
    clip = syllables.join(tones, np.random.default_rng(seed)).astype(int)
    levels = [np.flatnonzero(np.abs(clip - level) < 1) for level in np.unique(clip[clip > 0])]
    firsts = sorted((found[0], len(found)) for found in levels if len(found) > 1_000)
    assert len(firsts) == 3 and 9_000 < len(clip) < 32_000


@pytest.mark.parametrize(
    ("text", "voice", "message"), [("hello", Voice("nowhere+f3"), "voice=.*nowhere"), ("", VOICE, "text=''")]
)
def test_invalid_arguments_are_named(text, voice, message):
    with pytest.raises(ValueError, match=message):
        speak.speak(text, voice)


@pytest.fixture
def without_the_wheel(monkeypatch):
    def clear_caches():
        speak._installed.cache_clear()
        speak._copies.cache_clear()

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    clear_caches()
    yield monkeypatch
    clear_caches()


def test_a_missing_espeak_names_both_ways_to_install_it(without_the_wheel):
    without_the_wheel.setattr(speak.ctypes.util, "find_library", lambda name: None)
    with pytest.raises(OSError, match="pip install espeakng-loader.*libespeak-ng1"):
        speak.speak("hello", VOICE)


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the system's library as Linux names it")
def test_the_system_library_is_used_without_the_wheel(without_the_wheel):
    if speak.ctypes.util.find_library("espeak-ng") is None:
        pytest.skip("the system has no libespeak-ng")
    utterances = [("a small red circle", Voice("en-us"), i) for i in range(3)]
    assert all(len(clip) > 8_000 for clip in speak.speak_all(utterances))
