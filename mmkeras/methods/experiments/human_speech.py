"""From a synthesizer to people: Mandarin of a person, read by models that never heard one (chapter 8.2).

    human_speech.run("usr/share/gcin-voice/ogg", path="human.json")  # from Debian's package gcin-voice
    human_speech.results("human.json").error_rates                   # as `run` has written them

No results are shipped: each of 30 trainings takes minutes.

The package has about 1,200 syllables, each spoken once. Speaker 3 (GPL-3 or LGPL-3) has all that the toy
world needs; sentences of the toy world are joined from them, so they are choppy. The augmentations were tried
with this speaker's scores in view; it is a development set.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmkeras.evaluation import metrics
from mmkeras.media import audio
from mmkeras.methods.experiments import records
from mmkeras.speech_to_text import Transcriber
from mmkeras.toy import speak
from mmkeras.training.task import train_task

SENTENCES = 100
CUT = 0.3  # seconds that are kept of a syllable; the uncut ones last 0.4 on average
# {what is changed: (options of the data, epochs)}
ARMS = {
    "as it was": ({}, 6),
    "longer": ({}, 8),
    "syllables": ({"syllables": True}, 8),
    "recolored": ({"recolor": True}, 8),
    "both": ({"syllables": True, "recolor": True}, 8),
}
SYLLABLES = {
    "一": "ㄧ", "三": "ㄙㄢ", "上": "ㄕㄤ4", "下": "ㄒㄧㄚ4", "个": "ㄍㄜ4", "中": "ㄓㄨㄥ",
    "侧": "ㄘㄜ4", "十": "ㄕ2", "右": "ㄧㄡ4", "圆": "ㄩㄢ2", "在": "ㄗㄞ4", "大": "ㄉㄚ4",
    "央": "ㄧㄤ", "字": "ㄗ4", "小": "ㄒㄧㄠ3", "左": "ㄗㄨㄛ3", "形": "ㄒㄧㄥ2", "方": "ㄈㄤ",
    "星": "ㄒㄧㄥ", "是": "ㄕ4", "有": "ㄧㄡ3", "橙": "ㄔㄥ2", "的": "ㄉㄜ1", "紫": "ㄗ3",
    "红": "ㄏㄨㄥ2", "绿": "ㄌㄩ4", "色": "ㄙㄜ4", "菱": "ㄌㄧㄥ2", "蓝": "ㄌㄢ2", "角": "ㄐㄧㄠ3",
    "黄": "ㄏㄨㄤ2",
}  # fmt: skip


@dataclass(frozen=True)
class Results:
    """What `run` measures: character error rates, one per seed.

    Attributes:
        error_rates: {head: {arm: {"human", "human_uncut", "synthetic": values}}}. Human sentences are joined
            from syllables that are cut to 0.3 s, or uncut.
        heard: {head: {arm: share of the sentences with 上 (above) in which that is heard, and no 下 (below)}}.
        measured: See `mmkeras.methods.experiments.records.write`.
    """

    error_rates: dict[str, dict[str, dict[str, list[float]]]]
    heard: dict[str, dict[str, list[float]]]
    measured: dict[str, Any] = field(default_factory=dict)


def results(path: str | os.PathLike) -> Results:
    """What `run` wrote."""
    return records.read(path, Results)


def run(
    folder: str | os.PathLike,
    *,
    heads: Sequence[str] = ("attention", "ctc"),
    arms: Mapping[str, tuple[dict[str, Any], int]] = ARMS,
    seeds: Sequence[int] = (0, 1, 2),
    path: str | os.PathLike,
    **options: Any,
) -> Results:
    """Trains each arm on synthetic speech alone, and reads a person's.

    Args:
        folder: path. The syllables: `<Bopomofo and tone>/3.ogg`.
        heads: Heads of `mmkeras.speech_to_text.build`. Defaults to both.
        arms: As `ARMS`.
        seeds: Sequence of int. Defaults to (0, 1, 2).
        path: path. The file of the results.
        **options: Options of the source, such as `data_dir`.
    """
    start = time.perf_counter()
    spoken = {"human": sentences(folder), "human_uncut": sentences(folder, cut=None)}
    error_rates: dict[str, dict] = {}
    heard: dict[str, dict] = {}
    for head in heads:
        error_rates[head], heard[head] = {}, {}
        for arm, (settings, epochs) in arms.items():
            of_seeds = []
            for seed in seeds:
                transcriber, data = train_task(
                    "speech_to_text",
                    language="zh",
                    head=head,
                    epochs=epochs,
                    seed=seed,
                    verbose=0,
                    **settings,
                    **options,
                )
                synthetic = transcriber.evaluate(data.for_evaluate(data.splits["test"]))
                of_seeds.append(score(transcriber, spoken) | {"synthetic": synthetic["cer"]})
            columns = {name: [round(s[name], 4) for s in of_seeds] for name in of_seeds[0]}
            heard[head][arm] = columns.pop("heard")
            error_rates[head][arm] = columns
    return records.write(
        path,
        'python -c "from mmkeras.methods.experiments import human_speech; '
        "human_speech.run('usr/share/gcin-voice/ogg', path='human.json')\"",
        start,
        Results(error_rates, heard),
    )


def sentences(
    folder: str | os.PathLike, speaker: int = 3, cut: float | None = CUT
) -> tuple[list[np.ndarray], list[str]]:
    """Sentences of the split `test`, joined from a person's syllables, side by side.

    Args:
        folder: path. As for `run`.
        speaker: int. 3, or 5 (CC BY 3.0), who lacks three of the syllables.
        cut: float, optional. Seconds that are kept of each syllable. None: all.

    Returns:
        Clips (n,) float32 at 16 kHz, and their texts.

    Raises:
        FileNotFoundError: if a syllable is missing.
    """
    kept = None if cut is None else round(cut * speak.SAMPLE_RATE_HZ)
    texts = [speak.caption("test", number, "zh") for number in range(SENTENCES)]
    files = {character: Path(folder) / name / f"{speaker}.ogg" for character, name in SYLLABLES.items()}
    syllables = {
        character: audio.read(files[character], speak.SAMPLE_RATE_HZ)[:kept]
        for character in set("".join(texts))
    }
    return [np.concatenate([syllables[character] for character in text]) for text in texts], texts


def score(
    transcriber: Transcriber, spoken: Mapping[str, tuple[list[np.ndarray], list[str]]]
) -> dict[str, float]:
    """Character error rate of each kind of clips, and `heard`, see `Results`, of the kind `human`."""
    answers = {
        kind: transcriber(clips, sample_rate_hz=speak.SAMPLE_RATE_HZ) for kind, (clips, _) in spoken.items()
    }
    scores = {
        kind: metrics.recognition_scores(texts, answers[kind])["cer"] for kind, (_, texts) in spoken.items()
    }
    above = [
        answer
        for text, answer in zip(spoken["human"][1], answers["human"], strict=True)
        if "上" in text and "下" not in text
    ]
    return scores | {"heard": sum("上" in answer and "下" not in answer for answer in above) / len(above)}
