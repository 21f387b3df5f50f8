"""Where cells run: what a controller asks of an executor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """An attempt at a cell that is to be begun, not on the hosts ``avoid``."""

    cell: Mapping[str, Any]
    attempt: int
    avoid: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What an executor knows of a cell it was given: it is waiting (why), running (where), or has ended (how)."""

    state: str
    job: str = ""
    """Which of the jobs that it was given for the cell this is: two of them may end between two looks."""
    where: str | None = None
    why: str | None = None
    patience_s: float | None = None
    """It waits for what will hardly come: so long it may; None: as long as it takes."""


WAITING, RUNNING, ENDED, STOPPED = "waiting", "running", "ended", "stopped"
"""stopped: from outside of the sweep, by hand; it is not begun again by itself."""


class Unread:
    """The observer of a log that nobody reads while it grows."""

    def observe(self, block: bytes, first_line: int) -> None:
        """Take a block of lines."""


class Executor(Protocol):
    """Begins attempts and knows what became of them; ``silence`` is why it cannot be asked now, None if it can."""

    silence: str | None

    def look(self) -> Mapping[str, Seen] | None:
        """Return what is known of each cell that was given to it, by the cell's id; None: it cannot be asked now."""

    def begin(self, tasks: Sequence[Task]) -> Mapping[str, str]:
        """Begin as many of these as it has room for; return those that it refuses for good, with the reason."""

    def drop(self, cells: Sequence[str]) -> None:
        """Take back cells that wait for what will not come; with ``silence`` set they are not."""

    def stop(self) -> None:
        """Stop everything, and return when nothing is left."""
