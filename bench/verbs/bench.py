"""`invoke bench`: one request, a session, several presets or a matrix, each under a guard."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError, Inconclusive, PreflightFailed, UsageError
from bench.fallback.expectation import DIFFUSERS, NATIVE
from bench.options import MEASURING, OUTPUT, Kind, changed, nested, option
from bench.run.options import COMMON, Options, restored
from bench.task import Context, extra_arguments, task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from rich.console import Console

    from bench.engine.command import Command
    from bench.engine.find import Engine
    from bench.report.live import Live, Series
    from bench.run.benchmark import Prove, Result

AXES = {"quality": "every quality", "cuda-graph": "with and without CUDA graphs"}
DEFAULT_MODELS = ("flux",)
MATRIX_REPEATS, MATRIX_LAUNCHES = 5, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What `invoke bench` takes."""

    models: tuple[str, ...] = option(
        DEFAULT_MODELS,
        name="model",
        kind=Kind.NAMES,
        completes="presets",
        help="preset to run, or several: a,b (`invoke models` lists them; default flux)",
    )
    tag: str | None = option(None, completes="tags", help="run all presets with this tag instead, e.g. tiny or nightly")
    all: bool = option(False, help="run all presets instead; a model that is not here is downloaded")
    run: Options = nested(Options, model=None, repeats=None, launches=None)
    repeats: int | None = option(
        None,
        kind=Kind.WHOLE,
        help="requests to one loaded engine that count, after one that does not (default 1: a single `sglang generate`;"
        " in a matrix 5)",
    )
    launches: int | None = option(
        None,
        kind=Kind.WHOLE,
        group=MEASURING,
        help="engine starts, each serving --repeats requests (default 1; in a matrix 3)",
    )
    matrix: tuple[str, ...] = option(
        (),
        kind=Kind.NAMES,
        group=MEASURING,
        choices=AXES,
        help="measure every combination of quality,cuda-graph (or one of them), each warmed alike",
    )
    resume: Path | None = option(
        None,
        kind=Kind.PATH,
        group=MEASURING,
        completes="cut_off",
        help="run, matrix or batch that was cut off: go on with what is missing",
    )
    show_receipts: bool = option(
        False, group=OUTPUT, help="show for each optional feature that was asked for whether it engaged, and why"
    )
    dry_run: bool = option(False, help="print the exact command and environment, run nothing")
    as_json: bool = option(
        False, name="json", group=OUTPUT, help="print the record, or of a dry run the commands, as JSON on stdout"
    )


@task(BenchOptions, example="bench --model flux-tiny --repeats 10")
def bench(c: Context, options: BenchOptions) -> None:
    """Time one request on the native engine and keep the proof; what follows -- goes to the engine."""
    from bench.catalog import presets

    _check_choice(options)
    keys = presets.chosen(options.models, options.tag, everything=options.all, preset_file=options.run.preset_file)
    fixed = (MATRIX_REPEATS, MATRIX_LAUNCHES) if options.matrix else (1, 1)
    asked = replace(
        options.run,
        model=keys[0],
        extra=extra_arguments(c),
        repeats=options.repeats or fixed[0],
        launches=options.launches or fixed[1],
    )
    many = options.all or options.tag is not None or len(keys) > 1
    if options.show_receipts and (many or options.matrix):
        raise UsageError("--show-receipts is for one run", todo="each record has its receipts")
    if options.matrix:
        _check_matrix(options, keys, many=many)
        _run_matrix(asked, options)
        return
    _check_require(asked, keys, resumed=options.resume is not None)
    if many and options.resume is not None:
        raise UsageError("--resume takes its presets from the run", todo="leave --model, --tag and --all out")
    if many and asked.model_path is not None:
        raise UsageError(
            f"--model-path is for one preset, and {len(keys)} were named", todo="run the presets one by one"
        )
    if options.dry_run and options.resume is not None:
        raise UsageError("--resume takes its options from the run: --dry-run cannot show them", todo="leave one out")
    if options.dry_run:
        show_commands({key: replace(asked, model=key) for key in keys}, as_json=options.as_json)
    elif options.resume is not None:
        _resume(asked, options, options.resume)
    elif many:
        name = "all" if options.all else options.tag or "chosen"
        _run_presets(asked, keys, name, as_json=options.as_json)
    else:
        run_one(asked, as_json=options.as_json, with_receipts=options.show_receipts)


