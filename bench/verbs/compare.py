"""The verbs that compare: two arms now, records made earlier, a machine with itself, a preset over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.errors import Inconclusive, ThresholdMissed, UsageError
from bench.options import FIDELITY, MEASURING, OUTPUT, Kind, nested, option
from bench.run.options import COMMON, REQUIRED, Options
from bench.task import Context, task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.compare.records import Side

ARM = "words: an engine's name, steps=N, compile, NAME=VALUE (variable), --flag (for the engine); '' changes nothing"
METRIC = "what is compared: total, denoise, wall, load, peak-memory, or the name of a stage (default total)"
REQUIRE = "exit 7 unless the outputs are this similar to the baseline's"


@dataclass(frozen=True, slots=True, kw_only=True)
class AbOptions:
    """What `invoke ab` takes."""

    baseline: str = option("", completes="engines", help=f"first arm; {ARM}")
    candidate: str = option("", completes="engines", help="second arm, likewise")
    pairs: int | None = option(
        None, kind=Kind.WHOLE, help="pairs of engine starts at most (default 8); it stops earlier when decided"
    )
    metric: str = option("total", help=METRIC)
    margin: float | None = option(
        None,
        kind=Kind.PERCENTAGE,
        group=MEASURING,
        help="an effect inside it is called same (default 1.5%)",
    )
    alternate: bool = option(
        False,
        group=MEASURING,
        help="start the engines of a pair one after the other, where memory does not hold both",
    )
    co_resident: bool = option(False, group=MEASURING, help="gone: the engines of a pair start together by default")
    blocks: int | None = option(None, kind=Kind.WHOLE, group=MEASURING, help="gone: --pairs")
    run: Options = nested(
        Options,
        *("model", "repeats", "require"),
        *COMMON,
        repeats={"default": 4, "help": "requests of each start that count, after one that does not (default 4)"},
        require={"help": REQUIRE},
    )
    resume: Path | None = option(
        None,
        kind=Kind.PATH,
        group=MEASURING,
        completes="cut_off",
        help="comparison that was cut off: go on with the pairs that are missing",
    )
    as_json: bool = option(False, name="json", group=OUTPUT, help="print the comparison as JSON on stdout")


@task(AbOptions, example='ab --model flux --candidate "source:../sglang"')
def ab(c: Context, options: AbOptions) -> None:
    """Measure two arms in pairs of engine starts until faster, slower or same is decided."""
    from dataclasses import replace

    from bench.compare import ab as comparing
    from bench.report import comparison as report
    from bench.report import text

    if options.co_resident:
        raise UsageError("--co-resident is gone: the engines of a pair start together by default", todo="leave it out")
    if options.blocks is not None:
        raise UsageError("--blocks is gone: arms are measured in pairs of engine starts", todo="--pairs N")
    messages = text.stderr()
    specs = {"baseline": options.baseline, "candidate": options.candidate}
    if options.resume is not None:
        result = comparing.resume(
            _cut_off(options.resume, options),
            specs,
            timeout_s=options.run.timeout_s,
            tell=lambda told: text.line(messages, told),
            require=options.run.require,
        )
    else:
        design = comparing.Design(metric=options.metric, alternate=options.alternate)
        if options.pairs is not None:
            design = replace(design, pairs=options.pairs)
        if options.margin is not None:
            design = replace(design, margin_percent=100 * options.margin)
        result = comparing.measure(
            replace(options.run, require=None),
            specs,
            design,
            tell=lambda told: text.line(messages, told),
            require=options.run.require,
        )
    if options.as_json:
        text.write_json(result.document)
    else:
        sides = (result.records[comparing.BASELINE], result.records[comparing.CANDIDATE])
        report.show_arms(result.document, sides, result.path, text.stdout())
    if result.error is not None:
        raise result.error
    _raise([{**result.document, "candidate": str(result.path)}])


def _cut_off(word: Path, options: AbOptions) -> Path:
    """Return the folder of the comparison that is resumed.

    Raises:
        UsageError: no comparison was cut off there, or another design is asked for.
    """
    from bench.record import campaign, names

    if options.pairs is not None or options.margin is not None or options.alternate or options.metric != "total":
        raise UsageError(
            "a comparison goes on as it began", todo="leave --pairs, --margin, --metric and --alternate out"
        )
    return names.resolve(word, (campaign.STATE,), options.run.output_dir)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareOptions:
    """What `invoke compare` takes."""

    files: tuple[Path, ...] = option(
        many=True,
        kind=Kind.PATH,
        completes="finished",
        help="runs (place, label, last, last~1, six digits) or perf dumps; the first is the baseline (one alone: the"
        " named one); or one ab's folder",
    )
    metric: str = option("total", help=METRIC)
    as_markdown: bool = option(False, name="markdown", group=OUTPUT, help="print Markdown source, for a pull request")
    require: str | None = option(None, group=FIDELITY, choices=REQUIRED, help=REQUIRE)
    as_json: bool = option(False, name="json", group=OUTPUT, help="print the comparisons as JSON on stdout")


@task(CompareOptions, example="compare runs/BASELINE runs/CANDIDATE")
def compare(c: Context, options: CompareOptions) -> None:
    """Compare records made earlier: invoke compare BASELINE CANDIDATE [CANDIDATE ...]."""
    from bench import paths
    from bench.compare import history, records
    from bench.fidelity import score
    from bench.record import names
    from bench.report import comparison as report
    from bench.report import text
    from bench.stats import comparison as statistics

    if len(options.files) == 1 and _is_of_arms(place := names.resolve(options.files[0], (*names.RECORDS, ARMS))):
        _show_arms(place, options)
        return
    files: Sequence[Path] = [names.resolve(file) for file in options.files]
    if len(files) == 1:
        files = [history.baseline_of(paths.runs(), files[0]), files[0]]
    baseline, *candidates = [records.read(path, options.metric) for path in files]
    documents: list[dict[str, Any]] = []
    for candidate in candidates:
        compared = statistics.to_document(records.compare(baseline, candidate))
        outputs = score.compared(records.outputs(baseline, candidate), compared["verdict"], options.require)
        sides = {"baseline": baseline.name, "candidate": candidate.name}
        documents.append({**sides, "comparison": compared, "quality": outputs})
        if not options.as_json:
            shown = _markdown(baseline, candidate, documents[-1])
            report.show_markdown(shown, text.stdout(), as_source=options.as_markdown)
    if options.as_json:
        text.write_json(documents)
    _raise(documents)


ARMS = "comparison.json"
"""What `invoke ab` leaves in its folder."""


def _is_of_arms(place: Path) -> bool:
    return (place / ARMS).is_file()


def _show_arms(place: Path, options: CompareOptions) -> None:
    """Show the comparison that `invoke ab` left in its folder, and end as it did.

    A threshold that is asked for now takes the place of the one that was required then.

    Raises:
        InvalidDocument: the folder's documents do not conform to their schemas.
        UsageError: it is of version 1, or was measured by another metric.
        ThresholdMissed: the candidate is slower.
        Inconclusive: the comparison did not decide.
    """
    from bench import schema
    from bench.compare import metric, records
    from bench.fidelity import score
    from bench.record import documents, store
    from bench.report import comparison as report
    from bench.report import text

    documents.validate(place)
    document = schema.read(place / ARMS)
    if document["schema_version"] == 1:
        raise UsageError("comparisons of version 1 are kept, not shown", where=place / ARMS, todo="`invoke ab` again")
    if options.metric not in (metric.DEFAULT, document["metric"]):
        raise UsageError(
            f"these arms were decided by {document['metric']}, not by {options.metric}",
            where=place / ARMS,
            todo=f"`invoke compare {place / 'baseline'} {place / 'candidate'} --metric {options.metric}`",
        )
    sides = (store.read(place / "baseline"), store.read(place / "candidate"))
    if options.require is not None:
        outputs = records.between((sides[0], place / "baseline"), (sides[1], place / "candidate"))
        document["quality"] = score.compared(outputs, document["comparison"]["verdict"], options.require)
    if options.as_json:
        text.write_json([document])
    else:
        report.show_arms(document, sides, place / ARMS, text.stdout(), as_source=options.as_markdown)
    _raise([{**document, "candidate": str(place / ARMS)}])


def _markdown(baseline: Side, candidate: Side, document: Mapping[str, Any]) -> str:
    from bench.report import comparison as report

    notes = [] if document["comparison"]["interval"] is not None else [report.ONE_SAMPLE]
    if baseline.is_dump:
        notes.append(report.UNKNOWN_SYNC)
    make = report.of_dumps if baseline.is_dump else report.of_records
    return make(baseline.document, candidate.document, document["comparison"], document["quality"], notes)


def _raise(documents: Sequence[Mapping[str, Any]]) -> None:
    """Raise what comparisons end with: a candidate that is slower, then one that misses its threshold, then doubt.

    Raises:
        ThresholdMissed: a candidate is slower, or its outputs are less similar to the baseline's than required.
        Inconclusive: one comparison does not decide, and none is slower.
    """
    from bench.fidelity import score

    for document in documents:
        if document["comparison"]["exit_code"] == ThresholdMissed.exit_code:
            raise ThresholdMissed(_said(document["comparison"]), where=document["candidate"])
    for document in documents:
        if (missed := score.gate(document["quality"], document["candidate"])) is not None:
            raise missed
    for document in documents:
        if document["comparison"]["exit_code"] == Inconclusive.exit_code:
            raise Inconclusive(_said(document["comparison"]), where=document["candidate"])


def _said(comparison: Mapping[str, Any]) -> str:
    return f"{comparison['verdict']}: {comparison['reason']}"


# --- a machine's own noise --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateOptions:
    """What `invoke calibrate` takes."""

    metric: str = option("total", help=METRIC)
    hosts: tuple[Path, ...] = option(
        (),
        kind=Kind.PATH,
        repeated=True,
        completes="finished",
        help="measure nothing: keep the spread between these records of several hosts or days; again for each record",
    )
    run: Options = nested(
        Options,
        *("model", "engine", "preset_file", "output_dir", "launches", "repeats"),
        launches={"default": 4, "least": 2, "help": "engine starts (default 4)"},
        repeats={"default": 3, "help": "requests of each (default 3)"},
    )


@task(CalibrateOptions, example="calibrate --model flux")
def calibrate(c: Context, options: CalibrateOptions) -> None:
    """Measure this machine's own noise, A against A, and say how many pairs a 1.5 % effect needs here."""
    from dataclasses import replace

    from bench.compare import calibration
    from bench.compare import metric as metrics
    from bench.report import comparison as report
    from bench.report import text
    from bench.verbs.bench import run_one

    if options.hosts:
        path, known = calibration.store_days(options.hosts, options.metric)
        report.show_days(known, text.stdout())
        text.line(text.stdout(), f"kept: {path}")
        return
    record = run_one(replace(options.run, stage_sync=metrics.named(options.metric).is_stage), as_json=False)
    path = calibration.store(record, options.metric)
    noise = calibration.noise(record, options.metric)
    assert noise is not None
    needed = {count: calibration.pairs_for(noise, count) for count in sorted({1, options.run.repeats})}
    report.show_noise(noise, needed, text.stdout())
    text.line(text.stdout(), f"kept: {path}")


