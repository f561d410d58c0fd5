"""Ethics (chapter 8.2): a toy world sampled with a skew, the accuracy of each group, and what repairs it.

The groups are the things at the left and at the right. Their images are mirror images of each other, so no
group is harder: whatever gap there is comes from the sample. Of 1,000 training images few show a thing at the
right, as photos of right-handed people would. The model names size, color, and shape.
"""

import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmkeras._utils import progress
from mmkeras.methods import scenes
from mmkeras.methods.experiments import protocol, records, small
from mmkeras.methods.experiments.protocol import SEEDS
from mmkeras.methods.scenes import Examples

RESULTS = Path(__file__).with_name("fairness.json")
COMMAND = 'python -c "from mmkeras.methods.experiments import fairness; fairness.run()"'
GROUPS = {"left": 0, "right": 2}  # column of the place
ATTRIBUTES = ("size", "color", "shape")
SIZES = {"train": 4000, "validation": 750, "test": 3000}  # scenes, of which a third is in each column
IMAGES, OF_A_GROUP = 1000, 200  # of training; of validation
SHARES = (0.05, 0.2, 0.5)  # of the right in training
SKEWED, EVEN = "as sampled", "new, balanced data"
REPAIRS = ("re-weighting", "balanced sampling", "mirror images")


@dataclass(frozen=True)
class Results:
    """Shares of test images with size, color, and shape right, one per seed.

    Attributes:
        accuracy: {training: {group: a share per seed}}. `"as sampled"` and each repair have a training set with
            5 % of the right; `"new, balanced data"` has as many images, half of them of the right.
        shares: {share of the right in training: {group: a share per seed}}, as sampled.
        measured: How and when, see `records.write`.
    """

    accuracy: dict[str, dict[str, list[float]]]
    shares: dict[str, dict[str, list[float]]]
    measured: dict[str, Any] = field(default_factory=dict)

    def gap(self, training: str = SKEWED) -> list[float]:
        """Accuracy on the left minus accuracy on the right, per seed."""
        return _gap(self.accuracy[training])

    def verdict(self, training: str) -> str:
        """Whether a training's gap is `"lower"` than as sampled, `"higher"`, or `"no difference"`."""
        return small.difference(self.gap(), self.gap(training))

    def __str__(self):
        rows = {name: values | {"gap": _gap(values)} for name, values in self.accuracy.items()}
        return small.table("size, color, shape right", rows)

    def plot(self, path: str | os.PathLike | None = None):
        """Plots the accuracy of the groups against `shares`: mean and range. Returns a matplotlib Figure."""
        from mmkeras.evaluation import plots

        ys = {f"{group} (test)": [values[group] for values in self.shares.values()] for group in GROUPS}
        return plots.lines(SHARES, ys, "share of the right in training", "size, color, shape right", path)

    def card(self, training: str = SKEWED) -> str:
        """A model card (Mitchell et al. 2019, arXiv:1810.03993) of the model of a training, in Markdown."""
        shares = self.accuracy[training]
        rows = "\n".join(f"| {name} | {small.cell(values)} |" for name, values in shares.items())
        worst = min(shares, key=lambda name: np.mean(shares[name]))
        is_even = training == EVEN
        right = SHARES[-1] if is_even else SHARES[0]
        advice = (
            f"Do not use it where an error on the {worst} costs more than one elsewhere."
            if min(self.gap(training)) > 0
            else "No group is worse in every seed."
        )
        return f"""# Model card: size, color, and shape of a thing

- **Model**: a convolutional network of {small.SIDE}-pixel images, mmkeras {self.measured["version"]},
  {self.measured["date"]}. Training: {training}.
- **Intended use**: to show what a skewed sample does. It knows the toy world only.
- **Factors**: the column in which the thing is, left or right.
- **Metric**: share of images with size, color, and shape right; mean and range of {len(SEEDS)} seeds.
- **Training data**: {IMAGES} images, {right:.0%} of them with the thing at the right.
- **Evaluation data**: test scenes, as many at the left as at the right, up to chance.

| group | accuracy |
|---|---|
{rows}
| gap | {small.cell(self.gap(training))} |

- **Ethical considerations**: the average hides the gap whenever a test set has the skew of the training set.
- **Caveats**: {advice} Measured with `{self.measured["command"]}`.
"""


