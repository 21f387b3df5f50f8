"""A bisection from its question to its record: checks first, then comparison after comparison, kept as it goes."""

from __future__ import annotations

import contextlib
import math
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import redact, schema
from bench.bisect import again, course, measuring
from bench.bisect.course import Course, Design, End, Result
from bench.compare import metric as metrics
from bench.engine import find, history
from bench.errors import BenchError, UsageError
from bench.reach import run as reach
from bench.record import campaign, store
from bench.run.options import Options, restored
from bench.stats.pairs import fresh_seed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.bisect.measuring import Display, Worktrees
    from bench.engine.history import Range
    from bench.record.campaign import Campaign

KIND = "bisect"
DOCUMENT = "bisect.json"
RESULT = "result: "
"""How a comparison's name in the state begins; a command's pairs are there too."""
PINS = "*pyproject*.toml"
FLAGS = "*server_args.py"
TIERS = "*multimodal_gen/*.py"
SHOWN_LINES = 20
MARGIN_OF_WORKTREES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked: the range, what is measured, and by which command if it is not an engine."""

    source: str
    good: str
    bad: str
    metric: str = metrics.DEFAULT
    command: str | None = None
    paths: tuple[str, ...] = ()
    first_parent: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A bisection that has ended: its document and where it is."""

    document: dict[str, Any]
    path: Path


def begin(options: Options, question: Question, design: Design, *, display: Display) -> Finished:
    """Bisect and return the record. ``options.engine`` is the configuration that every commit runs over.

    Raises:
        UsageError: the question cannot be asked of this repository; nothing was started.
        PreflightFailed: the disk lacks room for the worktrees.
        BenchError: good failed.
    """
    known = _range(question)
    broken = _checked(known, question, design)
    if question.command is None:
        find.find(options.engine)
        measuring.configuration(known, known.bad, options.engine, display.tell)
    name = "-".join(filter(None, ("command" if question.command else options.model, options.label)))
    root = store.new_run(KIND, name, options.output_dir)
    try:
        history.refuse_full_disk(known.checkout, known.bad, root, _worktrees(known))
    except BenchError:
        root.rmdir()
        raise
    # the hashes, not the names: a branch that moves does not move a bisection
    question = replace(question, good=known.good, bad=known.bad, seed=fresh_seed())
    asked = {"options": options.document(), "question": asdict(question), "design": asdict(design)}
    with campaign.begin(KIND, root, asked, _named_again(question.source, question.command)) as state:
        return _bisected(options, question, _course(known, question, design, broken, state), state, display)


def resume(folder: Path, now: Options, source: str | None, command: str | None, *, display: Display) -> Finished:
    """Go on with a bisection that was cut off; nothing that was finished is measured again.

    No record chooses the code that is run: ``source`` names the checkout again, and ``command`` the command.

    Raises:
        UsageError: it has ended, is going on elsewhere, or another checkout or command is named.
        BenchError: as `begin`.
    """
    with campaign.resume(folder, KIND, named_again=_named_again(source, command)) as state:
        asked = dict(state.asked["question"])
        question = Question(**{**asked, "paths": tuple(asked["paths"])})
        for name, given, then in (("source", source, question.source), ("run", command, question.command)):
            if given != then and (given is None or redact.text(given) != then):
                raise UsageError(
                    f"no record chooses the code that is run, and this bisection began with --{name} {then}",
                    todo=f"give the same --{name} again",
                )
        # as typed: of a secret the state has only that there is one
        question = replace(question, source=source or question.source, command=command)
        options = restored(Options.from_document(state.asked["options"]), now)
        known = _range(question)
        going = _course(known, question, Design(**state.asked["design"]), _broken(known, question), state)
        display.tell(f"{len(going.results)} comparisons were finished before")
        return _bisected(options, question, going, state, display)


def _named_again(source: str | None, command: str | None) -> tuple[str, ...]:
    """Return the options that `resume` has to be given again, as a page may show them."""
    typed = {"--source": source, "--run": command}
    return tuple(word for name, value in typed.items() if value is not None for word in (name, redact.text(value)))


def _range(question: Question) -> Range:
    return history.read(
        Path(question.source).expanduser(),
        question.good,
        question.bad,
        first_parent=question.first_parent,
        paths=question.paths,
    )


