"""Two servers under the same load, for the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.record import disturbance
from bench.report import text
from bench.report.comparison import heads
from bench.report.load import PHASES, milliseconds, phase_cells, share

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import Console

    Document = Mapping[str, Any]

ARMS = ("baseline", "candidate")
RATES = ("offered/s", *(f"{name} {title}" for name in ARMS for title in ("held", "p50", "p95", "goodput")))
"""The columns of the rates' table."""

IDLE_PERCENT = 2
"""A server that uses more of a core than this while it waits disturbs the one that is measured."""


def show(document: Document, path: Path, console: Console, next_step: str) -> None:
    """Print the comparison of two servers and what one would type next; the last line is its path."""
    for line in lines(document):
        text.line(console, line)
    if document["rates"]:
        text.line(console, "")
        table = text.table(*RATES, right=RATES)
        for cells in rate_cells(document):
            table.add_row(*cells)
        console.print(table)
    text.line(console, f"next: {next_step}")
    text.line(console, f"record: {path}")


def show_records(
    document: Document,
    records: tuple[Document, Document],
    phases: Sequence[tuple[Document, Document]],
    notes: Sequence[str],
    console: Console,
) -> None:
    """Print the comparison of two load records; ``phases`` are the pairs of theirs that sent at the same times."""
    disturbed = disturbance.between([records[0]], [records[1]])
    for head in heads(records, (Path(document["baseline"]), Path(document["candidate"]))):
        text.line(console, f"{head}, one start")
    text.line(console, f"{_verdict(document, disturbed)}: {document['comparison']['reason']}.")
    for note in (*_disturbed(disturbed), *(f"differs: {note}" for note in notes)):
        text.line(console, note)
    if not phases:
        text.line(
            console, "no latency under load is compared: the two differ in arrival times (--rate, --arrival-seed)"
        )
        return
    table = text.table("arm", *PHASES, right=PHASES[1:-1])
    for pair in phases:
        for name, phase in zip(ARMS, pair, strict=True):
            table.add_row(name, *phase_cells(phase))
    console.print(table)


def lines(document: Document) -> Iterator[str]:
    """Yield the sentences of a comparison."""
    specs = (document["arms"][name]["spec"] or "default" for name in ARMS)
    yield "; ".join(f"{name}: {spec}" for name, spec in zip(ARMS, specs, strict=True))
    if not document["complete"]:
        yield f"CUT OFF: {document['failure']['what']}"
    outcomes = {pair[name]["verdict"] or "unattested" for pair in document["pairs"] for name in ARMS}
    yield f"verdict of both servers, {len(document['pairs'])} starts of each: {', '.join(sorted(outcomes)).upper()}"
    if document["differences"]:
        yield f"differs: {'; '.join(document['differences'])}"
    disturbed = document.get("disturbed", {})
    yield f"{_verdict(document, disturbed)}: unloaded {document['comparison']['reason']}."
    yield from _disturbed(disturbed)
    yield f"{document['capacity']['reason']}."
    yield document["why"]
    yield f"highest rate within the SLO of {milliseconds(document['slo_s'])}: {highest_rate(document)}"
    yield _pictures(document["pictures"])
    busiest = max((pair[name]["waiting_cpu_percent"] or 0 for pair in document["pairs"] for name in ARMS), default=0)
    frozen = "the server that waits was frozen"
    yield frozen if busiest <= IDLE_PERCENT else f"{frozen}, and used up to {busiest:.0f} % of a core nevertheless"


def _verdict(document: Document, disturbed: Mapping[str, Sequence[str]]) -> str:
    under = f" (measured under disturbance: {', '.join(disturbed)})" if disturbed else ""
    return f"{document['comparison']['verdict'].upper()}{under}"


def _disturbed(disturbed: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"disturbed, {name}: {'; '.join(phrases)}" for name, phrases in disturbed.items()]


def highest_rate(document: Document) -> str:
    """Return the highest rate that each arm held, and in how many pairs, in words."""
    rates, pairs = document["rates"], len(document["pairs"])
    offered = ", ".join(f"{rate['rate_hz']:.3g}/s" for rate in rates)
    if all(rate["known"][name] == pairs for rate in rates for name in ARMS):
        held = ", ".join(f"{name} {_rate(document, name)}" for name in ARMS)
        return f"{held} (of {offered}, in every pair)"
    held = ", ".join(f"{name} {_rate(document, name)} in {_telling(document, name)} of {pairs} pairs" for name in ARMS)
    return f"{held} (of {offered}; in the others the load generator was late)"


def _rate(document: Document, name: str) -> str:
    highest = document["highest_rate_hz"][name]
    if highest is None:
        return "none" if _telling(document, name) else "unknown"
    return f"{highest:.3g}/s"


def _telling(document: Document, name: str) -> int:
    """Return how many pairs an arm's highest rate rests on: the fewest that tell of it or of a lower one."""
    highest, rates = document["highest_rate_hz"][name], document["rates"]
    upto = rates[:1] if highest is None else [rate for rate in rates if rate["rate_hz"] <= highest]
    return min((rate["known"][name] for rate in upto), default=0)


def rate_cells(document: Document) -> Iterator[tuple[str, ...]]:
    """Yield the rows below `RATES`."""
    for rate in document["rates"]:
        cells = [f"{rate['rate_hz']:.3g}"]
        for name in ARMS:
            cells += [
                f"{rate['held'][name]} of {rate['known'][name]}",
                milliseconds(rate["p50_s"][name]),
                milliseconds(rate["p95_s"][name]),
                share(rate["goodput"][name]),
            ]
        yield tuple(cells)


def _pictures(pictures: Mapping[str, Any]) -> str:
    said = f"pictures: {pictures['equal']} of {pictures['compared']} seeds are equal in all pixels"
    if pictures["worst_psnr_db"] is None:
        return said
    return (
        f"{said}; the others differ by up to {pictures['max_levels']} of 255 (PSNR {pictures['worst_psnr_db']:.1f} dB)"
    )
