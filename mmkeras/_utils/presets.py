"""Presets of a task's sizes, and overrides of them."""

import dataclasses
from typing import TypeVar

Config = TypeVar("Config")


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
