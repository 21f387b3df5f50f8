"""A sweep as a page: how each cell ended, its number and its host, and which host is unlike the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.record.sweep import DONE, FAILED
from bench.report import plots
from bench.report.figures import number
from bench.report.page import Page, Sample
from bench.report.plots import Plot, axis, names, rows, tips
from bench.report.sweep import counted
from bench.report.tables import Table, columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.record.sweep import Row
    from bench.sweep.hosts import HostEffect

SHOWN = 60
"""Cells that the plot has room for; the table has all."""
ROW_HEIGHT = 22
RAN_ON = {"local": "one machine", "slurm": "Slurm", "kubernetes": "Kubernetes"}
WORST_FIRST = ("failed", "slower", "degraded", "void", "inconclusive")
"""Unwelcome results; what an outcome adds behind a colon is how much."""


def page(
    document: Mapping[str, Any], cells: Sequence[Row], hosts: Sequence[HostEffect], told: Sequence[str] = ()
) -> Page:
    """Return the page of a sweep; ``told`` is what is to be said of its hosts."""
    measured = [cell for cell in cells if cell.total_ms is not None]
    blocks: list[Plot | Table] = [_times(measured)] if measured else []
    blocks += [_cells(cells), *([_hosts(hosts)] if hosts else [])]
    return Page(
        kind="sweep",
        title=f"Sweep {document['name'].removeprefix('sweep-')}",
        answer=f"{counted(cells)} of {len(cells)} cell{'' if len(cells) == 1 else 's'}.",
        outcome=_outcome(cells),
        warnings=(*told, *(f"{cell.label}: {cell.state}: {cell.why}" for cell in cells if cell.state == FAILED)),
        facts=_facts(document, cells),
        blocks=tuple(blocks),
        documents={"sweep.json": document, "rows.json": [_values(cell) for cell in cells]},
        data=_data(cells),
        samples=tuple(_samples(document["name"], measured)),
    )


def _outcome(cells: Sequence[Row]) -> str:
    """Return the worst that can be said of any cell."""
    states, outcomes = {cell.state for cell in cells}, {(cell.outcome or "").partition(":")[0] for cell in cells}
    if FAILED in states:
        return FAILED
    if states != {DONE}:
        return "not finished"
    unwelcome = next((word for word in WORST_FIRST if word in outcomes), DONE)
    return "native" if outcomes == {"native"} else unwelcome


def _facts(document: Mapping[str, Any], cells: Sequence[Row]) -> tuple[tuple[str, str], ...]:
    kinds = dict.fromkeys(cell["kind"] for cell in document["cells"])
    hosts = sorted({cell.where for cell in cells if cell.where is not None})
    return (
        ("measured by", ", ".join(kinds)),
        ("ran on", RAN_ON[document["executor"]]),
        ("begun", document["started"][:16].replace("T", " ")),
        ("hosts", ", ".join(hosts) or "none yet"),
    )


def _times(measured: Sequence[Row]) -> Plot:
    shown = measured[:SHOWN]
    values = [
        {"cell": cell.label, "ms": cell.total_ms, "host": f"host {cell.where or 'unknown'}", "verdict": cell.outcome}
        for cell in shown
    ]
    first, last = (number(end(cell.total_ms or 0 for cell in measured), "ms") for end in (min, max))
    hidden = f" The first {SHOWN} of {len(measured)} cells." if len(measured) > SHOWN else ""
    return Plot(
        name="cells",
        title="End to end by cell",
        caption=f"The median of each cell's requests. Colour and shape are the host.{hidden}",
        alt=f"End-to-end times of {len(measured)} cells from {first} to {last}.",
        view={
            "height": ROW_HEIGHT * len({value["cell"] for value in values}) + ROW_HEIGHT,
            "data": rows(values),
            "params": [plots.ZOOM],
            "mark": {"type": "point", "size": 80},
            "encoding": {
                "y": names("cell"),
                "x": axis("ms", "end to end, ms"),
                "color": {"field": "host", "type": "nominal", "title": None},
                "shape": {"field": "host", "type": "nominal", "title": None},
                "tooltip": tips(cell="cell", host="host", verdict="verdict", ms="ms"),
            },
        },
    )


def _cells(cells: Sequence[Row]) -> Table:
    return Table(
        title="Cells",
        note="in the order in which they are begun; the record is below the sweep's folder",
        columns=columns("cell | what | state | verdict | host | >end to end | why | record"),
        rows=tuple(
            (
                cell.id[:6],
                cell.label,
                cell.state,
                cell.outcome or "",
                cell.where or "",
                "" if cell.total_ms is None else number(cell.total_ms, "ms"),
                cell.why or "",
                cell.record or cell.log or "",
            )
            for cell in cells
        ),
    )


def _hosts(hosts: Sequence[HostEffect]) -> Table:
    return Table(
        title="Hosts",
        note="how much longer the same cells take than on the median host; twice the standard error behind it",
        columns=columns("host | >cells | >difference | >± | "),
        rows=tuple(
            (
                one.host,
                str(one.cells),
                f"{one.percent:+.2f} %",
                f"{2 * one.error_percent:.2f} %",
                "outlier" if one.is_outlier else "",
            )
            for one in hosts
        ),
    )


def _values(cell: Row) -> dict[str, Any]:
    return {
        "cell": cell.id,
        "what": cell.label,
        "state": cell.state,
        "verdict": cell.outcome,
        "host": cell.where,
        "total_ms": cell.total_ms,
        "attempts": cell.attempts,
        "exit_code": cell.exit_code,
        "why": cell.why,
        "record": cell.record,
    }


def _data(cells: Sequence[Row]) -> tuple[tuple[object, ...], ...]:
    found = [_values(cell) for cell in cells]
    return (tuple(found[0]) if found else (), *(tuple(entry.values()) for entry in found))


def _samples(name: str, measured: Sequence[Row]) -> Iterator[Sample]:
    for cell in measured:
        labels = {
            "sweep": name,
            "cell": cell.id,
            "what": cell.label,
            "host": cell.where or "unknown",
            "verdict": cell.outcome or "unknown",
        }
        yield Sample(name="cell_total_seconds", value=(cell.total_ms or 0) / 1000, labels=labels)
