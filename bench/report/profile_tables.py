"""The tables of a profile report: which columns, in which words. Rows are text; the layout is the renderer's."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

from bench.report.figures import NO_FIGURE, figure
from bench.report.tables import Table, listing, short_kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SHOWN_ROWS = 15
SHOWN_FAST_PATHS = ("on", "partly-on", "miss", "not-in-version", "version-unknown", "needs-quality", "opportunity")


def figure_of(name: str, digits: int = 2) -> Callable[[Mapping[str, Any]], str]:
    """Return what writes a figure of an entry as a cell."""
    return lambda entry: figure(entry[name], digits)


def _kernel(row: Mapping[str, Any]) -> str:
    return short_kernel(row["kernel"])


def _percent(share: float | None) -> str:
    return NO_FIGURE if share is None else f"{100 * share:.0f} %"


def _count(per_step: float) -> str:
    """Return how often in a step: a median, so that it may end with a half."""
    return figure(per_step, 0 if float(per_step).is_integer() else 1)


def of_gpu(gpu: Mapping[str, Any]) -> tuple[Table, ...]:
    """Return the tables of a trace with GPU events."""
    tables = (
        _categories(gpu["categories"]),
        _fast_paths(gpu["fast_paths"]),
        _waterfall(gpu["waterfall"], gpu["judged_step"]),
        _floors(gpu["floors"], gpu["judged_step"], gpu["ceilings"]),
        _shapes(gpu["shapes"], {entry["id"]: entry["title"] for entry in gpu["categories"]}),
        _rows(gpu["rows"]),
        _scopes(gpu["scopes"]),
        _steps(gpu["steps"]),
        _gaps(gpu["gaps"]),
        _streams(gpu["streams"]),
        _outside(gpu["outside"]),
    )
    return tuple(table for table in tables if table.rows)


def of_cpu(cpu: Mapping[str, Any]) -> tuple[Table, ...]:
    """Return the tables of a trace without GPU events."""
    modules = listing(
        "Modules",
        "a row includes the modules inside it, so rows do not add up; ms per step",
        cpu["modules"][:SHOWN_ROWS],
        {
            "module": itemgetter("module"),
            ">n": lambda one: _count(one["per_step"]),
            ">ms": figure_of("total_ms", 3),
        },
    )
    steps = listing("Steps", "on the CPU", cpu["steps"], {"step": itemgetter("label"), ">ms": figure_of("ms", 3)})
    return tuple(table for table in (_operators(cpu["operators"]), modules, steps) if table.rows)


def _operators(operators: Sequence[Mapping[str, Any]]) -> Table:
    """Return the table of the operators of a step on the CPU; the last rows are the rest and the total."""
    shown, rest = operators[:SHOWN_ROWS], operators[SHOWN_ROWS:]
    total = _together("total", operators)
    others = [_together(f"{len(rest)} others", rest)] if rest else []
    return listing(
        "Operators",
        "sorted by self time; ms per step",
        [*shown, *others, total] if operators else (),
        {
            "operator": itemgetter("operator"),
            "shape": itemgetter("shape"),
            ">n": lambda one: _count(one["per_step"]),
            ">own ms": figure_of("self_ms", 3),
            ">share": lambda one: _percent(one["self_ms"] / total["self_ms"] if total["self_ms"] else None),
            ">with callees ms": figure_of("total_ms", 3),
        },
    )


def _together(name: str, operators: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return several operators as one; their times with callees overlap, so that they have no sum."""
    sums = {key: sum(one[key] for one in operators) for key in ("per_step", "self_ms")}
    return {"operator": name, "shape": "", "total_ms": None, **sums}


def ranks(document: Mapping[str, Any]) -> Table:
    """Return the table of the ranks."""
    imbalance = document["imbalance_percent"]
    than_mean = "" if imbalance is None else f", {imbalance:.1f} % above the mean"
    return listing(
        "Ranks",
        f"the slowest rank is the one whose own work takes longest{than_mean}: the others wait for it",
        document["lines"],
        {
            "rank": figure_of("rank", 0),
            ">step ms": figure_of("step_ms"),
            ">busy ms": figure_of("busy_ms"),
            ">exposed communication ms": figure_of("exposed_communication_ms"),
            "": lambda line: "slowest" if line["index"] == document["slowest"] else "",
        },
    )


def _categories(entries: Sequence[Mapping[str, Any]]) -> Table:
    return listing(
        "GPU time by category",
        "ms and events per step",
        entries,
        {
            "category": itemgetter("title"),
            ">ms": figure_of("ms"),
            ">share": lambda entry: f"{entry['percent']:.1f} %",
            ">n": figure_of("per_step", 0),
            ">TFLOP": figure_of("tflop"),
            ">TFLOP/s": figure_of("tflops", 0),
        },
    )


def _fast_paths(entries: Sequence[Mapping[str, Any]]) -> Table:
    return listing(
        "Fast paths",
        "what a path saves is a model and an upper bound, ms per step; savings do not add up",
        [entry for entry in entries if entry["state"] in SHOWN_FAST_PATHS],
        {
            "path": itemgetter("title"),
            "state": itemgetter("state"),
            ">ms": lambda entry: figure(entry["on_ms"] if entry["state"] == "on" else entry["off_ms"]),
            ">saves": figure_of("saving_ms"),
            "why": itemgetter("why"),
            "?to do": itemgetter("action"),
            "?confidence": itemgetter("confidence"),
        },
    )


