"""A verdict on the terminal: the outcome, what decided it, the evidence, and whose implementation each component is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.padding import Padding
from rich.text import Text

from bench.report import text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

RECEIPT_STYLES = {"engaged": "", "asked, not engaged": "red", "no evidence": "yellow"}
STYLES = {"native": "bold green", "diffusers": "bold cyan", "degraded": "bold yellow", "invalid": "bold red"}


def parts(verdict: Mapping[str, Any], *, everything: bool = False, with_receipts: bool = False) -> list[RenderableType]:
    """Return what to print for a verdict document; ``everything`` adds evidence, components and receipts."""
    outcome = verdict["outcome"]
    held = sum(proof["holds"] for proof in verdict["evidence"])
    line = Text("verdict  ", style="dim")
    line.append(outcome.upper(), style=STYLES[outcome])
    line.append(f"  ({held} of {len(verdict['evidence'])} required pieces of evidence)")
    found: list[RenderableType] = [line]
    for first, *others in _decisive(verdict):
        found.append(Padding(_finding(first), (0, 0, 0, 2), expand=False))
        if others:
            found.append(Padding(_others(others), (0, 0, 0, 4), expand=False))
    if everything:
        found += [Text(), _evidence(verdict)]
        if verdict["components"]:
            found += [Text(), _components(verdict)]
    if with_receipts or (everything and verdict.get("receipts")):
        found += [Text(), _receipts(verdict.get("receipts"))]
        return found
    unproven = [receipt["asked"] for receipt in verdict.get("receipts") or () if receipt["result"] == "no evidence"]
    if unproven:
        found.append(Text(f"  no evidence that these engaged: {', '.join(unproven)}", style="yellow"))
    return found


def reasons(verdict: Mapping[str, Any]) -> list[str]:
    """Return why an outcome is degraded or invalid, one line for each category of findings; empty for any other."""
    return [
        f"{verdict['outcome']}: {first['id']}: {_meaning(first)} ({_place(first)})"
        + (f"; also {_named(others)}" if others else "")
        for first, *others in _decisive(verdict)
    ]


def _decisive(verdict: Mapping[str, Any]) -> list[list[Mapping[str, Any]]]:
    """Return the findings that make an outcome degraded or invalid, by category, those that say most first."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for finding in verdict["findings"]:
        if finding["severity"] == verdict["outcome"]:
            groups.setdefault(finding["category"], []).append(finding)
    # the one that names a component says most; the sort is stable, so otherwise the first line leads
    return [sorted(group, key=lambda finding: finding["component"] is None) for group in groups.values()]


def _meaning(finding: Mapping[str, Any]) -> str:
    return f"{finding['means']}{f' [{part}]' if (part := finding['component']) else ''}"


def _named(findings: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{finding['id']} ({_place(finding)})" for finding in findings)


def _others(findings: list[Mapping[str, Any]]) -> RenderableType:
    """Return the rest of a category in one line: mostly the same thing, said again."""
    also = Text("also: ", style="dim")
    also.append(_named(findings))
    return also


def _place(finding: Mapping[str, Any]) -> str:
    """Return where a finding was seen, in words."""
    return f"log line {finding['line']}" if finding["line"] is not None else str(finding["source"])


def _finding(finding: Mapping[str, Any]) -> RenderableType:
    times = f" ({finding['count']} times)" if finding["count"] > 1 else ""
    below = (0, 0, 0, 2)
    return Group(
        Text.assemble((f"{finding['id']}: ", "bold"), _meaning(finding)),
        Padding(Text(f"{_place(finding)}{times}: {finding['text']}", style="dim"), below),
        Padding(Text(f"to do: {finding['todo']}"), below),
    )


def _evidence(verdict: Mapping[str, Any]) -> RenderableType:
    table = text.table("evidence", "seen", "log line", right=("seen", "log line"))
    for proof in verdict["evidence"]:
        style = "" if proof["holds"] else "red"
        line = "-" if proof["line"] is None else str(proof["line"])
        seen, needed = proof["seen"], proof["needed"]
        told = f"{seen} of {needed}" if seen <= needed else f"{seen} ({needed} needed)"
        table.add_row(proof["proves"], told, line, style=style)
    return table


def _receipts(receipts: Sequence[Mapping[str, Any]] | None) -> RenderableType:
    """Return the receipts as a table, or why there are none."""
    if not receipts:
        return Text("receipts: none, no optional feature was asked for" if receipts == [] else "receipts: not recorded")
    table = text.table("asked", "receipt", "because", "log line", right=("log line",))
    for receipt in receipts:
        line = "-" if receipt["line"] is None else str(receipt["line"])
        style = RECEIPT_STYLES[receipt["result"]]
        cells = (receipt["asked"], receipt["result"], receipt["text"], line)
        table.add_row(*map(Text, cells), style=style)
    return table


def _components(verdict: Mapping[str, Any]) -> RenderableType:
    table = text.table("component", "class", "implementation", "log line", right=("log line",))
    for part in verdict["components"]:
        style = "" if part["implementation"] == "sgl-diffusion" else "yellow"
        table.add_row(part["name"], part["cls"], part["implementation"], str(part["line"]), style=style)
    return table