def _resume(asked: Options, options: BenchOptions, word: Path) -> None:
    """Go on with what was cut off: a run, a matrix or a batch.

    Raises:
        BenchError: as these do.
    """
    from bench.record import campaign, names, store
    from bench.report import live, text
    from bench.sweep import batch, matrix

    place = names.cut_off(word, (store.PARTIAL, campaign.STATE), asked.output_dir)
    if not (place / campaign.STATE).exists():
        run_one(asked, as_json=options.as_json, resume=place, with_receipts=options.show_receipts)
        return
    state = campaign.read(place, matrix.KIND, batch.KIND)
    then = Options.from_document(state["asked"]["options"])
    if state["kind"] == matrix.KIND:
        shown = titled(text.stderr(), live.Series("cell", 0), then, is_cell=True)
        _show_matrix(matrix.resume(place, asked, shown), as_json=options.as_json)
    else:
        shown = titled(text.stderr(), live.Series("preset", 0), then)
        _show_batch(batch.resume(place, asked, shown), as_json=options.as_json)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceOptions:
    """What `invoke reference` takes."""

    run: Options = nested(
        Options,
        *("model", "model_path", *COMMON, "steps", "seed", "width", "height", "repeats", "launches"),
        *("warmup", "preflight"),
    )
    dry_run: bool = option(False, help="print the exact command and environment, run nothing")
    as_json: bool = option(
        False, name="json", group=OUTPUT, help="print the record, or of a dry run the commands, as JSON on stdout"
    )


@task(ReferenceOptions, example="reference --model flux-tiny --repeats 3")
def reference(c: Context, options: ReferenceOptions) -> None:
    """Time the engine's diffusers backend and prove that it ran: the slow arm of a speed-up table."""
    asked = replace(options.run, extra=extra_arguments(c))
    if options.dry_run:
        show_commands({asked.model: asked}, DIFFUSERS, as_json=options.as_json)
    else:
        run_one(asked, as_json=options.as_json, backend=DIFFUSERS)


def _check_choice(options: BenchOptions) -> None:
    """Raise UsageError for options that exclude each other."""
    if options.run.precision and (options.repeats or options.launches):
        raise UsageError("--precision decides the number of requests itself: leave --repeats and --launches out")
    if "--max-repeats" in changed(options) and not options.run.precision:
        raise UsageError(
            "--max-repeats bounds --precision, which is not asked for",
            todo="add --precision 1%; --repeats N for a fixed number of requests",
        )
    if options.all and options.tag:
        raise UsageError("--all and --tag exclude each other", todo="leave one out")
    if (options.all or options.tag) and options.models != DEFAULT_MODELS:
        raise UsageError("--model, --tag and --all exclude each other", todo="leave all but one out")


def _check_require(asked: Options, keys: Sequence[str], *, resumed: bool) -> None:
    """Raise UsageError if nothing is kept that any of these presets' outputs could be compared with."""
    from pathlib import Path

    from bench import paths
    from bench.catalog import presets
    from bench.compare import history
    from bench.fidelity import goldens

    if asked.require is None or asked.update_golden is not None or resumed:
        return
    known = [presets.get(key, asked.preset_file) for key in keys]
    models = [Path(asked.model_path or preset.model).name for preset in known]
    wanted = {preset.sha256 for preset in known}
    if not any(map(goldens.are_kept, models)) and not any(
        history.is_baseline_of(paths.runs(), sha256) for sha256 in wanted
    ):
        raise UsageError(
            "--require compares outputs with a golden or a baseline, and there is neither",
            todo="run once without it, then `invoke baseline.set last`; or keep a golden: --update-golden REASON",
        )


def _check_reachable(options: Options, preset_sha256: str) -> None:
    """Raise UsageError if this machine's noise takes more requests than are allowed for the precision asked for."""
    from bench import paths
    from bench.compare import forecast

    past = forecast.past(options.output_dir or paths.runs(), preset_sha256)
    if options.precision is None or past is None or (needed := past.requests_for(options.precision)) is None:
        return
    if needed > options.max_repeats:
        raise UsageError(
            f"a precision of {100 * options.precision:g} % takes about {needed:,} requests here, and"
            f" {options.max_repeats} are allowed (requests of run {past.run[-6:]} differed by"
            f" {past.within_percent:.2g} %)",
            todo=f"accept a wider interval, or allow more: --max-repeats {needed}",
        )


# --- one preset -------------------------------------------------------------------------------------------------------


