"""A user's own command, run in a checkout, that prints a number."""

from __future__ import annotations

import math
import os
import re
from typing import TYPE_CHECKING

from bench import process
from bench.errors import EngineFailed, TimedOut

if TYPE_CHECKING:
    from pathlib import Path

NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|[-+]?\.\d+")
WITHIN = re.compile(r"\d[,_'\u2019\u00a0\u2009\u202f]?$")
"""How the text before a number ends if that is only a part of one: 1,234.56 or 1.234.567."""
NO_ANSWER = 124


def of(command: str, folder: Path, commit: str, timeout_s: float) -> float:
    """Run a command in a folder and return the last number of its last line; smaller is better, and it is above zero.

    The shell that runs it has the folder's commit in BISECT_COMMIT.

    Raises:
        EngineFailed: it failed, or its last line has no such number, or one with separators.
        TimedOut: it took too long.
    """
    environment = {**os.environ, "BISECT_COMMIT": commit}
    ended = process.capture(["bash", "-c", command], env=environment, cwd=folder, timeout_s=timeout_s)
    if ended.exit_code == NO_ANSWER and not ended.stdout:
        raise TimedOut(f"the command gave no answer within {timeout_s:g} s", where=folder)
    lines = ended.stdout.strip().splitlines()
    if ended.exit_code != 0:
        last = (ended.stderr.strip().splitlines() or lines or ["it said nothing"])[-1]
        raise EngineFailed(f"the command ended with exit code {ended.exit_code}: {last}", where=folder)
    found = list(NUMBER.finditer(lines[-1])) if lines else []
    if not found or not (math.isfinite(value := float(found[-1][0])) and value > 0):
        raise EngineFailed("the command's last line has no number above zero", where=folder)
    if WITHIN.search(lines[-1][: found[-1].start()]):
        said = lines[-1][: found[-1].end()].split(" ")[-1]
        raise EngineFailed(f"the command's last number has separators, as 1,234.56 has: {said}", where=folder)
    return value
