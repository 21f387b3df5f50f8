"""A bisection on the terminal: one row a comparison, what it came to, and what else the culprit changed."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any

from bench.report import reach, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import Console

HEADS = {
    "culprit": "culprit",
    "set": "not told apart",
    "inconclusive": "inconclusive",
    "endpoints-equal": "no culprit",
    "host-not-fit": "this host is not fit",
}
PIXELS = {True: "other pixels", False: "the same pixels", None: "pixels unknown"}
SHOWN_COMMITS = 8


def show(document: Mapping[str, Any], console: Console) -> None:
    """Print the comparisons of a bisection and its end; the text is the record's, nothing is judged here."""
    subjects = {document["good"]: "(good)"} | {entry["commit"]: entry["subject"] for entry in document["commits"]}
    table = text.table("comparison", "commit", "pairs", "seen", "", right=("pairs",))
    for known in document["comparisons"]:
        name = known["candidate"]
        table.add_row(
            known["why"], f"{name[:12]} {subjects.get(name, '')}".strip(), str(len(known["differences"])),
            _seen(known, document["design"]["what"]), known["skipped"] or "",
        )  # fmt: skip
    console.print(table)
    for commit in document["commits"]:
        if commit["skipped"] is not None:
            text.line(console, f"skipped: {commit['commit'][:12]} {commit['subject']}: {commit['skipped']}")
    for line in _end(document, subjects):
        text.line(console, line)
    if (about := document["about"]) is None:
        return
    if about.get("kernels"):
        reach.show_kernels(about["kernels"], console)
    text.line(console, f"again: {document['again']}")


def _seen(known: Mapping[str, Any], what: str) -> str:
    if not known["differences"]:
        return "nothing"
    if what == "fidelity":
        return PIXELS[known["differs"]]
    percent = 100 * math.expm1(statistics.fmean(known["differences"]))
    verdict = "" if known["verdict"] == "inconclusive" else f" ({known['verdict']})"
    return f"{percent:+.2f} %{verdict}"


def _end(document: Mapping[str, Any], subjects: Mapping[str, str]) -> Iterator[str]:
    yield f"{HEADS[document['outcome']]}: {_culprits(document, subjects)}{document['told']}"
    if document["dirty"]:
        yield "the checkout has uncommitted changes: they were left alone and not measured"
    if (about := document["about"]) is None:
        return
    yield f"effect: {document['effect'] or 'the pixels changed'}."
    if document.get("ends") and document["ends"] != document["effect"]:
        yield f"good against bad: {document['ends']}."
    yield about["files"][-1].strip() if about["files"] else "no file changed"
    for title, name in (("dependency pins", "pins"), ("server arguments", "flags"), ("quality", "quality")):
        if name in about:
            yield f"{title}: {'; '.join(about[name]) or 'unchanged'}"
    yield about["reach"] or f"reach: unknown, {about['reach_unknown']}"


def _culprits(document: Mapping[str, Any], subjects: Mapping[str, str]) -> str:
    names = document["culprits"]
    told = [f"{name[:12]} {subjects[name]}" for name in names[:SHOWN_COMMITS]]
    more = [f"and {len(names) - SHOWN_COMMITS} more"] if len(names) > SHOWN_COMMITS else []
    return "".join(f"{entry}; " for entry in [*told, *more])
