"""Brings a sweep to its end: looks at the disk and at what the executor knows, and begins what is missing.

It holds nothing that is not on disk or in Slurm. Killed and begun again it goes on; a second one is refused.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from bench.errors import Interrupted
from bench.record.sweep import DONE, FAILED, LOST, RUNNING, STOPPED, WAITING, Row
from bench.sweep import executor
from bench.sweep import folder as folders
from bench.sweep.executor import Task

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from bench.sweep.executor import Executor, Seen
    from bench.sweep.folder import Folder

LOOK_SECONDS = 1.0
PINNED_SECONDS = 10_800.0
"""A cell that has to run on one host waits for it so long: others may use it for days."""


class Display(Protocol):
    """What is told how far the sweep is."""

    def update(self, rows: Sequence[Row], told: str | None) -> None:
        """Take the rows of all cells, and what is to be said besides."""


class Controller:
    """One run of a sweep's controller."""

    def __init__(self, folder: Folder, cells: Sequence[Mapping[str, Any]], on: Executor, *, retries: int) -> None:
        self._folder = folder
        self._cells = cells
        self._executor = on
        self._retries = retries
        self._lost: dict[str, int] = defaultdict(int)
        self._counted: dict[str, str] = {}
        """The job of each cell whose end was counted last."""
        self._stopped: dict[str, str] = {}
        """Why this controller begins a replica no more, though it has no result."""
        self._hopeless_since: dict[str, float] = {}
        self._results: dict[str, dict[str, Any]] = {}

    def run(self, display: Display) -> list[Row]:
        """Go on until every cell has ended and return the rows.

        The caller holds the folder's lock.

        Raises:
            Interrupted: the sweep was cancelled; nothing of it runs any more.
        """
        while True:
            seen = self._executor.look()
            rows = self._rows(seen or {}, silent=seen is None)
            display.update(rows, self._executor.silence)
            if self._folder.is_cancelled():
                self._executor.stop()
                display.update(self._rows(self._executor.look() or {}), None)
                raise Interrupted("the sweep was cancelled; nothing of it runs any more", where=self._folder.path)
            if all(row.has_ended for row in rows):
                return rows
            if seen is not None:
                self._drop_hopeless(seen)
                self._begin(rows, seen)
                if self._executor.silence is not None:  # it answered, and takes no job
                    display.update(rows, self._executor.silence)
            time.sleep(LOOK_SECONDS)

    def _rows(self, seen: Mapping[str, Seen], *, silent: bool = False) -> list[Row]:
        return [self._row(cell, seen.get(cell["id"]), silent=silent) for cell in self._cells]

    def _row(self, cell: Mapping[str, Any], seen: Seen | None, *, silent: bool) -> Row:
        name = cell["id"]
        result = self._results.get(name) or self._folder.result(name)
        if result is not None:
            self._results[name] = result
            return of_result(cell, result)
        if name in self._stopped:
            return Row(id=name, label=cell["label"], state=STOPPED, why=self._stopped[name])
        if silent:
            return Row(id=name, label=cell["label"], state=WAITING, why="Slurm does not answer")
        if seen is None:
            return Row(id=name, label=cell["label"], state=WAITING)
        return _of_seen(cell, seen)

    def _begin(self, rows: Sequence[Row], seen: Mapping[str, Seen]) -> None:
        """Begin what neither has ended nor is under way; give up what was lost too often."""
        tasks = list(self._missing(rows, seen))
        for name, reason in self._executor.begin(tasks).items():
            self._folder.give_up(name, f"it cannot be placed: {reason}")

    def _missing(self, rows: Sequence[Row], seen: Mapping[str, Seen]) -> Iterator[Task]:
        ended = {row.id for row in rows if row.has_ended}
        for cell, row in zip(self._cells, rows, strict=True):
            name, known = cell["id"], seen.get(cell["id"])
            if row.has_ended or (known is not None and known.state != executor.ENDED):
                continue
            attempts = self._folder.attempts(name)
            if known is not None and not self._may_go_on(name, attempts, known):
                continue
            avoid = self._avoided(cell, ended)
            if avoid is not None:
                yield Task(cell=cell, attempt=(attempts[-1] if attempts else 0) + 1, avoid=avoid)

    def _may_go_on(self, name: str, attempts: Sequence[int], known: Seen) -> bool:
        """Count a cell that ended without a result; give it up after so many losses, and tell whether it is not."""
        if self._counted.get(name) != known.job:  # it may wait for a device after it was counted
            self._counted[name] = known.job
            self._lost[name] += 1
        if self._lost[name] <= self._retries:
            return True
        status = self._folder.status(name, attempts[-1]) if attempts else None
        said = "" if status is None or status["reason"] is None else f"; it said: {status['reason']}"
        self._folder.give_up(name, f"lost {self._lost[name]} times without a result: {known.why}{said}")
        return False

    def _avoided(self, cell: Mapping[str, Any], ended: Collection[str]) -> tuple[str, ...] | None:
        """Return the hosts that a replica must not run on; None while it is not known where the one before runs.

        None as well if one before it has ``ended`` without a host: a result gives the replica up, a job that was
        stopped by hand only stops it, so that the next controller begins both.
        """
        hosts = []
        original = cell["id"].partition("-")[0]
        for number in range(1, cell["replica"]):
            name = original if number == 1 else f"{original}-{number}"
            host = self._host_of(name)
            if host is None:
                why = f"it needs another host than cell {name}, which"
                if name in self._results:
                    self._folder.give_up(cell["id"], f"{why} ran on none")
                elif name in ended:
                    self._stopped[cell["id"]] = f"{why} was stopped before it began"
                return None
            hosts.append(host)
        return tuple(dict.fromkeys(hosts))

    def _host_of(self, name: str) -> str | None:
        """Return where a cell ran or runs: its result says so, or its last attempt where the cell was given up."""
        attempts = self._folder.attempts(name)
        status = self._folder.status(name, attempts[-1]) if attempts else None
        hosts = [said["host"] for said in (self._results.get(name), status) if said is not None]
        return next((str(host["node"]) for host in hosts if host is not None), None)

    def _drop_hopeless(self, seen: Mapping[str, Seen]) -> None:
        """Take back the cells that have waited for a while for what will not come."""
        now = time.monotonic()
        pinned = {cell["id"]: cell["host"] for cell in self._cells if cell["host"] is not None}
        hopeless: dict[str, str] = {}
        for name, known in seen.items():
            waits = known.state == executor.WAITING
            patience_s = known.patience_s or (PINNED_SECONDS if waits and name in pinned else None)
            if patience_s is None:
                self._hopeless_since.pop(name, None)
            elif now - self._hopeless_since.setdefault(name, now) > patience_s:
                pinned_to = f"host {pinned.get(name)} was not free in {patience_s / 3600:g} hours"
                hopeless[name] = pinned_to if known.patience_s is None else str(known.why)
        if not hopeless:
            return
        self._executor.drop(list(hopeless))
        if self._executor.silence is not None:
            return  # they still wait, and are taken back once it answers
        for name, why in hopeless.items():
            self._folder.give_up(name, f"it cannot be placed: {why}")