def run_one(
    options: Options,
    *,
    as_json: bool,
    resume: Path | None = None,
    with_receipts: bool = False,
    backend: str = NATIVE,
) -> Mapping[str, Any]:
    """Run, show and return the record; with ``as_json`` stdout holds the record and nothing else.

    Raises:
        BenchError: the run does not count (its record is written and shown first), or it could not be made.
    """
    from bench.compare.records import refuse_unscorable, scored
    from bench.models import hub
    from bench.record import store
    from bench.report import run, text
    from bench.run import benchmark, plan

    messages = text.stderr()
    kept: Sequence[Mapping[str, Any]] = []
    if resume is not None:
        begun = store.read(resume)
        options = _resumed(options, restored(Options.from_document(begun["asked"]), options))
        kept = begun["requests"]
    planned = plan.plan(options, backend=backend)
    if resume is None:
        _check_reachable(options, planned.preset.sha256)
        refuse_unscorable(planned)
    if planned.made_checkpoint is not None:
        text.line(messages, f"made a synthetic checkpoint: {planned.made_checkpoint}")
    with (
        plan.private_model_cache(planned) as isolated,
        _shown(
            messages,
            planned.options,
            kept,
            partial(hub.fetched_bytes, isolated.workload.model_path, isolated.resolved.environment),
        ) as display,
    ):
        result = benchmark.run(
            isolated, display, resume, score=scored if isolated.options.scored else None, prove=_prove(isolated.options)
        )
    for warning in run.warnings(result.record):
        text.line(messages, warning)
    if as_json:
        text.write_json(result.record)
    else:
        run.show(result.record, result.path, text.stdout(), with_receipts=with_receipts)
    if result.error is not None:
        raise _short(result)
    if options.precision is not None:
        _check_precision(result, options.precision)
    return result.record


def _shown(
    messages: Console, options: Options, kept: Sequence[Mapping[str, Any]], fetched_bytes: Callable[[], int]
) -> Live:
    """Return what shows the progress of a run that has kept these requests."""
    from bench.report import live
    from bench.run.stopping import Enough

    launches, requests = Enough(options).left(kept)
    left_out = int(options.leaves_first_out)
    further = [("the stage table", options.repeats + left_out)] if options.stages else []
    further += [("the kernels", 2)] if options.prove_kernels else []  # one that warms up, one that is traced
    return live.Live(
        messages,
        requests=requests,
        launches=launches,
        left_out=left_out,
        further=further,
        fetched_bytes=fetched_bytes,
    )


def _prove(options: Options) -> Prove | None:
    """Return what reads traces for the receipts, if that is asked for: it needs numpy, which a run without does not."""
    if not options.prove_kernels:
        return None
    from bench.profiling import proof

    return proof.read


def _check_precision(result: Result, wanted: float) -> None:
    """Raise Inconclusive, with the precision that was reached, if a run ended before the one that was asked for."""
    import statistics

    from bench.run.timings import PRIMARY
    from bench.stats.summary import PRECISION_MINIMUM, median_interval

    if "before the precision was reached" not in (result.record["stopped_because"] or ""):
        return
    requests = result.record["requests"]
    samples = [request["metrics"][PRIMARY] for request in requests if request["launch"] == requests[-1]["launch"]]
    interval, _ = median_interval(samples)
    known = "has no interval"
    if interval is not None:
        half = (interval.high - interval.low) / 2 / statistics.median(samples)
        known = (
            f"is known to {100 * half:.2g} %"
            if half > wanted
            else f"is not trusted before {PRECISION_MINIMUM} requests"
        )
    raise Inconclusive(
        f"the median {known} after {len(samples)} requests of one launch, and {100 * wanted:g} % was asked for",
        where=result.path,
        todo="accept a wider interval, allow more with --max-repeats, or stop other work on this machine",
    )


BEGUN_WITH = ("repeats", "launches", "precision", "max_repeats", "steps", "seed", "width", "height")
"""What a run that goes on cannot change."""


def _resumed(now: Options, then: Options) -> Options:
    """Return the options of a resumed run: those it began with, scored if either asks for it.

    Variables come from this shell alone: those in a record may be somebody else's, and `resumable` tells which differ.

    Raises:
        UsageError: something else is asked for than what the run began with.
    """
    for name in BEGUN_WITH:
        typed, begun = getattr(now, name), getattr(then, name)
        if typed not in (Options.__dataclass_fields__[name].default, begun):
            raise UsageError(
                f"a run that is resumed keeps its options: it began with {begun or 'the default'}, not {typed}",
                todo="leave it out, or leave --resume out to measure anew",
                field=name,
            )
    return replace(
        then,
        environment=now.environment,
        check_accuracy=now.check_accuracy or then.check_accuracy,
        require=now.require or then.require,
        update_golden=now.update_golden or then.update_golden,
    )


