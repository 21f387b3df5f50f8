from __future__ import annotations

import numpy as np
import pytest

from bench.profiling.attribution import attribute
from bench.profiling.categories import categorise
from bench.profiling.reader import read
from bench.profiling.trace import KERNEL, MEMCPY, MEMSET, Signature
from tests.trace_writer import FLASH, FLUX, Script, kernel, launch, module, op, step, write


def attributed(tmp_path, events):
    return attribute(read(write(tmp_path / "x.json", events)))


def test_an_event_counts_only_if_its_launch_is_inside_a_step(tmp_path):
    events = [
        step(1, 100, 50),
        kernel("backlog", 110, 5, 1),
        launch(2, 90),
        kernel("before", 120, 5, 2),
        launch(3, 120),
        kernel("inside", 130, 5, 3),
        launch(4, 160),
        kernel("after", 140, 5, 4),
    ]
    found = attributed(tmp_path, events)
    assert found.launched.tolist() == [False, True, True, True]
    assert found.counted.tolist() == [False, False, True, False]


def test_the_step_is_that_of_the_launch_not_of_the_kernel(tmp_path):
    events = [step(1, 0, 10), step(2, 20, 10), launch(1, 5), kernel("late", 25, 1, 1)]
    found = attributed(tmp_path, events)
    assert [found.steps.labels[index] for index in found.step] == ["1"]


def test_driver_launches_count_like_runtime_launches(tmp_path):
    events = [step(1, 0, 10), launch(1, 5, name="cuLaunchKernelEx", category="cuda_driver"), kernel("nvjet", 6, 1, 1)]
    assert attributed(tmp_path, events).counted.all()


def test_kernels_of_one_graph_launch_share_its_step(tmp_path):
    events = [step(1, 0, 10), launch(1, 5, name="cudaGraphLaunch"), kernel("a", 6, 1, 1), kernel("b", 7, 1, 1)]
    assert attributed(tmp_path, events).counted.tolist() == [True, True]


def test_the_module_path_is_that_of_the_frames_open_at_the_launch(tmp_path):
    events = [
        step(1, 0, 100),
        module("FluxTransformer2DModel_0", 10, 50),
        module("Block_3", 20, 20),
        module("Linear_7", 25, 5),
        *(
            event
            for n, at in enumerate((5, 15, 22, 26, 30, 41, 60, 70), 1)
            for event in (launch(n, at), kernel("k", 200 + n, 1, n))
        ),
    ]
    found = attributed(tmp_path, events)
    root, block = "FluxTransformer2DModel_0", "Block_3"
    assert [found.paths[index] for index in found.path] == [
        (),
        (root,),
        (root, block),
        (root, block, "Linear_7"),
        (root, block),  # a frame does not contain its own end
        (root,),
        (),
        (),
    ]


def test_frames_of_another_thread_are_no_modules_of_a_launch(tmp_path):
    events = [step(1, 0, 100), module("Decoder_0", 0, 50, thread=2), launch(1, 10), kernel("k", 20, 1, 1)]
    assert attributed(tmp_path, events).path.tolist() == [0]


def test_a_trace_without_module_frames_has_no_paths(tmp_path):
    found = attributed(tmp_path, [step(1, 0, 10), launch(1, 5), kernel("k", 6, 1, 1)])
    assert found.paths == ((),)


def test_without_annotations_a_step_is_a_forward_of_the_denoiser(tmp_path):
    script = Script()
    script.call("encode", modules=["T5EncoderModel_0"]).call("encode", modules=["CLIPTextTransformer_0"])
    for _ in range(3):
        script.call(FLASH, modules=["FluxTransformer2DModel_0", "FluxTransformerBlock_0"]).call("scheduler")
    for _ in range(9):
        script.call("conv", modules=["Decoder_0"])
    found = attribute(read(script.write(tmp_path / "x.json")))
    assert (found.steps.found_by, found.steps.labels) == ("module forwards", ("1", "2", "3"))
    names = [found.trace.names[index] for index in found.trace.gpu.name]
    assert [(name, step) for name, step in zip(names, found.step.tolist(), strict=True)][2:8] == [
        (FLASH, 0), ("scheduler", 0), (FLASH, 1), ("scheduler", 1), (FLASH, 2), ("scheduler", -1),
    ]  # fmt: skip
    assert not found.counted[:2].any()
    assert not found.counted[8:].any()


def test_without_annotations_and_modules_the_whole_trace_is_one_window(tmp_path):
    found = attributed(tmp_path, [launch(1, 5), kernel("a", 6, 1, 1), kernel("backlog", 7, 1, 2)])
    assert found.steps.found_by == "nothing"
    assert found.counted.tolist() == [True, False]


def test_six_annotations_are_six_steps_whatever_the_file_is_called(tmp_path):
    script = Script()
    for number in range(1, 7):
        script.step(number, lambda each: each.call("k"))
    assert len(attribute(read(script.write(tmp_path / "flux_5_steps.trace.json.gz"))).steps) == 6