# --- records over time ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineOptions:
    """What `invoke baseline.set` takes."""

    record: Path = option(kind=Kind.PATH, completes="finished", help="a run: place, label, last, last~1 or six digits")


@task(BaselineOptions, example="baseline.set runs/RUN")
def baseline_set(c: Context, options: BaselineOptions) -> None:
    """Make a record the baseline of its workload on its devices."""
    from bench import paths
    from bench.compare import history
    from bench.record import names
    from bench.report import text

    text.line(text.stdout(), f"baseline: {history.name_baseline(paths.runs(), names.resolve(options.record))}")


@task(example="baseline.show")
def baseline_show(c: Context) -> None:
    """Show the records that are baselines."""
    from bench import paths
    from bench.compare import history
    from bench.report import text

    named = history.baselines(paths.runs())
    for place in named.values():
        text.line(text.stdout(), place)
    if not named:
        text.line(text.stdout(), "no baseline is named; `invoke baseline.set RECORD` names one")


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryOptions:
    """What `invoke history` takes."""

    metric: str = option("total", help=METRIC)
    run: Options = nested(
        Options,
        *("model", "output_dir"),
        model={"help": "preset whose records are shown (default flux)"},
        output_dir={"help": "where run directories are (default runs/)"},
    )


@task(HistoryOptions, example="history --model flux")
def history(c: Context, options: HistoryOptions) -> None:
    """Show every record of a preset in order of time, with change points and engine versions."""
    from bench import paths
    from bench.compare import history as records
    from bench.compare import metric as metrics
    from bench.report import history as report
    from bench.report import text

    root = options.run.output_dir or paths.runs()
    metric = metrics.named(options.metric)
    points, faults = records.read(root, options.run.model, metric)
    for fault in faults:
        text.line(text.stderr(), f"left out: {fault}")
    if not points:
        raise UsageError(
            f"no complete record of {options.run.model} that counts and has a {metric.title}",
            where=root,
            todo="`invoke bench` makes one",
        )
    report.show(options.run.model, points, metric, text.stdout())
