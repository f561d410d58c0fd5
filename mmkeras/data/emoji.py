"""Emoji as a TensorFlow Dataset: the same things drawn by several artists, with names in two languages.

    emoji_images(64).as_dataset(split="train")  # draws the images on first use, then reads them

Like every TFDS dataset it is stored in `~/tensorflow_datasets` (or TFDS_DATA_DIR, or `data_dir`).
"""

import hashlib
import io
import itertools
import os
import re
import statistics
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from mmkeras._utils import prepare, progress, terminal
from mmkeras.data.task_data import SkippedExamples
from mmkeras.media import artists, images
from mmkeras.text.vocabulary import normalize

LANGUAGES = ("en", "zh")
SPLITS = ("train", "validation", "test", "test_unseen")
# First words of names whose rest follows another of these words, too. Of "man scientist" and "woman scientist",
# or of the hearts in these colors, one is never trained on.
_FIRST_WORDS = (("man", "woman"), ("red", "orange", "yellow", "green", "blue", "purple", "brown"))
_SKIN_TONES_AND_FLAGS = re.compile("[\U0001f3fb-\U0001f3ff\U0001f1e6-\U0001f1ff\U000e0020-\U000e007f]")


@dataclass(frozen=True)
class Emoji:
    """An emoji: its characters, and {language: its names}, the usual one first."""

    text: str
    names: dict[str, list[str]]


class EmojiConfig(tfds.core.BuilderConfig):
    """Images of `image_size` pixels by artists, the last of whom is held out for the test."""

    def __init__(self, image_size: int, drawn_by: Sequence[artists.Artist]):
        self.image_size, self.artists = image_size, drawn_by
        names = "-".join(artist.name for artist in drawn_by)
        super().__init__(name=f"{image_size}px-{names}-{_digest(drawn_by)}")


