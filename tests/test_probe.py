"""`invoke probe`, and `invoke profile --try`: what a card does at best, and advice held against what it achieved."""

import io
import json
from types import SimpleNamespace

import pytest
from helpers import NATIVE, ROOT
from rich.console import Console

from bench import schema
from bench.compare import tried
from bench.errors import InvalidDocument
from bench.machine.gpus import Device, Machine
from bench.profiling import probe
from bench.report import probe as report
from tests.trace_writer import FLUX_H100

H100 = Device(index=0, name="NVIDIA H100 80GB HBM3", uuid="GPU-1", memory_bytes=80 << 30)
STEADY = NATIVE | {"between": 0.001, "within": 0.0005}


def gemm(data_type, size, tflops):
    ms = 2e-9 * size**3 / tflops
    return {
        "data_type": data_type, "m": size, "n": size, "k": size,
        "runs": 40, "median_ms": ms, "least_ms": ms, "most_ms": ms, "tflops": tflops,
    }  # fmt: skip


def measured(**changes):
    """A document as `invoke probe` writes it."""
    return {
        "schema": "probe", "schema_version": 1, "started": "2026-11-28T19:40:00+00:00", "seconds": 17.2,
        "engine": {"name": "path", "version": "0.5.23"}, "torch": "2.14.1",
        "device": {"kind": "cuda", "name": H100.name, "uuid": H100.uuid, "driver": "580.1"},
        "threads": None,
        "gemm": [gemm("bf16", 4096, 700.0), gemm("bf16", 8192, 790.0), gemm("fp8", 8192, 1400.0)],
        "copy": [{"bytes": 1 << 30, "runs": 9, "median_ms": 0.7, "least_ms": 0.7, "most_ms": 0.8, "tb_s": 3.07}],
        "attention": [],
        "left_out": [{"what": "fp32 8192", "why": "no time left of 8 s"}],
    } | changes  # fmt: skip


# --- unhappy first ----------------------------------------------------------------------------------------------------


def test_an_engine_whose_torch_does_not_run_is_one_clear_error_and_leaves_no_folder(invoke, replay, home):
    ended = invoke("probe", "--engine", replay())
    assert ended.code == 3
    assert "No module named 'torch'" in ended.err
    assert "Traceback" not in ended.err
    assert not list((home / "runs").glob("*"))


def test_what_was_measured_with_another_driver_or_on_another_card_is_not_taken(home):
    probe._keep(measured())
    assert probe.kept(Machine(kind="cuda", devices=(H100,), driver="580.1"))["gemm"][1]["tflops"] == 790.0
    assert probe.kept(Machine(kind="cuda", devices=(H100,), driver="581.0")) is None
    other = Device(index=0, name=H100.name, uuid="GPU-2", memory_bytes=80 << 30)
    assert probe.kept(Machine(kind="cuda", devices=(other,), driver="580.1")) is None


def test_a_damaged_file_is_as_good_as_none(home):
    probe._keep(measured())
    (kept,) = home.rglob("probes/*.json")
    kept.write_text(kept.read_text()[:100])
    assert probe.kept(Machine(kind="cuda", devices=(H100,), driver="580.1")) is None
    with pytest.raises(InvalidDocument):
        probe._keep(measured(gemm=[{}]))


def test_a_probe_beside_other_work_says_so_and_keeps_it(home, monkeypatch):
    found = measured(name=None) | {"torch": "2.14.1", "threads": 2}
    monkeypatch.setattr("bench.engine.interpreter.run_program", lambda *_: json.dumps(found))
    monkeypatch.setattr("bench.run.watch._share_of_others", lambda *_: 0.62)
    monkeypatch.setattr(probe, "seen", lambda: Machine(kind="cpu", devices=(), driver=None))
    engine = SimpleNamespace(for_record=dict)
    document, path = probe.measure(engine, home / "runs")
    phrase = "other processes used 62 % of the CPU during the measurement"
    assert document["disturbed"] == json.loads(path.read_text())["disturbed"] == [phrase]
    console = Console(file=io.StringIO(), width=300)
    report.show(document, {}, console)
    told = console.file.getvalue()
    assert f"measured under disturbance: {phrase}: the rates are too low" in told
    assert told.index("disturbance") < told.index("TFLOP/s"), "before the numbers"
    report.show(measured(), {}, quiet := Console(file=io.StringIO()))
    assert "disturbance" not in quiet.file.getvalue(), "a probe of an earlier version did not look"


# --- what is known ----------------------------------------------------------------------------------------------------


def test_the_ceiling_of_a_data_type_is_its_best_shape_and_says_where_it_is_from():
    ceilings = {ceiling.of: ceiling for ceiling in probe.ceilings(measured())}
    assert (ceilings["bf16"].rate, ceilings["fp8"].rate, ceilings["memory"].rate) == (790.0, 1400.0, 3.07)
    assert ceilings["bf16"].source == "8192x8192x8192 product, median of 40, on this card by probe, 2026-11-28"
    assert {ceiling.kind for ceiling in ceilings.values()} == {"measured"}
    assert probe.specified(measured())["bf16"] == 989.4
    assert probe.specified(measured(device={"name": "Tesla V9000"})) == {}


# --- an action that is tried ------------------------------------------------------------------------------------------


@pytest.fixture
def profiled(invoke, replay, tiny, home, monkeypatch, tmp_path):
    """Profile a replay engine on a simulated GPU that leaves a captured trace; return how it ended and its folder."""
    monkeypatch.setattr("bench.preflight.checks.BETWEEN_S", 0)

    def run(*arguments, **scenario):
        gpus = tmp_path / "gpus.json"
        gpus.write_text(json.dumps([{}]))
        engine = replay(**STEADY, trace=str(FLUX_H100), **scenario)
        ended = invoke(
            "profile", "--model", "flux-tiny", "--preset-file", tiny, "--engine", engine, *arguments,
            env={"PYTHONPATH": str(ROOT / "tests" / "simulated"), "BENCH_NVML": str(gpus)},
        )  # fmt: skip
        (folder,) = (home / "runs").glob("*-profile-*")
        return ended, folder

    return run


def test_what_is_advised_is_tried_and_predicted_stands_beside_achieved(profiled):
    ended, folder = profiled("--try", "--pairs", "3", factor=2.6, graphs_factor=0.5)
    assert ended.code == 0, ended.err
    assert "the card could not be measured, the table's ceilings are used" in ended.err
    found = json.loads((folder / tried.DOCUMENT).read_text())
    assert schema.violations(found, "tried-action") == []
    assert (found["arm"], found["verdict"], found["steps"]) == ("cuda-graph", "faster", 4)
    step_ms = json.loads((folder / "report" / "report.json").read_text())["context"]["unprofiled_step_ms"]
    assert 0 < found["predicted"]["saving_ms"] < step_ms - 110
    assert found["achieved"]["saving_ms"] == pytest.approx(0.5 * step_ms, rel=0.1)
    assert found["interval"]["low"]["percent"] < found["achieved"]["percent"] < found["interval"]["high"]["percent"]
    assert "tried cuda-graph: predicted to save at most" in " ".join(ended.out.split())
    record = json.loads((folder / "run.json").read_text())
    assert record["instrument"] == {"stage_sync": False, "profiler": True}


def test_a_profile_without_a_flag_to_try_says_so(profiled):
    ended, folder = profiled("--try", factor=2.3)
    assert ended.code == 0, ended.err
    assert "nothing to try: no action of this profile is a flag" in ended.out
    assert not (folder / tried.DOCUMENT).exists()
