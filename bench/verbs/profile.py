"""The verbs that profile: from a trace to what to do next."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench.errors import BenchError, UsageError
from bench.options import MEASURING, OUTPUT, Kind, nested, option
from bench.run.options import COMMON, Options
from bench.task import Context, extra_arguments, task

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.profiling.analysis import Context as AnalysisContext

REPORT = "report"
STEPS_PROFILED = 5
ENGINE_VERSION = "version that wrote the traces: a fast path that it lacks is not a miss"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileOptions:
    """What `invoke profile` takes."""

    run: Options = nested(
        Options, *("model", "torch_compile"), *COMMON, model={"help": "preset to profile (default flux)"}
    )
    steps_profiled: int = option(
        STEPS_PROFILED,
        kind=Kind.WHOLE,
        group=MEASURING,
        help=f"denoise steps to trace after the schedule's warm-up (default {STEPS_PROFILED})",
    )
    all_stages: bool = option(False, group=MEASURING, help="trace text encoding and decoding too")
    nsys: bool = option(False, group=MEASURING, help="run the engine under Nsight Systems as well")
    traces: tuple[Path, ...] = option(
        (),
        name="trace",
        kind=Kind.PATH,
        repeated=True,
        help="analyse a trace made elsewhere instead; again for each further rank",
    )
    engine_version: str | None = option(None, group=MEASURING, help=ENGINE_VERSION)
    full: bool = option(False, group=OUTPUT, help="print every table")


@task(ProfileOptions, example="profile --model flux-tiny --steps-profiled 2")
def profile(c: Context, options: ProfileOptions) -> None:
    """Trace a guarded run, or read traces made elsewhere, and say where the time goes and what to do."""
    if options.traces:
        _made_elsewhere(options)
    else:
        _captured(replace(options.run, extra=extra_arguments(c)), options)


def _captured(asked: Options, options: ProfileOptions) -> None:
    """Capture a trace of a preset, analyse it and show the report.

    Raises:
        BenchError: the run does not count, or the trace cannot be read.
    """
    from bench.profiling import analysis, capture
    from bench.report import live, run, text

    messages = text.stderr()
    with live.Live(messages) as display:
        captured = capture.capture(
            asked,
            steps=options.steps_profiled,
            all_stages=options.all_stages,
            nsys=options.nsys,
            display=display,
        )
    record = captured.record
    context = analysis.Context(
        engine_version=record["engine"]["version"],
        quality=record["workload"]["quality"],
        unprofiled_step_ms=captured.unprofiled_step_ms,
        about={
            "run": record["id"],
            "instrument": run.instrument(record),
            "command": shlex.join(record["launches"][0]["command"]["argv"]),
        },
    )
    _analyse(captured.traces, context, captured.path.parent / REPORT, full=options.full)
    text.line(messages, f"next: {_next(asked)}")
    text.line(messages, f"record: {captured.path}")


def _next(asked: Options) -> str:
    """Return the command after a profile: try what it proposes, or set two profiles side by side."""
    if asked.torch_compile:
        return "invoke profile-diff last~1 last"
    return f"invoke ab --model {asked.model} --metric denoise --candidate compile"


def _made_elsewhere(options: ProfileOptions) -> None:
    """Analyse traces made elsewhere (one run, one file for each rank) and show the report.

    Raises:
        UsageError: a file cannot be read, or is not a trace; then no folder is left.
    """
    from bench.profiling import analysis
    from bench.record import store

    directory = store.new_run("profile", "trace", options.run.output_dir)
    context = analysis.Context(engine_version=options.engine_version)
    try:
        _analyse(options.traces, context, directory / REPORT, full=options.full)
    except BenchError:
        shutil.rmtree(directory)
        raise


def _analyse(traces: Sequence[Path], context: AnalysisContext, directory: Path, *, full: bool) -> None:
    from bench import redact
    from bench.profiling import analysis, export
    from bench.report import profile as report
    from bench.report import profile_forms, text
    from bench.report.profile_view import view

    directory.mkdir()
    document = redact.document(analysis.analyse(list(traces), context, each=export.into(directory)))
    shown = view(document)
    report.write(document, shown, directory)
    profile_forms.show(shown, text.stdout(), full=full)
    text.line(text.stdout(), f"report: {directory / 'report.html'}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileDiffOptions:
    """What `invoke profile-diff` takes."""

    files: tuple[Path, ...] = option(
        many=True,
        kind=Kind.PATH,
        completes="finished",
        help="two traces, or report folders that `invoke profile` wrote: baseline, then the other",
    )
    a_steps: tuple[str, ...] | None = option(
        None, kind=Kind.NAMES, help="steps of the first to take, e.g. 1,2,3 (default: its representative ones)"
    )
    b_steps: tuple[str, ...] | None = option(None, kind=Kind.NAMES, help="steps of the second, likewise")
    engine_version: str | None = option(None, group=MEASURING, help=ENGINE_VERSION)
    force: bool = option(False, help="compare other devices and workloads too, and say so")
    output_dir: Path | None = option(
        None, kind=Kind.PATH, group=OUTPUT, help="where the diff is written (default runs/)"
    )


@task(ProfileDiffOptions, example="profile-diff A B")
def profile_diff(c: Context, options: ProfileDiffOptions) -> None:
    """Compare two traces: what appeared, vanished or got slower; invoke profile-diff A B."""
    from bench import redact
    from bench.profiling import analysis, load
    from bench.profiling.diff import diff
    from bench.record import store
    from bench.report import next_step, text
    from bench.report import profile as report
    from bench.report import profile_diff as shown

    files = options.files * 2 if len(options.files) == 1 else options.files  # one with itself: steps against steps
    if len(files) > 2:  # noqa: PLR2004 - A and B
        raise UsageError("a diff is of two traces", todo="invoke profile-diff A B")
    context = analysis.Context(engine_version=options.engine_version)
    a, b = load.pair(*(load.load(_report(file), context) for file in files))
    a_steps, b_steps = (None if steps is None else list(steps) for steps in (options.a_steps, options.b_steps))
    document = redact.document(diff(a, b, a_steps=a_steps, b_steps=b_steps, force=options.force))
    directory = store.new_run("profile-diff", "traces", options.output_dir)
    report.write_diff(document, directory)
    shown.render(document, text.stdout())
    text.line(text.stdout(), f"next: {next_step.after_profile_diff(*map(_report, files[:2]))}")
    text.line(text.stdout(), f"report: {directory / 'diff.md'}")


def _report(word: Path) -> Path:
    """Return the trace or report folder that a word names; of a run it is the report in it."""
    from bench.record import names

    place = names.resolve(word, (REPORT,))
    return place / REPORT if (place / REPORT).is_dir() else place
