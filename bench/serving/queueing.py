"""One server and its queue: capacity, utilisation, predicted waiting, and percentiles where they are earned.

The engine runs one request at a time, so D. V. Lindley's recursion ("The theory of queues with a single server", Proc.
Cambridge Phil. Soc. 48, 1952) on a run's own arrivals and service times predicts each latency. What it cannot explain
is foreign traffic, batching, a stalled HTTP loop or a fault of a clock.

The order is the one in which the server answered, not that of arrival: while it serves one request others arrive, and
the scheduler then takes all of them from a ZeroMQ ROUTER socket, which reads its connections in turn; each request has
one of its own (0.5.17, 0.5.23: `managers/scheduler.py`, `scheduler_client.py`). Who came later may be served first.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bench.stats.samples import checked
from bench.stats.summary import rank_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bench.serving.client import Exchange
    from bench.serving.outputs import Answer
    from bench.stats.samples import FloatArray, Samples

CONFIDENCE = 0.95
EARNED = {50: 6, 90: 44, 95: 90, 99: 459}
"""Requests that a percentile takes: those of MLPerf's early stopping at 99 % confidence with no failure allowed,
ceil(log(0.01) / log(p)), and for the median the six at which ranks give a 95 % interval (`stats.summary`)."""

BATCHES = 10
"""Waiting times are correlated: an interval comes from the means of this many stretches, not from the requests."""

SATURATED_UTILISATION = 0.95
SATURATED_SLOPE = 0.1
"""Seconds of latency gained for each second of the run; stable runs had up to .001, saturated ones .26 and more."""

HELD_GOODPUT = 0.95
"""The share of requests within the SLO at which a rate holds it."""

LATE_S, LATE_SHARE = 0.010, 0.05
"""The generator is late if the 99th percentile of its lateness exceeds the larger of 10 ms and 5 % of the service."""

EXPLAINED_S, EXPLAINED_SHARE = 0.020, 0.10
"""A predicted percentile agrees within the larger of 20 ms and 10 %."""

OVERHEAD_S, OVERHEAD_SHARE = 0.010, 0.05
"""More than this beside its service (saving, the answer: 1.5 to 3.6 ms were seen) is not a request's own."""

OK, SATURATED, GENERATOR_LATE, TOO_FEW, UNEXPLAINED = "ok", "saturated", "generator late", "too few", "unexplained"
LEAST_FOR_OVERHEAD = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value with its 95 % interval; ``low`` and ``high`` are None where there is too little to tell."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What the queue needs of one answered request; seconds from the start of the phase."""

    intended_s: float
    sent_s: float
    done_s: float
    service_s: float


def rows(answered: Iterable[tuple[Exchange, Answer]]) -> list[Row]:
    """Return the answers that came as they were asked for, as the queue needs them."""
    return [
        Row(intended_s=exchange.intended_s, sent_s=exchange.sent_s, done_s=exchange.done_s, service_s=answer.service_s)
        for exchange, answer in answered
        if answer.fault is None
        and answer.service_s is not None
        and exchange.sent_s is not None
        and exchange.done_s is not None
    ]


def lindley(arrivals_s: Samples, service_s: Samples, overhead_s: float = 0.0) -> FloatArray:
    """Return the time in the system of each request, in seconds, at one server that serves them in this order.

    ``overhead_s`` is what each request occupies the server beyond its service time.
    """
    arrivals, service = np.asarray(arrivals_s, dtype=np.float64), np.asarray(service_s, dtype=np.float64)
    latencies = np.empty_like(arrivals)
    free_s = -math.inf
    for index, (arrival, duration) in enumerate(zip(arrivals, service, strict=True)):
        free_s = max(arrival, free_s) + duration + overhead_s
        latencies[index] = free_s - arrival
    return latencies


def overhead_s(rows: Sequence[Row]) -> float:
    """Return what a request occupies the server beyond its service time: the median gap between answers while busy.

    Zero below ten such gaps: an idle server shows none. At most the larger of 10 ms and 5 % of the service: a constant
    that is fitted without a bound would explain foreign traffic too.
    """
    ordered = sorted(rows, key=lambda row: row.done_s)
    gaps = [
        later.done_s - earlier.done_s - later.service_s
        for earlier, later in itertools.pairwise(ordered)
        if later.sent_s < earlier.done_s
    ]
    if len(gaps) < LEAST_FOR_OVERHEAD:
        return 0.0
    most = max(OVERHEAD_S, OVERHEAD_SHARE * float(np.median([row.service_s for row in rows])))
    return float(np.clip(np.median(gaps), 0.0, most))


