"""Signals on the terminal, and what an engine's source says about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from bench.report import text
from bench.report.verdict import STYLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from bench.catalog.signals import Signal
    from bench.upstream.emitters import Emitters


def show(signals: Sequence[Signal], console: Console) -> None:
    """Print one row for each signal."""
    table = text.table("signal", "severity", "only", "versions", "means")
    for signal in signals:
        severity = Text(signal.severity, style=STYLES.get(signal.severity, "dim"))
        table.add_row(signal.id, severity, ", ".join(signal.only), signal.versions or "all", signal.means)
    console.print(table)
    console.print(f"{len(signals)} signals")


def show_emitters(name: str, emitters: Emitters, console: Console) -> None:
    """Print what an engine's source says about the signals."""
    console.print(f"engine {name} (sglang {emitters.version}): {emitters.files} source files read")
    for signal in emitters.gone:
        console.print(f"gone: {signal.id}: no message of this version can match {signal.pattern!r}")
    for message in emitters.unheard:
        console.print(f"unheard: {message.file}:{message.line}: {message.text!r}")
    if not emitters.gone and not emitters.unheard:
        console.print("every signal has its emitter, and every message about a degradation has a signal or was triaged")
