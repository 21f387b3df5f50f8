"""What earlier runs of a preset on this machine say of the next: how long a start takes, and how noisy a request is."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.machine import host
from bench.record import disturbance, store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

LOOKED_AT = 50
"""Of the newest run directories."""

ARM = "baseline"
BENCH = "bench"
"""The kind of runs that count, those of arms too."""
EFFICIENCY = math.sqrt(math.pi / 2)
"""Standard error of a median over that of a mean, for normal samples."""
TWO_SIDED_95 = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """The newest run of a preset on this machine; medians in seconds. ``within_percent`` is the sd of its requests."""

    run: str
    start_s: float
    request_s: float
    is_arm: bool
    within_percent: float | None
    disturbed: bool

    def seconds_of_pairs(self, pairs: int, requests: int) -> float:
        """Return about how long so many pairs take whose starts serve so many requests each, and one that warms up."""
        # the start of an arm was one of two at once: its time holds the other's
        arms = 1 if self.is_arm else 2
        return pairs * arms * (self.start_s + (requests + 1) * self.request_s)

    def requests_for(self, precision: float) -> int | None:
        """Return how many requests know the median to this share, None if their noise is unknown or not its own."""
        if self.within_percent is None or self.disturbed:
            return None
        return math.ceil((TWO_SIDED_95 * EFFICIENCY * self.within_percent / 100 / precision) ** 2)


def past(root: Path, preset_sha256: str) -> Past | None:
    """Return the newest run of a preset on this machine that counts, None if there is none among the newest runs."""
    here = host.identity()
    for path in _records(root):
        try:
            record = json.loads(path.read_bytes())
            if record["preset"]["sha256"] != preset_sha256 or record["host"]["identity"] != here:
                continue
            if record["kind"] != BENCH or any(launch["wall_s"] is None for launch in record["launches"]):
                continue  # a profile takes longer, and a launch that was cut off says nothing of a whole one
            is_arm = path.parent.name == ARM
            run = path.parent.parent.name if is_arm else record["id"]
            known = _past(record, run, is_arm=is_arm)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a forecast does without what it cannot read
        if known is not None:
            return known
    return None


def _records(root: Path) -> Iterator[Path]:
    folders = sorted(root.glob("[0-9]*-*"), key=lambda folder: folder.name, reverse=True)[:LOOKED_AT]
    for folder in folders:
        yield from (folder / store.RECORD, folder / ARM / store.RECORD)


def _past(record: Mapping[str, Any], run: str, *, is_arm: bool) -> Past | None:
    timings = record["timings"]
    if timings is None or timings["wall_s"] is None or timings["launch_s"] is None:
        return None
    served = len(record["requests"]) / len({request["launch"] for request in record["requests"]})
    spread = timings["spread"]
    return Past(
        run=run,
        start_s=max(0.0, timings["launch_s"] - served * timings["wall_s"]),
        request_s=statistics.median(request["wall_s"] for request in record["requests"]),
        is_arm=is_arm,
        within_percent=None if spread is None else spread["within_percent"],
        disturbed=bool(disturbance.of(record)),
    )
