"""Progress bars on terminals, and none in notebooks and log files, which would keep every update."""

import sys
from collections.abc import Iterable

from tqdm import tqdm

DELAY_SECONDS = 2  # a shorter loop needs no bar


def bar(iterable: Iterable, name: str, total: int | None = None) -> tqdm:
    """The iterable, with a progress bar on stderr if that is a terminal and the loop is slow.

    Args:
        iterable: Iterated once.
        name: str. Shown before the bar.
        total: int. Number of items. Defaults to the iterable's length, if it has one.
    """
    return tqdm(iterable, name, total, delay=DELAY_SECONDS, leave=False, disable=None)


def verbosity(verbose: int | str = "auto") -> int:
    """`verbose` for `fit`. Keras's own `"auto"` writes bars to log files, too.

    Args:
        verbose: int or str. 0, 1, 2 or `"auto"`: 1, a bar, if stdout is a terminal, else 2, one line per epoch.
            Defaults to `"auto"`.
    """
    return (1 if sys.stdout.isatty() else 2) if verbose == "auto" else verbose
