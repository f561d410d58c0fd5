"""Speech of the toy world: captions synthesized by eSpeak NG in many voices.

    voice("test", 0)                               # Voice(name='en-us+f3', rate=171, pitch=42)
    speak(caption("test", 0), voice("test", 0))    # (n,) int16, 16 kHz

eSpeak NG is a formant synthesizer: a speaker is a set of formants and an accent. The speakers of `test`
are not among those of `train`.
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

# eSpeak NG's names of accents and speakers, without robots, whispers and effects.
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
# Words per minute. In Mandarin eSpeak NG is much slower at the same number.
_RATES = {"en": (140, 200), "zh": (190, 270)}
_PITCHES = (30, 70)  # in 0..99


@dataclass(frozen=True)
class Voice:
    """A speaker and a way of speaking.

    Attributes:
        name: str. eSpeak NG's name, an accent and a speaker: `"en-us+f3"`, in Mandarin `"cmn+f3"`.
        rate: int. Words per minute. Defaults to 170.
        pitch: int. In 0..99; 50 is the speaker's usual pitch. Defaults to 50.
    """

    name: str
    rate: int = 170
    pitch: int = 50


def voice(split: str, index: int, language: str = "en") -> Voice:
    """The voice of clip number `index` of a split. No speaker of `test` is in `train`."""
    rng = scene.generator(split, index, "voice", language)

    def between(low, high):
        return low + int(rng.random() * (high - low + 1))

    accent, speaker = scene.pick(rng, _ACCENTS[language]), scene.pick(rng, _SPEAKERS[split])
    return Voice(f"{accent}+{speaker}", between(*_RATES[language]), between(*_PITCHES))


def caption(split: str, index: int, language: str = "en") -> str:
    """The text of clip number `index` of a split: one of the captions of scene number `index`."""
    rng = scene.generator(split, index, "speech", language)
    return scene.pick(rng, scene.captions(scene.sample(split, index), language))


def speak(text: str, voice: Voice, seed: int = 0) -> np.ndarray:
    """Speech of a text, (n,) int16 at 16 kHz, without silence at the start and the end.

    With one version of eSpeak NG the same text, voice and seed always give the same samples.

    Args:
        text: str. In the language of the voice.
        voice: `Voice`.
        seed: int. Seed for breath and tremor. Defaults to 0.

    Raises:
        OSError: if eSpeak NG is not installed.
        ValueError: if eSpeak NG does not know the voice, or the text has nothing to speak.
    """
    samples, rate = _synthesize(text, voice, seed)
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > 50)
    if not len(loud):
        raise ValueError(f"Expected text that eSpeak NG can speak. Received: text={text!r}, voice={voice}")
    samples = samples[loud[0] : loud[-1] + 1]
    return soxr.resample(samples, rate, SAMPLE_RATE_HZ)


def speak_all(utterances: Iterable[tuple[str, Voice, int]]) -> Iterator[np.ndarray]:
    """`speak` for many (text, voice, seed), in their order, on all cores."""
    utterances = iter(utterances)
    with ThreadPoolExecutor(SPEAKERS_AT_ONCE) as pool:
        while batch := list(islice(utterances, 16 * SPEAKERS_AT_ONCE)):
            yield from pool.map(lambda utterance: speak(*utterance), batch)


# --- eSpeak NG through its C interface (espeak-ng/speak_lib.h) ---

_SYNCHRONOUS, _RATE, _PITCH, _UTF8 = 2, 1, 3, 1
_finding = threading.Lock()
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def _synthesize(text, voice, seed):
    pieces = []

    @_Callback
    def collect(samples, count, events):
        if samples and count > 0:
            pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    with _fresh_library() as (library, rate):
        library.espeak_SetSynthCallback(collect)
        if library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise ValueError(f"Expected a voice that eSpeak NG knows. Received: voice={voice}")
        library.espeak_SetParameter(_RATE, voice.rate, 0)
        library.espeak_SetParameter(_PITCH, voice.pitch, 0)
        if hasattr(library, "espeak_ng_SetRandSeed"):  # since 1.52
            library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        encoded = text.encode() + b"\0"
        library.espeak_Synth(encoded, ctypes.c_size_t(len(encoded)), 0, 1, 0, _UTF8, None, None)
    return np.concatenate(pieces or [np.zeros(0, np.int16)]), rate


@contextlib.contextmanager
def _fresh_library():
    """eSpeak NG, loaded for one utterance. Its static variables outlive even espeak_Terminate, so an utterance
    would change the next one. Loading takes 4 ms."""
    with _finding:
        free, data = _copies()
    path = free.get()
    try:
        library = ctypes.CDLL(path)
        try:
            rate = library.espeak_Initialize(_SYNCHRONOUS, 0, data, 0)
            if rate <= 0:
                raise OSError(f"eSpeak NG at {path} does not start: its data folder is missing.")
            yield library, rate
            library.espeak_Terminate()
        finally:
            getattr(_ctypes, "dlclose", getattr(_ctypes, "FreeLibrary", None))(library._handle)
    finally:
        free.put(path)


@functools.cache
def _copies():
    """A queue with the paths of unused copies of eSpeak NG, and the folder of its data.

    A process loads a file only once, so threads would share its static variables. A copy is another library.
    """
    path, data = _installed()
    free = queue.SimpleQueue()
    free.put(path)
    if os.path.isfile(path):  # if only its name is known, there is no copy and one thread at a time
        folder = tempfile.mkdtemp(prefix="mmkeras-speak-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        for number in range(1, SPEAKERS_AT_ONCE):
            free.put(shutil.copy(path, os.path.join(folder, f"{number}-{os.path.basename(path)}")))
    return free, data


@functools.cache
def _installed():
    """Paths of the library and of its data (None: the system's default)."""
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
