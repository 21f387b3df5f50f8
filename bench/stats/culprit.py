"""Which commit moved a number: probabilities of each, from pairs of measurements that carry noise.

Hypothesis k says that one change, that of commit k, moved the log of the number by an unknown d. A pair of measurements
then has the mean x d, where x is 1 if only its candidate holds the change, -1 if only its baseline does, else 0; the
noise is normal with an unknown spread that all pairs share. With a flat prior on d and Jeffreys' on the spread both
integrate out (A. Zellner, "An Introduction to Bayesian Inference in Econometrics", 1971, chapter 3: the regression
y = x d + u):

    p(pairs | k)  ~  (sum x^2)^(-1/2)  (sum y^2 - (sum x y)^2 / sum x^2)^(-(N - 1) / 2)

So it is Student's t that judges, and a spread that is known from few pairs counts for little. Unlike a bisection by
"good" or "bad" runs, or git-bayesect's count of failures, nothing of a measured difference is thrown away by a
threshold, and a pair that lies between says so.

The next pair is that of the commit whose outcome tells most. Its information about k depends on nothing but the
probability p that it holds the change (all pairs have the same d and noise), is concave in p and symmetric about 1/2:
the commit with p nearest to 1/2 has the largest expected information.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.stats.samples import FloatArray

RESOLUTION = 0.0005
"""A spread below this (0.05 %) is a clock that is too coarse to show it; without a floor two equal pairs are proof."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One pair: the log of candidate / baseline, and for each hypothesis its x."""

    value: float
    moved: tuple[int, ...]


def probabilities(observations: Sequence[Observation], hypotheses: int) -> FloatArray:
    """Return the probability of each hypothesis, all of them equally likely before.

    Every hypothesis has to expect a change of some pair: the endpoints are among the observations, else none is told
    from another.
    """
    if not observations:
        return np.full(hypotheses, 1 / hypotheses)
    values = np.array([known.value for known in observations])
    moved = np.array([known.moved for known in observations], dtype=np.float64).T
    power = (moved**2).sum(axis=1)
    if not (power > 0).all():
        return np.full(hypotheses, 1 / hypotheses)
    residual = (values**2).sum() - (moved @ values) ** 2 / power + values.size * RESOLUTION**2
    logs = -0.5 * np.log(power) - 0.5 * (values.size - 1) * np.log(residual)
    weights = np.exp(logs - logs.max())
    return np.asarray(weights / weights.sum())


def holding(probability: FloatArray, holds: Sequence[Sequence[bool]]) -> FloatArray:
    """Return for each commit the probability that it holds the change; ``holds`` says by hypothesis which ones do."""
    return np.asarray(probability @ np.asarray(holds, dtype=np.float64))


def most_telling(probability: FloatArray, holds: Sequence[Sequence[bool]], measurable: Sequence[bool]) -> int | None:
    """Return the commit to measure next: of those that can be, the one with the largest expected information.

    None where no measurable commit can tell anything: each surely holds the change, or surely does not.
    """
    doubt = np.abs(holding(probability, holds) - 0.5)
    doubt[~np.asarray(measurable, dtype=bool)] = np.inf
    best = int(doubt.argmin())
    return best if doubt[best] < 0.5 - 1e-9 else None


def credible(probability: FloatArray, level: float) -> list[int]:
    """Return the fewest hypotheses that together have at least this probability, in order."""
    chosen: list[int] = []
    total = 0.0
    for place in np.argsort(-probability, kind="stable"):
        chosen.append(int(place))
        total += float(probability[place])
        if total >= level:
            break
    return sorted(chosen)
