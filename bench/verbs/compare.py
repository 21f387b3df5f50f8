"""The verbs that compare: two arms now, records made earlier, a machine with itself, a preset over time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import interrupts
from bench.errors import BenchError, Inconclusive, ThresholdMissed, UnknownName, UsageError
from bench.options import FIDELITY, MEASURING, OUTPUT, Kind, nested, option
from bench.run.options import COMMON, REQUIRED, Options
from bench.task import Context, task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.compare.ab import Design, Result
    from bench.compare.history import Point
    from bench.compare.metric import Metric
    from bench.compare.records import Side
    from bench.report.comparison import Told

ARM = "words: an engine's name, steps=N, compile, NAME=VALUE (variable), --flag (for the engine); '' changes nothing"
METRIC = "what is compared: total, denoise, wall, load, peak-memory, or the name of a stage (default total)"
METRIC_OF_ANY = f"{METRIC}; of load tests: service (default) or capacity"
MARKDOWN = "print Markdown source, for a pull request"
REQUIRE = "exit 7 unless the outputs are this similar to the baseline's"


@dataclass(frozen=True, slots=True, kw_only=True)
class AbOptions:
    """What `invoke ab` takes."""

    baseline: str = option("", completes="arms", help=f"first arm; {ARM}")
    candidate: str = option("", completes="arms", help="second arm, likewise")
    pairs: int | None = option(
        None,
        kind=Kind.WHOLE,
        help="pairs of engine starts at most (default 8); from the third on it stops when it is decided",
    )
    metric: str = option("total", help=METRIC)
    margin: float | None = option(
        None,
        kind=Kind.PERCENTAGE,
        group=MEASURING,
        help="an effect inside it is called same (default 1.5%, the smallest gain that SGLang lets one claim); a"
        " smaller margin takes more pairs",
    )
    alternate: bool = option(
        False,
        group=MEASURING,
        help="start the engines of a pair one after the other, if memory cannot hold both",
    )
    same: bool = option(False, group=MEASURING, help="measure an arm against itself: how noisy this machine is")
    dry_run: bool = option(False, help="print both arms' commands and how long it would take, run nothing")
    prove_ran: bool = option(
        False,
        group=MEASURING,
        help="trace which changed lines run, in a separate untimed launch (default: if an arm is a checkout)",
    )
    no_prove_ran: bool = option(False, group=MEASURING, help="do not trace which changed lines run")
    run: Options = nested(
        Options,
        *("model", "repeats", "require", "prove_kernels"),
        *COMMON,
        repeats={"default": 4, "help": "requests per engine start that count, after one that does not (default 4)"},
        require={"help": REQUIRE},
        prove_kernels={"help": "as --prove-ran, and compare both sides' kernels in an untimed launch of each"},
    )
    resume: Path | None = option(
        None,
        kind=Kind.PATH,
        group=MEASURING,
        completes="cut_off",
        help="continue a comparison that was cut off: measure its missing pairs",
    )
    as_html: bool = option(
        False, name="html", group=OUTPUT, help="write the comparison as one HTML page, and say where"
    )
    as_markdown: bool = option(False, name="markdown", group=OUTPUT, help=MARKDOWN)
    as_json: bool = option(
        False, name="json", group=OUTPUT, help="print the comparison, or of a dry run the commands, as JSON on stdout"
    )


@task(AbOptions, example='ab --model flux --candidate "source:../sglang"')
def ab(c: Context, options: AbOptions) -> None:
    """Measure two arms in pairs of engine starts until faster, slower or same is decided."""
    from dataclasses import replace
    from functools import partial

    from bench.compare import ab as comparing
    from bench.compare import arms
    from bench.compare import metric as metrics
    from bench.report import comparison as report
    from bench.report import live, text
    from bench.verbs.bench import show_commands

    _check_form(options)
    specs = {"baseline": options.baseline, "candidate": options.candidate}
    common = replace(options.run, require=None)
    messages = text.stderr()
    if options.resume is not None:
        result = _resumed(options, options.resume, specs)
    else:
        design = _design(options)
        asked = {name: arms.options_of(spec, common) for name, spec in specs.items()}
        check_arms(asked, same=options.same)
        for line in _other_meaning(*asked.values()):
            text.line(messages, f"note: {line}")
        if options.dry_run:
            shown = {name: replace(arm, launches=design.pairs) for name, arm in asked.items()}
            show_commands(shown, as_json=options.as_json)
            text.line(messages, _length(design, options))
            return
        alternate = design.alternate or options.metric == metrics.LOAD
        with live.Pairs(messages, pairs=design.pairs, requests=options.run.repeats, alternate=alternate) as display:
            # what is wrong comes before how long it takes
            length = partial(text.line, messages, _length(design, options))
            require = options.run.require
            result = comparing.measure(common, specs, design, display=display, require=require, begun=length)
    with interrupts.until_verdict():
        if options.as_json:
            text.write_json(result.document)
        else:
            sides = (result.records[comparing.BASELINE], result.records[comparing.CANDIDATE])
            report.show_arms(result.document, sides, result.path, text.stdout(), as_source=options.as_markdown)
    if options.as_html:
        _write_page(result.path.parent)
    if result.error is not None:
        raise result.error
    _raise([{**result.document, "candidate": str(result.path)}], as_json=options.as_json)


def _check_form(options: AbOptions | CompareOptions | HistoryOptions) -> None:
    """Raise UsageError if two forms are asked for on stdout."""
    if options.as_json and options.as_markdown:
        raise UsageError("--json and --markdown exclude each other: both go to stdout", todo="leave one out")


def _design(options: AbOptions) -> Design:
    """Return how the arms are measured.

    Raises:
        UsageError: so many pairs cannot decide, or the metric is not of an engine's requests.
    """
    from dataclasses import replace

    from bench.compare import ab as comparing

    wants = options.prove_ran or options.run.prove_kernels
    if wants and options.no_prove_ran:
        given = "--prove-ran" if options.prove_ran else "--prove-kernels"
        raise UsageError(f"{given} and --no-prove-ran exclude each other")
    prove_ran = True if wants else False if options.no_prove_ran else None
    design = comparing.Design(metric=options.metric, alternate=options.alternate, prove_ran=prove_ran)
    if options.pairs is not None:
        design = replace(design, pairs=options.pairs)
    if options.margin is not None:
        design = replace(design, margin_percent=100 * options.margin)
    comparing.check(design)
    return design


def _resumed(options: AbOptions, word: Path, specs: Mapping[str, str]) -> Result:
    """Measure the pairs that a comparison lacks which was cut off.

    Raises:
        UsageError: no comparison was cut off there, or another design or only a look is asked for.
        BenchError: as `bench.compare.ab.resume`.
    """
    from bench.compare import ab as comparing
    from bench.record import campaign, names
    from bench.report import live, text

    if options.dry_run:
        raise UsageError(
            "--resume takes its arms from the comparison: --dry-run cannot show them", todo="leave one out"
        )
    if options.pairs is not None or options.margin is not None or options.alternate or options.metric != "total":
        raise UsageError(
            "a resumed comparison keeps its design", todo="leave --pairs, --margin, --metric and --alternate out"
        )
    folder = names.cut_off(word, (campaign.STATE,), options.run.output_dir)
    asked = campaign.read(folder, comparing.KIND)["asked"]
    design, requests = asked["design"], asked["options"]["repeats"]
    with live.Pairs(text.stderr(), pairs=design["pairs"], requests=requests, alternate=design["alternate"]) as display:
        return comparing.resume(folder, specs, options.run, display=display)


def check_arms(asked: Mapping[str, Options], *, same: bool) -> None:
    """Raise UsageError for arms between which nothing can differ, unless that is what was asked for."""
    baseline, candidate = map(_meant, asked.values())
    if baseline == candidate and not same:
        raise UsageError(
            "both arms are the same, so nothing can differ",
            todo='change one, e.g. --candidate "steps=8"; --same measures how noisy this machine is',
        )
    if same and baseline != candidate:
        raise UsageError("--same measures an arm against itself, but these arms differ", todo="leave --same out")


def _meant(options: Options) -> object:
    """Return what an arm comes to, however it is said: its engine, its workload and its environment.

    What is said is returned where that cannot be told: its own error comes later, with the arm that it is of.
    """
    import os
    from dataclasses import replace

    from bench.engine import find
    from bench.run import plan

    try:
        workload = replace(plan.workload(options), environment={})
        return find.find(options.engine), workload, os.environ | dict(options.environment)
    except UsageError:
        return options


def _other_meaning(baseline: Options, candidate: Options) -> list[str]:
    """Return a line if the arms ask for the same quality of engines that take it differently, else none.

    Nothing is said of an engine that cannot be described: that is an error of its own, later.
    """
    from bench.catalog import qualities
    from bench.engine import find
    from bench.record import comparable
    from bench.run import plan

    try:
        versions = [find.find(options.engine).version for options in (baseline, candidate)]
        wanted = [plan.workload(options).quality for options in (baseline, candidate)]
    except UsageError:
        return []
    meanings = [qualities.meaning(*asked) for asked in zip(versions, wanted, strict=True)]
    if wanted[0] != wanted[1] or meanings[0] == meanings[1]:
        return []
    return [f"{comparable.changed_meaning(wanted[0], *versions)}: {meanings[0]} against {meanings[1]}"]


def _length(design: Design, options: AbOptions) -> str:
    """Return how many engine starts are planned and, where this machine has a run of the preset, how long they take."""
    from bench import paths
    from bench.catalog import presets
    from bench.compare import forecast
    from bench.compare import metric as metrics
    from bench.report.figures import duration
    from bench.stats import sequential

    known = presets.get(options.run.model, options.run.preset_file)
    past = forecast.past(options.run.output_dir or paths.runs(), known.sha256)
    told, end = planned(design.pairs, "engine starts")
    if past is None:
        return (
            f"{told}; how long a start takes is unknown: no run of {options.run.model} with --repeats was made here yet"
        )
    together = not (design.alternate or options.metric == metrics.LOAD)
    first = min(design.pairs, sequential.FIRST_LOOK)
    least, _ = past.seconds_of_pairs(first, options.run.repeats, together=together)
    _, most = past.seconds_of_pairs(design.pairs, options.run.repeats, together=together)
    likely = " to ".join(dict.fromkeys((duration(least), duration(most))))
    return f"{told}, about {likely} by run {past.run[-6:]}{end}"


def planned(pairs: int, starts: str) -> tuple[str, str]:
    """Return how many pairs and ``starts`` are measured, and that it may end earlier: nothing where it cannot."""
    from bench.stats import sequential

    told = f"{pairs} pair{'' if pairs == 1 else 's'}, {2 * pairs} {starts}"
    return (f"at most {told}", "; it stops as soon as it is decided") if pairs > sequential.FIRST_LOOK else (told, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareOptions:
    """What `invoke compare` takes."""

    files: tuple[Path, ...] = option(
        many=True,
        kind=Kind.PATH,
        completes="finished",
        help="runs or load tests (place, label, last, last~1, six digits) or perf dumps; the first is the baseline (one"
        " alone: the named one); or one ab's folder",
    )
    metric: str = option("total", help=METRIC_OF_ANY)
    as_markdown: bool = option(False, name="markdown", group=OUTPUT, help=MARKDOWN)
    as_html: bool = option(
        False, name="html", group=OUTPUT, help="write each comparison as one HTML page beside the candidate's record"
    )
    require: str | None = option(None, group=FIDELITY, choices=REQUIRED, help=REQUIRE)
    as_json: bool = option(False, name="json", group=OUTPUT, help="print the comparisons as JSON on stdout")


@task(CompareOptions, example="compare runs/BASELINE runs/CANDIDATE")
def compare(c: Context, options: CompareOptions) -> None:
    """Compare records made earlier: invoke compare BASELINE CANDIDATE [CANDIDATE ...]."""
    from bench import paths
    from bench.compare import history, records
    from bench.fidelity import score
    from bench.report import comparison as report
    from bench.report import next_step, text
    from bench.serving import records as loads
    from bench.stats import comparison as statistics

    _check_form(options)
    files = _named(options.files)
    if len(files) == 1 and _is_of_arms(files[0]):
        _show_arms(files[0], options)
        return
    if any(map(loads.is_load, files)) or (files[0] / SERVERS).is_file():
        _compare_loads(files, options)
        return
    if len(files) == 1:
        files = [history.baseline_of(paths.runs(), files[0]), files[0]]
    baseline, *candidates = [records.read(path, options.metric) for path in files]
    _note({side.name: side.note for side in (baseline, *candidates)})
    documents: list[dict[str, Any]] = []
    for candidate in candidates:
        compared = statistics.to_document(records.compare(baseline, candidate))
        outputs = score.compared(records.outputs(baseline, candidate), compared["verdict"], options.require)
        sides = {"baseline": baseline.name, "candidate": candidate.name}
        documents.append({**sides, "comparison": compared, "quality": outputs})
        if options.as_json:
            for line in records.circumstances(baseline, candidate):
                text.line(text.stderr(), line)
        else:
            told = _told(baseline, candidate, documents[-1], options.metric)
            with interrupts.until_verdict():
                report.show(told, text.stdout(), as_source=options.as_markdown)
                if not options.as_markdown and not baseline.is_dump:
                    places = (Path(baseline.name), baseline.document), (Path(candidate.name), candidate.document)
                    text.line(text.stdout(), f"next: {next_step.after_records(*places, compared)}")
        if options.as_html:
            _write_compared(baseline, candidate, documents[-1])
    if options.as_json:
        with interrupts.until_verdict():
            text.write_json(documents)
    _raise(documents, as_json=options.as_json)


ARMS, SERVERS = "comparison.json", "load-comparison.json"
"""What `invoke ab` leaves in its folder, and `invoke loadtest` of two servers."""


def _named(words: Sequence[Path]) -> list[Path]:
    """Return the places of what is compared.

    Of several words each `last` counts what can be compared with the first: load tests, or else runs; a first `last`
    is of what the newest is. Comparisons of two arms or servers are passed over.

    Raises:
        UsageError: nothing is called so.
    """
    from bench.record import names, store
    from bench.serving import records as loads

    sides = (*names.RECORDS, store.LOAD_RECORD)
    if len(words) == 1:
        place = names.resolve(words[0], (*sides, ARMS, SERVERS), passing=names.UNTIMED)
        return [place.parent if place.name in (ARMS, SERVERS) else place]

    def placed(word: Path, counted: Sequence[str]) -> Path:
        holding = counted if names.LAST.fullmatch(str(word)) else sides
        return names.resolve(word, holding, passing=names.UNTIMED | {"ab"})

    first = placed(Path("last") if names.LAST.fullmatch(str(words[0])) else words[0], sides)
    counted = (store.LOAD_RECORD,) if loads.is_load(first) else names.RECORDS
    return [placed(word, counted) for word in words]


def _compare_loads(files: Sequence[Path], options: CompareOptions) -> None:
    """Compare load tests, or show again what two servers under load came to.

    Raises:
        UsageError: they are not comparable, or something is asked for that load tests do not have.
        ThresholdMissed: a candidate is slower.
        Inconclusive: a comparison does not decide.
    """
    from bench.compare import records
    from bench.report import load_comparison as report
    from bench.report import next_step, text
    from bench.serving import records as loads
    from bench.stats import comparison as statistics

    if options.require is not None or options.as_html or options.as_markdown:
        raise UsageError(
            "load tests do not take --require, --html or --markdown",
            todo="leave them out; `invoke report` writes pages",
        )
    if len(files) == 1:
        _show_servers(files[0], options)
        return
    if not all(map(loads.is_load, files)):
        raise UsageError(
            "a load test cannot be compared with another kind of run", todo="name load tests only", where=files[0]
        )
    baseline, *candidates = [loads.read(path, options.metric) for path in files]
    _note({side.name: side.note for side in (baseline, *candidates)})
    documents: list[dict[str, Any]] = []
    for candidate in candidates:
        records.refuse_unlike(baseline, candidate)
        loads.refuse_unlike(baseline, candidate)
        compared = statistics.to_document(records.compare(baseline, candidate))
        sides = {"baseline": baseline.name, "candidate": candidate.name}
        documents.append({**sides, "comparison": compared, "quality": None})
        if not options.as_json:
            notes, shown = records.circumstances(baseline, candidate), (baseline.document, candidate.document)
            phases = loads.same_phases(*shown)
            with interrupts.until_verdict():
                report.show_records(documents[-1], shown, phases, notes, text.stdout())
                step = next_step.after_loads(shown[0], (Path(candidate.name), shown[1]), compared)
                text.line(text.stdout(), f"next: {step}")
    if options.as_json:
        with interrupts.until_verdict():
            text.write_json(documents)
    _raise(documents, as_json=options.as_json)


def _show_servers(folder: Path, options: CompareOptions) -> None:
    """Show again what two servers under load came to, and end as it did."""
    from bench.report import load_comparison as report
    from bench.report import text
    from bench.serving import servers_review

    if not (folder / SERVERS).is_file():
        raise UsageError("a load test has no named baseline", where=folder, todo="name two load tests")
    document = servers_review.read(folder)
    with interrupts.until_verdict():
        if options.as_json:
            text.write_json([document])
        else:
            report.show(document, folder / SERVERS, text.stdout(), f"invoke report {folder}")
    _raise([{**document, "candidate": str(folder / SERVERS), "quality": None}], as_json=options.as_json)


def _write_page(folder: Path) -> None:
    """Write the page of an A/B into its folder; where it is goes to stderr, which no program reads as the result."""
    from bench.report import page, pages, text

    path = folder / pages.PAGE
    page.write(pages.of(folder), path)
    text.line(text.stderr(), f"page: {path}")


def _write_compared(baseline: Side, candidate: Side, document: Mapping[str, Any]) -> None:
    """Write the page of two records beside the candidate's.

    Raises:
        UsageError: they are bare perf dumps.
    """
    from bench.compare import records
    from bench.report import comparison, comparison_page, page, text

    if baseline.directory is None or candidate.directory is None:
        raise UsageError("a perf dump alone has no page: it does not say where it was made", where=candidate.name)
    notes = [note for note in (baseline.note, candidate.note, *records.circumstances(baseline, candidate)) if note]
    sides, folders = (baseline.document, candidate.document), (baseline.directory, candidate.directory)
    first, second = (comparison.called(*side) for side in zip(sides, folders, strict=True))
    found = comparison_page.Compared(
        records=sides,
        arms=(first, second),
        heads=comparison.heads(sides, folders),
        launches=(baseline.launches, candidate.launches),
        directories=folders,
        comparison=document["comparison"],
        fidelity=document["quality"],
        notes=notes,
        metric=baseline.metric.name,
        unit=baseline.metric.unit,
        documents={"baseline/run.json": baseline.document, "candidate/run.json": candidate.document},
    )
    path = candidate.directory / f"against-{baseline.document['id'][-6:]}.html"
    page.write(comparison_page.page(found), path)
    text.line(text.stderr(), f"page: {path}")


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
    import shlex

    from bench.compare import metric, records
    from bench.fidelity import score
    from bench.record import documents
    from bench.report import comparison as report
    from bench.report import text

    document = documents.arms(place)
    if options.metric not in (metric.DEFAULT, document["metric"]):
        pair = (str(place / "baseline"), str(place / "candidate"))
        raise UsageError(
            f"these arms were compared by {document['metric']}, not by {options.metric}",
            where=place / ARMS,
            todo=f"`{shlex.join(['invoke', 'compare', *pair, '--metric', options.metric])}`",
        )
    arms = records.of_arms(document, place)
    _note({name: reviewed.note() for name, reviewed in zip(report.SIDES, arms, strict=True)})
    sides = (arms[0].record, arms[1].record)
    if options.require is not None:
        outputs = records.between((sides[0], place / "baseline"), (sides[1], place / "candidate"))
        document["quality"] = score.compared(outputs, document["comparison"]["verdict"], options.require)
    with interrupts.until_verdict():
        if options.as_json:
            text.write_json([document])
        else:
            report.show_arms(document, sides, place / ARMS, text.stdout(), as_source=options.as_markdown)
    if options.as_html:
        _write_page(place)
    _raise([{**document, "candidate": str(place / ARMS)}], as_json=options.as_json)


def _note(notes: Mapping[str, str | None]) -> None:
    """Say of each record what of its evidence is gone."""
    from bench.report import text

    for name, note in notes.items():
        if note is not None:
            text.line(text.stderr(), f"{name}: {note}")


def _told(baseline: Side, candidate: Side, document: Mapping[str, Any], metric: str) -> Told:
    """Return the comparison of two sides in words."""
    from bench.compare import calibration
    from bench.report import comparison as report

    sides, places = (baseline.document, candidate.document), (Path(baseline.name), Path(candidate.name))
    launches = baseline.launches, candidate.launches
    compared, outputs = document["comparison"], document["quality"]
    if baseline.is_dump:
        return report.of_dumps(sides, places, compared, outputs, launches)
    notes = [
        line
        for name, values in zip(report.SIDES, launches, strict=True)
        for line in report.two_levels(name, values, baseline.metric.unit)
    ]
    if compared["method"] == "calibrated":
        disturbed = calibration.disturbed(baseline.document, metric)
        notes += [f"the calibration was disturbed: {'; '.join(disturbed)}"] if disturbed else []
    return report.of_records(sides, compared, outputs, launches, report.heads(sides, places), notes)


def _raise(documents: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Raise what comparisons end with: a candidate that is slower, then one that misses its threshold, then doubt.

    Where the report on stdout and the error on stderr are read together, the verdict is not said again.

    Raises:
        ThresholdMissed: a candidate is slower, or its outputs are less similar to the baseline's than required.
        Inconclusive: one comparison does not decide, and none is slower.
    """
    from bench.fidelity import score
    from bench.report import text

    is_told = not as_json and text.is_one_stream()
    for document in documents:
        if document["comparison"]["exit_code"] == ThresholdMissed.exit_code:
            raise _ended(ThresholdMissed, document, is_told=is_told)
    for document in documents:
        gate = None if document["quality"] is None else score.gate(document["quality"], document["candidate"])
        if gate is not None:
            raise gate
    for document in documents:
        if document["comparison"]["exit_code"] == Inconclusive.exit_code:
            raise _ended(Inconclusive, document, is_told=is_told)


