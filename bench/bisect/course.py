"""The course of a bisection: what is known after the comparisons so far, which comparison comes next, how it ends.

Nothing is measured here, and nothing is drawn: the same results always lead to the same next comparison, so that a
bisection that was cut off goes on as it would have.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from bench.stats import comparison, culprit, planning, sequential

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.engine.history import Range
    from bench.stats.comparison import Comparison
    from bench.stats.samples import FloatArray

TIME, FIDELITY = "time", "fidelity"
GOOD_GOOD, GOOD_BAD, STEP, DECISIVE = "good-good", "good-bad", "step", "decisive"

CULPRIT, SET, INCONCLUSIVE, EQUAL, UNFIT = "culprit", "set", "inconclusive", "endpoints-equal", "host-not-fit"
ELSEWHERE = "elsewhere"
"""The hypothesis that a commit outside of --paths did it."""

SURE = 0.95
"""The probability at which a commit is called the culprit, and that of a set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """How it is measured: ``pairs`` at most of a comparison (good against bad: twice), ``most_pairs`` of all."""

    effect_percent: float = 3.0
    what: str = TIME
    pairs: int = 8
    most_pairs: int = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A comparison to make: what for, the commits of both arms, and how many pairs at most."""

    part: str
    why: str
    baseline: str
    candidate: str
    pairs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A comparison that was made: the log ratios of its pairs, its verdict, and where its record is (None: none).

    ``differs`` tells whether the pixels do (None: unknown, or not asked for). ``skipped`` says why it has no pair.
    """

    part: str
    why: str
    baseline: str
    candidate: str
    differences: tuple[float, ...] = ()
    verdict: str | None = None
    reason: str | None = None
    differs: bool | None = None
    skipped: str | None = None
    record: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a bisection ended: one of the five outcomes, in words, and the commits that it is about."""

    outcome: str
    told: str
    commits: tuple[str, ...] = ()
    probability: float | None = None


@dataclass(kw_only=True)
class Course:
    """A bisection that is going on; ``broken`` are the commits that cannot be imported, with the reason."""

    known: Range
    design: Design
    limited: bool
    """Whether only commits that touch some paths are in the range."""
    broken: Mapping[str, str]
    results: list[Result] = field(default_factory=list)

    @cached_property
    def held(self) -> dict[str, frozenset[str]]:
        """The commits of the range that each commit holds."""
        held = self.known.ancestry()
        everything = frozenset(held)
        before = {commit.before: held[commit.sha] - {commit.sha} for commit in self.known.commits}
        return {**before, **held, self.known.good: frozenset(), self.known.bad: everything | {ELSEWHERE}}

    @property
    def hypotheses(self) -> list[str]:
        """The commits that may be the culprit, and that it may be none of them if only some are looked at."""
        commits = [commit.sha for commit in self.known.commits]
        return [*commits, ELSEWHERE] if self.limited else commits

    @property
    def skipped(self) -> dict[str, str]:
        """The commits that cannot be measured, each with its reason."""
        tried = {result.candidate: result.skipped for result in self.results if result.skipped is not None}
        unknown = {
            result.candidate: f"its pixels cannot be compared: see {result.record}"
            for result in self.results
            if result.why == STEP and result.skipped is None and not self._tells(result)
        }
        return {**self.broken, **unknown, **tried}

    def _tells(self, known: Result) -> bool:
        """Whether a comparison says anything: it was made, and where pixels are asked for, they are known."""
        return known.skipped is None and (self.design.what == TIME or known.differs is not None)

    @property
    def pairs(self) -> int:
        """How many pairs were measured."""
        return sum(len(result.differences) for result in self.results)

    def probabilities(self) -> FloatArray:
        """Return the probability of each hypothesis."""
        hypotheses = self.hypotheses
        made = [result for result in self.results if self._tells(result)]
        if self.design.what == FIDELITY:
            alive = np.array(
                [all(self._moved(name, known) == int(known.differs is True) for known in made) for name in hypotheses],
                dtype=np.float64,
            )
            return alive / alive.sum() if alive.any() else np.full(len(hypotheses), 1 / len(hypotheses))
        observations = [
            culprit.Observation(value, tuple(self._moved(name, known) for name in hypotheses))
            for known in made
            for value in known.differences
        ]
        return culprit.probabilities(observations, len(hypotheses))

    def _moved(self, name: str, known: Result | Planned) -> int:
        return int(name in self.held[known.candidate]) - int(name in self.held[known.baseline])

    def told_apart(self) -> list[list[str]]:
        """Return the hypotheses in groups that no measurable commit can tell apart, in the order of the range."""
        skipped = self.skipped
        commits = [commit.sha for commit in self.known.commits if commit.sha not in skipped]
        groups: dict[tuple[bool, ...], list[str]] = defaultdict(list)
        for name in self.hypotheses:
            groups[tuple(name in self.held[commit] for commit in commits)].append(name)
        return list(groups.values())

    def following(self) -> Planned | End:
        """Return the next comparison, or how the bisection ends."""
        if (end := self._of_endpoints()) is not None:
            return end
        if (end := self._contradicted()) is not None:
            return end
        probabilities = self.probabilities()
        probability = dict(zip(self.hypotheses, probabilities, strict=True))
        groups = sorted(self.told_apart(), key=lambda group: -sum(probability[name] for name in group))
        best, likely = groups[0], float(sum(probability[name] for name in groups[0]))
        if likely >= SURE:
            return self._settled(best, likely)
        skipped, commits = self.skipped, self.known.commits
        holds = [[name in self.held[commit.sha] for commit in commits] for name in self.hypotheses]
        measurable = [commit.sha not in skipped and commit.sha != self.known.bad for commit in commits]
        place = culprit.most_telling(probabilities, holds, measurable)
        if place is None or self.pairs >= self.design.most_pairs:
            return self._undecided(probability)
        return self._plan(STEP, self.known.good, commits[place].sha, 1)

    def _plan(self, why: str, baseline: str, candidate: str, pairs: int) -> Planned:
        part = f"{len(self.results) + 1:03d}-{why}"
        return Planned(part=part, why=why, baseline=baseline, candidate=candidate, pairs=pairs)

    # --- endpoints ----------------------------------------------------------------------------------------------------

    def _of_endpoints(self) -> Planned | End | None:
        """Return the comparison of endpoints that is missing, or the end that they are; None if all is as expected."""
        pairs = 1 if self.design.what == FIDELITY else self.design.pairs
        made = {result.why: result for result in self.results}
        if GOOD_GOOD not in made:
            return self._plan(GOOD_GOOD, self.known.good, self.known.good, pairs)
        if (end := self._unfit(made[GOOD_GOOD])) is not None:
            return end
        if GOOD_BAD not in made:
            # a change of the size that is looked for has to be found: the rest of the bisection rests on it
            return self._plan(GOOD_BAD, self.known.good, self.known.bad, pairs if pairs == 1 else 2 * pairs)
        return self._unequal(made[GOOD_BAD])

    def _unfit(self, same: Result) -> End | None:
        """Return the end if good against itself shows that nothing can be told here."""
        if same.skipped is not None:
            return End(outcome=UNFIT, told=f"good cannot be measured: {same.skipped}")
        if self.design.what == FIDELITY:
            if same.differs is None:
                return End(outcome=UNFIT, told=f"the pixels of good cannot be compared: see {same.record}")
            told = "the same commit gives other pixels when it is started again: they cannot be bisected"
            return End(outcome=UNFIT, told=told) if same.differs else None
        if same.verdict in {comparison.FASTER, comparison.SLOWER}:
            return End(outcome=UNFIT, told=f"good differs from itself, so this host is not fit now: {same.reason}")
        if (needed := self.pairs_needed(same)) > self.design.most_pairs:
            effect, most = self.design.effect_percent, self.design.most_pairs
            return End(
                outcome=UNFIT,
                told=f"this host is too noisy for an effect of {effect:g} %: the bisection would take about {needed}"
                f" pairs, and {most} are allowed",
            )
        return None

    def pairs_needed(self, same: Result) -> int:
        """Return about how many pairs the whole bisection takes with the noise of good against good."""
        noise = max(float(np.std(same.differences, ddof=1)), culprit.RESOLUTION) if len(same.differences) > 1 else 0.0
        if noise == 0:
            return 0
        each = planning.needed(math.log1p(self.design.effect_percent / 100), noise, groups=1) or planning.UNITS_LIMIT
        return math.ceil(each * (1 + math.log2(1 + len(self.known.commits))))

    def _unequal(self, ends: Result) -> End | None:
        """Return the end if the endpoints do not differ as they should."""
        if ends.skipped is not None:
            return End(outcome=INCONCLUSIVE, told=f"bad cannot be measured: {ends.skipped}")
        if ends.differs if self.design.what == FIDELITY else ends.verdict == comparison.SLOWER:
            return None
        if self.design.what == FIDELITY:
            return (
                End(outcome=INCONCLUSIVE, told=f"the pixels of good and bad cannot be compared: see {ends.record}")
                if ends.differs is None
                else End(outcome=EQUAL, told="endpoints equal: good and bad give the same pixels")
            )
        if ends.verdict == comparison.FASTER:
            return End(outcome=EQUAL, told=f"nothing regressed, bad is better than good: {ends.reason}")
        if ends.verdict == comparison.SAME:
            return End(outcome=EQUAL, told=f"endpoints equal: {ends.reason}")
        return End(outcome=INCONCLUSIVE, told=f"good against bad is not decided: {ends.reason}")

    # --- ends ---------------------------------------------------------------------------------------------------------

    def _contradicted(self) -> End | None:
        """Return the end if a commit that was likely shows no or too small a difference against its parent."""
        for known in self.results:
            same = known.differs is False if self.design.what == FIDELITY else known.verdict == comparison.SAME
            if known.why == DECISIVE and same:
                return End(outcome=INCONCLUSIVE, told=self._of_contradiction(known), commits=(known.candidate,))
        return None

    def _of_contradiction(self, known: Result) -> str:
        """Return what a decisive comparison within the margin means: a part of the change, or none of it."""
        name = known.candidate[:12]
        seen = known.reason if self.design.what == TIME else "the same pixels"
        if (part := self.compared(known)) is not None and part.interval is not None and part.interval.low_percent > 0:
            whole = next(filter(None, (self.compared(ends) for ends in self.results if ends.why == GOOD_BAD)), part)
            return comparison.sentences(
                f"{name} explains {part.effect_percent:+.1f} of {whole.effect_percent:+.1f} %: more than one commit may"
                " share it",
                known.reason or "",
            )
        if self.limited:
            return f"no commit that touches the paths did it: {name} shows the change, and so does its parent"
        return f"{name} was the likeliest, but against its parent it shows no difference: {seen}"

    def compared(self, known: Result) -> Comparison | None:
        """Return a comparison of times with its interval, None where nothing was measured."""
        if self.design.what == FIDELITY or not known.differences:
            return None
        pairs = self.design.pairs if known.why != GOOD_BAD else 2 * self.design.pairs
        looks = sequential.Plan(max_pairs=pairs, margin_percent=self.design.effect_percent)
        return sequential.decide(known.differences, looks).comparison

    def _settled(self, best: Sequence[str], likely: float) -> Planned | End:
        """Return the decisive comparison, commit against parent, or the end once that is made or cannot be."""
        names = [name for name in best if name != ELSEWHERE]
        if not names:
            told = f"no commit that touches the paths did it: it is another one of the range (P = {likely:.2f})"
            return End(outcome=INCONCLUSIVE, told=told, probability=likely)
        if len(best) > 1:
            told = (
                f"this commit, or one outside of the paths (P = {likely:.2f}): no commit between can tell"
                if len(names) == 1
                else f"one of {len(names)} commits that cannot be told apart{_or_outside(best)} (P = {likely:.2f}):"
                " those between are skipped"
            )
            return End(outcome=SET, told=told, commits=tuple(names), probability=likely)
        name = best[0]
        decisive = next((known for known in self.results if known.why == DECISIVE and known.candidate == name), None)
        parent = self.parent(name)
        if decisive is None and parent not in self.skipped and name not in self.skipped:
            pairs = 1 if self.design.what == FIDELITY else self.design.pairs
            return self._plan(DECISIVE, parent, name, pairs)
        if self.limited and (decisive is None or not self._tells(decisive)):
            told = f"this commit, or one outside of the paths (P = {likely:.2f}): its parent cannot be held against it"
            return End(outcome=SET, told=told, commits=(name,), probability=likely)
        return End(outcome=CULPRIT, told=f"P = {likely:.2f}", commits=(name,), probability=likely)

    def parent(self, name: str) -> str:
        """Return a commit's real first parent, whether the range has it or not."""
        return next(commit.before for commit in self.known.commits if commit.sha == name)

    def _undecided(self, probability: Mapping[str, float]) -> End:
        names = self.hypotheses
        chosen = [names[at] for at in culprit.credible(np.array([probability[name] for name in names]), SURE)]
        commits = tuple(name for name in chosen if name != ELSEWHERE)
        total = float(sum(probability[name] for name in chosen))
        what = f"after {self.pairs} pairs; more pairs (--most-pairs) or a quieter host would decide it"
        if len(chosen) < len(names):
            told = f"one of {len(commits)} commits{_or_outside(chosen)} (P = {total:.2f}), {what}"
            return End(outcome=SET, told=told, commits=commits, probability=total)
        return End(outcome=INCONCLUSIVE, told=f"no commit stands out {what}")


def _or_outside(names: Sequence[str]) -> str:
    return ", or one outside of the paths" if ELSEWHERE in names else ""
