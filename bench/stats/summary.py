"""Repeated samples of one duration, summarised: where the middle is, how well it is known, what lies outside.

All figures are in the unit of the samples. Nothing is dropped: outliers are marked and counted in every figure
(criterion.rs does the same). What the samples cannot tell is None, and a note says why.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bench.errors import UsageError
from bench.stats.samples import checked
from bench.stats.trend import Drift, WarmUp, drift, drift_of_launches, warm_up, warm_up_of_launches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.stats.samples import FloatArray, Samples

CONFIDENCE = 0.95
RESAMPLES = 4_999
SEED = 20_240_229
BCA_LIMIT = 2_000
"""Above this the jackknife of BCa (n^2 numbers) costs more than it gives; ranks are exact anyway."""
P95_MINIMUM = 20
"""With fewer samples no sample is expected above the 95th percentile, and what is printed would be the maximum."""
PRECISION_MINIMUM = 10
"""`known_well_enough` never stops before: intervals from fewer samples are too often narrow by chance."""
ALONE = "of this launch alone"
FEWEST_LAUNCHES = 3
"""The t interval of two launches is twelve times as wide as their spread: the two medians say more."""
MILD_FENCE = 1.5
SEVERE_FENCE = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An interval of the median; ``method`` is bca, ranks or t, ``note`` says why it is not bca (else None).

    ``scope`` says what it holds for: this launch alone, or all launches of the configuration.
    """

    low: float
    high: float
    confidence: float
    method: str
    note: str | None = None
    scope: str = ALONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlier:
    """A sample outside Tukey's fences: its 0-based place, ``side`` low or high, beyond 1.5 or (severe) 3 IQR."""

    index: int
    value: float
    side: str
    severe: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Samples of one duration in the order they were taken.

    ``sd`` is the standard deviation with n - 1, ``mad`` the median absolute deviation (not scaled), ``iqr`` the
    distance of the quartiles. ``interval_note`` says why the interval is missing.
    """

    n: int
    median: float
    mean: float
    minimum: float
    maximum: float
    interval: Interval | None
    interval_note: str | None
    p95: float | None
    sd: float | None
    mad: float | None
    iqr: float | None
    outliers: tuple[Outlier, ...]
    drift: Drift | None
    warm_up: WarmUp | None


def rank_interval(samples: FloatArray) -> tuple[float, float, float] | None:
    """Return (low, high, confidence) of the median from the ranks, None where so few samples cannot give it.

    Holds for any distribution (W. R. Thompson, Ann. Math. Statist. 7, 1936): the k-th smallest and k-th largest of n
    enclose the median with probability 1 - 2 P(Binomial(n, 1/2) < k). 95 % takes at least six samples.
    """
    from scipy import stats  # noqa: PLC0415 - a second that other tasks need not pay

    ends = stats.quantile_test(samples, p=0.5).confidence_interval(CONFIDENCE)
    if not (math.isfinite(ends.low) and math.isfinite(ends.high)):
        return None
    outside = int(stats.binom.ppf((1 - CONFIDENCE) / 2, samples.size, 0.5))
    return float(ends.low), float(ends.high), 1 - 2 * float(stats.binom.cdf(outside - 1, samples.size, 0.5))


def median_interval(samples: Samples) -> tuple[Interval | None, str | None]:
    """Return the interval of the median and None, or None and the reason why it is missing.

    The bias-corrected and accelerated bootstrap (B. Efron, "Better bootstrap confidence intervals", JASA 82, 1987),
    with a fixed seed so that a record gives the same interval whenever it is read; by ranks, with a note, where the
    bootstrap is degenerate or n is above 2,000. None below the n at which ranks reach the confidence: there the
    bootstrap would still give an interval, one that cannot be wide enough. With 8 samples of normal noise it misses the
    true median in some 8 % of cases instead of 5, with 20 in 5 % (`nox -s simulate`).

    Raises:
        UsageError: no sample, or one that is not a duration.
    """
    from scipy import stats  # noqa: PLC0415 - a second that other tasks need not pay

    array = checked(samples, "samples")
    ranks = rank_interval(array)
    if ranks is None:
        least = math.ceil(1 + math.log2(1 / (1 - CONFIDENCE)))
        return None, f"a median's {100 * CONFIDENCE:.0f} % interval needs {least} samples; there are {array.size}"
    if array.size > BCA_LIMIT:
        note = f"by ranks: more than {BCA_LIMIT} samples"
    elif np.ptp(array) == 0:
        note = "by ranks: all samples are equal, so there is nothing to resample"
    else:
        with warnings.catch_warnings():
            # A degenerate bootstrap warns and returns NaN; the NaN is what is looked at below.
            warnings.simplefilter("ignore")
            found = stats.bootstrap(
                (array,),
                np.median,
                confidence_level=CONFIDENCE,
                n_resamples=RESAMPLES,
                batch=max(1, 1_000_000 // array.size),
                method="BCa",
                vectorized=True,
                rng=np.random.default_rng(SEED),
            ).confidence_interval
        if math.isfinite(found.low) and math.isfinite(found.high):
            return Interval(low=float(found.low), high=float(found.high), confidence=CONFIDENCE, method="bca"), None
        note = "by ranks: the bootstrap is degenerate, too many samples are equal"
    low, high, achieved = ranks
    return Interval(low=low, high=high, confidence=achieved, method="ranks", note=note), None


def outliers(samples: Samples) -> tuple[Outlier, ...]:
    """Return the samples beyond Tukey's fences, 1.5 and 3 IQR outside the quartiles (J. W. Tukey, "EDA", 1977).

    Raises:
        UsageError: no sample, or one that is not a duration.
    """
    array = checked(samples, "samples")
    low, high = np.quantile(array, (0.25, 0.75))
    distance = np.maximum(low - array, array - high)
    # Fences of an IQR of 0 (most samples equal) mark every other sample, which is what stands out there.
    return tuple(
        Outlier(
            index=int(index),
            value=float(array[index]),
            side="low" if array[index] < low else "high",
            severe=bool(distance[index] > SEVERE_FENCE * (high - low)),
        )
        for index in np.flatnonzero((distance > MILD_FENCE * (high - low)) & (distance > 0))
    )


def p95(samples: FloatArray) -> float | None:
    """Return the 95th percentile (linear between samples), None for fewer than 20 samples."""
    return float(np.quantile(samples, 0.95)) if samples.size >= P95_MINIMUM else None


def summarise(samples: Samples) -> Summary:
    """Return the summary of samples in the order they were taken.

    Raises:
        UsageError: no sample, one that is missing, not finite, zero or negative.
    """
    array = checked(samples, "samples")
    interval, note = median_interval(array)
    median = float(np.median(array))
    several = array.size > 1
    low, high = np.quantile(array, (0.25, 0.75))
    return Summary(
        n=array.size,
        median=median,
        mean=float(array.mean()),
        minimum=float(array.min()),
        maximum=float(array.max()),
        interval=interval,
        interval_note=note,
        p95=p95(array),
        sd=float(array.std(ddof=1)) if several else None,
        mad=float(np.median(np.abs(array - median))) if several else None,
        iqr=float(high - low) if several else None,
        outliers=outliers(array),
        drift=drift(array),
        warm_up=warm_up(array),
    )


def launch_interval(medians: Sequence[float]) -> tuple[Interval | None, str | None]:
    """Return the t interval over the logs of launch medians and None, or None and why it is missing."""
    if len(medians) < FEWEST_LAUNCHES:
        shown = " and ".join(f"{median:.6g}" for median in medians)
        return None, f"an interval over launches needs {FEWEST_LAUNCHES}; there are {len(medians)}: {shown}"
    if np.ptp(medians) == 0:
        return None, "all launches have the same median: the clock is too coarse to show a spread"
    from scipy import stats  # noqa: PLC0415 - a second that other tasks need not pay

    ends = stats.ttest_1samp(np.log(medians), 0.0).confidence_interval(CONFIDENCE)
    scope = f"over {len(medians)} launches"
    low, high = math.exp(ends.low), math.exp(ends.high)
    return Interval(low=low, high=high, confidence=CONFIDENCE, method="t", scope=scope), None


def summarise_launches(launches: Sequence[Samples]) -> Summary:
    """Return the summary of the requests of several launches, each in the order they were taken.

    The interval is that of the launches: t over the logs of their medians, since requests of one launch are not
    independent samples of the configuration. Drift and warm-up are looked for within launches.

    Raises:
        UsageError: no launch, one without samples, or a sample that is not a duration.
    """
    groups = [checked(samples, f"launch {number}") for number, samples in enumerate(launches, 1)]
    if not groups:
        raise UsageError("no launch to summarise")
    if len(groups) == 1:
        return summarise(groups[0])
    interval, note = launch_interval([float(np.median(group)) for group in groups])
    pooled = summarise(np.concatenate(groups))
    return replace(
        pooled,
        interval=interval,
        interval_note=note,
        drift=drift_of_launches(groups),
        warm_up=warm_up_of_launches(groups),
    )


def known_well_enough(samples: Samples, precision: float) -> str | None:
    """Return why the median is known to +- ``precision`` (0.01 is 1 %) of itself, None while it is not.

    A stopping rule for `--precision`: call it after each request. It needs at least 10 samples. Who looks again and
    again stops at intervals that are narrow by chance: with a noise of 1 %, those it stops at miss the true median in
    7 to 14 % of sessions instead of 5 (docs/simulation.md).
    It says how long to measure one configuration; whether two differ is for `bench.stats.sequential`.

    Raises:
        UsageError: one of ten samples or more is not a duration, or a precision outside (0, 1).
    """
    if not 0 < precision < 1:
        raise UsageError(f"a precision must be between 0 and 1 (0.01 is 1 %), not {precision!r}")
    if len(samples) < PRECISION_MINIMUM:
        return None
    array = checked(samples, "samples")
    interval, _ = median_interval(array)
    half_width = math.inf if interval is None else (interval.high - interval.low) / 2 / float(np.median(array))
    if half_width > precision:
        return None
    return f"the median of {array.size} samples is known to {half_width * 100:.2g} %, {precision:.2%} is wanted"
