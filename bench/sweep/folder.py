"""A sweep's folder: its cells, what each attempt at one says of itself, and the results that decide.

    sweep.json                      the cells
    cancelled                       there while the sweep is cancelled
    cells/ID/ATTEMPT/status.json    written first and last by the attempt; its log and its runs are beside it
    cells/ID/result.json            the status of the attempt that decided: linked once, never replaced
    submissions/N.json              one job array of Slurm

Everything that a controller knows is here or in Slurm, so that it can be killed at any time. What must happen once is
an operation that a file system does once: an attempt begins by making its folder, and ends by linking its result.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench import paths, schema
from bench.errors import Inconclusive, ThresholdMissed, TimedOut, UsageError
from bench.record import store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from bench.sweep.cells import Cell

SWEEP, CANCELLED, STATUS, RESULT = "sweep.json", "cancelled", "status.json", "result.json"
RUNNING, FINISHED, TIMED_OUT, STOPPED, GIVEN_UP = "running", "finished", "timed out", "stopped", "given up"
PREFIX = "sweep-"
VOID = "void"
"""The job of a submission of which nothing is in Slurm."""
SLURM, KUBERNETES = "slurm", "kubernetes"
"""The executors whose jobs need no controller that is alive."""
ANSWERS = frozenset({0, ThresholdMissed.exit_code, Inconclusive.exit_code})
"""Exit codes of a verb that has measured what it was asked to, whatever came of it."""


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder of a sweep."""

    path: Path

    @classmethod
    def of(cls, name: str, root: Path | None) -> Folder:
        """Return the folder of the sweep that is called so; it need not be there."""
        return cls(((root or paths.runs()) / f"{PREFIX}{store.safe(name)}").absolute())

    def prepare(self) -> None:
        """Make the folder if it is not there.

        Raises:
            UsageError: it cannot be made.
        """
        try:
            (self.path / "cells").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"no folder can be made for the sweep: {error.strerror}", where=self.path, field="output_dir"
            ) from error

    def begin(self, name: str, executor: str, command: str, cells: Sequence[Cell]) -> dict[str, Any]:
        """Begin the sweep, or take it up with these cells, and return its document; the caller holds its lock.

        ``command`` is what to type to go on with it.

        Raises:
            UsageError: it cannot be written.
        """
        (self.path / CANCELLED).unlink(missing_ok=True)
        document = {
            "schema": "sweep",
            "schema_version": 1,
            "name": name,
            "executor": executor,
            "command": command,
            "started": store.now().isoformat(),
            "cells": [cell.document() for cell in cells],
        }
        schema.write(document, "sweep", self.path / SWEEP, replace=True)
        return document

    def read(self) -> dict[str, Any]:
        """Return the sweep's document.

        Raises:
            UsageError: this is not the folder of a sweep.
            InvalidDocument: its document violates its schema.
        """
        path = self.path / SWEEP
        if not path.is_file():
            raise UsageError("this is not the folder of a sweep", where=self.path, todo="it is called runs/sweep-NAME")
        document: dict[str, Any] = schema.read(path)
        schema.check(document, "sweep", path)
        return document

    def cell(self, name: str) -> dict[str, Any]:
        """Return one cell of the sweep; the others are not checked: there may be 10,000.

        Raises:
            UsageError: the sweep has no such cell.
            InvalidDocument: it violates its schema.
        """
        path = self.path / SWEEP
        for cell in schema.read(path)["cells"]:
            if cell.get("id") == name:
                schema.check(cell, "sweep-cell", path)
                known: dict[str, Any] = cell
                return known
        raise UsageError(f"this sweep has no cell {name}", where=path)

    def of_cell(self, name: str) -> Path:
        """Return the folder of a cell."""
        return self.path / "cells" / name

    def attempts(self, name: str) -> list[int]:
        """Return the numbers of the attempts that have begun at a cell, in order."""
        try:
            return sorted(int(entry.name) for entry in self.of_cell(name).iterdir() if entry.name.isdigit())
        except FileNotFoundError:
            return []

    def claim(self, name: str, attempt: int) -> Path | None:
        """Return the fresh folder of an attempt; None if another process has begun it."""
        path = self.of_cell(name) / str(attempt)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.mkdir()
        except FileExistsError:
            return None
        return path

    def status(self, name: str, attempt: int) -> dict[str, Any] | None:
        """Return what an attempt says of itself, None if it has not said anything.

        Raises:
            InvalidDocument: it violates its schema.
        """
        return _read(self.of_cell(name) / str(attempt) / STATUS)

    def result(self, name: str) -> dict[str, Any] | None:
        """Return the status of the attempt that decided, None if the cell is not finished.

        Raises:
            InvalidDocument: it violates its schema.
        """
        return _read(self.of_cell(name) / RESULT)

    def decide(self, status: dict[str, Any], place: Path) -> None:
        """Write the last status of an attempt to its folder and make it the cell's result, unless the cell has one."""
        write_status(status, place)
        with contextlib.suppress(FileExistsError):
            os.link(place / STATUS, self.of_cell(status["cell"]) / RESULT)

    def give_up(self, name: str, reason: str) -> None:
        """Make it a cell's result that it is given up, unless it has one."""
        self._end(status(name, 0, state=GIVEN_UP, reason=reason))

    def time_out(self, name: str, reason: str) -> None:
        """Make it a cell's result that its last attempt took too long, unless it has one."""
        attempt = max(self.attempts(name), default=0)
        known = self.status(name, attempt) or status(name, attempt)
        self._end({**known, "state": TIMED_OUT, "exit_code": TimedOut.exit_code, "reason": reason})

    def _end(self, status: dict[str, Any]) -> None:
        """Decide a cell from outside of its attempts."""
        place = self.of_cell(status["cell"]) / "given-up"
        place.mkdir(parents=True, exist_ok=True)
        self.decide({**status, "finished": store.now().isoformat()}, place)

    def forget_failed(self, names: Iterable[str]) -> None:
        """Take away the results of those of these cells that have no answer; what was measured stays."""
        for name in names:
            result = self.result(name)
            if result is not None and not has_answer(result):
                (self.of_cell(name) / RESULT).unlink()

    def cancel(self) -> None:
        """Tell every attempt and the controller, on whatever machine, that the sweep is cancelled."""
        (self.path / CANCELLED).touch()

    def is_cancelled(self) -> bool:
        """Whether the sweep is being cancelled."""
        return (self.path / CANCELLED).exists()

    def submissions(self) -> Iterator[dict[str, Any]]:
        """Yield the submissions to Slurm in order.

        Raises:
            InvalidDocument: one violates its schema.
        """
        for path in sorted((self.path / "submissions").glob("*.json"), key=lambda path: int(path.stem)):
            document = schema.read(path)
            schema.check(document, "sweep-submission", path)
            yield document

    def may_have_jobs(self) -> bool:
        """Whether anything of it was submitted to Slurm that is not known to be gone."""
        return any(submission["job"] != VOID for submission in self.submissions())

    def write_submission(self, submission: dict[str, Any], *, fresh: bool = False) -> None:
        """Write a submission; a ``fresh`` one must not be there yet."""
        folder = self.path / "submissions"
        folder.mkdir(exist_ok=True)
        schema.write(submission, "sweep-submission", folder / f"{submission['number']}.json", replace=not fresh)


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    document: dict[str, Any] = schema.read(path)
    schema.check(document, "cell-status", path)
    return document


def status(name: str, attempt: int, **known: Any) -> dict[str, Any]:
    """Return the status document of an attempt; what is not known is null."""
    unknown = dict.fromkeys(
        ("host", "process", "job", "started", "finished", "exit_code", "reason", "log", "record", "outcome", "total_ms")
    )
    return {"schema": "cell-status", "schema_version": 1, "cell": name, "attempt": attempt, **unknown, **known}


def has_answer(result: Mapping[str, Any]) -> bool:
    """Tell whether a cell was measured: its verb ended by itself, with a valid record."""
    return result["state"] == FINISHED and result["exit_code"] in ANSWERS and result["outcome"] is not None


def write_status(status: dict[str, Any], place: Path) -> None:
    """Write what an attempt says of itself over what it said before.

    Raises:
        UsageError: it cannot be written.
    """
    schema.write(status, "cell-status", place / STATUS, replace=True)