def _ended(kind: type[BenchError], document: Mapping[str, Any], *, is_told: bool) -> BenchError:
    """Return the error that a comparison ends with."""
    from bench.stats import comparison

    error = kind(comparison.in_words(document["comparison"]), where=document["candidate"])
    error.is_told = is_told
    return error


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
    list: bool = option(False, help="measure nothing: show what is kept")
    forget: str | None = option(None, help="measure nothing: drop what is kept under this key (--list shows it)")
    run: Options = nested(
        Options,
        *("model", "engine", "preset_file", "output_dir", "launches", "repeats"),
        launches={"default": 4, "least": 2, "help": "engine starts (default 4)"},
        repeats={"default": 3, "help": "requests of each that count, after one that does not (default 3)"},
    )


@task(CalibrateOptions, example="calibrate --model flux")
def calibrate(c: Context, options: CalibrateOptions) -> None:
    """Measure this machine's own noise, A against A, and say how many pairs a 1.5 % effect needs here."""
    from dataclasses import replace

    from bench.compare import calibration
    from bench.compare import metric as metrics
    from bench.record import names
    from bench.report import comparison as report
    from bench.report import next_step, text
    from bench.verbs.bench import run_one

    if options.list or options.forget is not None:
        shown = calibration.kept() if options.forget is None else calibration.forget(options.forget)
        report.show_kept(shown, text.stdout(), forgotten=options.forget is not None)
        return
    if options.hosts:
        path, known = calibration.store_days([names.resolve(word) for word in options.hosts], options.metric)
        report.show_days(known, text.stdout())
        text.line(text.stdout(), f"kept: {path}")
        return
    metric = metrics.of_engine(options.metric)
    record = run_one(replace(options.run, stage_sync=metric.is_stage), as_json=False)
    path = calibration.store(record, options.metric)
    noise = calibration.noise(record, options.metric)
    assert noise is not None
    needed = {count: calibration.pairs_for(noise, count) for count in sorted({1, options.run.repeats})}
    report.show_noise(noise, needed, text.stdout())
    if calibration.disturbed(record, options.metric):
        told = (
            "this machine was disturbed: the noise may be far too large. Calibrate again when it is quiet, or drop it:"
        )
        text.line(text.stdout(), f"{told} invoke calibrate --forget {path.stem[:6]}")
    text.line(text.stdout(), f"kept: {path}")
    text.line(text.stdout(), f"next: {next_step.after_calibration(options.run)}")


