"""`invoke profile` and `invoke profile-diff` through the real tasks, on traces made elsewhere."""

import gzip
import json
import os
import shutil

import pytest
from helpers import DATA, NATIVE

from bench import schema
from bench.report import next_step

TRACE = DATA / "traces" / "flux-h200.trace.json.gz"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file"),
        (b"", "empty"),
        (b'{"a": 1}', "not a trace"),
        (gzip.compress(b'{"traceEvents": [')[:20], ""),
        (b"\x00\x01\x02", ""),
        (b"# Title\n", "text that begins with '# Title\\n'"),
        (b"# Title\n", "give a Chrome trace that torch.profiler exported: .json or .json.gz"),
    ],
    ids=["absent", "empty", "another json", "half a gzip", "binary", "a page", "a page: what to do"],
)
def test_what_is_no_trace_is_one_clear_error_and_leaves_no_folder(invoke, home, content, says):
    path = home / "x.json.gz"
    if content is not None:
        path.write_bytes(content)
    ended = invoke("profile", "--trace", path)
    assert ended.code == 1, ended.err
    assert says.lower() in ended.err.lower()
    assert str(path) in ended.err
    assert list((home / "runs").glob("*")) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--trace", TRACE, "--try", "--pairs", "9"), "--trace runs nothing, so --try, --pairs would be ignored"),
        (("--trace", TRACE, "--model", "wan-t2v"), "so --model would be ignored"),
        (("--trace", TRACE, "--", "--vae-tiling"), "so -- --vae-tiling would be ignored"),
        (("--step-ms", "12"), "so --step-ms would be ignored"),
        (("--pairs", "9"), "pairs are measured with --try, so --pairs would be ignored"),
    ],
)
def test_what_would_be_ignored_is_refused(invoke, home, words, says):
    ended = invoke("profile", *words)
    assert (ended.code, says in ended.err) == (1, True), ended.err
    assert not (home / "runs").exists()


def test_a_trace_becomes_every_report(invoke, only_run):
    ended = invoke("profile", "--trace", TRACE, "--engine-version", "0.5.17")
    assert ended.code == 0, ended.err
    assert invoke("validate", only_run()).out == f"{only_run()}: valid profile-report\n"
    assert invoke("report", only_run().name[-6:]).code == 0
    report = only_run() / "report"
    assert set(os.listdir(report)) == {
        "report.json", "report.md", "report.html", "events.csv.gz", "step.trace.json.gz",
    }  # fmt: skip
    document = json.loads((report / "report.json").read_text())
    assert schema.violations(document, "profile-report") == []
    assert "what to do first" in ended.out
    assert "upgrade SGLang to 0.5.19 or later" in ended.out
    assert ended.out.splitlines()[-1] == f"report: {report / 'report.html'}"


def test_a_profile_shows_what_proves_the_run_and_its_times(invoke, replay, tiny, only_run, monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (1e3, 1e3, 1e3))
    engine = replay(**NATIVE, trace=str(TRACE))
    ended = invoke("profile", "--model", "flux-tiny", "--preset-file", tiny, "--engine", engine)
    assert ended.code == 0, ended.out + ended.err
    assert ended.out.startswith("Profile of flux-tiny on NVIDIA H200, SGLang 0.5.23, 256x256, 4 steps\n")
    record = json.loads((only_run() / "run.json").read_text())
    evidence = len(record["verdict"]["evidence"])
    proven = f"native, {evidence} of {evidence} required pieces of evidence"
    shown = " ".join(ended.out.split())
    assert f"{proven}; the profiler was on, so the traced request is not a timing" in shown
    assert "a request, median of 3; 50.00 ms a denoise step" in shown
    assert "quality lossless, the engine's default " in shown
    assert "a profiler, off in every timed request" in shown
    assert "warning cpu.load: " in shown
    assert "- cpu.load: " in (only_run() / "report" / "report.md").read_text()
    assert "<li>cpu.load: " in (only_run() / "report" / "report.html").read_text()
    assert record["profiled"]["steps"] == 3  # the first of four warms the profiler up


