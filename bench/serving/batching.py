"""Dynamic batching under load: what the server merged, and how that compares with a server that merges nothing."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.record import phases
from bench.serving import arrivals
from bench.serving.command import DELAY_S

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.fallback.verdict import Verdict
    from bench.serving.arrivals import Arrivals
    from bench.serving.checks import Measured
    from bench.serving.outputs import Difference
    from bench.serving.queueing import Row

ALONE, BURSTS = "closed-1", phases.BURSTS
RECEIPT = "dynamic-batching"
FEWEST_BURSTS = 3
UNBATCHED = "unbatched"
"""Folder of the load test of a server that merges nothing, below that of one that may merge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """What bursts came to on one server: requests answered a second, and their mean latency in seconds.

    ``lone_latency_s`` is the median latency of a lone client's requests on the same server; None without one.
    """

    throughput_hz: float
    mean_latency_s: float
    lone_latency_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """What came of merging in bursts of as many requests as the server may merge; None: it cannot be known.

    ``receipt`` is the verdict's, ``sizes`` counts batches of two or more by their size. ``unbatched`` is what the same
    bursts came to on a server of this run that merges nothing. Of ``compared`` pictures ``differing`` are not those of
    a lone request.
    """

    most: int
    receipt: str | None
    sizes: Mapping[int, int] | None
    merged_share: float | None
    batched: Burst | None
    unbatched: Burst | None
    compared: int
    differing: int
    max_levels: int | None
    worst_psnr_db: float | None


def bursts(size: int, service_s: float, duration_s: float) -> Arrivals:
    """Return bursts of ``size`` requests at once, twice as far apart as the server takes for one after the other."""
    apart_s = 2 * size * service_s + DELAY_S
    count = max(FEWEST_BURSTS, int(duration_s / apart_s))
    times_s = tuple(number * apart_s for number in range(count) for _ in range(size))
    return arrivals.Arrivals(kind=arrivals.REPLAY, duration_s=count * apart_s, times_s=times_s)


def burst(measured: Sequence[Measured], size: int) -> Burst | None:
    """Return what the bursts among the phases of a server came to, None where none was answered whole."""
    phase = of_bursts(measured)
    by_burst: dict[float, list[Row]] = defaultdict(list)
    for row in () if phase is None else phase.rows:
        by_burst[row.intended_s].append(row)
    latencies = [[row.done_s - row.intended_s for row in rows] for rows in by_burst.values() if len(rows) == size]
    if not latencies:
        return None
    lasted_s = float(np.mean([max(burst) for burst in latencies]))
    alone = next((one.rows for one in measured if one.phase.name == ALONE), ())
    return Burst(
        throughput_hz=size / lasted_s,
        mean_latency_s=float(np.mean(latencies)),
        lone_latency_s=float(np.median([row.done_s - row.intended_s for row in alone])) if alone else None,
    )


def of_bursts(measured: Sequence[Measured]) -> Measured | None:
    """Return the phase of the bursts, or None."""
    return next((one for one in measured if one.phase.name == BURSTS), None)


def summary(
    most: int,
    verdict: Verdict | None,
    measured: Sequence[Measured],
    unbatched: Sequence[Measured],
    differences: Sequence[Difference],
) -> Batching | None:
    """Return what came of merging, None without bursts; ``unbatched`` are the phases of the server that merges none."""
    if (phase := of_bursts(measured)) is None:
        return None
    indices = {exchange.index for exchange in phase.phase.exchanges}
    differing = [item for item in differences if item.index in indices]
    known = [item.similarity for item in differing if item.similarity is not None]
    merged = None if phase.merged is None else sum(size * count for size, count in phase.merged.items())
    return Batching(
        most=most,
        receipt=_receipt(verdict),
        sizes=phase.merged,
        merged_share=None if merged is None else merged / max(len(phase.rows), 1),
        batched=burst(measured, most),
        unbatched=burst(unbatched, most),
        compared=len(phase.rows),
        differing=len(differing),
        max_levels=max((one.max_levels for one in known if one.max_levels is not None), default=None),
        worst_psnr_db=min((one.psnr_db for one in known if one.psnr_db is not None), default=None),
    )


def _receipt(verdict: Verdict | None) -> str | None:
    receipts = () if verdict is None else verdict.receipts or ()
    return next((receipt.result for receipt in receipts if receipt.id == RECEIPT), None)
