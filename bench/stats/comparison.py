"""The outcome of a comparison: faster, slower, same or inconclusive, with what it rests on.

The verdict can be read from the interval of the effect alone (the confidence-interval form of an equivalence test:
D. J. Schuirmann, J. Pharmacokinet. Biopharm. 15, 1987; repeated at several looks: C. Jennison and B. W. Turnbull,
"Sequential equivalence testing and repeated confidence intervals", Biometrics 49, 1993):

    wholly inside the margin         same, also where it leaves out "no effect": a difference nobody asked for
    leaves out "no effect"           faster or slower
    anything else                    inconclusive

All figures are durations: faster means that the candidate takes less time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from bench.errors import Inconclusive, ThresholdMissed

FASTER = "faster"
SLOWER = "slower"
SAME = "same"
INCONCLUSIVE = "inconclusive"
EXIT_CODES = {FASTER: 0, SAME: 0, SLOWER: ThresholdMissed.exit_code, INCONCLUSIVE: Inconclusive.exit_code}

SCHEMA = "urn:sglang-diffusion-workbench:comparison:1"
DEFAULT_ALPHA = 0.05
DEFAULT_POWER = 0.8
DEFAULT_MARGIN_PERCENT = 1.5
"""The smallest repeated end-to-end gain that SGLang's contributors may claim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectInterval:
    """Which candidate / baseline ratios agree with the samples, at a confidence between 0 and 1."""

    low_ratio: float
    high_ratio: float
    confidence: float

    @property
    def low_percent(self) -> float:
        """Return the lower end as a change of the baseline's time, in percent."""
        return percent(self.low_ratio)

    @property
    def high_percent(self) -> float:
        """Return the upper end as a change of the baseline's time, in percent."""
        return percent(self.high_ratio)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One candidate against one baseline. What is not known is None.

    ``method`` is sign-flip (A-B-B-A blocks), permutation (unpaired launches), history-noise (unpaired, the spread taken
    from earlier launches) or none. ``unit`` is what one difference is made of: block, pair or launch. ``ratio`` is
    candidate / baseline. ``p`` is two-sided, as if the samples had been looked at once; ``p_needed`` is what it had to
    reach at this look, so that all looks together give a false alarm with probability ``alpha`` at most.
    ``noise_percent`` is the standard deviation of one difference, ``mde_percent`` the smallest effect that so many
    differences with that noise show with probability ``power``; ``needed`` the blocks (unpaired: launches of each arm)
    that would show an effect as small as the margin.
    """

    method: str
    unit: str
    verdict: str
    reason: str
    ratio: float
    interval: EffectInterval | None
    p: float | None
    p_needed: float | None
    alpha: float
    power: float
    margin_percent: float
    noise_percent: float | None
    mde_percent: float | None
    needed: int | None
    blocks: int | None
    differences: int | None
    baseline_launches: int
    candidate_launches: int

    @property
    def effect_percent(self) -> float:
        """Return the change of the baseline's time in percent: -3 where the candidate takes 3 % less."""
        return percent(self.ratio)

    @property
    def exit_code(self) -> int:
        """Return 0 for faster and same, 7 for slower, 9 for inconclusive."""
        return EXIT_CODES[self.verdict]


def percent(ratio: float) -> float:
    """Return a ratio as a change in percent: 1.03 is +3."""
    return (ratio - 1) * 100


def margin_log(margin_percent: float) -> float:
    """Return the margin as a log ratio. It reaches from 1 / (1 + margin) to 1 + margin, so both arms have the same."""
    return math.log1p(margin_percent / 100)


def effect_interval(log_interval: tuple[float, float, float] | None) -> EffectInterval | None:
    """Return (low, high, confidence) of log ratios as an interval of ratios; None stays None."""
    if log_interval is None:
        return None
    low, high, confidence = log_interval
    return EffectInterval(low_ratio=math.exp(low), high_ratio=math.exp(high), confidence=confidence)


def classify(log_interval: tuple[float, float, float] | None, margin_percent: float) -> str:
    """Return the verdict that an interval of log ratios allows; no interval, no verdict but inconclusive."""
    if log_interval is None:
        return INCONCLUSIVE
    low, high, _ = log_interval
    margin = margin_log(margin_percent)
    if -margin <= low and high <= margin:
        return SAME
    if high < 0:
        return FASTER
    return SLOWER if low > 0 else INCONCLUSIVE


def reason(verdict: str, ratio: float, interval: EffectInterval | None, margin_percent: float) -> str:
    """Return the sentence that says why an interval means this verdict."""
    if interval is None:
        return f"so few samples exclude nothing; what was seen is {percent(ratio):+.2f} %"
    between = f"{interval.low_percent:+.2f} to {interval.high_percent:+.2f} %"
    if verdict == SAME:
        beside = "" if interval.low_ratio <= 1 <= interval.high_ratio else "there is a difference, but "
        return f"{beside}the whole interval, {between}, lies inside the margin of {margin_percent:g} %"
    if verdict == INCONCLUSIVE:
        return f"the interval, {between}, holds both no effect and effects beyond the margin of {margin_percent:g} %"
    change = "less" if verdict == FASTER else "more"
    return f"the candidate takes {abs(percent(ratio)):.2f} % {change} time; the interval is {between}"


def to_document(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison as a document that keeps ``schemas/comparison.json``."""
    interval = comparison.interval
    return {
        "schema": SCHEMA,
        "verdict": comparison.verdict,
        "reason": comparison.reason,
        "exit_code": comparison.exit_code,
        "effect": {"ratio": comparison.ratio, "percent": comparison.effect_percent},
        "interval": None
        if interval is None
        else {
            "low_ratio": interval.low_ratio,
            "high_ratio": interval.high_ratio,
            "low_percent": interval.low_percent,
            "high_percent": interval.high_percent,
            "confidence": interval.confidence,
        },
        "p": comparison.p,
        "p_needed": comparison.p_needed,
        "alpha": comparison.alpha,
        "power": comparison.power,
        "margin_percent": comparison.margin_percent,
        "noise_percent": comparison.noise_percent,
        "mde_percent": comparison.mde_percent,
        "needed": comparison.needed,
        "method": comparison.method,
        "unit": comparison.unit,
        "blocks": comparison.blocks,
        "differences": comparison.differences,
        "baseline_launches": comparison.baseline_launches,
        "candidate_launches": comparison.candidate_launches,
    }
