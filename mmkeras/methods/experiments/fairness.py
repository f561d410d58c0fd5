"""Ethics (chapter 8.2): a toy world sampled with two skews, the accuracy of each group, and what repairs it.

- `"few at the right"`: photos of right-handed people, say, so that few things are at the right. The groups are
  the left and the right. Their images are mirror images of each other, so no group is harder, and whatever gap
  there is comes from the sample. The model names size, color, and shape.
- `"color tells shape"`: in most of the images a red, orange, or yellow thing is a circle, square, or triangle,
  and any other thing is a star, cross, or diamond. The groups are the usual pairs and the unusual ones. The
  model names the shape.

Of 3,000 training images 5 % are of the rare group. That number was chosen with the test scores of seed 0 in
view: see `Results.verdicts` without that seed. Each training has the same number of steps, and the same
validation, half of whose images are of the rare group, more than in training, chooses its best weights.
"""

import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmkeras._utils import progress
from mmkeras.methods import scenes
from mmkeras.methods.classification import Classifier
from mmkeras.methods.experiments import protocol, records, small
from mmkeras.methods.experiments.protocol import SEEDS
from mmkeras.methods.scenes import Examples

RESULTS = Path(__file__).with_name("fairness.json")
COMMAND = 'python -c "from mmkeras.methods.experiments import fairness; fairness.run()"'
SIZES = {"train": 8000, "validation": 750, "test": 2000}  # scenes, from which the groups are taken
IMAGES, OF_A_GROUP = 3000, 200  # of training; of validation
RARE = 0.05  # share of the rare group in training
SKEWED, EVEN = "as sampled", "new, balanced data"
REWEIGHTED, RESAMPLED, MIRRORED = "re-weighting", "balanced sampling", "mirror images"
GRAY = "gray images"


@dataclass(frozen=True)
class Skew:
    """How a world is sampled.

    Attributes:
        groups: Names of the frequent and the rare group.
        attributes: What the model predicts.
        repairs: What is tried on the skewed sample.
    """

    groups: tuple[str, str]
    attributes: tuple[str, ...]
    repairs: tuple[str, ...]


RIGHT, PAIRS = "few at the right", "color tells shape"
SKEWS = {
    RIGHT: Skew(("left", "right"), ("size", "color", "shape"), (REWEIGHTED, RESAMPLED, MIRRORED)),
    PAIRS: Skew(("usual", "unusual"), ("shape",), (REWEIGHTED, RESAMPLED, GRAY)),
}


@dataclass(frozen=True)
class Results:
    """Shares of test images with all attributes of the skew right, one per seed.

    Attributes:
        accuracy: {skew: {training: {group: a share per seed}}}. `"new, balanced data"` has as many images, half
            of them of the rare group. `"most frequent class"` is no training.
        measured: How and when, see `records.write`.
    """

    accuracy: dict[str, dict[str, dict[str, list[float]]]]
    measured: dict[str, Any] = field(default_factory=dict)

    def scores(self, skew: str, training: str = SKEWED) -> dict[str, list[float]]:
        """{group: accuracy, per seed}, and `"gap"`, that of the frequent group minus that of the rare one."""
        groups = self.accuracy[skew][training]
        gap = [round(frequent - rare, 4) for frequent, rare in zip(*groups.values(), strict=True)]
        return groups | {"gap": gap}

    def verdicts(self, skew: str, training: str, first: int = 0) -> dict[str, str]:
        """Whether each of `scores` is `"higher"` or `"lower"` than as sampled, or `"no difference"`, from the
        `first` seed on."""
        before, after = self.scores(skew), self.scores(skew, training)
        return {name: small.difference(before[name][first:], after[name][first:]) for name in before}

    def __str__(self):
        return "\n\n".join(
            small.table(skew, {name: self.scores(skew, name) for name in trainings})
            for skew, trainings in self.accuracy.items()
        )

    def plot(self, skew: str, path: str | os.PathLike | None = None):
        """Plots the mean accuracy of the groups by training. Returns a matplotlib Figure."""
        from mmkeras.evaluation import plots

        scores = {
            group: {name.replace(" ", "\n"): np.mean(x[group]) for name, x in self.accuracy[skew].items()}
            for group in SKEWS[skew].groups
        }
        return plots.bars(scores, "accuracy of the group", path)

    def card(self, skew: str, training: str = SKEWED) -> str:
        """A model card (Mitchell et al. 2019, arXiv:1810.03993) of the model of a training, in Markdown."""
        scores = self.scores(skew, training)
        (frequent, rare, _), gap = scores, scores["gap"]
        one = [(1 - RARE) * a + RARE * b for a, b in zip(scores[frequent], scores[rare], strict=True)]
        rows = scores | {f"one number for all, {RARE:.0%} of them {rare}": one}
        rows = "\n".join(f"| {name} | {records.cell(values)} |" for name, values in rows.items())
        share = 0.5 if training == EVEN else RARE
        caveat = (
            f"in every seed more errors on {rare!r} than on {frequent!r}. Do not use it where they cost as much"
            if min(gap) > 0
            else "no gap in every seed"
        )
        return f"""# Model card: {", ".join(SKEWS[skew].attributes)} of a thing in a toy image

- **Model**: a convolutional network of {small.SIDE}-pixel images, mmkeras {self.measured["version"]},
  {self.measured["date"]}. Training: {training}.
- **Intended use**: to show what a skewed sample does. It knows the toy world only.
- **Training data**: {IMAGES} images, {share:.0%} of the group {rare!r} ({skew}).
- **Evaluation data**: scenes of the test split, each group for itself.
- **Metric**: share of images with {", ".join(SKEWS[skew].attributes)} right, mean (range of {len(gap)} seeds).

| group | accuracy |
|---|---|
{rows}

- **Ethical considerations**: a test with the skew of the training gives the one number, which hides the gap.
- **Caveats**: {caveat}.
- **Measured by**: `{self.measured["command"]}`
"""


