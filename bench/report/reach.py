"""What of a change ran, on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from bench.report import text
from bench.report.tables import short_kernel
from bench.safe_text import markdown as escaped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

RAN = {
    "request": "in the request",
    "warm-up": "only in the warm-up",
    "load": "only while loading",
    "import": "only at import",
    "never": "never",
    "compiled": "a kernel",
    "untraced": "not traced",
}
SHOWN_KERNELS, SHOWN_CHARACTERS = 20, 60
STYLES = {"request": "green", "never": "red", "import": "yellow", "load": "yellow", "warm-up": "yellow"}


def show(document: Mapping[str, Any], console: Console) -> None:
    """Print each part of a change with what became of it, then the summary."""
    if document["parts"]:
        rows = text.table("lines", "ran", "where, or why not")
        for part in document["parts"]:
            span = f"{part['first']}" if part["first"] == part["last"] else f"{part['first']}-{part['last']}"
            gone = " (gone)" if part["side"] == "gone" else ""
            ran = Text(RAN[part["ran"]], style=STYLES.get(part["ran"], ""))
            rows.add_row(Text(f"{part['file']}:{span}{gone}"), ran, Text("; ".join(_notes(part))))
        console.print(rows)
    for name in document["not_python"]:
        text.line(console, f"{name}: not Python, so no line of it can be traced")
    for name in document["only_comments"]:
        text.line(console, f"{name}: the same program; only comments, blank lines or layout differ")
    if document.get("kernels"):
        show_kernels(document["kernels"], console)
    for note in document["notes"]:
        text.line(console, f"note: {note}")
    text.line(console, document["sentence"])


def show_kernels(known: Mapping[str, Any], console: Console) -> None:
    """Print how often each side ran the kernels that differ, then what that comes to."""
    if known["changes"]:
        rows = text.table("kernel or operator", "base", "head", right=("base", "head"))
        for row in known["changes"][:SHOWN_KERNELS]:
            rows.add_row(Text(_short(row["name"])), str(row["base"]), str(row["head"]))
        console.print(rows)
        if (hidden := len(known["changes"]) - SHOWN_KERNELS) > 0:
            text.line(console, f"and {hidden} more in the record")
    text.line(console, known["sentence"])


def _short(name: str) -> str:
    return name if len(name) <= SHOWN_CHARACTERS else short_kernel(name)


def markdown(known: Mapping[str, Any]) -> str:
    """Return the kernels that differ as Markdown, all of them."""
    rows = (f"| {escaped(row['name'])} | {row['base']} | {row['head']} |" for row in known["changes"])
    table = ["", "| kernel or operator | base | head |", "|---|---:|---:|", *rows] if known["changes"] else []
    return "\n".join(["# Kernels", "", escaped(known["sentence"]), *table]) + "\n"


def _notes(part: Mapping[str, Any]) -> list[str]:
    return [*([", ".join(part["processes"])] if part["processes"] else []), *filter(None, [part["because"]])]
