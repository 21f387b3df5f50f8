"""Whether samples depend on when they were taken: a trend over the session, and first requests that still fall."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.stats.samples import checked

if TYPE_CHECKING:
    from bench.stats.samples import FloatArray, Samples

ALPHA = 0.05
TREND_MINIMUM = 5
"""Fewer samples cannot reach p < .05: all in order have p = 2 / n!, and 2 / 4! is .083."""
SLOPES_LIMIT = 1_000
"""Above this many samples the slope is taken from means of neighbours: it looks at every pair."""
WARM_UP_MINIMUM = 8
WARM_UP_LEVEL = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """A trend over the order of the samples; ``drifting`` when p < .05.

    ``tau`` is Kendall's rank correlation with the order, ``p`` its two-sided p (exact for small n without ties),
    ``slope`` the change from one sample to the next in their unit, ``session_percent`` that slope from the first to the
    last sample in percent of the median. ``tau`` and ``p`` are None where all samples are equal.
    """

    tau: float | None
    p: float | None
    slope: float
    session_percent: float
    drifting: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """Leading samples above what the second half of the session lets expect, and by how much the first of all is.

    ``falling`` counts them, ``first_excess_percent`` is the first sample over the median of the second half.
    """

    falling: int
    first_excess_percent: float
    still_falling: bool


def drift(samples: Samples) -> Drift | None:
    """Return the trend of the samples over their order, None for fewer than five.

    Kendall's tau with the order (the Mann-Kendall trend test: H. B. Mann, Econometrica 13, 1945) and the median slope
    of all pairs (P. K. Sen, JASA 63, 1968): neither is moved by one outlier.

    Raises:
        UsageError: no sample, or one that is not a duration.
    """
    from scipy import stats  # noqa: PLC0415 - a second that other tasks need not pay

    array = checked(samples, "samples")
    if array.size < TREND_MINIMUM:
        return None
    slope = _median_slope(array)
    if np.ptp(array) == 0:
        return Drift(tau=None, p=None, slope=0.0, session_percent=0.0, drifting=False)
    found = stats.kendalltau(np.arange(array.size), array)
    return Drift(
        tau=float(found.statistic),
        p=float(found.pvalue),
        slope=slope,
        session_percent=slope * (array.size - 1) / float(np.median(array)) * 100,
        drifting=bool(found.pvalue < ALPHA),
    )


def _median_slope(array: FloatArray) -> float:
    width = math.ceil(array.size / SLOPES_LIMIT)
    whole = array[: array.size // width * width].reshape(-1, width).mean(axis=1)
    first, second = np.triu_indices(whole.size, 1)
    return float(np.median((whole[second] - whole[first]) / (second - first))) / width


def warm_up(samples: Samples) -> WarmUp | None:
    """Return whether the first samples still fall towards the level of the second half, None for fewer than eight.

    A leading sample counts while it lies above the one-sided 99 % prediction limit of one further sample,
    mean + t * sd * sqrt(1 + 1 / m) over the m samples of the second half (G. J. Hahn, JASA 64, 1969). A steady session
    shows one by chance in a hundred.

    Raises:
        UsageError: no sample, or one that is not a duration.
    """
    from scipy import special  # noqa: PLC0415 - time that other tasks need not pay

    array = checked(samples, "samples")
    if array.size < WARM_UP_MINIMUM:
        return None
    half = array.size // 2
    steady = array[half:]
    reach = float(special.stdtrit(steady.size - 1, 1 - WARM_UP_LEVEL)) * math.sqrt(1 + 1 / steady.size)
    # The sum of equal floats may round upwards, so the largest steady sample is a limit too.
    limit = max(float(steady.mean()) + reach * float(steady.std(ddof=1)), float(steady.max()))
    below = np.flatnonzero(array[:half] <= limit)
    falling = int(below[0]) if below.size else half
    return WarmUp(
        falling=falling,
        first_excess_percent=(float(array[0]) / float(np.median(steady)) - 1) * 100,
        still_falling=falling > 0,
    )
