"""Spread on its levels: between launches, between the requests of a launch, and along the steps of a denoise loop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.errors import UsageError
from bench.stats.samples import checked
from bench.stats.summary import p95

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.stats.samples import Samples


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpread:
    """Samples grouped by launch, in their unit.

    ``medians`` has one median for each launch, ``median`` is the median of these. ``within_sd`` is the pooled standard
    deviation of the requests of a launch, ``between_sd`` that of the launches beyond what their requests explain;
    ``note`` says why either is None. The percent figures are of ``median``. ``sd_percent`` is the standard deviation of
    the logs of the launch medians, whatever it is made of: two launches are enough for it.
    """

    launches: int
    requests: tuple[int, ...]
    medians: tuple[float, ...]
    median: float
    within_sd: float | None
    within_percent: float | None
    between_sd: float | None
    between_percent: float | None
    sd_percent: float | None
    note: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSummary:
    """One denoise step over all requests; ``index`` counts from 0. ``mad`` is not scaled; None for one request."""

    index: int
    n: int
    median: float
    minimum: float
    maximum: float
    p95: float | None
    mad: float | None


def launch_spread(launches: Sequence[Samples]) -> LaunchSpread:
    """Return the spread within and between launches, each given as the samples of its requests.

    One-way random-effects analysis of variance (S. R. Searle, G. Casella, C. E. McCulloch, "Variance Components", 1992,
    section 3.6): within = MSW, between = (MSB - MSW) / n0. Where MSB is below MSW the between part is not zero but too
    small to be seen, so it is None.

    Raises:
        UsageError: no launch, a launch without samples, or a sample that is not a duration.
    """
    groups = [checked(samples, f"launch {number}") for number, samples in enumerate(launches, 1)]
    if not groups:
        raise UsageError("no launch to summarise")
    sizes = np.array([group.size for group in groups])
    total, count = int(sizes.sum()), len(groups)
    within = between = None
    notes = []
    within_square = None
    if total > count:
        within_square = sum(float(((group - group.mean()) ** 2).sum()) for group in groups) / (total - count)
        within = math.sqrt(within_square)
    else:
        notes.append("one request in a launch has no spread within it")
    means = np.array([group.mean() for group in groups])
    grand = float((sizes * means).sum() / total)
    if count == 1:
        notes.append("one launch says nothing about the spread between launches")
    else:
        between_square = float((sizes * (means - grand) ** 2).sum()) / (count - 1)
        typical_size = (total - float((sizes**2).sum()) / total) / (count - 1)
        component = (between_square - (within_square or 0.0)) / typical_size
        if component > 0:
            between = math.sqrt(component)
        else:
            notes.append("the launches differ no more than the requests inside them do")
        if within_square is None:
            notes.append("the spread between launches holds that between requests")
    medians = [float(np.median(group)) for group in groups]
    middle = float(np.median(medians))
    return LaunchSpread(
        launches=count,
        requests=tuple(int(size) for size in sizes),
        medians=tuple(medians),
        median=middle,
        within_sd=within,
        within_percent=None if within is None else within / middle * 100,
        between_sd=between,
        between_percent=None if between is None else between / middle * 100,
        sd_percent=math.expm1(float(np.log(medians).std(ddof=1))) * 100 if count > 1 else None,
        note="; ".join(notes) or None,
    )


def step_summaries(requests: Sequence[Samples]) -> tuple[StepSummary, ...]:
    """Return one summary for each denoise step, from the step durations of every request.

    Raises:
        UsageError: no request, requests with different numbers of steps, or a step that is not a duration.
    """
    rows = [checked(steps, f"steps of request {number}") for number, steps in enumerate(requests, 1)]
    if not rows:
        raise UsageError("no request with steps to summarise")
    for number, row in enumerate(rows, 1):
        if row.size != rows[0].size:
            raise UsageError(
                f"request {number} has {row.size} denoise steps where request 1 has {rows[0].size}",
                todo="summarise requests of one workload only",
            )
    table = np.array(rows)
    medians = np.median(table, axis=0)
    deviations = np.median(np.abs(table - medians), axis=0)
    return tuple(
        StepSummary(
            index=index,
            n=len(rows),
            median=float(medians[index]),
            minimum=float(column.min()),
            maximum=float(column.max()),
            p95=p95(column),
            mad=float(deviations[index]) if len(rows) > 1 else None,
        )
        for index, column in enumerate(table.T)
    )
