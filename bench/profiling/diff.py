"""What changed between two analyses, or between steps of one: more work, slower kernels, a slower clock, more idle.

Rows are matched on module, category, operator and shape; inside such a bucket a kernel that was renamed or fused shows
as "this x3 -> that x1". The difference of a bucket is parted in two: the change of its count at the old time of one
event is *work*, the rest is *speed*. All figures are means over the chosen steps, so that they add up.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from bench.errors import UsageError
from bench.profiling.categories import titles
from bench.profiling.document import listed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SCHEMA_VERSION = 1

BUCKET = itemgetter("module", "category", "operator", "shape")
ROW = itemgetter("module", "category", "operator", "shape", "kernel")
"""What rows of both sides are matched on: those of one bucket, and a single one."""

SHARED_FLOPS = 0.5
"""Sides whose matrix products have less than this share of their FLOPs in common shapes are of different workloads;
an optimisation changes some shapes, another resolution or model nearly all."""

BROAD_SHARE = 0.8
"""A slowdown that this share of the time takes part in is the device's, not that of some kernels."""

TAKES_PART = 0.25
"""A row takes part in a slowdown if it is slower by at least this share of the whole slowdown."""

NOTABLE = 0.02
"""A smaller change is noise: the steps of one run differ by this share (reference trace: 2 %)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """One operator on one shape in one kind of module, on both sides. Times in milliseconds of a mean step."""

    module: str
    category: str
    operator: str
    shape: str
    state: str
    a_per_step: float
    b_per_step: float
    a_ms: float
    b_ms: float
    delta_ms: float
    work_ms: float
    speed_ms: float
    within_spread: bool
    a_kernels: tuple[str, ...]
    b_kernels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepChange:
    """One step against the mean step of A, over the rows of equal count: how much slower, and how broadly."""

    side: str
    label: str
    ratio: float
    same_work: bool
    broad_share: float
    slower_clock: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The GPU analysis of a trace and the places of the steps that are taken."""

    gpu: Mapping[str, Any]
    places: tuple[int, ...]
    labels: tuple[str, ...]

    def mean(self, values: Sequence[float]) -> float:
        """Return the mean of a per-step value over the chosen steps."""
        return sum(values[place] for place in self.places) / len(self.places)

    def spread(self, values: Sequence[float]) -> float:
        """Return the largest less the smallest of a per-step value."""
        chosen = [values[place] for place in self.places]
        return max(chosen) - min(chosen)


def side(trace: Mapping[str, Any], name: str, steps: Sequence[str] | None) -> Side:
    """Return the chosen steps of a trace; the representative ones when ``steps`` is None.

    Raises:
        UsageError: the trace has no GPU events, or no such step.
    """
    gpu = trace["gpu"]
    where = trace["source"]["path"]
    if gpu is None:
        raise UsageError(
            f"{name} has no GPU events, and a diff compares GPU kernels only",
            where=where,
            todo="compare the two runs with `invoke compare`: their times are without the profiler",
        )
    labels = [step["label"] for step in gpu["steps"]]
    if not labels:
        return Side(gpu=gpu, places=(0,), labels=("whole trace",))
    if steps is None:
        places = [index for index, step in enumerate(gpu["steps"]) if step["role"] == "counted"]
    else:
        if unknown := [step for step in steps if step not in labels]:
            raise UsageError(
                f"{name} has no step {', '.join(unknown)}", where=where, todo=f"steps: {', '.join(labels)}"
            )
        places = [labels.index(step) for step in steps]
    if not places:
        raise UsageError(f"no step of {name} was selected", where=where, todo=f"steps: {', '.join(labels)}")
    return Side(gpu=gpu, places=tuple(places), labels=tuple(labels[place] for place in places))


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
            f"these traces are not comparable: {'; '.join(warnings)}",
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


def _grouped(side: Side) -> dict[tuple[str, ...], list[Mapping[str, Any]]]:
    found: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in side.gpu["rows"]:
        found.setdefault(BUCKET(row), []).append(row)
    return found


def _buckets(a: Side, b: Side) -> tuple[Bucket, ...]:
    old, new = _grouped(a), _grouped(b)
    found = [_bucket(key, old.get(key, []), new.get(key, []), a, b) for key in sorted(old.keys() | new.keys())]
    return tuple(sorted((one for one in found if one.a_ms or one.b_ms), key=lambda one: -abs(one.delta_ms)))


