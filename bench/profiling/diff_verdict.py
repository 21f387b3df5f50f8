"""What a diff means: more work, slower kernels, a slower clock, more idle; and which steps are to blame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.profiling.diff_sides import Side, StepChange

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.profiling.diff_sides import Bucket

BROAD_SHARE = 0.8
"""A slowdown that this share of the time takes part in is the device's, not that of some kernels."""

TAKES_PART = 0.25
"""A row takes part in a slowdown if it is slower by at least this share of the whole slowdown."""

NOTABLE = 0.02
"""A smaller change is noise: the steps of one run differ by this share (reference trace: 2 %)."""


def step_changes(a: Side, b: Side, *, same: bool) -> tuple[StepChange, ...]:
    """Return each chosen step of B, and of A where it is not the same, against the mean step of A."""
    base: dict[tuple[str, ...], tuple[float, float]] = {
        (row["module"], row["category"], row["operator"], row["shape"], row["kernel"]): (
            a.mean(row["count"]),
            a.mean(row["time_ms"]),
        )
        for row in a.gpu["rows"]
    }
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
        key = (row["module"], row["category"], row["operator"], row["shape"], row["kernel"])
        count, usual = base.get(key, (0.0, 0.0))
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
        text += "; a slower clock is inferred: a trace holds no clock"
    if slow:
        text += f"; slower throughout: {', '.join(slow)}"
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
