"""Puts the notebooks, which lie at the top of the repository, into the wheel. Used by pyproject.toml alone."""

import shutil
from pathlib import Path

from setuptools.command.build_py import build_py

_NOTEBOOKS = [path for path in Path("notebooks").glob("*") if path.suffix in (".ipynb", ".csv", ".md")]


class BuildPy(build_py):
    """Copies `notebooks/` to `mmkeras/notebooks/`. An editable install reads them where they are."""

    def get_source_files(self):  # of the sdist
        return [*super().get_source_files(), *map(str, _NOTEBOOKS)]

    def run(self):
        super().run()
        if not self.editable_mode:
            folder = Path(self.build_lib, "mmkeras", "notebooks")
            folder.mkdir(parents=True, exist_ok=True)
            for path in _NOTEBOOKS:
                shutil.copy(path, folder)
