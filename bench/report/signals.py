"""Signals on the terminal, and what an engine's source says about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from bench.engine import find, interpreter
from bench.errors import ThresholdMissed
from bench.report.verdict import STYLES
from bench.upstream import emitters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.catalog.signals import Signal
    from bench.upstream.emitters import Emitters


def show(signals: Sequence[Signal]) -> None:
    """Print one row for each signal."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for title in ("signal", "severity", "only", "versions", "means"):
        table.add_column(title, overflow="fold")
    for signal in signals:
        severity = f"[{STYLES.get(signal.severity, 'dim')}]{signal.severity}"
        table.add_row(signal.id, severity, ", ".join(signal.only), signal.versions or "all", signal.means)
    console = Console()
    console.print(table)
    console.print(f"{len(signals)} signals", highlight=False)


def check_engine(spec: str, signals: Sequence[Signal]) -> None:
    """Look signals up in an engine's source and print what is wrong.

    Raises:
        ThresholdMissed: a signal has lost its emitter, or a message about falling back has no signal.
    """
    engine = find.find(spec)
    found = emitters.check(interpreter.package(engine), signals, version=engine.version)
    _show_emitters(engine.name, found)
    if found.gone or found.unheard:
        raise ThresholdMissed(
            f"{len(found.gone)} signals without an emitter, {len(found.unheard)} messages without a signal",
            todo="mend the version or pattern in bench/catalog/signals/, or add a signal",
        )


def _show_emitters(name: str, found: Emitters) -> None:
    console = Console(highlight=False)
    console.print(f"engine {name} (sglang {found.version}): {found.files} source files read", markup=False)
    for signal in found.gone:
        console.print(f"gone: {signal.id}: no message of this version can match {signal.pattern!r}", markup=False)
    for message in found.unheard:
        console.print(f"unheard: {message.file}:{message.line}: {message.text!r}", markup=False)
    if not found.gone and not found.unheard:
        console.print("every signal has its emitter, and every message about falling back has a signal")
