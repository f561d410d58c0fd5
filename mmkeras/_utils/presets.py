"""Presets of a task's sizes, and overrides of them."""


def with_overrides(presets: dict[str, dict], preset: str, overrides: dict) -> dict:
    """The sizes of a preset, with overrides.

    Args:
        presets: {preset: {name: value}}.
        preset: str. Name of the preset.
        overrides: {name: value}.

    Raises:
        ValueError: for an unknown preset.
        TypeError: for an unknown override.
    """
    if preset not in presets:
        known = ", ".join(map(repr, presets))
        raise ValueError(f"Expected preset to be one of {known}. Received: preset={preset!r}")
    if unknown := overrides.keys() - presets[preset].keys():
        known = ", ".join(presets[preset])
        raise TypeError(f"Expected overrides among {known}. Received: {', '.join(sorted(unknown))}")
    return presets[preset] | overrides
