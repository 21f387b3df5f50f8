"""The numbers of a run, from the documents of its requests: medians, their intervals, spread, and steps."""

from __future__ import annotations

import statistics as plain
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bench.errors import UsageError
from bench.run import metrics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.record.types import Instrument, InstrumentCost, Stage, StageTable, Timings

    Requests = Sequence[Mapping[str, Any]]

PRIMARY = "total_ms"
"""The metric that a run is judged by: its spread over launches, its flags, and what --precision is about.

What a user waits for is the client's wall clock, which `sglang generate` does not report; this is the part of it that
every dump has.
"""


def timings(requests: Requests, launches: Requests, *, medians_only: bool = False) -> Timings:
    """Return the numbers of a record: the median of each metric over the requests, and more for several.

    A metric that one request does not have is None. ``launches`` are the documents of the launches that served them.
    ``medians_only`` leaves out what takes time, while an engine waits for its next request.
    """
    several = len(requests) > 1 and not medians_only
    return {
        "requests": len(requests),
        "metrics": _medians(requests),
        "summary": {metric.key: _summary(requests, metric.key) for metric in metrics.METRICS} if several else None,
        "spread": _spread(requests) if several else None,
        "steps_ms": [] if medians_only else _steps(requests),
        "stages_ms": _stages(requests),
        "launch_s": _median([launch["wall_s"] for launch in launches if launch["wall_s"] is not None]),
        "wall_s": _median([request["wall_s"] for request in requests]),
        "load_s": _median([launch["load_s"] for launch in launches]),
        "first_answer_s": _median([launch["first_answer_s"] for launch in launches]),
        "outputs_identical": _identical(requests) if several else None,
    }


def stage_table(requests: Requests, instrument: Instrument) -> StageTable:
    """Return the stage table of a record, from the requests of the launch with synchronised stages."""
    return {
        "instrument": instrument,
        "launch": requests[-1]["launch"],
        "requests": len(requests),
        "metrics": _medians(requests),
        "stages_ms": _stages(requests),
    }


def instrument_cost(headline: Timings, stages: StageTable) -> InstrumentCost:
    """Return what synchronised stages add to the end-to-end and the denoise time, in percent; None is unknown."""

    def cost(key: str) -> float | None:
        plain_ms, with_sync = headline["metrics"][key], stages["metrics"][key]
        return round(100 * (with_sync / plain_ms - 1), 3) if plain_ms and with_sync is not None else None

    return {"total_ms": cost("total_ms"), "denoise_ms": cost("denoise_ms")}


def _median(values: list[float | None]) -> float | None:
    """Return the median; None without values, or where one is unknown."""
    known = [value for value in values if value is not None]
    return plain.median(known) if known and len(known) == len(values) else None


def _medians(requests: Requests) -> dict[str, float | None]:
    keys = (metric.key for metric in metrics.METRICS)
    return {key: _median([request["metrics"].get(key) for request in requests]) for key in keys}


def _by_launch(requests: Requests, key: str) -> list[list[float]] | None:
    """Return the values of a metric launch by launch, None where a request lacks it or took no time."""
    groups: dict[int, list[float]] = {}
    for request in requests:
        groups.setdefault(request["launch"], []).append(request["metrics"].get(key))
    return list(groups.values()) if all(value and value > 0 for group in groups.values() for value in group) else None


def _summary(requests: Requests, key: str) -> dict[str, Any] | None:
    from bench.stats import summary  # noqa: PLC0415 - scipy is behind it, which one request does not need

    groups = _by_launch(requests, key)
    return None if groups is None else asdict(summary.summarise_launches(groups))


def _spread(requests: Requests) -> dict[str, Any] | None:
    from bench.stats import spread  # noqa: PLC0415 - see _summary

    groups = _by_launch(requests, PRIMARY)
    return None if groups is None else asdict(spread.launch_spread(groups))


def _steps(requests: Requests) -> list[dict[str, Any]]:
    """Return one summary for each denoise step; none where the stage records no steps."""
    from bench.stats import spread  # noqa: PLC0415 - see _summary

    rows = [request["steps_ms"] for request in requests]
    if not all(rows):
        return []
    try:
        return [asdict(step) for step in spread.step_summaries(rows)]
    except UsageError:  # requests with another number of steps are refused long before
        return []


def _stages(requests: Requests) -> list[Stage]:
    """Return the median time of each stage that every request has, in the order of the first request."""
    times: dict[tuple[str, str], list[float]] = {}
    for request in requests:
        for stage in request["stages_ms"]:
            times.setdefault((stage["name"], stage["kind"]), []).append(stage["ms"])
    return [
        {"name": name, "ms": plain.median(values), "kind": kind}
        for (name, kind), values in times.items()
        if len(values) == len(requests)
    ]


def _identical(requests: Requests) -> bool | None:
    """Tell whether all requests made the same pixels (the same bytes where none were read); None without outputs."""
    made = {tuple(output["pixels_sha256"] or output["sha256"] for output in done["outputs"]) for done in requests}
    return None if made == {()} else len(made) == 1
