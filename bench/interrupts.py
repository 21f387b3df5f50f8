"""What ends a task from outside: Ctrl-C is raised where it cannot be lost, a reader that goes hides no verdict."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

AGAIN_S = 0.05
"""How long a signal is put off while a module is imported."""


def heard(number: int, frame: FrameType | None) -> None:
    """Handle a signal as Ctrl-C; put it off while a module is imported.

    Compiled modules drop exceptions while they start: Cython's registration of a generator in numpy's random does.

    Raises:
        KeyboardInterrupt: no module is being imported.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            timer = threading.Timer(AGAIN_S, os.kill, (os.getpid(), number))
            timer.daemon = True
            timer.start()
            return
        frame = frame.f_back
    raise KeyboardInterrupt


_unread: list[BrokenPipeError] = []


@contextmanager
def until_verdict() -> Iterator[None]:
    """Return a context in which a reader that has gone stops nothing: the verdict that follows ends the task."""
    try:
        yield
    except BrokenPipeError as error:
        _unread.append(error)


def refuse_unread() -> None:
    """Raise the BrokenPipeError that was put off until the verdict, if there is one."""
    if _unread:
        raise _unread.pop()
