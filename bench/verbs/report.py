"""`invoke report`: what was measured, as pages for people and as text for programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.errors import UsageError
from bench.options import OUTPUT, Kind, nested, option
from bench.run.options import Options
from bench.task import Context, task
from bench.verbs.compare import METRIC

if TYPE_CHECKING:
    from pathlib import Path

    from bench.report.page import Page


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """What `invoke report` takes."""

    runs: tuple[Path, ...] = option(
        many=True,
        optional=True,
        kind=Kind.PATH,
        completes="finished",
        help="runs (place, label, last, last~1, six digits): benchmarks, A/Bs, load tests, profiles, accuracy reports",
    )
    model: str | None = option(None, completes="presets", help="the history of this preset")
    history: bool = option(False, help="the history of every preset that has records")
    metric: str = option("total", help=METRIC)
    output: Path | None = option(
        None, kind=Kind.PATH, group=OUTPUT, help="the file to write (default: report.html in the run's folder)"
    )
    as_markdown: bool = option(False, name="markdown", group=OUTPUT, help="print Markdown instead of writing a page")
    as_csv: bool = option(False, name="csv", group=OUTPUT, help="print the values behind the page as CSV")
    as_openmetrics: bool = option(
        False, name="openmetrics", group=OUTPUT, help="print the figures as OpenMetrics text, for a dashboard"
    )
    as_json: bool = option(False, name="json", group=OUTPUT, help="print the documents behind the page as JSON")
    run: Options = nested(Options, "output_dir", output_dir={"help": "where run directories are (default runs/)"})


@task(ReportOptions, example="report last")
def report(c: Context, options: ReportOptions) -> None:
    """Write a run, an A/B, a load test or a history as one HTML page that needs no network."""
    from bench import paths
    from bench.record import names
    from bench.report import pages

    ways = (bool(options.runs), options.model is not None, options.history)
    if sum(ways) != 1:
        raise UsageError("runs, --model and --history exclude each other, and one is needed", todo="invoke report last")
    root = options.run.output_dir or paths.runs()
    if not options.runs:
        name = "history" if options.model is None else f"history-{options.model}"
        put(history(root, options.model, options.metric), root / f"{name}.html", options)
        return
    if options.output is not None and len(options.runs) > 1:
        raise UsageError("--output takes one run", todo="leave it out: each page is written beside its record")
    for word in options.runs:
        place = names.resolve(word, pages.HOLDING, root)
        folder = place if place.is_dir() else place.parent
        put(pages.of(folder), folder / pages.PAGE, options)


def history(root: Path, model: str | None, metric_name: str) -> Page:
    """Return the page of one preset's records, or of every preset that has some.

    Raises:
        UsageError: there are none.
    """
    from bench.compare import history as records
    from bench.compare import metric
    from bench.report import history_page

    known = metric.named(metric_name)
    models = [model] if model is not None else records.presets_of(root)
    histories, faults = {}, []
    for name in models:
        points, broken = records.read(root, name, known)
        faults += broken
        if points:
            histories[name] = points
    if not histories:
        raise UsageError(
            f"no complete record{f' of {model}' if model else ''} that counts and has a {known.title}",
            where=root,
            todo="`invoke bench` makes one",
        )
    return history_page.page(histories, known, tuple(dict.fromkeys(faults)))


def put(page: Page, path: Path, options: ReportOptions) -> None:
    """Print a page in the form that was asked for, or write it to ``path``."""
    import sys

    from bench.report import page as forms
    from bench.report import text

    if options.as_json:
        text.write_json(page.documents)
    elif options.as_markdown:
        sys.stdout.write(forms.markdown(page))
    elif options.as_csv:
        sys.stdout.write(forms.comma_separated(page))
    elif options.as_openmetrics:
        sys.stdout.write(forms.openmetrics(page))
    else:
        path = options.output or path
        forms.write(page, path)
        text.line(text.stdout(), f"page: {path}")
