"""One attempt at a cell: a process that can die. It says so first, runs our own `invoke`, and says last how it ended.

Exit codes do not survive a scheduler, and a lost node's job may still run while it is begun again elsewhere. So an
attempt begins by making its folder, which only one process can; it ends itself as soon as a later attempt has begun,
the cell has a result or the sweep is cancelled; and of several that end only the first becomes the result.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import interrupts, paths, process, schema
from bench.errors import BenchError, TimedOut
from bench.machine import host
from bench.record import documents, store
from bench.sweep import folder as folders
from bench.sweep import outcome
from bench.sweep.executor import Unread
from bench.sweep.folder import Folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LOOK_SECONDS = 1.0
LOG, ERROR = "cell.log", "error: "
KILLED = 128
"""And the signal: what a program ends with that was killed from outside, which says nothing of the cell."""
STOPPED_BY = 130
"""The exit code of a verb that was interrupted: by us, or by the scheduler that stops everything of a job."""


class _Fence:
    """Looks while a verb runs whether it should go on; ``reason`` is why it was stopped."""

    def __init__(self, folder: Folder, name: str, attempt: int) -> None:
        self._folder, self._name, self._attempt = folder, name, attempt
        self._over = threading.Event()
        self.reason: str | None = None

    def look(self) -> str | None:
        """Return why the attempt should not go on, None if it should."""
        if self._folder.is_cancelled():
            return "the sweep was cancelled"
        if (self._folder.of_cell(self._name) / folders.RESULT).exists():
            return "another attempt has decided"
        if self._folder.attempts(self._name)[-1:] > [self._attempt]:
            return "a later attempt has begun"
        return None

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Look again and again until the block ends; stop the verb when it should not go on."""

        def watch() -> None:
            while not self._over.wait(LOOK_SECONDS):
                if self.reason is None:
                    with contextlib.suppress(OSError):
                        self.reason = self.look()
                if self.reason is not None:
                    process.stop_all()  # again and again: the verb may be about to start

        thread = threading.Thread(target=watch, name=f"fence of {self._name}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()


def run(place: Path, name: str, attempt: int) -> None:
    """Run an attempt at a cell unless another process has begun it or the cell is decided.

    Raises:
        KeyboardInterrupt: this process is stopped; the status says so, and nothing of the verb is left.
        BenchError: the sweep's documents cannot be read or written.
    """
    folder = Folder(place)
    cell = folder.cell(name)
    if folder.is_cancelled() or folder.result(name) is not None or (own := folder.claim(name, attempt)) is None:
        return
    known: dict[str, Any] = {
        "host": {"node": os.environ.get("SLURMD_NODENAME") or platform.node(), "identity": host.identity()},
        "process": os.getpid(),
        "job": _job(),
        "started": store.now().isoformat(),
        "log": str((own / LOG).relative_to(place)),
    }
    folders.write_status(folders.status(name, attempt, state=folders.RUNNING, **known), own)
    fence = _Fence(folder, name, attempt)
    try:
        with fence.watching():
            ended = _invoke(cell, own)
    except KeyboardInterrupt:
        reason = "the scheduler or a person stopped it"
        last = {**known, "state": folders.STOPPED, "reason": reason, "finished": store.now().isoformat()}
        folders.write_status(folders.status(name, attempt, **last), own)
        raise
    known["finished"] = store.now().isoformat()
    if fence.reason is not None or ended["exit_code"] >= KILLED:
        killed = f"it was killed by signal {ended['exit_code'] - KILLED}"
        why = "the scheduler or a person stopped it" if ended["exit_code"] == STOPPED_BY else killed
        why = fence.reason or why
        folders.write_status(folders.status(name, attempt, state=folders.STOPPED, **known, reason=why), own)
        return
    told = known | ended | _record(own, place, cell["kind"], ended)
    folder.decide(folders.status(name, attempt, **told), own)


def _job() -> str | None:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def _invoke(cell: Mapping[str, Any], own: Path) -> dict[str, Any]:
    """Run a cell's verb and return how it ended: state, exit_code, reason."""
    words = [*cell["words"], f"--output-dir={own / 'runs'}", *(["--", *cell["extra"]] if cell["extra"] else [])]
    ended = process.stream(
        [sys.executable, "-m", "invoke", *words],
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        log=own / LOG,
        observer=Unread(),
        cwd=paths.ROOT,
        timeout_s=cell["limit_s"],
    )
    if isinstance(ended.stopped_by, TimedOut):
        reason = f"stopped at its limit of {cell['limit_s'] / 60:g} minutes"
        return {"state": folders.TIMED_OUT, "exit_code": TimedOut.exit_code, "reason": reason}
    said = None if ended.exit_code == 0 else last_words(own / LOG)
    return {"state": folders.FINISHED, "exit_code": ended.exit_code, "reason": said}


def last_words(log: Path) -> str | None:
    """Return the error that a program ended with by its log, None if it printed nothing.

    An inconclusive answer has no prefix; the place and what to do stand below it, indented.
    """
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.lstrip() == line != ""]
    errors = [line.removeprefix(ERROR) for line in lines if line.startswith(ERROR)]
    return next(reversed(errors or lines), None)


def _record(own: Path, place: Path, kind: str, ended: Mapping[str, Any]) -> dict[str, Any]:
    """Return where an attempt's record is and what it says; one that violates its schema is not one."""
    for run in sorted((own / "runs").glob("[0-9]*-*")):
        for path in (run / name for name in (*documents.IN_DIRECTORIES, store.RECORD)):
            if not path.is_file():
                continue
            where = {"record": str(path.relative_to(place))}
            try:
                found = documents.validate(path)
            except BenchError as error:
                return where | {"reason": f"the record is not valid: {error.what}"}
            if found in outcome.DOCUMENTS[kind]:
                told = outcome.of(found, schema.read(path))
                return where | told | ({"reason": None} if told["outcome"] == ended["reason"] else {})
    return {} if ended["reason"] else {"reason": "it left no record"}


def in_slurm(place: str, name: str, first: int, retries: int) -> None:
    """Run an attempt in a job of Slurm, which counts how often it has requeued it after a lost or preempted node.

    Raises:
        KeyboardInterrupt: the job is cancelled or preempted.
    """
    _hear_signals()
    restarts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    if restarts > retries:
        Folder(Path(place)).give_up(name, f"lost {restarts} times: its node failed or it was preempted")
        return
    run(Path(place), name, first + restarts)


def _hear_signals() -> None:
    """Take SIGTERM, by which a job is ended, as Ctrl-C."""
    signal.signal(signal.SIGTERM, interrupts.heard)
    signal.signal(signal.SIGINT, interrupts.heard)


def main() -> None:
    """Run ``python -m bench.sweep.cell FOLDER CELL [ATTEMPT]``: how cells run where no scheduler counts attempts.

    It ends with 0 only if the cell has a result or the sweep is cancelled: Kubernetes begins again what ends otherwise.
    """
    _hear_signals()
    place, name, *given = sys.argv[1:]
    folder = Folder(Path(place))
    attempt = int(given[0]) if given else 1 + max(folder.attempts(name), default=0)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            run(folder.path, name, attempt)
        is_over = folder.is_cancelled() or folder.result(name) is not None
    except (BenchError, OSError) as error:
        sys.exit(f"{ERROR}{error}")
    if not is_over:
        sys.exit(STOPPED_BY)


if __name__ == "__main__":
    main()
