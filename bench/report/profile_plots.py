"""The plots of a profile report: waterfall, per-step stack, roofline, idle gaps, blocks; of a CPU its operators."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import TYPE_CHECKING, Any

from bench.profiling.roofline import MAKER
from bench.report import plots
from bench.report.figures import number
from bench.report.plots import Plot, at, axis, counted, from_zero, names, rows, tips
from bench.report.profile_tables import gap_length

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.report.plots import Spec

    Gpu = Mapping[str, Any]

COLOURS = {
    "gemm": "#5b8fd1",
    "attention": "#e07b39",
    "modulation": "#d9685b",
    "copy": "#7f8c8d",
    "activation": "#8e5ea2",
    "qknorm-rope": "#2a9d8f",
    "rope": "#56b4a9",
    "skinny-gemm": "#86b6e8",
    "norm": "#d4a017",
    "residual": "#b07d62",
    "communication": "#4a4a8a",
    "convolution": "#4f8a3a",
    "memory": "#b8b8b8",
}
"""One colour for each category that matters, the same in every plot."""

OTHER_COLOUR = "#a9b1bb"
HOST_COLOUR, KERNEL_COLOUR = "#d98cb3", "#f0b27a"
LEGEND_CATEGORIES = 8
SHOWN_OPERATORS = 12
LETTER_SHARE = 0.05
"""Of the longest bar, what a letter of a name takes on a narrow screen; a name that does not fit is in the legend."""

LEAST_SHOWN_BYTES = 100_000
"""Events that move less are all launch: far below the memory's ceiling, and nothing can be done about it."""

WATERFALL = """Each bar starts where the one above it ends; together they are the step. What follows the floors is what
better kernels, fusion and fewer gaps could gain."""
STEPS = """GPU time and idle time of each step. A step that stands out alone is an outlier; the counted steps make the
figures of this report."""
ROOFLINE = """A mark is a shape, its area the time that it takes in a step; a large one far below the line is where to
work."""
GAPS = "Of all steps. Reduce host wait by launching earlier or less, kernel wait by fewer kernels or a CUDA graph."
BLOCKS = "One mark for each instance, in order. Blocks of one kind do the same work: an odd one is worth a look."


def of_gpu(gpu: Gpu) -> tuple[Plot, ...]:
    """Return the plots of a trace with GPU events; those that have nothing to show are left out."""
    drawn = [_waterfall(gpu)]
    if gpu["steps"]:
        drawn.append(_steps(gpu))
    drawn += _rooflines(gpu)
    if any(gap["host"] or gap["kernel"] for gap in gpu["gaps"]):
        drawn.append(_gaps(gpu))
    if repeated := _repeated(gpu):
        drawn.append(_blocks(repeated))
    return tuple(drawn)


def of_cpu(cpu: Mapping[str, Any]) -> tuple[Plot, ...]:
    """Return the plot of a trace without GPU events; none without operators."""
    time_of = cpu_time_of(cpu)
    shown = list(time_of)[:SHOWN_OPERATORS]
    values = [
        {"operator": name, "shape": entry["shape"], "ms": entry["self_ms"]}
        for name in shown
        for entry in cpu["operators"]
        if entry["operator"] == name
    ]
    if not values:
        return ()
    view: Spec = {
        "height": 24 * len(shown),
        "data": rows(values),
        "mark": {"type": "bar", "color": plots.BASELINE},
        "encoding": {
            "y": names("operator"),
            "x": from_zero(axis("ms", "own ms per step")),
            "tooltip": tips(operator="operator", shape="shape", ms="ms"),
        },
    }
    alt = f"Own time of {len(shown)} operators; the longest is {shown[0]} with {number(time_of[shown[0]], 'ms')}."
    caption = "The operators with most time of their own; shapes of one operator are stacked."
    return (Plot(name="operators", title="Time of each operator", caption=caption, alt=alt, view=view),)


def cpu_time_of(cpu: Mapping[str, Any]) -> dict[str, float]:
    """Return the own milliseconds of each operator in a step, all its shapes together, the longest first."""
    time_of: Counter[str] = Counter()
    for entry in cpu["operators"]:
        time_of[entry["operator"]] += entry["self_ms"]
    return dict(time_of.most_common())


def _colour(category: str) -> str:
    return COLOURS.get(category, OTHER_COLOUR)


