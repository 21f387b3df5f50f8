"""How figures are written: digits, units, changes, and what stands for an unknown value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

NOT_AVAILABLE = "n/a"
NO_FIGURE = "-"
NOT_CLAIMED = "not claimed"
"""What stands for the size of an effect that was measured under disturbance."""


def number(value: float | None, unit: str) -> str:
    """Return a value with a sensible number of digits and its unit; ``n/a`` for None."""
    if value is None:
        return NOT_AVAILABLE
    digits = 0 if value >= 10_000 else 1 if value >= 100 else 2 if value >= 1 else 3  # noqa: PLR2004
    return f"{value:,.{digits}f} {unit}"


def duration(seconds: float) -> str:
    """Return a duration as a person says it."""
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"  # noqa: PLR2004


def interval(known: Mapping[str, Any] | None) -> str:
    """Return the ends of an interval without their unit; ``n/a`` for None."""
    if known is None:
        return NOT_AVAILABLE
    return f"{number(known['low'], '').strip()} to {number(known['high'], '').strip()}"


def percent(value: float | None) -> str:
    """Return a percentage; ``n/a`` for None."""
    return NOT_AVAILABLE if value is None else f"{value:.2f} %"


def change(before: float | None, after: float | None) -> str:
    """Return the change from one value to the other in percent; nothing where it cannot be known."""
    if not before or after is None:
        return ""
    return f"{round(100 * (after / before - 1), 1) + 0.0:+.1f} %"  # + 0.0: never "-0.0"


def scientific(value: float | None, digits: int = 2) -> str:
    """Return a small number as 1.23e-07, 0 as 0, None as n/a."""
    return NOT_AVAILABLE if value is None else "0" if value == 0 else f"{value:.{digits}e}"


def closeness(cosine: float | None) -> str:
    """Return 1 - cosine, which tells apart what 0.99999 does not; negative rounding is 0."""
    return NOT_AVAILABLE if cosine is None else scientific(max(0.0, 1 - cosine))


def figure(value: float | None, digits: int = 2) -> str:
    """Return a figure of a profile's table; a dash for an unknown one."""
    if value is None:
        return NO_FIGURE
    text = f"{value:,.{digits}f}"
    return text.lstrip("-") if not text.strip("-0.,") else text  # no "-0.00"
