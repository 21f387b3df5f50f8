"""A server of our own: started under a guard, proven to be ours and ready, and stopped with nothing left."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import orjson
import psutil

from bench.engine import launch
from bench.errors import EngineFailed, EvidenceMissing, FallbackDetected, TimedOut, UsageError
from bench.record import store
from bench.serving import joins
from bench.serving.command import REQUEST_LOG
from bench.serving.joins import Identity

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator
    from datetime import datetime

    from bench.engine.launch import Attempt
    from bench.engine.waiting import Waiting
    from bench.errors import BenchError
    from bench.fallback.guard import Guard
    from bench.process import Observer
    from bench.serving.command import ServerCommand
    from bench.serving.joins import Counters, Served

PORTS = {"http": 80, "https": 443}
POLL_S = 0.25
ANSWER_S = 10.0
STOP_S = 10.0
"""How long a server may finish what it has taken before it is killed: it answers its whole queue first."""


def get(url: str) -> str | None:
    """Return the text at ``url``, None where nobody answers or the status is another than 200."""
    return asyncio.run(_get(url))


async def _get(url: str) -> str | None:
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S)) as session,
            session.get(url) as response,
        ):
            text = await response.text()
            return text if response.status == HTTPStatus.OK else None
    except (aiohttp.ClientError, OSError, TimeoutError):
        return None


def refuse_silent(url: str) -> None:
    """Return where something listens at ``url``.

    Raises:
        UsageError: it is not the address of a server.
        EngineFailed: nothing listens there.
    """
    try:
        at = urlsplit(url)
        host, port = (at.hostname or "").encode("idna"), at.port or PORTS[at.scheme]
    except (ValueError, KeyError):
        host, port = b"", 0
    if not host:
        raise UsageError(f"{url!r} is not a server's address", todo="write http://HOST:PORT", field="url")
    try:
        socket.create_connection((host.decode(), port), ANSWER_S).close()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise EngineFailed(
            f"no server answers at {url}: {reason}", todo="start it, or name another", field="url"
        ) from error


def counters(url: str) -> Counters | None:
    """Return the server's counters, None where it has none."""
    text = get(f"{url}/metrics")
    return None if text is None else joins.read_counters(text)


