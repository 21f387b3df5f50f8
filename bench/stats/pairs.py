"""Pairs of engine starts: the unit of a comparison of two arms.

Both engines are started, requests alternate, both are stopped: one pair, which gives one difference, the log of
candidate / baseline. Requests of one start share its memory layout, clocks and compiled kernels, so that they tell
little about the next start; a pair holds the spread between starts, and what slows both arms alike cancels.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import numpy as np

from bench.stats.samples import checked

if TYPE_CHECKING:
    from bench.stats.samples import FloatArray, Samples

DEPENDENCE_MINIMUM = 5
DEPENDENCE_LEVEL = 0.05
ORDERS = ("AB", "BA")


def fresh_seed() -> int:
    """Return a seed from the system's entropy, to be kept in the record."""
    return secrets.randbits(32)


def plan_orders(count: int, *, seed: int) -> tuple[str, ...]:
    """Return which arm comes first in each of ``count`` pairs, AB or BA.

    Of every two pairs in a row one begins with either arm, in drawn order: balanced wherever a session stops.
    """
    flips = np.random.default_rng(seed).integers(0, 2, (count + 1) // 2)
    return tuple(ORDERS[place] for flip in flips for place in (flip, 1 - flip))[:count]


def turns(order: str, requests: int) -> str:
    """Return the arms' turns in a pair that begins with ``order``: ABBAABBA... for four requests of each arm.

    Every second round is mirrored, so that a steady drift falls on both arms alike.
    """
    return "".join(order if number % 2 == 0 else order[::-1] for number in range(requests))


def log_ratio(baseline: Samples, candidate: Samples) -> float:
    """Return the difference of a pair: the log of the ratio of the medians of its requests.

    Raises:
        UsageError: an arm has no request, or one without a finite value above zero.
    """
    return float(np.log(np.median(checked(candidate, "candidate"))) - np.log(np.median(checked(baseline, "baseline"))))


def dependent(differences: FloatArray) -> bool:
    """Tell whether successive differences are alike: lag-1 correlation above zero at one-sided p < .05.

    False for fewer than five, which cannot show it, and for differences that are all equal.
    """
    from scipy import stats  # noqa: PLC0415 - a second that other tasks need not pay

    if differences.size < DEPENDENCE_MINIMUM or min(np.ptp(differences[:-1]), np.ptp(differences[1:])) == 0:
        return False
    return bool(stats.pearsonr(differences[:-1], differences[1:], alternative="greater").pvalue < DEPENDENCE_LEVEL)
