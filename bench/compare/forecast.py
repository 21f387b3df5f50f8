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
    """A run of a preset on this machine; times in seconds, ``within_percent`` the sd of its requests.

    ``start_s`` is a launch without the requests that count: loading, the request that warms up, and the end. If the
    engine was one of a pair that started together, it holds the other's start too.
    """

    run: str
    start_s: float
    request_s: float
    is_together: bool
    within_percent: float | None
    disturbed: bool

    def seconds_of_pairs(self, pairs: int, requests: int, *, together: bool = True) -> tuple[float, float]:
        """Return how long so many pairs take at least and at most, whose starts serve so many requests each.

        How much two engines that start together delay each other is known from such a pair alone: they take as long as
        one start at least, and as two at most.
        """
        fewest = 1 if together or self.is_together else 2
        most = 1 if together and self.is_together else 2
        served = 2 * requests * self.request_s
        return pairs * (fewest * self.start_s + served), pairs * (most * self.start_s + served)

    def requests_for(self, precision: float) -> int | None:
        """Return how many requests know the median to this share, None if their noise is unknown or not its own."""
        if self.within_percent is None or self.disturbed:
            return None
        return math.ceil((TWO_SIDED_95 * EFFICIENCY * self.within_percent / 100 / precision) ** 2)


def past(root: Path, preset_sha256: str) -> Past | None:
    """Return the newest run of a preset on this machine that counts, None if none of the newest runs does.

    One that was measured under disturbance is returned only where all of them were.
    """
    here = host.identity()
    newest = None
    for path in _records(root):
        try:
            record = json.loads(path.read_bytes())
            if record["preset"]["sha256"] != preset_sha256 or record["host"]["identity"] != here:
                continue
            if record["kind"] != BENCH or any(launch["wall_s"] is None for launch in record["launches"]):
                continue  # a profile takes longer, and a launch that was cut off says nothing of a whole one
            is_arm = path.parent.name == ARM
            run = path.parent.parent.name if is_arm else record["id"]
            together = is_arm and json.loads((path.parent.parent / store.ARMS).read_bytes())["together"]
            known = _past(record, run, is_together=together)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a forecast does without what it cannot read
        if known is not None and not known.disturbed:
            return known
        newest = newest or known
    return newest


def _records(root: Path) -> Iterator[Path]:
    folders = sorted(root.glob("[0-9]*-*"), key=lambda folder: folder.name, reverse=True)[:LOOKED_AT]
    for folder in folders:
        yield from (folder / store.RECORD, folder / ARM / store.RECORD)


def _past(record: Mapping[str, Any], run: str, *, is_together: bool) -> Past | None:
    timings = record["timings"]
    if timings is None or timings["wall_s"] is None or timings["launch_s"] is None:
        return None
    served = len(record["requests"]) / len({request["launch"] for request in record["requests"]})
    spread = timings["spread"]
    return Past(
        run=run,
        start_s=max(0.0, timings["launch_s"] - (1 + is_together) * served * timings["wall_s"]),
        request_s=statistics.median(request["wall_s"] for request in record["requests"]),
        is_together=is_together,
        within_percent=None if spread is None else spread["within_percent"],
        disturbed=bool(disturbance.of(record)),
    )
