"""Names of the phases of a load test: its loads, the warm-up of each start, what was traced, and what was cut off."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

WARM = "warm"
BURSTS = "bursts"
"""Requests sent several at once, for a server that may merge them."""
TRACED = "traced"
"""The load around a request under the profiler."""
CUT_OFF = "-cut-off"


def warm_up(start: int) -> str:
    """Return the name of the warm-up of a server's start, counted from 1."""
    return WARM if start == 1 else f"{WARM}-{start}"


def start(name: str) -> int | None:
    """Return the start, counted from 1, that a phase warmed up, to its end or not; None for a load."""
    found = re.match(rf"{WARM}(?:-(\d+))?(?:{CUT_OFF}|$)", name)
    return None if found is None else int(found[1] or 1)


def cut_off(name: str, known: Collection[str]) -> str:
    """Return the name of a phase that was cut off, which none of the ``known`` ones has."""
    times = sum(other.startswith(f"{name}{CUT_OFF}") for other in known)
    return f"{name}{CUT_OFF}" + (f"-{times + 1}" if times else "")


def is_cut_off(name: str) -> bool:
    """Tell whether a phase was cut off: it is in the record, and no figure rests on it."""
    return re.search(rf"{CUT_OFF}(-\d+)?$", name) is not None


def is_warm_up(name: str) -> bool:
    """Tell whether a phase warmed a server up, to its end."""
    return re.fullmatch(rf"{WARM}(-\d+)?", name) is not None


def is_load(name: str) -> bool:
    """Tell whether a phase counts: it neither warmed up nor was cut off, and no request of it was traced."""
    return not is_warm_up(name) and not is_cut_off(name) and name != TRACED
