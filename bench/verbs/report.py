"""`invoke report`: what was measured, as pages for people and as text for programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.errors import UsageError
from bench.options import OUTPUT, Kind, nested, option
from bench.run.options import Options
from bench.task import Context, task
from bench.verbs.compare import METRIC_OF_ANY, made_by, metric_todo
from bench.verbs.sweep import PlaceOptions, found, measured, rows_of

if TYPE_CHECKING:
    from pathlib import Path

    from bench.report.page import Page
    from bench.sweep.folder import Folder


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
    sweep: Path | None = option(None, kind=Kind.PATH, help="a sweep: its folder, runs/sweep-NAME, or its NAME")
    metric: str = option("total", help=METRIC_OF_ANY)
    output: Path | None = option(
        None,
        kind=Kind.PATH,
        group=OUTPUT,
        help="the file to write (default: report.html in the run's folder; another form is printed)",
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
    """Write a run, an A/B, a load test, a sweep or a history as one HTML page that needs no network."""
    from bench import paths
    from bench.record import names
    from bench.report import pages

    ways = (bool(options.runs), options.model is not None, options.history, options.sweep is not None)
    if sum(ways) != 1:
        raise UsageError(
            "report takes runs, or --model, or --history, or --sweep: one of the four",
            todo="`invoke report last` writes the newest run's page",
        )
    if len(forms := _forms(options)) > 1:
        raise UsageError(f"{' and '.join(f'--{form}' for form in forms)} are two forms of one report", todo="name one")
    if (options.runs or options.sweep) and options.metric != ReportOptions(runs=()).metric:
        raise UsageError(
            "--metric chooses the series of a history; a run's page has all of its metrics, and a sweep's one",
            todo="leave it out",
        )
    root = options.run.output_dir or paths.runs()
    if options.sweep is not None:
        sweep = found(PlaceOptions(folder=options.sweep, run=options.run))
        put(swept(sweep), sweep.path / pages.PAGE, options)
        return
    if not options.runs:
        name = "history" if options.model is None else f"history-{options.model}"
        put(history(root, options.model, options.metric), root / f"{name}.html", options)
        return
    if len(options.runs) > 1 and (options.output is not None or forms):
        given = "--output" if options.output is not None else f"--{forms[0]}"
        raise UsageError(f"{given} takes one run", todo="leave it out: each page is written beside its record")
    for word in options.runs:
        place = names.resolve(word, pages.HOLDING, root)
        folder = place.parent if place.is_file() else place
        put(pages.of(place), folder / pages.PAGE, options)


def swept(folder: Folder) -> Page:
    """Return the page of a sweep as its folder tells it.

    Raises:
        UsageError: this is not the folder of a sweep.
        InvalidDocument: a document of it violates its schema.
    """
    from bench.report import sweep_page
    from bench.sweep import hosts

    cells = rows_of(folder)
    effects = hosts.effects(measured(cells))
    return sweep_page.page(folder.read(), cells, effects, hosts.told(effects))


def history(root: Path, model: str | None, metric_name: str) -> Page:
    """Return the page of one preset's records, or of every preset that has some.

    Raises:
        UsageError: there are none.
    """
    from bench.compare import history as records
    from bench.compare import metric
    from bench.report import history_page

    known = metric.named(metric_name)
    models = [model] if model is not None else records.presets_of(root, known)
    histories, faults = {}, []
    for name in models:
        points, broken = records.read(root, name, known)
        faults += broken
        if points:
            histories[name] = points
    if not histories:
        raise UsageError(
            f"no complete record{f' of {model}' if model else ''} that counts has the metric {metric_name}",
            where=root,
            todo=metric_todo(known) or made_by(known, model),
        )
    return history_page.page(histories, known, tuple(dict.fromkeys(faults)))


def _forms(options: ReportOptions) -> list[str]:
    """Return the forms that were asked for instead of a page."""
    asked = {
        "json": options.as_json,
        "markdown": options.as_markdown,
        "csv": options.as_csv,
        "openmetrics": options.as_openmetrics,
    }
    return [form for form, wanted in asked.items() if wanted]


def put(page: Page, path: Path, options: ReportOptions) -> None:
    """Write a page to ``path``, or print it in the form that was asked for; ``--output`` takes either.

    Raises:
        UsageError: it cannot be written.
    """
    import sys

    from bench import files
    from bench.report import page as forms
    from bench.report import text

    asked = _forms(options)
    if not asked:
        path = options.output or path
        forms.write(page, path)
        text.line(text.stdout(), f"page: {path}")
        return
    write = {
        "json": lambda page: text.json_of(page.documents),
        "markdown": forms.markdown,
        "csv": forms.comma_separated,
        "openmetrics": forms.openmetrics,
    }[asked[0]]
    if options.output is None:
        sys.stdout.write(write(page))
    else:
        files.write_text(options.output, write(page), replace=True)
        text.line(text.stderr(), f"{asked[0]}: {options.output}")
