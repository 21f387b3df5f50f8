"""What disturbed a run: other work on its devices, and heat or clocks that made them slower."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

CHECKS = {"gpu.idle": ("warn", "fail"), "gpu.clocks": ("fail",)}
"""The preflight checks that speak of a disturbance, and in which states. A limit that a user set is not one.

The load average is not among them: it still holds the engines of the run before. What others used is measured.
"""


def of(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what disturbed the launches of a record, one phrase each; empty where nothing was seen."""
    before = [line["saw"] for line in record["preflight"] if line["state"] in CHECKS.get(line["id"], ())]
    during = [finding["text"] for finding in record["verdict"]["findings"] if finding["source"] == "device"]
    return tuple(dict.fromkeys([*before, *during]))
