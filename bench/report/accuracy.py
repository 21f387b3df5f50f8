"""An accuracy report on the terminal: outcome, components, steps, and by how much each control was rejected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.text import Text

from bench.accuracy.controls import PERTURBATIONS
from bench.report import quality, text, verdict
from bench.report.figures import closeness
from bench.report.figures import scientific as number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import Console, RenderableType

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
        yield Text(quality.golden_line(report["golden"]), style="" if report["golden"]["passed"] else "red")
    yield Text()


def _headline(report: Mapping[str, Any]) -> RenderableType:
    engine, sampling = report["engine"], report["sampling"]
    table = text.facts()
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


def _state(passed: bool) -> Text:
    return Text("pass") if passed else Text("FAIL", style="red")


def _components(components: list[Mapping[str, Any]]) -> RenderableType:
    table = text.table(
        *("component", "output", "result", "rel L2", "1 - cos", "max abs", "worst at", "gate"),
        right=("rel L2", "1 - cos", "max abs", "worst at", "gate"),
    )
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
    table = text.table(
        *("latents after step", "result", "time step", "rel L2", "1 - cos", "max abs", "gate"),
        right=("time step", "rel L2", "1 - cos", "max abs", "gate"),
    )
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
    table = text.table(
        *("wrong on purpose", "on", "result", "rel L2", "times the gate"), right=("rel L2", "times the gate")
    )
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