def batch_means(values: Samples) -> Estimate:
    """Return the mean with the 95 % interval that the means of ten consecutive stretches give (Student's t).

    Raises:
        UsageError: no value, or one that is not a duration.
    """
    array = checked(values, "values")
    mean = float(array.mean())
    if array.size < 2 * BATCHES:
        return Estimate(value=mean)
    means = np.array([batch.mean() for batch in np.array_split(array, BATCHES)])
    half = _t(BATCHES - 1) * float(means.std(ddof=1)) / math.sqrt(BATCHES)
    return Estimate(value=mean, low=mean - half, high=mean + half)


def _t(degrees: int) -> float:
    from scipy import stats  # noqa: PLC0415 - a second that other tasks need not pay

    return float(stats.t.ppf((1 + CONFIDENCE) / 2, degrees))


def service_s(rows: Sequence[Row]) -> Estimate | None:
    """Return the median service time in seconds with its interval from ranks, None below the six that it takes."""
    values = np.array([row.service_s for row in rows])
    if values.size < EARNED[50]:
        return None
    inside = rank_interval(values)
    low, high = (None, None) if inside is None else inside[:2]
    return Estimate(value=float(np.median(values)), low=low, high=high)


def capacity_hz(rows: Sequence[Row]) -> Estimate:
    """Return requests a second that the server can answer: one over the mean time that a request occupies it."""
    extra = overhead_s(rows)
    occupied = batch_means([row.service_s + extra for row in rows])
    return Estimate(
        value=1 / occupied.value,
        low=None if occupied.high is None else 1 / occupied.high,
        high=None if occupied.low is None or occupied.low <= 0 else 1 / occupied.low,
    )


def percentile(values: Samples, rank: int) -> float | None:
    """Return a percentile (linear between samples), None where too few requests earned it."""
    array = np.asarray(values, dtype=np.float64)
    return float(np.percentile(array, rank)) if array.size >= EARNED[rank] else None


def overtaken(rows: Sequence[Row]) -> int:
    """Return how many requests were answered after one that was sent later."""
    count, first_answer_s = 0, math.inf
    for row in sorted(rows, key=lambda row: row.sent_s, reverse=True):
        count += row.done_s > first_answer_s
        first_answer_s = min(first_answer_s, row.done_s)
    return count


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Lindley's percentiles beside the observed ones, seconds; ``explained`` None: too few requests to tell."""

    overhead_s: float
    p50_s: float | None
    p95_s: float | None
    observed_p50_s: float | None
    observed_p95_s: float | None
    explained: bool | None


def predict(rows: Sequence[Row]) -> Prediction:
    """Return what arrivals and service times alone predict for the phase.

    A request waits from its sending; what the generator was late is added, as it is in the observed latency.
    """
    ordered = sorted(rows, key=lambda row: row.done_s)
    extra = overhead_s(rows)
    inside = lindley([row.sent_s for row in ordered], [row.service_s for row in ordered], extra)
    predicted = inside + np.array([row.sent_s - row.intended_s for row in ordered])
    observed = [row.done_s - row.intended_s for row in ordered]
    pairs = [(percentile(predicted, rank), percentile(observed, rank)) for rank in (50, 95)]
    agreements = [_agrees(expected, seen) for expected, seen in pairs if expected is not None and seen is not None]
    return Prediction(
        overhead_s=extra,
        p50_s=pairs[0][0],
        p95_s=pairs[1][0],
        observed_p50_s=pairs[0][1],
        observed_p95_s=pairs[1][1],
        explained=all(agreements) if agreements else None,
    )


