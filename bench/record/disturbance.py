"""What disturbed a run: other work on its devices, and heat or clocks that made them slower."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

CHECKS = {"gpu.idle": ("warn", "fail"), "gpu.clocks": ("fail",)}
"""The preflight checks that speak of a disturbance, and in which states. A limit that a user set is not one.

The load average is not among them: it still holds the engines of the run before. What others used is measured.
"""


CLOCKS = "gpu.clock_drop"
"""A clock that moved under load. At the card's own power limit, or a limit that was set, it moves for every user."""


def of(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what disturbed the launches of a record, one phrase each; empty where nothing was seen."""
    before = [line["saw"] for line in record["preflight"] if line["state"] in CHECKS.get(line["id"], ())]
    return tuple(dict.fromkeys([*before, *_during(record, are_limits=False)]))


def limits(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return how a limit of the card moved its clocks, one phrase each; that is no disturbance."""
    return tuple(dict.fromkeys(_during(record, are_limits=True)))


def _during(record: Mapping[str, Any], *, are_limits: bool) -> list[str]:
    seen = [gpu for launch in record["launches"] for gpu in launch["gpus_during"]]
    limited = tuple(f"GPU {gpu['index']}:" for gpu in seen if gpu["limits"])
    return [
        finding["text"]
        for finding in record["verdict"]["findings"]
        if finding["source"] == "device"
        and (finding["id"] == CLOCKS and finding["text"].startswith(limited)) == are_limits
    ]
