"""An asyncio loop whose clock jumps to the next timer: client and stand-in server run on it with real sockets.

Nothing takes time but what is slept, so that a queue's figures do not depend on the machine. What a socket is sent
within one process is there at once; the clock waits a moment for it all the same.
"""

import asyncio
import selectors

SETTLE_S = 0.0005


class _Selector(selectors.DefaultSelector):
    def __init__(self):
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout=None):
        events = super().select(SETTLE_S if timeout else timeout)
        if timeout and not events:
            self.now_s += timeout
        return events


class Loop(asyncio.SelectorEventLoop):
    """The loop; `time` is virtual."""

    def __init__(self):
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self):
        return self._virtual.now_s