def run(path: str | os.PathLike = RESULTS) -> Results:
    """Trains a model for each skew, training, and seed, and writes what `results` returns."""
    start, accuracy = time.perf_counter(), {}
    train, everyone, test = (small.examples(split, count) for split, count in SIZES.items())
    for skew, how in SKEWS.items():
        trainings = ("most frequent class", SKEWED, *how.repairs, EVEN)
        scores = accuracy[skew] = {name: {group: [] for group in how.groups} for name in trainings}
        validation = sampled(everyone, skew, 2 * OF_A_GROUP, 0.5, seed=0)
        for seed in progress.bar(SEEDS, skew):
            skewed, even = (sampled(train, skew, IMAGES, share, seed) for share in (RARE, 0.5))
            for number, name in enumerate(how.groups):
                of_group = labeled(test.take(np.flatnonzero(group(test, skew) == number)), skew)
                chance = protocol.most_frequent(labeled(skewed, skew), of_group)
                scores["most frequent class"][name].append(round(chance["all"], 4))
            for name in trainings[1:]:
                sample, weights = repaired(even if name == EVEN else skewed, skew, name)
                splits = [without_color(x) if name == GRAY else x for x in (sample, validation, test)]
                classifier = trained(*splits[:2], skew, seed=seed, weights=weights)
                for of_group, share in of_groups(classifier, splits[2], skew).items():
                    scores[name][of_group].append(share)
    return records.write(path, COMMAND, start, Results(accuracy))


def results() -> Results:
    """The shipped results of `run`."""
    return records.read(RESULTS, Results)


def group(examples: Examples, skew: str) -> np.ndarray:
    """The group of each example, (N,) int: 0 the frequent one, 1 the rare one, -1 neither."""
    if skew == RIGHT:
        column = examples.labels["place"] % len(scenes.scene.COLUMNS)
        return np.array([0, -1, 1])[column]
    halves = [examples.labels[name] < scenes.CLASSES[name] // 2 for name in ("color", "shape")]
    return (halves[0] != halves[1]).astype(int)


def sampled(examples: Examples, skew: str, count: int, share: float, seed: int) -> Examples:
    """`count` examples, chosen at random, a share of them of the rare group and the others of the frequent."""
    rng, rare = np.random.default_rng(seed), round(share * count)
    rows = [
        rng.permutation(np.flatnonzero(group(examples, skew) == number))[:n]
        for number, n in enumerate((count - rare, rare))
    ]
    return examples.take(np.concatenate(rows))


def repaired(sample: Examples, skew: str, repair: str) -> tuple[Examples, np.ndarray | None]:
    """The examples on which a repair trains, and their weights in the loss, (N,) float or None.

    Args:
        sample: Examples of both groups.
        skew: str. Of `SKEWS`.
        repair: str. `"re-weighting"`: the weights of both groups have the same sum. `"balanced sampling"`: the
            rare examples are repeated until both groups are equally frequent. `"mirror images"`: each image is
            also shown mirrored, which makes images of the right from those of the left. Anything else changes
            nothing.
    """
    rows = [np.flatnonzero(group(sample, skew) == number) for number in (0, 1)]
    if repair == REWEIGHTED:
        weights = np.empty(len(sample))
        for of_group in rows:
            weights[of_group] = len(sample) / (2 * len(of_group))
        return sample, weights
    if repair == RESAMPLED:
        most = max(map(len, rows))
        return sample.take(np.concatenate([np.resize(of_group, most) for of_group in rows])), None
    return (small.with_mirrored(sample) if repair == MIRRORED else sample), None


def without_color(examples: Examples) -> Examples:
    """The examples with gray images: what tells the shape of a skewed sample, and should not, is not shown."""
    image = examples.inputs["image"].mean(axis=-1, keepdims=True)
    return replace(examples, inputs={"image": np.repeat(image, 3, axis=-1)})


def labeled(examples: Examples, skew: str) -> Examples:
    """The examples with the labels that the model predicts. Others would tell the group."""
    return replace(examples, labels={name: examples.labels[name] for name in SKEWS[skew].attributes})


def trained(
    sample: Examples, validation: Examples, skew: str, *, seed: int, weights: np.ndarray | None = None
) -> Classifier:
    """A classifier at its best on validation, to be used before the next one is trained, see
    `small.trained`."""
    return small.trained(
        labeled(sample, skew), labeled(validation, skew), seed=seed, weights=weights
    ).classifier


def of_groups(classifier: Classifier, test: Examples, skew: str) -> dict[str, float]:
    """{group: share of its test examples with all attributes right}."""
    at = group(test, skew)
    return {
        name: round(classifier.evaluate(labeled(test.take(np.flatnonzero(at == number)), skew))["all"], 4)
        for number, name in enumerate(SKEWS[skew].groups)
    }
