"""Reach: whether a change of the engine's code is on the measured path, from one traced launch of each side."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import schema
from bench.engine import find, source
from bench.errors import BenchError, Inconclusive, UsageError
from bench.reach import changes, judge, kernels, trace
from bench.run import plan as plans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from bench.process import Observer
    from bench.reach.changes import Change
    from bench.run.options import Options

DOCUMENT = "reach.json"
LOADS = "load"
"""The metric whose measured path is the load, not the request."""

MEANS = {
    judge.REACHED: "changed lines ran on the measured path",
    judge.NOT_REACHED: "no changed line ran on the measured path",
    judge.UNKNOWN: "no changed line that can be traced ran on the measured path; of the rest only the kernels can tell",
    judge.NOTHING: "the change holds no code: comments, documentation or blank lines",
}
OTHER_KERNELS = (
    "no changed line that can be traced ran on the measured path; kernels differ between one start of each side, and"
    " starts of the same code may differ too"
)
SAME_KERNELS = (
    "no changed line that can be traced ran on the measured path, and both sides ran the same kernels; a kernel whose"
    " code changed keeps its name, so equal names say nothing about the other lines"
)

RAN = {
    trace.REQUEST: "ran in the request",
    trace.WARMUP: "only in the warm-up",
    trace.LOAD: "only while loading",
    trace.IMPORT: "only at import",
    judge.NEVER: "never",
    judge.COMPILED: "in kernels",
    judge.UNTRACED: "not traced",
}
"""A fate in words, behind a number of lines."""

Base = tuple["Options", Path]
"""The options whose engine runs the base's code, and the folder that its files' names begin in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A change, what its two sides are called, by which metric it is measured, and how the base's code is opened."""

    changes: Sequence[Change]
    against: dict[str, str]
    metric: str = "total"
    base: Callable[[], AbstractContextManager[Base]]


def of_checkout(options: Options, diff: str | None) -> Question:
    """Return the question about a checkout's own change: against its commit, or since it left the base of a DIFF.

    ``diff`` is BASE, BASE..HEAD (against BASE itself) or BASE...HEAD (against where they went apart).

    Raises:
        UsageError: the engine is not a checkout, HEAD is not what is checked out, or nothing differs.
    """
    engine = find.find(options.engine)
    if engine.source is None:
        raise UsageError(
            "reach needs an engine that runs from a checkout of SGLang",
            todo="name one: source:PATH or source:PATH@CONFIGURATION",
            field="engine",
        )
    folder = source.top(engine.source.python_path)
    base = engine.source.commit
    if diff is not None:
        first, dots, last = diff.partition("...") if "..." in diff else diff.partition("..")
        if source.commit_of(folder, last or "HEAD") != base:
            raise UsageError(
                f"{last} is not what is checked out, and what runs is the checkout",
                where=folder,
                todo=f"`git checkout {last}`",
            )
        named = source.commit_of(folder, first)
        base = named if dots == ".." else source.merge_base(folder, named, base)
    found = changes.in_checkout(folder, base)
    if not found:
        todo = None if diff else "--diff BASE...HEAD: what its commits changed"
        raise UsageError(f"nothing differs from commit {base[:12]}", where=folder, todo=todo)

    @contextmanager
    def opened() -> Iterator[Base]:
        _, configuration = find.source_parts(options.engine or os.environ.get(find.VARIABLE) or "")
        with tempfile.TemporaryDirectory() as name, source.worktree(folder, base, Path(name) / "base") as made:
            yield replace(options, engine=find.source_spec(made, configuration)), made

    changed = "" if engine.source.changes_sha256 is None else " with uncommitted changes"
    return Question(changes=found, against={"base": base, "head": f"{engine.source.commit}{changed}"}, base=opened)


def measure(options: Options, asked: Question, directory: Path, display: Observer | None = None) -> dict[str, Any]:
    """Trace one launch of the changed engine, and one of the base's where lines only went; write and return what ran.

    The document is in ``directory``, which is there already. A side without lines to trace is not launched. The kernels
    of both sides are compared if that is asked for, or if nothing else can tell.

    Raises:
        BenchError: a launch does not count.
    """
    eager = replace(options, torch_compile=False, repeats=1, launches=1, precision=None, stage_sync=False)
    sides = []
    if head := {change.path_after: change for change in asked.changes if change.path_after and change.new_lines()}:
        planned = plans.plan(eager, in_session=True)
        traced = trace.take(planned, list(head), directory / "traced", display)
        sides.append(judge.Side(what=judge.NEW, trace=traced, changes=head))
    if gone := [change for change in asked.changes if change.path_before and change.gone_lines()]:
        with asked.base() as (before, root):
            wanted = {str(root / str(change.path_before)): change for change in gone}
            planned = plans.plan(replace(eager, engine=before.engine), in_session=True)
            traced = trace.take(planned, list(wanted), directory / "traced-base", display)
            sides.append(judge.Side(what=judge.GONE, trace=traced, changes=wanted))
    parts = [part for side in sides for part in judge.parts(side)]
    others = judge.untraced(asked.changes)
    measured = _measured_phases(options, asked.metric)
    outcome = judge.outcome(parts, others, measured)
    ran = _kernels(options, asked, directory, display) if _needs_kernels(options, outcome, measured) else None
    document = {
        "schema": "reach-record",
        "schema_version": 1,
        "id": directory.name,
        "preset": options.model,
        "against": asked.against,
        "metric": asked.metric,
        "measured": list(measured),
        "launches": [_launch(side) for side in sides],
        "files": len(asked.changes),
        "only_comments": [change.name for change in asked.changes if change.only_comments],
        "not_python": others,
        "parts": parts,
        "lines": judge.counts(parts),
        "kernels": ran,
        "outcome": outcome,
        "means": MEANS[outcome],
        "notes": _notes(options),
    }
    document |= _of_kernels(document)
    document["sentence"] = sentence(document)
    schema.write(document, "reach-record", directory / DOCUMENT)
    return document


