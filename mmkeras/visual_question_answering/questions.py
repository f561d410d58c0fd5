"""Questions about toy scenes of two things, and their answers: a small grammar in English and Chinese.

    question = parse("what color is the star?")       # Question(kind='color', about=('star',))
    answer(question, scene.sample("test", 1, 2))      # 'green'; None if the scene has no star, or two
    texts(question, "zh")[0]                          # '星形是什么颜色？'

`ask` draws questions about a scene, only such as have one answer. The answers have a prior: most stars that are
asked about are green. In `test_changed_prior` most are red, so that answering from the question alone is found
out, as in VQA-CP (Agrawal et al. 2018, arXiv:1712.00377).
"""

import functools
import itertools
import re
from dataclasses import dataclass

import numpy as np

from mmkeras.toy import scene
from mmkeras.toy.scene import COLORS, SHAPES, SIZES, Scene

RARE = 0.25  # rate at which a drawn question is kept whose answer is not the usual one
TRIES = 3  # questions drawn of each kind
# in words → that of the scene, and whether the things change places
RELATIONS = {
    "left of": ("left of", False),
    "right of": ("left of", True),
    "above": ("above", False),
    "below": ("above", True),
}

_EN = {
    "color": ("what color is the {shape}?", "which color does the {shape} have?"),
    "shape": ("what shape is the {color} thing?", "which shape does the {color} thing have?"),
    "size": ("is the {shape} small or large?", "what size is the {shape}?"),
    "relation": ("is the {shape} {relation} the {shape2}?",),
    "count": ("how many {counted} are there?", "how many {counted} do you see?"),
}
_ZH = {
    "color": ("{shape}是什么颜色？", "{shape}的颜色是什么？"),
    "shape": ("{color}的东西是什么形状？", "{color}的东西的形状是什么？"),
    "size": ("{shape}是大还是小？", "{shape}的大小是什么？"),
    "relation": ("{shape}在{shape2}的{relation}吗？",),
    "count": ("有几个{counted}？", "图中有几个{counted}？"),
}
_GRAMMARS = {"en": _EN, "zh": _ZH}
KINDS = tuple(_EN)
_RELATION_WORDS = {
    "en": {relation: relation for relation in RELATIONS},
    "zh": dict(zip(RELATIONS, ("左边", "右边", "上面", "下面"), strict=True)),
}
_YES_NO = {"en": ("yes", "no"), "zh": ("是", "不是")}


@dataclass(frozen=True)
class Question:
    """A question.

    Attributes:
        kind: str. Of `KINDS`.
        about: The words that it is about, in English: a shape; a color for `"shape"`; a shape or a color for
            `"count"`; a shape, a relation and a shape for `"relation"`.
    """

    kind: str
    about: tuple[str, ...]


QUESTIONS = (
    *(Question("color", (shape,)) for shape in SHAPES),
    *(Question("shape", (color,)) for color in COLORS),
    *(Question("size", (shape,)) for shape in SHAPES),
    *(Question("relation", (a, r, b)) for a, b in itertools.permutations(SHAPES, 2) for r in RELATIONS),
    *(Question("count", (value,)) for value in (*SHAPES, *COLORS)),
)
ANSWERS = (*COLORS, *SHAPES, *SIZES, "yes", "no", "0", "1", "2")


def answer(question: Question, scene: Scene) -> str | None:
    """The answer, one of `ANSWERS`, or None if the question has none or more than one."""
    about, things = question.about, scene.things
    if question.kind == "count":
        return str(sum(about[0] in (thing.shape, thing.color) for thing in things))
    name = "color" if question.kind == "shape" else "shape"
    found = [[thing for thing in things if getattr(thing, name) == value] for value in (about[0], about[-1])]
    if any(len(of_value) != 1 for of_value in found):
        return None
    (subject,), (other,) = found
    if question.kind != "relation":
        return getattr(subject, question.kind)
    relation, is_turned = RELATIONS[about[1]]
    if relation != scene.relation:
        return None  # left of and above exclude each other by little
    return "yes" if [subject, other][is_turned] is things[0] else "no"


