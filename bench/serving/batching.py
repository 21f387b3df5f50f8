"""Dynamic batching under load: what the server merged, and how that compares with one request at a time."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.serving import arrivals, queueing
from bench.serving.command import DELAY_S

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.fallback.verdict import Verdict
    from bench.serving.arrivals import Arrivals
    from bench.serving.checks import Measured
    from bench.serving.outputs import Difference
    from bench.serving.queueing import Row

ALONE, BURSTS = "closed-1", "bursts"
RECEIPT = "dynamic-batching"
FEWEST_BURSTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """What came of merging in bursts of as many requests as the server may merge; None: it cannot be known.

    ``receipt`` is the verdict's, ``sizes`` counts batches of two or more by their size. The changes are relative to
    one request at a time: `lone_latencies_s`. Of ``compared`` pictures ``differing`` are not those of a lone request.
    """

    most: int
    receipt: str | None
    sizes: Mapping[int, int] | None
    merged_share: float | None
    throughput_change: float | None
    mean_latency_change: float | None
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


def lone_latencies_s(size: int, alone: Sequence[Row]) -> list[float]:
    """Return the latencies that a burst would have one request at a time: Lindley's recursion over lone services.

    What a lone request took beside its service (HTTP, its picture) is added, without the delay that it waited for
    others.
    """
    service_s = float(np.mean([row.service_s for row in alone]))
    beside_s = float(np.mean([row.done_s - row.sent_s - row.service_s for row in alone])) - DELAY_S
    inside_s = queueing.lindley([0.0] * size, [service_s] * size)
    return [float(latency_s) + max(beside_s, 0.0) for latency_s in inside_s]


def summary(
    most: int, verdict: Verdict | None, measured: Sequence[Measured], differences: Sequence[Difference]
) -> Batching | None:
    """Return what came of merging, None without bursts to tell it from."""
    phases = {phase.phase.name: phase for phase in measured}
    if BURSTS not in phases or not (alone := phases[ALONE].rows):
        return None
    phase = phases[BURSTS]
    by_burst: dict[float, list[Row]] = defaultdict(list)
    for row in phase.rows:
        by_burst[row.intended_s].append(row)
    whole = [rows for rows in by_burst.values() if len(rows) == most]
    lone = lone_latencies_s(most, alone)
    latencies = [[row.done_s - row.intended_s for row in rows] for rows in whole]
    indices = {exchange.index for exchange in phase.phase.exchanges}
    differing = [item for item in differences if item.index in indices]
    known = [item.similarity for item in differing if item.similarity is not None]
    return Batching(
        most=most,
        receipt=_receipt(verdict),
        sizes=phase.merged,
        merged_share=None if phase.merged is None else _requests(phase.merged) / max(len(phase.rows), 1),
        throughput_change=max(lone) / float(np.mean([max(burst) for burst in latencies])) - 1 if whole else None,
        mean_latency_change=float(np.mean(latencies) / np.mean(lone)) - 1 if whole else None,
        compared=len(phase.rows),
        differing=len(differing),
        max_levels=max((one.max_levels for one in known if one.max_levels is not None), default=None),
        worst_psnr_db=min((one.psnr_db for one in known if one.psnr_db is not None), default=None),
    )


def _requests(sizes: Mapping[int, int]) -> int:
    return sum(size * count for size, count in sizes.items())


def _receipt(verdict: Verdict | None) -> str | None:
    receipts = () if verdict is None else verdict.receipts or ()
    return next((receipt.result for receipt in receipts if receipt.id == RECEIPT), None)