def _waterfall(bars: Sequence[Mapping[str, Any]], step: Mapping[str, Any]) -> Table:
    return listing(
        "From the floor to the measured step",
        f"the bars add up to the step {'under' if step['profiled'] else 'without'} the profiler",
        [bar for bar in bars if abs(bar["ms"]) >= 0.005],  # noqa: PLR2004 - less is written as 0.00
        {"part": itemgetter("label"), ">ms": figure_of("ms"), "note": itemgetter("note")},
    )


def _floors(floors: Sequence[Mapping[str, Any]], step: Mapping[str, Any], limits: Mapping[str, Any]) -> Table:
    return listing(
        "Floors",
        f"lower bounds of the step of {step['ms']:.1f} ms. Ceilings: {'; '.join(limits['sources'])}",
        floors,
        {"floor": itemgetter("label"), ">ms": figure_of("ms"), "assumes": itemgetter("assumes")},
    )


def _shapes(shapes: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> Table:
    return listing(
        "Shapes",
        f"the {SHOWN_ROWS} with most time; the share is of the nearer ceiling",
        shapes[:SHOWN_ROWS],
        {
            "operator": lambda shape: shape["operator"] or short_kernel(shape["kernel"]),
            "shape": itemgetter("shape"),
            ">n": figure_of("per_step", 0),
            ">ms": figure_of("ms"),
            ">median us": figure_of("median_us", 1),
            ">TFLOP/s": figure_of("tflops", 0),
            ">TB/s": figure_of("tb_s"),
            ">of ceiling": lambda shape: _percent(shape["share"]),
            "?bound": lambda shape: shape["bound"] or NO_FIGURE,
            "?category": lambda shape: titles[shape["category"]],
            "?kernel": _kernel,
        },
    )


def _rows(rows: Sequence[Mapping[str, Any]]) -> Table:
    return listing(
        "Kernels by module",
        f"the {SHOWN_ROWS} with most time",
        rows[:SHOWN_ROWS],
        {
            "kernel": _kernel,
            "module": itemgetter("module"),
            ">n": figure_of("per_step", 0),
            ">ms": figure_of("ms"),
            ">median us": figure_of("median_us", 1),
            ">p95 us": figure_of("p95_us", 1),
            "?operator": itemgetter("operator"),
            "?shape": itemgetter("shape"),
        },
    )


def _scopes(scopes: Sequence[Mapping[str, Any]]) -> Table:
    return listing(
        "Blocks",
        "by the modules directly inside the outermost one",
        scopes,
        {
            "module": itemgetter("module"),
            ">instances": figure_of("instances", 0),
            ">n": figure_of("per_step", 0),
            ">ms": figure_of("ms"),
            ">ms each": lambda scope: figure(scope["ms"] / scope["instances"]),
        },
    )


def _steps(steps: Sequence[Mapping[str, Any]]) -> Table:
    return listing(
        "Steps",
        "ms; counted steps make the figures above",
        steps,
        {
            "step": itemgetter("label"),
            "role": lambda step: step["role"] + (", outlier" if step["outlier"] else ""),
            ">span": figure_of("span_ms"),
            ">busy": figure_of("busy_ms"),
            ">host wait": figure_of("host_wait_ms"),
            ">kernel wait": figure_of("kernel_wait_ms"),
            ">of median": figure_of("busy_ratio", 3),
            ">?events": figure_of("events", 0),
            ">?CPU": figure_of("cpu_ms"),
            ">?launch lag": figure_of("launch_lag_median_ms"),
            ">?syncs": figure_of("synchronisations", 0),
        },
    )


def gap_length(gap: Mapping[str, Any]) -> str:
    """Return which idle gaps a bar of their histogram counts, in microseconds."""
    return f"{gap['from_us']:g} and more" if gap["to_us"] is None else f"{gap['from_us']:g} to {gap['to_us']:g}"


def _gaps(gaps: Sequence[Mapping[str, Any]]) -> Table:
    return listing(
        "Idle gaps by length",
        "of all steps; host wait: the launch returned after the GPU had run dry",
        gaps,
        {
            "length us": gap_length,
            ">host waits": figure_of("host", 0),
            ">host wait ms": figure_of("host_ms"),
            ">kernel waits": figure_of("kernel", 0),
            ">kernel wait ms": figure_of("kernel_ms"),
        },
    )


def _streams(streams: Sequence[Mapping[str, Any]]) -> Table:
    return listing(
        "Streams",
        "of all steps",
        streams,
        {
            "device": lambda entry: str(entry["device"]),
            "stream": lambda entry: str(entry["stream"]),
            ">events": figure_of("events", 0),
            ">busy ms": figure_of("busy_ms"),
        },
    )


def _outside(rows: Sequence[Mapping[str, Any]]) -> Table:
    return listing(
        "Outside of the steps",
        f"launched in no denoise step: text encoding, decoding; the {SHOWN_ROWS} with most time, in all",
        rows[:SHOWN_ROWS],
        {"kernel": _kernel, "module": itemgetter("module"), ">n": figure_of("per_step", 0), ">ms": figure_of("ms")},
    )
