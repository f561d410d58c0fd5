"""What the assistant gets right, and how well it knows: fits its confidence on `validation`, then measures on
`test_unseen`, whose pairs of color and shape, and speakers, no model has trained on: scenes number 1,000 and
up, which nobody had looked at before.

    python -m mmkeras.applications.assistant.experiment      # minutes; writes results.json
    print(results())                                         # the shipped results
"""

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmkeras._utils import progress
from mmkeras.applications.assistant.dialog import ASK_BELOW, RESULTS, Assistant
from mmkeras.media import audio
from mmkeras.methods.experiments import records
from mmkeras.toy import render, scene, speak

COMMAND = "python -m mmkeras.applications.assistant.experiment"
# From undamaged to hardly recognizable, so that there are errors whose confidence can be compared.
SIGNAL_TO_NOISE_DB = (None, 10, 5, 0, -5, -10)
PIXEL_NOISE = (0, 10, 20, 30, 40, 60)  # standard deviation, of 255
BINS = 10
# for each language a color that it lacks
YES = {"en": "yes", "zh": "是"}
UNKNOWN = {"en": ("pink", "brown", "black", "white", "gray"), "zh": ("粉色", "棕色", "黑色", "白色", "灰色")}


@dataclass(frozen=True)
class Results:
    """What `run` measures, for each of `"speech-en"`, `"image-en"`, `"speech-zh"` and `"image-zh"` or language.

    Attributes:
        calibration: Weights of the confidence, see `Assistant.confidence`.
        reliability: See `reliability`.
        round_trip: See `round_trip`.
        questions: See `questions`.
        measured: How and when, see `mmkeras.methods.experiments.records.write`.
    """

    calibration: dict[str, list[float]]
    reliability: dict[str, dict[str, Any]]
    round_trip: dict[str, dict[str, float]]
    questions: dict[str, dict[str, float]]
    measured: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        rows = [["", "confidence", "mean", "share right", "number"]]
        for name, measured in self.reliability.items():
            rows += [
                [name, f"{low:.1f} to {low + 1 / BINS:.1f}", f"{mean:.3f}", f"{right:.3f}", f"{count}"]
                for low, count, mean, right in measured["bins"]
            ]
        parts = [records.table(rows)]
        for title, table in (("", self.reliability), ("round trip", self.round_trip), ("asks", self.questions)):
            columns = [name for name in next(iter(table.values())) if name != "bins"]
            rows = [[f"{row[name]:.3f}" for name in columns] for row in table.values()]
            named = [[name, *row] for name, row in zip(table, rows, strict=True)]
            parts.append(records.table([[title, *columns], *named]))
        return "\n\n".join(parts)


def results() -> Results:
    """The shipped results of `run`."""
    return records.read(RESULTS, Results)


