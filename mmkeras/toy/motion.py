"""Toy videos: a shape moves, grows, turns or blinks, and a sound rises, falls or beeps in time with it.

    event = sample("train", 0)                  # Event(color='red', shape='star', motion='left', ...)
    captions(event)[0]                          # 'a red star moves left twice while a sound rises'
    frames, sound = film("train", 0)            # (16, 32, 32, 3) uint8, (12800,) int16
    parse(captions(event)[0]) == event          # True

No single modality tells all of an event: half of the videos are filmed without color, frames are silent, a
sound has neither color nor shape nor direction, and `sentence` leaves out about a third of what happens.
"""

import functools
import itertools
import re
from dataclasses import astuple, dataclass, replace

import numpy as np

from mmkeras.toy import render
from mmkeras.toy.scene import COLORS, SHAPES, UNSEEN, generator, pick

MOTIONS = ("left", "right", "up", "down", "grow", "shrink", "turn", "blink")
TIMES = ("once", "twice", "three times")
SOUNDS = ("rises", "falls", "beeps")
ATTRIBUTES = {"color": COLORS, "shape": SHAPES, "motion": MOTIONS, "times": TIMES, "sound": SOUNDS}

FRAMES, IMAGE_SIZE, SECONDS, SAMPLE_RATE_HZ = 16, 32, 1.6, 8000
GRAY = 0.5  # rate of videos without color
TOLD = 0.65  # rate at which a sentence tells an attribute
RADIUS = (0.17, 0.21)  # in units of the image's side
JITTER = 0.06  # largest distance of the path from the center of the image, in x and in y
REACH = 0.22  # from the middle of a path to its ends
PITCHES_HZ = (300, 600)


@dataclass(frozen=True)
class Event:
    """What happens in a toy video. An attribute that a text does not tell is None.

    Attributes:
        color, shape, motion, times, sound: str. Of `ATTRIBUTES`. Motion and sound both happen `times` times.
    """

    color: str | None
    shape: str | None
    motion: str | None
    times: str | None
    sound: str | None


def sample(split: str, index: int) -> Event:
    """Event number `index` of a split. Only `test_unseen` has the pairs of color and shape in `UNSEEN`."""
    rng = generator(split, index, "event")
    pairs = [p for p in itertools.product(COLORS, SHAPES) if (p in UNSEEN) == (split == "test_unseen")]
    return Event(*pick(rng, pairs), *(pick(rng, ATTRIBUTES[name]) for name in ("motion", "times", "sound")))


def is_gray(split: str, index: int) -> bool:
    """Whether the video is filmed without color."""
    return generator(split, index, "gray").random() < GRAY


# --- frames and sound ---


def film(split: str, index: int, image_size: int = IMAGE_SIZE) -> tuple[np.ndarray, np.ndarray]:
    """The video of event number `index` of a split, the same everywhere.

    Args:
        split, index: As for `sample`.
        image_size: int. Side S in pixels. Defaults to 32.

    Returns:
        frames (16, S, S, 3) uint8 RGB, ten per second, and sound (12800,) int16 at 8 kHz.
    """
    event, rng = sample(split, index), generator(split, index, "film")
    return _frames(event, rng, is_gray(split, index), image_size), _sound(event, rng)


def _frames(event, rng, gray, size):
    background = render.background(size, rng)  # (S, S, 3)
    tint = np.array(render.RGB[event.color]) + 30 * (rng.random(3) - 0.5)
    low, high = RADIUS
    radius, center = low + (high - low) * rng.random(), 0.5 + JITTER * (2 * rng.random(2) - 1)
    direction = pick(rng, (-1, 1))  # of turning
    outline, dot = render.outline(event.shape), 0.28 * render.outline("circle") + (0, -0.45)
    steps = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
    frames = []
    for phase in _phases(event, FRAMES):
        scale, angle = radius, 0.0
        middle = center + REACH * (2 * phase - 1) * np.array(steps.get(event.motion, (0, 0)))
        if event.motion in ("grow", "shrink"):
            scale *= 0.5 + (phase if event.motion == "grow" else 1 - phase)
        if event.motion == "turn":
            angle = 2 * np.pi * phase * direction
        turned = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        # without the dot, one could not see a circle turn
        cover, hole = (render.mask(part @ turned * scale + middle, size) for part in (outline, dot))
        is_there = event.motion != "blink" or phase < 0.5
        cover = is_there * (cover * (1 - hole))[..., None]  # (S, S, 1)
        frames.append(background + cover * ((render.GRAY if gray else tint) - background))
    frames = np.stack(frames)
    if gray:
        frames[:] = frames.mean(axis=-1, keepdims=True)
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


