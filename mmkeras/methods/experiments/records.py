"""Results of experiments that take longer than a notebook may. They ship with the package."""

import dataclasses
import json
import os
import platform
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from mmkeras._version import __version__

Results = TypeVar("Results")


def write(path: str | os.PathLike, command: str, start: float, results: Results) -> Results:
    """Writes results, and how they were measured.

    Args:
        path: str or path. The file.
        command: str. Runs the experiment again.
        start: float. `time.perf_counter()` at its start.
        results: A dataclass with a field `measured`.

    Returns:
        The results, whose `measured` has the `command`, the `version` of mmkeras, the `date`, the `machine` and
        the `minutes`.
    """
    measured: dict[str, Any] = {
        "command": command,
        "version": __version__,
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "minutes": round((time.perf_counter() - start) / 60),
    }
    results = dataclasses.replace(results, measured=measured)
    text = json.dumps(dataclasses.asdict(results), indent=1, ensure_ascii=False)
    Path(path).write_text(text + "\n", encoding="utf-8")
    return results


def read(path: str | os.PathLike, kind: type[Results]) -> Results:
    """The results, a dataclass of this kind, that `write` wrote."""
    return kind(**json.loads(Path(path).read_text(encoding="utf-8")))


def images(path: str | os.PathLike, rows: int) -> np.ndarray:
    """The square images of a file, which lie in rows → (rows, n, S, S, 3) uint8."""
    sheet = np.asarray(Image.open(path).convert("RGB"))  # (rows * S, n * S, 3)
    side = len(sheet) // rows
    return sheet.reshape(rows, side, -1, side, 3).swapaxes(1, 2)


def cell(shares: Sequence[float]) -> str:
    """Mean and range of the seeds, as text."""
    return f"{np.mean(shares):.3f} ({min(shares):.3f} to {max(shares):.3f})"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as text with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
