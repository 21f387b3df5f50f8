"""Plain helpers of the tests."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"
LOGS = DATA / "logs"


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


def invoke_command(*arguments):
    return [sys.executable, "-m", "invoke", *map(str, arguments)]


def processes_like(text, runs=None):
    """Return the command lines of running processes that contain ``text``; of those with these ``runs``, if given.

    Other tests may run beside this one: the environment tells whose a process is.
    """
    mine = None if runs is None else f"\0BENCH_RUNS={runs}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                environment = b"\0" + (entry / "environ").read_bytes()
            except OSError:
                continue
            if text in line and (mine is None or mine in environment):
                found.append(line)
    return found


def check_golden(name, text):
    """Compare a text with its golden file; UPDATE_GOLDEN=1 writes it anew, for a person to read in the diff."""
    path = DATA / "golden" / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def wait_until(condition, reason, within_s=120.0):
    """Return what the condition returns once it holds; fail with the reason if it does not come true in time.

    The time is generous: it bounds a broken test, it does not measure the machine.
    """
    deadline = time.monotonic() + within_s
    while not (result := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"{reason} within {within_s:g} s")
        time.sleep(0.02)
    return result
