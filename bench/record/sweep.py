"""How far the cells of a sweep are."""

from __future__ import annotations

from dataclasses import dataclass

DONE, FAILED, RUNNING, WAITING, STOPPED, LOST = "done", "failed", "running", "waiting", "stopped", "cut off"
STATES = (DONE, RUNNING, WAITING, FAILED, STOPPED, LOST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How far a cell is: ``state`` in a word, where it runs or ran, and why it waits or is not done."""

    id: str
    label: str
    state: str
    where: str | None = None
    why: str | None = None
    is_stuck: bool = False
    """It waits for what does not pass by itself."""
    attempts: int = 0
    exit_code: int | None = None
    outcome: str | None = None
    total_ms: float | None = None
    record: str | None = None
    log: str | None = None

    @property
    def says(self) -> str:
        """What its record says if it is done, else its state."""
        return self.outcome or self.state if self.state == DONE else self.state

    @property
    def has_ended(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state in (DONE, FAILED, STOPPED)
