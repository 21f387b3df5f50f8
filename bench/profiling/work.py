"""How much an operator computes and moves, from the shapes it was called with.

FLOPs count a multiply-add as two. Bytes are a model: every input read once and every output written once from and to
memory; what a cache saves or a bad kernel reads twice is in the measured time, not here. Unknown is None, never 0.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.profiling.categories import tensors

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.profiling.trace import Signature

ITEM_BYTES = {
    "c10::BFloat16": 2,
    "c10::Half": 2,
    "float": 4,
    "double": 8,
    "c10::Float8_e4m3fn": 1,
    "c10::Float8_e5m2": 1,
    "signed char": 1,
    "unsigned char": 1,
    "bool": 1,
    "int": 4,
    "long int": 8,
    "c10::complex<float>": 8,
}
"""Bytes of one element, by the type's name in a trace."""

DATA_TYPES = {
    "c10::BFloat16": "bf16",
    "c10::Half": "fp16",
    "float": "fp32",
    "c10::Float8_e4m3fn": "fp8",
    "c10::Float8_e5m2": "fp8",
}
"""The data types that have a ceiling of their own, by the type's name in a trace."""

OPAQUE = re.compile(r"OpaqueType<(\d+)")
"""How a copy kernel's name tells the element size, when its operator's inputs are a list without a type."""

BINARY = frozenset(
    {"aten::mul", "aten::add", "aten::sub", "aten::div", "aten::mul_", "aten::add_", "aten::addcmul", "aten::where"}
)
UNARY = frozenset(
    {
        "aten::gelu",
        "aten::silu",
        "aten::silu_",
        "aten::tanh",
        "aten::sigmoid",
        "aten::native_layer_norm",
        "aten::layer_norm",
        "aten::rms_norm",
        "aten::clone",
        "aten::contiguous",
        "aten::native_group_norm",
    }
)
IN_PLACE_PAIR = re.compile(r"fused_inplace_qknorm|apply_rope.*inplace|rotary_embedding")
"""Operators that read and write their first two inputs (query and key) in place."""

ATTENTION = re.compile(r"(^sgl_kernel::fwd$)|flash|attention|sdpa|fmha", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """FLOPs and bytes of one call, and the data type of its arithmetic (a key of ``DATA_TYPES``' values)."""

    flops: float | None = None
    moved_bytes: float | None = None
    data_type: str | None = None


def estimate(signature: Signature | None, kernel: str) -> Work:
    """Return the work of one call of an operator that launched this kernel; what is not known is None."""
    if signature is None:
        return Work()
    types = [DATA_TYPES[name] for name in signature.types if name in DATA_TYPES]
    try:
        return Work(
            flops=_flops(signature),
            moved_bytes=_moved(signature, kernel),
            data_type=types[0] if types else None,
        )
    except (IndexError, TypeError, ValueError):
        # a call whose inputs are not what its operator's name promises, such as a variant of a newer torch
        return Work()


def _flops(signature: Signature) -> float | None:
    name, dims = signature.operator, signature.dims
    if name in MATRIX_PRODUCTS:
        rows, inner, columns = MATRIX_PRODUCTS[name](dims)
        return 2.0 * rows * inner * columns
    if "conv" in name:
        return _convolution_flops(signature)
    if ATTENTION.search(name):
        query, key, value = tensors(dims)[:3]
        if len(query) != 4 or len(value) != 4:  # noqa: PLR2004 - [batch, sequence, heads, width]
            return None
        if name.startswith("aten::"):  # torch's own order is [batch, heads, sequence, width]
            batch, heads, queries, width = query
            keys = key[2]
        else:
            batch, queries, heads, width = query
            keys = key[1]
        # scores and the weighted sum: 2 products of [queries, width] and [queries, keys]; diffusion is not causal
        return 2.0 * batch * heads * queries * keys * (width + value[3])
    return None


def _mm(a: list[int], b: list[int]) -> tuple[int, int, int]:
    if a[-1] != b[-2]:
        raise ValueError("inner sizes differ")
    return math.prod(a[:-1]), a[-1], b[-1]


MATRIX_PRODUCTS: dict[str, Callable[[tuple[Any, ...]], tuple[int, int, int]]] = {
    "aten::addmm": lambda dims: _mm(dims[1], dims[2]),
    "aten::_addmm_activation": lambda dims: _mm(dims[1], dims[2]),
    "aten::mm": lambda dims: _mm(dims[0], dims[1]),
    "aten::bmm": lambda dims: _mm(dims[0], dims[1]),
    "aten::baddbmm": lambda dims: _mm(dims[1], dims[2]),
    "aten::_scaled_mm": lambda dims: _mm(dims[0], dims[1]),
}
"""Rows, inner size and columns of the operators that are one matrix product, from their input dims."""


def _integers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"-?\d+", text)]


def _convolution_flops(signature: Signature) -> float | None:
    """Return the FLOPs of a convolution: 2 x outputs x inputs per group x kernel size."""
    source, weight = tensors(signature.dims)[:2]
    at = CONVOLUTION_ARGUMENTS.get(signature.operator)
    if at is None or len(signature.concrete) <= max(at):
        return None
    padding, stride, dilation = (_integers(signature.concrete[index]) for index in at)
    rank = len(weight) - 2
    if min(map(len, (padding, stride, dilation))) == 0:
        return None
    sizes = []
    for axis in range(rank):
        one = [values[axis] if len(values) > 1 else values[0] for values in (padding, stride, dilation)]
        reach = one[2] * (weight[2 + axis] - 1) + 1
        sizes.append((source[2 + axis] + 2 * one[0] - reach) // one[1] + 1)
    return 2.0 * source[0] * weight[0] * math.prod(sizes) * math.prod(weight[1:])


CONVOLUTION_ARGUMENTS = {
    "aten::cudnn_convolution": (2, 3, 4),
    "aten::miopen_convolution": (3, 4, 5),
    "aten::mkldnn_convolution": (3, 4, 5),
    "aten::_convolution": (4, 3, 5),
    "aten::convolution": (4, 3, 5),
}
"""Where padding, stride and dilation stand among the arguments of the convolution operators (torch's schemas)."""


def _moved(signature: Signature, kernel: str) -> float | None:
    """Return the bytes that one call must move: inputs once, outputs once."""
    name, dims = signature.operator, signature.dims
    if name == "aten::cat":
        opaque = OPAQUE.search(kernel)
        return 2.0 * int(opaque[1]) * sum(map(math.prod, tensors(tuple(dims[0])))) if opaque else None
    sizes = [
        (math.prod(shape), ITEM_BYTES[kind])
        for shape, kind in zip(dims, signature.types, strict=False)
        if kind in ITEM_BYTES and isinstance(shape, list) and shape
    ]
    if not sizes:
        return None
    inputs = [float(elements * item) for elements, item in sizes]
    written = _written(signature, [elements for elements, _ in sizes])
    if written is None:
        return 2.0 * sum(inputs[:2]) if IN_PLACE_PAIR.search(name) else None
    read = inputs[:3] if ATTENTION.search(name) else inputs
    return sum(read) + written * sizes[0][1]


def _written(signature: Signature, elements: list[int]) -> int | None:
    """Return how many elements an operator writes; 0 for a copy, whose target is among its inputs."""
    name = signature.operator
    if name in BINARY:
        return max(elements)
    if name in UNARY or ATTENTION.search(name):
        return elements[0]
    if name in MATRIX_PRODUCTS:
        rows, _, columns = MATRIX_PRODUCTS[name](signature.dims)
        return rows * columns
    return 0 if name == "aten::copy_" else None
