"""`invoke loadtest`: served numbers with proof."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import Inconclusive, ThresholdMissed, UsageError
from bench.options import MEASURING, OUTPUT, Kind, nested, option
from bench.serving.options import LoadOptions
from bench.task import Context, extra_arguments, task
from bench.verbs.compare import ARM, planned

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.engine.command import Command
    from bench.engine.find import Engine
    from bench.engine.workload import Workload
    from bench.serving.ab import Result
    from bench.serving.run import Finished
    from bench.serving.versus import Design

RUN_DIRECTORY = Path("RUN_DIRECTORY")
"""What a command that is only shown writes into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadtestOptions:
    """What `invoke loadtest` takes."""

    load: LoadOptions = nested(LoadOptions)
    baseline: str = option("", completes="arms", help=f"compare two servers: the first arm; {ARM}")
    candidate: str = option("", completes="arms", help="compare two servers: the second arm, likewise")
    pairs: int | None = option(
        None, kind=Kind.WHOLE, help="pairs of server starts at most (default 8); it stops earlier when decided"
    )
    margin: float | None = option(
        None, kind=Kind.PERCENTAGE, group=MEASURING, help="an effect inside it is called same (default 1.5%)"
    )
    same: bool = option(False, group=MEASURING, help="compare a server with itself: how noisy this machine is")
    resume: Path | None = option(
        None,
        kind=Kind.PATH,
        group=MEASURING,
        completes="cut_off",
        help="load test or comparison that was cut off: go on with the phases or pairs that are missing",
    )
    dry_run: bool = option(False, help="print the server's command and environment, run nothing")
    as_json: bool = option(
        False, name="json", group=OUTPUT, help="print the record, or of a dry run the commands, as JSON on stdout"
    )


@task(LoadtestOptions, example="loadtest --model flux-tiny --rate 0.5 --slo 5")
def loadtest(c: Context, options: LoadtestOptions) -> None:
    """Load a guarded server at rates that follow its measured capacity, and prove every answer."""
    asked = replace(options.load, run=replace(options.load.run, extra=extra_arguments(c)))
    if options.resume is not None:
        _resume(asked, options, options.resume)
        return
    if sum(way is not None for way in (asked.rate_hz, asked.concurrency, asked.trace)) + asked.find_max > 1:
        raise UsageError("--rate, --concurrency, --trace and --find-max exclude each other", todo="choose one")
    if asked.golden is not None and asked.batching > 1:
        raise UsageError("--golden and --batching exclude each other", todo="leave one out: merging changes pixels")
    compares = bool(options.baseline or options.candidate or options.same)
    if not compares and (options.pairs is not None or options.margin is not None):
        raise UsageError("--pairs and --margin need two servers", todo="name a --candidate")
    if compares:
        _compare(asked, options)
    elif options.dry_run:
        _show_commands({asked.run.model: asked}, as_json=options.as_json)
    else:
        _run(asked, as_json=options.as_json)


def _resume(asked: LoadOptions, options: LoadtestOptions, word: Path) -> None:
    """Go on with what was cut off: a load test, or a comparison of two servers.

    Raises:
        UsageError: another load, another design or only a look is asked for.
        BenchError: as these do.
    """
    from bench.record import campaign, names
    from bench.report import live, text
    from bench.serving import ab, local

    if options.dry_run:
        raise UsageError("--resume takes its options from the run: --dry-run cannot show them", todo="leave one out")
    design = options.same or options.pairs is not None or options.margin is not None
    if design or asked != LoadOptions(run=asked.run):
        raise UsageError("a resumed load test keeps its load and its design", todo="leave the other options out")
    folder = names.cut_off(word, (campaign.STATE,), asked.run.output_dir)
    state = campaign.read(folder, local.KIND, ab.CAMPAIGN)
    if state["kind"] == local.KIND:
        if options.baseline or options.candidate:
            raise UsageError("one server was loaded, not two", where=folder, todo="leave the arms out")
        with live.Live(text.stderr()) as display:
            finished = local.resume(folder, asked.run, display)
        _show(LoadOptions.from_document(state["asked"]), finished, as_json=options.as_json)
        return
    then = LoadOptions.from_document(state["asked"]["options"])
    specs = {"baseline": options.baseline, "candidate": options.candidate}
    pairs = state["asked"]["design"]["pairs"]
    with live.Pairs(text.stderr(), pairs=pairs, requests=_requests_a_start(then)) as pair_display:
        result = ab.resume(folder, specs, asked.run, pair_display)
    _show_servers(then, result, as_json=options.as_json)


def _show_commands(asked: Mapping[str, LoadOptions], *, as_json: bool) -> None:
    """Print the command of each server, or one object that has them all as ``runs``."""
    from bench.engine import command
    from bench.report import text

    commands = {name: _command(one) for name, one in asked.items()}
    if as_json:
        text.write_json({"runs": [{"name": name, **command.described(made)} for name, made in commands.items()]})
    else:
        for made in commands.values():
            text.write(command.shown(made))