class Server:
    """One `sglang serve` under a guard; whoever starts it stops it."""

    def __init__(
        self, command: ServerCommand, guard: Guard, *, ready_s: float, display: Observer | None = None
    ) -> None:
        self.command = command
        self.guard = guard
        self.log = command.command.directory / store.LOG
        self.attempt: Attempt | None = None
        self.started: datetime | None = None
        self.ready_after_s: float | None = None
        self._ready_s = ready_s
        self._display = display
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="server", daemon=True)

    @property
    def url(self) -> str:
        """Where it answers."""
        return self.command.url

    def start(self) -> None:
        """Launch it, and do not wait until it is ready: several servers may load at once."""
        if self.started is None:
            self.started, self._began = store.now(), time.monotonic()
            self._thread.start()

    @property
    def error(self) -> BenchError | None:
        """What stopped it, None if it runs or ended by itself."""
        return None if self.attempt is None else self.attempt.ended.stopped_by

    def wait_until_ready(self) -> None:
        """Return when it is ready.

        Raises:
            TimedOut: it took too long.
            BenchError: what ended it.
        """
        deadline = self._began + self._ready_s
        while not self._is_ready():
            if not self.alive():
                raise self.error or EngineFailed(
                    "the server ended before it was ready", where=self.log, todo="read the log's last lines"
                )
            if time.monotonic() > deadline:
                raise TimedOut(
                    f"the server was not ready in {self._ready_s:g} s",
                    where=self.log,
                    todo="give it more with --timeout SECONDS, or read the log's last lines",
                )
            time.sleep(POLL_S)
        self.ready_after_s = time.monotonic() - self._began

    def alive(self) -> bool:
        """Tell whether it still runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        self.attempt = launch.guarded(self.command.command, guard=self.guard, log=self.log, display=self._display)

    def _is_ready(self) -> bool:
        # 0.5.17 answers /health with 200 while it warms up, so the log's line must be there as well
        said = all(self.guard.seen_lines(evidence) for evidence in ("listening", "server-ready"))
        return said and get(f"{self.url}/health") is not None

    def identity(self) -> Identity:
        """Return who answers on the port."""
        text = get(f"{self.url}/server_info")
        info: dict[str, Any] = {} if text is None else orjson.loads(text)
        named = str(info.get("served_model_name" if self.command.names_itself else "model_path", ""))
        return Identity(
            run_id=self.command.run_id if self.command.run_id in named.split("/") else named or None,
            version=info.get("version"),
            listener_is_ours=_listener_is_ours(self.command.port),
        )

    def prove_identity(self) -> Identity:
        """Return who answers.

        Raises:
            FallbackDetected: somebody else does.
            EvidenceMissing: it cannot be told.
        """
        found = self.identity()
        if found.listener_is_ours is False or (found.run_id is not None and found.run_id != self.command.run_id):
            raise FallbackDetected(
                f"another server answers on port {self.command.port}: {found.run_id}", where=self.url, todo="end it"
            )
        if found.run_id is None or found.listener_is_ours is None:
            raise EvidenceMissing(f"nothing shows who answers on port {self.command.port}", where=self.url)
        return found

    def counters(self) -> Counters | None:
        """Return its counters, None for a version that has none."""
        return counters(self.url) if self.command.has_metrics else None

    def requests(self) -> dict[str, Served]:
        """Return the requests that it logged, by its ids."""
        return joins.read_request_log(self.command.command.directory / REQUEST_LOG)

    def cpu_s(self) -> float | None:
        """Return the processor time of its processes so far, None where it cannot be read."""
        try:
            processes = [top for root in self._roots() for top in (root, *root.children(recursive=True))]
            times = [process.cpu_times() for process in processes]
        except psutil.Error:
            return None
        return sum(time.user + time.system for time in times) if times else None

    def merged(self) -> Counter[int]:
        """Return its batches of two requests or more so far by their size."""
        return joins.merged(self.log)

    def _roots(self) -> list[psutil.Process]:
        """Return the server's own first process: below the supervisor, which has its arguments too."""
        port = f"--port={self.command.port}"
        parents: dict[int, int] = {}
        with_port: dict[int, psutil.Process] = {}
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):  # it ended just now
                parents[process.pid] = process.ppid()
                if port in process.cmdline():
                    with_port[process.pid] = process
        supervisors = {process for process in with_port if parents[process] not in with_port}
        return [process for number, process in with_port.items() if parents[number] in supervisors]

    @contextmanager
    def frozen(self, waiting: Waiting) -> Iterator[None]:
        """Stop its processes while another server is measured; it must have answered all that it took."""
        with ExitStack() as stack:
            for root in self._roots():
                stack.enter_context(waiting.frozen(root.pid))
            yield

    def stop(self) -> None:
        """End it; nothing of it is left when this returns. What it had taken it may finish first, for ten seconds."""
        for end, wait_s in ((psutil.Process.terminate, STOP_S), (psutil.Process.kill, None)):
            if not self.alive():
                return
            deadline = time.monotonic() + 1
            while self.alive() and not (roots := self._roots()) and time.monotonic() < deadline:
                time.sleep(0.01)  # the supervisor has not started it yet
            for root in roots:
                try:
                    end(root)
                except psutil.Error:
                    continue
            self._thread.join(wait_s)


def _listener_is_ours(port: int) -> bool | None:
    """Tell whether the process that listens on a port was started below this one; None if it cannot be seen."""
    try:
        owners = {
            connection.pid
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,)
        }
        if not owners or None in owners:
            return None
        return all(os.getpid() in {parent.pid for parent in psutil.Process(owner).parents()} for owner in owners)
    except psutil.Error:
        return None
