"""What a user may ask of an accuracy check."""

from __future__ import annotations

from dataclasses import dataclass

from bench.run.options import RunOptions

COMPONENT, TRAJECTORY, GOLDEN = "component", "trajectory", "golden"
DTYPES = ("fp32", "bf16")
CHECKS = (COMPONENT, TRAJECTORY, GOLDEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(RunOptions):
    """What the user asked of a check; None is the preset's value or the default."""

    checks: tuple[str, ...] = CHECKS
    dtype: str = "fp32"
    update_golden: str | None = None
