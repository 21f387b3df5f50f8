"""What kind of work each GPU event is: the kernel's name first, then what only the operator's input shapes tell.

An adaLN modulation is a plain ``elementwise_kernel`` by name; one input of shape [.., 1, D] beside one of [.., S, D]
shows it. A GEMM of a few rows moves weights and computes next to nothing: it is bound by memory, not by arithmetic.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bench.catalog.kernel_categories import kernel_categories, of_kernel
from bench.profiling.trace import KERNEL, MEMCPY

if TYPE_CHECKING:
    from bench.profiling.trace import Signature

SKINNY_ROWS = 8
"""A GEMM of at most so many rows is bound by the bandwidth of its weights on every GPU of the table."""

SMALL_ELEMENTS = 131_072
"""An elementwise operator on less than this is launch overhead, whatever it computes (256 KiB of bf16)."""

ELEMENTWISE = frozenset({"aten::mul", "aten::add", "aten::addcmul", "aten::sub", "aten::mul_", "aten::add_"})

REFINED = {
    "skinny-gemm": "skinny GEMM (M <= 8)",
    "residual": "residual add",
    "small": "small elementwise",
    "memory": "memory copy + set",
    "other": "other",
}
"""The categories that no kernel name shows, with their titles."""


def titles() -> dict[str, str]:
    """Return the title of every category id."""
    return {category.id: category.title for category in kernel_categories()} | REFINED


def tensors(dims: tuple[Any, ...]) -> list[list[int]]:
    """Return the shapes of the tensor inputs: neither scalars nor lists of tensors."""
    return [shape for shape in dims if isinstance(shape, list) and shape and all(isinstance(s, int) for s in shape)]


def operands(signature: Signature) -> str | None:
    """Return how the inputs of a binary operator meet, if it is one that a fusion could take.

    ``tensor-then-vector`` / ``vector-then-tensor``: one is broadcast along the sequence ([.., 1, D] with [.., S, D]);
    ``same-shape``; else None.
    """
    shapes = [shape for shape in tensors(signature.dims) if len(shape) >= 3]  # noqa: PLR2004 - [batch, sequence, width]
    if len(shapes) < 2:  # noqa: PLR2004 - binary
        return None
    first, second = shapes[:2]
    if first == second:
        return "same-shape"
    if first[-2] == 1 < second[-2]:
        return "vector-then-tensor"
    if second[-2] == 1 < first[-2]:
        return "tensor-then-vector"
    return None


def categorise(name: str, kind: int, signature: Signature | None) -> str:
    """Return the category id of a GPU event: its name, its kind (``trace.KERNEL``, ...) and its operator's call."""
    if kind != KERNEL:
        if kind == MEMCPY and "PtoP" in name:
            return "communication"
        return "memory"
    category = of_kernel(name)
    if signature is None:
        return category
    if category == "gemm":
        return "skinny-gemm" if 0 < _rows(signature) <= SKINNY_ROWS else category
    if category in {"elementwise", "other"} and signature.operator in ELEMENTWISE:
        return _elementwise(signature, category)
    return category


def _rows(signature: Signature) -> int:
    """Return M of a matrix product, 0 when the operator is unknown."""
    at = {"aten::addmm": 1, "aten::_addmm_activation": 1, "aten::mm": 0, "aten::linear": 0, "aten::_scaled_mm": 0}
    index = at.get(signature.operator)
    if index is None or len(signature.dims) <= index:
        return 0
    shape = signature.dims[index]
    return math.prod(shape[:-1]) if isinstance(shape, list) and len(shape) > 1 else 0


def _elementwise(signature: Signature, category: str) -> str:
    how = operands(signature)
    if how in {"tensor-then-vector", "vector-then-tensor"}:
        return "modulation"
    shapes = tensors(signature.dims)
    if shapes and all(math.prod(shape) <= SMALL_ELEMENTS for shape in shapes):
        return "small"
    if signature.operator in {"aten::add", "aten::add_"} and len(shapes) > 1 and shapes[0] == shapes[1]:
        return "residual"
    return category
