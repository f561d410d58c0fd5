"""The command line: `main.py` the commands, `demo.py` the page of `mmkeras demo`."""

from mmkeras._utils import lazy

__getattr__ = lazy.submodules(__name__)
