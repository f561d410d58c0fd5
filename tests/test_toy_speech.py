"""The toy world speaks: the same scenes, in voices that the splits do not share."""

import hashlib
import importlib.util
import sys

import numpy as np
import pytest

from mmkeras.toy import builders, scene, speak
from mmkeras.toy.speak import Voice

WHO = Voice("en-us+f3", rate=170, pitch=50)


def speaker(name):
    return name.split("+")[1]


def test_the_same_words_sound_the_same_whatever_was_said_before():
    first = speak.speak("a small red circle", WHO, seed=3)
    speak.speak("绿色", Voice("cmn+m1", 230))
    speak.speak("a large blue star", Voice("en+m7", 140, 70))
    np.testing.assert_array_equal(speak.speak("a small red circle", WHO, seed=3), first)
    assert first.dtype == np.int16 and 0.5 < len(first) / speak.SAMPLE_RATE_HZ < 3
    assert np.abs(first.astype(int)).max() > 1_000


def test_many_at_once_sound_as_each_alone():
    said = [(speak.caption("train", i), speak.voice("train", i), i) for i in range(40)]
    together = list(speak.speak_all(said))
    assert len(together) == 40
    for one, alone in zip(together, said, strict=True):
        np.testing.assert_array_equal(one, speak.speak(*alone))


def test_voice_rate_and_pitch_are_heard():
    def seconds(rate):
        return len(speak.speak("a small red circle", Voice("en-us+f3", rate))) / 16_000

    assert seconds(140) > 1.2 * seconds(200)
    digests = {
        hashlib.sha256(speak.speak("a red star", voice).tobytes()).hexdigest()
        for voice in (WHO, Voice("en-us+m3", 170), Voice("en+f3", 170), Voice("en-us+f3", 170, 60))
    }
    assert len(digests) == 4


def test_nobody_speaks_in_test_whom_training_has_heard():
    heard = {split: set(speak._SPEAKERS[split]) for split in scene.SPLITS}
    assert not heard["train"] & (heard["validation"] | heard["test"] | heard["test_unseen"])
    for split in scene.SPLITS:
        drawn = {speaker(speak.voice(split, i, language).name) for i in range(300) for language in ("en", "zh")}
        assert drawn == heard[split]


def test_espeak_knows_every_voice_and_each_is_its_own():
    for language, accents in speak._ACCENTS.items():
        text = {"en": "red", "zh": "红"}[language]
        voices = [*accents, *(f"{accents[0]}+{who}" for who in set().union(*speak._SPEAKERS.values()))]
        said = {speak.speak(text, Voice(name)).tobytes() for name in voices}
        assert len(said) == len(voices)  # a speaker that it does not know would be the accent alone


@pytest.mark.parametrize("language", scene.LANGUAGES)
def test_what_is_said_tells_of_the_scene_of_that_number(language, small_toy):
    records = list(builders.toy_speech(language, small_toy).as_dataset(split="test").as_numpy_iterator())
    for record in records:
        index, caption = int(record["index"]), record["caption"].decode()
        assert scene.parse(caption, language) == scene.sample("test", index)
        assert caption == speak.caption("test", index, language)
        assert record["voice"].decode() == speak.voice("test", index, language).name
        assert record["audio"].dtype == np.int16 and len(record["audio"]) > 8_000
    assert {int(record["index"]) for record in records} == set(range(16))


def test_bad_voices_and_texts_without_words_are_named():
    with pytest.raises(ValueError, match="voice=.*nowhere"):
        speak.speak("hello", Voice("nowhere+f3"))
    with pytest.raises(ValueError, match="text=''"):
        speak.speak("", WHO)


@pytest.fixture
def without_the_wheel(monkeypatch):
    def forget():
        speak._installed.cache_clear()
        speak._copies.cache_clear()

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    forget()
    yield monkeypatch
    forget()


def test_without_espeak_both_ways_to_get_it_are_named(without_the_wheel):
    without_the_wheel.setattr(speak.ctypes.util, "find_library", lambda name: None)
    with pytest.raises(OSError, match="pip install espeakng-loader.*libespeak-ng1"):
        speak.speak("hello", WHO)


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the system's library as Linux names it")
def test_the_system_library_speaks_where_there_is_no_wheel(without_the_wheel):
    if speak.ctypes.util.find_library("espeak-ng") is None:
        pytest.skip("the system has no libespeak-ng")
    said = [("a small red circle", Voice("en-us"), i) for i in range(3)]
    assert all(len(sound) > 8_000 for sound in speak.speak_all(said))