def _agrees(expected_s: float, observed_s: float) -> bool:
    return abs(expected_s - observed_s) <= max(EXPLAINED_S, EXPLAINED_SHARE * observed_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One phase at one rate. Rates in requests a second, times in seconds; None: too few requests, or not asked.

    ``offered`` counts what was due, ``answered`` what came back as it was asked for. Both rates are over one span, so
    that no more is achieved than was offered: in an open loop the time in which requests were due, and what came later
    is in ``backlog``; in a closed loop the whole phase. ``utilisation`` is measured: arrival rate times occupied time
    of this very phase. ``queue_share`` is the part of the mean latency that was not service. ``goodput`` is the share
    of all that was due that was answered as asked within the SLO; what failed is a miss. ``slope`` is latency gained
    for each second.
    """

    offered: int
    answered: int
    offered_hz: float
    achieved_hz: float
    utilisation: float | None
    mean_s: float | None
    p50_s: float | None
    p90_s: float | None
    p95_s: float | None
    p99_s: float | None
    queue_share: float | None
    goodput: float | None
    slope: float | None
    backlog: int
    lateness_p99_s: float | None
    prediction: Prediction | None
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A phase as the queue sees it: everything that was due, and of it what was answered as it was asked for.

    ``merges``: the server may merge requests, which have no service time of their own then.
    """

    duration_s: float
    ended_s: float
    offered: int
    lateness_s: Sequence[float]
    rows: Sequence[Row]
    open_loop: bool = True
    merges: bool = False


def level(observed: Observed, *, slo_s: float | None) -> Level:
    """Return the figures of one phase. Failures stay in the denominator of ``goodput``, and out of no count."""
    rows = sorted(observed.rows, key=lambda row: row.intended_s)
    latencies = np.array([row.done_s - row.intended_s for row in rows])
    service = np.array([row.service_s for row in rows])
    extra = overhead_s(rows)
    span_s = observed.duration_s if observed.open_loop else observed.ended_s
    offered_hz = observed.offered / span_s
    alone = observed.open_loop and not observed.merges
    utilisation = offered_hz * float(service.mean() + extra) if rows and alone else None
    slope = _slope(rows) if observed.open_loop else None
    late_s = float(np.percentile(np.asarray(observed.lateness_s), 99)) if len(observed.lateness_s) else None
    prediction = predict(rows) if rows and alone else None
    figures = Level(
        offered=observed.offered,
        answered=len(rows),
        offered_hz=offered_hz,
        achieved_hz=sum(row.done_s <= span_s for row in rows) / span_s,
        utilisation=utilisation,
        mean_s=float(latencies.mean()) if rows else None,
        p50_s=percentile(latencies, 50),
        p90_s=percentile(latencies, 90),
        p95_s=percentile(latencies, 95),
        p99_s=percentile(latencies, 99),
        queue_share=float(1 - service.sum() / latencies.sum()) if rows else None,
        goodput=None if slo_s is None else float((latencies <= slo_s).sum()) / max(observed.offered, 1),
        slope=slope,
        backlog=sum(row.done_s > observed.duration_s for row in rows) + observed.offered - len(rows),
        lateness_p99_s=late_s,
        prediction=prediction,
        flags=(),
    )
    flags = _flags(figures, float(np.median(service)) if rows else None, open_loop=observed.open_loop)
    return replace(figures, flags=flags)


def holds(level: Level) -> bool:
    """Tell whether 95 % of all that was due met the SLO, at a rate that did not saturate the server."""
    return (level.goodput or 0) >= HELD_GOODPUT and SATURATED not in level.flags


def _flags(figures: Level, service_p50_s: float | None, *, open_loop: bool) -> tuple[str, ...]:
    late_s = math.inf if service_p50_s is None else max(LATE_S, LATE_SHARE * service_p50_s)
    holding = {
        SATURATED: open_loop and is_saturated(figures.utilisation, figures.slope),
        GENERATOR_LATE: open_loop and (figures.lateness_p99_s or 0) > late_s,
        UNEXPLAINED: figures.prediction is not None and figures.prediction.explained is False,
        TOO_FEW: figures.answered < EARNED[95],
    }
    return tuple(flag for flag, holds in holding.items() if holds) or (OK,)


def is_saturated(utilisation: float | None, slope: float | None) -> bool:
    """Tell whether latencies grow with the length of the run, so that its percentiles describe nothing else."""
    return (utilisation or 0) >= SATURATED_UTILISATION or (slope or 0) >= SATURATED_SLOPE


def _slope(rows: Sequence[Row]) -> float | None:
    """Return the least-squares slope of latency over intended time, seconds a second; None for fewer than ten rows."""
    if len(rows) < LEAST_FOR_OVERHEAD:
        return None
    intended = np.array([row.intended_s for row in rows])
    if float(np.ptp(intended)) == 0:
        return None
    return float(np.polyfit(intended, [row.done_s - row.intended_s for row in rows], 1)[0])


def highest_rate(
    holds: Callable[[float], bool], low_hz: float, high_hz: float, *, precision: float = 0.05
) -> tuple[float | None, float | None]:
    """Return the highest rate that held and the lowest that did not, by bisection, None where neither was seen.

    ``holds`` runs one phase at a rate. Ends when the two are within ``precision`` of each other.
    """
    if not holds(low_hz):
        return None, low_hz
    if holds(high_hz):
        return high_hz, None
    held, missed = low_hz, high_hz
    while (missed - held) / missed > precision:
        middle = (held + missed) / 2
        if holds(middle):
            held = middle
        else:
            missed = middle
    return held, missed