def _of_seen(cell: Mapping[str, Any], seen: Seen) -> Row:
    return Row(
        id=cell["id"],
        label=cell["label"],
        state={executor.RUNNING: RUNNING, executor.STOPPED: STOPPED}.get(seen.state, WAITING),
        where=seen.where,
        why=seen.why,
        is_stuck=seen.patience_s is not None,
    )


def of_result(cell: Mapping[str, Any], result: Mapping[str, Any]) -> Row:
    """Return the row of a cell that has ended."""
    return Row(
        id=cell["id"],
        label=cell["label"],
        state=DONE if folders.has_answer(result) else FAILED,
        where=None if result["host"] is None else result["host"]["node"],
        why=result["reason"],
        attempts=result["attempt"],
        exit_code=result["exit_code"],
        outcome=result["outcome"],
        total_ms=result["total_ms"],
        record=result["record"],
        log=result["log"],
    )


def on_disk(folder: Folder, *, is_going_on: bool, alive: Mapping[str, Seen] | None) -> list[Row]:
    """Return the rows of a sweep as its folder tells them, and as Slurm does of its jobs that wait or run (``alive``).

    What runs without a controller was cut off; ``alive`` is None where Slurm is not asked.

    Raises:
        UsageError: this is not the folder of a sweep.
        InvalidDocument: a document of it violates its schema.
    """
    document = folder.read()
    follows = alive is None and (is_going_on or document["executor"] in (folders.SLURM, folders.KUBERNETES))
    return [_row(folder, cell, follows=follows, seen=(alive or {}).get(cell["id"])) for cell in document["cells"]]


def _row(folder: Folder, cell: Mapping[str, Any], *, follows: bool, seen: Seen | None) -> Row:
    """Return a cell's row; ``follows`` tells whether an attempt that says it runs is believed."""
    name = cell["id"]
    if (result := folder.result(name)) is not None:
        return of_result(cell, result)
    attempts = folder.attempts(name)
    status = folder.status(name, attempts[-1]) if attempts else None
    if seen is not None:
        row = _of_seen(cell, seen)
    elif status is None:
        row = Row(id=name, label=cell["label"], state=WAITING)
    else:
        state = RUNNING if status["state"] == folders.RUNNING and follows else LOST
        where = None if status["host"] is None else status["host"]["node"]
        row = Row(id=name, label=cell["label"], state=state, where=where, why=status["reason"])
    return row if status is None else replace(row, attempts=attempts[-1], log=status["log"])
