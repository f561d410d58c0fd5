"""What `diagnose` returns: `Diagnosis`, whose `Line`s are one page."""

import textwrap
from dataclasses import dataclass

INDENT = " " * 17  # of a finding, below the value of its line


@dataclass(frozen=True)
class Line:
    """The result of one check.

    Attributes:
        name: str. What was checked.
        value: str. What was measured.
        finding: str. What is wrong and what to do; "" if nothing is.
    """

    name: str
    value: str
    finding: str = ""

    def __str__(self) -> str:
        line = f"{'!' if self.finding else ' '} {self.name:14} {self.value}"
        return "\n".join(
            [line, *textwrap.wrap(self.finding, 112, initial_indent=INDENT, subsequent_indent=INDENT)]
        )


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` returns. `str` is one page: the data, the model, and its predictions for the data.

    Attributes:
        lines: `Line`s, those of the data first, since most causes are there.
    """

    lines: tuple[Line, ...]

    @property
    def findings(self) -> dict[str, str]:
        """What is wrong and what to do, by the name of the line. Empty for a healthy model."""
        return {line.name: line.finding for line in self.lines if line.finding}

    def __str__(self) -> str:
        count = len(self.findings)
        title = f"{count} finding{'s' * (count > 1)}, marked by !" if count else "Nothing wrong was found"
        return "\n".join([f"{title}.", *map(str, self.lines)])
