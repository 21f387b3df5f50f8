"""Campaigns: measurements of many parts (pairs of a comparison, launches of a matrix, phases of a load test).

The one way for them to be cut off and to go on. A folder has one lock, which the kernel releases however its process
ends, and one state, which is replaced whole after each part and removed with the last. What a part measured is in the
run records below the folder; the state says which parts are finished, and what was asked.
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import paths, schema
from bench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

STATE = "campaign.json"
TO_DO = "to do: "
KINDS = {
    "ab": ("ab", "pair", "pairs"),
    "load": ("loadtest", "phase", "phases"),
    "load-ab": ("loadtest", "pair", "pairs"),
    "bisect": ("bisect", "comparison", "comparisons"),
    "matrix": ("bench", "launch", "launches"),
    "batch": ("bench", "preset", "presets"),
}
"""Of each kind the verb that goes on with it and what one and several of its parts are called."""


@dataclass(slots=True, kw_only=True)
class Campaign:
    """A campaign whose lock this process holds; ``finished`` has the result of each part by its name, in order."""

    kind: str
    folder: Path
    asked: dict[str, Any]
    finished: dict[str, Any] = field(default_factory=dict)
    resumed: bool = False
    named_again: tuple[str, ...] = ()
    """Words that whoever resumes has to type again, as no record chooses the code that is run."""

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
        """Yield this; an interrupt takes a note of what is kept and of the command that goes on.

        Of a campaign inside another one only what it kept is said: the outer one's command goes on with both. Without a
        state nothing is said: it has not begun, or nothing is missing.
        """
        try:
            yield self
        except KeyboardInterrupt as interrupt:
            if not (self.folder / STATE).is_file():
                raise
            kept = [note for note in getattr(interrupt, "__notes__", ()) if not note.startswith(TO_DO)]
            interrupt.__notes__ = kept
            interrupt.add_note(f"kept: {self.kept()}, {self.folder}")
            interrupt.add_note(f"{TO_DO}{self.way_on()}")
            raise

    def kept(self) -> str:
        """Return in words how many parts are finished."""
        count = len(self.finished)
        return f"{count} {KINDS[self.kind][1 if count == 1 else 2]}"

    def way_on(self) -> str:
        """Return in words the command that goes on."""
        called = self.folder.name[-6:] if self.folder.parent == paths.runs().absolute() else self.folder
        return f"`invoke {shlex.join([KINDS[self.kind][0], '--resume', str(called), *self.named_again])}` goes on"


@contextmanager
def begin(kind: str, folder: Path, asked: dict[str, Any], named_again: tuple[str, ...] = ()) -> Iterator[Campaign]:
    """Begin a campaign in a fresh folder and hold its lock; ``asked`` and ``named_again`` are what it takes to go on.

    Raises:
        UsageError: the state cannot be written.
    """
    with hold(folder):
        campaign = Campaign(kind=kind, folder=folder, asked=asked, named_again=named_again)
        with campaign.noting():
            campaign.write()
            yield campaign


@contextmanager
def resume(folder: Path, *kinds: str, named_again: tuple[str, ...] = ()) -> Iterator[Campaign]:
    """Take up the campaign in ``folder``, of one of these kinds, and hold its lock; ``named_again`` as of `begin`.

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
            named_again=named_again,
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
        raise UsageError("there is nothing to resume: nothing was cut off here", where=folder)
    state: dict[str, Any] = schema.read(path)
    schema.check(state, "campaign", path)
    if state["kind"] not in kinds:
        verb = KINDS[state["kind"]][0]
        raise UsageError(
            "a different command resumes this",
            where=folder,
            todo=f"`invoke {verb} --resume {shlex.quote(str(folder))}`",
        )
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
                f"this run is still in progress ({_holder(descriptor)})",
                where=folder,
                todo="wait for its end, or stop it (kill -TERM) and resume then",
            ) from error
        except OSError:
            pass
        yield
    finally:
        os.close(descriptor)


def is_going_on(folder: Path) -> bool:
    """Tell whether a process holds the lock of a campaign's folder."""
    if not (folder / STATE).is_file():
        return False
    try:
        with hold(folder):
            return False
    except UsageError:
        return True


def _holder(descriptor: int) -> str:
    """Return the process that holds the lock of a folder, as proc_locks(5) tells."""
    inode = os.fstat(descriptor).st_ino
    try:
        known = re.search(rf"FLOCK +ADVISORY +WRITE (\d+) \w+:\w+:{inode} ", Path("/proc/locks").read_text("utf-8"))
    except OSError:
        known = None
    return "another process" if known is None or known[1] == "0" else f"process {known[1]}"
