"""Exact tests and the intervals that belong to them, from one sorted array: Hartigan's typical values.

If n differences are independent and symmetric about an effect, the means of their 2^n - 1 non-empty subsets cut the
line into 2^n pieces, each of which holds the effect with the same probability (J. A. Hartigan, "Using subsample values
as typical values", JASA 64, 1969). Counting them on one side of a value is the sign-permutation test of that value
(R. A. Fisher, "The Design of Experiments", 1935, section 21); cutting off the same number at either end is the interval
that this test would not reject. So p and interval cannot contradict each other. For two unpaired groups the differences
of equally large subset means do the same for the two-sample permutation test (E. J. G. Pitman, "Significance tests
which may be applied to samples from any populations", JRSS Suppl. 4, 1937).

Above the limits below, the sign vectors are drawn with a fixed seed. The drawn ones and the observed one are counted
together, so that p is never 0 and the test stays valid (B. Phipson and G. K. Smyth, "Permutation p-values should never
be zero", 2010).
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from bench.stats.samples import FloatArray

EXACT_DIFFERENCES = 16
"""Up to this many differences all 2^n sign vectors are looked at."""
EXACT_SPLITS = 50_000
"""Up to this many ways to split two groups all of them are looked at (9 against 9 is 48,620)."""
DRAWN = 25_000
"""Sign vectors drawn above the limit; each counts with its mirror image."""
SEED = 20_240_229
RELATIVE_TIE = 1e-12
"""Values nearer than this share of the largest are equal: a sum in another order must not decide a test."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TypicalValues:
    """Sorted values that cut the line into ``values.size + 1`` pieces, equally likely to hold the effect."""

    values: FloatArray
    tie: float

    @property
    def pieces(self) -> int:
        """How many pieces there are: 2^n for n differences; no p-value is below its reciprocal."""
        return int(self.values.size) + 1

    def p_above(self, effect: float) -> float:
        """Return the one-sided p of "the true effect is at most ``effect``": small when it is surely above."""
        return (1 + int(np.searchsorted(self.values, effect + self.tie, side="right"))) / self.pieces

    def p_below(self, effect: float) -> float:
        """Return the one-sided p of "the true effect is at least ``effect``": small when it is surely below."""
        at_or_above = self.values.size - int(np.searchsorted(self.values, effect - self.tie, side="left"))
        return (1 + at_or_above) / self.pieces

    def p_two_sided(self, effect: float = 0.0) -> float:
        """Return the p of "the true effect is ``effect``", twice the smaller one-sided p and at most 1."""
        return min(1.0, 2 * min(self.p_above(effect), self.p_below(effect)))

    def interval(self, level: float) -> tuple[float, float, float] | None:
        """Return (low, high, confidence) of the effects that ``p_two_sided`` does not reject at ``level``.

        The confidence is what these pieces give, at least 1 - ``level``. None when so few differences can reject
        nothing at that level: the interval is the whole line.
        """
        outside = math.floor(level / 2 * self.pieces * (1 + 1e-9))
        if outside < 1 or 2 * outside >= self.pieces:
            return None
        low, high = float(self.values[outside - 1]), float(self.values[self.pieces - outside - 1])
        return low, high, 1 - 2 * outside / self.pieces


@functools.cache
def _drawn_signs(count: int) -> npt.NDArray[np.int8]:
    """Signs of shape (2 * DRAWN, count); row 0 is all plus (what was seen), the second half mirrors the first.

    Each column has its own seed: the first columns stay the same when a session grows, so looks share their rows.
    """
    half = np.stack([np.random.default_rng((SEED, column)).integers(0, 2, DRAWN) for column in range(count)], axis=1)
    half[0] = 1
    signs = (2 * half - 1).astype(np.int8)
    return np.concatenate([signs, -signs])


def _doubled(differences: FloatArray) -> FloatArray:
    sums = np.zeros(1)
    for difference in differences:
        # The new sign is the highest bit, so an index without it names the same signs of the earlier differences.
        sums = np.concatenate([sums + difference, sums - difference])
    return sums


def signed_sums(differences: FloatArray, first: int) -> FloatArray:
    """Return the signed sums of the ``first`` differences under every sign vector of all of them; row 0 is as seen.

    Shape: (2^n,) for n <= EXACT_DIFFERENCES, else (2 * DRAWN,). Rows mean the same sign vector for each ``first``.
    """
    count = differences.size
    if count <= EXACT_DIFFERENCES:
        return np.tile(_doubled(differences[:first]), 2 ** (count - first))
    return np.asarray(_drawn_signs(count)[:, :first] @ differences[:first], dtype=np.float64)


def _tie(*groups: FloatArray) -> float:
    return RELATIVE_TIE * max(float(np.abs(group).max()) for group in groups)


def of_differences(differences: FloatArray) -> TypicalValues:
    """Return the typical values of paired differences, shape (n,), n >= 1: the means of their non-empty subsets."""
    sums = signed_sums(differences, differences.size)
    if differences.size <= EXACT_DIFFERENCES:
        flipped = (differences.size - _doubled(np.ones(differences.size))) / 2
    else:
        flipped = (_drawn_signs(differences.size) < 0).sum(axis=1)
    # A sign vector's sum is the total less twice the sum of those it flips.
    some = flipped > 0
    values = (differences.sum() - sums[some]) / (2 * flipped[some])
    return TypicalValues(values=np.sort(values), tie=_tie(differences))


def of_two_groups(baseline: FloatArray, candidate: FloatArray) -> TypicalValues:
    """Return the typical values of candidate - baseline: differences of equally large subset means of two groups."""
    first, total = baseline.size, baseline.size + candidate.size
    if math.comb(total, candidate.size) <= EXACT_SPLITS:
        chosen = np.array(list(itertools.combinations(range(total), candidate.size)))
    else:
        shuffled = np.random.default_rng(SEED).permuted(np.tile(np.arange(total), (2 * DRAWN, 1)), axis=1)
        chosen = shuffled[:, : candidate.size]
    as_candidate = np.zeros((len(chosen), total))
    np.put_along_axis(as_candidate, chosen, 1.0, axis=1)
    swapped = as_candidate[:, :first].sum(axis=1)
    as_candidate = as_candidate[swapped > 0]
    from_baseline = as_candidate[:, :first] @ baseline
    from_candidate = (1 - as_candidate[:, first:]) @ candidate
    values = (from_candidate - from_baseline) / swapped[swapped > 0]
    return TypicalValues(values=np.sort(values), tie=_tie(baseline, candidate))