def _command(asked: LoadOptions) -> Command:
    """Return the command that would start a server."""
    from bench.run import plan
    from bench.serving import local
    from bench.verbs.bench import engine_to_spell_for

    workload = plan.workload(asked.run)
    local.request_of(workload)
    return server_command(engine_to_spell_for(asked.run.engine), workload, most_merged=asked.batching)


def server_command(engine: Engine, workload: Workload, *, most_merged: int = 1) -> Command:
    """Return the command that would start a server; its run directory is a stand-in."""
    from bench.machine import gpus
    from bench.serving import command as servers

    on_cpu, directory = gpus.machine().kind == "cpu", RUN_DIRECTORY.absolute()
    return servers.build(engine, workload, directory, most_merged=most_merged, on_cpu=on_cpu).command


def _run(asked: LoadOptions, *, as_json: bool) -> None:
    from bench.report import live, text
    from bench.run import plan
    from bench.serving import local

    if asked.url is not None:
        request = local.request_of(plan.workload(asked.run))
        finished = local.loadtest_elsewhere(asked.url, request, asked)
    else:
        planned = plan.plan(asked.run)
        with plan.private_model_cache(planned) as isolated, live.Live(text.stderr()) as display:
            finished = local.loadtest(isolated, asked, display)
    _show(asked, finished, as_json=as_json)


def _show(asked: LoadOptions, finished: Finished, *, as_json: bool) -> None:
    """Show a load test, and raise what it ends with."""
    from bench.report import load, next_step, text

    record, path, error = finished
    if as_json:
        text.write_json(record)
    else:
        load.show(record, path, text.stdout(), next_step.after_load(record, asked, path))
    if error is not None:
        raise error


def _compare(asked: LoadOptions, options: LoadtestOptions) -> None:
    """Compare two servers."""
    from bench.compare import arms
    from bench.report import live, text
    from bench.serving import ab, versus
    from bench.verbs.compare import check_arms

    specs = {"baseline": options.baseline, "candidate": options.candidate}
    ab.refuse(asked)
    known = {name: arms.options_of(spec, asked.run) for name, spec in specs.items()}
    check_arms(known, same=options.same)
    design = _design(options)
    versus.check(design)
    text.line(text.stderr(), _length(design, asked))
    if options.dry_run:
        _show_commands({name: replace(asked, run=run) for name, run in known.items()}, as_json=options.as_json)
        return
    with live.Pairs(text.stderr(), pairs=design.pairs, requests=_requests_a_start(asked)) as display:
        result = ab.measure(asked, specs, design, display)
    _show_servers(asked, result, as_json=options.as_json)


def _show_servers(asked: LoadOptions, result: Result, *, as_json: bool) -> None:
    """Show a comparison of two servers, and raise what it ends with.

    Raises:
        ThresholdMissed: the candidate is slower.
        Inconclusive: the pairs do not decide.
    """
    from bench.report import load_comparison, next_step, text

    if as_json:
        text.write_json(result.document)
    else:
        step = next_step.after_servers(result.document, asked, result.path.parent)
        load_comparison.show(result.document, result.path, text.stdout(), step)
    if result.error is not None:
        raise result.error
    raise_outcome(result.document, str(result.path))


def _design(options: LoadtestOptions) -> Design:
    from bench.serving import versus

    design = versus.Design()
    if options.pairs is not None:
        design = replace(design, pairs=options.pairs)
    if options.margin is not None:
        design = replace(design, margin_percent=100 * options.margin)
    return design


def _blocks(asked: LoadOptions) -> int:
    from bench.serving.options import SHARES

    return 2 + (len(SHARES) if asked.rate_hz is None else 1)


def _requests_a_start(asked: LoadOptions) -> int:
    """Return how far a start counts for the display: one for each second of load."""
    return int(_blocks(asked) * asked.duration_s)


def _length(design: Design, asked: LoadOptions) -> str:
    """Return how much is planned."""
    from bench.report.figures import duration

    told, end = planned(design.pairs, "server starts")
    load = duration(design.pairs * 2 * _blocks(asked) * asked.duration_s)
    each = f"{_blocks(asked)} blocks of {asked.duration_s:g} s on each server"
    return f"{told}, {load} of load ({each}) and the starts{end}"


def raise_outcome(document: Mapping[str, Any], where: str) -> None:
    """Raise what a comparison of two servers ends with.

    Raises:
        ThresholdMissed: the candidate is slower.
        Inconclusive: the pairs do not decide.
    """
    from bench.stats import comparison

    compared = document["comparison"]
    for kind in (ThresholdMissed, Inconclusive):
        if compared["exit_code"] == kind.exit_code:
            raise kind(comparison.in_words(compared), where=where)
