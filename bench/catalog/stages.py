"""What the stages of a perf dump are: denoising or not, with or without step times, or mere transport."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass

from bench import paths

DIFFUSERS_STAGE = "DiffusersExecutionStage"
"""The one stage of a run on the diffusers backend, in every version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """Names of the native denoising stages that record each step, of those that do not, and prefixes of transport."""

    records: frozenset[str]
    silent: frozenset[str]
    transport: tuple[str, ...]

    def denoises(self, name: str) -> bool:
        """Tell whether a native stage of this name denoises."""
        return name in self.records or name in self.silent

    def is_transport(self, name: str) -> bool:
        """Tell whether an entry is the time of moving results between processes, not a stage."""
        return name.startswith(self.transport)


@functools.cache
def stages() -> Stages:
    """Return the table in ``stages.toml``."""
    content = tomllib.loads((paths.CATALOG / "stages.toml").read_text(encoding="utf-8"))
    return Stages(
        records=frozenset(content["records"]),
        silent=frozenset(content["silent"]),
        transport=tuple(content["transport"]),
    )