def _waterfall(gpu: Gpu) -> Plot:
    step = gpu["judged_step"]["ms"]
    titles = {entry["title"]: entry["id"] for entry in gpu["categories"]}
    values, left = [], 0.0
    for bar in gpu["waterfall"]:
        if abs(bar["ms"]) < 0.002 * step:
            continue
        label = bar["label"]
        idle = HOST_COLOUR if "host" in label else KERNEL_COLOUR
        category = next((titles[title] for title in titles if label.startswith(title)), "")
        colour = idle if label.startswith("idle") else _colour(category)
        shown = f"{bar['ms']:.2f}"
        faint = 0.55 if label.endswith(" floor") else 1
        values.append(
            {"label": label, "from": left, "to": left + bar["ms"], "shown": shown, "colour": colour, "faint": faint}
        )
        left += bar["ms"]
    ends = {**axis("from", "ms"), "scale": {"domain": [0, 1.25 * max(step, left)], "nice": False}}
    return Plot(
        name="waterfall",
        title="From the floor to the measured step",
        caption=WATERFALL,
        alt=f"{len(values)} parts that add up to a step of {step:.1f} ms: "
        + ", ".join(f"{value['label']} {value['shown']}" for value in values)
        + " ms.",
        view={
            "height": 22 * len(values),
            "data": rows(values),
            "encoding": {"y": names("label"), "x": ends},
            "layer": [
                {
                    "mark": {"type": "bar", "stroke": plots.DIM, "strokeWidth": 0.5},
                    "encoding": {
                        "x2": {"field": "to"},
                        "color": {"field": "colour", "type": "nominal", "scale": None},
                        "opacity": {"field": "faint", "type": "quantitative", "scale": None},
                        "tooltip": tips(label="part", shown="ms"),
                    },
                },
                {
                    "mark": {"type": "text", "align": "left", "dx": 4},
                    "encoding": {"x": {**ends, "field": "to"}, "text": {"field": "shown"}},
                },
            ],
        },
    )


def _stack(values: list[dict[str, Any]]) -> Spec:
    """Return stacked bars of milliseconds; the name of a part stands inside it where it fits."""
    ends: dict[str, float] = {}
    for value in values:
        value["from"] = ends.get(value["bar"], 0.0)
        value["to"] = ends[value["bar"]] = value["from"] + value["ms"]
    longest = max(ends.values(), default=1.0) or 1.0
    for value in values:
        value["named"] = value["part"] if value["ms"] > LETTER_SHARE * len(value["part"]) * longest else ""
    colour_of = {value["part"]: value["colour"] for value in values}
    colours = {"domain": list(colour_of), "range": list(colour_of.values())}
    return {
        "data": rows(values),
        "encoding": {"y": names("bar")},
        "layer": [
            {
                "mark": {"type": "bar", "stroke": plots.DIM, "strokeWidth": 0.5},
                "encoding": {
                    "x": from_zero(axis("from", "ms")),
                    "x2": {"field": "to"},
                    "color": {"field": "part", "type": "nominal", "title": None, "scale": colours},
                    "tooltip": tips(bar="", part="part", ms="ms"),
                },
            },
            {
                "transform": [{"calculate": "(datum.from + datum.to) / 2", "as": "middle"}],
                "mark": {"type": "text", "color": "#10151b", "fontSize": 11},
                "encoding": {"x": from_zero(axis("middle", "ms")), "text": {"field": "named"}},
            },
        ],
    }


def _steps(gpu: Gpu) -> Plot:
    shown, rest = gpu["categories"][:LEGEND_CATEGORIES], gpu["categories"][LEGEND_CATEGORIES:]
    values: list[dict[str, Any]] = []
    for index, step in enumerate(gpu["steps"]):
        bar = f"{step['label']} ({step['role']})" + (f", outlier {step['busy_ratio']:.2f} x" if step["outlier"] else "")
        parts = [(entry["title"], _colour(entry["id"]), entry["by_step_ms"][index]) for entry in shown]
        parts.append(("other", OTHER_COLOUR, sum(entry["by_step_ms"][index] for entry in rest)))
        parts.append(("idle", "#ccd5de", step["idle_ms"]))
        values += [{"bar": bar, "part": part, "colour": colour, "ms": ms} for part, colour, ms in parts]
    spans = [step["span_ms"] for step in gpu["steps"]]
    return Plot(
        name="steps",
        title="Each step by category",
        caption=STEPS,
        alt=f"{len(spans)} steps of {min(spans):.1f} to {max(spans):.1f} ms by category of kernel.",
        view={"height": 30 * len(gpu["steps"]), **_stack(values)},
    )


def _rooflines(gpu: Gpu) -> list[Plot]:
    """Return the plot of matrix products, and that of what is nearer to the memory's ceiling."""
    limits = gpu["ceilings"]
    titles = {entry["id"]: entry["title"] for entry in gpu["categories"]}
    shapes = [{**shape, "kind": titles.get(shape["category"], shape["category"])} for shape in gpu["shapes"]]
    matrix = [shape for shape in shapes if shape["tflops"] and shape["intensity"]]
    moved = [
        shape | {"mb": shape["moved_bytes"] / 1e6}
        for shape in shapes
        if shape["tb_s"] and shape["bound"] != "arithmetic" and shape["moved_bytes"] >= LEAST_SHOWN_BYTES
    ]
    drawn = []
    if matrix:
        lines = {limits["tflops_specified"]: MAKER, limits["tflops"]: limits["tflops_basis"]}
        drawn.append(
            Plot(
                name="roofline",
                title="Matrix products against the ceiling",
                caption=_roofline(lines, "TFLOP/s"),
                alt=f"{len(matrix)} shapes, {max(shape['tflops'] for shape in matrix):.0f} TFLOP/s at best.",
                view=_dots(matrix, ("intensity", "FLOP per byte"), ("tflops", "TFLOP/s"), lines, logarithmic=True),
            )
        )
    if moved:
        lines = {limits["tb_s_specified"]: MAKER, limits["tb_s"]: limits["tb_s_basis"]}
        drawn.append(
            Plot(
                name="bandwidth",
                title="Memory traffic against the ceiling",
                caption=_roofline(lines, "TB/s"),
                alt=f"{len(moved)} shapes, {max(shape['tb_s'] for shape in moved):.2f} TB/s at best.",
                view=_dots(moved, ("mb", "MB moved by one event"), ("tb_s", "TB/s"), lines, logarithmic=False),
            )
        )
    return drawn


