"""Why a component is not native, in the engine's words: the error above its fallback line in the log."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bench.fallback.matcher import clean

if TYPE_CHECKING:
    from pathlib import Path

    from bench.fallback.guard import Guard

ABOVE_LINES = 120
"""How far above its line a fallback's traceback may begin; the longest captured one has 40 lines."""

ERROR = re.compile(r"^[\w.]*(?:Error|Exception|Required|Interrupt)(?:: .*)?$")
SHOWN_CHARACTERS = 400


def by_component(guard: Guard, log: Path) -> dict[str, str]:
    """Return, for each component that a signal of the guard named, the error that the engine printed for it.

    If no error precedes the signal's line (the engine simply lacks a class for it), the line itself is returned.
    """
    named = [finding for finding in guard.findings.values() if finding.component and finding.line]
    if not named or not log.is_file():
        return {}
    # not read_text, which also splits at carriage returns: the guard counts line feeds only
    lines = clean(log.read_bytes().decode("utf-8", "replace")).split("\n")
    found: dict[str, str] = {}
    for finding in sorted(named, key=lambda finding: finding.line or 0):
        component, line = str(finding.component), finding.line or 0
        if component in found:
            continue  # the first line about it is the cause, the later ones its consequences
        above = lines[max(0, line - 1 - ABOVE_LINES) : line - 1]
        error = next((text for text in reversed(above) if ERROR.match(text)), None)
        caused = error is not None and "falling back" in finding.text
        found[component] = (str(error) if caused else finding.text)[:SHOWN_CHARACTERS]
    return found
