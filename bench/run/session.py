"""The runner's side of a session: asks for one request after the other until it has enough."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from bench.engine import command as commands
from bench.errors import EngineFailed, worst
from bench.fallback.finding import INVALID
from bench.record import store
from bench.run import request as requests

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from bench.fallback.guard import Guard
    from bench.run.request import Request


class Session:
    """The partner of ``bench/inside/session_worker.py`` for one launch; `process.stream` carries their messages.

    ``enough`` is asked after each request for a reason to stop (None: go on); ``tell`` hears of each that counts;
    ``sampling`` gives the parameters in which a request (by number) differs from the command line's.
    """

    def __init__(
        self,
        directory: Path,
        *,
        launch: int,
        first_request: int,
        suffix: str,
        guard: Guard,
        enough: Callable[[], str | None],
        tell: Callable[[Request], None],
        sampling: Callable[[int], Mapping[str, Any]] = lambda _: {},
    ) -> None:
        self._directory = directory
        self._launch = launch
        self._next_request = first_request
        self._suffix = suffix
        self._guard = guard
        self._enough = enough
        self._tell = tell
        self._sampling = sampling
        self._asked_at = store.now()
        self.stopped_because: str | None = None
        self.rejected: Request | None = None
        self._start = time.monotonic()
        self.load_s: float | None = None
        """From the making of this partner, just before the launch, until the engine was ready."""
        self.first_answer_s: float | None = None

    def hear(self, message: bytes) -> bytes | None:
        """Take one event of the worker and return the next command.

        Raises:
            EngineFailed: the engine could not load, or a request failed.
            BenchError: a request's dump or outputs show that it was not what was asked for.
        """
        event = json.loads(message)
        if event["event"] == "failed":
            number = event["request"]
            what = "the engine could not be loaded" if number is None else f"request {number} failed"
            raise EngineFailed(f"{what}: {event['error']}", where=self._directory / store.LOG)
        if event["event"] == "stopped":
            return None
        if event["event"] == "ready":
            self.load_s = round(time.monotonic() - self._start, 3)
        if event["event"] == "finished":
            self.first_answer_s = self.first_answer_s or round(time.monotonic() - self._start, 3)
            self._finish(event)
        self.stopped_because = self._enough()
        return self._command()

    def _folder(self, number: int) -> Path:
        return self._directory / f"request-{number:03d}"

    def _command(self) -> bytes:
        if self.stopped_because is not None:
            return json.dumps({"do": "stop"}).encode()
        folder = self._folder(self._next_request)
        (folder / commands.OUTPUTS).mkdir(parents=True)
        self._asked_at = store.now()
        return json.dumps(
            {
                "do": "generate",
                "request": self._next_request,
                "output_path": str(folder / commands.OUTPUTS),
                "output_file_name": f"output{self._suffix}",
                "perf_dump_path": str(folder / commands.PERF_DUMP),
                "sampling": dict(self._sampling(self._next_request)),
            }
        ).encode()

    def _finish(self, event: dict[str, object]) -> None:
        number = self._next_request
        if not event["ok"]:
            raise EngineFailed(f"request {number} made no result", where=self._directory / store.LOG)
        folder = self._folder(number)
        done = requests.read(
            folder,
            folder / commands.OUTPUTS,
            self._guard,
            (self._asked_at, store.now()),
            index=number,
            launch=self._launch,
            wall_s=round(float(str(event["wall_s"])), 6),
        )
        if not done.counts:
            self.rejected = done
            kind = worst(finding.exit_code for finding in done.findings if finding.severity == INVALID)
            raise kind(f"request {number} does not count", where=folder)
        self._next_request += 1
        self._tell(done)
