"""Two groups of launches that were measured earlier, each on its own: what they can still tell.

The unit is the launch. From three launches a side the test is Welch's t of the log durations; with fewer, the spread
between launches that `calibrate` measured decides, if it is known. Both take for granted that nothing but the arm
differed: a drift between the two times of measurement looks like an effect. Records of other hosts or days therefore
decide nothing unless the spread between those is known too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.stats import comparison as outcome
from bench.stats import planning
from bench.stats.samples import checked

if TYPE_CHECKING:
    from bench.stats.comparison import Comparison, LogInterval
    from bench.stats.samples import FloatArray, Samples
    from bench.stats.sequential import LaunchNoise

WELCH_MINIMUM = 3
"""With two launches on one side Welch's t is wrong in 10 % of comparisons instead of 5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DayNoise:
    """The spread between records of one cell from several days or hosts: sd of their logs, and how many there were."""

    sd_percent: float
    records: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What is known beside the durations: calibrated noise, and whether the two were measured ``apart``.

    ``apart`` says why the two may differ beside the arm ("other days"), None where they were measured on one host
    within the hour. ``requests`` are those of each launch, on either side. ``is_disturbed`` says that a side was
    measured under disturbance: a winner is named, and no size of the effect is claimed. ``shown_by`` says what shows
    how much launches differ.
    """

    metric: str = "total time"
    noise: LaunchNoise | None = None
    apart: str | None = None
    days: DayNoise | None = None
    requests: tuple[int, int] = (1, 1)
    is_disturbed: bool = False
    shown_by: str = "`invoke ab` measures pairs, `invoke calibrate` that difference"


def compare_launches(
    baseline: Samples,
    candidate: Samples,
    known: Circumstances,
    margin_percent: float = outcome.DEFAULT_MARGIN_PERCENT,
) -> Comparison:
    """Return the comparison of launches measured apart, one value for each launch and in one unit.

    Raises:
        UsageError: a side is empty, or holds a value that is missing, not finite, zero or negative.
    """
    groups = np.log(checked(baseline, "baseline")), np.log(checked(candidate, "candidate"))
    sizes = groups[0].size, groups[1].size
    effect = float(groups[1].mean() - groups[0].mean())
    inside, noise, method = _inside(groups, effect, known)
    remarks, caution = [], None
    if method == "none":
        known_starts = (
            "one engine start against one does not show"
            if sizes == (1, 1)
            else f"{sizes[0]} against {sizes[1]} engine starts do not show"
        )
        remarks.append(f"{known_starts} how much starts differ: {known.shown_by}")
    elif method == "calibrated" and known.noise is not None:
        spread = f"{known.noise.sd_percent:.2g} % between {known.noise.launches} launches"
        remarks.append(f"the interval rests on the spread of {spread}")
    if known.apart is not None and known.days is None:
        caution = f"the two were measured apart ({known.apart}), and the spread between days and hosts is unknown"
    elif known.apart is not None and known.days is not None and inside is not None:
        inside = _widened(inside, known.days)
        spread = f"{known.days.sd_percent:.2g} % between {known.days.records} earlier records"
        remarks.append(f"the interval holds the spread of {spread}")
    basis = outcome.Basis(
        metric=known.metric,
        method=method,
        unit="launch",
        units=sum(sizes),
        baseline_launches=sizes[0],
        candidate_launches=sizes[1],
        margin_percent=margin_percent,
        is_disturbed=known.is_disturbed,
    )
    planned = planning.plan(margin_percent, noise, _freedom(sizes, known, method), groups=2)
    return outcome.conclude(
        basis, effect, inside, noise=noise, planning=planned, remarks=tuple(remarks), caution=caution
    )


def _freedom(sizes: tuple[int, int], known: Circumstances, method: str) -> int:
    if method == "calibrated" and known.noise is not None:
        return known.noise.freedom
    return sum(sizes) - 2


def _inside(
    groups: tuple[FloatArray, FloatArray], effect: float, known: Circumstances
) -> tuple[LogInterval | None, float | None, str]:
    """Return the interval of the effect, the sd of one launch, and the method."""
    from scipy import special, stats  # noqa: PLC0415 - a second that other tasks need not pay

    sizes = groups[0].size, groups[1].size
    if min(sizes) >= WELCH_MINIMUM:
        noise = math.sqrt(sum(float(group.var(ddof=1)) for group in groups) / 2)
        if max(np.ptp(groups[0]), np.ptp(groups[1])) <= outcome.ROUNDING:
            return None, None, "welch-t"
        ends = stats.ttest_ind(groups[1], groups[0], equal_var=False).confidence_interval(1 - outcome.ALPHA)
        return _interval(float(ends.low), float(ends.high)), noise, "welch-t"
    if known.noise is None or known.noise.sd_percent <= 0:
        return None, None, "none"
    each = [known.noise.sd_of_launch(count) for count in known.requests]
    error = math.hypot(*(sd / math.sqrt(size) for sd, size in zip(each, sizes, strict=True)))
    reach = float(special.stdtrit(known.noise.freedom, 1 - outcome.ALPHA / 2)) * error
    return _interval(effect - reach, effect + reach), max(each), "calibrated"


def _interval(low: float, high: float) -> LogInterval:
    return outcome.LogInterval(low=low, high=high, confidence=1 - outcome.ALPHA)


def _widened(inside: LogInterval, days: DayNoise) -> LogInterval:
    """Return the interval with the spread between days or hosts, once for each side."""
    from scipy import special  # noqa: PLC0415 - time that other tasks need not pay

    middle, half = (inside.low + inside.high) / 2, (inside.high - inside.low) / 2
    reach = float(special.stdtrit(days.records - 1, 1 - outcome.ALPHA / 2)) * math.log1p(days.sd_percent / 100)
    half = math.hypot(half, math.sqrt(2) * reach)
    return _interval(middle - half, middle + half)
