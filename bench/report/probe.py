"""What a device was measured at, on the terminal, beside what its maker says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.report import text
from bench.report.figures import NO_FIGURE, figure
from bench.report.profile_forms import grid
from bench.report.tables import Table, columns

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from rich.console import Console


def show(document: Mapping[str, Any], specified: Mapping[str, float], console: Console) -> None:
    """Print the rates of a device and what was left out; ``specified`` are the maker's, by data type and for memory."""
    device = document["device"]
    driver = f", driver {device['driver']}" if device["driver"] else ""
    threads = f", {document['threads']} threads" if document["threads"] else ""
    measured_in = f"measured in {document['seconds']:.1f} s"
    text.line(console, f"{device['name']}{driver}{threads}: torch {document['torch']}, {measured_in}")
    if phrases := document.get("disturbed"):
        told = f"{'; '.join(phrases)}: the rates are too low, measure again when nothing else runs here"
        text.line(console, told, head="measured under disturbance: ", style="yellow")
    console.print(grid(_table(document, specified), wide=True))
    reasons: dict[str, list[str]] = {}
    for one in document["left_out"]:
        reasons.setdefault(one["why"], []).append(one["what"])
    for why, what in reasons.items():
        text.line(console, f"left out: {'; '.join(what)} ({why})")


def _table(document: Mapping[str, Any], specified: Mapping[str, float]) -> Table:
    rows = []
    for one in document["gemm"]:
        name = f"{one['data_type']} product {one['m']}x{one['n']}x{one['k']}"
        rows.append(_row(name, one, one["tflops"], "TFLOP/s", specified.get(one["data_type"])))
    for one in document["attention"]:
        name = f"{one['data_type']} attention ({one['backend']}) {one['heads']}x{one['sequence']}x{one['head_size']}"
        rows.append(_row(name, one, one["tflops"], "TFLOP/s", specified.get(one["data_type"])))
    rows += [
        _row(f"copy of {one['bytes'] >> 20} MiB", one, one["tb_s"], "TB/s", specified.get("memory"))
        for one in document["copy"]
    ]
    return Table(
        title="Rates",
        note="rate of the median run, range of single runs; the maker's, where published, is of dense arithmetic",
        columns=columns("what | >rate | unit | >maker's | >of it | >runs | >median ms | >range ms"),
        rows=tuple(rows),
    )


def _row(what: str, one: Mapping[str, Any], rate: float, unit: str, maker: float | None) -> tuple[str, ...]:
    return (
        what,
        f"{rate:.3g}" if rate < 1 else figure(rate, 1 if rate >= 10 else 2),  # noqa: PLR2004 - three digits tell enough
        unit,
        NO_FIGURE if maker is None else f"{maker:g}",
        NO_FIGURE if maker is None else f"{100 * rate / maker:.0f} %",
        figure(one["runs"], 0),
        figure(one["median_ms"], 3),
        f"{one['least_ms']:.3f} to {one['most_ms']:.3f}",
    )
