"""What the device could do at best, each shape against it, the floor of a step and the way from there to the measured.

A ceiling is what was measured on this very card (`invoke probe`), else on another of its model, else what its maker
gives. The best shape of the trace takes its place where it is better: a benchmark figure is not a limit, and a shape
that beats it shows where the limit really is. It also does where nobody knows the card. The maker's dense figure stands
beside it. The memory ceiling is a copy's rate; a small tensor that stays in the cache may beat it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.catalog import devices

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.catalog.devices import Ceiling
    from bench.profiling.table import Row

MATRIX = ("gemm", "skinny-gemm", "attention", "convolution")
"""The categories that do matrix arithmetic on the tensor cores."""

THIS_CARD = "measured on this card"
THIS_MODEL = "measured on a card of this model"
MAKER = "the maker's figure"
BEST_SEEN = "the best shape of this trace"
"""What a ceiling may rest on, best first; the last takes the place of any other where it is higher."""

BEST_SHAPE_LEAST_MS = 0.5
"""A shape counts as the best of the trace only if it takes this long in a step: one odd short event proves nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """The upper rates that a trace is held against; None where nobody knows one. ``sources``: where each is from.

    ``tflops_basis`` and ``tb_s_basis`` are in words which of the sources the ceiling is.
    """

    device: str | None
    data_type: str | None
    tflops: float | None
    tflops_basis: str | None
    tflops_specified: float | None
    tflops_best_seen: float | None
    tb_s: float | None
    tb_s_basis: str | None
    tb_s_specified: float | None
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar of the waterfall from the floor to the measured step."""

    label: str
    ms: float
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """A lower bound of a step, in milliseconds, and what it assumes."""

    label: str
    ms: float
    assumes: str


def ceilings(rows: Sequence[Row], device_name: str | None, measured: Sequence[Ceiling] = ()) -> Ceilings:
    """Return the ceilings for a trace's device; the data type is the one with the most matrix time.

    ``measured`` are those that `invoke probe` measured on this card.
    """
    device = devices.find(device_name)
    data_type = _data_type(rows)
    arithmetic = _known(data_type, device, measured)
    memory = _known(devices.MEMORY, device, measured)
    best = _best_seen(rows, data_type)
    basis, tflops = next(iter(arithmetic.items()), (None, None))
    rate = tflops.rate if tflops else None
    if best is not None and (rate is None or best > rate):
        basis, rate = BEST_SEEN, best
    by_memory, tb_s = next(iter(memory.items()), (None, None))
    return Ceilings(
        device=device.title if device else device_name if measured else None,
        data_type=data_type,
        tflops=rate,
        tflops_basis=basis,
        tflops_specified=arithmetic[MAKER].rate if MAKER in arithmetic else None,
        tflops_best_seen=best,
        tb_s=tb_s.rate if tb_s else None,
        tb_s_basis=by_memory,
        tb_s_specified=memory[MAKER].rate if MAKER in memory else None,
        sources=tuple(map(str, (*arithmetic.values(), *memory.values()))),
    )


def _known(of: str | None, device: devices.Device | None, measured: Sequence[Ceiling]) -> dict[str, Ceiling]:
    """Return what is known of a ceiling by its basis, the one to go by first."""
    found = {
        THIS_CARD: next((ceiling for ceiling in measured if ceiling.of == of), None),
        THIS_MODEL: device.ceiling(of, devices.MEASURED) if device and of else None,
        MAKER: device.ceiling(of, devices.SPECIFIED) if device and of else None,
    }
    return {basis: ceiling for basis, ceiling in found.items() if ceiling is not None}


def _data_type(rows: Sequence[Row]) -> str | None:
    """Return the data type with the most matrix time."""
    time_of: dict[str, float] = {}
    for row in rows:
        if row.category in MATRIX and row.work.data_type:
            time_of[row.work.data_type] = time_of.get(row.work.data_type, 0.0) + row.ms
    return max(time_of, key=time_of.__getitem__, default=None)


def _best_seen(rows: Sequence[Row], data_type: str | None) -> float | None:
    """Return the best rate of a trace's shapes of a data type, in TFLOP/s."""
    return max(
        (
            row.tflops
            for row in rows
            if row.tflops
            and row.ms >= BEST_SHAPE_LEAST_MS
            and row.category in MATRIX
            and row.work.data_type == data_type
        ),
        default=None,
    )


def shapes(rows: Sequence[Row], limits: Ceilings) -> list[dict[str, Any]]:
    """Return kernels by operator and shape, in all modules, most time first; ``share`` is of the nearer ceiling."""
    merged: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in rows:
        merged.setdefault((row.category, row.operator, row.shape, row.kernel), []).append(row)
    found = [
        {"category": category, "operator": operator, "shape": shape, "kernel": kernel} | _against(members, limits)
        for (category, operator, shape, kernel), members in merged.items()
    ]
    return sorted(found, key=lambda shape: -shape["ms"])


