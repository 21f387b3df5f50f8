"""The load generator: sends at absolute times and keeps every answer as it came.

Nothing is held back by a semaphore or a pool of connections, no request has a timeout of its own (the server would
still do its work), and nothing is decoded while the load runs: it would steal time from the sending.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import threading
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from bench.serving.arrivals import CLOSED
from bench.serving.request import VideoRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from bench.serving.arrivals import Arrivals
    from bench.serving.request import ImageRequest

UNANSWERED = "unanswered: the phase had reached its limit"
UNSENT = "unsent: the server had ended"
UNFINISHED_SEND = "unsent: the phase had reached its limit"
LOAD = "load"
HEADERS = {"content-type": "application/json"}
POLL_S = 0.05
"""How often the end of a job is asked for: the latency of a video may be this much too long."""

ENDED = ("completed", "failed")
RETRY_S = 0.2
"""How long a client of a closed loop waits after a request without an answer, which a dead server gives at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request and what came of it; times in seconds from the start of its phase, on one monotonic clock.

    ``intended_s`` is when it was due: latency counts from there. ``sent_s`` None: it never left. ``status`` None: no
    answer, and ``error`` says why. Of a video ``job`` is the job's last state, and ``body`` the file, fetched after
    ``done_s``.
    """

    index: int
    request: ImageRequest
    intended_s: float
    sent_s: float | None = None
    headers_s: float | None = None
    done_s: float | None = None
    status: int | None = None
    error: str | None = None
    body: bytes | None = None
    job: bytes | None = None

    @property
    def latency_s(self) -> float | None:
        """Seconds from the intended time to the last byte, whatever was answered; None without an answer."""
        return None if self.done_s is None or self.status is None else self.done_s - self.intended_s

    @property
    def lateness_s(self) -> float | None:
        """Seconds from the intended time to the sending: the generator's own fault."""
        return None if self.sent_s is None else self.sent_s - self.intended_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A stretch of load; ``started_unix_s`` is the wall clock at its zero, for joins on the same host only.

    ``interrupted``: Ctrl-C ended it, and what had not been sent or answered by then is kept as such.
    """

    name: str
    arrivals: Arrivals
    started_unix_s: float
    ended_s: float
    exchanges: tuple[Exchange, ...]
    interrupted: bool = False

    def in_flight(self, at_s: float, *, besides: int) -> int:
        """Return how many requests besides the one of this index were sent by a time and had no answer yet."""
        return sum(
            exchange.sent_s is not None
            and exchange.sent_s <= at_s
            and (exchange.done_s is None or exchange.done_s > at_s)
            for exchange in self.exchanges
            if exchange.index != besides
        )


class _Generator:
    """Sends the requests of one phase."""

    def __init__(self, url: str, session: aiohttp.ClientSession, limit_s: float, alive: Callable[[], bool]) -> None:
        self._url = url
        self._session = session
        self._limit_s = limit_s
        self._alive = alive
        self.exchanges: dict[int, Exchange] = {}
        self.started_unix_s = time.time()
        self._zero = time.monotonic()

    def now(self) -> float:
        """Return the seconds since the phase began."""
        return time.monotonic() - self._zero

    async def send(self, exchange: Exchange, body: bytes) -> None:
        """Send one request and keep what comes of it, also if this is cancelled."""
        exchange = replace(exchange, sent_s=self.now())
        self.exchanges[exchange.index] = replace(exchange, error=UNANSWERED)
        try:
            url = self._url + exchange.request.path
            async with self._session.post(url, data=body, headers=HEADERS) as response:
                exchange = replace(exchange, headers_s=self.now(), status=response.status)
                exchange = replace(exchange, body=await response.read())
                exchange = replace(exchange, done_s=self.now())
            if isinstance(exchange.request, VideoRequest) and exchange.status == HTTPStatus.OK:
                exchange = await self._job(exchange, url)
        except (aiohttp.ClientError, OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
            exchange = replace(exchange, done_s=self.now(), status=None, error=f"{type(error).__name__}: {error}")
        self.exchanges[exchange.index] = exchange

    async def _job(self, exchange: Exchange, url: str) -> Exchange:
        """Return the exchange when its job has ended, with the video."""
        place = f"{url}/{orjson.loads(exchange.body or b'')['id']}"
        while True:
            async with self._session.get(place) as response:
                told = await response.read()
            if orjson.loads(told)["status"] in ENDED:
                break
            await asyncio.sleep(POLL_S)
        exchange = replace(exchange, done_s=self.now(), job=told)
        async with self._session.get(f"{place}/content") as response:
            return replace(exchange, body=await response.read())

    async def open_loop(self, due: list[tuple[Exchange, bytes]]) -> None:
        """Send each request at its own time, whatever became of those before."""
        async with self._tasks() as tasks:
            for exchange, body in due:
                if (wait_s := exchange.intended_s - self.now()) > 0:
                    await asyncio.sleep(wait_s)
                if self._alive():
                    tasks.add(asyncio.create_task(self.send(exchange, body)))
                else:
                    self.exchanges[exchange.index] = replace(exchange, error=UNSENT)

    async def closed_loop(
        self, clients: int, duration_s: float, requests: Iterator[ImageRequest], first_index: int
    ) -> None:
        """Let each client send its next request when it has the answer to its last."""
        numbers = itertools.count(first_index)

        async def client() -> None:
            while (due := self.now()) < duration_s and self._alive():
                request = next(requests)
                number = next(numbers)
                await self.send(Exchange(index=number, request=request, intended_s=due), request.body())
                if self.exchanges[number].status is None:
                    await asyncio.sleep(RETRY_S)

        async with self._tasks() as tasks:
            tasks.update(asyncio.create_task(client()) for _ in range(clients))

    @asynccontextmanager
    async def _tasks(self) -> AsyncIterator[set[asyncio.Task[None]]]:
        """Yield a set for the tasks of a block; wait for them until the phase's limit, and cancel what is left."""
        tasks: set[asyncio.Task[None]] = set()
        try:
            yield tasks
            if tasks:
                await asyncio.wait(tasks, timeout=max(self._limit_s - self.now(), 0))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def run(phase: Coroutine[Any, Any, Phase]) -> Phase:
    """Return a phase of `send`, in a loop of its own; Ctrl-C and SIGTERM end it and keep its rows."""
    with _handled_by(signal.SIGINT, signal.default_int_handler):  # asyncio takes over no other handler
        return asyncio.run(phase)