def _short(result: Result) -> BenchError:
    """Return the error of a run whose record says it all: which finding decided, and where to read more."""
    from bench.report import next_step

    assert result.error is not None
    if result.record["complete"] and result.record["fidelity"] is not None:
        return result.error
    if result.record["requests"] and result.record["kind"] == "bench":
        done = len(result.record["requests"])
        todo = f"`{next_step.after_bench(result.record, result.path.parent)}` goes on with what is missing"
        return type(result.error)(
            f"cut off after {done} request{'' if done == 1 else 's'}: {result.error.what}", where=result.path, todo=todo
        )
    decisive = result.record["verdict"]["findings"][0]
    return type(result.error)(f"run rejected: {decisive['id']}; no timings are reported", where=result.path)


# --- several runs -----------------------------------------------------------------------------------------------------


def _run_presets(options: Options, keys: Sequence[str], name: str, *, as_json: bool) -> None:
    """Run the presets and show how each ended.

    Raises:
        BenchError: the engine does not exist, or not all of them count.
    """
    from bench.engine import find
    from bench.report import live, text
    from bench.sweep import batch

    find.find(options.engine)  # refused once, not preset by preset
    shown = titled(text.stderr(), live.Series("preset", len(keys)), options)
    _show_batch(batch.run(options, keys, name, shown), as_json=as_json)


def _show_batch(ended: tuple[dict[str, Any], Path], *, as_json: bool) -> None:
    """Show how each preset of a batch ended.

    Raises:
        BenchError: not all of them count.
    """
    from pathlib import Path

    from bench.record import store
    from bench.report import batch as report
    from bench.report import text
    from bench.sweep import batch

    summary, path = ended
    if as_json:
        text.write_json(summary)
    else:
        records = {row["preset"]: store.read(Path(row["record"])) for row in summary["rows"] if row["record"]}
        report.show(summary, records, path, text.stdout())
    error = batch.error_of(summary, path)
    if error is not None:
        raise error


def _check_matrix(options: BenchOptions, keys: Sequence[str], *, many: bool) -> None:
    """Refuse what does not go with a matrix.

    Raises:
        UsageError: an option contradicts it.
    """
    if options.run.scored:
        raise UsageError(
            "a matrix compares the outputs of its cells itself",
            todo="leave --check-accuracy, --require and --update-golden out",
        )
    if options.run.prove_kernels:
        raise UsageError("--prove-kernels is for one run, not for a matrix", todo="prove the cell's options alone")
    typed = changed(options)
    if many or options.resume or options.run.precision:
        unfit = [f"{word} out" for word in ("--tag", "--all", "--resume", "--precision") if word in typed]
        raise UsageError(
            "--matrix is for one preset and a fixed number of requests",
            todo=f"leave {', '.join(unfit)}" if unfit else f"--model {keys[0]} alone",
        )
    if fixed := [f"--{axis}" for axis in options.matrix if f"--{axis}" in typed]:
        raise UsageError(f"{' and '.join(fixed)} cannot be fixed: --matrix varies it", todo="leave one of the two out")


def _run_matrix(asked: Options, options: BenchOptions) -> None:
    """Measure or, for a dry run, show the cells of a matrix.

    Raises:
        BenchError: a cell does not count, or the pictures of a graph cell differ from its eager cell's.
    """
    from bench.report import live, text
    from bench.run import plan
    from bench.stats.unpaired import WELCH_MINIMUM
    from bench.sweep import matrix

    if options.dry_run:
        cells = matrix.cells(asked, options.matrix)
        show_commands({cell.name: cell.options for cell in cells}, as_json=options.as_json)
        return
    for cell in matrix.cells(asked, options.matrix):
        if cell.cuda_graph:
            try:
                with suppress(UsageError):  # a quality that this engine lacks ends its own cell only
                    plan.plan(cell.options, in_session=True)  # without a GPU refused now, not after the eager cells
            except PreflightFailed as error:
                if error.field == "cuda_graph" and "cuda-graph" in options.matrix:
                    error.todo, error.field = "vary the quality only", "matrix"
                raise
            break
    if "cuda-graph" in options.matrix and asked.launches < WELCH_MINIMUM:
        text.line(text.stderr(), f"the timings get no verdict: that takes --launches {WELCH_MINIMUM}")
    shown = titled(text.stderr(), live.Series("cell", 0), asked, is_cell=True)
    _show_matrix(matrix.measure(asked, options.matrix, shown), as_json=options.as_json)


