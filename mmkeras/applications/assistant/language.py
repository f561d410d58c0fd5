"""What the assistant can read in a sentence, and what it says, in English and Chinese."""

import difflib
import re
from dataclasses import dataclass

from mmkeras.toy import scene
from mmkeras.toy.scene import Scene

# Words by what they ask for; `fill` has no meaning of its own. In each class the longest is read first.
_WORDS = {
    "en": {
        "search": "show|find|search|look",
        "edit": "same|now|again|instead|make|change|it|but",
        "fill": "a|an|the|is|are|at|in|on|of|to|as|and|or|with|there|that|this|for|me|i|you|please|draw|paint|"
        "yes|ok|want|would|like|see|can|all|one|ones|thing|things|shape|shapes|color|place|size|images?",
    },
    "zh": {
        "search": "给我看看|给我看|找出|找到|找|搜索|搜",
        "edit": "同样|一样|换成|改成|变成|换|改|变|现在|再",
        "fill": "所有|一个|一点|图片|图像|好的|对|请|的|是|有|个|在|和|或|画|把|它|我|你|要|想|看|图|吧|了|都",
    },
}
_PATTERNS = {
    language: {
        name: re.compile(rf"\b(?:{words})\b" if language == "en" else words) for name, words in classes.items()
    }
    for language, classes in _WORDS.items()
}
_YES = re.compile(r"(yes|yeah|yep|correct|ok)( please)?|是|是的|对|对的|好|好的")
_NO = re.compile(r"(no|nope|wrong)\b.*|不.*")  # with what follows, such as 不是红色

_SAYINGS = {
    "en": {
        "nothing": "I hear nothing. Say, write or show me a colored shape.",
        "no_words": "I have no words for that. I know sentences such as: {example}.",
        "unknown": "I do not know {words}. ",
        "which": "Which {attribute}: {options}?",
        "confirm": "Did you mean: {caption}?",
        "not_asked": "I have asked nothing.",
        "other_question": "That does not answer my question. {question}",
        "again": "Then please say it again.",
        "no_scene": "There is no scene yet that I can change.",
        "pair": "I draw one shape at a time.",
        "unseen": "I see no colored shape in this image.",
        "unheard": "I did not understand that. Please say it again.",
        "poor": "{caption}, but my image shows another {attributes}",
        "no_images": "I have no images to search in.",
        "found": "{count} of {total} images: {names}",
        "none": "None of {total} images shows that.",
        "comma": ", ",
        "size": "size", "color": "color", "shape": "shape", "place": "place",
    },
    "zh": {
        "nothing": "我什么也没听到。请说、写或给我看一个彩色图形。",
        "no_words": "我没有词来理解这句话。我懂这样的句子：{example}。",
        "unknown": "我不认识{words}。",
        "which": "哪种{attribute}：{options}？",
        "confirm": "你是说：{caption}？",
        "not_asked": "我没有提问。",
        "other_question": "这没有回答我的问题。{question}",
        "again": "那请再说一遍。",
        "no_scene": "还没有可以修改的图。",
        "pair": "我一次只画一个图形。",
        "unseen": "我在这张图里看不到彩色图形。",
        "unheard": "我没有听懂，请再说一遍。",
        "poor": "{caption}，但我画的{attributes}不对",
        "no_images": "我没有可以搜索的图片。",
        "found": "{total}张图片中有{count}张：{names}",
        "none": "{total}张图片中没有这样的。",
        "comma": "、",
        "size": "大小", "color": "颜色", "shape": "形状", "place": "位置",
    },
}  # fmt: skip


@dataclass(frozen=True)
class Sentence:
    """What a text says.

    Attributes:
        text: The text.
        values: {attribute: the values that it names}.
        unknown: Words that are not known.
        scene: The scene that it describes, if the toy world's grammar has the text.
        asks: Of `"search"`, `"edit"`, `"yes"` and `"no"` those that it has words for.
    """

    text: str
    values: dict[str, list[str]]
    unknown: list[str]
    scene: Scene | None
    asks: frozenset[str]


def language_of(text: str, default: str) -> str:
    """`"zh"` for a text with Chinese characters, `"en"` for one with Latin letters, else the default."""
    if re.search("[\u4e00-\u9fff]", text):
        return "zh"
    return "en" if re.search("[A-Za-z]", text) else default


def read(text: str, language: str) -> Sentence:
    """What a text in a language says."""
    plain = text.strip(" \t.!?,。！？，").lower()
    asks = {name for name, words in (("yes", _YES), ("no", _NO)) if words.fullmatch(plain)}
    values, rest = ({}, "") if asks else scene.mentions(plain, language)
    for name, pattern in _PATTERNS[language].items():
        if pattern.search(rest):
            asks.add(name)
            rest = pattern.sub(" ", rest)
    unknown = re.findall(r"[^\W_]+", rest)
    return Sentence(plain, values, unknown, scene.parse(plain, language), frozenset(asks - {"fill"}))


def corrected(sentence: Sentence, language: str) -> str | None:
    """The text with unknown words replaced by the most similar known word with the same first letter; None if
    no known word is similar."""
    known = [
        word for name in scene.ATTRIBUTES for word in " ".join(scene.words(name, language).values()).split()
    ]
    text = sentence.text
    for word in sentence.unknown:
        options = [option for option in known if option[0] == word[0]]
        for near in difflib.get_close_matches(word, options, n=1):
            text = text.replace(word, near)
    return text if text != sentence.text else None


def say(key: str, language: str, **parts: str) -> str:
    """A sentence of the assistant."""
    return _SAYINGS[language][key].format(**parts)


def listed(items: list[str], language: str) -> str:
    return _SAYINGS[language]["comma"].join(items)
