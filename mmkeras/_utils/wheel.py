"""Puts into the wheel what is not in the package: notebooks, onnxruntime-web. Used by pyproject.toml alone."""

import runpy
import shutil
from pathlib import Path

from setuptools.command.bdist_wheel import bdist_wheel
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


class BuildWheel(bdist_wheel):
    """Fetches onnxruntime-web, so that the page of an installed wheel needs no npm."""

    def run(self):
        runtime = runpy.run_path("mmkeras/export/onnxruntime_web.py")
        if not runtime["is_complete"](runtime["FOLDER"]):
            try:
                runtime["fetch"](runtime["FOLDER"])
            except OSError as error:
                self.warn(f"This wheel lacks onnxruntime-web, which `mmkeras page` will fetch. {error}")
        super().run()
