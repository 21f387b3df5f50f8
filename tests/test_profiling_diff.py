from __future__ import annotations

import pytest

from bench import schema
from bench.errors import InvalidDocument, UsageError
from bench.profiling.analysis import analyse
from bench.profiling.diff import diff
from bench.profiling.load import load, pair
from bench.report import profile
from bench.report.profile_view import view
from tests.trace_writer import CPU, FLASH, FLUX, HEAD, Script

GEMM = [[3072], [4096, 3072], [3072, 3072]]
WIDE = [[12288], [4096, 3072], [3072, 12288]]


def analysed(tmp_path, calls, name="a.json", head=HEAD, steps=4):
    script = Script()
    for number in range(1, steps + 1):
        script.step(number, lambda each, number=number: calls(each, number))
    return analyse([script.write(tmp_path / name, head)])["traces"][0]


def usual(each, _number=0, speed=1.0):
    each.call("nvjet", 120 * speed, "aten::addmm", GEMM, modules=["FluxTransformer2DModel_0", "Linear_0"])
    each.call("nvjet", 400 * speed, "aten::addmm", WIDE, modules=["FluxTransformer2DModel_0", "Linear_1"])
    each.call(FLASH, 200 * speed, "sgl_kernel::fwd", [[1, 64, 2, 8]] * 3)
    each.call("gelu", 60 * speed, "aten::gelu", [[1, 4096, 12288]])


@pytest.fixture(scope="module")
def flux():
    return analyse([FLUX])["traces"][0]


def test_the_slower_clock_of_the_last_step_is_found(flux):
    found = diff(flux, flux, a_steps=["4", "5"], b_steps=["6"])
    assert found["verdict"]["kind"] == "slower clock"
    assert found["verdict"]["same_work"]
    assert found["totals"]["work_ms"] == 0
    assert found["totals"]["speed_ms"] == pytest.approx(14.8, abs=0.2)
    top = found["buckets"][0]
    assert (top["operator"], top["shape"], top["state"]) == ("aten::addmm", "3072, 4608x15360, 15360x3072", "slower")
    assert top["delta_ms"] / top["a_ms"] == pytest.approx(0.155, abs=0.01)
    assert top["a_per_step"] == top["b_per_step"] == 38


def test_the_half_with_the_slow_step_names_it(flux):
    found = diff(flux, flux, a_steps=["4"], b_steps=["5", "6"])
    assert found["verdict"]["kind"] == "slower clock"
    assert "B's step 6 (1.12 x)" in found["verdict"]["sentence"]
    assert [step["label"] for step in found["steps"] if step["slower_clock"]] == ["6"]


def test_a_trace_is_no_different_from_itself(flux):
    found = diff(flux, flux)
    assert found["verdict"]["kind"] == "no change"
    assert found["totals"]["delta_ms"] == 0
    assert {bucket["state"] for bucket in found["buckets"]} == {"same"}


def test_every_diff_keeps_its_schema(flux):
    assert schema.violations(diff(flux, flux, a_steps=["4"], b_steps=["6"]), "profile-diff") == []


def test_more_launches_of_the_same_are_more_work(tmp_path):
    def more(each, _number):
        usual(each)
        each.call("gelu", 60, "aten::gelu", [[1, 4096, 12288]])

    found = diff(analysed(tmp_path, usual), analysed(tmp_path, more, "b.json"))
    assert found["verdict"]["kind"] == "more work"
    assert not found["verdict"]["same_work"]
    bucket = found["buckets"][0]
    assert (bucket["state"], bucket["a_per_step"], bucket["b_per_step"]) == ("more", 1, 2)
    assert bucket["work_ms"] == pytest.approx(0.060)
    assert bucket["speed_ms"] == pytest.approx(0.0)


def test_what_appeared_and_what_vanished_is_work(tmp_path):
    def fused(each, _number):
        each.call("nvjet_gelu", 125, "aten::_addmm_activation", GEMM, modules=["FluxTransformer2DModel_0", "Linear_0"])
        each.call("nvjet", 400, "aten::addmm", WIDE, modules=["FluxTransformer2DModel_0", "Linear_1"])
        each.call(FLASH, 200, "sgl_kernel::fwd", [[1, 64, 2, 8]] * 3)

    found = diff(analysed(tmp_path, usual), analysed(tmp_path, fused, "b.json"))
    states = {bucket["operator"] + bucket["shape"]: bucket["state"] for bucket in found["buckets"]}
    assert states["aten::gelu1x4096x12288"] == "vanished"
    assert states["aten::_addmm_activation3072, 4096x3072, 3072x3072"] == "appeared"
    assert found["verdict"]["kind"] == "less work"
    assert found["totals"]["work_ms"] == pytest.approx(-0.055)


def test_another_kernel_for_the_same_call_is_shown_side_by_side(tmp_path):
    def other(each, _number):
        each.call("nvjet", 120, "aten::addmm", GEMM, modules=["FluxTransformer2DModel_0", "Linear_0"])
        each.call("cutlass_gemm", 500, "aten::addmm", WIDE, modules=["FluxTransformer2DModel_0", "Linear_1"])
        each.call(FLASH, 200, "sgl_kernel::fwd", [[1, 64, 2, 8]] * 3)
        each.call("gelu", 60, "aten::gelu", [[1, 4096, 12288]])

    found = diff(analysed(tmp_path, usual), analysed(tmp_path, other, "b.json"))
    bucket = found["buckets"][0]
    assert (bucket["state"], bucket["a_kernels"], bucket["b_kernels"]) == (
        "other kernel",
        ["nvjet x1"],
        ["cutlass_gemm x1"],
    )
    assert bucket["speed_ms"] == pytest.approx(0.100)
    assert found["verdict"]["kind"] == "slower kernels"


