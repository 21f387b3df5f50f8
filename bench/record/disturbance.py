"""What disturbed a run: other work on its devices, and heat or clocks that made them slower."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Record = Mapping[str, Any]

CHECKS = {"gpu.idle": ("warn", "fail"), "gpu.clocks": ("fail",)}
"""The preflight checks that speak of a disturbance, and in which states. A limit that a user set is not one.

The load average is not among them: it still holds the engines of the run before. What others used is measured.
"""


CLOCKS = "gpu.clock_drop"
"""A clock that moved under load. At the card's own power limit, or a limit that was set, it moves for every user."""


def of(record: Record) -> tuple[str, ...]:
    """Return what disturbed the launches of a record, one phrase each; empty where nothing was seen."""
    before = [line["saw"] for line in record["preflight"] or () if line["state"] in CHECKS.get(line["id"], ())]
    return tuple(dict.fromkeys([*before, *_during(record, are_limits=False)]))


def of_load(record: Record) -> tuple[str, ...]:
    """Return what disturbed a load test, likewise."""
    return (*of(record), *shared(record))


def shared(record: Record) -> tuple[str, ...]:
    """Return what others used of the processors in a phase of a load test, if that was too much."""
    return tuple(check["says"] for check in record["checks"] if check["id"] == "machine" and check["held"] is False)


def limits(record: Record) -> tuple[str, ...]:
    """Return how the card's own limits moved its clocks, one phrase each; this does not count as disturbance."""
    return tuple(dict.fromkeys(_during(record, are_limits=True)))


def between(baseline: Sequence[Record], candidate: Sequence[Record]) -> dict[str, tuple[str, ...]]:
    """Return what disturbed a comparison, by the names of its sides: only those that were disturbed.

    A limit that only one side reached counts as a disturbance: it may be part of the difference.
    """
    sides = {"baseline": baseline, "candidate": candidate}
    limited = {name: _limited_by(records) for name, records in sides.items()}
    known = [limit for limit in limited.values() if limit is not None]
    both = frozenset.intersection(*known) if len(known) == len(sides) else None
    found = {}
    for name, records in sides.items():
        phrases = [phrase for record in records for phrase in of(record)]
        alone = [] if both is None else sorted((limited[name] or both) - both)
        phrases += [f"its clocks were limited ({limit}), the other side's were not" for limit in alone]
        if phrases:
            found[name] = tuple(dict.fromkeys(phrases))
    return found


def _limited_by(records: Iterable[Record]) -> frozenset[str] | None:
    """Return which limits held the clocks of any launch; None where no GPU was sampled."""
    seen = [gpu for record in records for launch in record["launches"] for gpu in launch["gpus_during"]]
    return frozenset(limit for gpu in seen for limit in gpu["limits"]) if seen else None


def _during(record: Record, *, are_limits: bool) -> list[str]:
    return [
        finding["text"]
        for finding in (record["verdict"] or {"findings": ()})["findings"]
        if finding["source"] == "device"
        # of the launch that it is of: `bench.run.watch` ends it in the limits that it saw
        and (finding["id"] == CLOCKS and finding["text"].endswith(")")) == are_limits
    ]
