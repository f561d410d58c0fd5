"""Fetches onnxruntime-web for a wheel, whose page then needs no npm. All else is in pyproject.toml."""

import runpy

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel


class WithRuntime(bdist_wheel):
    def run(self):
        runtime = runpy.run_path("mmkeras/export/onnxruntime_web.py")
        if not runtime["is_complete"](runtime["FOLDER"]):
            try:
                runtime["fetch"](runtime["FOLDER"])
            except OSError as error:
                self.warn(f"This wheel lacks onnxruntime-web, which `mmkeras page` will fetch. {error}")
        super().run()


setup(cmdclass={"bdist_wheel": WithRuntime})
