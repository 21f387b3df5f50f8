"""What is left of programs whose guards are gone: `adopt` before the first launch, `left_running` to look."""

from __future__ import annotations

import contextlib
import functools
import sys

PR_SET_CHILD_SUBREAPER = 36


@functools.cache
def adopt() -> None:
    """Make this process a child subreaper (prctl(2), Linux), so that what its guards lost comes here."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - only a launch needs it

        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


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
