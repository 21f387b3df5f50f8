"""What a cell's record says, in a few words: each kind of measurement writes a document of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.stats import comparison

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DOCUMENTS: Mapping[str, tuple[str, ...]] = {
    "bench": ("run-record", "matrix"),
    "ab": ("ab-record",),
    "loadtest": ("load-record", "load-comparison"),
    "accuracy": ("accuracy-report",),
    "profile": ("run-record", "load-record"),
}
"""The documents that a kind of cell may end with."""


def of(kind: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a cell's status holds of its record: the outcome in words and, of a run that counts, its time."""
    told: dict[str, Any] = {"outcome": _WORDS[kind](document)}
    if kind == "run-record" and document["timings"] is not None:
        told["total_ms"] = document["timings"]["metrics"]["total_ms"]
    return told


# ----------------------------------------------------------------------------------------------------------------------


def _of_run(document: Mapping[str, Any]) -> str:
    return str(document["verdict"]["outcome"])


def _of_matrix(document: Mapping[str, Any]) -> str:
    cells = document["cells"]
    return f"{sum(cell['exit_code'] == 0 for cell in cells)} of {len(cells)} count"


def _of_arms(document: Mapping[str, Any]) -> str:
    return comparison.in_words(document["comparison"])


def _of_load(document: Mapping[str, Any]) -> str:
    """Return the verdict and, where the checks let it count, the capacity."""
    capacity, voided = document["capacity_hz"], any(check["exit_code"] for check in document["checks"])
    counts = capacity is not None and not voided
    return _of_run(document) + (f": capacity {capacity['value']:.3g}/s" if counts else "")


def _of_accuracy(document: Mapping[str, Any]) -> str:
    return str(document["outcome"])


_WORDS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "run-record": _of_run,
    "matrix": _of_matrix,
    "ab-record": _of_arms,
    "load-record": _of_load,
    "load-comparison": _of_arms,
    "accuracy-report": _of_accuracy,
}
