"""The verbs that profile: from a trace to what to do next."""

from __future__ import annotations

import itertools
import shlex
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError, PreflightFailed, UsageError
from bench.options import MEASURING, OUTPUT, Kind, changed, nested, option
from bench.run.options import COMMON, Options
from bench.task import Context, extra_arguments, task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.catalog.devices import Ceiling
    from bench.profiling.analysis import Context as AnalysisContext
    from bench.profiling.capture import Captured
    from bench.serving.traced import Window

REPORT = "report"
OF_TRACES = ("--trace", "--engine-version", "--step-ms", "--full", "--output-dir")
"""The options that the analysis of a trace made elsewhere takes."""
OF_A_SERVER = ("--rate", "--dry-run")
NOT_OF_A_SERVER = ("--nsys", "--try", "--pairs")
STEPS_PROFILED = 5
PAIRS_TRIED = 4
REQUESTS_TRIED = 3
ENGINE_VERSION = "version that wrote the traces: a fast path that it lacks is not a miss"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileOptions:
    """What `invoke profile` takes."""

    run: Options = nested(
        Options, *("model", "torch_compile"), *COMMON, model={"help": "preset to profile (default flux)"}
    )
    steps_profiled: int | None = option(
        None,
        kind=Kind.WHOLE,
        group=MEASURING,
        help=f"denoise steps to trace after the first, in which the profiler warms up (default {STEPS_PROFILED})",
    )
    all_stages: bool = option(False, group=MEASURING, help="trace text encoding and decoding too")
    nsys: bool = option(False, group=MEASURING, help="run the engine under Nsight Systems as well")
    serve: bool = option(False, group=MEASURING, help="trace one request of a server while others are in flight")
    rate_hz: float | None = option(
        None,
        name="rate",
        kind=Kind.NUMBER,
        least=1e-6,
        group=MEASURING,
        help="with --serve: requests a second around the traced one (default: twice what the server can answer)",
    )
    dry_run: bool = option(False, help="with --serve: print the server's command and the traced request, run nothing")
    traces: tuple[Path, ...] = option(
        (),
        name="trace",
        kind=Kind.PATH,
        repeated=True,
        help="analyse a trace made elsewhere instead; again for each further rank",
    )
    engine_version: str | None = option(None, group=MEASURING, help=ENGINE_VERSION)
    step_ms: float | None = option(
        None,
        kind=Kind.NUMBER,
        group=MEASURING,
        least=0.001,
        help="with --trace: the same step without the profiler, in ms; idle time counts as a saving only with it",
    )
    attempt: bool = option(
        False, name="try", group=MEASURING, help="measure the first action that is a flag, against its prediction"
    )
    pairs: int = option(
        PAIRS_TRIED,
        kind=Kind.WHOLE,
        group=MEASURING,
        help=f"with --try: pairs of engine starts at most (default {PAIRS_TRIED})",
    )
    full: bool = option(False, group=OUTPUT, help="print every table")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeOptions:
    """What `invoke probe` takes."""

    run: Options = nested(Options, "engine", "output_dir")
    as_json: bool = option(False, name="json", group=OUTPUT, help="print what was measured as JSON on stdout")


@task(ProbeOptions, example="probe --engine sglang-0.5.23")
def probe(c: Context, options: ProbeOptions) -> None:
    """Measure the best that this card can do, in about 20 s; `profile` compares its traces with it."""
    from bench.engine import find
    from bench.profiling import probe as probing
    from bench.report import live, text
    from bench.report import probe as report

    messages = text.stderr()
    told = "measuring products, a copy and attention"
    text.line(messages, f"{told}: about {probing.USUAL_S:g} s, longer on a busy machine")
    with live.Heartbeat(messages, lambda: told):
        document, path = probing.measure(find.find(options.run.engine), options.run.output_dir)
    if options.as_json:
        text.write_json(document)
    else:
        report.show(document, probing.specified(document), text.stdout())
    text.line(messages, f"record: {path}")


