"""What changed between two analyses, or between steps of one: more work, slower kernels, a slower clock, more idle.

Rows are matched on module, category, operator and shape; inside such a bucket a kernel that was renamed or fused shows
as "this x3 -> that x1". The difference of a bucket is parted in two: the change of its count at the old time of one
event is *work*, the rest is *speed*. All figures are means over the chosen steps, so that they add up.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bench.errors import UsageError
from bench.profiling.categories import titles
from bench.profiling.diff_sides import Bucket, Side, side
from bench.profiling.diff_verdict import NOTABLE, step_changes, verdict
from bench.profiling.document import listed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SCHEMA_VERSION = 1

SHARED_FLOPS = 0.5
"""Sides whose matrix products have less than this share of their FLOPs in common shapes are of different workloads;
an optimisation changes some shapes, another resolution or model nearly all."""


def diff(
    a: Mapping[str, Any],
    b: Mapping[str, Any],
    *,
    a_steps: Sequence[str] | None = None,
    b_steps: Sequence[str] | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Return what changed from A to B (``schemas/profile-diff.json``).

    Args:
        a: a trace of a profile report, the baseline.
        b: another, or the same with other steps.
        a_steps: labels of the steps to take; the representative ones when None.
        b_steps: the same for B.
        force: compare other devices and workloads too, and say so.

    Raises:
        UsageError: a side has no GPU events or no such step, or device or workload differ and ``force`` is not set.
    """
    sides = side(a, "A", a_steps), side(b, "B", b_steps)
    warnings = _differences(a, b, sides)
    if warnings and not force:
        raise UsageError(
            f"these are not to be compared: {'; '.join(warnings)}",
            where=f"{a['source']['path']} and {b['source']['path']}",
            todo="compare the same workload on the same device, or force it",
        )
    buckets = _buckets(*sides)
    steps = step_changes(*sides, same=a is b)
    totals = _totals(*sides, buckets)
    document: dict[str, Any] = listed(
        {
            "schema_version": SCHEMA_VERSION,
            "a": _named(a, sides[0]),
            "b": _named(b, sides[1]),
            "warnings": warnings,
            "totals": totals,
            "verdict": verdict(totals, buckets, steps),
            "steps": [asdict(step) for step in steps],
            "categories": _categories(buckets),
            "buckets": [asdict(bucket) for bucket in buckets],
        }
    )
    return document


def _named(trace: Mapping[str, Any], side: Side) -> dict[str, Any]:
    return {"path": trace["source"]["path"], "rank": trace["source"]["rank"], "steps": side.labels}


def _flops(side: Side) -> dict[tuple[str, str], float]:
    """Return the FLOPs of a step by operator and shape, where they are known."""
    found: dict[tuple[str, str], float] = {}
    for row in side.gpu["rows"]:
        if row["flops"]:
            key = (row["operator"], row["shape"])
            found[key] = found.get(key, 0.0) + row["flops"] * side.mean(row["count"])
    return found


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], sides: tuple[Side, Side]) -> list[str]:
    found = []
    devices = [(trace["device"] or {}).get("name") for trace in (a, b)]
    if devices[0] != devices[1]:
        found.append(f"A ran on {devices[0]}, B on {devices[1]}")
    one, two = map(_flops, sides)
    least = min(sum(one.values()), sum(two.values()))
    if sum(min(one[key], two[key]) for key in one.keys() & two.keys()) < SHARED_FLOPS * least:
        found.append(
            "A and B share less than half of the FLOPs in matrix products of one shape: another shape or model"
        )
    return found


def _grouped(side: Side) -> dict[tuple[str, str, str, str], list[Mapping[str, Any]]]:
    found: dict[tuple[str, str, str, str], list[Mapping[str, Any]]] = {}
    for row in side.gpu["rows"]:
        found.setdefault((row["module"], row["category"], row["operator"], row["shape"]), []).append(row)
    return found