def _sound(event, rng):
    phase = _phases(event, round(SECONDS * SAMPLE_RATE_HZ))  # (n,)
    low, high = PITCHES_HZ
    glide = {"rises": phase, "falls": 1 - phase, "beeps": np.full_like(phase, 0.5)}[event.sound]
    pitch = (low + (high - low) * rng.random()) * 2**glide
    angle = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE_HZ
    wave = np.sin(angle) + rng.random() * np.sin(2 * angle)
    end = 0.5 if event.sound == "beeps" else 0.85  # a pause before the next time
    loudness = np.clip(np.minimum(phase, end - phase) / 0.05, 0, 1) * (0.2 + 0.2 * rng.random())
    return np.rint(wave * loudness * (2**15 - 1)).astype(np.int16)


def _phases(event, count):
    """(count,) in 0..1: how much of the motion has happened; it starts again for each time."""
    return np.arange(count) * (1 + TIMES.index(event.times)) / count % 1


# --- texts ---
# The words of each attribute, the last for one that is not told; then the phrasings.

_GRAMMARS = {
    "en": {
        "color": (*COLORS, ""),
        "shape": (*SHAPES, "shape"),
        "motion": (
            "moves left", "moves right", "moves up", "moves down", "grows", "shrinks", "turns", "blinks",
            "does something",
        ),
        "times": (*TIMES, ""),
        "sound": (*SOUNDS, "plays"),
        "phrases": (
            "a {color} {shape} {motion} {times} while a sound {sound}",
            "a sound {sound} {times} while a {color} {shape} {motion}",
            "there is a {color} {shape} that {motion} {times} with a sound that {sound}",
        ),
    },
    "zh": {
        "color": ("红色", "橙色", "黄色", "绿色", "蓝色", "紫色", ""),
        "shape": ("圆形", "方形", "三角形", "星形", "十字形", "菱形", "图形"),
        "motion": (
            "向左移动", "向右移动", "向上移动", "向下移动", "变大", "变小", "旋转", "闪烁", "有变化",
        ),
        "times": ("一次", "两次", "三次", ""),
        "sound": ("升高", "降低", "断续", "响着"),
        "phrases": (
            "一个{color}{shape}{motion}{times}同时声音{sound}",
            "声音{sound}{times}同时一个{color}{shape}{motion}",
            "有一个{color}{shape}{motion}{times}伴随声音{sound}",
        ),
    },
}  # fmt: skip


def captions(event: Event, language: str = "en") -> tuple[str, ...]:
    """All phrasings of an event, `"en"` or `"zh"`, without the attributes that are None."""
    grammar, words = _GRAMMARS[language], {}
    for (name, values), value in zip(ATTRIBUTES.items(), astuple(event), strict=True):
        words[name] = grammar[name][-1 if value is None else values.index(value)]
    texts = (" ".join(phrase.format(**words).split()) for phrase in grammar["phrases"])
    return tuple(re.sub(r"\ba (?=[aeiou])", "an ", text) for text in texts)


def visible(split: str, index: int) -> Event:
    """What one can see and hear in the video: the event, without the color if there is none."""
    event = sample(split, index)
    return replace(event, color=None) if is_gray(split, index) else event


def sentence(split: str, index: int, language: str = "en") -> str:
    """The sentence that tells of the video. It leaves out about a third of the attributes, the color too."""
    rng = generator(split, index, "sentence")
    told = (value if rng.random() < TOLD else None for value in astuple(sample(split, index)))
    return pick(rng, captions(Event(*told), language))


def parse(text: str) -> Event | None:
    """The event that a caption of either language tells, or None if the grammar does not have the caption."""
    return _meanings().get(" ".join(text.lower().split()))


@functools.cache
def _meanings():
    events = [Event(*values) for values in itertools.product(*((*v, None) for v in ATTRIBUTES.values()))]
    return {text: event for language in _GRAMMARS for event in events for text in captions(event, language)}
