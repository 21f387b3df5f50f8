"""When to stop a session of pairs: looks planned beforehand that share one false-alarm rate.

A group-sequential t test (C. Jennison and B. W. Turnbull, "Group Sequential Methods", 2000, chapter 11) of the pairs'
log ratios with alpha spending (K. K. G. Lan and D. L. DeMets, Biometrika 70, 1983; power family, K. Kim and D. L.
DeMets, Biometrika 74, 1987): after k of N pairs the looks so far name a winner in a session without any difference with
probability alpha (k / N)^3. The nominal levels come from simulated normal sessions with a fixed seed.

Differences of alike arms are symmetric, which keeps t honest where they are not normal (docs/compare.md has the rates).
The first look is after three pairs: two differences of a machine with two clocks are alike by chance in one session of
eight, and t with one degree of freedom takes that for certainty.

The interval at a look is the repeated confidence interval: effects that a t test at this look's level does not reject.
Stopping for "same" can only take rejections away.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.errors import UsageError
from bench.stats import comparison as outcome
from bench.stats import planning
from bench.stats.pairs import dependent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.stats.comparison import Comparison, LogInterval
    from bench.stats.samples import FloatArray

FIRST_LOOK = 3
SPENDING = 3
DEFAULT_MAX_PAIRS = 8
MOST_PAIRS = 60
SESSIONS = 200_000
SEED = 20_260_401


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is fixed before the first launch."""

    max_pairs: int = DEFAULT_MAX_PAIRS
    margin_percent: float = outcome.DEFAULT_MARGIN_PERCENT
    metric: str = "total time"
    """As it stands in the sentence."""
    is_disturbed: bool = False
    """Whether an arm was measured under disturbance: a winner is named, and no size of the effect is claimed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchNoise:
    """What `calibrate` knows of a cell: the sd of the log of one launch, from how many launches of how many requests.

    ``sd_percent`` is that of launch means, whatever it is made of; ``within_percent`` that of the requests of one
    launch, None where each had one.
    """

    sd_percent: float
    launches: int
    requests: int = 1
    within_percent: float | None = None

    def sd_of_launch(self, requests: int) -> float:
        """Return the sd of the log of a launch with so many requests; fewer than were calibrated add their noise."""
        within = math.log1p((self.within_percent or 0.0) / 100)
        more = max(0.0, 1 / requests - 1 / self.requests)
        return math.hypot(math.log1p(self.sd_percent / 100), within * math.sqrt(more))

    @property
    def freedom(self) -> int:
        """Return the degrees of freedom of the spread between launches."""
        return self.launches - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether the session stops here, why, and the comparison so far."""

    stop: bool
    why: str
    comparison: Comparison


def check(plan: Plan) -> None:
    """Raise UsageError if the plan contradicts itself, or has too few pairs for its first look."""
    if not 1 <= plan.max_pairs <= MOST_PAIRS or not plan.margin_percent >= 0:
        raise UsageError(f"a plan has 1 to {MOST_PAIRS} pairs and a margin of at least 0 %")
    if 1 < plan.max_pairs < FIRST_LOOK:
        raise UsageError(
            f"{plan.max_pairs} pairs cannot decide: the first look is after {FIRST_LOOK}",
            todo=f"{FIRST_LOOK} pairs at least, or one and the spread that `invoke calibrate` keeps",
        )


@functools.cache
def levels(max_pairs: int) -> Mapping[int, float]:
    """Return the nominal two-sided level of the look after each count of pairs, from the third on."""
    from scipy import special  # noqa: PLC0415 - time that other tasks need not pay

    draws = np.random.default_rng(SEED)
    alive = np.ones(SESSIONS, dtype=bool)
    total, squares = np.zeros(SESSIONS), np.zeros(SESSIONS)
    spent, result = 0, {}
    for count in range(1, max_pairs + 1):
        drawn = draws.standard_normal(SESSIONS)
        total += drawn
        squares += drawn * drawn
        if count < FIRST_LOOK:
            continue
        t = np.abs(total) * np.sqrt((count - 1) / (count * squares - total**2))
        budget = math.floor(outcome.ALPHA * (count / max_pairs) ** SPENDING * SESSIONS)
        ordered = np.sort(t[alive])[::-1]
        critical = float(ordered[budget - spent])
        alive &= t <= critical
        spent = budget
        result[count] = float(2 * special.stdtr(count - 1, -critical))
    return result


def interval(differences: FloatArray, level: float) -> LogInterval | None:
    """Return the t interval of the mean difference; None where all are equal, whose spread the clock cannot show."""
    from scipy import special  # noqa: PLC0415 - time that other tasks need not pay

    size = differences.size
    if size < 2 or np.ptp(differences) <= outcome.ROUNDING:  # noqa: PLR2004 - one has no spread
        return None
    mean = float(differences.mean())
    half = float(special.stdtrit(size - 1, 1 - level / 2) * differences.std(ddof=1) / math.sqrt(size))
    return outcome.LogInterval(low=mean - half, high=mean + half, confidence=1 - level)