def test_a_cpu_has_no_flag_to_try_and_is_not_traced_for_one(invoke, home):
    ended = invoke("profile", "--model", "flux-tiny", "--try")
    assert ended.code == 10
    assert "no action of a CPU's profile is a flag to try\n  to do: leave it out (--try)" in ended.err
    assert not list(home.glob("runs/*"))


def test_a_cpu_is_proposed_a_timing(invoke, replay, tiny, home):
    engine = replay(**NATIVE, trace=str(DATA / "traces" / "cpu.trace.json.gz"))
    words = ("--model", "flux-tiny", "--preset-file", tiny, "--engine", engine)
    ended = invoke("profile", *words)
    assert ended.code == 0, ended.out + ended.err
    assert ended.out.startswith("Profile of flux-tiny on the CPU, SGLang 0.5.23, 256x256, 4 steps\n")
    (line,) = (line for line in ended.err.splitlines() if line.startswith("next: "))
    line = line.replace(next_step.WHEN_QUIET, "")  # this machine may be busy
    assert line == f"next: invoke bench --model flux-tiny --engine {engine} --preset-file {tiny} --repeats 10"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("--steps-profiled", "4"),
            "the request has 4 denoise steps, and the profiler warms up in the first: at most 3",
        ),
        (("--steps-profiled", "4", "--serve"), "at most 3 can be traced"),
        (("--steps-profiled", "2", "--all-stages"), "traces the whole request, so --steps-profiled would be ignored"),
    ],
)
def test_more_steps_than_a_request_has_are_refused_before_a_launch(invoke, replay, home, tiny, words, says):
    ended = invoke("profile", "--model", "flux-tiny", "--preset-file", tiny, "--engine", replay(), *words)
    assert (ended.code, says in ended.err) == (1, True), ended.err
    assert not (home / "runs").exists()


def test_a_request_of_one_step_is_not_traced_by_its_steps(invoke, replay, home, tiny):
    tiny.write_text(tiny.read_text().replace("steps = 4", "steps = 1"))
    ended = invoke("profile", "--model", "flux-tiny", "--preset-file", tiny, "--engine", replay())
    assert ended.code == 1
    assert "the request has 1 denoise step, and the profiler warms up in the first: at most 0 can be" in ended.err
    assert "to do: --all-stages" in ended.err
    assert not (home / "runs").exists()


def test_two_cpu_profiles_have_no_diff_and_the_refusal_says_what_to_do(invoke):
    paths = (DATA / "traces" / "cpu.trace.json.gz", DATA / "traces" / "cache-dit-cpu-0.5.23.trace.json.gz")
    ended = invoke("profile-diff", *paths)
    assert ended.code == 1
    assert "A has no GPU events, and a diff compares GPU kernels only" in ended.err
    assert "compare the two runs with `invoke compare`" in ended.err


def test_two_steps_of_one_trace_are_told_apart_by_the_clock(invoke, home):
    ended = invoke("profile-diff", TRACE, "--a-steps", "4", "--b-steps", "6")
    assert ended.code == 0, ended.err
    assert "Same work, slower clock" in ended.out
    assert "next: invoke ab --metric denoise" in ended.out


def test_a_trace_is_not_compared_with_itself(invoke, home):
    copy = shutil.copy(TRACE, home)
    for words in ((TRACE, TRACE), (TRACE, copy), (TRACE, copy, "--a-steps", "4", "--b-steps", "4")):
        ended = invoke("profile-diff", *words)
        assert (ended.code, "the same trace twice" in ended.err) == (1, True), ended.err
    assert invoke("profile-diff", TRACE, copy, "--a-steps", "4", "--b-steps", "6").code == 0


def test_a_step_that_is_not_there_is_said(invoke):
    ended = invoke("profile-diff", TRACE, TRACE, "--a-steps", "99")
    assert ended.code == 1
    assert "99" in ended.err


def test_three_traces_are_no_diff(invoke):
    assert "profile-diff takes exactly two traces" in invoke("profile-diff", TRACE, TRACE, TRACE).err


def test_nsight_that_is_not_installed_is_said_before_anything_starts(invoke, replay, home):
    ended = invoke("profile", "--model", "flux-tiny", "--engine", replay(), "--nsys")
    assert ended.code == 10
    assert "Nsight Systems is not installed" in ended.err
    assert not (home / "runs").exists()
