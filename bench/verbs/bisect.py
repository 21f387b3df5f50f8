"""`invoke bisect`: which commit moved a number, or the pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench.errors import Inconclusive, PreflightFailed, UsageError
from bench.options import MEASURING, OUTPUT, Kind, nested, option
from bench.run.options import COMMON, Options
from bench.task import Context, extra_arguments, task

if TYPE_CHECKING:
    from pathlib import Path

    from bench.bisect.course import Design
    from bench.bisect.run import Finished, Question

WHAT = {"time": "the metric", "fidelity": "the pixels: the first commit that changes any"}
DEFAULT_EFFECT = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class BisectOptions:
    """What `invoke bisect` takes."""

    source: Path | None = option(None, kind=Kind.PATH, help="the checkout of SGLang, which is left alone")
    good: str | None = option(None, help="revision without the change, an ancestor of bad")
    bad: str | None = option(None, help="revision with the change")
    what: str = option("time", choices=WHAT, help="what changed (default time)")
    metric: str = option(
        "total",
        help="what is compared: total, denoise, wall, load, peak-memory, or the name of a stage (default total)",
    )
    effect: float = option(
        DEFAULT_EFFECT, kind=Kind.PERCENTAGE, help="the change that is looked for; smaller ones are equal (default 3%)"
    )
    command: str | None = option(
        None, name="run", help="bisect this command's number instead: the last one of its last line, smaller is better"
    )
    paths: tuple[str, ...] = option(
        (), kind=Kind.NAMES, group=MEASURING, help="only commits that touch these, e.g. python/sglang/multimodal_gen"
    )
    first_parent: bool = option(False, group=MEASURING, help="follow only the first parent of a merge")
    pairs: int = option(
        8,
        kind=Kind.WHOLE,
        least=3,
        group=MEASURING,
        help="most pairs of starts in one comparison; twice as many for good against bad (default 8)",
    )
    most_pairs: int = option(
        80, kind=Kind.WHOLE, least=10, group=MEASURING, help="most pairs of starts in the whole bisection (default 80)"
    )
    resume: Path | None = option(
        None, kind=Kind.PATH, group=MEASURING, completes="cut_off", help="bisection that was cut off: go on with it"
    )
    run: Options = nested(
        Options,
        *("model", "repeats", *COMMON, "steps", "width", "height"),
        engine={"help": "built configuration that every commit runs over (default: as for bench)"},
        repeats={"default": 4, "help": "requests of each start that count, after one that does not (default 4)"},
    )
    as_json: bool = option(False, name="json", group=OUTPUT, help="print the record as JSON on stdout")


@task(BisectOptions, example="bisect --model flux --source ../sglang --good v0.5.22 --bad main")
def bisect(c: Context, options: BisectOptions) -> None:
    """Find the commit that moved a number by pairs of measurements, and say how sure that is."""
    from bench.report import bisect as report
    from bench.report import text

    finished = _finished(replace(options, run=replace(options.run, extra=extra_arguments(c))))
    if options.as_json:
        text.write_json(finished.document)
    else:
        report.show(finished.document, text.stdout())
        text.line(text.stdout(), f"record: {finished.path}")
    if finished.document["outcome"] == "host-not-fit":
        raise PreflightFailed(finished.document["told"], where=finished.path)
    if finished.document["outcome"] != "culprit":
        raise Inconclusive(finished.document["told"], where=finished.path)


def _finished(options: BisectOptions) -> Finished:
    """Begin a bisection, or go on with one.

    Raises:
        UsageError: options are missing or contradict each other.
        BenchError: as `bench.bisect.run`.
    """
    from bench.bisect import run
    from bench.record import campaign, names
    from bench.report import live, text

    starting = "starting both engines" if options.command is None else "running the command"
    with live.Pairs(text.stderr(), pairs=options.pairs, requests=options.run.repeats, starting=starting) as display:
        if options.resume is not None:
            if options.good is not None or options.bad is not None:
                raise UsageError("a bisection goes on as it began", todo="leave --good and --bad out")
            folder = names.cut_off(options.resume, (campaign.STATE,), options.run.output_dir)
            source = None if options.source is None else str(options.source)
            return run.resume(folder, options.run, source, options.command, display=display)
        return run.begin(options.run, _question(options), _design(options), display=display)


def _question(options: BisectOptions) -> Question:
    from bench.bisect import run
    from bench.engine import find

    if options.source is None or options.good is None or options.bad is None:
        raise UsageError("a bisection takes a checkout and two revisions", todo="--source PATH --good REV --bad REV")
    if options.run.engine is not None and options.run.engine.startswith(find.SOURCE_PREFIX):
        raise UsageError(
            "the engine of a bisection is the configuration that every commit runs over, not a checkout",
            todo="--source PATH --engine CONFIGURATION",
            field="engine",
        )
    return run.Question(
        source=str(options.source),
        good=options.good,
        bad=options.bad,
        metric=options.metric,
        command=options.command,
        paths=options.paths,
        first_parent=options.first_parent,
    )


def _design(options: BisectOptions) -> Design:
    from bench.bisect import course

    return course.Design(
        effect_percent=100 * options.effect, what=options.what, pairs=options.pairs, most_pairs=options.most_pairs
    )
