"""The scripts that shells source: one file each, in which the interpreter that has Invoke is filled in."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

PLACEHOLDER = "@PYTHON@"
FOLDER = Path(__file__).parent
SHELLS = tuple(sorted(path.stem for path in FOLDER.glob("*.sh")))


def script(shell: str) -> str:
    """Return the script for one of `SHELLS`."""
    return (FOLDER / f"{shell}.sh").read_text(encoding="utf-8").replace(PLACEHOLDER, shlex.quote(sys.executable))
