"""What image search learns of emoji, drawn by an artist that training never saw, and what it is good for.

    experiment.run({"twemoji": "img/twitter/64"})       # the last artist, such as Noto, is held out
    experiment.results().scores                         # as `run` has written them
    experiment.run_alone({"twemoji": "img/twitter/64"})  # captions and drawings without the network of search

Two baselines without learning stand beside each score: the training drawing that is nearest by raw pixels, and
by gradients. Many drawings of two artists are near copies, so the *hard* images are those that the pixels get
wrong. `test_unseen` has compositions that are held out of training, such as "woman scientist", which no drawing
of training shows.

The settings of training were tried on seed 0 with the scores of `test` in view.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from mmkeras import captioning, pretrained
from mmkeras.applications.image_search import datasets
from mmkeras.data.task_data import TaskData
from mmkeras.evaluation import baselines, metrics
from mmkeras.methods.experiments import records
from mmkeras.training.task import train_task

RESULTS = Path(__file__).with_name("results.json")
ALONE = Path(__file__).with_name("alone.json")
LANGUAGES = ("en", "zh")
FEATURES = {
    "pixels": lambda images: images.reshape(len(images), -1).astype(np.float32),
    "gradients": baselines.gradients,
}
EPOCHS = {"search": 100, "captioning": 30}
EPOCHS_ALONE = {"captioning": 50, "text_to_image": 50}
DRAWN = ("red heart", "grinning face", "pizza", "cat face", "full moon", "umbrella")


@dataclass(frozen=True)
class Results:
    """What `run` measures. Scores are lists, one value per seed.

    Attributes:
        counts: {split: images}, and "hard": those of `test` that the nearest pixels get wrong.
        nearest: {feature: {split: share of images whose nearest training image shows the same emoji}}, by those
            of `FEATURES`.
        lookup: {feature: {score: value}} of the same searches without learning, see `looked_up`.
        scores: {language: {score: values}} of search among all images of the held-out artist: `recall_at_1` and
            `recall_at_5` of texts, `image_to_text` (Recall@1 of images), `hard_image_to_text`, and those of
            `test_unseen`, `unseen_recall_at_1` and `unseen_image_to_text`.
        captions: {split: {score: values}} of the captioner on the frozen network of the search, in English.
        misses: Some images of `test` as (name, the name that was found instead, their similarities).
        measured: See `mmkeras.methods.experiments.records.write`.
    """

    counts: dict[str, int]
    nearest: dict[str, dict[str, float]]
    lookup: dict[str, dict[str, float]]
    scores: dict[str, dict[str, list[float]]]
    captions: dict[str, dict[str, list[float]]]
    misses: list[tuple[str, str, float, float]]
    measured: dict[str, Any] = field(default_factory=dict)

    def __str__(self):
        search = [["search, mean (range)", *self.lookup, *(f"trained, {name}" for name in self.scores)]]
        for name in next(iter(self.scores.values())):
            fixed = [f"{scores[name]:.3f}" for scores in self.lookup.values()]
            search.append([name, *fixed, *(records.cell(scores[name]) for scores in self.scores.values())])
        captions = [["captions, mean (range)", *self.captions]]
        for name in next(iter(self.captions.values())):
            cells = (scores.get(name) for scores in self.captions.values())
            captions.append([name, *("" if values is None else records.cell(values) for values in cells)])
        return "\n\n".join(map(records.table, (search, captions)))


def results(path: str | os.PathLike = RESULTS) -> Results:
    """What `run` wrote, by default the results that ship."""
    return records.read(path, Results)


@dataclass(frozen=True)
class Alone:
    """What `run_alone` measures. Scores are lists, one value per seed.

    Attributes:
        captions: {split: {score: values}} of the captioner `"small"`, trained from nothing.
        drawings: {score: values}: the share of images drawn for the names of `test` whose own name is the first
            (`recall_at_1`) or among the first five (`recall_at_5`) of all these names, as search ranks them.
        artist: {score: value}. The same of the images of the held-out artist.
        sheet: str. File of the images drawn for `DRAWN` by the first seed, beside that of the results.
        measured: See `mmkeras.methods.experiments.records.write`.
    """

    captions: dict[str, dict[str, list[float]]]
    drawings: dict[str, list[float]]
    artist: dict[str, float]
    sheet: str
    measured: dict[str, Any] = field(default_factory=dict)

    @property
    def images(self) -> np.ndarray:
        """(len(DRAWN), S, S, 3) uint8."""
        return records.images(ALONE.with_name(self.sheet), rows=1)[0]


def results_alone(path: str | os.PathLike = ALONE) -> Alone:
    """What `run_alone` wrote, by default the results that ship."""
    return records.read(path, Alone)


def run(
    artists: Mapping[str, str | os.PathLike | None],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    epochs: Mapping[str, int] = EPOCHS,
    path: str | os.PathLike = RESULTS,
    **options: Any,
) -> Results:
    """Trains and measures all of it.

    Args:
        artists: See `mmkeras.captioning.data`.
        seeds: Sequence of int. Defaults to (0, 1, 2).
        epochs: {what is trained: epochs}. Defaults to `EPOCHS`.
        path: path. The file of the results. Defaults to the package's own.
        **options: Options of the source, such as `data_dir`.
    """
    start = time.perf_counter()
    source = {"artists": artists, **options}
    data = {language: datasets.data("emoji", language=language, **source) for language in LANGUAGES}
    near = {name: nearest_is_right(data["en"], name) for name in FEATURES}
    hard = ~near["pixels"]["test"]
    of_seeds: dict[str, list] = {"scores": [], "captions": []}
    for seed in seeds:
        steps = epochs["search"] * int(data["en"].train.cardinality())
        options = {"epochs": epochs["search"], "decay_steps": steps, "augment": True, "seed": seed}
        search, _ = train_task("image_search", "emoji", **options, verbose=0, **source)
        scores = {language: _search_scores(search, data[language], hard) for language in LANGUAGES}
        of_seeds["scores"].append(scores)
        of_seeds["captions"].append(_captions(search, seed, epochs, source))
        if seed == seeds[0]:
            misses = _misses(search, data["en"])
    counts = {name: split.count for name, split in data["en"].splits.items()}
    counts["hard"] = int(hard.sum())
    call = f"experiment.run({dict.fromkeys(artists, '...')})"
    return records.write(
        path,
        f'python -c "from mmkeras.applications.image_search import experiment; {call}"',
        start,
        Results(
            counts,
            {
                name: {split: round(float(is_right.mean()), 4) for split, is_right in of_splits.items()}
                for name, of_splits in near.items()
            },
            {name: looked_up(data["en"], name, hard) for name in FEATURES},
            *(_by_score(values) for values in of_seeds.values()),
            misses,
        ),
    )


def run_alone(
    artists: Mapping[str, str | os.PathLike | None],
    *,
    seeds: Sequence[int] = (0,),
    epochs: Mapping[str, int] = EPOCHS_ALONE,
    path: str | os.PathLike = ALONE,
    **options: Any,
) -> Alone:
    """Trains captioning and text to image from nothing. The ready-trained search scores the drawings.

    It has learned from those that text to image learns from, so it knows their style better than the artist's.

    Args:
        artists, seeds, epochs, path, **options: See `run`. `seeds` default to (0,).
    """
    start = time.perf_counter()
    source = {"artists": artists, **options}
    search = pretrained("image_search")
    images, _, names = _examples(datasets.data("emoji", language="en", **source), "test")
    of_seeds: dict[str, list] = {"captions": [], "drawings": []}
    for seed in seeds:
        settings = {"seed": seed, "verbose": 0, **source}
        captioner, data = train_task(
            "captioning", "emoji", augment=True, epochs=epochs["captioning"], **settings
        )
        of_seeds["captions"].append(_caption_scores(captioner, data))
        generator, _ = train_task(
            "text_to_image", "emoji", preset="toy", epochs=epochs["text_to_image"], **settings
        )
        of_seeds["drawings"].append(_named_right(search, generator(names.tolist()), names))
        if seed == seeds[0]:
            sheet = Path(path).with_suffix(".png")
            Image.fromarray(np.concatenate(generator(DRAWN), axis=1)).save(sheet, optimize=True)
    call = f"experiment.run_alone({dict.fromkeys(artists, '...')})"
    return records.write(
        path,
        f'python -c "from mmkeras.applications.image_search import experiment; {call}"',
        start,
        Alone(*map(_by_score, of_seeds.values()), _named_right(search, images, names), sheet.name),
    )


def _named_right(search, images, names):
    """Recall of the name of each image among all names."""
    similarity = search.encode_images(images) @ search.encode_texts(names.tolist()).T  # (N, N)
    scores = metrics.retrieval(similarity, names[:, None] == names)
    return {name: round(scores[name], 4) for name in ("recall_at_1", "recall_at_5")}


def nearest_is_right(data: TaskData, feature: str) -> dict[str, np.ndarray]:
    """{split: (N,) bool, whether the training image nearest by a feature shows the same emoji}."""
    known, meanings, _ = _examples(data, "train")
    known, right = FEATURES[feature](known), {}
    for split in ("validation", "test"):
        images, truths, _ = _examples(data, split)
        right[split] = meanings[baselines.nearest(known, FEATURES[feature](images))] == truths
    return right


def looked_up(data: TaskData, feature: str, hard: np.ndarray) -> dict[str, float]:
    """Scores of a search that looks a name up among the training drawings, and compares these with the images.

    Args:
        data: Emoji with names in one language.
        feature: str. A key of `FEATURES`, what is compared.
        hard: See `score`.
    """
    known, drawn, _ = _examples(data, "train")
    images, meanings, _ = _held_out(data)
    known, images = FEATURES[feature](known), FEATURES[feature](images)
    near = 2 * known @ images.T - (known**2).sum(axis=1)[:, None] - (images**2).sum(axis=1)  # (T, N)
    similarity = np.stack([near[drawn == each].max(axis=0, initial=-np.inf) for each in meanings])  # (N, N)
    return {name: round(value, 4) for name, value in score(similarity, meanings, hard).items()}


def _search_scores(search, data, hard):
    images, meanings, names = _held_out(data)
    return score(search.encode_texts(names.tolist()) @ search.encode_images(images).T, meanings, hard)


def score(similarity: np.ndarray, meanings: np.ndarray, hard: np.ndarray) -> dict[str, float]:
    """Scores among all images of the held-out artist, see `Results`.

    Args:
        similarity: (N, N), of the name of each image to each image, those of `test` first.
        meanings: (N,) ids of what they show.
        hard: (N',) bool, which images of `test` are hard.
    """
    relevant = meanings[:, None] == meanings
    rows = np.arange(len(meanings))
    unseen = rows >= len(hard)
    of_texts, of_images = metrics.retrieval(similarity, relevant), metrics.retrieval(similarity.T, relevant)
    scores = {name: of_texts[name] for name in ("recall_at_1", "recall_at_5")}
    scores["image_to_text"] = of_images["recall_at_1"]
    is_hard = rows[: len(hard)][hard]
    scores["hard_image_to_text"] = metrics.retrieval(similarity.T[is_hard], relevant[is_hard])["recall_at_1"]
    if unseen.any():
        of_unseen = (
            metrics.retrieval(x[unseen], relevant[unseen])["recall_at_1"] for x in (similarity, similarity.T)
        )
        scores |= zip(("unseen_recall_at_1", "unseen_image_to_text"), of_unseen, strict=True)
    return scores


def _captions(search, seed, epochs, source):
    """Scores of a captioner on the frozen network of the search, by split."""
    data = captioning.data("emoji", image_size=search.image_size, **source)
    keras.utils.set_random_seed(seed)
    model = captioning.build(
        "small", vocabulary=data.vocabulary, encoder=search.image_network, fine_tune=False, learning_rate=3e-3
    )
    model.fit(
        captioning.with_features(data, model).train, epochs=epochs["captioning"], verbose=0, shuffle=False
    )
    return _caption_scores(captioning.Captioner(model), data)


def _caption_scores(captioner, data):
    names = ("exact", "first_word", "cider_d", "hard_exact", "nearest_exact", "nearest_cider_d")
    train = data.for_evaluate(data.splits["train"])
    scores = {
        split: captioner.evaluate(data.for_evaluate(data.splits[split]), train=train)
        for split in ("test", "validation")
    }
    return {split: {name: of_split[name] for name in names} for split, of_split in scores.items()}


def _held_out(data):
    """`_examples` of all images of the held-out artist, those of `test` first."""
    splits = [split for split in ("test", "test_unseen") if split in data.splits]
    return tuple(np.concatenate(x) for x in zip(*(_examples(data, s) for s in splits), strict=True))


def _examples(data, split):
    """Images (N, S, S, 3), the ids of what they show (N,), and the first name of each (N,)."""
    batches = list(data.for_evaluate(data.splits[split]).as_numpy_iterator())
    images, meanings = (np.concatenate([batch[name] for batch in batches]) for name in ("image", "meaning"))
    return images, meanings, np.array([texts[0].decode() for batch in batches for texts in batch["captions"]])


def _misses(search, data, count=24):
    """Images of `test` for whose name another image was found, evenly spread."""
    images, meanings, names = _examples(data, "test")
    similarity = search.encode_texts(names.tolist()) @ search.encode_images(images).T  # (N, N)
    best = similarity.argmax(axis=1)
    wrong = np.flatnonzero(meanings[best] != meanings)
    chosen = wrong[:: max(1, len(wrong) // count)][:count]
    return [
        (
            str(names[i]),
            str(names[best[i]]),
            round(float(similarity[i, i]), 2),
            round(float(similarity[i, best[i]]), 2),
        )
        for i in chosen
    ]


def _by_score(of_seeds):
    """[{name: value or a dictionary}, one per seed] → {name: [values], or a dictionary of them}."""
    return {
        name: _by_score([scores[name] for scores in of_seeds])
        if isinstance(value, dict)
        else [round(float(scores[name]), 4) for scores in of_seeds]
        for name, value in of_seeds[0].items()
    }
