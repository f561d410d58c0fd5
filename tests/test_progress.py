"""Progress bars appear on terminals only."""

import io
import sys
import time

import pytest

from mmkeras._utils import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream, is_shown", [(Terminal, True), (io.StringIO, False)])
def test_a_bar_appears_on_a_terminal_only(stream, is_shown, monkeypatch):
    monkeypatch.setattr("sys.stderr", stream())
    monkeypatch.setattr(progress, "DELAY_SECONDS", 0.1)
    bar = progress.bar(iter("abc"), "letters", 3)
    assert [letter for letter in bar if not time.sleep(0.2)] == list("abc")
    assert ("letters" in sys.stderr.getvalue()) == is_shown
    assert "\n" not in sys.stderr.getvalue()


@pytest.mark.parametrize("stream, verbose", [(Terminal, 1), (io.StringIO, 2)])
def test_auto_verbosity_is_a_bar_on_a_terminal_and_else_a_line_per_epoch(stream, verbose, monkeypatch):
    monkeypatch.setattr("sys.stdout", stream())
    assert progress.verbosity("auto") == verbose
    assert [progress.verbosity(value) for value in (0, 1, 2)] == [0, 1, 2]