def test_steps_are_in_the_order_of_time_not_of_the_file(tmp_path):
    found = attributed(tmp_path, [step(10, 30, 5), step(9, 10, 5), launch(1, 31), kernel("k", 40, 1, 1)])
    assert found.steps.labels == ("9", "10")
    assert found.step.tolist() == [1]


def test_the_fixture_is_attributed_as_the_reference_says():
    found = attribute(read(FLUX))
    counted = found.counted
    assert found.steps.labels == ("4", "5", "6")
    assert np.bincount(found.step[counted]).tolist() == [2105, 2105, 2105]
    assert (found.operator[counted] >= 0).mean() == pytest.approx(0.99905, abs=1e-5)
    assert (found.path[counted] > 0).mean() == pytest.approx(0.99715, abs=1e-5)
    assert found.trace.gpu.kind[~found.launched].size > 400, "the backlog of the step before"


ELEMENTWISE = "void at::native::elementwise_kernel<128, 4, X>(int)"
BIG, VECTOR = [1, 4096, 3072], [1, 1, 3072]


@pytest.mark.parametrize(
    ("kernel_name", "operator", "dims", "category"),
    [
        ("nvjet_sm90_tst_192x192_64x4_2x1_v_bz_coopB_bias_TNN", "aten::addmm", [[8], [4608, 8], [8, 8]], "gemm"),
        ("nvjet_sm90_tst_192x8_64x8_4x1_v_bz_bias_TNT", "aten::addmm", [[8], [1, 3072], [3072, 8]], "skinny-gemm"),
        ("void cublasLt::splitKreduce_kernel<32>(int)", "aten::addmm", [[8], [8, 3072], [3072, 8]], "skinny-gemm"),
        ("sm90_xmma_gemm_bf16bf16", None, [], "gemm"),
        (FLASH, "sgl_kernel::fwd", [], "attention"),
        ("fmha_cutlassF_bf16_aligned", None, [], "attention"),
        ("void (anonymous namespace)::fused_qknorm_rope_warp<128l>(P)", None, [], "qknorm-rope"),
        ("_rotary_embedding_kernel", None, [], "rope"),
        ("BatchQKApplyRotaryPosIdsKernel", None, [], "rope"),
        (ELEMENTWISE, "aten::mul", [BIG, VECTOR], "modulation"),
        (ELEMENTWISE, "aten::mul", [VECTOR, BIG], "modulation"),
        (ELEMENTWISE, "aten::add", [BIG, VECTOR, []], "modulation"),
        (ELEMENTWISE, "aten::add", [BIG, BIG, []], "residual"),
        (ELEMENTWISE, "aten::mul", [BIG, BIG], "elementwise"),
        (ELEMENTWISE, "aten::add", [VECTOR, VECTOR, []], "small"),
        (ELEMENTWISE, "aten::pow", [BIG, []], "elementwise"),
        ("void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<T>(int)", None, [], "norm"),
        (
            "void at::native::vectorized_elementwise_kernel<8, at::native::GeluCUDAKernelImpl(X)>(int)",
            None,
            [],
            "activation",
        ),
        ("void at::native::vectorized_elementwise_kernel<8, at::native::silu_kernel(X)>(int)", None, [], "activation"),
        ("void at::native::(anonymous namespace)::CatArrayBatchedCopy_vectorized<T>(char*)", None, [], "copy"),
        ("void at::native::unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda(X)>(int)", None, [], "copy"),
        (
            "void at::native::unrolled_elementwise_kernel<at::native::CUDAFunctor_add<float>>(int)",
            None,
            [],
            "elementwise",
        ),
        ("ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)", None, [], "communication"),
        ("cudnn::engines_precompiled::nchwToNhwcKernel<T>", None, [], "convolution"),
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16", None, [], "convolution"),
        ("_layernorm_modulate_kernel", None, [], "modulation"),
        ("triton_poi_fused_add_0", None, [], "compiled"),
        ("something_unheard_of", None, [], "other"),
    ],
)
def test_the_category_is_told_by_name_then_by_shape(kernel_name, operator, dims, category):
    signature = Signature(operator=operator, dims=tuple(dims)) if operator else None
    assert categorise(kernel_name, KERNEL, signature) == category


def test_copies_and_sets_are_memory():
    assert categorise("Memcpy DtoD (Device -> Device)", MEMCPY, None) == "memory"
    assert categorise("Memset (Device)", MEMSET, None) == "memory"
    assert categorise("Memcpy PtoP (Device -> Device)", MEMCPY, None) == "communication"


def test_an_event_without_operator_has_no_signature(tmp_path):
    events = [
        step(1, 0, 10),
        op("aten::mm", 1, 5, 9, [[2, 2], [2, 2]]),
        launch(1, 2),
        kernel("a", 6, 1, 1, 9),
        launch(2, 3),
        kernel("b", 8, 1, 2),
    ]
    found = attributed(tmp_path, events)
    assert [index >= 0 for index in found.signature] == [True, False]
