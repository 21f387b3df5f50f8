"""Bisections whose culprit is known: the course of `invoke bisect` against `git bisect` with one run a step."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.bisect.course import CULPRIT, Course, Design, End, Planned, Result
from bench.engine.history import Commit, Range
from bench.stats import sequential

COMMITS = 24
EFFECT_PERCENT = 3.0
NOISES_PERCENT = (0.3, 1.0, 2.0)
SEED = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Sessions at one launch noise: how often a method named the right commit, a wrong one, and its mean launches."""

    noise_percent: float
    method: str
    right: int
    wrong: int
    sessions: int
    launches: float

    def told(self, count: int) -> str:
        """Return a number of sessions in percent, with one Monte-Carlo standard error as the other rates have it."""
        share = (count + 1) / (self.sessions + 2)
        error = 100 * math.sqrt(share * (1 - share) / self.sessions)
        return f"{100 * count / self.sessions:.1f} ± {error:.1f} %"


def _range() -> Range:
    names = [f"{number:040x}" for number in range(COMMITS + 1)]
    commits = tuple(
        Commit(sha=name, subject="", parents=(names[number],), before=names[number])
        for number, name in enumerate(names[1:])
    )
    return Range(checkout=Path(), good=names[0], bad=names[-1], commits=commits, dirty=False)


def _compare(planned: Planned, culprit: int, noise: float, draw: np.random.Generator) -> Result:
    """Return a comparison as the house's rule ends it; commits are named by their numbers."""
    holds = [int(name, 16) >= culprit for name in (planned.baseline, planned.candidate)]
    moved = (holds[1] - holds[0]) * math.log1p(EFFECT_PERCENT / 100)
    looks = sequential.Plan(max_pairs=planned.pairs, margin_percent=EFFECT_PERCENT)
    differences: list[float] = []
    while True:
        differences.append(moved + math.sqrt(2) * noise * float(draw.standard_normal()))
        decision = sequential.decide(differences, looks)
        if decision.stop:
            return Result(
                part=planned.part, why=planned.why, baseline=planned.baseline, candidate=planned.candidate,
                differences=tuple(differences), verdict=decision.comparison.verdict, reason="",
            )  # fmt: skip


def _ours(culprit: int, noise: float, draw: np.random.Generator) -> tuple[bool | None, int]:
    """Return whether the culprit that was named is right (None: none was named), and the launches that it took."""
    going = Course(known=_range(), design=Design(effect_percent=EFFECT_PERCENT), limited=False, broken={})
    while not isinstance(following := going.following(), End):
        going.results.append(_compare(following, culprit, noise, draw))
    named = int(following.commits[0], 16) == culprit if following.outcome == CULPRIT else None
    return named, 2 * going.pairs


def _plain(culprit: int, noise: float, draw: np.random.Generator) -> tuple[bool | None, int]:
    """Return the same of `git bisect`: one run a step, bad where it is nearer to bad's one run than to good's."""

    def run(number: int) -> float:
        return math.log1p(EFFECT_PERCENT / 100) * (number >= culprit) + noise * float(draw.standard_normal())

    middle = (run(0) + run(COMMITS)) / 2
    low, high, launches = 0, COMMITS, 2
    while high - low > 1:
        place = (low + high) // 2
        launches += 1
        low, high = (low, place) if run(place) > middle else (place, high)
    return high == culprit, launches


@functools.cache
def rows(share: float) -> tuple[Row, ...]:
    """Return the rows of both methods; ``share`` scales the number of sessions."""
    draw = np.random.default_rng(SEED)
    sessions = max(20, int(500 * share))
    found = []
    for noise in NOISES_PERCENT:
        for method, bisect in (("invoke bisect", _ours), ("git bisect, one run a step", _plain)):
            ends = [bisect(int(draw.integers(1, COMMITS + 1)), noise / 100, draw) for _ in range(sessions)]
            found.append(
                Row(
                    noise_percent=noise,
                    method=method,
                    right=sum(named is True for named, _ in ends),
                    wrong=sum(named is False for named, _ in ends),
                    sessions=sessions,
                    launches=sum(launches for _, launches in ends) / sessions,
                )
            )
    return tuple(found)


def page(found: tuple[Row, ...]) -> str:
    """Return the rows as a Markdown section."""
    lines = [
        "## Bisections", "",
        (
            f"{COMMITS} commits, of which one takes {EFFECT_PERCENT:g} % more; `invoke bisect` with at most 80 pairs of"
            f" starts; {found[0].sessions} sessions a row. What is neither right nor wrong named no single commit."
        ), "",
        "| spread between launches | | right commit | wrong commit | none named | launches, mean |",
        "|---:|---|---:|---:|---:|---:|",
    ]  # fmt: skip
    for row in found:
        told = " | ".join(map(row.told, (row.right, row.wrong, row.sessions - row.right - row.wrong)))
        lines.append(f"| {row.noise_percent:g} % | {row.method} | {told} | {row.launches:.0f} |")
    return "\n".join(lines) + "\n"
