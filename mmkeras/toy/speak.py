"""How the toy world sounds: eSpeak NG says its captions, in many voices.

    voice("test", 0)                               # Voice(name='en-us+f3', rate=171, pitch=42)
    speak(caption("test", 0), voice("test", 0))    # (n,) int16, 16,000 samples a second

eSpeak NG is a formant synthesiser: a person is a set of formants and an accent, so that a voice of `test` is
as unknown to a model that learned from those of `train` as another person would be.
"""

import _ctypes
import atexit
import contextlib
import ctypes
import ctypes.util
import functools
import importlib.util
import os
import queue
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import soxr

from mmkeras.toy import scene

SAMPLE_RATE_HZ = 16_000
SPEAKERS_AT_ONCE = min(os.cpu_count() or 1, 8)  # threads of `speak_all`

# Accent + speaker, as eSpeak NG names them. Robots, whispers and effects are left out.
_ACCENTS = {"en": ("en-us", "en", "en-gb-x-rp", "en-029", "en-gb-scotland"), "zh": ("cmn",)}
_SPEAKERS = {
    "train": (
        "m1", "m2", "m3", "m4", "m6", "m7", "f1", "f2", "f4", "Alex", "Alicia", "Andy", "Michael", "adam",
        "anika", "belinda", "benjamin", "edward", "ian", "john", "linda", "steph", "travis", "zac",
    ),
    "validation": ("m5", "f5", "david"),
    "test": ("m8", "f3", "Annie", "Mike", "victor"),
    "test_unseen": ("m8", "f3", "Annie", "Mike", "victor"),
}  # fmt: skip
# Words a minute; eSpeak NG counts Mandarin so that the same number is much slower.
_RATES = {"en": (140, 200), "zh": (190, 270)}
_PITCHES = (30, 70)  # of 0..99


@dataclass(frozen=True)
class Voice:
    """A speaker and a way of speaking.

    name:  eSpeak NG's, an accent and a speaker (`'en-us+f3'`; Mandarin is `'cmn+f3'`)
    rate:  words a minute
    pitch: 0..99, 50 is the speaker's own
    """

    name: str
    rate: int = 170
    pitch: int = 50


def voice(split: str, index: int, language: str = "en") -> Voice:
    """Who says utterance number `index` of a split. Nobody speaks in `test` whom `train` has heard."""
    rng = scene.generator(split, index, "voice", language)

    def between(low, high):
        return low + int(rng.random() * (high - low + 1))

    accent, speaker = scene.pick(rng, _ACCENTS[language]), scene.pick(rng, _SPEAKERS[split])
    return Voice(f"{accent}+{speaker}", between(*_RATES[language]), between(*_PITCHES))


def caption(split: str, index: int, language: str = "en") -> str:
    """What utterance number `index` of a split says: one of the captions of scene number `index`."""
    rng = scene.generator(split, index, "speech", language)
    return scene.pick(rng, scene.captions(scene.sample(split, index), language))


def speak(text: str, voice: Voice, seed: int = 0) -> np.ndarray:
    """The sound of a text: (n,) int16, 16,000 samples a second, without silence around it.

    The same text, voice and seed give the same samples, whatever was said before, for one version of eSpeak NG.

    Args:
        text: in the language of the voice.
        voice: who says it.
        seed: of the breath and the tremor in the voice.

    Raises:
        OSError: eSpeak NG is not there.
        ValueError: it does not know the voice.
    """
    sound, rate = _synthesise(text, voice, seed)
    loud = np.flatnonzero(np.abs(sound.astype(np.int32)) > 50)
    if not len(loud):
        raise ValueError(f"eSpeak NG says nothing to that text. Received: text={text!r}, voice={voice}")
    sound = sound[loud[0] : loud[-1] + 1]
    return soxr.resample(sound, rate, SAMPLE_RATE_HZ)


def speak_all(sayings: Iterable[tuple[str, Voice, int]]) -> Iterator[np.ndarray]:
    """The sounds of many (text, voice, seed), in their order: as `speak`, on all cores."""
    sayings = iter(sayings)
    with ThreadPoolExecutor(SPEAKERS_AT_ONCE) as pool:
        while some := list(islice(sayings, 16 * SPEAKERS_AT_ONCE)):
            yield from pool.map(lambda saying: speak(*saying), some)


# --- eSpeak NG through its C interface (espeak-ng/speak_lib.h) ---

_SYNCHRONOUS, _RATE, _PITCH, _UTF8 = 2, 1, 3, 1
_finding = threading.Lock()
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def _synthesise(text, voice, seed):
    pieces = []

    @_Callback
    def collect(samples, count, events):
        if samples and count > 0:
            pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    with _fresh_library() as (library, rate):
        library.espeak_SetSynthCallback(collect)
        if library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise ValueError(f"eSpeak NG knows no such voice. Received: voice={voice}")
        library.espeak_SetParameter(_RATE, voice.rate, 0)
        library.espeak_SetParameter(_PITCH, voice.pitch, 0)
        if hasattr(library, "espeak_ng_SetRandSeed"):  # since 1.52
            library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        said = text.encode() + b"\0"
        library.espeak_Synth(said, ctypes.c_size_t(len(said)), 0, 1, 0, _UTF8, None, None)
    return np.concatenate(pieces or [np.zeros(0, np.int16)]), rate


@contextlib.contextmanager
def _fresh_library():
    """eSpeak NG, loaded for one utterance: its static variables outlive even espeak_Terminate, and what was
    said before would be heard in what is said next. Loading costs 4 ms."""
    with _finding:
        free, data = _copies()
    path = free.get()
    try:
        library = ctypes.CDLL(path)
        try:
            rate = library.espeak_Initialize(_SYNCHRONOUS, 0, data, 0)
            if rate <= 0:
                raise OSError(f"eSpeak NG at {path} does not start: its data are not where it looks for them.")
            yield library, rate
            library.espeak_Terminate()
        finally:
            getattr(_ctypes, "dlclose", getattr(_ctypes, "FreeLibrary", None))(library._handle)
    finally:
        free.put(path)


@functools.cache
def _copies():
    """Paths of eSpeak NG that nobody speaks with at the moment, and where its data are.

    A process loads a file but once, and threads would share its static variables; a copy is another library.
    """
    path, data = _installed()
    free = queue.SimpleQueue()
    free.put(path)
    if os.path.isfile(path):  # where only its name is known, one at a time speaks
        folder = tempfile.mkdtemp(prefix="mmkeras-speak-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        for number in range(1, SPEAKERS_AT_ONCE):
            free.put(shutil.copy(path, os.path.join(folder, f"{number}-{os.path.basename(path)}")))
    return free, data


@functools.cache
def _installed():
    """The library's path and that of its data (None: where the system keeps them)."""
    if importlib.util.find_spec("espeakng_loader"):
        import espeakng_loader

        return espeakng_loader.get_library_path(), espeakng_loader.get_data_path().encode()
    path = ctypes.util.find_library("espeak-ng")
    if path is None:
        raise OSError(
            "The toy world speaks through eSpeak NG, which is not installed. Either `pip install "
            "espeakng-loader`, or install the system's library (Debian, Ubuntu: `apt install libespeak-ng1`; "
            "macOS: `brew install espeak-ng`)."
        )
    return path, None
