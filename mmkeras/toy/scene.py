"""Scenes of the toy world and their captions: `Scene`, `sample`, `captions`, `parse`, `mentions`, `accuracy`.

A scene holds one thing at a place, or two things and their relation. A small grammar turns it into captions;
`parse` turns any of them back into the scene, so that the meaning of a caption is scored and not its wording.

    scene = sample("train", 0)
    captions(scene, "en")[0]         # 'a small red circle at the top left'
    parse("左上角有一个小的红色圆形", "zh") == parse("a small red circle at the top left")   # True
"""

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SIZES = ("small", "large")
COLORS = ("red", "orange", "yellow", "green", "blue", "purple")
SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond")
ROWS, COLUMNS = ("top", "", "bottom"), ("left", "", "right")
PLACES = tuple(f"{row} {column}".strip() or "center" for row in ROWS for column in COLUMNS)
# "b below a" is stored as "a above b", so that equal meanings are equal scenes.
RELATIONS = ("left of", "above")
ATTRIBUTES = ("size", "color", "shape", "place")  # of a thing

LANGUAGES = ("en", "zh")
SPLITS = ("train", "validation", "test", "test_unseen")

# Pairs of color and shape that only test_unseen shows. Each color and each shape occurs once among them, so
# every word is in training and only the combination is new.
UNSEEN = frozenset(zip(COLORS, SHAPES[1:] + SHAPES[:1], strict=True))


@dataclass(frozen=True)
class Thing:
    """One colored shape. `place` is None in a scene of two things."""

    size: str
    color: str
    shape: str
    place: str | None = None


@dataclass(frozen=True)
class Scene:
    """One thing at a place, or two things with `relation` (the first is `relation` the second)."""

    things: tuple[Thing, ...]
    relation: str | None = None

    def __post_init__(self):
        for thing in self.things:
            for name, known in (("size", SIZES), ("color", COLORS), ("shape", SHAPES)):
                _check(f"things.{name}", getattr(thing, name), known)
        if len(self.things) == 1:
            _check("things.place", self.things[0].place, PLACES)
            _check("relation", self.relation, (None,))
        elif len(self.things) == 2:
            _check("things.place", {t.place for t in self.things}, ({None},))
            _check("relation", self.relation, RELATIONS)
        else:
            raise ValueError(f"Expected things to be one or two. Received: things={self.things}")


def sample(split: str, index: int, objects: int = 1) -> Scene:
    """Scene number `index` of a split, the same in every modality, process and run.

    Args:
        split: str. `"train"`, `"validation"`, `"test"`, or `"test_unseen"` (pairs of color and shape that the
            others never show).
        index: int. At least 0.
        objects: int. 1 (a thing at a place) or 2 (two things and their relation). Defaults to 1.
    """
    _check("objects", objects, (1, 2))
    rng = generator(split, index, "scene", objects)
    pairs = [
        (color, shape)
        for color in COLORS
        for shape in SHAPES
        if ((color, shape) in UNSEEN) == (split == "test_unseen")
    ]

    def thing(place):
        return Thing(pick(rng, SIZES), *pick(rng, pairs), place)

    if objects == 1:
        return Scene((thing(pick(rng, PLACES)),))
    return Scene((thing(None), thing(None)), pick(rng, RELATIONS))


def generator(split: str, index: int, *stream: str | int) -> np.random.Generator:
    """A random generator for one scene and one `stream`, the name of what it is used for."""
    _check("split", split, SPLITS)
    words = "/".join(map(str, stream)).encode()
    return np.random.Generator(np.random.PCG64([SPLITS.index(split), index, *words]))


def pick(rng: np.random.Generator, options: Sequence) -> Any:
    """A random element of `options`."""
    # Only `random` is stable: other methods of NumPy's generators may change between releases.
    return options[int(rng.random() * len(options))]


# --- the grammar ---
# One table per language: the words of each part, then the phrasings. `{at}` is a place with its preposition;
# the parts of the second thing end in 2.

