"""Progress where somebody watches: bars on a terminal, no trail of their lines in notebooks and logs."""

import sys
from collections.abc import Iterable

from tqdm import tqdm

DELAY_SECONDS = 2


def bar(iterable: Iterable, name: str, total: int | None = None) -> tqdm:
    """The iterable, with a bar on stderr if that is a terminal and the loop takes longer than two seconds.

    Args:
        iterable: Iterated once.
        name: str. Shown before the bar.
        total: int. Number of items. Defaults to the iterable's length, if it has one.
    """
    return tqdm(iterable, name, total, delay=DELAY_SECONDS, leave=False, disable=None)


def verbosity(verbose: int | str = "auto") -> int:
    """`verbose` for `fit`. Keras's own `"auto"` writes a bar to log files, too.

    Args:
        verbose: `"auto"`, 0, 1 or 2. `"auto"` is 1, a bar, if stdout is a terminal, else 2, one line per epoch.
    """
    return (1 if sys.stdout.isatty() else 2) if verbose == "auto" else verbose
