"""A load test that is going on, as an object; `document` makes the record."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.serving import batching, queueing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    from bench.errors import BenchError
    from bench.record.campaign import Campaign as State
    from bench.record.types import Launch
    from bench.serving.checks import Measured
    from bench.serving.options import LoadOptions
    from bench.serving.queueing import Estimate
    from bench.serving.request import ImageRequest


@dataclass(slots=True)
class Campaign:
    """A load test that is going on: what was measured so far is kept whatever ends it."""

    options: LoadOptions
    workload: ImageRequest
    started: datetime
    directory: Path
    measured: list[Measured] = field(default_factory=list)
    slo_s: float | None = None
    unbatched: Campaign | None = None
    """The load test of a server of this run that merges nothing, where this one may merge."""
    highest: tuple[float | None, float | None] | None = None
    profiled: dict[str, Any] | None = None
    """The request that ran under the profiler, as the record has it."""
    failure: BenchError | None = None
    golden: Mapping[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)
    state: State | None = None
    """What it takes to go on; None: nothing goes on with this."""
    keep: Callable[[], object] = lambda: None
    """Writes the record as far as this has come."""
    rows: list[str] = field(default_factory=list)
    """The rows of the phases that are written, as JSON lines: they are never written otherwise again."""
    launches: list[Launch] = field(default_factory=list)
    """Those of the starts before this one, as the record has them."""
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The phases of the starts before this one by their names, as the record has them."""

    @property
    def service(self) -> Estimate | None:
        """The service time of requests that ran alone."""
        return queueing.service_s(alone.rows) if (alone := self.known(batching.ALONE)) is not None else None

    @property
    def capacity(self) -> Estimate | None:
        """What the server can answer, by requests that ran alone; None without an answer to one."""
        alone = self.known(batching.ALONE)
        return queueing.capacity_hz(alone.rows) if alone is not None and alone.rows else None

    @property
    def start(self) -> int:
        """The number of this start of a server, from 1."""
        return len(self.launches) + 1

    def known(self, name: str) -> Measured | None:
        """Return the phase of this name, None if it is not measured."""
        return next((measured for measured in self.measured if measured.phase.name == name), None)

    def next_index(self) -> int:
        """Return the index of the next request: one count over all phases."""
        return sum(len(measured.phase.exchanges) for measured in self.measured)