# --- records over time ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineOptions:
    """What `invoke baseline.set` and `baseline.unset` take."""

    record: Path = option(kind=Kind.PATH, completes="finished", help="a run: place, label, last, last~1 or six digits")


@task(BaselineOptions, example="baseline.set runs/RUN")
def baseline_set(c: Context, options: BaselineOptions) -> None:
    """Make a record the baseline of its workload on its devices."""
    from bench import paths
    from bench.compare import history
    from bench.record import names
    from bench.report import text
    from bench.run import evidence

    place = names.resolve(options.record, passing=names.UNTIMED)
    _note({str(place): evidence.read(place).note()})
    named, before = history.name_baseline(paths.runs(), place)
    text.line(text.stdout(), f"baseline: {named}{'' if before is None else f', instead of {before}'}")


@task(BaselineOptions, example="baseline.unset runs/RUN")
def baseline_unset(c: Context, options: BaselineOptions) -> None:
    """Take the name of baseline from a record, which stays as it is."""
    from bench import paths
    from bench.compare import history
    from bench.report import text

    text.line(text.stdout(), f"no longer a baseline: {history.unname_baseline(paths.runs(), options.record)}")


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

    metric: str = option("total", help=METRIC_OF_ANY)
    plot: bool = option(False, group=OUTPUT, help="write the trend as one HTML page too, and say where")
    label: str | None = option(None, help="only runs with this label")
    since: str | None = option(None, help="only runs from this day on, e.g. 2026-11-24")
    version: str | None = option(None, help="only runs of this version of the engine, e.g. 0.5.23")
    as_markdown: bool = option(False, name="markdown", group=OUTPUT, help=MARKDOWN)
    as_json: bool = option(False, name="json", group=OUTPUT, help="print the points as a JSON list on stdout")
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
    from bench.report import history_page, next_step, page, text

    _check_form(options)
    root = options.run.output_dir or paths.runs()
    metric = metrics.named(options.metric)
    if options.since is not None and not _is_day(options.since):
        raise UsageError(
            f"--since takes a day such as 2026-11-24, not {options.since!r}", todo="write year, month and day"
        )
    found, faults = records.read(root, options.run.model, metric)
    for fault in faults:
        text.line(text.stderr(), f"left out: {fault}")
    points = [point for point in found if _is_wanted(point, options)]
    if not points and not options.as_json:
        raise _without_points(root, found, options, metric)
    if options.as_json:
        text.write_json([{**asdict(point), "path": str(point.path), "unit": metric.unit} for point in points])
    elif options.as_markdown:
        text.write(page.markdown(history_page.page({options.run.model: points}, metric, tuple(faults))).rstrip())
    else:
        report.show(options.run.model, points, metric, text.stdout())
        text.line(text.stdout(), f"next: {next_step.after_history(options.run)}")
    if options.plot:
        path = root / f"history-{options.run.model}.html"
        page.write(history_page.page({options.run.model: points}, metric, tuple(faults)), path)
        text.line(text.stderr(), f"page: {path}")