@task(ProfileOptions, example="profile --model flux-tiny --steps-profiled 2")
def profile(c: Context, options: ProfileOptions) -> None:
    """Trace a guarded run, or read traces made elsewhere, and say where the time goes and what to do."""
    extra = extra_arguments(c)
    _refuse_ignored(options, extra)
    _refuse_endless(options)
    if options.traces:
        _made_elsewhere(options)
    elif options.dry_run:
        _show_served(replace(options.run, extra=extra), options)
    else:
        _captured(replace(options.run, extra=extra), options)


def _refuse_ignored(options: ProfileOptions, extra: Sequence[str]) -> None:
    """Raise UsageError for options that would be ignored."""
    given = changed(options)
    if options.traces:
        ignored = [name for name in given if name not in OF_TRACES] + [f"-- {word}" for word in extra[:1]]
        why = "--trace runs nothing"
    elif ignored := [name for name in given if name in ("--engine-version", "--step-ms")]:
        why = "without --trace no file is read"
    elif options.serve:
        ignored = [name for name in given if name in NOT_OF_A_SERVER]
        why = "--serve traces one request of a server"
    elif ignored := [name for name in given if name in OF_A_SERVER]:
        why = "without --serve no server is traced"
    else:
        ignored = [name for name in given if name == "--pairs" and not options.attempt]
        why = "pairs are measured with --try"
    if not ignored and options.all_stages and options.steps_profiled is not None:
        ignored, why = ["--steps-profiled"], "--all-stages traces the whole request"
    if ignored:
        todo = "leave it out" if len(ignored) == 1 else "leave them out"
        raise UsageError(f"{why}, so {', '.join(ignored)} would be ignored", todo=todo)


def _refuse_endless(options: ProfileOptions) -> None:
    """Raise UsageError for a load that lasts longer than a launch may."""
    if options.rate_hz is None:
        return
    lasts_s = _window(options, STEPS_PROFILED).load(1.0).duration_s
    if lasts_s > options.run.timeout_s:
        raise UsageError(
            f"at --rate {options.rate_hz:g} the load lasts {lasts_s:.0f} s, and --timeout is {options.run.timeout_s:g}",
            todo="a higher --rate, or a longer --timeout",
        )


def _steps(asked: Options, options: ProfileOptions) -> int:
    """Return how many denoise steps to trace: as many as were asked for, else at most `STEPS_PROFILED`.

    Raises:
        UsageError: the request has fewer.
    """
    from bench.run import plan

    steps = plan.workload(asked).steps
    wanted = options.steps_profiled
    if steps is None or options.all_stages:
        return wanted or STEPS_PROFILED
    most = steps - 1
    if most < (wanted or 1):
        raise UsageError(
            f"the request has {steps} denoise step{'s' * (steps > 1)}, and the profiler warms up in the first: "
            f"at most {most} can be traced",
            where=f"preset {asked.model}",
            todo=f"--steps-profiled {most}, or --all-stages" if most else "--all-stages",
        )
    return wanted or min(STEPS_PROFILED, most)


def _captured(asked: Options, options: ProfileOptions) -> None:
    """Capture a trace of a preset, analyse it and show the report.

    Raises:
        PreflightFailed: --try needs a GPU, and none is visible.
        BenchError: the run does not count, or the trace cannot be read.
    """
    from bench.catalog import qualities
    from bench.compare import tried
    from bench.machine import gpus
    from bench.profiling import analysis
    from bench.report import next_step, run_page, text
    from bench.report import profile as reports

    messages = text.stderr()
    if options.attempt and gpus.machine().kind == "cpu":
        raise PreflightFailed("no action of a CPU's profile is a flag to try", todo="leave it out", field="attempt")
    captured = _capture(asked, options)
    record = captured.record
    context = analysis.Context(
        engine_version=record["engine"]["version"],
        quality=record["workload"]["quality"] or qualities.default(record["engine"]["version"]),
        unprofiled=captured.unprofiled,
        measured=_measured(record, asked),
        steps=record["workload"]["steps"],
        warnings=run_page.warnings(record),
        about=reports.about(captured) | {"command": shlex.join(record["launches"][0]["command"]["argv"])},
    )
    report = _analyse(captured.traces, context, captured.path.parent / REPORT, full=options.full)
    if options.attempt:
        _try(report, captured, asked, options.pairs)
    else:
        action = tried.first_flag(report)
        proposed = None if action is None else action["arm"]
        then = (
            next_step.after_served_profile(record, asked, proposed)
            if options.serve
            else next_step.after_profile(record, proposed)
        )
        text.line(messages, f"next: {then}")
    text.line(messages, f"record: {captured.path}")


