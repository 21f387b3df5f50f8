"""The verbs that judge: logs, signals, documents."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import interrupts
from bench.errors import (
    BY_EXIT_CODE,
    BenchError,
    EvidenceMissing,
    FallbackDetected,
    Interrupted,
    ThresholdMissed,
    UsageError,
    worst,
)
from bench.options import OUTPUT, Kind, nested, option
from bench.run.options import Options
from bench.task import Context, task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.catalog.signals import Signal

SELF_TEST_PRESET = "flux-tiny"
NATIVE = "native"
EXPECTATIONS = {NATIVE: "the native backend (default)", "diffusers": "a run that was meant to be diffusers"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestOptions:
    """What `invoke attest` takes."""

    runs: tuple[Path, ...] = option(
        many=True,
        optional=True,
        kind=Kind.PATH,
        completes="finished",
        help="runs, A/Bs, load tests (place, label, last, six digits) or pages of `invoke report` to judge again",
    )
    log: str | None = option(None, help="log of a run, gzip or not; - reads standard input")
    dump: Path | None = option(None, kind=Kind.PATH, help="perf dump of the same run")
    expect: str | None = option(None, choices=EXPECTATIONS, help="backend that the run was meant for (default native)")
    engine_version: str | None = option(
        None, help="version of the engine that wrote the log; without it all versions' signals judge"
    )
    as_json: bool = option(False, name="json", group=OUTPUT, help="print the verdict as JSON on stdout")
    self_test: bool = option(False, help="run known faults on the real engine instead, and show that each is caught")
    run: Options = nested(
        Options,
        *("engine", "output_dir"),
        output_dir={"help": "where the self-test makes its run directories (default runs/)"},
    )


@task(AttestOptions, example="attest --log engine.log --dump perf.json")
def attest(c: Context, options: AttestOptions) -> None:
    """Judge again a run, a page, or a log and perf dump from elsewhere; or test the judge itself."""
    alone = options.log is None and options.dump is None
    if options.self_test:
        if options.runs or not alone:
            raise UsageError("--self-test takes no run, log or dump", todo="leave them out")
        _self_test(options)
    elif options.runs:
        if not alone or options.as_json or options.expect is not None or options.engine_version is not None:
            raise UsageError(
                "a run or a page holds its own logs and dumps, its engine and what it was meant for",
                todo="leave --log, --dump, --json, --expect and --engine-version out",
            )
        _judge_each(options.runs)
    elif options.log is None:
        raise _without_log(options.dump)
    else:
        _judge(options.log, options)


def _without_log(dump: Path | None) -> UsageError:
    """Return the error for a judgement that has no log."""
    if dump is None:
        return UsageError(
            "nothing to judge was named", todo="--log FILE (- for standard input), a run such as last, or --self-test"
        )
    if not dump.exists():
        return UsageError("no such perf dump", where=dump, todo="name one that exists, and its run's log: --log FILE")
    return UsageError(
        "a perf dump alone is not judged: which backend ran is in the log",
        where=dump,
        todo="add --log FILE, the log of the same run; `invoke validate FILE` checks a dump by itself",
    )


def _judge(log: str, options: AttestOptions) -> None:
    """Show the verdict on a log and its dump.

    Raises:
        BenchError: the run does not count, with the exit code that a run of the workbench would have had.
    """
    from rich.console import Group

    from bench import redact, schema
    from bench.fallback import attest as judge
    from bench.report import text
    from bench.report import verdict as report
    from bench.run import evidence

    _check_version(options.engine_version)
    for path in (None if log == judge.STDIN else Path(log), options.dump):
        if path is not None and path.is_file():
            evidence.refuse_changed(path)
    verdict = judge.attest(log, dump=options.dump, expect=options.expect or NATIVE, version=options.engine_version)
    document = redact.document(verdict.document())
    schema.check(document, "verdict", log)
    seen = any(proof["seen"] for proof in document["evidence"])
    is_foreign = options.dump is None and not seen and all(row["line"] is None for row in document["findings"])
    with interrupts.until_verdict():
        if options.as_json:
            text.write_json(document)
        elif not is_foreign:
            text.stdout().print(Group(*report.parts(document, everything=True)))
    if is_foreign:
        raise EvidenceMissing(
            "the guard knows no line of this log: it is not from SGLang Diffusion, or not at log level info",
            where=log,
            todo="name the file that the engine's output went to",
        )
    if not verdict.counts:
        kind = type(verdict.error(log) or FallbackDetected(""))
        raise kind(f"{verdict.reasons()[0].id}: this run does not count", where=log)


def _judge_each(words: Sequence[Path]) -> None:
    """Judge runs, or what pages of `invoke report` hold, by their own logs and perf dumps, and show what came of it.

    Raises:
        UsageError: one is neither.
        RecordEdited: records and evidence disagree.
        BenchError: one does not count, with the exit code that it ended with; a fallback goes before others.
    """
    import tempfile

    from bench.record import names
    from bench.report import page, text

    console = text.stdout()
    ended: list[BenchError] = []
    for word in words:
        if word.is_file() and word.suffix != ".json":
            with tempfile.TemporaryDirectory() as folder:
                page.unpack(word, Path(folder))
                lines, document = _review(Path(folder), of_page=True)
            called = str(word)
        else:
            place = _record_folder(word)
            lines, document = _review(place)
            called = f"{word} ({place.name[-6:]})" if names.LAST.fullmatch(str(word)) else str(word)
        error = _end(document)
        if error is not None:
            lines[-1] += f"; {error.what}"
            ended.append(error)
        with interrupts.until_verdict():
            for line in lines:
                text.line(console, f"{called}: {line}")
    if ended:
        decisive = worst(error.exit_code for error in ended)("")
        decisive.is_told = True
        raise decisive


def _record_folder(word: Path) -> Path:
    """Return the folder of the run that a word names, or whose record it names.

    Raises:
        UsageError: no run is called so, or it is another file than a record.
    """
    from bench.compare import ab as arms
    from bench.record import names, store
    from bench.serving import ab

    holding = (*names.RECORDS, arms.DOCUMENT, ab.DOCUMENT, store.LOAD_RECORD)
    place = names.resolve(word, holding)
    if not place.exists():
        raise UsageError("no such file or folder", where=place, todo=f"name a page, or a run: {names.KNOWN}")
    if place.is_dir():
        return place
    if place.name not in holding:
        raise UsageError(
            f"this file is not a record: a record is called {', '.join(holding)}",
            where=place,
            todo="name the run's folder; of a log and a perf dump: `invoke attest --log LOG --dump DUMP`",
        )
    return place.parent


def _review(folder: Path, *, of_page: bool = False) -> tuple[list[str], Mapping[str, Any]]:
    """Judge again what a folder says was measured; return what was judged, one line each, and the document it is in.

    Raises:
        RecordEdited: something in the folder was edited.
        InvalidDocument: a document does not conform to its schema.
        UsageError: the folder holds nothing that can be judged.
    """
    from bench import schema
    from bench.compare import ab as arms
    from bench.compare import review
    from bench.record import store
    from bench.serving import ab, servers_review
    from bench.serving import review as loads

    if (folder / ab.DOCUMENT).is_file():
        document = servers_review.read(folder)
        return [f"two servers: {document['comparison']['verdict']}, {len(document['pairs'])} pairs"], document
    if (folder / store.LOAD_RECORD).is_file():
        reviewed = loads.read(folder)
        verdict = reviewed.record["verdict"]
        note = reviewed.note()
        told = "unattested" if verdict is None else verdict["outcome"]
        return [f"load test: {told}{'' if note is None else f'; {note}'}"], reviewed.record
    lines = review.folder(folder, of_page=of_page)
    of_arms = folder / arms.DOCUMENT
    return lines, schema.read(of_arms) if of_arms.is_file() else store.read(folder)


def _end(document: Mapping[str, Any]) -> BenchError | None:
    """Return what a run, a load test or a comparison ended with, None if it counts and is whole.

    The arms of a comparison count, or there would be none.
    """
    from bench.fallback.verdict import Verdict
    from bench.serving import checks

    if (verdict := document.get("verdict")) is not None:
        error = Verdict.from_document(verdict).error("")
        if error is not None:
            return error
    if (failure := document["failure"]) is not None:
        return BY_EXIT_CODE.get(failure["exit_code"], BenchError)(f"cut off: {failure['what']}")
    error = checks.error([checks.Row(**row) for row in document.get("checks", ())], "")
    if error is None and not document["complete"]:
        return Interrupted("cut off, or still running")
    return error


def _check_version(version: str | None) -> None:
    """Raise UsageError for what is not a version: the signals of such a version would be all or none."""
    from packaging.version import InvalidVersion, Version

    try:
        Version(version or "0")
    except InvalidVersion as error:
        raise UsageError(
            f"--engine-version takes a version such as 0.5.23, not {version!r}", todo="leave it out if it is unknown"
        ) from error


def _self_test(options: AttestOptions) -> None:
    """Run the faults on the real engine and show how each ended.

    Raises:
        FallbackDetected: one was not caught, or the clean run was not let through.
    """
    from dataclasses import replace

    from bench.report import attest as report
    from bench.report import live, text
    from bench.run import selftest
    from bench.verbs.bench import titled

    console = text.stdout()
    asked = replace(options.run, model=SELF_TEST_PRESET)
    results = selftest.run(
        asked,
        lambda caught: console.print(report.self_test_line(caught)),
        titled(text.stderr(), live.Series("fault", 0), asked),
    )
    wrong = [caught for caught in results if not caught.right]
    if wrong:
        raise FallbackDetected(
            f"the guard did not catch: {', '.join(result.fault.name for result in wrong)}",
            where=", ".join(str(caught.record) for caught in wrong),
            todo="read the log there, and mend bench/catalog/signals or evidence.toml",
        )
    text.line(console, f"{len(results)} of {len(results)} as expected")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalsOptions:
    """What `invoke signals` takes."""

    category: str | None = option(None, completes="categories", help="only this category, e.g. component")
    check_engine: str | None = option(
        None,
        completes="built_engines",
        help="look every signal up in this built engine's source instead: signals must not rot",
    )
    as_json: bool = option(False, name="json", group=OUTPUT, help="print the signals as JSON on stdout")


@task(SignalsOptions, example="signals --category component")
def signals(c: Context, options: SignalsOptions) -> None:
    """List what the guard listens for, or check it against an engine's source."""
    from dataclasses import asdict

    from bench.catalog import signals as lines
    from bench.errors import UnknownName
    from bench.report import signals as report
    from bench.report import text

    known = lines.signals()
    if options.category is not None:
        if options.category not in (categories := {signal.category for signal in known}):
            raise UnknownName("category of signals", options.category, categories)
        known = tuple(signal for signal in known if signal.category == options.category)
    if options.check_engine is not None:
        if options.category is not None:
            raise UsageError("--check-engine looks up every signal", todo="leave --category out")
        _check_engine(options.check_engine, known)
    elif options.as_json:
        text.write_json([asdict(signal) for signal in known])
    else:
        report.show(known, text.stdout())


