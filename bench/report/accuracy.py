"""An accuracy report on the terminal: outcome, components, steps, and by how much each control was rejected."""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from bench.accuracy import plan, run
from bench.accuracy.controls import PERTURBATIONS
from bench.errors import BenchError, UsageError
from bench.report import accuracy_page, quality, verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import RenderableType

    from bench.accuracy.options import Options
    from bench.accuracy.run import Result

CASE = re.compile(r"^accuracy case: (.+)$", re.MULTILINE)
SHOWN_CHARACTERS = 32
NEAR = 100
PERTURBED = {
    "perturb": "one tensor",
    "perturb_slightly": "one tensor",
    "attention_out": "one attention's output",
    "embedder": "the embedder",
}
"""A changed weight in words; its whole name is in the report."""

STYLES = {"passed": "bold green", "failed": "bold red", "void": "bold yellow"}


class _Cases:
    """Tells of each case of the native program as it ends: the observer of its log."""

    def __init__(self, console: Console, start: float) -> None:
        self._console = console
        self._start = start

    def observe(self, block: bytes, first_line: int) -> None:  # noqa: ARG002 - the observer's interface
        """Take a block of whole lines."""
        for case in CASE.findall(block.decode("utf-8", "replace")):
            elapsed = time.monotonic() - self._start
            self._console.print(f"[{elapsed:6.1f} s] done: {case}", markup=False, highlight=False)


def run_and_show(options: Options, models: Sequence[str], *, as_json: bool) -> None:
    """Run each model's checks and print each report; with ``as_json`` stdout holds only a JSON list of them.

    Raises:
        BenchError: a run did not pass (its report is written and shown first); of several the first such error.
    """
    reports, errors = [], []
    for model in models:
        try:
            result = _one(replace(options, model=model), as_json=as_json)
        except BenchError as error:
            if len(models) == 1 or error.exit_code == UsageError.exit_code:
                raise
            Console(stderr=True).print(f"{model}: {error}", markup=False, highlight=False)
            errors.append(error)
            continue
        reports.append(result.report)
        if result.error is not None:
            errors.append(result.error)
    if as_json:
        sys.stdout.write(json.dumps(reports, indent=2, ensure_ascii=False) + "\n")
    elif len(models) > 1:
        passed = sum(report["outcome"] == "passed" for report in reports)
        Console().print(f"{passed} of {len(models)} models passed", highlight=False)
    if errors:
        raise errors[0]


def _one(options: Options, *, as_json: bool) -> Result:
    messages = Console(stderr=True)
    start = time.monotonic()
    planned = plan.plan(options)
    if planned.made_checkpoint is not None:
        messages.print(f"made a synthetic checkpoint: {planned.made_checkpoint}", soft_wrap=True, highlight=False)
    sides = "diffusers, then the engine" if plan.needs_reference(options) else "the engine"
    messages.print(f"{options.model}: running {sides}", highlight=False)
    result = run.run(planned, _Cases(messages, start))
    page = accuracy_page.write(result.report, result.path.parent)
    if not as_json:
        console = Console()
        show(result.report, console)
        for name, path in (("page", page), ("report", result.path)):
            console.print(f"{name}: {path}", soft_wrap=True, highlight=False, markup=False)
    return result


def show(report: Mapping[str, Any], console: Console) -> None:
    """Print a report."""
    console.print(Group(*_parts(report)))


def _parts(report: Mapping[str, Any]) -> Iterable[RenderableType]:
    yield _headline(report)
    if report["verdict"]["outcome"] != "native":
        yield from verdict.parts(report["verdict"])
    if report["components"]:
        yield Text()
        yield _components(report["components"])
    if report["trajectory"] is not None:
        yield Text()
        yield _trajectory(report["trajectory"])
    if report["controls"] or report["not_applicable"]:
        yield Text()
        yield _controls(report)
    if report["golden"] is not None:
        yield Text()
        yield golden_line(report["golden"])
    yield Text()


def _headline(report: Mapping[str, Any]) -> RenderableType:
    engine, sampling = report["engine"], report["sampling"]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    line = Text(report["outcome"].upper(), style=STYLES.get(report["outcome"], "bold red"))
    table.add_row("accuracy", line)
    for reason in report["reasons"]:
        table.add_row("", Text(reason))
    guidance = "" if sampling["guidance"] is None else f", guidance {sampling['guidance']:g}"
    size = f"{sampling['width']}x{sampling['height']}, {sampling['steps']} steps, seed {sampling['seed']}{guidance}"
    table.add_row("model", Text(f"{report['preset']['key']} ({report['model']['name']}): {size}, {report['dtype']}"))
    against = f" against diffusers {engine['packages'].get('diffusers')}" if report["reference"] is not None else ""
    table.add_row("engine", Text(f"sglang {engine['version']} [{engine['name']}]{against}"))
    return table