@contextmanager
def _handled_by(number: signal.Signals, handler: Any) -> Iterator[None]:
    """Let ``handler`` have a signal for the block, in the main thread; no other thread hears signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


async def send(
    url: str,
    name: str,
    arrivals: Arrivals,
    requests: Iterator[ImageRequest],
    *,
    limit_s: float,
    alive: Callable[[], bool] = lambda: True,
    first_index: int = 0,
) -> Phase:
    """Put one phase of load on the server at ``url`` and return every exchange, in the order of their indices.

    ``limit_s`` is the phase's, from its start: what is unanswered then is kept as such. ``alive`` tells whether the
    server still runs; requests that come due after its end are kept as unsent. Indices count from ``first_index``.
    """
    due = []
    for index, (intended_s, request) in enumerate(zip(arrivals.times_s, requests, strict=False), first_index):
        due.append((Exchange(index=index, request=request, intended_s=intended_s), request.body()))
    # a connection that is kept can be closed by the server just as the next request leaves: a failure of our own making
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:
        generator = _Generator(url, session, limit_s, alive)
        interrupted = False
        try:
            # SIGTERM does what asyncio lets Ctrl-C do: it cancels the phase, so that its rows are kept
            with _handled_by(signal.SIGTERM, signal.getsignal(signal.SIGINT)):
                if arrivals.kind == CLOSED:
                    await generator.closed_loop(arrivals.concurrency or 1, arrivals.duration_s, requests, first_index)
                else:
                    await generator.open_loop(due)
        except asyncio.CancelledError:  # how asyncio hands on a Ctrl-C
            interrupted = True
        kept = {exchange.index: replace(exchange, error=UNFINISHED_SEND) for exchange, _ in due} | generator.exchanges
        return Phase(
            name=name,
            arrivals=arrivals,
            started_unix_s=generator.started_unix_s,
            ended_s=generator.now(),
            exchanges=tuple(kept[index] for index in sorted(kept)),
            interrupted=interrupted,
        )
