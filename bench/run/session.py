"""The runner's side of a session: asks for one request after the other until it has enough."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.engine import command as commands
from bench.errors import EngineFailed, worst
from bench.fallback.finding import INVALID
from bench.record import store
from bench.run import request as requests

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from bench.fallback.facts import Traced
    from bench.fallback.guard import Guard
    from bench.run.request import Request


LEFT_OUT = 0
"""The number of a launch's first request where it is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What a launch serves.

    ``enough``, which gets the engine's process id, is asked before each request for a reason to stop (None: go on). The
    launch's first request, which compiles and warms up, has the number 0 and does not count if ``leaves_first_out``.
    ``is_timing`` tells which of the others, numbered from 1 over all launches, count; ``sampling`` gives the parameters
    in which a request differs from the command line's. ``traced`` is asked after the launch's end for what a request
    of it ran under the profiler.
    """

    enough: Callable[[int], str | None]
    leaves_first_out: bool = True
    is_timing: Callable[[int], bool] = lambda _: True
    sampling: Callable[[int], Mapping[str, Any]] = lambda _: {}
    traced: Callable[[], Traced | None] = lambda: None

    def counts(self, number: int) -> bool:
        """Tell whether a request's time counts."""
        return number != LEFT_OUT and self.is_timing(number)


class Session:
    """The partner of ``bench/inside/session_worker.py`` for one launch; `process.stream` carries their messages.

    ``tell`` hears of each finished request that has nothing against it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        launch: int,
        first_request: int,
        suffix: str,
        guard: Guard,
        course: Course,
        tell: Callable[[Request], None],
    ) -> None:
        self._directory = directory
        self._launch = launch
        self._first_request = first_request
        self._next_request = LEFT_OUT if course.leaves_first_out else first_request
        self._suffix = suffix
        self._guard = guard
        self._course = course
        self._tell = tell
        self._engine: int | None = None
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
            self._engine = int(event["pid"])
            self.load_s = round(time.monotonic() - self._start, 3)
        if event["event"] == "finished":
            self.first_answer_s = self.first_answer_s or round(time.monotonic() - self._start, 3)
            self._finish(event)
        assert self._engine is not None
        self.stopped_because = self._course.enough(self._engine)
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
                "sampling": dict(self._course.sampling(self._next_request)),
            }
        ).encode()

    def _finish(self, event: dict[str, object]) -> None:
        number = self._next_request
        if not event["ok"]:
            raise EngineFailed(f"request {number} returned no result", where=self._directory / store.LOG)
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
        self._next_request = self._first_request if number == LEFT_OUT else number + 1
        self._tell(done)
