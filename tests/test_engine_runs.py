"""Runs of the real engine that no other test can use; what can be shared is in test_engine.py."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import chaos
import pytest
from engine_support import CONFIGURATIONS, MINUTES, engine_processes, invoke
from helpers import ROOT, invoke_command, processes_like, record_path, wait_for_task, wait_until

from bench.catalog import presets
from bench.engine import find

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def test_kill_9_leaves_no_engine_process(tmp_path):
    task = subprocess.Popen(
        invoke_command("bench", "--model", "flux-tiny", "--engine", CONFIGURATIONS[0]),
        cwd=ROOT, env=os.environ | {"BENCH_RUNS": str(tmp_path)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for_task(
        task,
        lambda: any(
            "Loading pipeline modules" in log.read_text(errors="replace") for log in tmp_path.glob("*/engine.log")
        ),
        "the engine's worker has not started",
        within_s=8 * MINUTES,
    )
    assert len(engine_processes(tmp_path)) >= 2
    os.kill(task.pid, signal.SIGKILL)
    task.wait()
    wait_until(lambda: not engine_processes(tmp_path), "the engine's processes are still there")
    assert list(tmp_path.glob("*/run.json")) == []


@pytest.mark.parametrize("seed", range(1, 6))
def test_nothing_is_left_of_a_real_engine_whoever_dies(seed, tmp_path):
    """What `nox -s chaos` does 200 times to the replay engine."""
    chance = random.Random(seed)
    task = subprocess.Popen(
        invoke_command("bench", "--model", "flux-tiny", "--engine", CONFIGURATIONS[0], "--timeout", "90"),
        cwd=ROOT, env=os.environ | {"BENCH_RUNS": str(tmp_path / "runs")},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for_task(task, lambda: "engine" in chaos.roles(task), "no engine was started", 8 * MINUTES)
        time.sleep(chance.uniform(0, 30))
        done = chaos.strike(task, chance)
    finally:
        task.kill()
        task.wait()
    wait_until(lambda: not processes_like("", tmp_path / "runs"), f"something is left after {done}")
    chaos.check_records(tmp_path / "runs", done)


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
    assert ended.code == 0, ended.out + ended.err
    path = record_path(ended)
    record, folder = json.loads(path.read_text()), path.parent
    assert record["engine"]["source"] == {
        "commit": changed.source.commit, "changes_sha256": changed.source.changes_sha256,
    }  # fmt: skip
    assert "changed by a contributor" in (folder / "engine.log").read_text(), (
        "the checkout's code ran, not the installed"
    )


def test_the_runner_never_has_the_engines_libraries():
    for library in ("torch", "sglang", "diffusers"):
        assert subprocess.run([sys.executable, "-c", f"import {library}"], capture_output=True, check=False).returncode


def test_every_tiny_twin_is_native_on_a_cpu(runs):
    """In one go, on the newest engine: the families, beside FLUX.1, that its CPU platform can run natively."""
    twins = ("flux2-klein-tiny", "sd3-tiny", "zimage-tiny")
    assert {"flux-tiny", *twins} == {key for key, preset in presets.built_in().items() if "tiny" in preset.tags}
    ended = invoke(
        "bench", "--model", ",".join(twins), "--engine", CONFIGURATIONS[0], "--json", runs=runs, timeout=20 * MINUTES
    )
    assert ended.code == 0, ended.out + ended.err
    rows = json.loads(ended.out)["rows"]
    assert {row["preset"]: row["outcome"] for row in rows} == dict.fromkeys(twins, "native")


def test_graphs_without_a_gpu_are_refused_before_any_cell_is_measured(runs):
    asked = ["--matrix", "cuda-graph", "--quality", "high", "--launches", "1", "--repeats", "2"]
    ended = invoke("bench", "--model", "flux-tiny", "--engine", find.DEFAULT_CONFIGURATION, *asked, runs=runs)
    assert ended.code == 10, ended.err
    assert "CUDA graphs need a GPU" in ended.err
    assert not list(runs.glob("*-matrix-*"))


def test_a_matrix_measures_its_cells_warmed_at_the_start(runs):
    asked = ["--engine", find.DEFAULT_CONFIGURATION, "--matrix", "quality", "--launches", "1", "--repeats", "2"]
    ended = invoke("bench", "--model", "flux-tiny", *asked, runs=runs, timeout=20 * MINUTES)
    assert ended.code == 0, ended.err
    (path,) = runs.glob("*-matrix-*/matrix.json")
    cells = {cell["name"]: cell for cell in json.loads(path.read_text())["cells"]}
    high = cells["high-eager"]
    assert (high["outcome"], high["requests"], high["outputs_identical"]) == ("degraded", 2, True)
    record = json.loads((path.parent / high["record"]).read_text())
    # its fusion wants half precision, which a CPU run does not have: asked, not engaged
    assert [found["id"] for found in record["verdict"]["findings"] if found["severity"] == "degraded"] == [
        "receipt.quality"
    ]
    assert record["workload"]["warmup"] == "start"
    warmed = [proof for proof in record["verdict"]["evidence"] if proof["id"].startswith("warmup")]
    assert warmed[0]["holds"], "the engine warmed up while it was loading"
