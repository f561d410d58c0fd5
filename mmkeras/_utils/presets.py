"""Presets of a task's sizes, overrides of them, and the options of `build` as text."""

import ast
import contextlib
import dataclasses
import difflib
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

Config = TypeVar("Config")
_TEXTS = {"none": None, "true": True, "false": False}


def with_overrides(presets: dict[str, Config], preset: str | Config, overrides: dict) -> Config:
    """The sizes of a preset, with overrides.

    Args:
        presets: {preset: sizes}, frozen dataclasses.
        preset: str. Name of the preset; or the sizes themselves.
        overrides: {name: value}.

    Raises:
        ValueError: for an unknown preset or an invalid size.
        TypeError: for an unknown override.
    """
    config = presets.get(preset, preset)
    if not isinstance(config, type(next(iter(presets.values())))):
        known = ", ".join(map(repr, presets))
        raise ValueError(f"Expected preset to be one of {known}. Received: preset={preset!r}")
    known = [field.name for field in dataclasses.fields(config)]
    if unknown := overrides.keys() - set(known):
        raise TypeError(f"Expected overrides among {', '.join(known)}. Received: {', '.join(sorted(unknown))}")
    return dataclasses.replace(config, **overrides)


def of_build(build: Callable, presets: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a task's `build` but what comes from the data, and their types: its sizes and its own."""
    sizes = typing.get_type_hints(type(next(iter(presets.values()))))
    return sizes | keywords(build, without=("vocabulary", "answers", "compile"))


def keywords(function: Callable, without: Iterable[str] = ()) -> dict[str, Any]:
    """The keyword-only parameters of a function, and their types."""
    parameters, hints = inspect.signature(function).parameters.values(), typing.get_type_hints(function)
    names = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in without]
    return {name: hints.get(name, Any) for name in names}


def parse(settings: Sequence[str], known: Mapping[str, Any]) -> dict[str, Any]:
    """Options from texts such as `"units=256"`.

    Args:
        settings: Texts name=value. A value is a number, true, false, none, a dictionary as Python writes it, or
            else a text.
        known: {name: its type}.

    Raises:
        ValueError: for an unknown name, or a value that is not of the type.
    """
    options = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or name not in known:
            close = difflib.get_close_matches(name, known, n=3)
            hint = f" Close to it: {', '.join(close)}." if close else ""
            raise ValueError(
                f"Expected --set NAME=VALUE with a NAME among {', '.join(known)}. "
                f"Received: --set {setting}.{hint}"
            )
        values = [value for value in _readings(text) if _is_of(value, known[name])]
        if not values:
            kind = getattr(known[name], "__name__", str(known[name]))
            raise ValueError(
                f"Expected --set {name}=VALUE with a VALUE of type {kind}. Received: --set {setting}"
            )
        options[name] = values[0]
    return options


def _readings(text):
    """The possible values of a text, the most specific first."""
    if text.lower() in _TEXTS:
        yield _TEXTS[text.lower()]
    with contextlib.suppress(ValueError, SyntaxError):
        yield ast.literal_eval(text)
    yield text


def _is_of(value, kind):
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return any(_is_of(value, k) for k in typing.get_args(kind))
    kind = typing.get_origin(kind) or kind
    if kind is Any:
        return True
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (kind, int) if kind is float else kind)
