"""An accuracy report as a page: components, the curve of divergence, what was wrong on purpose, the pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.report import pictures, plots, quality, verdict
from bench.report.figures import closeness, scientific
from bench.report.page import Page, Pictures, html
from bench.report.plots import Plot, at, axis, counted, rows, tips
from bench.report.tables import Table, columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

PAGE = "accuracy.html"
LEAST_SHOWN = 1e-9
"""Where a distance of 0 is drawn: a logarithm has no zero."""


def write(report: Mapping[str, Any], folder: Path, arrays: tuple[Path, Path]) -> Path:
    """Write the page of a report into its folder and return its path; ``arrays``: the engine's, the reference's."""
    path = folder / PAGE
    with path.open("x", encoding="utf-8") as file:
        file.write(html(page(report, arrays)))
    return path


def page(report: Mapping[str, Any], arrays: tuple[Path, Path]) -> Page:
    """Return the page of a report."""
    engine = report["engine"]
    device = report["devices"]["items"][0]["name"] if report["devices"]["items"] else report["host"]["cpu"]
    return Page(
        kind="accuracy",
        title=f"Accuracy of {report['preset']['key']} on {device}, SGLang {engine['version']}",
        answer="; ".join(report["reasons"]) or _passed(report),
        outcome=report["outcome"],
        warnings=tuple(verdict.reasons(report["verdict"])),
        facts=_facts(report),
        blocks=tuple(_blocks(report, arrays)),
        documents={"accuracy.json": report},
    )


def _passed(report: Mapping[str, Any]) -> str:
    wrong = "every wrong engine was rejected" if report["controls"] else "no wrong engine was tried"
    return f"Every check passed, and {wrong}."


def _facts(report: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    engine, sampling = report["engine"], report["sampling"]
    guidance = "" if sampling["guidance"] is None else f", guidance {sampling['guidance']:g}"
    size = f"{sampling['width']}x{sampling['height']}, {sampling['steps']} steps, seed {sampling['seed']}{guidance}"
    against = "none"
    if report["reference"] is not None:
        against = f"{report['reference']['pipeline']} of diffusers {engine['packages'].get('diffusers')}"
    return (
        ("verdict", report["verdict"]["outcome"]),
        ("model", f"{report['model']['name']}, {report['dtype']}"),
        ("sampling", size),
        ("engine", f"sglang {engine['version']} [{engine['name']}]"),
        ("reference", against),
        ("started", report["started"][:19].replace("T", " ") + " UTC"),
    )


def _blocks(report: Mapping[str, Any], arrays: tuple[Path, Path]) -> Iterator[Plot | Table | Pictures]:
    trajectory = report["trajectory"]
    if report["components"]:
        yield _components(report)
    if trajectory is not None:
        if trajectory["schedule"] is None:
            yield curve(trajectory)
            yield _steps(trajectory)
        else:
            yield Table(title="Latents", note=trajectory["schedule"], columns=columns("step"), rows=())
    if report["controls"] or report["not_applicable"]:
        yield _controls(report)
    if (report["components"] or trajectory is not None) and (shown := _outputs(*arrays)):
        note = "" if trajectory is None else quality.likeness(trajectory["picture"])
        yield Pictures(
            title="Pictures",
            note=f"{note}. Reported and no gate: a wrong guidance may still look the same.",
            pictures=pictures.side_by_side(shown),
        )
    if report["golden"] is not None:
        golden = report["golden"]
        state = "FAIL" if not golden["passed"] else "none" if golden["status"] == "none" else "pass"
        cells = ((quality.golden(golden), state),)
        yield Table(title="Golden", note="", columns=columns("golden | result"), rows=cells)


def _components(report: Mapping[str, Any]) -> Table:
    cells = []
    for part in report["components"]:
        if part["native"] is not True:
            said = "not native" if part["native"] is False else "not reached"
            cells.append((part["name"], part["native_class"] or "n/a", part["reason"] or "", said, *["n/a"] * 5))
        for output in part["outputs"]:
            distance = output["distance"]
            fault = f": {distance['fault']}" if distance["fault"] else ""
            cells.append(
                (
                    part["name"],
                    (part["native_class"] or "n/a").rpartition(".")[2],
                    f"{output['name']}{fault}",
                    "pass" if output["passed"] else "FAIL",
                    scientific(distance["rel_l2"]),
                    closeness(distance["cosine"]),
                    scientific(distance["max_abs"]),
                    "-" if distance["equal"] else str(distance["worst_at"]),
                    scientific(output["gate"]["rel_l2"], 0),
                )
            )
    titles = "component | native class | output | result | >relative L2 | >1 - cosine | >largest error | at | >gate"
    return Table(title="Components", note="Each against the reference.", columns=columns(titles), rows=tuple(cells))


def _steps(trajectory: Mapping[str, Any]) -> Table:
    cells = []
    for step in trajectory["steps"]:
        distance = step["distance"]
        fault = f": {distance['fault']}" if distance["fault"] else ""
        figures = (scientific(distance["rel_l2"]), closeness(distance["cosine"]), scientific(distance["max_abs"]))
        cells.append((f"{step['step']}{fault}", f"{step['timestep']:.2f}", *figures))
    state = "pass" if trajectory["passed"] else "FAIL"
    note = f"The gate is {scientific(trajectory['gate']['rel_l2'], 0)} after the last step: {state}."
    titles = columns("step | >time step | >relative L2 | >1 - cosine | >largest error")
    return Table(title="Latents after each step", note=note, columns=titles, rows=tuple(cells))


def _controls(report: Mapping[str, Any]) -> Table:
    cells = []
    for control in report["controls"]:
        fault = f": {control['distance']['fault']}" if control["distance"]["fault"] else ""
        times = "n/a" if control["times"] is None else f"{control['times']:,.1f}"
        cells.append(
            (
                f"{'one tensor: ' if control['name'] == 'tensor' else ''}{control['done']}{fault}",
                control["on"],
                "rejected" if control["rejected"] else "LET THROUGH",
                scientific(control["distance"]["rel_l2"]),
                times,
            )
        )
    cells += [(f"{name}: {why}", "", "n/a", "n/a", "n/a") for name, why in report["not_applicable"].items()]
    note = "Each has to be rejected. If one is let through the gate is blind, and the run is void."
    titles = columns("what | on | result | >relative L2 | >times the gate")
    return Table(title="Wrong on purpose", note=note, columns=titles, rows=tuple(cells))


def curve(trajectory: Mapping[str, Any]) -> Plot:
    """Return the plot of relative L2 by step: the engine, each control, and the gate."""
    lines = {"native": [step["distance"]["rel_l2"] for step in trajectory["steps"]]}
    lines |= {f"wrong {name}": values for name, values in trajectory["controls_by_step"].items()}
    values = [
        {"line": name, "step": place, "distance": max(value, LEAST_SHOWN), "shown": scientific(value)}
        for name, line in lines.items()
        for place, value in enumerate(line, 1)
        if value is not None
    ]
    by_line = {"field": "line", "type": "nominal", "sort": None, "title": None}
    gate = trajectory["gate"]["rel_l2"]
    last = next((value for value in reversed(lines["native"]) if value is not None), None)
    return Plot(
        name="curve",
        title="Distance of the latents after each step",
        caption="The engine against the reference, and engines that are wrong on purpose; dashed: the gate.",
        alt=f"Relative L2 by step: native ends at {scientific(last)}, the gate is {scientific(gate, 0)}.",
        view={
            "height": 280,
            "layer": [
                {
                    "data": rows(values),
                    "params": [plots.ZOOM],
                    "encoding": {
                        "x": counted("step", "denoise step", len(trajectory["steps"])),
                        "y": {
                            **axis("distance", "relative L2"),
                            "scale": {"type": "log"},
                            "axis": {"format": "~e", "tickCount": 6},
                        },
                        "color": by_line,
                        "shape": by_line,
                        "tooltip": tips(line="", step="step", shown="relative L2"),
                    },
                    "mark": {"type": "point", "size": 60},
                },
                {
                    "data": rows(values),
                    "encoding": {
                        "x": counted("step", "denoise step", len(trajectory["steps"])),
                        "y": {**axis("distance", "relative L2"), "scale": {"type": "log"}},
                        "detail": by_line,
                    },
                    "mark": {"type": "line", "strokeWidth": 1, "color": plots.DIM},
                },
                at(gate, "gate", channel="y"),
            ],
        },
    )


def _outputs(native_file: Path, reference_file: Path) -> dict[str, NDArray[np.uint8]]:
    """Return the engine's picture and the reference's; nothing if one of them is absent."""
    import numpy as np  # noqa: PLC0415 - only a finished run needs it

    try:
        with np.load(native_file, allow_pickle=False) as file:
            native = file["trajectory/plain/image"][0]
        with np.load(reference_file, allow_pickle=False) as file:
            return {"native": native, "reference (diffusers)": file["image"][0]}
    except (OSError, KeyError, ValueError):
        return {}
