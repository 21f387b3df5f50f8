"""The real engine on this machine's CPU, in every configuration that nox built: `nox -s tests_engine`."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
from helpers import ROOT, invoke_command, processes_like
from PIL import Image

from bench import schema
from bench.engine import find
from bench.tour import steps

pytestmark = pytest.mark.engine

CONFIGURATIONS = re.findall(r'^    "(sglang-[\d.]+)": Configuration', (ROOT / "noxfile.py").read_text(), re.MULTILINE)
MINUTES = 60.0


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def invoke(*arguments, runs, timeout=8 * MINUTES, **variables):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SGLANG_", "CUDA_"))}
    return subprocess.run(
        invoke_command(*arguments), cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        timeout=timeout, check=False,
        env=environment | {"BENCH_RUNS": str(runs), "COLUMNS": "100"} | variables,
    )  # fmt: skip


def last_record(ended):
    path = Path(
        next(x for x in reversed(ended.stdout.splitlines()) if x.startswith("record: ")).removeprefix("record: ")
    )
    return json.loads(path.read_text()), path.parent


def engine_processes(runs):
    return [line for line in processes_like("sglang", runs) if "generate" in line or "multiprocessing" in line]


@pytest.fixture(scope="module", params=CONFIGURATIONS)
def engine(request):
    assert request.param in find.built(), f"not built: {find.build_command(request.param)}"
    return request.param


@pytest.fixture(scope="module")
def native(engine, runs):
    """One native run of each configuration, that several tests look at.

    Under CI=true the engine words its warm-up otherwise; GITHUB_ACTIONS does the same. Each wording is met on each
    machine: one configuration runs as in CI, the others as on a desk.
    """
    in_ci = str(engine == CONFIGURATIONS[-1]).lower()
    return invoke("bench", "--model", "flux-tiny", "--engine", engine, runs=runs, CI=in_ci, GITHUB_ACTIONS=in_ci)


def test_a_run_on_the_real_engine_is_native_and_recorded(engine, native):
    assert native.returncode == 0, native.stdout + native.stderr
    record, folder = last_record(native)
    assert schema.violations(record, "run-record") == []
    assert record["verdict"]["outcome"] == "native"
    assert all(proof["holds"] for proof in record["verdict"]["evidence"])
    assert record["engine"]["version"] == engine.removeprefix("sglang-")
    assert record["weights"]["kind"] == "synthetic"
    assert len(record["timings"]["steps_ms"]) == record["preset"]["document"]["steps"] == 4
    assert record["timings"]["metrics"]["denoise_ms"] > 0
    with Image.open(folder / record["requests"][0]["outputs"][0]["file"]) as image:
        assert image.size == (256, 256)
    implementations = {part["name"]: part["implementation"] for part in record["verdict"]["components"]}
    assert implementations == dict.fromkeys(("transformer", "vae", "text_encoder", "text_encoder_2"), "sgl-diffusion")
    assert invoke("validate", folder, folder / "perf.json", runs=folder.parent).returncode == 0


def test_the_environments_paths_are_not_in_the_engines_identity(native):
    record, _ = last_record(native)
    assert str(ROOT) not in json.dumps([record["engine"], record["host"], record["devices"], record["weights"]])


def test_a_quantised_name_is_stopped_at_the_line(engine, native, runs, tmp_path):
    """--no-precheck, because the name alone would be refused before the launch."""
    record, _ = last_record(native)
    source = next(a for a in record["launches"][0]["command"]["argv"] if a.startswith("--model-path=")).removeprefix(
        "--model-path="
    )
    model = shutil.copytree(source, tmp_path / "FLUX.1-dev-tiny-awq")
    command = ["bench", "--model", "flux-tiny", "--engine", engine, "--model-path", model]
    refused = invoke(*command, runs=tmp_path / "none")
    assert refused.returncode == 4
    assert "--no-precheck" in refused.stderr
    assert not (tmp_path / "none").exists()

    ended = invoke(*command, "--no-precheck", runs=runs)
    assert ended.returncode == 4, ended.stdout + ended.stderr
    assert engine_processes(runs) == []
    record, folder = last_record(ended)
    decisive = record["verdict"]["findings"][0]
    assert decisive["id"].startswith("diffusers.")
    whole = (datetime.fromisoformat(record["finished"]) - datetime.fromisoformat(record["started"])).total_seconds()
    assert whole - decisive["at_s"] < 1.0, "seconds from the line to no process left"
    assert record["timings"] is None
    assert " ms" not in ended.stdout
    assert not (folder / "perf.json").exists()


def test_kill_9_leaves_no_engine_process(tmp_path):
    task = subprocess.Popen(
        invoke_command("bench", "--model", "flux-tiny", "--engine", CONFIGURATIONS[0]),
        cwd=ROOT, env=os.environ | {"BENCH_RUNS": str(tmp_path)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 4 * MINUTES
    # the worker is there when the scheduler says where it listens
    while not any(
        "Loading pipeline modules" in log.read_text(errors="replace") for log in tmp_path.glob("*/engine.log")
    ):
        assert time.monotonic() < deadline
        assert task.poll() is None
        time.sleep(0.1)
    assert len(engine_processes(tmp_path)) >= 2
    os.kill(task.pid, signal.SIGKILL)
    task.wait()
    gone = time.monotonic() + 5
    while engine_processes(tmp_path) and time.monotonic() < gone:
        time.sleep(0.02)
    assert engine_processes(tmp_path) == []
    assert list(tmp_path.glob("*/run.json")) == []


def test_a_checkout_over_a_configuration_is_named_by_commit_and_changes(runs, tmp_path):
    """SGLang's contributors run their checkout's python/ folder over installed dependencies."""
    configuration = CONFIGURATIONS[0]
    installed = next(find.built()[configuration].glob("lib/python*/site-packages/sglang"))
    checkout = tmp_path / "sglang"
    shutil.copytree(installed, checkout / "python" / "sglang", ignore=shutil.ignore_patterns("__pycache__"))
    git = ["git", "-C", str(checkout), "-c", "user.name=t", "-c", "user.email=t@example.invalid"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-qm", "as installed"], check=True)
    subprocess.run([*git, "tag", "v0.5.23"], check=True)
    spec = f"source:{checkout}@{configuration}"
    clean = find.find(spec)
    assert clean.source.changes_sha256 is None
    assert clean.version == "0.5.23"
    module = checkout / "python" / "sglang" / "multimodal_gen" / "__init__.py"
    module.write_text(module.read_text() + "\nprint('changed by a contributor', flush=True)\n")
    changed = find.find(spec)
    assert changed.source.commit == clean.source.commit
    assert changed.source.changes_sha256
    ended = invoke("bench", "--model", "flux-tiny", "--engine", spec, runs=runs)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    record, folder = last_record(ended)
    assert record["engine"]["source"] == {
        "commit": changed.source.commit, "changes_sha256": changed.source.changes_sha256,
    }  # fmt: skip
    assert "changed by a contributor" in (folder / "engine.log").read_text(), (
        "the checkout's code ran, not the installed"
    )


def test_each_signal_has_its_emitter_in_the_installed_engine(engine, runs):
    ended = invoke("signals", "--check-engine", engine, runs=runs)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "every signal has its emitter" in ended.stdout


def test_the_judge_catches_every_known_loss(engine, runs):
    ended = invoke("attest", "--self-test", "--engine", engine, runs=runs, timeout=15 * MINUTES)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "6 of 6 as they had to be" in ended.stdout
    assert engine_processes(runs) == []


def test_the_runner_never_has_the_engines_libraries():
    for library in ("torch", "sglang", "diffusers"):
        assert subprocess.run([sys.executable, "-c", f"import {library}"], capture_output=True, check=False).returncode


def test_a_session_serves_ten_requests_with_identical_pixels(engine, runs):
    ended = invoke("bench", "--model", "flux-tiny", "--engine", engine, "--repeats", "10", runs=runs)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    record, folder = last_record(ended)
    assert schema.violations(record, "run-record") == []
    assert len(record["requests"]) == 10
    assert len({request["outputs"][0]["sha256"] for request in record["requests"]}) == 1
    assert record["timings"]["outputs_identical"] is True
    assert record["timings"]["summary"]["denoise_ms"]["interval"] is not None
    dumps = sorted(folder.rglob("perf.json"))
    assert len(dumps) == 10
    assert invoke("validate", *dumps, runs=runs).returncode == 0


def test_a_session_makes_the_pixels_of_the_single_launch(engine, native, runs):
    """The canonical single launch is the reference: a session must run the same workload."""
    single, _ = last_record(native)
    session = next(
        record
        for path in sorted(runs.glob("*/run.json"))
        if (record := json.loads(path.read_text()))["launches"][0]["mode"] == "session"
        and record["engine"]["version"] == engine.removeprefix("sglang-")
    )
    assert session["requests"][0]["outputs"][0]["pixels_sha256"] == single["requests"][0]["outputs"][0]["pixels_sha256"]
    assert session["launches"][0]["delivered"] == single["launches"][0]["delivered"]


def test_a_profile_goes_from_capture_to_html(engine, runs):
    ended = invoke("profile", "--model", "flux-tiny", "--engine", engine, "--steps-profiled", "2", runs=runs)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "no GPU events" in ended.stdout
    folder = max(runs.glob("*-profile-flux-tiny-*"), key=lambda path: path.stat().st_mtime)
    record = json.loads((folder / "run.json").read_text())
    assert schema.violations(record, "run-record") == []
    assert record["kind"] == "profile"
    assert len(record["requests"]) == 3, "the traced request is no timing"
    assert record["profiled"]["perf_dump"]["file"].endswith("perf.profiled.json")
    report = json.loads((folder / "report" / "report.json").read_text())
    assert schema.violations(report, "profile-report") == []
    assert "<html" in (folder / "report" / "report.html").read_text()


def test_every_tiny_twin_is_native_on_a_cpu(runs):
    """In one go, on the newest engine: the families that its CPU platform can run natively."""
    ended = invoke("bench", "--tag", "tiny", "--engine", CONFIGURATIONS[0], "--json", runs=runs, timeout=20 * MINUTES)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = json.loads(ended.stdout)["rows"]
    assert {row["preset"]: row["outcome"] for row in rows} == dict.fromkeys(
        ("flux-tiny", "flux2-klein-tiny", "sd3-tiny", "zimage-tiny"), "native"
    )


def test_a_matrix_measures_the_eager_cell_and_refuses_graphs_without_a_gpu(runs):
    asked = ["--matrix", "cuda-graph", "--quality", "high", "--launches", "1", "--repeats", "2"]
    ended = invoke("bench", "--model", "flux-tiny", "--engine", find.DEFAULT_CONFIGURATION, *asked, runs=runs)
    assert ended.returncode == 10, ended.stderr
    (path,) = runs.glob("*-matrix-*/matrix.json")
    eager, graphs = json.loads(path.read_text())["cells"]
    assert (eager["name"], eager["outcome"], eager["requests"]) == ("high-eager", "native", 2)
    assert eager["outputs_identical"] is True
    assert (graphs["outcome"], graphs["denoise_ms"]) == ("refused", None)
    record = json.loads((path.parent / eager["record"]).read_text())
    assert record["workload"]["warmup"] == "start"
    warmed = [proof for proof in record["verdict"]["evidence"] if proof["id"].startswith("warmup")]
    assert warmed[0]["holds"], "the engine warmed up while it was loading"


def test_the_tour_comes_to_its_end(runs):
    """Every verb once, as a newcomer meets them, each with the exit code that it has to have."""
    ended = invoke("tour", "--yes", "--engine", CONFIGURATIONS[0], runs=runs / "tour", timeout=20 * MINUTES)
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr
    assert f"all {len(steps.STEPS)} steps as they had to be" in ended.stdout
    assert ended.stdout.count(", as it had to be, after") == len(steps.STEPS)
    for _, command in steps.ON_A_GPU:
        assert command in " ".join(ended.stdout.split())
    (folder,) = (runs / "tour").glob("*-tour-flux-tiny-*")
    kept = {path.name for path in folder.glob("*.txt")}
    assert kept == {f"{number:02}-{step.name}.txt" for number, step in enumerate(steps.STEPS, 1)}
    outcomes = [
        json.loads(path.read_text())["verdict"]["outcome"] for path in (runs / "tour").glob("*-bench-*/run.json")
    ]
    assert sorted(outcomes) == ["invalid", "native", "native"]
    assert engine_processes(runs) == []