def supposed(question: Question) -> list[Question]:
    """The questions "how many ...?" whose answer must be 1 for a question to have one answer."""
    about = question.about if question.kind != "count" else ()
    return [Question("count", (word,)) for word in about if word not in RELATIONS]


def usual(question: Question, changed: bool = False) -> str:
    """The answer that most of the drawn questions of this wording have.

    Args:
        question: Question.
        changed: bool. Whether the prior is that of `test_changed_prior`. Defaults to False.
    """
    first = (SHAPES if question.about[0] in SHAPES else COLORS).index(question.about[0])
    if question.kind in ("color", "shape"):
        return {"color": COLORS, "shape": SHAPES}[question.kind][(first + 3 * changed) % 6]
    if question.kind == "relation":
        return ("yes", "no")[(first < SHAPES.index(question.about[2])) != changed]
    return {"size": SIZES, "count": ("0", "1")}[question.kind][(first + changed) % 2]


def ask(of_scene: Scene, rng: np.random.Generator, changed: bool = False) -> list[Question]:
    """Draws questions about a scene.

    Args:
        of_scene: Scene of two things.
        rng: Random generator.
        changed: bool. See `usual`.
    """
    right = {question: answer(question, of_scene) for question in QUESTIONS}
    kinds = [[q for q, a in right.items() if a is not None and q.kind == kind] for kind in KINDS]
    asked: dict[Question, None] = {}
    while not asked:
        for questions in filter(None, kinds):
            for _ in range(TRIES):
                # the answer first: few scenes have two of a kind, and most questions of "how many" have 0
                wanted = scene.pick(rng, sorted({right[question] for question in questions}))
                drawn = scene.pick(rng, [question for question in questions if right[question] == wanted])
                if rng.random() < (1 if wanted == usual(drawn, changed) else RARE):
                    asked[drawn] = None
    return list(asked)


# --- the words ---


def texts(question: Question, language: str = "en") -> tuple[str, ...]:
    """All phrasings of a question.

    Args:
        question: Question.
        language: str. `"en"` or `"zh"`. Defaults to `"en"`.
    """
    colors, shapes = (scene.words(name, language) for name in ("color", "shape"))
    first, *_ = about = question.about
    if question.kind == "relation":
        relation = _RELATION_WORDS[language][about[1]]
        parts = {"shape": shapes[first], "relation": relation, "shape2": shapes[about[2]]}
    elif question.kind != "count":
        parts = {"shape": shapes[first]} if first in SHAPES else {"color": colors[first]}
    elif language == "en":
        plural = first + ("es" if first[-1] == "s" else "s")
        parts = {"counted": f"{first} things" if first in COLORS else plural}
    else:
        parts = {"counted": f"{colors[first]}的东西" if first in COLORS else shapes[first]}
    return tuple(phrase.format(**parts) for phrase in _GRAMMARS[language][question.kind])


def answers(language: str = "en") -> dict[str, str]:
    """{answer: its word} of all `ANSWERS`."""
    words = dict(zip(("yes", "no"), _YES_NO[language], strict=True))
    for attribute in ("color", "shape", "size"):
        words |= scene.words(attribute, language)
    return {name: words.get(name, name) for name in ANSWERS}


def parse(text: str, language: str | None = None) -> Question | None:
    """The question that a text asks, or None if the grammar does not have it.

    Args:
        text: str. Case, repeated spaces (in Chinese all spaces) and the question mark are ignored.
        language: str. `"en"` or `"zh"`. Defaults to None, which tries both.
    """
    if language is None:
        return parse(text, "en") or parse(text, "zh")
    return _by_text(language).get(_plain(text, language))


def examples(language: str = "en") -> list[str]:
    """A question of each kind."""
    first = {question.kind: question for question in reversed(QUESTIONS)}
    return [texts(first[kind], language)[0] for kind in KINDS]


@functools.cache
def _by_text(language):
    return {_plain(text, language): question for question in QUESTIONS for text in texts(question, language)}


def _plain(text, language):
    return re.sub(r"\s+", " " if language == "en" else "", text.strip().lower().rstrip("?？。. "))
