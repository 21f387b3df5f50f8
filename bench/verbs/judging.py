"""Verbs that judge: logs, signals, documents."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path

from bench.errors import UsageError
from bench.task import Context, one_of, task
from bench.verbs.shared import ENGINE_HELP, place


@task(
    help={
        "log": "log of a run, gzip or not; - reads standard input",
        "dump": "perf dump of the same run",
        "expect": "native or diffusers (default native)",
        "engine-version": "version of the engine that wrote the log; without it all versions' signals judge",
        "json": "print the verdict as JSON on stdout",
        "self-test": "run known losses on the real engine instead, and show that each is caught",
        "engine": ENGINE_HELP + " (for --self-test)",
        "output-dir": "where the self-test makes its run directories (default runs/)",
    }
)
def attest(
    c: Context,
    log: str | None = None,
    dump: str | None = None,
    expect: str = "native",
    engine_version: str | None = None,
    json: bool = False,
    self_test: bool = False,
    engine: str | None = None,
    output_dir: str | None = None,
) -> None:
    """Judge a run that was made elsewhere by its log and perf dump, or test the judge itself."""
    from bench.report import attest as report

    if self_test:
        report.self_test(engine, place(output_dir))
        return
    if log is None:
        raise UsageError("--log is missing", todo="name the run's log (- for standard input), or --self-test")
    one_of(expect, "--expect", ("native", "diffusers"))
    report.judge(log, place(dump), expect, engine_version, as_json=json)


@task(
    help={
        "category": "only this category, e.g. component",
        "check-engine": "look every signal up in this built engine's source instead: signals must not rot",
        "json": "as JSON on stdout",
    }
)
def signals(c: Context, category: str | None = None, check_engine: str | None = None, json: bool = False) -> None:
    """List what the guard listens for, or check it against an engine's source."""
    from dataclasses import asdict

    from bench.catalog import signals as lines
    from bench.report import signals as report

    known = lines.signals()
    if category is not None:
        one_of(category, "--category", sorted({signal.category for signal in known}))
        known = tuple(signal for signal in known if signal.category == category)
    if check_engine is not None:
        report.check_engine(check_engine, known)
    elif json:
        print(jsonlib.dumps([asdict(signal) for signal in known], indent=2, ensure_ascii=False))
    else:
        report.show(known)


@task(help={"files": "perf dumps, run records, presets (TOML), or run directories"}, many="files")
def validate(c: Context, files: list[str]) -> None:
    """Check documents against their schemas: invoke validate FILE [FILE ...]."""
    from bench.record import documents

    for path in files:
        print(f"{path}: valid {documents.validate(Path(path))}")