def _checked(known: Range, question: Question, design: Design) -> dict[str, str]:
    """Return the commits that cannot be imported.

    Raises:
        UsageError: the question contradicts itself, or nothing between the endpoints can be measured.
    """
    if question.command is not None and design.what == course.FIDELITY:
        raise UsageError("a command gives a number and no pixels", todo="leave --run or --what fidelity out")
    if question.command is not None and question.metric != metrics.DEFAULT:
        raise UsageError("a command's number is what it prints, not a metric", todo="leave --run or --metric out")
    metrics.named(question.metric)
    broken = _broken(known, question)
    if known.bad in broken:
        raise UsageError(f"bad cannot be imported: {broken[known.bad]}", where=known.checkout, todo="an earlier --bad")
    inner = [commit.sha for commit in known.commits if commit.sha != known.bad]
    if inner and all(name in broken for name in inner):
        raise UsageError(
            f"none of the {len(inner)} commits between can be imported, so none could be told from another",
            where=known.checkout,
            todo="widen the range",
        )
    return broken


def _broken(known: Range, question: Question) -> dict[str, str]:
    """Return the commits that cannot be imported; a command may need none of the package."""
    return history.broken(known) if question.command is None else {}


def _worktrees(known: Range) -> int:
    return math.ceil(math.log2(1 + len(known.commits))) + MARGIN_OF_WORKTREES


def _course(known: Range, question: Question, design: Design, broken: dict[str, str], state: Campaign) -> Course:
    """Return where a bisection stands by its state."""
    found = [value for part, value in state.finished.items() if part.startswith(RESULT)]
    results = [Result(**{**value, "differences": tuple(value["differences"])}) for value in found]
    return Course(known=known, design=design, limited=bool(question.paths), broken=broken, results=results)


def _bisected(options: Options, question: Question, going: Course, state: Campaign, display: Display) -> Finished:
    """Make comparisons until the bisection ends, and write its record.

    However this ends, no worktree is left (after ``kill -9``: once it is resumed).
    """
    with contextlib.ExitStack() as stack:
        worktrees = measuring.Worktrees(known=going.known, folder=state.folder / measuring.WORKTREES)
        stack.callback(worktrees.remove)
        measurer = _measurer(options, question, going, worktrees, state, display)
        while not isinstance(planned := going.following(), End):
            display.tell(f"{planned.part}: {_told(going, planned.candidate)}")
            display.expect(planned.pairs)
            result = measurer.compare(planned)
            going.results.append(result)
            state.finish(f"{RESULT}{planned.part}", asdict(result))
            display.tell(_row(going, result))
        about = _about(options, question, going, planned, worktrees, display)
    document = _document(question, going, planned, state.folder, about)
    path = state.folder / DOCUMENT
    schema.write(document, "bisect-record", path, replace=state.resumed)  # killed before the state's end
    state.end()
    return Finished(document=document, path=path)


def _measurer(
    options: Options, question: Question, going: Course, worktrees: Worktrees, state: Campaign, display: Display
) -> measuring.Engines | measuring.Commands:
    if question.command is not None:
        return measuring.Commands(
            command=question.command, timeout_s=options.timeout_s, design=going.design, worktrees=worktrees,
            campaign=state, seed=question.seed, display=display,
        )  # fmt: skip
    return measuring.Engines(
        options=options, configuration=options.engine, metric=question.metric, design=going.design,
        worktrees=worktrees, folder=state.folder, display=display,
    )  # fmt: skip


def _told(going: Course, sha: str) -> str:
    """Return a commit as people read it: its short hash and its subject."""
    named = {going.known.good: "good", going.known.bad: "bad"}
    subject = next((commit.subject for commit in going.known.commits if commit.sha == sha), "")
    return " ".join(filter(None, (sha[:12], f"({named[sha]})" if sha in named else "", subject)))


def _row(going: Course, result: Result) -> str:
    if result.skipped is not None:
        return f"{result.part}: {result.candidate[:12]} is skipped: {result.skipped}"
    likely = going.probabilities()
    place = int(likely.argmax())
    seen = (
        f"{100 * math.expm1(sum(result.differences) / len(result.differences)):+.2f} %"
        if going.design.what == course.TIME
        else {True: "other pixels", False: "the same pixels", None: "pixels unknown"}[result.differs]
    )
    return f"{result.part}: {seen}; likeliest {going.hypotheses[place][:12]} (P = {likely[place]:.2f})"


# --- what the culprit is ----------------------------------------------------------------------------------------------