def _buckets(a: Side, b: Side) -> tuple[Bucket, ...]:
    old, new = _grouped(a), _grouped(b)
    found = [_bucket(key, old.get(key, []), new.get(key, []), a, b) for key in sorted(old.keys() | new.keys())]
    return tuple(sorted((one for one in found if one.a_ms or one.b_ms), key=lambda one: -abs(one.delta_ms)))


def _bucket(
    key: tuple[str, str, str, str], old: list[Mapping[str, Any]], new: list[Mapping[str, Any]], a: Side, b: Side
) -> Bucket:
    counts = [sum(side.mean(row["count"]) for row in rows) for side, rows in ((a, old), (b, new))]
    times = [sum(side.mean(row["time_ms"]) for row in rows) for side, rows in ((a, old), (b, new))]
    kernels = [
        tuple(f"{row['kernel']} x{side.mean(row['count']):g}" for row in rows if side.mean(row["count"]))
        for side, rows in ((a, old), (b, new))
    ]
    delta = times[1] - times[0]
    other = {row["kernel"] for row in old} != {row["kernel"] for row in new}
    work = 0.0
    if not counts[0] or not counts[1]:
        work = delta
    elif not other:
        work = (counts[1] - counts[0]) * times[0] / counts[0]
    # the spread of A alone: that of B may be the very change that is looked for
    spread = sum(a.spread(row["time_ms"]) for row in old)
    module, category, operator, shape = key
    return Bucket(
        module=module,
        category=category,
        operator=operator,
        shape=shape,
        state=_state(counts, times, other=other),
        a_per_step=counts[0],
        b_per_step=counts[1],
        a_ms=times[0],
        b_ms=times[1],
        delta_ms=delta,
        work_ms=work,
        speed_ms=delta - work,
        within_spread=bool(counts[0] and counts[1]) and abs(delta) <= spread,
        a_kernels=kernels[0],
        b_kernels=kernels[1],
    )


def _state(counts: Sequence[float], times: Sequence[float], *, other: bool) -> str:
    if not counts[0]:
        return "appeared"
    if not counts[1]:
        return "vanished"
    if other:
        return "other kernel"
    if counts[0] != counts[1]:
        return "more" if counts[1] > counts[0] else "fewer"
    if abs(times[1] - times[0]) <= NOTABLE * times[0]:
        return "same"
    return "slower" if times[1] > times[0] else "faster"


def _totals(a: Side, b: Side, buckets: Sequence[Bucket]) -> dict[str, float]:
    def mean(side: Side, name: str) -> float:
        steps = side.gpu["steps"]
        return side.mean([step[name] for step in steps]) if steps else float(side.gpu["median_step"][name])

    busy = [step["busy_ms"] for step in a.gpu["steps"]]
    return {
        "a_busy_ms": mean(a, "busy_ms"),
        "b_busy_ms": mean(b, "busy_ms"),
        "a_span_ms": mean(a, "span_ms"),
        "b_span_ms": mean(b, "span_ms"),
        "delta_ms": mean(b, "span_ms") - mean(a, "span_ms"),
        "work_ms": sum(bucket.work_ms for bucket in buckets),
        "speed_ms": sum(bucket.speed_ms for bucket in buckets),
        "idle_ms": (mean(b, "span_ms") - mean(b, "busy_ms")) - (mean(a, "span_ms") - mean(a, "busy_ms")),
        "spread_ms": a.spread(busy) if busy else 0.0,
    }


def _categories(buckets: Sequence[Bucket]) -> list[dict[str, Any]]:
    named = titles()
    found: dict[str, dict[str, Any]] = {}
    for bucket in buckets:
        entry = found.setdefault(
            bucket.category,
            {
                "id": bucket.category,
                "title": named[bucket.category],
                "a_ms": 0.0,
                "b_ms": 0.0,
                "work_ms": 0.0,
                "speed_ms": 0.0,
            },
        )
        for name in ("a_ms", "b_ms", "work_ms", "speed_ms"):
            entry[name] += getattr(bucket, name)
    return sorted(found.values(), key=lambda entry: -abs(entry["b_ms"] - entry["a_ms"]))
