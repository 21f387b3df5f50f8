"""Ctrl-C is heard, wherever it comes."""

import importlib
import signal
import time

import pytest

from bench import interrupts

SWALLOWS = """
import os, signal, time

try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.2)
except KeyboardInterrupt:
    pass  # as compiled modules do
"""


@pytest.fixture(name="heard")
def _heard():
    before = signal.signal(signal.SIGINT, interrupts.heard)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_a_module_that_is_imported_cannot_swallow_it(tmp_path, monkeypatch):
    (tmp_path / "swallows_interrupts.py").write_text(SWALLOWS)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        importlib.import_module("swallows_interrupts")
        time.sleep(60)


@pytest.mark.usefixtures("heard")
def test_elsewhere_it_is_raised_at_once():
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
