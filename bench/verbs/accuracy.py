"""`invoke accuracy`: is the engine still right?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench.accuracy.options import Options
from bench.errors import BenchError, UsageError
from bench.options import OUTPUT, Kind, nested, option
from bench.task import Context, task

if TYPE_CHECKING:
    from bench.run.benchmark import Result

SUITES = {"upstream-component": "the engine's own component tests"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyOptions:
    """What `invoke accuracy` takes."""

    models: tuple[str, ...] = option(
        (),
        name="model",
        kind=Kind.NAMES,
        completes="presets",
        help="preset to check, or several with commas (default: the tiny one of every family)",
    )
    run: Options = nested(
        Options,
        model=None,
        model_path={"help": "checkpoint folder that both sides load instead of the preset's"},
        label={"help": "a word for the run directory's name and the report"},
    )
    suite: str | None = option(
        None,
        choices=SUITES,
        help="run the engine's own component tests instead (needs a GPU and its models)",
    )
    as_json: bool = option(False, name="json", group=OUTPUT, help="print the reports as a JSON list on stdout")


@task(AccuracyOptions, example="accuracy --model flux-tiny --check component,trajectory")
def accuracy(c: Context, options: AccuracyOptions) -> None:
    """Compare the native engine with diffusers and with its own golden; negative controls prove each gate."""
    from bench.catalog import families
    from bench.report import text

    if options.suite is not None:
        from bench.upstream import suite as upstream

        upstream.run(options.suite, options.run.engine)
        return
    models = options.models or tuple(family.tiny for family in families.families())
    reports, errors = [], []
    for model in models:
        try:
            place = f"model {models.index(model) + 1}/{len(models)}, " if len(models) > 1 else ""
            result = _check(replace(options.run, model=model), place, as_json=options.as_json)
        except BenchError as error:
            if len(models) == 1 or error.exit_code == UsageError.exit_code:
                raise
            text.line(text.stderr(), f"{model}: {error}")
            errors.append(error)
            continue
        reports.append(result.record)
        if result.error is not None:
            errors.append(result.error)
    if options.as_json:
        text.write_json(reports)
    elif len(models) > 1:
        passed = sum(report["outcome"] == "passed" for report in reports)
        text.line(text.stdout(), f"{passed} of {len(models)} models passed")
    if errors:
        raise errors[0]


def _check(options: Options, place: str, *, as_json: bool) -> Result:
    """Run one model's checks and show the report; its error, if any, is in the result.

    ``place`` says which of several models it is.
    """
    from bench.accuracy import plan, run
    from bench.record import store
    from bench.report import accuracy as report
    from bench.report import accuracy_page, live, next_step, text

    messages = text.stderr()
    planned = plan.plan(options)
    if planned.made_checkpoint is not None:
        text.line(messages, f"made a synthetic checkpoint: {planned.made_checkpoint}")
    needs_reference = plan.needs_reference(options)
    sides = "diffusers, then the engine" if needs_reference else "the engine"
    text.line(messages, f"{place}{options.model}: running {sides}")
    first = "running diffusers" if needs_reference else live.BEGINNING
    with live.Cases(messages, of=plan.case_count(planned), first=first) as display:
        result = run.run(planned, display)
    folder = result.path.parent
    arrays = (folder / run.NATIVE / "native.npz", folder / run.REFERENCE / "reference.npz")
    page = accuracy_page.write(result.record, folder, arrays)
    if not as_json:
        report.show(result.record, text.stdout())
        step = next_step.after_accuracy(result.record, options, folder / store.LOG)
        for name, told in (("next", step), ("page", page), ("report", result.path)):
            text.line(text.stdout(), f"{name}: {told}")
    return result
