"""What a user may ask of an accuracy check."""

from __future__ import annotations

from dataclasses import dataclass

from bench.accuracy.gates import CHECKS
from bench.options import EVERYDAY, FIDELITY, Kind, option
from bench.run.options import RunOptions

DTYPES = {"fp32": "sharp gates, the default", "bf16": "smoke gates: rounding hides small errors"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(RunOptions):
    """What the user asked of a check; None is the preset's value or the default."""

    checks: tuple[str, ...] = option(
        tuple(CHECKS),
        name="check",
        kind=Kind.NAMES,
        group=EVERYDAY,
        choices=CHECKS,
        help=f"what to check, of {', '.join(CHECKS)} (default all)",
    )
    dtype: str = option("fp32", group=FIDELITY, choices=DTYPES, help="fp32: sharp gates (default); bf16: smoke gates")
    update_golden: str | None = option(
        None,
        group=FIDELITY,
        help="keep this output as the golden of its configuration; takes the reason, keeps the old one",
    )