def _about(
    options: Options, question: Question, going: Course, end: End, worktrees: Worktrees, display: Display
) -> dict[str, Any] | None:
    """Return what else changed in the culprit; None without one. Of an engine: also which of its lines run."""
    if end.outcome != course.CULPRIT:
        return None
    name, checkout = end.commits[0], going.known.checkout
    parent = going.parent(name)

    def changed(files: str, word: str = "") -> list[str]:
        lines = history.changed_lines(checkout, name, files)
        return [line for line in lines if word in line.casefold()][:SHOWN_LINES]

    found: dict[str, Any] = {
        "commit": name,
        "parent": parent,
        "subject": next(commit.subject for commit in going.known.commits if commit.sha == name),
        "files": history.changed_files(checkout, name),
        "pins": changed(PINS),
        "flags": changed(FLAGS),
        "quality": changed(TIERS, "quality"),
        "kernels": None,
        "reach": None,
        "reach_unknown": None,
    }
    if question.command is not None:
        return {**found, "reach_unknown": "a command was measured, not a request"}
    folder = worktrees.folder.parent / "reach"
    display.tell("which lines of it run, and which kernels? Untimed launches of it and of its parent")
    try:
        shutil.rmtree(folder, ignore_errors=True)  # half a trace: it was cut off
        folder.mkdir()
        before, engine = (measuring.engine(worktrees, one, options.engine, display.tell) for one in (parent, name))
        asked = replace(options, engine=engine, label="reach", prove_kernels=True)
        base = replace(asked, engine=before), worktrees.of(parent)
        asking = replace(reach.of_checkout(asked, f"{parent}..{name}"), base=lambda: contextlib.nullcontext(base))
        document = reach.measure(asked, asking, folder, display)
    except BenchError as error:
        return {**found, "reach_unknown": error.what}
    if (kernels := document["kernels"]) is not None:
        found["kernels"] = {"sentence": kernels["sentence"], "changes": kernels["changes"]}
    return {**found, "reach": document["sentence"]}


def _again(
    question: Question, going: Course, options: Mapping[str, Any], about: Mapping[str, Any] | None
) -> str | None:
    """Return the command that makes the decisive comparison again; None without one."""
    if about is None:
        return None
    commits = (about["parent"], about["commit"])
    if question.command is not None:
        return again.of_command(question.source, question.command, commits)
    over = {commit: _over(going, commit, options["engine"]) for commit in commits}
    return again.of_engines(question.source, options, question.metric, going.design, over)


def _over(going: Course, commit: str, configuration: str | None) -> str | None:
    """Return the environment of a commit that was measured; of a parent whose own cannot be built, good's."""
    try:
        return measuring.configuration(going.known, commit, configuration, lambda _: None)
    except BenchError:
        return configuration


def _document(
    question: Question, going: Course, end: End, folder: Path, about: dict[str, Any] | None
) -> dict[str, Any]:
    state = campaign.read(folder, KIND)["asked"]
    probability = dict(zip(going.hypotheses, going.probabilities(), strict=True))
    # an A/B has times where pixels were asked for, too
    reasons = {known.why: known.reason for known in going.results if going.design.what == course.TIME}
    document: dict[str, Any] = {
        "schema": "bisect-record",
        "schema_version": 1,
        "id": folder.name,
        "good": going.known.good,
        "bad": going.known.bad,
        "dirty": going.known.dirty,
        "first_parent": question.first_parent,
        "paths": list(question.paths),
        "metric": question.metric,
        "command": question.command,
        "model": None if question.command else state["options"]["model"],
        "design": asdict(going.design),
        "seed": question.seed,
        "sure": course.SURE,
        "commits": [
            {
                "commit": commit.sha,
                "subject": commit.subject,
                "probability": float(probability[commit.sha]),
                "skipped": going.skipped.get(commit.sha),
            }
            for commit in going.known.commits
        ],
        "comparisons": [{**asdict(known), "differences": list(known.differences)} for known in going.results],
        "pairs": going.pairs,
        "outcome": end.outcome,
        "told": end.told,
        "culprits": list(end.commits),
        "probability": end.probability,
        "ends": reasons.get(course.GOOD_BAD),
        "effect": reasons.get(course.DECISIVE) or reasons.get(course.GOOD_BAD),
        "about": about,
        "again": _again(question, going, state["options"], about),
    }
    return redact.document(document)  # type: ignore[no-any-return]
