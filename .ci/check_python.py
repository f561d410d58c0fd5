"""Ends in one line if mmkeras does not run on this Python: pip would say so in many lines, or late.

For the README's first command. Written for any Python 3.
"""

import re
import sys
from pathlib import Path

pyproject = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
lowest, beyond = map(int, re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', pyproject).groups())
if not (3, lowest) <= sys.version_info[:2] < (3, beyond):
    sys.exit(
        f"mmkeras needs Python 3.{lowest} to 3.{beyond - 1}, and this is {sys.version.split()[0]}. In place of "
        f"`python3 -m venv .venv` run `uv venv --seed --python 3.{beyond - 1}`, then the rest of the command."
    )
