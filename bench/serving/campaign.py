"""A load test that is going on, and the server that was started for it, as objects; `document` makes the record."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from bench.errors import BenchError
    from bench.fallback.verdict import Verdict
    from bench.serving.checks import Measured
    from bench.serving.joins import Identity
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
    capacity: Estimate | None = None
    highest: tuple[float | None, float | None] | None = None
    failure: BenchError | None = None
    golden: Mapping[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)

    def next_index(self) -> int:
        """Return the index of the next request: one count over all phases."""
        return sum(len(measured.phase.exchanges) for measured in self.measured)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attested:
    """What is known of a server that was started here; the whole is absent for somebody else's."""

    identity: Identity
    run_id: str
    version: str
    verdict: Verdict
    ready_s: float | None
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    died: bool
