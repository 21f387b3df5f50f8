"""Campaigns: measurements of many parts (the pairs of a comparison, the launches of a matrix, the presets of a batch).

The one way for them to be cut off and to go on. A folder has one lock, which the kernel releases however its process
ends, and one state, which is replaced whole after each part and removed with the last. What a part measured is in the
run records below the folder; the state says which parts are finished, and what was asked.
"""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import paths, schema
from bench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

STATE = "campaign.json"
KINDS = {"ab": ("ab", "pairs"), "matrix": ("bench", "launches"), "batch": ("bench", "presets")}
"""Of each kind the verb that goes on with it and what its parts are."""


@dataclass(slots=True, kw_only=True)
class Campaign:
    """A campaign whose lock this process holds; ``finished`` has the result of each part by its name, in order."""

    kind: str
    folder: Path
    asked: dict[str, Any]
    finished: dict[str, Any] = field(default_factory=dict)
    resumed: bool = False

    def finish(self, part: str, result: Any = None) -> None:
        """Keep that a part is finished; ``result`` is a JSON value.

        Raises:
            UsageError: the state cannot be written.
        """
        self.finished[part] = result
        self.write()

    def write(self) -> None:
        """Write the state over what was known before."""
        state = {
            "schema": "campaign",
            "schema_version": 1,
            "kind": self.kind,
            "id": self.folder.name,
            "asked": self.asked,
            "finished": [{"part": part, "result": result} for part, result in self.finished.items()],
        }
        schema.write(state, "campaign", self.folder / STATE, replace=True)

    def end(self) -> None:
        """Remove the state: nothing is missing, or nothing can be added."""
        (self.folder / STATE).unlink(missing_ok=True)

    @contextmanager
    def noting(self) -> Iterator[Campaign]:
        """Yield this; an interrupt takes a note of what is kept and of the command that goes on."""
        try:
            yield self
        except KeyboardInterrupt as interrupt:
            verb, parts = KINDS[self.kind]
            called = self.folder.name[-6:] if self.folder.parent == paths.runs().absolute() else self.folder
            interrupt.add_note(f"kept: {len(self.finished)} {parts}, {self.folder}")
            interrupt.add_note(f"to do: `invoke {verb} --resume {called}` goes on")
            raise


@contextmanager
def begin(kind: str, folder: Path, asked: dict[str, Any]) -> Iterator[Campaign]:
    """Begin a campaign in a fresh folder and hold its lock; ``asked`` is what it takes to go on.

    Raises:
        UsageError: the state cannot be written.
    """
    with hold(folder):
        campaign = Campaign(kind=kind, folder=folder, asked=asked)
        campaign.write()
        with campaign.noting():
            yield campaign


@contextmanager
def resume(folder: Path, *kinds: str) -> Iterator[Campaign]:
    """Take up the campaign in ``folder``, of one of these kinds, and hold its lock.

    Raises:
        UsageError: it is going on in another process, it has ended, or it is of another kind.
        InvalidDocument: its state violates its schema.
    """
    with hold(folder):
        state = read(folder, *kinds)
        campaign = Campaign(
            kind=state["kind"],
            folder=folder.absolute(),
            asked=state["asked"],
            finished={entry["part"]: entry["result"] for entry in state["finished"]},
            resumed=True,
        )
        with campaign.noting():
            yield campaign


def read(folder: Path, *kinds: str) -> dict[str, Any]:
    """Return the state of the campaign in ``folder``, of one of these kinds.

    Raises:
        UsageError: there is none, or it is of another kind.
        InvalidDocument: it violates its schema.
    """
    path = folder / STATE
    if not path.is_file():
        raise UsageError("there is nothing to resume: no campaign was cut off here", where=folder)
    state: dict[str, Any] = schema.read(path)
    schema.check(state, "campaign", path)
    if state["kind"] not in kinds:
        verb, _ = KINDS[state["kind"]]
        raise UsageError("another verb goes on with this", where=folder, todo=f"`invoke {verb} --resume {folder}`")
    return state


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder; a file system without locks of folders (some NFS) gives none.

    Raises:
        UsageError: another run holds it, whose process is named, or the folder is not there.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"cannot be opened: {error.strerror}", where=folder) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"this run is going on in {_holder(descriptor)}",
                where=folder,
                todo="wait for its end, or stop it (kill -TERM) and resume then",
            ) from error
        except OSError:
            pass
        yield
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    """Return the process that holds the lock of a folder, as proc_locks(5) tells."""
    inode = os.fstat(descriptor).st_ino
    try:
        known = re.search(rf"FLOCK +ADVISORY +WRITE (\d+) \w+:\w+:{inode} ", Path("/proc/locks").read_text("utf-8"))
    except OSError:
        known = None
    return "another process" if known is None or known[1] == "0" else f"process {known[1]}"
