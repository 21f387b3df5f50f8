"""The plots of a profile report as inline SVG: waterfall, per-step stack, roofline, idle gaps, blocks."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Draw = Callable[[Mapping[str, Any], Figure], None]

COLOURS = {
    "gemm": "#3b6fb6",
    "attention": "#e07b39",
    "modulation": "#c0392b",
    "copy": "#7f8c8d",
    "activation": "#8e5ea2",
    "qknorm-rope": "#2a9d8f",
    "rope": "#56b4a9",
    "skinny-gemm": "#86b6e8",
    "norm": "#d4a017",
    "residual": "#b07d62",
    "communication": "#111111",
    "convolution": "#4f8a3a",
    "memory": "#b8b8b8",
}
"""One colour for each category that matters, the same in every plot."""

OTHER_COLOUR = "#d5d8dc"
IDLE_COLOUR = "#ffffff"
WIDTH = 9.0
"""Of a plot, in inches: 72 units of the SVG each."""

HOST_COLOUR, KERNEL_COLOUR = "#641e16", "#f0b27a"
LEGEND_CATEGORIES = 8
LEAST_SHOWN_BYTES = 100_000
"""Events that move less are all launch: far below the memory's ceiling, and nothing can be done about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One plot: its name in the page, what to call it, what to see in it, and the picture."""

    name: str
    title: str
    caption: str
    svg: str


WATERFALL = """Each bar starts where the one above it ends; together they are the step. What follows the floors is what
better kernels, fusion and fewer gaps could gain."""
STEPS = """GPU time and idle time of each step. A step that stands out alone is an outlier; the counted steps make the
figures of this report."""
ROOFLINE = """Left: matrix products. Right: whatever is nearer to the memory's ceiling. A dot is a shape, its area the
time that it takes in a step; a large dot far below its line is where to work."""
GAPS = "Of all steps. Reduce host wait by launching earlier or less, kernel wait by fewer kernels or a CUDA graph."
BLOCKS = "One cell for each instance, in order. Blocks of one kind do the same work: an odd one is worth a look."


def plots(gpu: Mapping[str, Any]) -> tuple[Plot, ...]:
    """Return the plots of a trace with GPU events; those that have nothing to show are left out."""
    drawn: list[Plot] = []

    def add(name: str, title: str, caption: str, draw: Draw, height: float) -> None:
        drawn.append(Plot(name=name, title=title, caption=caption, svg=_svg(name, gpu, draw, height)))

    add("waterfall", "From the floor to the measured step", WATERFALL, _waterfall, 0.8 + 0.3 * len(_bars(gpu)))
    if gpu["steps"]:
        add("steps", "Each step by category", STEPS, _steps, 1.6 + 0.34 * len(gpu["steps"]))
    if any(shape["tflops"] or shape["tb_s"] for shape in gpu["shapes"]):
        add("roofline", "Shapes against the ceilings", ROOFLINE, _roofline, 4.6)
    if any(gap["host"] or gap["kernel"] for gap in gpu["gaps"]):
        add("gaps", "Idle gaps by length", GAPS, _gaps, 3.0)
    if repeated := _repeated(gpu):
        add("blocks", "GPU time of each block", BLOCKS, _blocks, 0.5 + 0.55 * len(repeated))
    return tuple(drawn)


