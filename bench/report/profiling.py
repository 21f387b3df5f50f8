"""`invoke profile` and `invoke profile-diff` before a person's eyes: capture, analyse, write the reports, show them."""

from __future__ import annotations

import shlex
import shutil
from typing import TYPE_CHECKING

from rich.console import Console

from bench.errors import BenchError
from bench.profiling import analysis, capture, export
from bench.record import store
from bench.report import live, profile, profile_diff, profile_terminal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.run.options import Options

REPORT = "report"


def captured(options: Options, *, steps: int, all_stages: bool, nsys: bool, full: bool) -> None:
    """Capture a trace of a preset, analyse it and show the report.

    Raises:
        BenchError: the run does not count, or the trace cannot be read.
    """
    messages = Console(stderr=True, highlight=False)
    with live.Live(messages) as display:
        found = capture.capture(options, steps=steps, all_stages=all_stages, nsys=nsys, display=display)
    record = found.record
    context = analysis.Context(
        engine_version=record["engine"]["version"],
        quality=record["workload"]["quality"],
        unprofiled_step_ms=found.unprofiled_step_ms,
        about={"run": record["id"], "command": shlex.join(record["launches"][0]["command"]["argv"])},
    )
    _analyse(found.traces, context, found.path.parent / REPORT, full=full)
    messages.print(f"record: {found.path}", soft_wrap=True, markup=False)


def made_elsewhere(traces: Sequence[Path], version: str | None, output_dir: Path | None, *, full: bool) -> None:
    """Analyse traces made elsewhere (one run, one file for each rank) and show the report.

    Raises:
        UsageError: a file cannot be read, or is no trace; then no folder is left.
    """
    directory = store.new_run("profile", "trace", output_dir)
    try:
        _analyse(traces, analysis.Context(engine_version=version), directory / REPORT, full=full)
    except BenchError:
        shutil.rmtree(directory)
        raise


def _analyse(traces: Sequence[Path], context: analysis.Context, directory: Path, *, full: bool) -> None:
    directory.mkdir()
    document = analysis.analyse(list(traces), context, each=export.into(directory))
    profile.write(document, directory)
    console = Console()
    profile_terminal.render(document, console, full=full)
    console.print(f"report: {directory / 'report.html'}", soft_wrap=True, highlight=False, markup=False)


def diff(
    files: tuple[Path, Path],
    version: str | None,
    output_dir: Path | None,
    *,
    steps: tuple[str | None, str | None],
    force: bool,
) -> None:
    """Compare two traces or reports and show what differs.

    Raises:
        UsageError: they cannot be read, or are not comparable.
    """
    from bench.profiling.diff import diff as compute  # noqa: PLC0415 - a name beside ours
    from bench.profiling.load import load, pair  # noqa: PLC0415

    context = analysis.Context(engine_version=version)
    a, b = pair(load(files[0], context), load(files[1], context))
    found = compute(a, b, a_steps=_labels(steps[0]), b_steps=_labels(steps[1]), force=force)
    directory = store.new_run("profile-diff", "traces", output_dir)
    profile.write_diff(found, directory)
    console = Console()
    profile_diff.render(found, console)
    console.print(f"report: {directory / 'diff.md'}", soft_wrap=True, highlight=False, markup=False)


def _labels(text: str | None) -> list[str] | None:
    """Return step labels from "1,2,3", None for None."""
    return None if text is None else [part.strip() for part in text.split(",")]
