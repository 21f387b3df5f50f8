"""Two groups of launches that were measured earlier, each on its own: what they can still tell.

The unit is the launch (the median of its requests, say). Requests of one launch share its memory layout, clocks and
compiled kernels, so counting them as independent makes winners out of launch noise. The test is the exact permutation
test of the mean log duration with Pitman's interval (`bench.stats.permutation`). It takes for granted that nothing but
the arm differed: a drift between the two times of measurement looks like an effect, and only A-B-B-A blocks can tell.

One launch of each arm shows a ratio and nothing about its spread. With the between-launch noise of earlier launches in
the same cell (`calibrate`) it can be judged: (log ratio) / (noise * sqrt(1 / n + 1 / m)) has a t distribution with the
degrees of freedom of that noise, a normal one where these are not given. The noise of a launch holds that of the few
requests that it is the median of.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.errors import UsageError
from bench.stats import blocks as abba
from bench.stats import comparison, permutation
from bench.stats.samples import checked, checked_fraction

if TYPE_CHECKING:
    from bench.stats.comparison import Comparison
    from bench.stats.samples import FloatArray, Samples

LAUNCHES_LIMIT = 10_000
"""More launches than this are never worth proposing."""
LARGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryNoise:
    """Standard deviations in earlier launches of the same cell, in percent, and from how many launches (or None).

    ``between_launch_percent`` is that of launches beyond what their requests explain, ``within_launch_percent`` that of
    the requests of one launch. ``launches`` less one are the degrees of freedom; None takes both for exactly known.
    """

    between_launch_percent: float
    within_launch_percent: float = 0.0
    launches: int | None = None

    def of_launch(self, requests: int = 1) -> float:
        """Return the standard deviation of the log duration of a launch that is the median of so many requests.

        The variance of a median of k normal values goes to pi / (2 k) of theirs, from below (M. G. Kendall, A. Stuart,
        "The Advanced Theory of Statistics", volume 1, chapter 10); that of one value is all of it.
        """
        shares = self.between_launch_percent, self.within_launch_percent * math.sqrt(min(1, math.pi / (2 * requests)))
        return math.hypot(*(math.log1p(share / 100) for share in shares))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Launches:
    """Log durations of both arms, and what is asked of them."""

    baseline: FloatArray
    candidate: FloatArray
    alpha: float
    power: float
    margin_percent: float

    @property
    def effect(self) -> float:
        return float(self.candidate.mean() - self.baseline.mean())

    @property
    def sizes(self) -> tuple[int, int]:
        return self.baseline.size, self.candidate.size


def smallest_p(baseline_launches: int, candidate_launches: int) -> float:
    """Return the smallest two-sided p of so many unpaired launches, 2 / C(n + m, n): 0.1 for 3 against 3."""
    return min(1.0, 2 / math.comb(baseline_launches + candidate_launches, baseline_launches))


def _can_reach(alpha: float, baseline_launches: int, candidate_launches: int) -> bool:
    # More launches only help, and the count of splits of thousands takes long to write out.
    sizes = min(baseline_launches, LARGE), min(candidate_launches, LARGE)
    return smallest_p(*sizes) <= alpha * (1 + 1e-9)


def _pooled_noise(launches: _Launches) -> float | None:
    freedom = sum(launches.sizes) - 2
    if freedom < 1:
        return None
    squares = sum(float(((arm - arm.mean()) ** 2).sum()) for arm in (launches.baseline, launches.candidate))
    return math.sqrt(squares / freedom)


def _detectable(
    noise: float | None, sizes: tuple[int, int], freedom: float, level: float, power: float
) -> float | None:
    """Return the smallest |log ratio| that is found; freedom may be infinite. None where the noise is unknown or 0."""
    from scipy import special  # noqa: PLC0415 - time that other tasks need not pay

    if noise is None or noise <= 0:
        return None
    quantiles = special.stdtrit(freedom, 1 - level / 2) + special.stdtrit(freedom, power)
    return float(quantiles * noise * math.sqrt(1 / sizes[0] + 1 / sizes[1]))


def launches_needed(
    effect_percent: float, noise: float | None, *, alpha: float = 0.05, power: float = 0.8
) -> int | None:
    """Return how many launches of each arm find an effect of ``effect_percent``; None where noise is unknown or 0.

    ``noise`` is the between-launch standard deviation of the log duration. More than 10,000 launches are None as well.

    Raises:
        UsageError: the effect is not above zero.
    """
    if not effect_percent > 0:
        raise UsageError(f"an effect to be found is above 0 %, not {effect_percent!r}")
    effect = math.log1p(effect_percent / 100)

    def enough(launches: int) -> bool:
        found = _detectable(noise, (launches, launches), 2 * launches - 2, alpha, power)
        return found is not None and found <= effect and _can_reach(alpha, launches, launches)

    if not enough(LAUNCHES_LIMIT):
        return None
    low, high = 1, LAUNCHES_LIMIT
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def compare_launches(
    baseline: Samples,
    candidate: Samples,
    *,
    history: HistoryNoise | None = None,
    requests: tuple[int, int] = (1, 1),
    alpha: float = comparison.DEFAULT_ALPHA,
    power: float = comparison.DEFAULT_POWER,
    margin_percent: float = comparison.DEFAULT_MARGIN_PERCENT,
) -> Comparison:
    """Return the comparison of launches measured apart, one duration for each launch and in one unit.

    ``history`` is used where the launches alone are too few to reach ``alpha``; a launch's duration is then taken for
    the median of so many ``requests``, on either side.

    Raises:
        UsageError: either side is empty, or holds a value that is missing, not finite, zero or negative; the history's
            noise is not above zero or comes from fewer than two launches.
    """
    launches = _Launches(
        baseline=np.log(checked(baseline, "baseline")),
        candidate=np.log(checked(candidate, "candidate")),
        alpha=checked_fraction(alpha, "alpha"),
        power=checked_fraction(power, "power"),
        margin_percent=margin_percent,
    )
    if _can_reach(alpha, *launches.sizes):
        return _from_permutations(launches)
    return _undecided(launches) if history is None else _from_history(launches, history, requests)


def _undecided(launches: _Launches) -> Comparison:
    """Say what so few launches show, and what would decide."""
    seen = "{} against {} launches show {:+.2f} %".format(
        *launches.sizes, comparison.percent(math.exp(launches.effect))
    )
    if max(launches.sizes) == 1:
        why = f"{seen} and nothing about the spread; one sample cannot tell an effect from noise"
        p = None
    else:
        lowest = smallest_p(*launches.sizes)
        why = f"{seen}, but so few can never reach p <= {launches.alpha:g} (at best {lowest:.2g})"
        p = permutation.of_two_groups(launches.baseline, launches.candidate).p_two_sided()
    why += "; measure A-B-B-A blocks (invoke ab), or give this machine's noise (invoke calibrate)"
    return _comparison(launches, method="none", inside=None, remark=why, noise=_pooled_noise(launches), mde=None, p=p)


def _from_permutations(launches: _Launches) -> Comparison:
    values = permutation.of_two_groups(launches.baseline, launches.candidate)
    noise = _pooled_noise(launches)
    return _comparison(
        launches,
        method="permutation",
        inside=values.interval(launches.alpha),
        remark="measured apart, so a drift between the two times would look the same",
        noise=noise,
        mde=_detectable(noise, launches.sizes, sum(launches.sizes) - 2, launches.alpha, launches.power),
        p=values.p_two_sided(),
    )


def _from_history(launches: _Launches, history: HistoryNoise, requests: tuple[int, int]) -> Comparison:
    from scipy import special  # noqa: PLC0415 - time that other tasks need not pay

    known = history.between_launch_percent, history.within_launch_percent
    if not (min(known) >= 0 and 0 < sum(known) < math.inf):
        raise UsageError(f"noise of earlier launches is above 0 %, not {known[0]!r} between and {known[1]!r} within")
    if history.launches is not None and history.launches < 2:  # noqa: PLR2004 - one launch has no spread
        raise UsageError("noise comes from at least two launches", todo="run invoke calibrate")
    freedom = math.inf if history.launches is None else history.launches - 1
    each = [history.of_launch(count) for count in requests]
    error = math.hypot(*(noise / math.sqrt(size) for noise, size in zip(each, launches.sizes, strict=True)))
    noise = max(each)
    reach = float(special.stdtrit(freedom, 1 - launches.alpha / 2)) * error
    return _comparison(
        launches,
        method="history-noise",
        inside=(launches.effect - reach, launches.effect + reach, 1 - launches.alpha),
        remark=f"rests on a noise of {known[0]:.3g} % between and {known[1]:.3g} % within, from earlier launches",
        noise=noise,
        mde=_detectable(noise, launches.sizes, freedom, launches.alpha, launches.power),
        p=float(2 * special.stdtr(freedom, -abs(launches.effect) / error)),
    )


def _comparison(
    launches: _Launches,
    *,
    method: str,
    inside: tuple[float, float, float] | None,
    remark: str,
    noise: float | None,
    mde: float | None,
    p: float | None,
) -> Comparison:
    margin, alpha, power = launches.margin_percent, launches.alpha, launches.power
    ratio = math.exp(launches.effect)
    result = comparison.classify(inside, margin)
    interval = comparison.effect_interval(inside)
    why = remark if interval is None else f"{comparison.reason(result, ratio, interval, margin)}; {remark}"
    if result == comparison.INCONCLUSIVE and mde is not None:
        why += f"; so many launches with this noise show effects from {abba.as_percent(mde):.2f} %"
    return comparison.Comparison(
        method=method,
        unit="launch",
        verdict=result,
        reason=why,
        ratio=ratio,
        interval=interval,
        p=p,
        p_needed=None if inside is None else alpha,
        alpha=alpha,
        power=power,
        margin_percent=margin,
        noise_percent=abba.as_percent(noise),
        mde_percent=abba.as_percent(mde),
        needed=launches_needed(margin, noise, alpha=alpha, power=power) if margin else None,
        blocks=None,
        differences=None,
        baseline_launches=launches.sizes[0],
        candidate_launches=launches.sizes[1],
    )