def _against(members: list[Row], limits: Ceilings) -> dict[str, Any]:
    """Return the figures of a shape, and its rates against the ceilings."""
    per_step = sum(row.per_step for row in members)
    # the medians of the modules, weighed by their events: the modules of one shape run the same kernel
    median_us = sum(row.median_us * row.per_step for row in members) / (per_step or 1.0)
    flops, moved = members[0].work.flops, members[0].work.moved_bytes
    tflops = flops / median_us / 1e6 if flops and median_us else None
    tb_s = moved / median_us / 1e6 if moved and median_us else None
    of_arithmetic = tflops / limits.tflops if tflops and limits.tflops else None
    of_memory = tb_s / limits.tb_s if tb_s and limits.tb_s else None
    bound = share = None
    if of_arithmetic is not None or of_memory is not None:
        bound = "arithmetic" if (of_arithmetic or 0.0) >= (of_memory or 0.0) else "memory"
        share = max(of_arithmetic or 0.0, of_memory or 0.0)
    return {
        "per_step": per_step,
        "ms": sum(row.ms for row in members),
        "median_us": median_us,
        "tflops": tflops,
        "tb_s": tb_s,
        "intensity": flops / moved if flops and moved else None,
        "bound": bound,
        "share": share,
        "flops": flops,
        "moved_bytes": moved,
    }


def matrix_flops(rows: Sequence[Row]) -> float:
    """Return the FLOPs of a step that are known: of matrix products, attention and convolutions."""
    return sum(row.per_step * row.work.flops for row in rows if row.work.flops)


def roof_ms(row: Row, limits: Ceilings) -> float | None:
    """Return what a row would take in a step at the nearer ceiling; None where its work is not known."""
    at_arithmetic = row.work.flops / limits.tflops / 1e9 if row.work.flops and limits.tflops else None
    at_memory = row.work.moved_bytes / limits.tb_s / 1e9 if row.work.moved_bytes and limits.tb_s else None
    if at_arithmetic is None and at_memory is None:
        return None
    return row.per_step * max(at_arithmetic or 0.0, at_memory or 0.0)


def floors(rows: Sequence[Row], limits: Ceilings) -> tuple[Floor, ...]:
    """Return the lower bounds of a step, lowest first; none when the device's ceilings are not known."""
    flops = matrix_flops(rows)
    rates = {
        "arithmetic at the maker's figure": limits.tflops_specified,
        "arithmetic at the ceiling": limits.tflops,
    }
    found = [
        Floor(
            label=label,
            ms=flops / rate / 1e9,
            assumes=f"{flops / 1e12:.2f} TFLOP at {rate:.4g} TFLOP/s, everything else free",
        )
        for label, rate in rates.items()
        if flops and rate
    ]
    if limits.tflops and limits.tb_s:
        # a row may beat the copy rate out of the cache; its own time is then its floor
        best = [min(row.ms, roof_ms(row, limits) or row.ms) for row in rows]
        found.append(
            Floor(
                label="today's kernels, each at its ceiling",
                ms=sum(best),
                assumes=f"the same operators, each at {limits.tflops:.4g} TFLOP/s or {limits.tb_s:g} TB/s; no idle",
            )
        )
    return tuple(found)


def waterfall(
    rows: Sequence[Row],
    limits: Ceilings,
    titles: dict[str, str],
    *,
    idle: Mapping[str, float],
    overlap_ms: float,
    step_ms: float,
    profiled: bool,
) -> tuple[Bar, ...]:
    """Return the bars from the arithmetic floor to the measured step; they add up to ``step_ms``.

    Args:
        rows: the rows of a step.
        limits: the ceilings; the floor bar needs an arithmetic one.
        titles: what to call the categories.
        idle: the idle time of the step by cause, milliseconds.
        overlap_ms: what ran at the same time as something else, which the categories count twice.
        step_ms: the measured step.
        profiled: whether the step is the profiled one, in which the idle time is known exactly.
    """
    by_category: dict[str, float] = {}
    for row in rows:
        by_category[row.category] = by_category.get(row.category, 0.0) + row.ms
    bars = []
    for category in ("gemm", "attention", "convolution"):
        mine = [row for row in rows if row.category == category]
        flops = matrix_flops(mine)
        if flops and limits.tflops:
            floor = min(flops / limits.tflops / 1e9, by_category[category])
            by_category[category] -= floor
            bars.append(
                Bar(label=f"{titles[category]} floor", ms=floor, note=f"{flops / 1e12:.2f} TFLOP at the ceiling")
            )
            bars.append(
                Bar(label=f"{titles[category]} above it", ms=by_category.pop(category), note="time over the floor")
            )
    bars.sort(key=lambda bar: "floor" not in bar.label)
    bars += [
        Bar(label=titles[category], ms=ms, note="measured")
        for category, ms in sorted(by_category.items(), key=lambda item: -item[1])
    ]
    bars += [Bar(label=f"idle: {cause}", ms=ms, note="nothing ran") for cause, ms in idle.items()]
    if overlap_ms > 0:
        bars.append(Bar(label="overlap", ms=-overlap_ms, note="ran beside other work"))
    rest = step_ms - sum(bar.ms for bar in bars)
    if profiled:
        bars.append(Bar(label="rounding", ms=rest, note="medians do not add up exactly"))
    else:
        bars.append(Bar(label="not explained", ms=rest, note="of the step without the profiler: other clocks, say"))
    return tuple(bars)
