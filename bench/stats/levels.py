"""Levels in a series: where a new one begins, and values that jump between two."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.stats.samples import checked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.stats.samples import FloatArray, Samples

SMALLEST_SEGMENT = 3
"""A level is a level only if so many records in a row have it."""
FEWEST_RECORDS = 10
CHANGE_LEVEL = 0.001
GAP = 3.0
"""Two levels are further apart than this many times the spread of either."""
SMALLEST_GAP_PERCENT = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoLevels:
    """Values that lie at two levels with nothing between: the median of each, and how many values it has."""

    low: float
    high: float
    low_count: int
    high_count: int


def two_levels(samples: Samples) -> TwoLevels | None:
    """Return the two levels that launches or records jump between, None for fewer than four values or one level.

    The values are cut at their widest gap. Each side needs two values, and the gap has to be three times as wide as
    either side, and 3 %.

    Raises:
        UsageError: no sample, or one that is not a duration.
    """
    ordered = np.sort(checked(samples, "samples"))
    if ordered.size < 4:  # noqa: PLR2004 - two of each
        return None
    logs = np.log(ordered)
    gaps = np.diff(logs)
    cut = int(gaps.argmax()) + 1
    if not 2 <= cut <= ordered.size - 2:  # noqa: PLR2004 - two of each
        return None
    widest = max(float(np.ptp(logs[:cut])), float(np.ptp(logs[cut:])))
    if gaps[cut - 1] < max(GAP * widest, math.log1p(SMALLEST_GAP_PERCENT / 100)):
        return None
    return TwoLevels(
        low=float(np.median(ordered[:cut])),
        high=float(np.median(ordered[cut:])),
        low_count=cut,
        high_count=int(ordered.size - cut),
    )


def change_points(values: Sequence[float]) -> list[int]:
    """Return the places where a new level begins; none for fewer than ten records.

    Candidates come from an optimal partition of log values with a BIC penalty and the noise of successive differences.
    Those that Welch's t test of the neighbouring segments does not confirm at .001, the variance inflated by the
    residuals' lag-1 correlation, are merged, the weakest first (the second step of D. Daly et al., "Hunter: Using
    Change Point Detection to Hunt for Performance Regressions", ICPE 2023).
    """
    if len(values) < FEWEST_RECORDS:
        return []
    logs = np.log(np.asarray(values, dtype=float))
    tick = _tick(logs)
    steps = np.diff(logs)
    # the median absolute difference of two normal values is 0.954 of their standard deviation
    noise = max(float(np.median(np.abs(steps))) / 0.954, tick, 1e-6)
    if np.count_nonzero(steps) < steps.size / 2:  # few values, a coarse clock: the median sees no noise
        noise = max(noise, math.sqrt(float((steps**2).mean()) / 2))
    penalty = 3 * math.log(len(values)) * noise**2
    places = _partition(logs, penalty)
    while places:
        p_values = _p_values(logs, places, tick)
        weakest = int(np.argmax(p_values))
        if p_values[weakest] < CHANGE_LEVEL:
            break
        del places[weakest]
    return places


def _partition(logs: FloatArray, penalty: float) -> list[int]:
    """Return where the segments begin, but the first, that cost least: their squared residuals and a penalty for each.

    This is optimal partitioning (B. Jackson et al., IEEE Signal Processing Letters 12, 2005), without the pruning of
    PELT, which `ruptures` has: importing that takes longer than this takes for 10,000 records.
    """
    centred = logs - logs.mean()  # or the differences of sums would lose digits
    sums, squares = (np.concatenate([[0.0], np.cumsum(values)]) for values in (centred, centred**2))
    cost = np.full(logs.size + 1, np.inf)
    cost[0] = -penalty
    begin = np.zeros(logs.size + 1, dtype=int)
    for end in range(SMALLEST_SEGMENT, logs.size + 1):
        starts = end - SMALLEST_SEGMENT + 1
        residuals = (
            squares[end] - squares[:starts] - (sums[end] - sums[:starts]) ** 2 / np.arange(end, end - starts, -1)
        )
        totals = cost[:starts] + residuals + penalty
        begin[end] = np.argmin(totals)
        cost[end] = totals[begin[end]]
    places = []
    end = logs.size
    while end := int(begin[end]):
        places.append(end)
    return places[::-1]


def _tick(logs: FloatArray) -> float:
    """Return the step of a series that comes in few distinct values, 0 for one that does not."""
    distinct = np.unique(logs)
    if distinct.size < 3 or distinct.size > logs.size / 2:  # noqa: PLR2004 - two values may be two levels
        return 0.0
    return float(np.diff(distinct).min())


def _p_values(logs: FloatArray, places: Sequence[int], tick: float) -> FloatArray:
    """Return the p of each change between its two neighbouring segments."""
    from scipy import special  # noqa: PLC0415 - time that other tasks need not pay

    starts = np.array([0, *places])
    sizes = np.diff([*starts, logs.size])
    means = np.add.reduceat(logs, starts) / sizes
    residuals = logs - np.repeat(means, sizes)
    squares = np.add.reduceat(residuals**2, starts)
    square = float(squares.sum())
    correlation = 0.0 if square == 0 else max(0.0, float((residuals[1:] * residuals[:-1]).sum()) / square)
    inflation = (1 + correlation) / (1 - correlation)
    # rounding to a tick adds a twelfth of its square; equal values still have a spread, which the clock hides
    variances = squares / (sizes - 1) * inflation + tick**2 / 12 + 1e-12
    # the variance of each mean, its degrees of freedom, and those of a difference (B. L. Welch, Biometrika 34, 1947)
    of_means, free = variances / sizes, sizes - 1
    of_change = of_means[:-1] + of_means[1:]
    freedom = of_change**2 / (of_means[:-1] ** 2 / free[:-1] + of_means[1:] ** 2 / free[1:])
    return np.asarray(2 * special.stdtr(freedom, -np.abs(np.diff(means)) / np.sqrt(of_change)))
