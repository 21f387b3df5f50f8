"""The comparisons of a bisection, each by what it is asked of: engines in pairs of starts, or a command's number."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from bench import schema
from bench.bisect import course
from bench.compare import ab
from bench.engine import find, history, number, pins
from bench.errors import (
    BenchError,
    EngineFailed,
    EvidenceMissing,
    FallbackDetected,
    InvalidPerfDump,
    RecordEdited,
    TimedOut,
    UnknownName,
)
from bench.record import campaign as campaigns
from bench.stats import sequential
from bench.stats.pairs import log_ratio, plan_orders

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.bisect.course import Design, Planned, Result
    from bench.engine.history import Range
    from bench.record.campaign import Campaign
    from bench.run.options import Options

STEPS, WORKTREES = "steps", "worktrees"
OF_AN_ENGINE = (EngineFailed, FallbackDetected, TimedOut, EvidenceMissing, InvalidPerfDump)
"""What the code of a commit can do wrong; all else is the host's or the user's."""


class Display(ab.Display, Protocol):
    """Shows how far a bisection is, comparison by comparison."""

    def expect(self, pairs: int) -> None:
        """Show that a comparison of so many pairs at most begins."""


@dataclass(slots=True, kw_only=True)
class Worktrees:
    """The commits that are checked out below a bisection's folder, beside the user's own checkout."""

    known: Range
    folder: Path
    made: dict[str, Path] = field(default_factory=dict)

    def of(self, commit: str) -> Path:
        """Return where a commit is checked out, made on demand."""
        if commit not in self.made:
            self.folder.mkdir(exist_ok=True)
            place = self.folder / commit[:12]
            history.make_worktree(self.known.checkout, commit, place)
            self.made[commit] = place
        return self.made[commit]

    def remove(self) -> None:
        """Take all of them away, those of a killed process too."""
        places = sorted(self.folder.iterdir()) if self.folder.is_dir() else []
        history.remove_worktrees(self.known.checkout, places)
        if self.folder.is_dir():
            self.folder.rmdir()


def configuration(known: Range, commit: str, over: str | None, tell: Callable[[str], None]) -> str | None:
    """Return the environment that a commit runs over: good's, ``over``, unless it requires what good does not.

    What it no longer requires stays installed there: an installer adds and replaces.

    Raises:
        EngineFailed: what it requires cannot be read or installed.
        UsageError: it needs an environment of its own, and ``over`` is not one that nox built.
    """
    further = pins.required(known.checkout, commit) - pins.required(known.checkout, known.good)
    return pins.environment(find.find(over).name, sorted(further), tell) if further else over


def engine(worktrees: Worktrees, commit: str, over: str | None, tell: Callable[[str], None]) -> str:
    """Return the engine that is a commit, checked out, over what it requires.

    Raises:
        EngineFailed: that cannot be installed, or not over this engine; where is the commit's project file.
    """
    place = worktrees.of(commit)
    try:
        return find.source_spec(place, configuration(worktrees.known, commit, over, tell))
    except UnknownName as error:
        what = f"it requires something else than good, which is installed only over what nox built: {error.what}"
        raise EngineFailed(what, where=place / pins.PROJECT) from error
    except EngineFailed as error:
        raise EngineFailed(error.what, where=place / pins.PROJECT) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """Compares commits as `invoke ab` does, each over its own pins; every comparison is an A/B of its own.

    A commit that cannot be measured is the result's candidate; any other error is raised, and so is one of good.
    """

    options: Options
    configuration: str | None
    metric: str
    design: Design
    worktrees: Worktrees
    folder: Path
    display: Display

    def spec(self, commit: str) -> str:
        """Return the arm that runs a commit.

        Raises:
            EngineFailed: what it requires cannot be installed; where is its project file.
        """
        return shlex.quote(engine(self.worktrees, commit, self.configuration, self.display.tell))

    def compare(self, planned: Planned, /) -> Result:
        """Return the comparison; one that was cut off goes on, and one that was finished is not measured again."""
        options = replace(self.options, engine=None, label=planned.part, output_dir=self.folder / STEPS)
        earlier = sorted((self.folder / STEPS).glob(f"*-{planned.part}-*"))
        resumable = next((place for place in earlier if (place / campaigns.STATE).is_file()), None)
        finished = next((place for place in earlier if (place / ab.DOCUMENT).is_file()), None)
        try:
            specs = {ab.BASELINE: self.spec(planned.baseline), ab.CANDIDATE: self.spec(planned.candidate)}
            if resumable is not None:
                made = ab.resume(resumable, specs, options, display=self.display)
            elif finished is not None:
                return self._result(planned, schema.read(finished / ab.DOCUMENT), finished)
            else:
                made = ab.measure(options, specs, self._pairs(planned), display=self.display)
        except OF_AN_ENGINE as error:
            return self._failed(planned, error)
        if made.error is not None and not _is_of(ab.CANDIDATE, planned.candidate, made.error):
            return self._failed(planned, made.error)
        return self._result(planned, made.document, made.path.parent)

    def _pairs(self, planned: Planned) -> ab.Design:
        effect = self.design.effect_percent
        return ab.Design(pairs=planned.pairs, margin_percent=effect, metric=self.metric, prove_ran=False)

    def _result(self, planned: Planned, document: dict[str, Any], place: Path) -> Result:
        failure = document["failure"]
        identical = document["quality"]["between"]["identical"]
        return course.Result(
            **_named(planned),
            differences=tuple(log_ratio(pair[ab.BASELINE], pair[ab.CANDIDATE]) for pair in document["pairs"]),
            verdict=document["comparison"]["verdict"],
            reason=document["comparison"]["reason"],
            differs=None if identical is None else not identical,
            skipped=None if failure is None else failure["what"],
            record=str((place / ab.DOCUMENT).relative_to(self.folder)),
        )

    def _failed(self, planned: Planned, error: BenchError) -> Result:
        """Return the result of a comparison that shows only that a commit of it cannot be measured.

        Raises:
            BenchError: it was neither the candidate's fault nor that of the parent that it is held against.
        """
        arms = ((ab.CANDIDATE, planned.candidate), (ab.BASELINE, planned.baseline))
        commit = next((commit for arm, commit in arms if _is_of(arm, commit, error)), self.worktrees.known.good)
        if commit == self.worktrees.known.good:
            raise error
        places = sorted((self.folder / STEPS).glob(f"*-{planned.part}-*"))
        record = str(places[-1].relative_to(self.folder)) if places else None
        return _skipped(planned, commit, error, record)


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """Compares the numbers that a user's command prints in two commits, run in turn; each pair is kept at once.

    It says of a commit that it cannot be measured as `Engines` does.
    """

    command: str
    timeout_s: float
    design: Design
    worktrees: Worktrees
    campaign: Campaign
    seed: int
    display: Display

    def compare(self, planned: Planned, /) -> Result:
        """Return the comparison; pairs that were finished before are not measured again."""
        looks = sequential.Plan(
            max_pairs=planned.pairs, margin_percent=self.design.effect_percent, metric="the command's number"
        )
        differences: list[float] = []
        decision = None
        for number_of_pair, order in enumerate(plan_orders(planned.pairs, seed=self.seed + int(planned.part[:3])), 1):
            part = f"{planned.part} pair {number_of_pair}"
            if part not in self.campaign.finished:
                self.display.begin(number_of_pair, planned.part)
                try:
                    self.campaign.finish(part, self._pair(planned, order))
                except _CommitFailed as failed:
                    return _skipped(planned, failed.commit, failed)
            pair = self.campaign.finished[part]
            differences.append(log_ratio([pair["baseline"]], [pair["candidate"]]))
            decision = sequential.decide(differences, looks)
            if decision.stop:
                break
        assert decision is not None
        return course.Result(
            **_named(planned),
            differences=tuple(differences),
            verdict=decision.comparison.verdict,
            reason=decision.comparison.reason,
        )

    def _pair(self, planned: Planned, order: str) -> dict[str, Any]:
        """Run the command once in each commit.

        Raises:
            _CommitFailed: it failed in one that is not good.
            EngineFailed: it failed in good.
        """
        pair: dict[str, Any] = {"order": order}
        for letter in order:
            name = ab.ARM[letter]
            commit = planned.baseline if name == ab.BASELINE else planned.candidate
            try:
                pair[name] = number.of(self.command, self.worktrees.of(commit), commit, self.timeout_s)
            except (EngineFailed, TimedOut) as error:
                if commit == self.worktrees.known.good:
                    raise
                raise _CommitFailed(error.what, commit) from error
        return pair


class _CommitFailed(EngineFailed):
    """The command failed in a commit that is to be judged."""

    def __init__(self, what: str, commit: str) -> None:
        super().__init__(what)
        self.commit = commit


def _is_of(arm: str, commit: str, error: BenchError) -> bool:
    """Whether an error is of an arm's engine: of its launch, or of its code before that."""
    if not isinstance(error, OF_AN_ENGINE) or isinstance(error, RecordEdited):
        return False
    launched = f"/{arm}/" in f"{error.where}/"
    name = commit[:12]
    return launched or f"{find.SOURCE_PREFIX}{name}" in error.what or f"/{WORKTREES}/{name}/" in f"{error.where}/"


def _skipped(planned: Planned, commit: str, error: BenchError, record: str | None = None) -> Result:
    """Return the result that says of a commit why it cannot be measured: it is the candidate, whichever arm it was."""
    return course.Result(**{**_named(planned), "candidate": commit}, skipped=error.what, record=record)


def _named(planned: Planned) -> dict[str, Any]:
    return {name: value for name, value in asdict(planned).items() if name != "pairs"}