def _capture(asked: Options, options: ProfileOptions) -> Captured:
    """Capture a trace of a session, or of one request of a server under load.

    Raises:
        BenchError: the run does not count.
    """
    from bench.profiling import capture
    from bench.report import live, text
    from bench.serving import traced

    steps = _steps(asked, options)
    if options.serve:
        with live.Live(text.stderr()) as display:
            return traced.capture(asked, _window(options, steps), display)
    with live.Live(text.stderr(), requests=capture.TIMED_REQUESTS + 1, left_out=1) as display:
        return capture.capture(
            asked,
            steps=steps,
            all_stages=options.all_stages,
            nsys=options.nsys,
            display=display,
        )


def _window(options: ProfileOptions, steps: int) -> Window:
    from bench.serving.traced import Window

    return Window(steps=steps, all_stages=options.all_stages, rate_hz=options.rate_hz)


def _show_served(asked: Options, options: ProfileOptions) -> None:
    """Show the command of the server that would be profiled, and the request that it would trace."""
    from bench.engine import command
    from bench.report import text
    from bench.run import plan
    from bench.run import traced as tracing
    from bench.serving import traced
    from bench.verbs.bench import engine_to_spell_for
    from bench.verbs.loadtest import RUN_DIRECTORY, server_command

    workload = plan.workload(asked)
    engine = engine_to_spell_for(asked.engine)
    window = _window(options, _steps(asked, options))
    sent = window.requests(traced.request(engine.version, workload), window.load(1.0))
    request = next(itertools.islice(sent, traced.BEFORE, None))
    text.write(command.shown(server_command(engine, tracing.of(workload, RUN_DIRECTORY.absolute()))))
    number, total = traced.BEFORE + 1, traced.BEFORE + 1 + traced.AFTER
    text.write(f"# request {number} of the {total} that load it: POST {request.path} {request.body().decode()}")


def _measured(record: Mapping[str, Any], asked: Options) -> tuple[Ceiling, ...]:
    """Return what this card does at best: as kept, else measured now; nothing on a CPU, or if it cannot be measured."""
    from bench.engine import find
    from bench.profiling import probe as probing
    from bench.report import text

    if record["devices"]["kind"] == "cpu":
        return ()
    known = probing.kept(probing.seen())
    if known is None:
        text.line(text.stderr(), f"measuring what this card does at best, once: about {probing.USUAL_S:g} s")
        try:
            known, _ = probing.measure(find.find(asked.engine), asked.output_dir)
        except BenchError as error:
            text.line(text.stderr(), f"the card could not be measured, the table's ceilings are used: {error.what}")
            return ()
    return probing.ceilings(known)