def _show_matrix(ended: tuple[dict[str, Any], Path, BenchError | None], *, as_json: bool) -> None:
    """Show a matrix.

    Raises:
        BenchError: what it ended with.
    """
    from bench.record import store
    from bench.report import matrix as report
    from bench.report import text

    document, path, error = ended
    if as_json:
        text.write_json(document)
    else:
        records = {
            cell["name"]: store.read(path.parent / cell["record"]) for cell in document["cells"] if cell["record"]
        }
        report.show(document, records, path, text.stdout())
    if error is not None:
        raise error


def titled(
    messages: Console, series: Series, options: Options, *, is_cell: bool = False
) -> Callable[[str, str, int], AbstractContextManager[Live]]:
    """Return what shows the progress of a named run, under its name and its place in a series.

    A cell of a matrix is launched once at a time, and always leaves the first request of a launch out.
    """
    from bench.report import live, text

    @contextmanager
    def shown(name: str, place: str, left: int) -> Iterator[Live]:
        series.begin(place, left)
        text.line(messages, f"{place}: {name}")
        try:
            with live.Live(
                messages,
                requests=None if options.precision else options.repeats,
                launches=1 if is_cell else options.launches,
                left_out=int(is_cell or options.leaves_first_out),
                series=series,
            ) as display:
                yield display
        finally:
            series.end()

    return shown


# --- dry run ----------------------------------------------------------------------------------------------------------


def show_commands(asked: Mapping[str, Options], backend: str = NATIVE, *, as_json: bool = False) -> None:
    """Print the command that each named run would use; one that is refused is a comment and stops no other.

    With ``as_json`` print one object: ``runs`` (name, launches, requests, argv, environment, files) and ``refused``.

    Raises:
        BenchError: of the one run that was asked for, or that some of several are refused.
    """
    from bench.engine import command
    from bench.report import text
    from bench.run import plan

    # once for each name: of a batch all are the same, of two arms often not
    engines = {spec: engine_to_spell_for(spec) for spec in dict.fromkeys(options.engine for options in asked.values())}
    here = {name: why for name, options in asked.items() if (why := plan.refused_here(options)) is not None}
    for why in dict.fromkeys(here.values()):
        named = ", ".join(name for name in here if here[name] == why)
        text.line(text.stderr(), f"note: this machine would refuse {named}: {why}")
    built: dict[str, Command] = {}
    refused: dict[str, list[str]] = {}
    for name, options in asked.items():
        try:
            built[name] = plan.dry_run(options, engines[options.engine], backend)
        except BenchError as error:
            if len(asked) == 1:
                raise
            refused.setdefault("; ".join(filter(None, (error.what, error.todo))), []).append(name)
    if as_json:
        runs = [
            {"name": name, "launches": asked[name].launches, "requests": asked[name].repeats, **command.described(made)}
            for name, made in built.items()
        ]
        text.write_json({"runs": runs, "refused": [{"names": names, "why": why} for why, names in refused.items()]})
    else:
        for name, made in built.items():
            text.write(command.shown(made) if len(asked) == 1 else f"# {name}\n{command.shown(made)}")
        for why, names in refused.items():
            text.write(f"# refused: {', '.join(names)}\n#   {why}")
    if count := sum(map(len, refused.values())):
        raise UsageError(f"{count} of {len(asked)} runs refused", todo="see the reasons above")


def engine_to_spell_for(spec: str | None) -> Engine:
    """Return the engine that is named or on PATH; on a machine without one the default configuration's, unasked.

    Raises:
        BenchError: the named engine does not exist.
    """
    from bench.engine import find
    from bench.report import text

    try:
        return find.find(spec)
    except UsageError:
        if spec is not None or os.environ.get(find.VARIABLE):
            raise
    engine = find.unasked()
    built = find.build_command(engine.name)
    text.line(
        text.stderr(),
        f"no engine was named or found: this is the command for sglang {engine.version}, which `{built}` builds",
    )
    return engine
