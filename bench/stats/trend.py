"""Whether samples depend on when they were taken: a trend over the session, and first requests that still fall."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.stats.samples import checked

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    trend = stats.kendalltau(np.arange(array.size), array)
    return Drift(
        tau=float(trend.statistic),
        p=float(trend.pvalue),
        slope=slope,
        session_percent=slope * (array.size - 1) / float(np.median(array)) * 100,
        drifting=bool(trend.pvalue < ALPHA),
    )


def _median_slope(array: FloatArray) -> float:
    from scipy import stats  # noqa: PLC0415 - a second that other tasks need not pay

    width = math.ceil(array.size / SLOPES_LIMIT)
    whole = array[: array.size // width * width].reshape(-1, width).mean(axis=1)
    return float(stats.theilslopes(whole).slope) / width


def drift_of_launches(launches: Sequence[Samples]) -> Drift | None:
    """Return the trend within launches, whose levels may differ; None where none has five samples.

    Kendall's score of each launch, summed (the seasonal test of R. M. Hirsch, J. R. Slack and R. A. Smith, Water
    Resources Research 18, 1982, a launch for a season), without correction for ties. The slope is the median of the
    launches' slopes, ``session_percent`` that over the longest launch.

    Raises:
        UsageError: a launch without samples, or one that is not a duration.
    """
    from scipy import special, stats  # noqa: PLC0415 - a second that other tasks need not pay

    arrays = [checked(samples, f"launch {number}") for number, samples in enumerate(launches, 1)]
    arrays = [array for array in arrays if array.size >= TREND_MINIMUM]
    if len(arrays) < 2:  # noqa: PLR2004 - one launch has the exact test
        return drift(arrays[0]) if arrays else None
    score = sum(
        float(np.sign(array[None, :] - array[:, None])[np.triu_indices(array.size, 1)].sum()) for array in arrays
    )
    pairs = sum(math.comb(array.size, 2) for array in arrays)
    variance = sum(size * (size - 1) * (2 * size + 5) / 18 for size in (array.size for array in arrays))
    p = float(2 * special.ndtr(-max(0.0, abs(score) - 1) / math.sqrt(variance)))
    slope = float(np.median([stats.theilslopes(array).slope for array in arrays]))
    longest = max(array.size for array in arrays)
    return Drift(
        tau=score / pairs,
        p=min(1.0, p),
        slope=slope,
        session_percent=slope * (longest - 1) / float(np.median(np.concatenate(arrays))) * 100,
        drifting=p < ALPHA,
    )


def warm_up_of_launches(launches: Sequence[Samples]) -> WarmUp | None:
    """Return the warm-up within launches: it is there if more than half of those with eight samples show it.

    ``falling`` and ``first_excess_percent`` are medians over these launches. None where no launch has eight samples.

    Raises:
        UsageError: a launch without samples, or one that is not a duration.
    """
    each = [known for samples in launches if (known := warm_up(samples)) is not None]
    if not each:
        return None
    return WarmUp(
        falling=int(np.median([known.falling for known in each])),
        first_excess_percent=float(np.median([known.first_excess_percent for known in each])),
        still_falling=2 * sum(known.still_falling for known in each) > len(each),
    )


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