def decide(differences: Sequence[float], plan: Plan) -> Decision:
    """Return whether the session of these pairs' log ratios, in order, is decided, and its comparison.

    All looks so far are taken again, so the same pairs always give the same decision. The first look with a verdict
    counts, and pairs after it are not used.

    Raises:
        UsageError: no pair, more pairs than planned, or an impossible plan.
    """
    check(plan)
    values = np.asarray(differences, dtype=np.float64)
    if not 1 <= values.size <= plan.max_pairs:
        raise UsageError(f"got {values.size} pairs, but the plan allows 1 to {plan.max_pairs}")
    at = levels(plan.max_pairs)
    for count in range(FIRST_LOOK, values.size + 1):
        early = count < plan.max_pairs
        comparison = _compare(values[:count], at[count], plan, early=early)
        if comparison.verdict != outcome.INCONCLUSIVE:
            return Decision(stop=True, why=f"decided after {count} of {plan.max_pairs} pairs", comparison=comparison)
    comparison = _compare(values, at.get(values.size), plan, early=False)
    if values.size == plan.max_pairs:
        measured = "the pair is measured" if plan.max_pairs == 1 else f"all {plan.max_pairs} pairs are measured"
        why = f"{measured}, still undecided"
        return Decision(stop=True, why=why, comparison=comparison)
    bound, first = ("at most ", f" (first decision after {FIRST_LOOK})") if plan.max_pairs > FIRST_LOOK else ("", "")
    why = f"{values.size} of {bound}{plan.max_pairs} pairs{first if values.size < FIRST_LOOK else ''}"
    return Decision(stop=False, why=why, comparison=comparison)


def _basis(method: str, pairs: int, plan: Plan) -> outcome.Basis:
    return outcome.Basis(
        metric=plan.metric,
        method=method,
        unit="pair",
        units=pairs,
        baseline_launches=pairs,
        candidate_launches=pairs,
        margin_percent=plan.margin_percent,
        is_disturbed=plan.is_disturbed,
    )


def _compare(values: FloatArray, level: float | None, plan: Plan, *, early: bool) -> Comparison:
    inside = None if level is None else interval(values, level)
    noise = float(values.std(ddof=1)) if values.size > 1 and np.ptp(values) > outcome.ROUNDING else None
    remarks: tuple[str, ...] = ()
    if level is None:
        remarks = (f"no verdict is possible before {FIRST_LOOK} pairs",)
    elif inside is None:
        remarks = ("all pairs differ by the same amount: the clock is too coarse to show a spread",)
    return outcome.conclude(
        _basis("sequential-t", int(values.size), plan),
        float(values.mean()),
        inside,
        noise=noise,
        planning=None if early else planning.plan(plan.margin_percent, noise, int(values.size) - 1, groups=1),
        remarks=remarks,
        early=early,
    )


def one_pair(effect: float, rounds: Sequence[float], plan: Plan, noise: LaunchNoise | None) -> Comparison:
    """Return the comparison of one pair of starts: its log ratio, and those of its rounds of requests.

    Without the spread between launches it is true of these two starts only, and names no winner. With it, the interval
    is effect +- sqrt(h^2 + 2 (t s)^2): h the half width from the rounds, s the sd of one launch.
    """
    from scipy import special  # noqa: PLC0415 - time that other tasks need not pay

    values = np.asarray(rounds, dtype=np.float64)
    alone = interval(values, outcome.ALPHA)
    within = 0.0 if alone is None else (alone.high - alone.low) / 2
    basis = _basis("one-pair", 1, plan)
    if noise is None or alone is None:
        low, high = (outcome.log_as_percent(end) for end in (effect - within, effect + within))
        ends = f"the requests of these two starts alone give a 95 % interval of {low:+.2f} to {high:+.2f} %"
        known = "one pair of starts has no spread between starts: `invoke calibrate` measures it, or more pairs do"
        return outcome.conclude(basis, effect, None, remarks=(known,) if alone is None else (ends, known))
    reach = float(special.stdtrit(noise.freedom, 1 - outcome.ALPHA / 2)) * noise.sd_of_launch(values.size)
    half = math.hypot(within, math.sqrt(2) * reach)
    known = f"the interval holds the spread of {noise.sd_percent:.2g} % between {noise.launches} earlier launches"
    caution = (
        "the rounds of this pair depend on each other, so their spread is too small" if dependent(values) else None
    )
    inside = outcome.LogInterval(low=effect - half, high=effect + half, confidence=1 - outcome.ALPHA)
    return outcome.conclude(
        basis, effect, inside, noise=math.sqrt(2) * noise.sd_of_launch(values.size), remarks=(known,), caution=caution
    )
