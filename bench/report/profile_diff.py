"""What every form of a diff of two traces shows."""

from __future__ import annotations

from operator import itemgetter
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from bench.report.figures import figure
from bench.report.page import Page
from bench.report.profile_tables import figure_of
from bench.report.tables import Table, columns, listing, short_kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SHOWN_BUCKETS = 20
LEAST_MS = 0.005
"""Less is written as 0.00."""


def view(document: Mapping[str, Any]) -> Page:
    """Return the page of a diff."""
    tables = (_totals(document), _steps(document), _categories(document), _buckets(document))
    return Page(
        kind="profile diff",
        title=_title(document),
        answer=document["verdict"]["sentence"],
        outcome=document["verdict"]["kind"],
        warnings=tuple(document["warnings"]),
        blocks=tuple(table for table in tables if table.rows),
    )


def _title(document: Mapping[str, Any]) -> str:
    a, b = (
        f"{PurePath(side['path']).name} (step{'s' * (len(side['steps']) > 1)} {', '.join(side['steps'])})"
        for side in (document["a"], document["b"])
    )
    return f"From {a} to {b}"


def _signed(value: float) -> str:
    return figure(0.0) if abs(value) < LEAST_MS else f"{value:+.2f}"


def _change(name: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda entry: _signed(entry[name])


def _totals(document: Mapping[str, Any]) -> Table:
    totals = document["totals"]
    changes = (
        ("busy", figure(totals["a_busy_ms"]), figure(totals["b_busy_ms"]), totals["b_busy_ms"] - totals["a_busy_ms"]),
        ("of which work", "", "", totals["work_ms"]),
        ("of which speed", "", "", totals["speed_ms"]),
        ("idle", "", "", totals["idle_ms"]),
        ("span", figure(totals["a_span_ms"]), figure(totals["b_span_ms"]), totals["delta_ms"]),
    )
    return Table(
        title="The step",
        note=f"ms per step, means; the steps of A differ by {totals['spread_ms']:.2f} ms among themselves",
        columns=columns(" | >A | >B | >change"),
        rows=tuple((name, a, b, _signed(change)) for name, a, b, change in changes),
    )


def _steps(document: Mapping[str, Any]) -> Table:
    return listing(
        "Each step against the mean step of A",
        "over the kernels of equal number; broad: which share of the time is slower by its part",
        document["steps"],
        {
            "step": lambda step: f"{step['side']} {step['label']}",
            ">time": lambda step: f"{step['ratio']:.3f} x",
            ">broad": lambda step: f"{100 * step['broad_share']:.0f} %",
            "work": lambda step: "same" if step["same_work"] else "other",
            "": lambda step: "slower clock" if step["slower_clock"] else "",
        },
    )


def _categories(document: Mapping[str, Any]) -> Table:
    return listing(
        "By category",
        "ms per step; the change is parted in work and speed",
        document["categories"],
        {
            "category": itemgetter("title"),
            ">A": figure_of("a_ms"),
            ">B": figure_of("b_ms"),
            ">work": _change("work_ms"),
            ">speed": _change("speed_ms"),
        },
    )


def _buckets(document: Mapping[str, Any]) -> Table:
    return listing(
        "What changed most",
        f"the {SHOWN_BUCKETS} largest changes beyond the spread of A's own steps",
        _shown(document["buckets"]),
        {
            "operator": itemgetter("operator"),
            "shape": itemgetter("shape"),
            "module": lambda bucket: bucket["module"].rpartition(" > ")[2],
            "state": itemgetter("state"),
            ">n": _counts,
            ">A ms": figure_of("a_ms"),
            ">B ms": figure_of("b_ms"),
            ">change": _change("delta_ms"),
            "?kernels": _kernels,
        },
    )


def _shown(buckets: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    telling = [bucket for bucket in buckets if not bucket["within_spread"] and bucket["state"] != "same"]
    return [bucket for bucket in telling if abs(bucket["delta_ms"]) >= LEAST_MS][:SHOWN_BUCKETS]


def _counts(bucket: Mapping[str, Any]) -> str:
    a, b = bucket["a_per_step"], bucket["b_per_step"]
    return f"{a:g}" if a == b else f"{a:g} -> {b:g}"


def _kernels(bucket: Mapping[str, Any]) -> str:
    a, b = (" + ".join(map(_kernel, bucket[name])) or "-" for name in ("a_kernels", "b_kernels"))
    return a if a == b else f"{a} -> {b}"


def _kernel(text: str) -> str:
    name, _, count = text.rpartition(" x")
    return f"{short_kernel(name)} x{count}"
