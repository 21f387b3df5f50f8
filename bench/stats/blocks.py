"""A-B-B-A blocks: two launches of each arm, nested so that a steady drift meets both alike.

One difference is the log of candidate / baseline, either of the two means of a block, or of each half of it (a pair:
A-B, then B-A). A block cancels any linear drift but gives one difference for four launches; a pair gives two, which
still meet a linear drift with opposite signs, so that it only widens the interval. Six differences are the fewest that
can reach p < .05 two-sided (2 / 2^6): six blocks, or three blocks taken as pairs.

What repeats with every block does not cancel: where blocks begin cold after a pause, the first launch of each is slow,
and with A-B-B-A throughout it is always a baseline (a simulated 2 % named a winner in some 40 % of sessions without
one). `plan_orders` therefore draws A-B-B-A or B-A-A-B for each block, which is the randomisation that makes the
sign-permutation test of blocks exact whatever the drift (R. A. Fisher, "The Design of Experiments", 1935).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.errors import UsageError
from bench.stats.samples import checked, checked_fraction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.stats.samples import FloatArray

ABBA = "ABBA"
BAAB = "BAAB"
BLOCK = "block"
PAIR = "pair"
DIFFERENCES_PER_BLOCK = {BLOCK: 1, PAIR: 2}
BLOCKS_LIMIT = 2_000
"""More blocks than this are never worth proposing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Four launches in the order they ran: ``order`` is ABBA or BAAB, ``values`` one duration for each launch."""

    values: tuple[float, float, float, float]
    order: str = ABBA


def plan_orders(count: int, *, seed: int) -> tuple[str, ...]:
    """Return the order of each of ``count`` blocks, ABBA or BAAB with equal chance; the same for the same seed."""
    return tuple(BAAB if flip else ABBA for flip in np.random.default_rng(seed).integers(0, 2, count))


def differences_per_block(unit: str) -> int:
    """Return how many differences a block gives: 1 for unit block, 2 for unit pair.

    Raises:
        UsageError: there is no such unit.
    """
    if unit not in DIFFERENCES_PER_BLOCK:
        raise UsageError(f"a difference is made of a {BLOCK} or a {PAIR}, not of {unit!r}")
    return DIFFERENCES_PER_BLOCK[unit]


def _arms(blocks: Sequence[Block]) -> tuple[FloatArray, FloatArray]:
    """Return the durations of baseline and candidate, each of shape (blocks, 2), first half of the block first."""
    if not blocks:
        raise UsageError("there is no block to compare", todo="measure at least one A-B-B-A block")
    rows = []
    for number, block in enumerate(blocks, 1):
        if block.order not in {ABBA, BAAB}:
            raise UsageError(f"block {number} has the order {block.order!r}; an order is {ABBA} or {BAAB}")
        row = checked(block.values, f"block {number}")
        if row.size != len(ABBA):
            raise UsageError(f"block {number} has {row.size} launches; a block has four")
        first, second, third, fourth = row
        rows.append((first, fourth, second, third) if block.order == ABBA else (second, third, first, fourth))
    # Columns: baseline of the first half, of the second half, then the candidate's.
    table = np.array(rows)
    return table[:, :2], table[:, 2:]


def log_ratios(blocks: Sequence[Block], unit: str) -> FloatArray:
    """Return log(candidate / baseline): shape (blocks,) for unit block, (2 * blocks,) in order for unit pair.

    Raises:
        UsageError: no block, an unknown order or unit, or a launch without a finite duration above zero.
    """
    differences_per_block(unit)
    baseline, candidate = _arms(blocks)
    if unit == PAIR:
        return np.asarray(np.log(candidate / baseline).ravel())
    # Means, not medians: the middle of a linear drift over four positions is exactly the mean of either arm.
    return np.asarray(np.log(candidate.mean(axis=1) / baseline.mean(axis=1)))


def noise_log(differences: FloatArray) -> float | None:
    """Return the standard deviation of one difference (log ratio), None for fewer than two differences."""
    return float(differences.std(ddof=1)) if differences.size > 1 else None


def as_percent(log_value: float | None) -> float | None:
    """Return a small log ratio as percent of the ratio: 0.03 is 3.05; None stays None."""
    return None if log_value is None else math.expm1(log_value) * 100


def smallest_p(differences: int) -> float:
    """Return the smallest two-sided p that so many differences can reach: 2 / 2^n."""
    return min(1.0, 2.0 ** (1 - differences))


def minimum_detectable_log(differences: int, noise: float | None, *, level: float, power: float) -> float | None:
    """Return the smallest |log ratio| that a sign-permutation test at ``level`` finds with probability ``power``.

    ``noise`` is the standard deviation of one difference. None where it is unknown (or seen as zero, which so few
    samples cannot know), and where no p of so many differences is as small as ``level``.

    For normal noise. Where only all signs alike can reject, the power is Phi(effect / noise)^n and the result exact;
    else it is that of the t test, (t(1 - level / 2) + t(power)) * noise / sqrt(n) at the level that the 2^n sign
    vectors leave, the usual sample-size formula (S.-C. Chow et al., "Sample Size Calculations in Clinical Research").
    The test suite holds its power to within .08 of what is asked for.
    """
    from scipy import special  # noqa: PLC0415 - time that other tasks need not pay

    if noise is None or noise <= 0 or smallest_p(differences) > level * (1 + 1e-9):
        return None
    # Beyond 2^40 sign vectors the grid of possible p-values is too fine to matter.
    vectors = 2.0 ** min(differences, 40)
    rejecting = math.floor(level / 2 * vectors * (1 + 1e-9))
    if rejecting == 1:
        return float(noise * special.ndtri(power ** (1 / differences)))
    freedom = differences - 1
    quantiles = special.stdtrit(freedom, 1 - rejecting / vectors) + special.stdtrit(freedom, power)
    return float(quantiles * noise / math.sqrt(differences))


def blocks_needed(
    effect_percent: float, noise: float | None, *, unit: str, level: float = 0.05, power: float = 0.8
) -> int | None:
    """Return how many blocks find an effect of ``effect_percent`` (1.5 say), or None: noise unknown or zero, or > 2000.

    ``noise`` is the standard deviation of one difference (a log ratio) of this unit.

    Raises:
        UsageError: the effect is not above zero, or level or power do not lie between 0 and 1.
    """
    if not effect_percent > 0:
        raise UsageError(f"an effect to be found is above 0 %, not {effect_percent!r}")
    checked_fraction(level, "level")
    checked_fraction(power, "power")
    per_block = differences_per_block(unit)
    effect = math.log1p(effect_percent / 100)

    def enough(blocks: int) -> bool:
        found = minimum_detectable_log(per_block * blocks, noise, level=level, power=power)
        return found is not None and found <= effect

    if not enough(BLOCKS_LIMIT):
        return None
    low, high = 0, BLOCKS_LIMIT
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