class EmojiImages(tfds.core.GeneratorBasedBuilder):
    """Emoji without skin tones and flags of countries, on white, with their names in English and Chinese."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.image_size
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            license="Of each artist; OpenMoji: CC BY-SA 4.0, Twemoji: CC BY 4.0, Noto: OFL 1.1",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(size, size, 3)),
                    "captions": {lang: tfds.features.Sequence(tfds.features.Text()) for lang in LANGUAGES},
                    "emoji": tfds.features.Text(),
                    "artist": tfds.features.Text(),
                    "concept": tfds.features.Scalar(np.int64),  # the emoji's number, shared by all artists
                }
            ),
        )

    def _split_generators(self, dl_manager):
        every, size = load(), self.builder_config.image_size
        drawings = {artist.name: draw_all(artist, every, size) for artist in self.builder_config.artists}
        splits = divide(drawings, every)
        return {name: self._generate_examples(every, drawings, splits[name]) for name in SPLITS if splits[name]}

    def _generate_examples(self, every, drawings, split):
        for artist, concept in split:
            facts = {"captions": every[concept].names, "emoji": every[concept].text, "artist": artist}
            image = io.BytesIO(drawings[artist][concept])
            yield f"{artist} {concept}", facts | {"image": image, "concept": concept}


def emoji_images(
    image_size: int = 64,
    drawn_by: Mapping[str, str | os.PathLike | None] | None = None,
    data_dir: str | os.PathLike | None = None,
) -> EmojiImages:
    """The builder of the emoji. Its files are written on first use.

    Other artists, or another version of a font, make another dataset beside the first.

    Args:
        image_size: int. Side in pixels. Defaults to 64.
        drawn_by: {name: font or folder}, optional. Artists besides the installed ones, see `artists.find`.
        data_dir: path, optional. Folder of TFDS's datasets. Defaults to TFDS's own.

    Raises:
        ImportError: if the extra `emoji` is not installed.
        ValueError, FileNotFoundError: if an artist is invalid or draws no emoji.
        OSError: if the disk is full, or the folder cannot be written to.
    """
    found = artists.find(drawn_by, 2 * image_size)
    if not artists.HAS_RAQM:
        terminal.warn(
            "Without FriBiDi, fonts draw no emoji of several code points, such as woman scientist. Install it: "
            "apt install libfribidi0, or brew install fribidi."
        )
    if len(found) == 1:
        terminal.warn(
            f"Received one artist of emoji, {found[0].name}, so `train` has no emoji of `test`. With a second "
            f"artist, it has them, drawn by the first. To get one, install a color font (apt install "
            f"fonts-noto-color-emoji), or pass a folder of PNG files (npm pack emoji-datasource-twitter; "
            f"artists={{'twemoji': 'package/img/twitter/64'}})."
        )
    return prepare.generated(lambda: EmojiImages(config=EmojiConfig(image_size, found), data_dir=data_dir))


def load() -> list[Emoji]:
    """All emoji without skin tones and flags of countries, in the order of the package `emoji`.

    Names are those of Unicode. An alias is added if all its words are among the names' words, and if no other
    emoji has it: "thumbsup" would be a word that occurs once.

    Raises:
        ImportError: if the extra `emoji` is not installed.
    """
    package = artists.package("emoji")
    package.config.load_language("zh")
    every = {
        text: facts
        for text, facts in package.EMOJI_DATA.items()
        if facts["status"] == package.STATUS["fully_qualified"]
        and "zh" in facts
        and not _SKIN_TONES_AND_FLAGS.search(text)
    }
    names = {
        text: [_name(code).lower() for code in (facts["en"], *facts.get("alias", ()))]
        for text, facts in every.items()
    }
    known = {word for usual, *_ in names.values() for word in _words(usual)}
    counts = Counter(words for some in names.values() for words in set(map(_words, some)))

    def english(text):
        usual, *aliases = names[text]
        phrasings = {_words(usual): usual}
        for alias in aliases:
            if known.issuperset(_words(alias)) and counts[_words(alias)] == 1:
                phrasings.setdefault(_words(alias), alias)  # not "five_thirty" beside "five-thirty"
        return list(phrasings.values())

    return [Emoji(text, {"en": english(text), "zh": [_name(facts["zh"])]}) for text, facts in every.items()]


def draw_all(artist: artists.Artist, every: Sequence[Emoji], size: int) -> dict[int, bytes]:
    """An artist's drawings of the emoji that it has: {number of the emoji: PNG file}.

    Drawings keep their relative sizes, since a small square differs from a large one in nothing else. An emoji
    of the artist's median size fills the image; larger ones are made to fit.

    Args:
        artist: `artists.Artist`.
        every: From `load`.
        size: int. Side in pixels.

    Raises:
        ValueError: if the artist draws none of them.
    """
    skipped = SkippedExamples(f"Emoji by {artist.name}")

    def draw(emoji):
        try:
            return artist.draw(emoji.text)
        except (ValueError, OSError) as error:
            skipped(emoji.text, str(error))
            return None

    in_any_order = map(draw, sorted(every, key=lambda emoji: _hash(emoji.text)))
    sample = itertools.islice((drawing for drawing in in_any_order if drawing is not None), 100)
    side = statistics.median_high([artists.extent(drawing) for drawing in sample] or [1])
    drawings = {}
    for number, emoji in enumerate(progress.bar(every, f"emoji by {artist.name}")):
        if (drawing := draw(emoji)) is not None:
            file = io.BytesIO()
            Image.fromarray(images.resize(artists.center(drawing, side), size)).save(file, "PNG")
            drawings[number] = file.getvalue()
    if not drawings:
        raise ValueError(
            f"Expected artists[{artist.name!r}] to draw emoji of Unicode. Received: "
            f"{str(artist.files[0].parent)!r}, of which none of {len(every)} can be drawn"
            + (f": {skipped.first}" if skipped.first else "")
        )
    return drawings


def divide(drawn: Mapping[str, Collection[int]], every: Sequence[Emoji]) -> dict[str, list[tuple[str, int]]]:
    """The drawings, as (artist, number of the emoji), of each split.

    - `test_unseen`: compositions that no other split has, see `compositions`, by the last artist.
    - `test`: the emoji of `train`, by the last artist, who drew nothing in `train` and `validation`.
    - `validation`: a tenth of the other artists' drawings, at most one of an emoji, and no composition.
    - `train`: the rest of them.

    With one artist alone, `test` is another tenth of its drawings. A hash of the emoji decides, so that it
    keeps its split if others are added.

    Args:
        drawn: {artist: numbers of the emoji that it drew}.
        every: From `load`.
    """
    *others, last = drawn
    unseen, partners = compositions(every)
    splits: dict[str, list[tuple[str, int]]] = {name: [] for name in SPLITS}
    for number, emoji in enumerate(every):
        if number in unseen:
            if number in drawn[last]:
                splits["test_unseen"].append((last, number))
            continue
        tenth = _hash(emoji.text) % 10 if number not in partners else None
        splits_of = {artist: "validation" if tenth == place else "train" for place, artist in enumerate(others)}
        splits_of = splits_of or {last: {0: "validation", 1: "test"}.get(tenth, "train")}
        for artist, split in splits_of.items():
            if number in drawn[artist]:
                splits[split].append((artist, number))
    if others:
        trained = {number for _, number in splits["train"]}
        splits["test"] = [(last, number) for number in sorted(trained.intersection(drawn[last]))]
    return splits


def compositions(every: Sequence[Emoji]) -> tuple[set[int], set[int]]:
    """Emoji that training never shows, though it shows both parts of their names.

    A hash chooses one of each group, such as "man scientist" and "woman scientist".

    Args:
        every: From `load`.

    Returns:
        The numbers of the chosen ones, and those of the others of their groups.
    """
    groups: dict[tuple, list[int]] = {}
    for number, emoji in enumerate(every):
        first, _, rest = emoji.names["en"][0].partition(" ")
        for words in _FIRST_WORDS:
            if first in words and rest:
                groups.setdefault((words, rest), []).append(number)
    larger = [group for group in groups.values() if len(group) > 1]
    unseen = {min(group, key=lambda number: _hash(every[number].text)) for group in larger}
    return unseen, set(itertools.chain(*larger)) - unseen


def _name(code):
    """':Mrs._Claus:' → 'Mrs. Claus'"""
    return normalize(code.strip(":").replace("_", " "))


def _words(name):
    return tuple(re.findall(r"[\w']+", name))


def _hash(text):
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _digest(drawn_by):
    names, h = {}, hashlib.sha256(repr((artists.package("emoji").__version__, artists.HAS_RAQM)).encode())
    for artist in drawn_by:
        of_files = hashlib.sha256(b"".join(file.read_bytes() for file in artist.files)).hexdigest()
        if names.setdefault(of_files, artist.name) != artist.name:
            raise ValueError(
                f"Expected artists to differ, since the last is held out. Received: {names[of_files]!r} and "
                f"{artist.name!r} with the same files. Leave one out: artists={{{artist.name!r}: None}}"
            )
        h.update(of_files.encode())
    return h.hexdigest()[:8]