def _without_points(root: Path, found: Sequence[Point], options: HistoryOptions, metric: Metric) -> UsageError:
    """Return the error for a history without a point: what was asked for leaves none of ``found``, or none is there."""
    from bench.catalog import presets
    from bench.compare import history as records

    model = options.run.model
    if found:
        return UsageError(
            f"the only record of {model} has another label, version or day"
            if len(found) == 1
            else f"none of the {len(found)} records of {model} has this label, version or day",
            where=root,
            todo="leave --label, --version and --since out to see them",
        )
    if model not in presets.built_in():
        return UnknownName("model", model, presets.built_in(), lister="invoke models")
    others = [key for key in records.presets_of(root, metric) if key != model]
    listed = (
        f"`invoke history --model {others[0]}`; there are records of {', '.join(others)}"
        if others
        else made_by(metric, model)
    )
    return UsageError(
        f"no complete record of {model} that counts has the metric {metric.name}",
        where=root,
        todo=metric_todo(metric) or listed,
    )


def made_by(metric: Metric, model: str | None) -> str:
    """Return in words which command makes a record of a preset that has the metric."""
    named = "" if model is None else f" --model {model}"
    return f"`invoke {'loadtest' if metric.is_served else 'bench'}{named}` makes one"


def metric_todo(metric: Metric) -> str | None:
    """Return which metrics there are, the closest first, for one that no record has; None for a known one."""
    from bench import mistakes
    from bench.compare import metric as metrics

    if not metric.is_stage:
        return None
    close = mistakes.closest(metric.name, metrics.TITLES)
    known = f"--metric takes {', '.join(metrics.TITLES)}, or a stage of runs with --stages"
    return f"did you mean --metric {close}? {known}" if close else known


def _is_day(word: str) -> bool:
    try:
        return date.fromisoformat(word).isoformat() == word
    except ValueError:
        return False


def _is_wanted(point: Point, options: HistoryOptions) -> bool:
    return (
        options.label in (None, point.label)
        and (options.since is None or point.started >= options.since)
        and options.version in (None, point.engine.partition(" ")[0])
    )