def number(value: float | None, digits: int = 2) -> str:
    """Return a small number as 1.23e-07, 0 as 0, None as n/a."""
    return "n/a" if value is None else "0" if value == 0 else f"{value:.{digits}e}"


def closeness(cosine: float | None) -> str:
    """Return 1 - cosine, which tells apart what 0.99999 does not; negative rounding is 0."""
    return "n/a" if cosine is None else number(max(0.0, 1 - cosine))


def _table(titles: tuple[str, ...], left: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for index, title in enumerate(titles):
        table.add_column(title, justify="left" if index < left else "right", overflow="fold")
    return table


def _state(passed: bool) -> Text:
    return Text("pass") if passed else Text("FAIL", style="red")


def _components(components: list[Mapping[str, Any]]) -> RenderableType:
    table = _table(("component", "output", "result", "rel L2", "1 - cos", "max abs", "worst at", "gate"), left=3)
    for part in components:
        if part["native"] is not True:
            said = "NOT NATIVE" if part["native"] is False else "not reached"
            table.add_row(part["name"], "-", Text(said, style="red"), *["n/a"] * 5)
        for output in part["outputs"]:
            distance = output["distance"]
            state = _state(output["passed"])
            name = output["name"] if distance["fault"] is None else f"{output['name']}: {distance['fault']}"
            worst = "n/a" if distance["worst_at"] is None else ",".join(map(str, distance["worst_at"]))
            table.add_row(
                part["name"],
                Text(name),
                state,
                number(distance["rel_l2"]),
                closeness(distance["cosine"]),
                number(distance["max_abs"]),
                "-" if distance["equal"] else worst,
                number(output["gate"]["rel_l2"], 0),
            )
    return table


def _trajectory(trajectory: Mapping[str, Any]) -> RenderableType:
    if trajectory["schedule"] is not None:
        return Text(trajectory["schedule"], style="red")
    table = _table(("latents after step", "result", "time step", "rel L2", "1 - cos", "max abs", "gate"), left=2)
    last = len(trajectory["steps"])
    for step in trajectory["steps"]:
        distance = step["distance"]
        final = step["step"] == last
        table.add_row(
            f"{step['step']} of {last}" + (f": {distance['fault']}" if distance["fault"] else ""),
            _state(trajectory["passed"]) if final else "",
            f"{step['timestep']:.2f}",
            number(distance["rel_l2"]),
            closeness(distance["cosine"]),
            number(distance["max_abs"]),
            number(trajectory["gate"]["rel_l2"], 0) if final else "",
        )
    return Group(table, Text(f"picture (reported, no gate): {quality.likeness(trajectory['picture'])}", style="dim"))


def _controls(report: Mapping[str, Any]) -> RenderableType:
    table = _table(("wrong on purpose", "on", "result", "rel L2", "times the gate"), left=3)
    for control in report["controls"]:
        state = Text("rejected") if control["rejected"] else Text("LET THROUGH", style="bold yellow")
        times = "n/a" if control["times"] is None else _times(control["times"])
        distance = control["distance"]
        table.add_row(
            Text(": ".join(filter(None, (_wrong(control), distance["fault"])))),
            control["on"],
            state,
            number(distance["rel_l2"]),
            times,
        )
    for name, why in report["not_applicable"].items():
        table.add_row(f"{name}: {why}", "", "n/a", "n/a", "n/a")
    return table


def _times(times: float) -> str:
    """Return a multiple of the gate: with a digit more where it is near, because near is what matters."""
    return f"{times:,.0f}" if times >= NEAR else f"{times:.1f}"


def _wrong(control: Mapping[str, Any]) -> str:
    """Return what was done in few words: of a changed weight what and how much, of a prompt the start."""
    what = str(control["done"])
    perturbation = PERTURBATIONS.get(control["name"])
    if perturbation is not None and what.endswith(perturbation.words):
        return f"{PERTURBED[perturbation.at]} {perturbation.words}"
    return what if len(what) <= SHOWN_CHARACTERS else what[:SHOWN_CHARACTERS] + "..."


def golden_line(golden: Mapping[str, Any]) -> Text:
    """Return the golden's result in words."""
    return Text(f"golden: {quality.golden(golden)}", style="" if golden["passed"] else "red")