def _check_engine(spec: str, known: Sequence[Signal]) -> None:
    """Look signals up in an engine's source and show what is wrong.

    Raises:
        ThresholdMissed: a signal has lost its emitter, or a message about a degradation has neither signal nor triage.
    """
    from bench.engine import find, interpreter
    from bench.report import signals as report
    from bench.report import text
    from bench.upstream import emitters

    engine = find.find(spec)
    checked = emitters.check(interpreter.package(engine), known, version=engine.version)
    report.show_emitters(engine.name, checked, text.stdout())
    if checked.gone or checked.unheard:
        raise ThresholdMissed(
            f"{len(checked.gone)} signals without an emitter, {len(checked.unheard)} messages without a signal",
            todo="mend the pattern in bench/catalog/signals/, add a signal, or triage it in bench/catalog/triage.toml",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidateOptions:
    """What `invoke validate` takes."""

    files: tuple[Path, ...] = option(
        many=True,
        kind=Kind.PATH,
        completes="finished",
        help="perf dumps, run records, presets (TOML), or run directories",
    )


@task(ValidateOptions, example="validate runs/RUN/run.json")
def validate(c: Context, options: ValidateOptions) -> None:
    """Check documents against their schemas, and records against their evidence: invoke validate FILE [FILE ...]."""
    from bench.report import text

    ended: list[BenchError] = []
    for word in options.files:
        try:
            _validate(word)
        except BenchError as error:
            if len(options.files) == 1:
                raise
            text.line(text.stderr(), f"{word}: {error}")
            ended.append(error)
    if ended:
        kind = worst(error.exit_code for error in ended)
        are = "is" if len(ended) == 1 else "are"
        raise kind(f"{len(ended)} of {len(options.files)} {are} not valid", todo="see above why")


def _validate(word: Path) -> None:
    """Check what a word names, and print what it is.

    Raises:
        BenchError: it is not valid, or nothing is called so.
    """
    from bench import schema
    from bench.compare import ab
    from bench.record import documents, names, store
    from bench.report import text
    from bench.run import evidence

    path = names.resolve(word, (*names.RECORDS, *documents.IN_DIRECTORIES, store.ANALYSIS))
    kind = documents.validate(path)
    note = evidence.read(path).note() if kind == "run-record" else None
    if kind == "ab-record" and path.is_dir() and schema.read(path / ab.DOCUMENT)["schema_version"] != 1:
        _review(path)
    if kind in ("load-record", "load-comparison"):
        _review(path if path.is_dir() else path.parent)
    text.write(f"{path}: valid {kind}{'' if note is None else f'; {note}'}")
