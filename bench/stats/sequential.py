"""When to stop an A-B-B-A session: looks planned beforehand that share one false-alarm rate.

The rule is alpha spending (K. K. G. Lan and D. L. DeMets, "Discrete sequential boundaries for clinical trials",
Biometrika 70, 1983; the power family of K. Kim and D. L. DeMets, Biometrika 74, 1987) on the randomisation distribution
itself instead of a normal one, as in V. Plamadeala and W. F. Rosenberger, "Sequential monitoring with conditional
randomization tests", Annals of Statistics 40, 2012. At look k with n differences all 2^n sign vectors are followed
through all looks so far; of those that no earlier look rejected, the ones with the largest |sum| are rejected, as many
as keep all rejected ones within alpha * (n / N)^rho. If the signs are random, which is what "no effect" means, no more
than alpha of the sessions ever name a winner: exactly, for any distribution of the sizes, at any small n. What the
coarse grid of few sign vectors leaves unspent is there for the next look. (An e-value would need no plan of looks, but
to reach 1 / alpha it needs more blocks than a session of launches can pay for.)

The interval at a look is the repeated confidence interval: the effects that a single test at this look's nominal level
does not reject. It leaves out "no effect" exactly when this look rejects, and `verdict.classify` reads it. Stopping for
"same" can only take rejections away.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.errors import UsageError
from bench.stats import blocks as abba
from bench.stats import comparison as verdict
from bench.stats import permutation
from bench.stats.samples import checked_fraction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.stats.blocks import Block
    from bench.stats.comparison import Comparison
    from bench.stats.samples import FloatArray

DEFAULT_MAX_BLOCKS = 8
MOST_LOOKS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is fixed before the first launch. ``looks`` are counts of blocks; None is chosen by `planned_looks`.

    ``alpha`` is the chance that a session without any difference names a winner at any look, ``power`` what the minimum
    detectable effect is stated for, ``spending`` the exponent rho: 1 spends alpha evenly, 3 keeps most for the end.
    """

    max_blocks: int = DEFAULT_MAX_BLOCKS
    alpha: float = verdict.DEFAULT_ALPHA
    power: float = verdict.DEFAULT_POWER
    margin_percent: float = verdict.DEFAULT_MARGIN_PERCENT
    unit: str = abba.PAIR
    spending: float = 1.0
    looks: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether the session stops here, why, the comparison so far, and the block count of the next look (or None)."""

    stop: bool
    why: str
    comparison: Comparison
    next_look: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """A look: |sums| from ``critical`` are rejected, a single test at ``level`` rejects the same, ``spent`` so far."""

    blocks: int
    spent: float
    critical: float
    level: float


def spent(plan: Plan, blocks: int) -> float:
    """Return how much of alpha may be used up by the look after so many blocks."""
    return float(plan.alpha * min(1.0, blocks / plan.max_blocks) ** plan.spending)


def planned_looks(plan: Plan) -> tuple[int, ...]:
    """Return the block counts at which the session is looked at, the last of them ``max_blocks``.

    Raises:
        UsageError: the plan contradicts itself.
    """
    per_block = abba.differences_per_block(plan.unit)
    checked_fraction(plan.alpha, "alpha")
    checked_fraction(plan.power, "power")
    if plan.max_blocks < 1 or not plan.margin_percent >= 0 or not plan.spending > 0:
        raise UsageError("a plan needs at least 1 block, a margin of at least 0 % and a spending exponent above 0")
    if plan.looks is not None:
        if sorted(set(plan.looks)) != list(plan.looks) or not plan.looks or plan.looks[0] < 1:
            raise UsageError(f"looks are rising counts of blocks from 1, not {plan.looks}")
        if plan.looks[-1] != plan.max_blocks:
            raise UsageError(f"the last look is after the last block, {plan.max_blocks}, not {plan.looks[-1]}")
        return plan.looks
    # A look that cannot reject anything costs nothing and tells nothing.
    able = [
        count
        for count in range(1, plan.max_blocks + 1)
        if abba.smallest_p(per_block * count) <= spent(plan, count) * (1 + 1e-9)
    ] or [plan.max_blocks]
    if len(able) > MOST_LOOKS:
        able = [able[round(place)] for place in np.linspace(0, len(able) - 1, MOST_LOOKS)]
    return tuple(able)


def _look(differences: FloatArray, plan: Plan, earlier: Sequence[_Look], count: int) -> _Look:
    per_block = abba.differences_per_block(plan.unit)
    sums = np.abs(permutation.signed_sums(differences, differences.size))
    tie = permutation.RELATIVE_TIE * float(np.abs(differences).sum())
    alive = np.ones(sums.size, dtype=bool)
    for look in earlier:
        alive &= np.abs(permutation.signed_sums(differences, per_block * look.blocks)) < look.critical
    descending = np.sort(sums[alive])[::-1]
    # What earlier looks spent is exact where they saw all vectors. Counting their share again among drawn ones would
    # put its sampling error, which is as large as what is left to spend, into this look.
    before = earlier[-1].spent if earlier else 0.0
    allowed = math.floor((spent(plan, count) - before) * sums.size + 1e-6)
    if not 1 <= allowed < descending.size:
        return _Look(blocks=count, spent=before, critical=math.inf, level=0.0)
    # All that tie with the first one left must stay, or which of them is rejected would be arbitrary.
    rejected = descending[:allowed][descending[:allowed] > descending[allowed] + 2 * tie]
    critical = float(rejected[-1]) - tie if rejected.size else math.inf
    # A single test at this level rejects the same ones. It counts those that earlier looks took away too, and the
    # places that ties left free: a tie at "no effect" must not widen the interval elsewhere.
    vectors = int(np.count_nonzero(sums >= critical)) + allowed - int(rejected.size)
    return _Look(
        blocks=count,
        spent=before + rejected.size / sums.size,
        critical=critical,
        level=vectors / sums.size if vectors > 1 else 0.0,
    )


def decide(blocks: Sequence[Block], plan: Plan) -> Decision:
    """Return whether the session of these blocks, in order, is decided, and its comparison at the look that counts.

    All looks up to the number of blocks are taken again, so the same blocks always give the same decision. The first
    look with a verdict counts, and blocks after it are not used.

    Raises:
        UsageError: no block, more blocks than planned, an impossible plan, or a value that is no duration.
    """
    looks = planned_looks(plan)
    differences = abba.log_ratios(blocks, plan.unit)
    if len(blocks) > plan.max_blocks:
        raise UsageError(f"{len(blocks)} blocks where {plan.max_blocks} were planned", todo="raise --blocks beforehand")
    per_block = abba.differences_per_block(plan.unit)
    taken: list[_Look] = []
    comparison = None
    for count in (look for look in looks if look <= len(blocks)):
        used = differences[: per_block * count]
        taken.append(_look(used, plan, taken, count))
        comparison = _compare(used, plan, count, taken[-1].level)
        if comparison.verdict != verdict.INCONCLUSIVE:
            why = f"decided at look {len(taken)} of {len(looks)}, after {count} of {plan.max_blocks} blocks"
            unused = f"; {len(blocks) - count} later blocks are not used" if len(blocks) > count else ""
            return Decision(stop=True, why=why + unused, comparison=comparison, next_look=None)
    if comparison is None:
        comparison = _compare(differences, plan, len(blocks), 0.0)
    upcoming = next((look for look in looks if look > len(blocks)), None)
    why = (
        f"all {plan.max_blocks} blocks are measured and the question is open"
        if upcoming is None
        else f"not decided after {len(blocks)} blocks; the next look is after {upcoming}"
    )
    return Decision(stop=upcoming is None, why=why, comparison=comparison, next_look=upcoming)


def compare_blocks(
    blocks: Sequence[Block],
    *,
    unit: str = abba.PAIR,
    alpha: float = verdict.DEFAULT_ALPHA,
    power: float = verdict.DEFAULT_POWER,
    margin_percent: float = verdict.DEFAULT_MARGIN_PERCENT,
) -> Comparison:
    """Return the comparison of a session whose number of blocks was fixed beforehand: one look, all of alpha.

    Raises:
        UsageError: no block, or a value that is no duration.
    """
    count = max(1, len(blocks))
    plan = Plan(max_blocks=count, looks=(count,), unit=unit, alpha=alpha, power=power, margin_percent=margin_percent)
    return decide(blocks, plan).comparison


@functools.lru_cache(maxsize=256)
def _needed(margin_percent: float, noise: float | None, unit: str, level: float, power: float) -> int | None:
    return abba.blocks_needed(margin_percent, noise, unit=unit, level=level, power=power) if margin_percent else None


def _compare(differences: FloatArray, plan: Plan, count: int, level: float) -> Comparison:
    values = permutation.of_differences(differences)
    inside = values.interval(level) if level else None
    result = verdict.classify(inside, plan.margin_percent)
    ratio = math.exp(float(differences.mean()))
    interval = verdict.effect_interval(inside)
    noise = abba.noise_log(differences)
    mde = abba.minimum_detectable_log(differences.size, noise, level=level, power=plan.power)
    needed = _needed(plan.margin_percent, noise, plan.unit, plan.alpha, plan.power)
    reason = verdict.reason(result, ratio, interval, plan.margin_percent)
    if result == verdict.INCONCLUSIVE:
        if mde is not None:
            reason += f"; {count} blocks with this noise show effects from {abba.as_percent(mde):.2f} %"
        elif not level:
            reason += f"; no verdict is possible from {differences.size} differences at this look"
        if needed is not None:
            reason += f"; {plan.margin_percent:g} % needs about {needed} blocks"
    return verdict.Comparison(
        method="sign-flip",
        unit=plan.unit,
        verdict=result,
        reason=reason,
        ratio=ratio,
        interval=interval,
        p=values.p_two_sided(),
        p_needed=level or None,
        alpha=plan.alpha,
        power=plan.power,
        margin_percent=plan.margin_percent,
        noise_percent=abba.as_percent(noise),
        mde_percent=abba.as_percent(mde),
        needed=needed,
        blocks=count,
        differences=differences.size,
        baseline_launches=2 * count,
        candidate_launches=2 * count,
    )