def _try(report: Mapping[str, Any], captured: Captured, asked: Options, pairs: int) -> None:
    """Measure the first action that is a flag and show what it achieved beside what was predicted.

    Raises:
        BenchError: the comparison could not be made, or did not count.
    """
    from bench.compare import ab, tried
    from bench.report import comparison, live, text
    from bench.report import profile as reports

    messages, console = text.stderr(), text.stdout()
    action = tried.first_flag(report)
    if action is None:
        text.line(console, "nothing to try: no action of this profile is a flag")
        return
    text.line(messages, f"trying {action['arm']}: {action['title']}")
    common = replace(asked, repeats=REQUESTS_TRIED)
    specs = {ab.BASELINE: "", ab.CANDIDATE: action["arm"]}
    with live.Pairs(messages, pairs=pairs, requests=common.repeats) as display:
        result = ab.measure(common, specs, ab.Design(pairs=pairs, metric=tried.METRIC), display=display)
    sides = (result.records[ab.BASELINE], result.records[ab.CANDIDATE])
    comparison.show_arms(result.document, sides, result.path, console)
    if result.error is not None:
        raise result.error
    found = tried.document(action, captured.record, result.document, sides[0])
    path = tried.write(found, captured.path.parent)
    text.line(console, reports.tried(found))
    text.line(messages, f"tried: {path}")


def _made_elsewhere(options: ProfileOptions) -> None:
    """Analyse traces made elsewhere (one run, one file for each rank) and show the report.

    Raises:
        UsageError: a file cannot be read, or is not a trace; then no folder is left.
    """
    from bench.catalog import qualities
    from bench.profiling import analysis
    from bench.profiling.bottleneck import Unprofiled
    from bench.record import store

    directory = store.new_run("profile", "trace", options.run.output_dir)
    version = options.engine_version
    context = analysis.Context(
        engine_version=version,
        quality=qualities.default(version) if version else None,
        unprofiled=Unprofiled(step_ms=options.step_ms) if options.step_ms else None,
    )
    try:
        _analyse(options.traces, context, directory / REPORT, full=options.full)
    except BenchError:
        shutil.rmtree(directory)
        raise


def _analyse(traces: Sequence[Path], context: AnalysisContext, directory: Path, *, full: bool) -> dict[str, Any]:
    """Analyse traces, write and show the report, and return it."""
    from bench import redact
    from bench.profiling import analysis, export
    from bench.report import profile as report
    from bench.report import profile_forms, text
    from bench.report.profile_view import view

    directory.mkdir()
    document: dict[str, Any] = redact.document(analysis.analyse(list(traces), context, each=export.into(directory)))
    shown = view(document)
    report.write("profile-report", document, shown, directory)
    profile_forms.show(shown, text.stdout(), full=full)
    text.line(text.stdout(), f"report: {directory / 'report.html'}")
    return document


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
    from bench.report import next_step, profile_forms, text
    from bench.report import profile as report
    from bench.report.profile_diff import view

    files = options.files * 2 if len(options.files) == 1 else options.files  # one with itself: steps against steps
    if len(files) > 2:  # noqa: PLR2004 - A and B
        raise UsageError("profile-diff takes exactly two traces", todo="invoke profile-diff A B")
    context = analysis.Context(engine_version=options.engine_version)
    a, b = load.pair(*(load.load(_report(file), context) for file in files))
    a_steps, b_steps = (None if steps is None else list(steps) for steps in (options.a_steps, options.b_steps))
    if len(options.files) > 1 and options.a_steps == options.b_steps and load.is_same(a, b):
        raise UsageError(
            "the same trace twice, so nothing can differ",
            where=options.files[0],
            todo="name another trace, or steps of this one: --a-steps 1 --b-steps 2",
        )
    document = redact.document(diff(a, b, a_steps=a_steps, b_steps=b_steps, force=options.force))
    directory = store.new_run("profile-diff", "traces", options.output_dir)
    shown = view(document)
    report.write("profile-diff", document, shown, directory)
    profile_forms.show(shown, text.stdout(), full=True)
    text.line(text.stdout(), f"next: {next_step.after_profile_diff(*map(_report, files[:2]))}")
    text.line(text.stdout(), f"report: {directory / 'diff.html'}")


def _report(word: Path) -> Path:
    """Return the trace or report folder that a word names; of a run it is the report in it."""
    from bench.record import names

    if word.is_file():
        return word  # a trace may be gzipped, which no record is
    place = names.resolve(word, (REPORT,))
    return place / REPORT if (place / REPORT).is_dir() else place