def _roofline(lines: Mapping[float | None, str], unit: str) -> str:
    """Return how to read a plot of shapes, and what its dashed lines rest on."""
    known = "; ".join(f"{rate:.4g} {unit}, {basis}" for rate, basis in lines.items() if rate is not None)
    return f"{ROOFLINE} Dashed: {known}." if known else ROOFLINE


def _dots(
    shapes: Sequence[Mapping[str, Any]],
    across: tuple[str, str],
    up: tuple[str, str],
    lines: Mapping[float | None, str],
    *,
    logarithmic: bool,
) -> Spec:
    kept = ("kind", "operator", "shape", "ms", across[0], up[0])
    values = [{name: shape[name] for name in kept} for shape in shapes]
    kinds = list(dict.fromkeys(shape["kind"] for shape in shapes))
    ids = {shape["kind"]: shape["category"] for shape in shapes}
    log = {"type": "log", "nice": True}
    plain = {"zero": True}
    by_kind = {"field": "kind", "type": "nominal", "title": None}
    axes = {"axis": {"format": "~g"}}
    ceilings = [
        at(rate, f"{rate:.4g}", channel="y", below=label != MAKER) for rate, label in lines.items() if rate is not None
    ]
    return {
        "height": 300,
        "layer": [
            {
                "data": rows(values),
                "mark": {"type": "point", "opacity": 0.8, "stroke": plots.DIM, "strokeWidth": 0.5},
                "encoding": {
                    "x": {**axis(*across), "scale": log, **axes},
                    "y": {**axis(*up), "scale": log if logarithmic else plain, **axes},
                    "size": {"field": "ms", "type": "quantitative", "legend": None, "scale": {"range": [30, 600]}},
                    "color": {**by_kind, "scale": {"domain": kinds, "range": [_colour(ids[kind]) for kind in kinds]}},
                    "shape": {**by_kind, "scale": {"domain": kinds}},
                    "tooltip": tips(kind="", operator="operator", shape="shape", ms="ms per step")
                    + tips(**{across[0]: across[1], up[0]: up[1]}),
                },
            },
            *ceilings,
        ],
    }


def _gaps(gpu: Gpu) -> Plot:
    values: list[dict[str, Any]] = []
    for gap in gpu["gaps"]:
        bar = f"{gap_length(gap)} us"
        for part, colour in (("kernel", KERNEL_COLOUR), ("host", HOST_COLOUR)):
            values.append({"bar": bar, "part": f"{part} wait", "colour": colour, "ms": gap[f"{part}_ms"]})
    total = sum(value["ms"] for value in values)
    return Plot(
        name="gaps",
        title="Idle gaps by length",
        caption=GAPS,
        alt=f"{total:.1f} ms of idle time in gaps of {len(gpu['gaps'])} lengths, host wait and kernel wait.",
        view={"height": 26 * len(gpu["gaps"]), **_stack(values)},
    )


def _repeated(gpu: Gpu) -> list[Mapping[str, Any]]:
    """Return the kinds of blocks that there are several of, and that take time."""
    total = gpu["median_step"]["busy_ms"]
    return [s for s in gpu["scopes"] if len(s["instance_ms"]) > 1 and s["ms"] > 0.01 * total]


def _blocks(repeated: Sequence[Mapping[str, Any]]) -> Plot:
    values = []
    for scope in repeated:
        middle = statistics.median(scope["instance_ms"])
        for place, ms in enumerate(scope["instance_ms"], 1):
            values.append({"module": scope["module"], "place": place, "percent": 100 * (ms / middle - 1), "ms": ms})
    by_module = {"field": "module", "type": "nominal", "title": None}
    farthest = max(values, key=lambda value: abs(value["percent"]))
    return Plot(
        name="blocks",
        title="GPU time of each block",
        caption=BLOCKS,
        alt=f"Instances of {len(repeated)} kinds of blocks against the median of their kind; the farthest is"
        f" {farthest['module']} {farthest['place']} with {farthest['percent']:+.1f} %.",
        view={
            "height": 220,
            "layer": [
                at(0, "", channel="y"),
                {
                    "data": rows(values),
                    "params": [plots.ZOOM],
                    "mark": {"type": "point", "size": 45},
                    "encoding": {
                        "x": counted("place", "instance", max(value["place"] for value in values)),
                        "y": axis("percent", "% from the median of its kind"),
                        "color": by_module,
                        "shape": by_module,
                        "tooltip": tips(module="module", place="instance", ms="ms", percent="%"),
                    },
                },
            ],
        },
    )
