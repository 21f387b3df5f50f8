"""Runs this repository's own `invoke` as a person would: the one place besides `bench/engine` that starts a program.

What it starts is always our own task runner, whose tasks launch engines under a guard as ever.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench import process

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO

MARGIN = "| "


class _Margin:
    """Shows whole lines as they come, behind a margin that tells them from the tour's own words."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out

    def observe(self, block: bytes, first_line: int) -> None:  # noqa: ARG002 - the observer's interface
        """Take a block of whole lines."""
        for line in block.decode("utf-8", "replace").splitlines():
            self._out.write(f"{MARGIN}{line}".rstrip() + "\n")
        self._out.flush()


def run_invoke(words: Sequence[str], *, log: Path, out: IO[str], columns: int) -> process.Ended:
    """Run `invoke` with this interpreter, show its output on ``out`` as it comes, and keep it in ``log``, a new file.

    Returns how it ended. Nothing that it started is left when this returns or raises.

    Raises:
        FileExistsError: ``log`` is there already.
    """
    environment = {**os.environ, "COLUMNS": str(columns - len(MARGIN)), "PYTHONUNBUFFERED": "1"}
    return process.stream([sys.executable, "-m", "invoke", *words], env=environment, log=log, observer=_Margin(out))


def typed_as() -> str | None:
    """Return what a person has to type for `invoke` to be this one, None if it is just that."""
    own = Path(sys.executable).parent / "invoke"
    found = shutil.which("invoke")
    if found is not None and Path(found).resolve() == own.resolve():
        return None
    program = own if own.exists() else Path(sys.executable)
    typed = str(program.relative_to(Path.cwd())) if program.is_relative_to(Path.cwd()) else str(program)
    return typed if own.exists() else f"{typed} -m invoke"
