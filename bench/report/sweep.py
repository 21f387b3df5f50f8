"""A sweep on the terminal: what it would measure, how far it is, and how it ended."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Self

from rich.console import Group
from rich.live import Live
from rich.text import Text

from bench.record.sweep import DONE, FAILED, LOST, RUNNING, STATES, STOPPED, WAITING
from bench.report import text
from bench.report.figures import duration, number
from bench.report.live import BEAT_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

    from rich.console import Console, RenderableType

    from bench.record.sweep import Row

SHOWN = 15
"""Cells that a live table lists; the others are counted."""
STYLES = {DONE: "green", FAILED: "red", RUNNING: "cyan", STOPPED: "yellow", LOST: "yellow"}
FIRST_SHOWN = (FAILED, STOPPED, LOST, RUNNING, WAITING, DONE)


def counted(rows: Iterable[Row]) -> str:
    """Return how many cells are in which state, in words."""
    states = Counter(row.state for row in rows)
    return ", ".join(f"{states[state]} {state}" for state in STATES if states[state])


class Progress:
    """A context that shows how far a sweep is: a table on a terminal, elsewhere a line for each cell that changes."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._began = self._said = clock()
        self._before: dict[str, tuple[str, str | None]] = {}
        self._told: str | None = None
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, rows: Sequence[Row], told: str | None) -> None:
        """Show the rows of all cells, and what is to be said besides."""
        if self._live is not None:
            self._live.update(_live_table(rows, told, self._clock() - self._began), refresh=True)
            return
        for row in rows:
            passes = row.state == WAITING and not row.is_stuck
            now = (row.state, None if passes else row.why)  # what it waits for changes all the time
            if self._before.get(row.id, (WAITING, None)) != now:
                self._say(_line(row))
            self._before[row.id] = now
        if told != self._told and told is not None:
            self._say(told)
        self._told = told
        if self._clock() - self._said >= BEAT_S:
            self._say(counted(rows))

    def _say(self, line: str) -> None:
        self._said = self._clock()
        text.line(self._console, f"[{self._said - self._began:6.1f} s] {line}")


def _line(row: Row) -> str:
    where = f" {row.where}" if row.where == "here" else f" on {row.where}" if row.where else ""
    figure = f", {number(row.total_ms, 'ms')}" if row.total_ms is not None else ""
    why = f": {row.why}" if row.why else ""
    return f"{row.id} {row.label}: {row.says}{where}{figure}{why}"


def _live_table(rows: Sequence[Row], told: str | None, elapsed_s: float) -> RenderableType:
    minutes, seconds = divmod(int(elapsed_s), 60)
    parts: list[RenderableType] = [Text(f"{minutes}:{seconds:02d}  {counted(rows)} of {_cells(len(rows))}")]
    if told is not None:
        parts.append(Text(told, style="yellow"))
    ordered = sorted(rows, key=lambda row: FIRST_SHOWN.index(row.state))
    parts.append(_table(ordered[:SHOWN]))
    if len(ordered) > SHOWN:
        parts.append(Text(f"and {len(ordered) - SHOWN} more", style="dim"))
    return Group(*parts)


def _table(rows: Iterable[Row]) -> Any:
    table = text.table("cell", "what", "state", "host", "end to end", "why", right=("end to end",))
    for row in rows:
        style = "yellow" if row.state == DONE and row.exit_code else STYLES.get(row.state, "dim")
        figure = "" if row.total_ms is None else number(row.total_ms, "ms")
        table.add_row(row.id[:6], row.label, Text(row.says, style=style), row.where or "", figure, row.why or "")
    return table


def show(rows: Sequence[Row], folder: str, console: Console, *, next_step: str, hosts: Sequence[str]) -> None:
    """Print how far each cell is, the logs of what failed, what is to be said of ``hosts``, and what to type next."""
    console.print(_table(rows))
    console.print()
    for row in rows:
        if row.state == FAILED and row.log is not None:
            text.line(console, f"log of {row.id[:6]}: {folder}/{row.log}")
    for line in hosts:
        text.line(console, line)
    text.line(console, f"{counted(rows)} of {_cells(len(rows))}")
    text.line(console, f"next: {next_step}")
    text.line(console, f"sweep: {folder}")


def _cells(count: int) -> str:
    return f"{count} cell{'' if count == 1 else 's'}"


def planned_line(name: str, label: str, gpus: int, minutes: float | None, *, is_finished: bool) -> str:
    """Return one line of a dry run: the cell, its GPUs, and about how long it takes."""
    about = "finished" if is_finished else "unknown length" if minutes is None else f"about {duration(60 * minutes)}"
    return f"{name}  {label}  {gpus} GPU{'' if gpus == 1 else 's'}, {about}"


def planned(count: int, minutes: float, unknown: int, gpu_hours: float, finished: int) -> str:
    """Return what a dry run comes to."""
    told = f"{_cells(count)}, {finished} of them finished"
    if count == unknown:
        return f"{told}; how long they take is unknown: this machine has no runs of their presets yet"
    rest = f", and {unknown} cells of unknown length" if unknown else ""
    on_gpus = f", {gpu_hours:.2g} GPU hours" if gpu_hours else ""
    return f"{told}; about {duration(60 * minutes)} one after the other{on_gpus}, by history{rest}"
