"""What turning a fast path on would save: models of bytes and rates, upper bounds, never measured."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bench.profiling.categories import SKINNY_ROWS, tensors
from bench.profiling.roofline import BEST_SHAPE_LEAST_MS
from bench.profiling.work import ITEM_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.catalog.fast_paths import FastPath
    from bench.profiling.roofline import Ceilings
    from bench.profiling.table import Row


def is_square_projection(row: Row) -> bool:
    """Tell whether a row is a GEMM of [M, D] by [D, D], as the projections of attention are."""
    if row.category != "gemm" or row.operator != "aten::addmm" or row.signature is None or not row.work.flops:
        return False
    shapes = tensors(row.signature.dims)
    return len(shapes) >= 3 and shapes[1][0] > SKINNY_ROWS and shapes[2][0] == shapes[2][1]  # noqa: PLR2004 - bias, A, B


def saving(
    path: FastPath,
    replaced: Sequence[Row],
    matches: Sequence[tuple[bool, list[Row]]],
    rows: Sequence[Row],
    limits: Ceilings,
) -> float | None:
    """Return the modelled saving in milliseconds of a step; None without a model, or without a ceiling it needs."""
    if path.saving is None:
        return None
    if "at_best_gemm_rate" in path.saving:
        return sum(_below_best_rate(row, rows) for row in replaced)
    passes: int = path.saving["ideal_passes"]
    total = sum(row.ms for row in replaced)
    if passes == 0:
        return total
    if limits.tb_s is None:
        return None
    sites = [row for rule, (_, found) in zip(path.off, matches, strict=True) if rule.sites for row in found]
    remaining = sum(row.per_step * passes * _large_tensor_bytes(row) for row in sites)
    return max(0.0, total - remaining / limits.tb_s / 1e9)


def _large_tensor_bytes(row: Row) -> float:
    assert row.signature is not None
    return max(
        (
            math.prod(shape) * ITEM_BYTES.get(kind, 0)
            for shape, kind in zip(row.signature.dims, row.signature.types, strict=False)
            if isinstance(shape, list) and shape and all(isinstance(size, int) for size in shape)
        ),
        default=0.0,
    )


def _below_best_rate(row: Row, rows: Sequence[Row]) -> float:
    """Return what a GEMM loses in a step against the best wider GEMM of as many rows in the trace."""
    height: int = tensors(row.signature.dims)[1][0] if row.signature else 0
    rates = [
        other.tflops
        for other in rows
        if other.category == "gemm"
        and other.signature is not None
        and other.tflops
        and other.ms >= BEST_SHAPE_LEAST_MS
        and len(tensors(other.signature.dims)) > 1
        and tensors(other.signature.dims)[1][0] == height
    ]
    best = max(rates, default=0.0)
    return row.ms * (1 - row.tflops / best) if row.tflops and best > row.tflops else 0.0