def _svg(name: str, gpu: Mapping[str, Any], draw: Draw, height: float) -> str:
    import matplotlib as mpl  # noqa: PLC0415 - 0.5 s that only a report with plots need pay
    from matplotlib.figure import Figure  # noqa: PLC0415 - see above

    style: Any = {
        "svg.fonttype": "none",  # text stays text: small, selectable, searchable
        "svg.hashsalt": name,  # equal figures are equal files, and ids of two plots in one page differ
        "text.parse_math": False,  # a kernel name may hold a dollar
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(gpu, figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return text[text.index("<svg") :]


def _colour(category: str) -> str:
    return COLOURS.get(category, OTHER_COLOUR)


def _bars(gpu: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    least = 0.002 * gpu["median_step"]["ms"]
    return [bar for bar in gpu["waterfall"] if abs(bar["ms"]) >= least]


def _waterfall(gpu: Mapping[str, Any], figure: Figure) -> None:
    axes = figure.subplots()
    bars = _bars(gpu)
    titles = {entry["title"]: entry["id"] for entry in gpu["categories"]}
    left = 0.0
    for row, bar in enumerate(bars):
        named = next((titles[title] for title in titles if bar["label"].startswith(title)), None)
        idle = HOST_COLOUR if "host" in bar["label"] else KERNEL_COLOUR
        colour = idle if bar["label"].startswith("idle") else _colour(named or "")
        floor = bar["label"].endswith(" floor")
        axes.barh(
            row, bar["ms"], left=left, color=colour, edgecolor="#333333", linewidth=0.4, alpha=0.45 if floor else 1
        )
        left += bar["ms"]
        _beside(axes, max(left, left - bar["ms"]), row, f"{bar['ms']:.2f}")
    axes.axvline(gpu["median_step"]["ms"], color="#333333", linewidth=0.8, linestyle="--")
    axes.set_yticks(range(len(bars)), [bar["label"] for bar in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, gpu["median_step"]["ms"] * 1.08)
    axes.set_xlabel(f"milliseconds; dashed: the step, {gpu['median_step']['ms']:.1f} ms")


def _beside(axes: Axes, x: float, y: float, text: str) -> None:
    """Write a text to the right of the end of a bar."""
    axes.annotate(text, (x, y), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8)


def _steps(gpu: Mapping[str, Any], figure: Figure) -> None:
    axes = figure.subplots()
    steps = gpu["steps"]
    rows = range(len(steps))
    left = [0.0] * len(steps)
    shown = gpu["categories"][:LEGEND_CATEGORIES]
    rest = gpu["categories"][LEGEND_CATEGORIES:]
    layers: list[tuple[str, str, Sequence[float]]] = [
        (entry["title"], _colour(entry["id"]), entry["by_step_ms"]) for entry in shown
    ]
    if rest:
        sums = [sum(values) for values in zip(*(entry["by_step_ms"] for entry in rest), strict=True)]
        layers.append(("other", OTHER_COLOUR, sums))
    layers.append(("idle", IDLE_COLOUR, [step["idle_ms"] for step in steps]))
    for label, colour, values in layers:
        axes.barh(rows, values, left=left, color=colour, edgecolor="#333333", linewidth=0.3, label=label)
        left = [start + value for start, value in zip(left, values, strict=True)]
    for row, (step, end) in enumerate(zip(steps, left, strict=True)):
        note = f"{step['span_ms']:.1f}" + (f"  outlier ({step['busy_ratio']:.2f} x)" if step["outlier"] else "")
        _beside(axes, end, row, note)
    axes.set_yticks(rows, [f"step {step['label']} ({step['role']})" for step in steps])
    axes.invert_yaxis()
    axes.set_xlim(0, max(left, default=1.0) * 1.18)
    axes.set_xlabel("milliseconds")
    figure.legend(loc="outside lower center", ncols=5, fontsize=8, frameon=False)


def _areas(shapes: Sequence[Mapping[str, Any]]) -> list[float]:
    most = max((shape["ms"] for shape in shapes), default=1.0) or 1.0
    return [8 + 220 * shape["ms"] / most for shape in shapes]


def _roofline(gpu: Mapping[str, Any], figure: Figure) -> None:
    left, right = figure.subplots(1, 2)
    limits = gpu["ceilings"]
    matrix = [shape for shape in gpu["shapes"] if shape["tflops"] and shape["intensity"]]
    _dots(left, matrix, "intensity", "tflops")
    left.set_xlabel("FLOP per byte")
    left.set_ylabel("TFLOP/s")
    _ceiling(left, limits["tflops"], "reached", below=True)
    _ceiling(left, limits["tflops_specified"], "specified", dotted=True)
    if limits["tb_s"] and matrix:
        low = min(shape["intensity"] for shape in matrix) / 2
        top = limits["tflops"] or max(shape["tflops"] for shape in matrix)
        left.plot([low, top / limits["tb_s"]], [low * limits["tb_s"], top], color="#333333", linewidth=0.9)
    moved = [
        shape
        for shape in gpu["shapes"]
        if shape["tb_s"] and shape["bound"] != "arithmetic" and shape["moved_bytes"] >= LEAST_SHOWN_BYTES
    ]
    _dots(right, [shape | {"mb": shape["moved_bytes"] / 1e6} for shape in moved], "mb", "tb_s", logarithmic=False)
    right.set_xlabel("MB moved by one event")
    right.set_ylabel("TB/s")
    _ceiling(right, limits["tb_s"], "copy")
    _ceiling(right, limits["tb_s_specified"], "specified", dotted=True)
    right.set_ylim(bottom=0)


def _ceiling(axes: Axes, rate: float | None, label: str, *, dotted: bool = False, below: bool = False) -> None:
    if rate is None:
        return
    axes.axhline(rate, color="#333333", linewidth=0.9, linestyle=":" if dotted else "-")
    axes.text(
        0.02,
        rate,
        f"{rate:.4g} {label}",
        transform=axes.get_yaxis_transform(),
        va="top" if below else "bottom",
        fontsize=8,
    )


def _dots(axes: Axes, shapes: Sequence[Mapping[str, Any]], across: str, up: str, *, logarithmic: bool = True) -> None:
    from matplotlib.collections import PathCollection  # noqa: PLC0415 - see _svg
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # noqa: PLC0415 - see _svg

    scales = [(axes.set_xscale, axes.xaxis)] + ([(axes.set_yscale, axes.yaxis)] if logarithmic else [])
    for set_scale, axis in scales:
        set_scale("log")
        # plain figures: matplotlib's own labels of a logarithmic axis are formulas
        axis.set_major_locator(LogLocator(numticks=6))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, which="major", linewidth=0.3)
    if not shapes:
        axes.text(0.5, 0.5, "no shape whose work is known", transform=axes.transAxes, ha="center", color="#5b6876")
        return
    areas = _areas(shapes)
    for category in dict.fromkeys(shape["category"] for shape in shapes):
        mine = [index for index, shape in enumerate(shapes) if shape["category"] == category]
        axes.scatter(
            [shapes[index][across] for index in mine],
            [shapes[index][up] for index in mine],
            s=[areas[index] for index in mine],
            color=_colour(category),
            edgecolors="#333333",
            linewidths=0.4,
            alpha=0.8,
            label=category,
        )
    legend = axes.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=4)
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([36])


def _gaps(gpu: Mapping[str, Any], figure: Figure) -> None:
    axes = figure.subplots()
    gaps = gpu["gaps"]
    rows = range(len(gaps))
    host, kernel = [gap["host_ms"] for gap in gaps], [gap["kernel_ms"] for gap in gaps]
    axes.bar(rows, kernel, color=KERNEL_COLOUR, edgecolor="#333333", linewidth=0.4, label="kernel wait")
    axes.bar(rows, host, bottom=kernel, color=HOST_COLOUR, edgecolor="#333333", linewidth=0.4, label="host wait")
    for row, gap in enumerate(gaps):
        if count := gap["host"] + gap["kernel"]:
            axes.text(row, gap["host_ms"] + gap["kernel_ms"], f"{count:,} gaps", ha="center", va="bottom", fontsize=8)
    labels = [
        f"{gap['from_us']:g}-{gap['to_us']:g}" if gap["to_us"] is not None else f"> {gap['from_us']:g}" for gap in gaps
    ]
    axes.set_xticks(rows, labels)
    axes.set_xlabel("length of the gap, microseconds")
    axes.set_ylabel("milliseconds")
    axes.margins(y=0.15)
    axes.legend(fontsize=8, frameon=False)


def _repeated(gpu: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the kinds of blocks that there are several of, and that take time."""
    total = gpu["median_step"]["busy_ms"]
    return [s for s in gpu["scopes"] if len(s["instance_ms"]) > 1 and s["ms"] > 0.01 * total]


def _blocks(gpu: Mapping[str, Any], figure: Figure) -> None:
    repeated = _repeated(gpu)
    every = figure.subplots(max(1, len(repeated)), 1, squeeze=False)[:, 0]
    for axes, scope in zip(every, repeated, strict=False):
        values = scope["instance_ms"]
        image = axes.imshow([values], aspect="auto", cmap="viridis", vmin=0.9 * min(values), vmax=1.1 * max(values))
        axes.set_yticks([0], [scope["module"]])
        axes.tick_params(length=0)
        axes.set_xticks([0, len(values) - 1])
        figure.colorbar(image, ax=axes, pad=0.01, format="%.2f ms", ticks=[min(values), max(values)])
