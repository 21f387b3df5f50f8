"""How many units would show an effect, with the range that the noise of few samples leaves."""

from __future__ import annotations

import math
from bisect import bisect_left

from bench.stats.comparison import ALPHA, POWER, Planning, margin_log

UNITS_LIMIT = 2_000
"""More units than this are never worth proposing."""
LOOKS_FACTOR = 1.1
"""What the looks of a session cost against one look (`nox -s simulate` prints the power that comes of it)."""
SAME_FACTOR = 1.2


def needed(effect: float, noise: float, *, groups: int, power: float = POWER) -> int | None:
    """Return how many units find a log ratio of ``effect`` by a t test; ``noise`` is the sd of one unit.

    ``groups`` is 1 for paired differences, 2 for launches of each arm. None above 2,000.
    """
    from scipy import stats  # noqa: PLC0415 - a second that other tasks need not pay

    def enough(units: int) -> bool:
        freedom = groups * (units - 1)
        shift = effect / (noise * math.sqrt(groups / units))
        reach = stats.t.ppf(1 - ALPHA / 2, freedom)
        return bool(stats.nct.sf(reach, freedom, min(shift, 30.0)) >= power)

    units = bisect_left(range(UNITS_LIMIT + 1), x=True, lo=2, key=enough)
    return units if units <= UNITS_LIMIT else None


def plan(margin_percent: float, noise: float | None, freedom: int, *, groups: int) -> Planning | None:
    """Return the planning figure for effects of the margin; None where noise or margin are unknown or zero.

    The range is that of the 80 % interval of the noise from ``freedom`` degrees of freedom.
    """
    from scipy import special  # noqa: PLC0415 - time that other tasks need not pay

    if noise is None or noise <= 0 or margin_percent <= 0 or freedom < 1:
        return None
    margin = margin_log(margin_percent)
    low, high = (noise * math.sqrt(freedom / special.chdtri(freedom, tail)) for tail in (0.1, 0.9))
    return Planning(
        low=_for_looks(needed(margin, low, groups=groups), LOOKS_FACTOR),
        likely=_for_looks(needed(margin, noise, groups=groups), LOOKS_FACTOR),
        high=_for_looks(needed(margin, high, groups=groups), LOOKS_FACTOR),
        # both ends have to be inside the margin: two one-sided tests, each missed in half of what is missed
        for_same=_for_looks(needed(margin, noise, groups=groups, power=(1 + POWER) / 2), SAME_FACTOR),
    )


def _for_looks(units: int | None, factor: float) -> int | None:
    return None if units is None else max(3, math.ceil(units * factor))