def run(path: str | os.PathLike = RESULTS) -> Results:
    """Trains a model for each training and each seed, and writes what `results` returns."""
    start = time.perf_counter()
    train, validation, test = (small.examples(split, count) for split, count in SIZES.items())
    validation = sampled(validation, 2 * OF_A_GROUP, 0.5, seed=0)
    accuracy = {
        name: {group: [] for group in GROUPS} for name in ("most frequent class", SKEWED, *REPAIRS, EVEN)
    }
    shares = {str(share): {group: [] for group in GROUPS} for share in SHARES}
    for seed in progress.bar(SEEDS, "seeds"):
        samples = {share: sampled(train, IMAGES, share, seed) for share in SHARES}
        skewed = samples[SHARES[0]]
        for group in GROUPS:
            chance = protocol.most_frequent(training(skewed), training(of_group(test, group)))
            accuracy["most frequent class"][group].append(round(chance["all"], 4))
        for share, sample in samples.items():
            _append(shares[str(share)], sample, validation, test, seed)
        for name in REPAIRS:
            sample, weights = repaired(skewed, name)
            _append(accuracy[name], sample, validation, test, seed, weights)
    accuracy[SKEWED], accuracy[EVEN] = shares[str(SHARES[0])], shares[str(SHARES[-1])]
    return records.write(path, COMMAND, start, Results(accuracy, shares))


def results() -> Results:
    """The shipped results of `run`."""
    return records.read(RESULTS, Results)


def column(examples: Examples) -> np.ndarray:
    """The column in which each thing is, (N,) int."""
    return examples.labels["place"] % len(scenes.scene.COLUMNS)


def of_group(examples: Examples, group: str) -> Examples:
    """The examples of a group."""
    return examples.take(np.flatnonzero(column(examples) == GROUPS[group]))


def sampled(examples: Examples, count: int, share: float, seed: int) -> Examples:
    """`count` examples, chosen at random, a share of them of the right and the others of the left."""
    rng, of_right = np.random.default_rng(seed), round(share * count)
    rows = [
        rng.permutation(np.flatnonzero(column(examples) == place))[:n]
        for place, n in zip(GROUPS.values(), (count - of_right, of_right), strict=True)
    ]
    return examples.take(np.concatenate(rows))


def repaired(sample: Examples, repair: str) -> tuple[Examples, np.ndarray | None]:
    """The examples on which a repair trains, and their weights in the loss, (N,) float or None.

    Args:
        sample: Examples. With a skew.
        repair: str. `"re-weighting"`: examples of both groups have the same sum of weights. `"balanced
            sampling"`: the rare examples are repeated until both groups are equally frequent. `"mirror
            images"`: each image is also shown mirrored, which makes images of the right from those of the
            left.
    """
    at, columns = column(sample), list(GROUPS.values())
    if repair == "re-weighting":
        counts = np.bincount(at, minlength=3)
        return sample, len(sample) / (2 * counts[at])
    if repair == "balanced sampling":
        rows = [np.flatnonzero(at == place) for place in columns]
        return sample.take(np.concatenate([np.resize(r, max(map(len, rows))) for r in rows])), None
    return small.with_mirrored(sample), None


def training(examples: Examples) -> Examples:
    """The examples with the labels that the model predicts, without the place, which tells the group."""
    return replace(examples, labels={name: examples.labels[name] for name in ATTRIBUTES})


def _append(scores, train, validation, test, seed, weights=None):
    """Appends the accuracy of a new model on each group."""
    fit = small.trained(training(train), training(validation), seed=seed, weights=weights)
    for group, shares in scores.items():
        shares.append(round(fit.classifier.evaluate(training(of_group(test, group)))["all"], 4))


def _gap(groups):
    return [round(left - right, 4) for left, right in zip(*groups.values(), strict=True)]
