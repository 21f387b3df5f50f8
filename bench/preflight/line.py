"""One line of a preflight: what was looked at, its state, what that means and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.engine.find import Engine
    from bench.engine.workload import Workload
    from bench.machine.devices import Machine
    from bench.machine.nvml import Gpu
    from bench.machine.vendors import Found

OK = "ok"
WARN = "warn"
FAIL = "fail"
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A state (ok, warn, fail, unknown), what was seen, what it means for a run, and what to do (None: nothing)."""

    id: str
    state: str
    saw: str
    means: str | None = None
    todo: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Everything that the checks look at, gathered once; ``workload`` is None where no model was asked about.

    ``samples`` are the GPUs that a launch would use, several times over an interval; ``environment`` is the launch's.
    """

    engine: Engine | None
    workload: Workload | None
    machine: Machine
    samples: tuple[tuple[Gpu, ...], ...]
    others: tuple[Found, ...]
    environment: Mapping[str, str]
    output: Path

    @property
    def gpus_wanted(self) -> int:
        """How many accelerators a launch uses."""
        return 1 if self.workload is None else self.workload.preset.gpus

    @property
    def now(self) -> tuple[Gpu, ...]:
        """The newest sample."""
        return self.samples[-1] if self.samples else ()
