"""What is left of programs whose guardians were killed: `adopt` before the first launch, then `stop` or a look."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

STOP_SECONDS = 10.0
PR_SET_CHILD_SUBREAPER = 36


@functools.cache
def adopt() -> None:
    """Make this process a child subreaper (prctl(2), Linux), so that what its guards lost comes here."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - only a launch needs it

        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def stop(spared: Collection[int], within_s: float = STOP_SECONDS) -> None:
    """Kill what was adopted, again and again until nothing of it is left, for ``within_s`` seconds at most.

    That is every child with a session of its own, as a guarded program has, but the keepers ``spared``, and all below.
    """
    import psutil  # noqa: PLC0415 - 20 ms, and only if guardians were killed

    own_session = os.getsid(0)
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        adopted = [
            child
            for child in psutil.Process().children()
            if child.pid not in spared and _session(child.pid) not in (own_session, None)
        ]
        if not adopted:
            return
        for child in adopted:
            with contextlib.suppress(psutil.Error):
                for process in [*child.children(recursive=True), child]:
                    process.kill()
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child.pid, os.WNOHANG)
        time.sleep(0.01)


def _session(process: int) -> int | None:
    try:
        return os.getsid(process)
    except OSError:
        return None


def left_running(within_s: float = 2.0) -> list[str]:
    """Look for processes below this one, wait ``within_s`` seconds for their end; return ``PID NAME`` of each left."""
    import psutil  # noqa: PLC0415 - 20 ms, and only after an interrupt

    below = psutil.Process().children(recursive=True)
    _, alive = psutil.wait_procs(below, timeout=within_s)
    lines = []
    for process in alive:
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                lines.append(f"{process.pid} {process.name()}")
    return lines