def test_one_slower_kernel_is_not_a_slower_clock(tmp_path):
    def one(each, _number):
        each.call("nvjet", 200, "aten::addmm", GEMM, modules=["FluxTransformer2DModel_0", "Linear_0"])
        each.call("nvjet", 400, "aten::addmm", WIDE, modules=["FluxTransformer2DModel_0", "Linear_1"])
        each.call(FLASH, 200, "sgl_kernel::fwd", [[1, 64, 2, 8]] * 3)
        each.call("gelu", 60, "aten::gelu", [[1, 4096, 12288]])

    found = diff(analysed(tmp_path, usual), analysed(tmp_path, one, "b.json"))
    assert found["verdict"]["kind"] == "slower kernels"
    assert found["verdict"]["same_work"]
    assert not any(step["slower_clock"] for step in found["steps"])


def test_every_kernel_slower_alike_is_a_slower_clock(tmp_path):
    slow = analysed(tmp_path, lambda each, number: usual(each, number, speed=1.1), "b.json")
    found = diff(analysed(tmp_path, usual), slow)
    assert found["verdict"]["kind"] == "slower clock"
    assert found["verdict"]["sentence"].startswith("same work, slower clock: ")


def test_faster_kernels_are_faster(tmp_path):
    fast = analysed(tmp_path, lambda each, number: usual(each, number, speed=0.8), "b.json")
    assert diff(analysed(tmp_path, usual), fast)["verdict"]["kind"] == "faster kernels"


def test_more_waiting_is_more_idle(tmp_path):
    def waiting(each, number):
        usual(each, number)
        each.call("gelu", 0.5, gap=200)

    def queued(each, number):
        usual(each, number)
        each.call("gelu", 0.5)

    found = diff(analysed(tmp_path, queued), analysed(tmp_path, waiting, "b.json"))
    assert found["verdict"]["kind"] == "more idle"
    assert found["totals"]["idle_ms"] == pytest.approx(0.199)


def test_a_change_within_the_spread_of_a_is_marked(tmp_path):
    noisy = analysed(tmp_path, lambda each, number: usual(each, number, speed=1 + 0.1 * (number % 2)))
    found = diff(noisy, analysed(tmp_path, lambda each, number: usual(each, number, speed=1.06), "b.json"))
    assert all(bucket["within_spread"] for bucket in found["buckets"])


def test_another_device_is_refused_unless_forced(tmp_path):
    other = HEAD | {"deviceProperties": [{"name": "NVIDIA B200", "computeMajor": 10, "computeMinor": 0}]}
    a, b = analysed(tmp_path, usual), analysed(tmp_path, usual, "b.json", other)
    with pytest.raises(UsageError, match="A ran on NVIDIA H200, B on NVIDIA B200"):
        diff(a, b)
    assert diff(a, b, force=True)["warnings"] == ["A ran on NVIDIA H200, B on NVIDIA B200"]


def test_another_workload_is_refused(tmp_path):
    def small(each, _number):
        each.call("nvjet", 30, "aten::addmm", [[3072], [1024, 3072], [3072, 3072]])

    with pytest.raises(UsageError, match="another shape or model"):
        diff(analysed(tmp_path, usual), analysed(tmp_path, small, "b.json"))


def test_a_step_that_is_not_there_is_refused_with_those_that_are(flux):
    with pytest.raises(UsageError) as error:
        diff(flux, flux, a_steps=["9"])
    assert "A has no step 9" in str(error.value)
    assert "steps: 4, 5, 6" in str(error.value)


def test_a_trace_without_gpu_events_is_refused(flux):
    with pytest.raises(UsageError, match="B has no GPU events"):
        diff(flux, analyse([CPU])["traces"][0])


def test_a_report_its_folder_and_its_trace_are_the_same(tmp_path):
    written = analyse([FLUX])
    profile.write("profile-report", written, view(written), tmp_path)
    assert load(tmp_path) == load(tmp_path / "report.json") == load(FLUX) == written


def test_a_folder_without_a_report_is_refused(tmp_path):
    with pytest.raises(UsageError, match="has no report"):
        load(tmp_path)


def test_a_report_of_another_version_is_refused(tmp_path):
    (tmp_path / "report.json").write_text('{"schema_version": 99}')
    with pytest.raises(InvalidDocument, match="schema_version"):
        load(tmp_path)


def test_ranks_are_paired(tmp_path):
    def report(ranks, name):
        files = []
        for rank in ranks:
            head = HEAD | {"distributedInfo": {"rank": rank, "world_size": 4}}
            files.append(Script().step(1, usual).write(tmp_path / f"{name}{rank}.json", head))
        return analyse(files)

    a, b = report([1, 0, 2], "a"), report([2, 3], "b")
    assert [trace["source"]["rank"] for trace in a["traces"]] == [0, 1, 2]
    assert [trace["source"]["rank"] for trace in pair(a, b)] == [2, 2]
    with pytest.raises(UsageError, match="no rank in common"):
        pair(report([0, 1], "c"), b)
