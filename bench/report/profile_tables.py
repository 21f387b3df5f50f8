"""The tables of a profile report: which columns, in which words. Rows are text; the layout is the renderer's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.report.figures import NO_FIGURE, figure
from bench.report.tables import Table, columns, short_kernel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SHOWN_ROWS = 15
SHOWN_FAST_PATHS = ("on", "partly-on", "miss", "not-in-version", "version-unknown", "needs-quality", "opportunity")


def _percent(share: float | None) -> str:
    return NO_FIGURE if share is None else f"{100 * share:.0f} %"


def _count(per_step: float) -> str:
    """Return how often in a step: a median, so that it may end with a half."""
    return figure(per_step, 0 if float(per_step).is_integer() else 1)


def of_gpu(gpu: Mapping[str, Any]) -> tuple[Table, ...]:
    """Return the tables of a trace with GPU events."""
    tables = [
        _categories(gpu["categories"]),
        _fast_paths(gpu["fast_paths"]),
        _waterfall(gpu["waterfall"], gpu["judged_step"]),
        _floors(gpu["floors"], gpu["judged_step"], gpu["ceilings"]),
        _shapes(gpu["shapes"]),
        _rows(gpu["rows"]),
        _scopes(gpu["scopes"]),
        _steps(gpu["steps"]),
        _gaps(gpu["gaps"]),
        _streams(gpu["streams"]),
    ]
    if gpu["outside"]:
        tables.append(_outside(gpu["outside"]))
    return tuple(table for table in tables if table.rows)


def of_cpu(cpu: Mapping[str, Any]) -> tuple[Table, ...]:
    """Return the tables of a trace without GPU events."""
    modules = Table(
        title="Modules",
        note="with everything inside them, so they do not add up; ms per step",
        columns=columns("module | >n | >ms"),
        rows=tuple(
            (one["module"], _count(one["per_step"]), figure(one["total_ms"], 3)) for one in cpu["modules"][:SHOWN_ROWS]
        ),
    )
    steps = Table(
        title="Steps",
        note="on the CPU",
        columns=columns("step | >ms"),
        rows=tuple((step["label"], figure(step["ms"], 3)) for step in cpu["steps"]),
    )
    return tuple(table for table in (_operators(cpu["operators"]), modules, steps) if table.rows)


def _operators(operators: Sequence[Mapping[str, Any]]) -> Table:
    """Return the table of the operators of a step on the CPU; the last rows are the rest and the total."""
    total_ms = sum(one["self_ms"] for one in operators)

    def line(
        name: str, shape: str, members: Sequence[Mapping[str, Any]], with_callees: str = NO_FIGURE
    ) -> tuple[str, ...]:
        own_ms = sum(one["self_ms"] for one in members)
        count = sum(one["per_step"] for one in members)
        return (
            name,
            shape,
            _count(count),
            figure(own_ms, 3),
            _percent(own_ms / total_ms if total_ms else None),
            with_callees,
        )

    shown, rest = operators[:SHOWN_ROWS], operators[SHOWN_ROWS:]
    lines = [line(one["operator"], one["shape"], [one], figure(one["total_ms"], 3)) for one in shown]
    lines += [line(f"{len(rest)} others", "", rest)] if rest else []
    lines += [line("total", "", operators)] if operators else []
    return Table(
        title="Operators",
        note="by the time of their own; ms per step",
        columns=columns("operator | shape | >n | >own ms | >share | >with callees ms"),
        rows=tuple(lines),
    )


def ranks(document: Mapping[str, Any]) -> Table:
    """Return the table of the ranks."""
    imbalance = document["imbalance_percent"]
    than_mean = "" if imbalance is None else f", {imbalance:.1f} % above the mean"
    return Table(
        title="Ranks",
        note=f"the slowest rank is the one whose own work takes longest{than_mean}: the others wait for it",
        columns=columns("rank | >step ms | >busy ms | >exposed communication ms | "),
        rows=tuple(
            (
                figure(line["rank"], 0),
                figure(line["step_ms"]),
                figure(line["busy_ms"]),
                figure(line["exposed_communication_ms"]),
                "slowest" if line["index"] == document["slowest"] else "",
            )
            for line in document["lines"]
        ),
    )


def _categories(entries: Sequence[Mapping[str, Any]]) -> Table:
    return Table(
        title="GPU time by category",
        note="ms and events per step",
        columns=columns("category | >ms | >share | >n | >TFLOP | >TFLOP/s"),
        rows=tuple(
            (
                entry["title"],
                figure(entry["ms"]),
                f"{entry['percent']:.1f} %",
                figure(entry["per_step"], 0),
                figure(entry["tflop"]),
                figure(entry["tflops"], 0),
            )
            for entry in entries
        ),
    )


def _fast_paths(entries: Sequence[Mapping[str, Any]]) -> Table:
    return Table(
        title="Fast paths",
        note="what a path saves is a model and an upper bound, ms per step; savings do not add up",
        columns=columns("path | state | >ms | >saves | why | ?to do | ?confidence"),
        rows=tuple(
            (
                entry["title"],
                entry["state"],
                figure(entry["on_ms"] if entry["state"] == "on" else entry["off_ms"]),
                figure(entry["saving_ms"]),
                entry["why"],
                entry["action"],
                entry["confidence"],
            )
            for entry in entries
            if entry["state"] in SHOWN_FAST_PATHS
        ),
    )


def _waterfall(bars: Sequence[Mapping[str, Any]], step: Mapping[str, Any]) -> Table:
    return Table(
        title="From the floor to the measured step",
        note=f"the bars add up to the step {'under' if step['profiled'] else 'without'} the profiler",
        columns=columns("part | >ms | note"),
        rows=tuple((bar["label"], figure(bar["ms"]), bar["note"]) for bar in bars if abs(bar["ms"]) >= 0.005),  # noqa: PLR2004 - less is written as 0.00
    )


def _floors(floors: Sequence[Mapping[str, Any]], step: Mapping[str, Any], limits: Mapping[str, Any]) -> Table:
    return Table(
        title="Floors",
        note=f"lower bounds of the step of {step['ms']:.1f} ms. Ceilings: {'; '.join(limits['sources'])}",
        columns=columns("floor | >ms | assumes"),
        rows=tuple((floor["label"], figure(floor["ms"]), floor["assumes"]) for floor in floors),
    )


def _shapes(shapes: Sequence[Mapping[str, Any]]) -> Table:
    return Table(
        title="Shapes",
        note=f"the {SHOWN_ROWS} with most time; the share is of the nearer ceiling",
        columns=columns(
            "operator | shape | >n | >ms | >median us | >TFLOP/s | >TB/s | >of ceiling | ?bound | ?category | ?kernel"
        ),
        rows=tuple(
            (
                shape["operator"] or short_kernel(shape["kernel"]),
                shape["shape"],
                figure(shape["per_step"], 0),
                figure(shape["ms"]),
                figure(shape["median_us"], 1),
                figure(shape["tflops"], 0),
                figure(shape["tb_s"]),
                _percent(shape["share"]),
                shape["bound"] or NO_FIGURE,
                shape["category"],
                short_kernel(shape["kernel"]),
            )
            for shape in shapes[:SHOWN_ROWS]
        ),
    )


def _rows(rows: Sequence[Mapping[str, Any]]) -> Table:
    return Table(
        title="Kernels by module",
        note=f"the {SHOWN_ROWS} with most time",
        columns=columns("kernel | module | >n | >ms | >median us | >p95 us | ?operator | ?shape"),
        rows=tuple(
            (
                short_kernel(row["kernel"]),
                row["module"],
                figure(row["per_step"], 0),
                figure(row["ms"]),
                figure(row["median_us"], 1),
                figure(row["p95_us"], 1),
                row["operator"],
                row["shape"],
            )
            for row in rows[:SHOWN_ROWS]
        ),
    )


def _scopes(scopes: Sequence[Mapping[str, Any]]) -> Table:
    return Table(
        title="Blocks",
        note="by the modules directly inside the outermost one",
        columns=columns("module | >instances | >n | >ms | >ms each"),
        rows=tuple(
            (
                scope["module"],
                figure(scope["instances"], 0),
                figure(scope["per_step"], 0),
                figure(scope["ms"]),
                figure(scope["ms"] / scope["instances"]),
            )
            for scope in scopes
        ),
    )


def _steps(steps: Sequence[Mapping[str, Any]]) -> Table:
    return Table(
        title="Steps",
        note="milliseconds; counted steps make the figures above",
        columns=columns(
            "step | role | >span | >busy | >host wait | >kernel wait | >of median"
            " | >?events | >?CPU | >?launch lag | >?syncs"
        ),
        rows=tuple(
            (
                step["label"],
                step["role"] + (", outlier" if step["outlier"] else ""),
                figure(step["span_ms"]),
                figure(step["busy_ms"]),
                figure(step["host_wait_ms"]),
                figure(step["kernel_wait_ms"]),
                f"{step['busy_ratio']:.3f}",
                figure(step["events"], 0),
                figure(step["cpu_ms"]),
                figure(step["launch_lag_median_ms"]),
                figure(step["synchronisations"], 0),
            )
            for step in steps
        ),
    )


def _length(gap: Mapping[str, Any]) -> str:
    more = gap["to_us"] is None
    return f"{gap['from_us']:g} and more" if more else f"{gap['from_us']:g} to {gap['to_us']:g}"


def _gaps(gaps: Sequence[Mapping[str, Any]]) -> Table:
    return Table(
        title="Idle gaps",
        note="of all steps; host wait: the launch returned after the GPU had run dry",
        columns=columns("length us | >host waits | >ms | >kernel waits | >ms"),
        rows=tuple(
            (
                _length(gap),
                figure(gap["host"], 0),
                figure(gap["host_ms"]),
                figure(gap["kernel"], 0),
                figure(gap["kernel_ms"]),
            )
            for gap in gaps
        ),
    )


def _streams(streams: Sequence[Mapping[str, Any]]) -> Table:
    return Table(
        title="Streams",
        note="of all steps",
        columns=columns("device | stream | >events | >busy ms"),
        rows=tuple(
            (str(entry["device"]), str(entry["stream"]), figure(entry["events"], 0), figure(entry["busy_ms"]))
            for entry in streams
        ),
    )


def _outside(rows: Sequence[Mapping[str, Any]]) -> Table:
    return Table(
        title="Outside of the steps",
        note=f"launched in no denoise step: text encoding, decoding; the {SHOWN_ROWS} with most time, in all",
        columns=columns("kernel | module | >n | >ms"),
        rows=tuple(
            (short_kernel(row["kernel"]), row["module"], figure(row["per_step"], 0), figure(row["ms"]))
            for row in rows[:SHOWN_ROWS]
        ),
    )
