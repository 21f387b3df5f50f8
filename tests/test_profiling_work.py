from __future__ import annotations

import pytest

from bench.profiling.trace import Signature
from bench.profiling.work import Work, estimate

BF16, FLOAT = "c10::BFloat16", "float"


def signature(operator, dims, types=None, concrete=()):
    kinds = types or [BF16 if shape else "Scalar" for shape in dims]
    return Signature(operator=operator, dims=tuple(dims), types=tuple(kinds), concrete=tuple(concrete))


@pytest.mark.parametrize(
    ("call", "flops"),
    [
        (signature("aten::addmm", [[12288], [4608, 3072], [3072, 12288], [], []]), 2 * 4608 * 3072 * 12288),
        (signature("aten::mm", [[16, 32], [32, 8]]), 2 * 16 * 32 * 8),
        (signature("aten::bmm", [[4, 16, 32], [4, 32, 8]]), 2 * 4 * 16 * 32 * 8),
        (signature("sgl_kernel::fwd", [[1, 4608, 24, 128]] * 3), 4 * 4608 * 4608 * 24 * 128),
        (signature("sgl_kernel::fwd", [[2, 100, 8, 64], [2, 7, 8, 64], [2, 7, 8, 64]]), 4 * 2 * 8 * 100 * 7 * 64),
        (signature("aten::_flash_attention_forward", [[1, 24, 4608, 128]] * 3), 4 * 4608 * 4608 * 24 * 128),
        (
            # 64 -> 128 channels, 3x3, padding 1, on 32x32
            signature(
                "aten::cudnn_convolution",
                [[1, 64, 32, 32], [128, 64, 3, 3], [], [], [], [], [], [], []],
                concrete=["", "", "[1, 1]", "[1, 1]", "[1, 1]", "1"],
            ),
            2 * 32 * 32 * 128 * 64 * 9,
        ),
        (
            signature(
                "aten::mkldnn_convolution",
                [[1, 64, 33, 33], [128, 64, 3, 3], [128], [], [], [], []],
                concrete=["", "", "", "[0, 0]", "[2, 2]", "[1, 1]", "1"],
            ),
            2 * 16 * 16 * 128 * 64 * 9,
        ),
        (signature("aten::gelu", [[1, 4608, 12288]]), None),
        (signature("sglang::something_new", [[4, 4]]), None),
        (signature("aten::mm", [[16, 32], [33, 8]]), None),
        (signature("aten::addmm", []), None),
        (signature("sgl_kernel::fwd", [[4608, 24, 128]] * 3), None),
        (None, None),
    ],
)
def test_flops_follow_from_the_shapes_and_are_none_where_they_do_not(call, flops):
    assert estimate(call, "kernel").flops == flops


@pytest.mark.parametrize(
    ("call", "kernel", "moved"),
    [
        (signature("aten::gelu", [[1, 4608, 12288], []]), "k", 2 * 2 * 4608 * 12288),
        (signature("aten::mul", [[1, 64, 8], [1, 1, 8]]), "k", 2 * (64 * 8 + 8 + 64 * 8)),
        (signature("aten::mul", [[1, 1, 8], [1, 64, 8]]), "k", 2 * (64 * 8 + 8 + 64 * 8)),
        (signature("aten::add", [[64, 8], [64, 8], []]), "k", 3 * 2 * 64 * 8),
        (signature("aten::copy_", [[64, 8], [64, 8], []], [BF16, FLOAT, ""]), "k", 64 * 8 * (2 + 4)),
        (
            signature("aten::cat", [[[1, 8, 4], [1, 8, 16]], []], ["TensorList", "Scalar"]),
            "Cat<OpaqueType<2u>>",
            2 * 2 * 160,
        ),
        (signature("aten::cat", [[[1, 8, 4], [1, 8, 16]], []], ["TensorList", "Scalar"]), "Cat", None),
        (signature("aten::addmm", [[8], [64, 32], [32, 8]]), "nvjet", 2 * (8 + 64 * 32 + 32 * 8 + 64 * 8)),
        (signature("sgl_kernel::fwd", [[1, 64, 2, 8]] * 3), "flash", 4 * 2 * 64 * 2 * 8),
        (
            signature("sglang::fused_inplace_qknorm_rope", [[64, 2, 8], [64, 2, 8], [8], [8]]),
            "k",
            2 * 2 * 2 * 64 * 2 * 8,
        ),
        (signature("sglang::something_new", [[64, 8]]), "k", None),
        (signature("aten::mul", [[64, 8], []], ["c10::Unheard", "Scalar"]), "k", None),
    ],
)
def test_bytes_are_the_inputs_once_and_the_outputs_once(call, kernel, moved):
    assert estimate(call, kernel).moved_bytes == moved


def test_the_data_type_is_that_of_the_first_tensor():
    assert estimate(signature("aten::mm", [[2, 2], [2, 2]]), "k").data_type == "bf16"
    assert estimate(signature("aten::mm", [[2, 2], [2, 2]], ["c10::Float8_e4m3fn"] * 2), "k").data_type == "fp8"
    assert estimate(None, "k") == Work()