_EN = {
    "size": dict(zip(SIZES, SIZES, strict=True)),
    "color": dict(zip(COLORS, COLORS, strict=True)),
    "shape": dict(zip(SHAPES, SHAPES, strict=True)),
    "at": {p: f"in the {p}" if p == "center" else f"at the {p}" for p in PLACES},
    "relation": {"left of": "to the left of", "above": "above"},
    "inverse": {"left of": "to the right of", "above": "below"},
    "one": (
        "a {size} {color} {shape} {at}",
        "there is a {size} {color} {shape} {at}",
        "{at} there is a {size} {color} {shape}",
        "the {shape} {at} is {size} and {color}",
        "the {size} {shape} {at} is {color}",
    ),
    "two": (
        "a {size} {color} {shape} {relation} a {size2} {color2} {shape2}",
        "there is a {size} {color} {shape} {relation} a {size2} {color2} {shape2}",
        "the {color} {shape} is {size} and {relation} a {size2} {color2} {shape2}",
    ),
}
_ZH = {
    "size": {"small": "小", "large": "大"},
    "color": dict(zip(COLORS, ("红色", "橙色", "黄色", "绿色", "蓝色", "紫色"), strict=True)),
    "shape": dict(zip(SHAPES, ("圆形", "方形", "三角形", "星形", "十字形", "菱形"), strict=True)),
    "at": dict(
        zip(
            PLACES,
            ("左上角", "上方", "右上角", "左侧", "中央", "右侧", "左下角", "下方", "右下角"),
            strict=True,
        )
    ),
    "relation": {"left of": "左边", "above": "上面"},
    "inverse": {"left of": "右边", "above": "下面"},
    "one": (
        "{at}有一个{size}的{color}{shape}",
        "一个{size}的{color}{shape}在{at}",
        "{color}的{size}{shape}在{at}",
        "{at}的{size}{shape}是{color}的",
        "{at}是一个{color}的{size}{shape}",
    ),
    "two": (
        "一个{size}的{color}{shape}在一个{size2}的{color2}{shape2}的{relation}",
        "在一个{size2}的{color2}{shape2}的{relation}有一个{size}的{color}{shape}",
        "{color}的{size}{shape}在{color2}的{size2}{shape2}的{relation}",
    ),
}
_GRAMMARS = {"en": _EN, "zh": _ZH}


def captions(scene: Scene, language: str = "en") -> tuple[str, ...]:
    """All captions of a scene: five for one thing, six for two (three from the side of each thing).

    Args:
        scene: Scene.
        language: str. `"en"` or `"zh"`. Defaults to `"en"`.
    """
    _check("language", language, LANGUAGES)
    grammar = _GRAMMARS[language]
    if scene.relation is None:
        parts = _words(grammar, scene.things[0])
        return tuple(phrase.format(**parts) for phrase in grammar["one"])
    texts = []
    for first, second, relation in (
        (*scene.things, grammar["relation"][scene.relation]),
        (*scene.things[::-1], grammar["inverse"][scene.relation]),
    ):
        parts = _words(grammar, first) | _words(grammar, second, "2") | {"relation": relation}
        texts += [phrase.format(**parts) for phrase in grammar["two"]]
    return tuple(texts)


def parse(text: str, language: str | None = None) -> Scene | None:
    """The scene that a caption describes, or None if the grammar does not have the caption.

    Args:
        text: str. Case, repeated spaces (in Chinese all spaces) and a final period are ignored.
        language: str. `"en"` or `"zh"`. Defaults to None, which tries both.
    """
    if language is None:
        return parse(text, "en") or parse(text, "zh")
    _check("language", language, LANGUAGES)
    text = re.sub(r"\s+", " " if language == "en" else "", text.strip().rstrip(".。").lower())
    for pattern in _PATTERNS[language]:
        if match := pattern.fullmatch(text):
            return _scene(_GRAMMARS[language], match.groupdict())
    return None


