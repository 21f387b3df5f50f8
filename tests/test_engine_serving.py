"""Servers of the real engine under load: one launch a test."""

import json
import os
import shlex
import signal
import subprocess

import pytest
from engine_support import CONFIGURATIONS, MINUTES, invoke
from helpers import ROOT, processes_like, wait_until

from bench.serving import server

pytestmark = pytest.mark.engine

ENGINE = CONFIGURATIONS[0]
SHORT = ("--model", "flux-tiny", "--engine", ENGINE, "--steps", "1", "--duration", "5")


@pytest.fixture(name="command")
def _command(tmp_path):
    """Return the words of the command that a load test would start, with its files in the test's folder."""
    shown = invoke("loadtest", *SHORT, "--dry-run", runs=tmp_path).out.replace("\\\n", "")
    return shlex.split(shown.replace(str(ROOT / "RUN_DIRECTORY"), str(tmp_path / "server")))


@pytest.fixture(name="quantised")
def _quantised(command, tmp_path):
    """Return flux-tiny's checkpoint under a name that every version gives to diffusers."""
    model = tmp_path / "FLUX.1-dev-tiny-awq"
    model.symlink_to(next(word for word in command if word.startswith("--model-path=")).partition("=")[2])
    return model


def test_a_server_that_falls_back_is_stopped_before_it_serves(quantised, tmp_path):
    runs = tmp_path / "runs"
    ended = invoke("loadtest", *SHORT, "--model-path", quantised, "--no-precheck", runs=runs)
    assert ended.code == 4, ended.out + ended.err
    assert "diffusers.quant_name" in ended.err
    assert list(runs.glob("*/load.json")) == []


def test_a_fallback_that_no_line_tells_of_is_caught_by_its_counters(command, quantised, tmp_path):
    """A load test's own server logs at level info; somebody else's may not, and answers each request with HTTP 200."""
    changed = {"--log-level": "warning", "--model-path": quantised, "--output-path": tmp_path / "outputs"}
    words = [f"{name}={changed.get(name, value)}" if equals else word
             for word in command for name, equals, value in [word.partition("=")]]  # fmt: skip
    port = next(word.partition("=")[2] for word in words if word.startswith("--port="))
    log = tmp_path / "server.log"
    with log.open("wb") as output, subprocess.Popen(
        ["env", *words], stdout=output, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:  # fmt: skip
        try:
            wait_until(lambda: server.get(f"http://127.0.0.1:{port}/health") is not None, "not ready", 4 * MINUTES)
            ended = invoke("loadtest", *SHORT, "--url", f"http://127.0.0.1:{port}", runs=tmp_path / "runs")
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert "Falling back" not in log.read_text(errors="replace")
    assert ended.code == 4, ended.out + ended.err
    (path,) = (tmp_path / "runs").glob("*/load.json")
    record = json.loads(path.read_text())
    assert [phase["name"] for phase in record["phases"]] == ["warm"]
    rows = [json.loads(line) for line in path.with_name("rows.jsonl").read_text().splitlines()]
    assert [(row["status"], row["fault"]) for row in rows] == [(200, None)] * 3
    assert next(check for check in record["checks"] if check["id"] == "native")["held"] is False


def test_one_request_under_load_is_traced(tmp_path):
    words = ("--model", "flux-tiny", "--engine", ENGINE, "--steps-profiled", "2")
    ended = invoke("profile", *words, "--serve", "--rate", "50", runs=tmp_path)  # faster than any engine on a CPU
    assert ended.code == 0, ended.out + ended.err
    assert "No GPU events" in ended.out
    shown = " ".join(ended.out.split())
    assert "the profiler was on, so the traced request is not a timing" in shown
    assert " ms a denoise step" in shown
    (path,) = tmp_path.glob("*-profile-flux-tiny-*/load.json")
    record = json.loads(path.read_text())
    assert record["verdict"]["outcome"] == "native"
    assert record["instrument"] == {"stage_sync": False, "profiler": True}
    assert record["profiled"]["in_flight_when_sent"] > 0
    assert record["profiled"]["in_flight_when_answered"] > 0
    report = json.loads((path.parent / "report" / "report.json").read_text())
    modules = {module["module"] for module in report["traces"][0]["cpu"]["modules"]}
    assert any("Flux" in module for module in modules), modules
    assert processes_like("sglang", tmp_path) == []
    assert invoke("validate", path.parent, runs=tmp_path).code == 0
