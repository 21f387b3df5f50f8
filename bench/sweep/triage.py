"""What a night's numbers mean: which preset is slower than in the nights before, and by rule what made it so.

A number that is too high is measured twice more the same night, on the same host and on another. The rule is a table:

    repeated on its host   slow on another host   engine changed    it is
    no                     -                      -                 noise, and nothing is said
    yes                    no                     -                 machine
    yes                    yes                    yes               commit
    yes                    yes                    no                machine (all of them: driver, system, cooling)
    yes                    not measured           yes               too little data: commit or machine
    yes                    not measured           no                machine
    not measured           -                      -                 too little data

Before that: another workload has no past, a preset that jumps between two levels is called so, and fewer nights than
five decide nothing.
"""

from __future__ import annotations

import math
import re
import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench.stats import levels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.compare.history import Point

COMMIT, MACHINE, WORKLOAD, TWO_LEVELS, TOO_LITTLE = "commit", "machine", "workload", "two levels", "too little data"
NOT_MEASURED, REFUSED = "not measured", "refused"
REGRESSIONS = (COMMIT, MACHINE)
NOT_JUDGED = (WORKLOAD, TOO_LITTLE, NOT_MEASURED, REFUSED)
SWEEP = "nightly-"
"""How the name of a night's sweep begins; its day follows."""
OF_SWEEP = re.compile(rf"sweep-{SWEEP}(\d{{4}}-\d\d-\d\d)")
FEWEST_NIGHTS = 5
COMPARED_NIGHTS = 10
"""The newest of the nights before; older ones say little of the present level."""
SMALLEST_PERCENT = 3.0
DEVIATIONS = 4.0
"""A night is slow if it is further above the median than so many standard deviations of a night, and 3 %."""
TO_DEVIATION = 1.4826
"""Of a median absolute deviation, for normal values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is said of a preset: the kind, a sentence, and the command to type next."""

    preset: str
    kind: str
    says: str
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """The nights that tonight is compared with: median, and the value above which a night is slow."""

    nights: int
    median: float
    limit: float
    engine: str
    newest: Point


def night_of(point: Point) -> str:
    """Return the day of the night that a record is of: its sweep's, which may go on past midnight, else its own."""
    named = next((found for part in point.path.parts if (found := OF_SWEEP.match(part))), None)
    return named[1] if named else point.started[:10]


def nights(points: Sequence[Point]) -> list[Point]:
    """Return one point for each night, in order: its newest, with the median of the night's values."""
    by_night: dict[str, list[Point]] = {}
    for point in points:
        by_night.setdefault(night_of(point), []).append(point)
    return [
        replace(its[-1], value=statistics.median(point.value for point in its)) for _, its in sorted(by_night.items())
    ]


def past(before: Sequence[Point]) -> Past | None:
    """Return what the nights before say (`nights`), None if they are too few. They are at the newest level only."""
    points = list(before)
    if changes := levels.change_points([point.value for point in points]):
        newest_level = points[changes[-1] :]
        points = newest_level if len(newest_level) >= FEWEST_NIGHTS else points
    points = points[-COMPARED_NIGHTS:]
    if len(points) < FEWEST_NIGHTS:
        return None
    logs = [math.log(point.value) for point in points]
    middle = statistics.median(logs)
    deviation = TO_DEVIATION * statistics.median(abs(value - middle) for value in logs)
    far = max(math.log1p(SMALLEST_PERCENT / 100), DEVIATIONS * deviation)
    return Past(
        nights=len(points),
        median=math.exp(middle),
        limit=math.exp(middle + far),
        engine=points[-1].engine,
        newest=points[-1],
    )


def is_suspect(before: Sequence[Point], tonight: Sequence[Point]) -> bool:
    """Tell whether a preset's first number tonight is to be measured again, on its host and on another."""
    comparable = nights([point for point in before if tonight and point.family == tonight[0].family])
    known = past(comparable)
    return known is not None and tonight[0].value > known.limit and not _jumps(comparable, tonight[0])


def judge(preset: str, before: Sequence[Point], tonight: Sequence[Point]) -> Finding | None:
    """Return what is to be said of a preset, None if nothing is.

    ``before`` are the records of earlier nights, ``tonight`` those of this one, both in order of time; the first of
    tonight is the number itself, later ones of the same family and engine repeat it.
    """
    history = f"invoke history --model {preset}"
    if not tonight:
        says = "this night has no record of it that counts"
        return Finding(preset=preset, kind=NOT_MEASURED, says=says, next_step=history)
    first = tonight[0]
    tonight = [point for point in tonight if (point.family, point.engine) == (first.family, first.engine)]
    comparable = nights([point for point in before if point.family == first.family])
    if before and not comparable:
        says = f"the workload or the device is not that of the {len(nights(before))} nights before: {first.workload}"
        return Finding(preset=preset, kind=WORKLOAD, says=says, next_step=history)
    known = past(comparable)
    if known is None:
        says = f"{len(comparable)} comparable nights before, and {FEWEST_NIGHTS} are needed"
        return Finding(preset=preset, kind=TOO_LITTLE, says=says, next_step=history)
    if (jumps := _jumps(comparable, first)) is not None:
        says = f"jumps between {jumps.low:.4g} and {jumps.high:.4g} ms; tonight it is at the upper level"
        return Finding(preset=preset, kind=TWO_LEVELS, says=says, next_step=f"invoke calibrate --model {preset}")
    if first.value <= known.limit:
        return None
    return _of_slow(preset, known, tonight)


def _jumps(before: Sequence[Point], first: Point) -> levels.TwoLevels | None:
    """Return the levels that a preset jumps between, if tonight's is one of them that it was at in earlier nights."""
    values = [point.value for point in before]
    known = levels.two_levels(values)
    if known is None or len(levels.change_points(values)) == 1:
        return None
    middle, spread = math.sqrt(known.low * known.high), known.high / known.low
    return known if middle < first.value < known.high * math.sqrt(spread) else None


def _of_slow(preset: str, known: Past, tonight: Sequence[Point]) -> Finding | None:
    """Return what made a number slow, by the table above; None if it did not repeat on its host."""
    first, *repeats = tonight
    same = [point.value > known.limit for point in repeats if point.host == first.host]
    other = [point.value > known.limit for point in repeats if point.host != first.host]
    slower = f"{100 * (first.value / known.median - 1):.1f} % slower than the {known.nights} nights before"
    if same and not all(same):
        return None
    if not same:
        says = f"{slower}, and it was not measured again on its host"
        return Finding(preset=preset, kind=TOO_LITTLE, says=says, next_step=f"invoke history --model {preset}")
    compared = f"invoke compare {known.newest.path.parent} {first.path.parent}"
    changed = first.engine != known.engine
    if other and not all(other):
        says = f"{slower}, on host {first.host} only: another host is as fast as ever"
        return Finding(preset=preset, kind=MACHINE, says=says, next_step="invoke doctor")
    if other and changed:
        says = (
            f"{slower}, again on its host and on another host; the engine changed from {known.engine} to {first.engine}"
        )
        return Finding(preset=preset, kind=COMMIT, says=says, next_step=compared)
    if changed:
        says = (
            f"{slower}, again on its host; the engine changed from {known.engine} to {first.engine},"
            " no other host was tried"
        )
        return Finding(preset=preset, kind=TOO_LITTLE, says=says, next_step=compared)
    where = "on every host" if other else f"on host {first.host}"
    says = f"{slower}, again on its host, {where}, with the same engine: the driver, the system or the cooling"
    return Finding(preset=preset, kind=MACHINE, says=says, next_step="invoke doctor")
