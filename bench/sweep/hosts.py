"""What replicas of cells on several hosts say of the hosts: the spread between them, and which is unlike the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

FEWEST_CELLS = 3
"""A host is judged by so many cells that other hosts measured too."""
SMALLEST_PERCENT = 3.0
LEVEL = 0.001
"""An outlier is so far off by chance in one of a thousand hosts (Student's t)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The time of a cell on a host."""

    cell: str
    host: str
    total_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HostEffect:
    """How much longer (positive) cells take on a host than on the median host; ``error_percent`` is its standard error.

    ``is_outlier``: it differs by more than chance and 3 %. Of two hosts both are named: which is wrong is unknown.
    """

    host: str
    cells: int
    percent: float
    error_percent: float
    is_outlier: bool


def effects(measured: Sequence[Measured]) -> list[HostEffect]:
    """Return the effect of each host, by least squares over log times = cell + host; empty where no cell has two hosts.

    Hosts that share too few cells with others are left out.
    """
    shared = [one for one in measured if len({other.host for other in measured if other.cell == one.cell}) > 1]
    counts = {host: len({one.cell for one in shared if one.host == host}) for host in {one.host for one in shared}}
    known = sorted(host for host, count in counts.items() if count >= FEWEST_CELLS)
    shared = [one for one in shared if one.host in known]
    from scipy import stats  # noqa: PLC0415 - a second that other tasks need not pay

    if len(known) < 2:  # noqa: PLR2004 - a spread takes two
        return []
    cells = sorted({one.cell for one in shared})
    design = np.zeros((len(shared), len(cells) + len(known)))
    for row, one in enumerate(shared):
        design[row, cells.index(one.cell)] = design[row, len(cells) + known.index(one.host)] = 1
    logs = np.log([one.total_ms for one in shared])
    inverse = np.linalg.pinv(design)
    fitted = inverse @ logs
    freedom = max(1, len(shared) - int(np.linalg.matrix_rank(design)))
    sigma = math.sqrt(float(((logs - design @ fitted) ** 2).sum()) / freedom)
    found = fitted[len(cells) :] - np.median(fitted[len(cells) :])
    far = float(stats.t.ppf(1 - LEVEL / 2, freedom))
    errors = sigma * np.sqrt((inverse**2).sum(axis=1))[len(cells) :]
    return [
        HostEffect(
            host=host,
            cells=counts[host],
            percent=100 * math.expm1(effect),
            error_percent=100 * error,
            is_outlier=abs(100 * math.expm1(effect)) > SMALLEST_PERCENT and abs(effect) > far * error,
        )
        for host, effect, error in zip(known, map(float, found), map(float, errors), strict=True)
    ]


def told(found: Sequence[HostEffect]) -> list[str]:
    """Return in words what the effects say: the spread, then the hosts that are unlike the rest."""
    if not found:
        return []
    widest = max(one.percent for one in found) - min(one.percent for one in found)
    lines = [f"{len(found)} hosts differ by up to {widest:.2g} % in the end-to-end time of the same cells"]
    for one in found:
        if one.is_outlier:
            word = "slower" if one.percent > 0 else "faster"
            lines.append(
                f"outlier: cells are {abs(one.percent):.2g} % {word} on {one.host} than on the median host"
                f" (± {2 * one.error_percent:.2g} %, {one.cells} cells)"
            )
    return lines
