"""An engine that waits while another one is measured: frozen, because its busy loops would take 0.7 to 1.1 cores."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(slots=True)
class Waiting:
    """How long an engine has waited, and the CPU time that its processes used meanwhile, in seconds."""

    wall_s: float = 0.0
    cpu_s: float = 0.0

    @property
    def cpu_percent(self) -> float | None:
        """Return that CPU time in percent of one core; None for an engine that never waited."""
        return 100 * self.cpu_s / self.wall_s if self.wall_s > 0 else None

    @contextmanager
    def frozen(self, process: int) -> Iterator[None]:
        """Stop the engine with this process id and all that it started (SIGSTOP); continue them at the end.

        Nothing runs on its device by then: it has answered its last request. SIGKILL ends a stopped process too.
        """
        stopped = _stop(process)
        began, used_s = time.monotonic(), _cpu_s(stopped)
        try:
            yield
        finally:
            self.wall_s += time.monotonic() - began
            self.cpu_s += _cpu_s(stopped) - used_s
            for member in stopped:
                with suppress(psutil.Error):
                    member.resume()


def _stop(process: int) -> list[psutil.Process]:
    """Stop a process and all below it and return them; again and again, as one may start another before it stops."""
    stopped: list[psutil.Process] = []
    with suppress(psutil.Error):
        root = psutil.Process(process)
        while fresh := [member for member in (root, *root.children(recursive=True)) if member not in stopped]:
            for member in fresh:
                stopped.append(member)
                with suppress(psutil.Error):
                    member.suspend()
    return stopped


def _cpu_s(processes: Iterable[psutil.Process]) -> float:
    total_s = 0.0
    for process in processes:
        with suppress(psutil.Error):
            times = process.cpu_times()
            total_s += times.user + times.system
    return total_s