def mentions(text: str, language: str = "en") -> tuple[dict[str, list[str]], str]:
    """The attributes that any text names, whether or not the grammar has it.

        mentions("stars in red, please")        # ({'color': ['red'], 'shape': ['star']}, '  in  , please')

    Args:
        text: str. In Chinese, 红 is also read as 红色, and 星 as 星形; in English, stars as star.
        language: str. `"en"` or `"zh"`. Defaults to `"en"`.

    Returns:
        {attribute: different values, in the order of the text}, and the rest of the text.
    """
    _check("language", language, LANGUAGES)
    found, text = {}, re.sub(r"\s+", " ", text.lower())
    for name, (pattern, values) in _mentions(language).items():
        if words := pattern.findall(text):
            found[name] = list(dict.fromkeys(values[word] for word in words))
            text = pattern.sub(" ", text)
    return {name: found[name] for name in ATTRIBUTES if name in found}, text


def words(attribute: str, language: str = "en") -> dict[str, str]:
    """{value: its word} of `"size"`, `"color"`, `"shape"` or `"place"`, whose words have no preposition."""
    _check("attribute", attribute, ATTRIBUTES)
    table = _GRAMMARS[language]["at" if attribute == "place" else attribute]
    return {value: re.sub("^(at|in) the ", "", word) for value, word in table.items()}


def accuracy(
    texts: Sequence[str], references: Sequence[str], parse: Callable[[str], Any] = parse
) -> float | None:
    """Share of texts that describe the same scene as their reference, in any wording.

    Args:
        texts: N texts.
        references: N texts.
        parse: text → its meaning, or None. Defaults to that of scenes.

    Returns:
        float in 0..1, or None if a reference does not describe a toy scene.
    """
    scenes = [parse(text) for text in references]
    if not all(scenes):
        return None
    return float(np.mean([parse(text) == scene for text, scene in zip(texts, scenes, strict=True)]))


def _words(grammar, thing, suffix=""):
    parts = {name: grammar[name][getattr(thing, name)] for name in ("size", "color", "shape")}
    if thing.place:
        parts["at"] = grammar["at"][thing.place]
    return {name + suffix: word for name, word in parts.items()}


def _scene(grammar, words):
    def thing(suffix):
        size, color, shape = (_key(grammar[name], words[name + suffix]) for name in ("size", "color", "shape"))
        return Thing(size, color, shape, _key(grammar["at"], words.get("at")))

    if "relation" not in words:
        return Scene((thing(""),))
    if relation := _key(grammar["relation"], words["relation"]):
        return Scene((thing(""), thing("2")), relation)
    return Scene((thing("2"), thing("")), _key(grammar["inverse"], words["relation"]))


def _key(table, word):
    return next((key for key, value in table.items() if value == word), None)


def _patterns(grammar):
    options = {name: grammar[name].values() for name in ("size", "color", "shape", "at")}
    options["relation"] = [*grammar["relation"].values(), *grammar["inverse"].values()]
    # the longest first, otherwise "at the top" would match in "at the top left"
    groups = {n: "|".join(sorted(words, key=len, reverse=True)) for n, words in options.items()}
    groups = {n: f"(?P<{n}{{0}}>{words})" for n, words in groups.items()}
    parts = {n + s: group.format(s) for n, group in groups.items() for s in ("", "2")}
    return [re.compile(phrase.format(**parts)) for phrase in grammar["one"] + grammar["two"]]


_PATTERNS = {language: _patterns(grammar) for language, grammar in _GRAMMARS.items()}


@functools.cache
def _mentions(language):
    """{attribute: (pattern, {word: value})}, places first: 上方 has a character of 方形."""
    result = {}
    for name in ("place", "size", "color", "shape"):
        values = {word: value for value, word in words(name, language).items()}
        if language == "zh" and name in ("color", "shape"):
            values |= {word[:-1]: value for word, value in values.items()}
        longest_first = "|".join(sorted(values, key=len, reverse=True))
        pattern = rf"\b({longest_first})(?:s|es)?\b" if language == "en" else f"({longest_first})"
        result[name] = re.compile(pattern), values
    return result


def _check(name, value, known):
    if value not in known:
        raise ValueError(
            f"Expected {name} to be one of {', '.join(map(repr, known))}. "
            f"Received: {name.split('.')[-1]}={value!r}"
        )
