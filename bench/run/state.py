"""A run that is going on, and one launch of it, as objects; `document` makes the record of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.record import store

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from bench.engine.code import Code
    from bench.engine.command import Command
    from bench.engine.workload import Workload
    from bench.errors import BenchError
    from bench.fallback.facts import Facts
    from bench.fallback.verdict import Verdict
    from bench.process import Ended
    from bench.record.types import Launch
    from bench.record.types import Request as RequestDocument
    from bench.run.plan import Plan
    from bench.run.request import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """One launch that has ended, or of which this is known so far (``ended`` None)."""

    index: int
    mode: str
    log: Path
    started: datetime
    finished: datetime
    ended: Ended | None
    command: Command
    facts: Facts
    verdict: Verdict
    rejected: Request | None
    gpus_during: list[dict[str, Any]]
    error: BenchError | None
    stage_sync: bool
    profiler: bool
    left_out: tuple[int, ...] = ()
    """Numbers of the served requests whose times do not count."""
    load_s: float | None = None
    first_answer_s: float | None = None

    @property
    def rejected_dump(self) -> Path | None:
        """Where the dump of the request that does not count is set aside; None if every request counts."""
        return None if self.rejected is None else self.rejected.dump_file.with_name(store.REJECTED_DUMP)

    def set_aside(self) -> None:
        """Rename the dump of a request that does not count, so that no later reader takes it for a result."""
        if self.rejected is not None and self.rejected_dump is not None and self.rejected.dump_file.exists():
            self.rejected.dump_file.rename(self.rejected_dump)


@dataclass(slots=True)
class Run:
    """A run that is going on: its launches and the documents of the requests that count."""

    planned: Plan
    directory: Path
    code: Code
    """The engine's code when the run began."""
    launches: list[Launch] = field(default_factory=list)
    requests: list[RequestDocument] = field(default_factory=list)
    stopped_because: str | None = None
    kind: str = "bench"
    profiled: dict[str, Any] | None = None
    staged: list[RequestDocument] = field(default_factory=list)
    """The requests of the launch with synchronised stages, which are never among ``requests``."""
    staging: Workload | None = None
    """The workload of that launch while it goes on."""
    fidelity: dict[str, Any] | None = None
    preflight: list[dict[str, Any]] = field(default_factory=list)
    gpus: tuple[str, ...] = ()
    """UUIDs of the GPUs that are watched during each launch."""

    def workload(self) -> Workload:
        """Return what the present launch is asked."""
        return self.staging or self.planned.workload

    def kept(self) -> list[RequestDocument]:
        """Return the list that the present launch's requests go into."""
        return self.requests if self.staging is None else self.staged