def _needs_kernels(options: Options, outcome: str, measured: Sequence[str]) -> bool:
    if outcome == judge.NOTHING:
        return False
    return options.prove_kernels or (outcome == judge.UNKNOWN and trace.REQUEST in measured)


def _kernels(options: Options, asked: Question, directory: Path, display: Observer | None) -> dict[str, Any]:
    """Return what differs between the kernels of both sides, by one launch of each as it is measured."""
    once = replace(options, repeats=1, launches=1, precision=None)
    try:
        head = kernels.take(plans.plan(once, in_session=True), directory / kernels.FOLDERS["head"], display)
        with asked.base() as (before, _):
            planned = plans.plan(replace(once, engine=before.engine), in_session=True)
            base = kernels.take(planned, directory / kernels.FOLDERS["base"], display)
    except BenchError as error:
        return kernels.unknown(error.what)
    return kernels.compared(base, head)


def _of_kernels(document: Mapping[str, Any]) -> dict[str, str]:
    """Return what the outcome means with the kernels seen, where no line can tell and the request is measured.

    They settle no outcome: kernels may differ from start to start, and one whose code changed keeps its name.
    """
    ran = document["kernels"]
    if ran is None or ran["unknown"] is not None:
        return {}
    if document["outcome"] != judge.UNKNOWN or trace.REQUEST not in document["measured"]:
        return {}
    return {"means": OTHER_KERNELS if ran["changes"] else SAME_KERNELS}


def _launch(side: judge.Side) -> dict[str, Any]:
    launch = side.trace.launch
    return {
        "side": side.what,
        "command": launch["command"],
        "verdict": launch["verdict"],
        "processes": [{"name": process.name, "rank": process.rank} for process in side.trace.processes],
    }


def _measured_phases(options: Options, metric: str) -> tuple[str, ...]:
    if metric == LOADS:
        return (trace.LOAD, trace.IMPORT)
    if options.cuda_graph:
        return (trace.REQUEST, trace.WARMUP, trace.LOAD)
    return (trace.REQUEST,)


def _notes(options: Options) -> list[str]:
    notes = []
    if options.cuda_graph:
        notes.append(
            "CUDA graphs: lines run when a graph is captured and not when it is replayed, so that lines of the load and"
            " the warm-up count: captured, replayed"
        )
    if options.torch_compile:
        notes.append(
            "torch.compile: compiled code runs no lines, so the traced launch ran eagerly; what only a compiled run"
            " does (a branch on is_compiling) was not seen"
        )
    return notes


def sentence(document: Mapping[str, Any]) -> str:
    """Return in one sentence how many changed lines ran when, and what that means."""
    lines = document["lines"]
    total, files = sum(lines.values()), document["files"]
    told = ", ".join(f"{lines[fate]} {said}" for fate, said in RAN.items() if lines[fate])
    return (
        f"reach: {total} changed line{'' if total == 1 else 's'} of code in {files} file{'' if files == 1 else 's'}"
        f"{': ' if told else ''}{told}; {document['means']}"
    )


def refuse_what_never_ran(document: Mapping[str, Any], where: Path) -> None:
    """Raise Inconclusive for a change of which no line ran in any launch: nothing that is measured is about it."""
    if judge.never_ran(document):
        raise Inconclusive(
            f"the change never ran: {document['means']}", where=where, todo="`invoke reach` shows what went another way"
        )


def unreached(document: Mapping[str, Any], verdict: str) -> str | None:
    """Return why "same" says nothing about a change of which no line ran where it was measured; None if one did."""
    if verdict != "same" or document["outcome"] not in (judge.NOT_REACHED, judge.NOTHING):
        return None
    before = sum(document["lines"][phase] for phase in (trace.WARMUP, trace.LOAD, trace.IMPORT))
    said = (
        f"the pairs are the same, which says nothing about its {before} line{'' if before == 1 else 's'} that ran only"
        " earlier but that what they set makes no difference here"
        if before
        else "the arms ran the same code, so that their being the same says nothing about the change"
    )
    return f"{document['means']}: {said} (`invoke reach` shows what went the other way)"