def _bucket(
    key: tuple[str, ...], old: list[Mapping[str, Any]], new: list[Mapping[str, Any]], a: Side, b: Side
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
    grouped: dict[str, list[Bucket]] = {}
    for bucket in buckets:
        grouped.setdefault(bucket.category, []).append(bucket)
    found = [
        {"id": category, "title": named[category]}
        | {name: sum(getattr(one, name) for one in members) for name in ("a_ms", "b_ms", "work_ms", "speed_ms")}
        for category, members in grouped.items()
    ]
    return sorted(found, key=lambda entry: -abs(entry["b_ms"] - entry["a_ms"]))


# --- what it means ----------------------------------------------------------------------------------------------------


def step_changes(a: Side, b: Side, *, same: bool) -> tuple[StepChange, ...]:
    """Return each chosen step of B, and of A where it is not the same, against the mean step of A."""
    base = {ROW(row): (a.mean(row["count"]), a.mean(row["time_ms"])) for row in a.gpu["rows"]}
    taken: set[str] = set()
    found = []
    for name, side in (("A", a), ("B", b)):
        for place, label in zip(side.places, side.labels, strict=True):
            if same and label in taken:
                continue
            taken.add(label)
            found.append(_step_change(name, label, place, side, base))
    return tuple(found)


def _step_change(
    name: str, label: str, place: int, side: Side, base: Mapping[tuple[str, ...], tuple[float, float]]
) -> StepChange:
    pairs = []
    same_work = True
    for row in side.gpu["rows"]:
        count, usual = base.get(ROW(row), (0.0, 0.0))
        if row["count"][place] != count:
            same_work = False
        elif usual:
            pairs.append((usual, row["time_ms"][place]))
    before, now = (sum(pair[at] for pair in pairs) for at in (0, 1))
    ratio = now / before if before else 1.0
    part = sum(usual for usual, time in pairs if time / usual - 1 >= TAKES_PART * (ratio - 1)) if ratio > 1 else 0.0
    broad = part / before if before else 0.0
    slower = ratio > 1 + NOTABLE and broad >= BROAD_SHARE
    return StepChange(
        side=name, label=label, ratio=ratio, same_work=same_work, broad_share=broad, slower_clock=slower and same_work
    )


def verdict(totals: Mapping[str, float], buckets: Sequence[Bucket], steps: Sequence[StepChange]) -> dict[str, Any]:
    """Return the kind of change, whether both sides did the same work, and a sentence with the figures."""
    work, speed, idle = totals["work_ms"], totals["speed_ms"], totals["idle_ms"]
    busy = totals["a_busy_ms"]
    slow = [f"{step.side}'s step {step.label} ({step.ratio:.2f} x)" for step in steps if step.slower_clock]
    same_work = all(bucket.a_per_step == bucket.b_per_step for bucket in buckets)
    largest = max((work, speed, idle), key=abs)
    if abs(largest) <= NOTABLE * busy:
        kind, text = "no change", f"{totals['delta_ms']:+.2f} ms a step: no more than steps of one run differ"
    elif largest == work:
        kind = "more work" if work > 0 else "less work"
        text = f"{work:+.2f} ms a step by kernels that appeared, vanished or changed in number"
    elif largest == idle:
        kind, text = ("more idle" if idle > 0 else "less idle"), f"{idle:+.2f} ms a step of idle time"
    elif speed < 0:
        kind, text = "faster kernels", f"{speed:+.2f} ms a step by the same kernels"
    elif _is_broad(buckets) or _is_by_steps(steps):
        kind = "slower clock"
        text = f"{speed:+.2f} ms a step, and nearly every kernel takes part"
        if not _is_broad(buckets):
            text = f"{speed:+.2f} ms a step, all of it in steps that are slower throughout"
    else:
        kind, text = "slower kernels", f"{speed:+.2f} ms a step by some kernels"
    if kind == "slower clock" or slow:
        text += ". A slower clock is inferred: a trace holds no clock"
    if slow:
        text += f". Slower throughout: {', '.join(slow)}"
    prefix = "same work, " if same_work and kind in {"slower clock", "slower kernels", "faster kernels"} else ""
    return {"kind": kind, "same_work": same_work, "sentence": f"{prefix}{kind}: {text}"}


def _is_broad(buckets: Sequence[Bucket]) -> bool:
    shared = [bucket for bucket in buckets if bucket.a_ms and bucket.a_per_step == bucket.b_per_step]
    before, now = sum(one.a_ms for one in shared), sum(one.b_ms for one in shared)
    if not before or now <= before:
        return False
    least = TAKES_PART * (now / before - 1)
    return sum(one.a_ms for one in shared if one.b_ms / one.a_ms - 1 >= least) >= BROAD_SHARE * before


def _is_by_steps(steps: Sequence[StepChange]) -> bool:
    """Tell whether B is slower only by steps that are slower throughout."""
    of_b = [step for step in steps if step.side == "B"]
    others = [step.ratio for step in of_b if not step.slower_clock]
    return len(others) < len(of_b) and (not others or sum(others) / len(others) <= 1 + NOTABLE)
