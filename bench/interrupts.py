"""What Ctrl-C does: it is raised where it cannot be lost."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
