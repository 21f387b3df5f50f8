"""Write a profile report or diff to a folder: the document, which is the truth, and its Markdown and HTML forms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench import schema
from bench.catalog import qualities
from bench.errors import UsageError
from bench.report import page, run
from bench.report.figures import number
from bench.stats.comparison import limits

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.profiling.capture import Captured
    from bench.report.page import Page


def about(captured: Captured) -> dict[str, str]:
    """Return what the record of a capture adds to its traces: which run it was, and what proves it and its times."""
    record = captured.record
    verdict, workload = record["verdict"], record["workload"]
    size = f"{workload['width']}x{workload['height']}, " if workload["width"] else ""
    by_default = qualities.default(record["engine"]["version"])
    default = f"{by_default}, the engine's default" if by_default else "the engine's default"
    held = sum(proof["holds"] for proof in verdict["evidence"])
    proven = f"{verdict['outcome']}, {held} of {len(verdict['evidence'])} required pieces of evidence"
    step = "its step is not known"
    if captured.unprofiled is not None:
        step = f"{number(captured.unprofiled.step_ms, 'ms')} a denoise step"
    request = number(captured.request_ms, "ms")
    served, alone = {}, ""
    if record["schema"] == "load-record":
        profiled, alone = record["profiled"], " without load"
        served["served"] = (
            f"one request of a server; others in flight: {profiled['in_flight_when_sent']} when it was sent,"
            f" {profiled['in_flight_when_answered']} when it was answered"
        )
    return {
        "preset": record["preset"]["key"],
        "model": record["weights"]["model"],
        "workload": f"{size}{workload['steps'] or 'the default number of'} steps",
        "quality": workload["quality"] or default,
        "run": record["id"],
        "verdict of the run": f"{proven}; the profiler was on, so the traced request is not a timing",
        "without the profiler": f"{request} a request{alone}, median of {captured.requests}; {step}",
        **served,
        "instrument": run.instrument(record),
    }


def write(kind: str, document: Mapping[str, Any], view: Page, directory: Path) -> tuple[Path, ...]:
    """Write a ``profile-report`` or ``profile-diff`` as JSON, Markdown and HTML, and return their paths.

    Raises:
        InvalidDocument: the document violates the schema of its kind.
        UsageError: the folder is not there, a file is there already, or one cannot be written.
    """
    name = kind.removeprefix("profile-")
    paths = tuple(directory / f"{name}.{form}" for form in ("json", "md", "html"))
    schema.write(document, kind, paths[0])
    for path, text in zip(paths[1:], (page.markdown(view), page.html(view)), strict=True):
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise UsageError(
                f"cannot be written: {error.strerror}", where=path, todo="choose another folder"
            ) from error
    return paths


def tried(document: Mapping[str, Any]) -> str:
    """Return a sentence on an action that was tried: predicted against achieved, of a step and of a request."""
    predicted, achieved, interval = document["predicted"], document["achieved"], document["interval"]
    reach = "too few pairs for an interval"
    if interval is not None:
        reach = limits(interval["low"]["percent"], interval["high"]["percent"])
    return (
        f"tried {document['arm']}: predicted to save at most {predicted['saving_ms']:.2f} ms a step "
        f"({predicted['percent']:.2f} % of a request), achieved {achieved['saving_ms']:+.2f} ms "
        f"({achieved['percent']:+.2f} %; {reach}) in {document['pairs']} pair(s): {document['verdict']}"
    )
