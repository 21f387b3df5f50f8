"""What a program and this process say to each other on pipes of their own, beside the program's output."""

from __future__ import annotations

import contextlib
import os
import select
from typing import Protocol

CHUNK_BYTES = 1 << 18


class Partner(Protocol):
    """Whom a program talks to on pipes of its own, beside its output. What it raises stops the program."""

    def hear(self, message: bytes) -> bytes | None:
        """Take one line of the program (without its end) and return the line to answer with, or None."""


class Pipes:
    """The two pipes between a program and its partner."""

    def __init__(self, partner: Partner) -> None:
        self._partner = partner
        self.events, self._childs_events = os.pipe()
        self._childs_commands, self._commands = os.pipe()
        self._rest = b""
        self._open = {self.events, self._childs_events, self._childs_commands, self._commands}

    def variables(self) -> dict[str, str]:
        """Return the program's variables that name its ends."""
        return {"BENCH_COMMANDS_FD": str(self._childs_commands), "BENCH_EVENTS_FD": str(self._childs_events)}

    def waiting(self) -> bool:
        """Tell whether there is something to read, or the end."""
        return bool(select.select([self.events], [], [], 0)[0])

    def talk(self) -> bool:
        """Read what the program said and answer each whole line; return False at the end."""
        said = os.read(self.events, CHUNK_BYTES)
        *lines, self._rest = (self._rest + said).split(b"\n")
        for line in lines:
            if (answer := self._partner.hear(line)) is not None:
                with contextlib.suppress(BrokenPipeError):  # it ended: its output and exit code tell why
                    os.write(self._commands, answer + b"\n")
        return bool(said)

    def close_childs(self) -> None:
        """Close the program's ends in this process."""
        self._close(self._childs_events, self._childs_commands)

    def close(self) -> None:
        """Close whatever is open."""
        self._close(*self._open)

    def _close(self, *descriptors: int) -> None:
        for descriptor in set(descriptors) & self._open:
            os.close(descriptor)
            self._open.discard(descriptor)