def observe(assistant: Assistant, kind: str, split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Lets the assistant hear or see scenes at each level of noise.

    Args:
        assistant: Assistant.
        kind: str. `"speech"` or `"image"`.
        split: str. A split of the toy world.
        count: int. Number of scenes.

    Returns:
        The features (N, F) of the confidence, and whether each scene was understood, (N,) bool.
    """
    language = assistant.language
    numbers = _numbers(split, count)
    scenes = [scene.sample(split, i) for i in numbers]
    if kind == "speech":
        spoken = [(speak.caption(split, i, language), speak.voice(split, i, language), i) for i in numbers]
        originals = [
            audio.read((speak.SAMPLE_RATE_HZ, clip), speak.SAMPLE_RATE_HZ) for clip in speak.speak_all(spoken)
        ]
    else:
        originals = [render.draw(split, i) for i in numbers]
    features, is_right = [], []
    for level in progress.bar(
        SIGNAL_TO_NOISE_DB if kind == "speech" else PIXEL_NOISE, f"levels of noise, {kind}"
    ):
        rngs = [scene.generator(split, i, "noise") for i in numbers]
        noisy = [_noisy(original, level, rng) for original, rng in zip(originals, rngs, strict=True)]
        texts, values = assistant.hear(noisy) if kind == "speech" else assistant.see(np.stack(noisy))
        features.append(values)
        is_right += [scene.parse(text, language) == meant for text, meant in zip(texts, scenes, strict=True)]
    return np.concatenate(features), np.array(is_right)


def fit(features: np.ndarray, is_right: np.ndarray, steps: int = 50) -> list[float]:
    """Logistic regression by Newton's method: the bias and a weight per feature.

    Args:
        features: (N, F).
        is_right: (N,) bool.
        steps: int. Defaults to 50.
    """
    x = np.concatenate([np.ones((len(features), 1)), features], axis=1)
    weights = np.zeros(x.shape[1])
    for _ in range(steps):
        p = 1 / (1 + np.exp(-x @ weights))
        curvature = (x * (p * (1 - p))[:, None]).T @ x
        # a little ridge: the classes may be separable
        gradient = x.T @ (p - is_right) + 1e-2 * weights
        weights -= np.linalg.solve(curvature + 1e-2 * np.eye(len(weights)), gradient)
    return weights.tolist()


def reliability(confidence: np.ndarray, is_right: np.ndarray) -> dict[str, Any]:
    """Compares confidence with the share of right answers.

    Args:
        confidence: (N,) in 0..1.
        is_right: (N,) bool.

    Returns:
        - `bins`: for each tenth of the confidence that occurs, its lower end, the number of answers, their mean
          confidence, and the share that is right.
        - `calibration_error`: the expected calibration error, the mean distance of the last two over all
          answers (Guo et al. 2017, arXiv:1706.04599).
        - `accuracy`, `asked` (share below the threshold for a question), and `right_if_not_asked`.
    """
    index = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = [
        (
            b / BINS,
            int((index == b).sum()),
            float(confidence[index == b].mean()),
            float(is_right[index == b].mean()),
        )
        for b in range(BINS)
        if (index == b).any()
    ]
    is_sure = confidence >= ASK_BELOW
    return {
        "bins": bins,
        "calibration_error": sum(n * abs(mean - right) for _, n, mean, right in bins) / len(confidence),
        "accuracy": float(is_right.mean()),
        "asked": float(1 - is_sure.mean()),
        "right_if_not_asked": float(is_right[is_sure].mean()) if is_sure.any() else 1.0,
    }


def round_trip(
    count: int = 100, language: str = "en", split: str = "test_unseen", assistant: Assistant | None = None
) -> dict[str, float]:
    """Takes scenes through all modalities: said, transcribed, drawn, captioned, said and transcribed again.

    A question of the assistant ("Did you mean ...?") is answered with yes if it understood the scene.

    Args:
        count: int. Number of scenes. Defaults to 100.
        language: str. Defaults to `"en"`.
        split: str. Defaults to `"test_unseen"`.
        assistant: Assistant, optional. Defaults to None, a new one.

    Returns:
        The share of scenes that are still the same when they are `transcribed`, `drawn` (to the attribute
        classifier), `captioned`, and `said_again`; and that are so at the end `without_question`.
    """
    assistant = assistant or Assistant(language)
    numbers = progress.bar(_numbers(split, count), f"round trips, {language}")
    trips = [_trip(assistant, split, index) for index in numbers]
    return {name: float(np.mean([trip[name] for trip in trips])) for name in trips[0]}


def questions(count: int = 100, language: str = "en", assistant: Assistant | None = None) -> dict[str, float]:
    """The share of sentences with a wrong word about which the assistant asks.

    Args:
        count: int. Number of scenes of `test_unseen`. Defaults to 100.
        language: str. Defaults to `"en"`.
        assistant: Assistant, optional. Defaults to None, a new one.

    Returns:
        Of written sentences `misspelled` (two characters of the color are swapped), `contradiction` (two
        colors), `unknown` (a color that it lacks); `unknown_spoken`, the last in speech.
    """
    assistant = assistant or Assistant(language)
    asked = {name: [] for name in ("misspelled", "contradiction", "unknown", "unknown_spoken")}
    for index in progress.bar(_numbers("test_unseen", count), f"wrong words, {language}"):
        text, (thing,) = (
            speak.caption("test_unseen", index, language),
            scene.sample("test_unseen", index).things,
        )
        word = scene.words("color", language)[thing.color]
        other = scene.words("color", language)[scene.COLORS[(scene.COLORS.index(thing.color) + 1) % 6]]
        unknown = text.replace(word, UNKNOWN[language][index % len(UNKNOWN[language])])
        clip = speak.speak(unknown, speak.voice("test_unseen", index, language), index)
        for name, message in {
            "misspelled": text.replace(word, word[:-2] + word[:-3:-1]),
            "contradiction": text.replace(word, f"{word} {other}"),
            "unknown": unknown,
            "unknown_spoken": (speak.SAMPLE_RATE_HZ, clip),
        }.items():
            assistant.forget()
            asked[name].append(assistant(message).is_question)
    return {name: float(np.mean(values)) for name, values in asked.items()}


def run(count: int = 200, trips: int = 100) -> Results:
    """Fits the confidence, measures everything, and writes the results that ship with the package.

    Args:
        count: int. Scenes of `validation` and of `test_unseen` for the confidence. Defaults to 200.
        trips: int. Scenes of `test_unseen` for the rest. Defaults to 100.
    """
    start = time.perf_counter()
    found = Results({}, {}, {}, {})
    for language in scene.LANGUAGES:
        assistant = Assistant(language)
        assistant.calibration = found.calibration  # not the shipped one
        for kind in ("speech", "image"):
            name = f"{kind}-{language}"
            found.calibration[name] = fit(*observe(assistant, kind, "validation", count))
            features, is_right = observe(assistant, kind, "test_unseen", count)
            found.reliability[name] = reliability(assistant.confidence(kind, features), is_right)
        found.round_trip[language] = round_trip(trips, language, assistant=assistant)
        found.questions[language] = questions(trips, language, assistant)
    return records.write(RESULTS, COMMAND, start, found)


def _numbers(split, count):
    """The numbers of the scenes. The first of `test_unseen` were seen when the confidence was designed."""
    first = 1000 if split == "test_unseen" else 0
    return range(first, first + count)


def _trip(assistant, split, index):
    """{stage: whether the scene is still the same}"""
    language, meant, is_asked = assistant.language, scene.sample(split, index), []
    stages = dict.fromkeys(("transcribed", "drawn", "captioned", "said_again", "without_question"), False)

    def told(message):
        """The reply to a message, after a yes to its question; None if it understood another scene."""
        reply = assistant(message)
        is_asked.append(reply.is_question)
        if reply.scene != meant:
            return None
        return assistant(YES[language]) if reply.is_question else reply

    assistant.forget()
    voice = speak.voice(split, index, language)
    clip = speak.speak(speak.caption(split, index, language), voice, index)
    if first := told((speak.SAMPLE_RATE_HZ, clip)):
        stages["transcribed"] = True
        shown = assistant.classify(first.image)
        stages["drawn"] = all(shown[name] == getattr(meant.things[0], name) for name in shown)
        if seen := told(first.image):
            stages["captioned"] = True
            stages["said_again"] = told((speak.SAMPLE_RATE_HZ, seen.audio)) is not None
    stages["without_question"] = stages["said_again"] and not any(is_asked)
    return stages


def _noisy(original, level, rng):
    """A clip (n,) float32 with white noise, or an image (S, S, 3) uint8 with noise in each channel."""
    if original.ndim == 1:
        power = 0 if level is None else (original**2).mean() / 10 ** (level / 10)
        noisy = original + np.sqrt(power) * rng.standard_normal(len(original))
        return (noisy / max(1, np.abs(noisy).max())).astype(np.float32)
    return np.clip(np.rint(original + level * rng.standard_normal(original.shape)), 0, 255).astype(np.uint8)


if __name__ == "__main__":
    print(run())
