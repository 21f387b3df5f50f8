"""Sessions, repeats, resuming and comparing, on a replay engine; the real engine's sessions are in test_engine.py."""

import copy
import functools
import json
import os
import re
import shutil
import signal
import statistics
import subprocess

import psutil
import pytest
from helpers import (
    LOGS,
    NATIVE,
    ROOT,
    invoke_command,
    processes_like,
    record_of,
    record_path,
    wait_for_task,
    wait_until,
)

from bench import schema
from bench.compare import forecast
from bench.engine import registry


def change(home, name, **scenario):
    """Change what a replay engine does from now on."""
    path = home / "environments" / f"engine-{name}" / "replay.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | scenario))


# --- unhappy first ----------------------------------------------------------------------------------------------------


def test_an_engine_that_cannot_be_loaded_says_why(bench):
    ended = bench("--repeats", "3", fail_loading=True)
    assert ended.code == 3
    assert "the weights are of another model" in json.dumps(record_of(ended)["failure"])
    assert record_of(ended)["timings"] is None


def test_a_fallback_in_a_session_takes_all_its_numbers_away(bench):
    ended = bench("--repeats", "5", fall_back_at=3)
    assert ended.code == 4
    record = record_of(ended)
    assert record["requests"] == []
    assert record["timings"] is None
    assert record["verdict"]["outcome"] == "invalid"
    assert record["launches"][0]["stopped"]["after_s"] > 0
    assert "no process of the engine was left" in ended.out


@pytest.mark.parametrize(
    ("scenario", "says"),
    [({"fail_at": 7}, "illegal memory access"), ({"die_at": 7}, "exit"), ({"error_line_at": 7}, "a request failed")],
)
def test_a_crash_in_the_middle_keeps_what_was_paid_for(bench, only_run, scenario, says):
    ended = bench("--repeats", "10", **scenario)
    assert ended.code == 3
    assert says in ended.err
    assert "--resume" in ended.err
    record = record_of(ended)
    assert len(record["requests"]) == 5
    assert record["complete"] is False
    assert record["timings"]["metrics"]["denoise_ms"] == 200.0
    assert not (only_run() / "run.json").exists(), "nothing may look finished"
    assert len(list(only_run().rglob("perf.json"))) == 6, "those of five requests, and of the one that is left out"
    assert schema.violations(record, "run-record") == []


def test_a_session_killed_with_9_after_its_5th_request_resumes_to_ten(invoke, replay, model, home, only_run):
    engine, folder = replay(**NATIVE, hang_at=7), model()
    command = ["bench", "--model", "flux-tiny", "--engine", engine, "--model-path", folder, "--repeats", "10"]
    task = subprocess.Popen(invoke_command(*command), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def partial_of_five():
        partials = [json.loads(path.read_text()) for path in home.glob("runs/*/run.partial.json")]
        return next((partial for partial in partials if len(partial["requests"]) == 5), None)

    partial = wait_for_task(task, partial_of_five, "five requests have not been recorded")
    os.kill(task.pid, signal.SIGKILL)
    task.wait()
    wait_until(lambda: not processes_like("session_worker.py", home / "runs"), "the engine is still there")
    assert schema.violations(partial, "run-record") == []

    change(home, engine, hang_at=None)
    ended = invoke("bench", "--resume", only_run())
    assert ended.code == 0, ended.err
    record = record_of(ended)
    assert [request["index"] for request in record["requests"]] == list(range(1, 11))
    assert [request["launch"] for request in record["requests"]] == [1] * 5 + [2] * 5
    assert record["complete"] is True
    assert not (only_run() / "run.partial.json").exists()
    assert invoke("validate", only_run()).out.endswith(": valid run-record\n"), "the killed launch's log went on"
    for word in (only_run(), only_run().name[-6:], "last"):
        again = invoke("bench", "--resume", word)
        assert again.code == 1
        assert "nothing to resume: this run is complete" in again.err
        assert f"where: {only_run() / 'run.json'}" in again.err
    assert "no run is called 'nothing'" in invoke("bench", "--resume", "nothing").err


@pytest.mark.parametrize(("hang_at", "kept"), [(2, "kept: only the engine's log, in "), (3, "kept: 1 request,")])
def test_ctrl_c_says_what_was_kept_and_how_to_go_on(replay, model, tmp_path, hang_at, kept):
    """The first request is left out: a run that is cut off in the second one has kept nothing."""
    engine, runs = replay(**NATIVE, hang_at=hang_at), tmp_path / "elsewhere"
    command = ["bench", "--model", "flux-tiny", "--engine", engine, "--model-path", model(), "--repeats", "10"]
    task = subprocess.Popen(
        invoke_command(*command, "--output-dir", runs), cwd=ROOT,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    hanging = f"launch-1/request-{hang_at - 1:03d}"
    wait_for_task(task, lambda: list(runs.glob(f"*/{hanging}")), "the request that hangs has not been asked for")
    task.send_signal(signal.SIGINT)
    _, said = task.communicate(timeout=300)
    assert task.returncode == 130
    assert kept in said
    assert str(next(runs.iterdir())) in said
    assert ("bench --resume" in said) == (hang_at > 2)


@pytest.mark.parametrize("crash", ["fail_at", "error_line_at"])
@pytest.mark.parametrize("silenced", ["Warmup requests", "Loaded transformer", "server_args"])
def test_a_crash_keeps_nothing_of_a_session_that_had_not_shown_its_evidence(bench, silenced, crash):
    """Nothing else is wrong with it: without the crash it is invalid, and a crash must not make it better."""
    whole = bench("--repeats", "3", without=silenced, engine="whole")
    assert whole.code == 5, whole.err
    log = re.search(r"^next: invoke attest --log (\S+)$", whole.out, re.MULTILINE)[1]
    assert log == str(record_path(whole).parent / "launch-1" / "engine.log")
    assert os.path.isfile(log)
    ended = bench("--repeats", "9", without=silenced, **{crash: 4})
    assert ended.code == 3
    record = record_of(ended)
    assert (record["requests"], record["timings"]) == ([], None)
    assert record["verdict"]["outcome"] == "invalid"
    assert " ms" not in ended.out


def test_a_launch_that_does_not_count_takes_nothing_from_those_before_it(bench):
    second = {"without": "Warmup requests", "without_since": 2, "error_line_at": 3, "error_in_launch": 2}
    ended = bench("--launches", "3", "--repeats", "2", **second)
    assert ended.code == 3
    record = record_of(ended)
    assert [request["launch"] for request in record["requests"]] == [1, 1]
    assert record["timings"]["requests"] == 2
    assert record["verdict"]["outcome"] == "native"
    assert record["complete"] is False


def test_an_arm_is_not_taken_up_by_itself(ab, home, invoke, replay, tiny):
    """It would be called complete as it is: how many pairs were wanted is not in it."""
    replay(name="old", **NATIVE, die_at=4)
    ended = ab("--baseline", "old", "--candidate", "old", "--same")
    assert ended.code == 3
    (arm,) = (path.parent for path in (home / "runs").glob("*/baseline/run.partial.json"))
    again = invoke("bench", "--model", "flux-tiny", "--preset-file", tiny, "--resume", arm)
    assert again.code == 1
    assert "only a plain benchmark run can be resumed" in again.err


def test_a_run_that_has_all_its_requests_is_finished_without_another_engine(bench, invoke, only_run):
    """The engine died while it shut down: there is nothing to ask another one for."""
    ended = bench("--repeats", "3", die_in_shutdown=True)
    assert ended.code == 3
    again = invoke("bench", "--resume", only_run())
    assert again.code == 0, again.err
    record = record_of(again)
    assert (record["complete"], len(record["requests"]), len(record["launches"])) == (True, 3, 1)
    assert record["stopped_because"] == "3 requests were asked for"
    assert record["verdict"]["outcome"] == "native"


def test_a_launch_that_was_cut_off_before_its_first_request_does_not_stop_the_next(bench, invoke, only_run, home):
    assert bench("--repeats", "3", die_at=4).code == 3
    (only_run() / "launch-2").mkdir()
    change(home, "replay", die_at=None)
    ended = invoke("bench", "--resume", only_run())
    assert ended.code == 0, ended.err
    assert [request["launch"] for request in record_of(ended)["requests"]] == [1, 1, 2]
    assert (only_run() / "launch-2-cut-off-1").is_dir()
    assert "3 requests, 2 launches\n" in ended.out
    assert re.search(r"end to end, median of each launch: [\d.]+ ms \(of 2\), [\d.]+ ms \(of 1\)\n", ended.out)
    assert "left out: the first request of each launch" in ended.out
    assert "whole launch" not in ended.out, "the two are not of one length"
    page = invoke("report", only_run(), "--markdown").out
    assert "median of 3 requests of 2 launches, no interval" in page
    launches = page.partition("## Launches")[2].partition("##")[0]
    assert re.findall(r"^\| (\d) \| (\d) \|", launches, re.MULTILINE) == [("1", "2"), ("2", "1")]
    numbers = page.partition("## Numbers")[2].partition("##")[0]
    assert "one request" not in numbers
    assert not re.search(r"\d s \|", numbers), "one unit of time in a table"


def test_a_resumed_precision_is_that_of_the_new_launch(bench, invoke, only_run, home):
    """The interval of requests holds for their launch alone: those of the one that was cut off do not narrow it."""
    assert bench("--precision", "2%", "--max-repeats", "14", within=0.005, die_at=9).code == 3
    kept = len(schema.read(only_run() / "run.partial.json")["requests"])
    change(home, "replay", die_at=None)
    ended = invoke("bench", "--resume", only_run())
    assert ended.code == 0, ended.err
    record = record_of(ended)
    assert 5 <= kept < 9
    assert sum(request["launch"] == 2 for request in record["requests"]) >= 10
    assert record["stopped_because"].startswith("launch 2: the median of ")


def test_a_resumed_precision_that_is_missed_is_told_of_its_launch(bench, invoke, only_run, home):
    assert bench("--precision", "0.1%", "--max-repeats", "12", within=0.2, die_at=9).code == 3
    change(home, "replay", die_at=None)
    ended = invoke("bench", "--resume", only_run())
    assert ended.code == 9
    assert "after 12 requests of one launch" in ended.err
    assert sum(request["launch"] == 2 for request in record_of(ended)["requests"]) == 12


def test_a_run_that_was_cut_off_in_its_stage_table_is_resumed(bench, invoke, only_run, home):
    assert bench("--repeats", "2", "--stages", die_in_stages_at=3).code == 3
    change(home, "replay", die_in_stages_at=None)
    ended = invoke("bench", "--resume", only_run())
    assert ended.code == 0, ended.err
    assert record_of(ended)["stages"] is not None


@pytest.mark.parametrize("label", ["last", "last~12", "a b/c", "first try", "runs/x", "a.json", ".x", "v1.", "é", ""])
def test_a_label_that_could_not_name_its_run_is_refused(bench, home, label):
    ended = bench("--label", label)
    assert ended.code == 1
    told = "would name no run" if label == "last" else "takes letters, digits, _ and -, and a dot before a digit, not "
    assert told in " ".join(ended.err.split())
    assert not (home / "runs").exists()


@pytest.mark.parametrize(
    "label", ["before", "v0.5.23-rc1", "0.5", "a_b-", "docs", "c4ffee", "hf_c4n4ryThatLooksLikeAToken0123"]
)
def test_a_label_names_its_run_wherever_one_is_taken(bench, invoke, label):
    """Also where a folder has its name, as docs/ has here."""
    path = record_path(bench("--label", label))
    for words in (
        ("attest", label), ("validate", label), ("report", label), ("baseline.set", label),
        ("baseline.unset", label),
    ):  # fmt: skip
        ended = invoke(*words)
        assert ended.code == 0, ended.err
    assert f"where: {path}" in invoke("bench", "--resume", label).err


def test_an_older_run_whose_label_is_a_path_is_listed_named_by_its_digits_and_resumed(bench, invoke, only_run, home):
    assert bench("--repeats", "3", die_at=3).code == 3
    (partial,) = only_run().glob("run.partial.json")
    record = json.loads(partial.read_text())
    record["label"] = record["asked"]["label"] = "a b/c"
    partial.write_text(json.dumps(record))
    assert "did you mean" not in invoke("report", "a b").err
    change(home, "replay", die_at=None)
    ended = invoke("bench", "--resume", only_run().name[-6:])
    assert ended.code == 0, ended.err
    assert record_of(ended)["label"] == "a b/c"
    (point,) = json.loads(invoke("history", "--model", "flux-tiny", "--json").out)
    assert point["label"] == "a b/c"


def test_an_invalid_run_is_named_where_it_was_called_last(bench, invoke, only_run):
    bench("--repeats", "2", die_at=1)
    ended = invoke("compare", "last", "last")
    assert ended.code == 1
    assert f"run {only_run().name[-6:]} " in ended.err
    assert "`last` is the newest one" in ended.err


def test_a_run_that_was_cut_off_is_neither_compared_nor_a_baseline(bench, invoke, only_run):
    bench("--repeats", "9", die_at=5)
    compared = invoke("compare", only_run(), only_run())
    named = invoke("baseline.set", only_run())
    assert (compared.code, named.code) == (1, 1)
    assert f"run {only_run().name[-6:]} is incomplete or still running" in compared.err
    assert f"`invoke bench --resume {only_run().name[-6:]}` goes on with it" in compared.err
    assert "`last` is the newest one whatever its verdict, and `invoke history --model flux-tiny` shows" in compared.err
    assert "cannot be a baseline" in named.err


def test_a_run_that_goes_on_takes_no_other_counts(bench, invoke, only_run):
    bench("--repeats", "3", fail_at=3)
    ended = invoke("bench", "--resume", only_run(), "--repeats", "40")
    assert ended.code == 1
    assert "a run that is resumed keeps its options: it began with 3, not 40" in ended.err
    assert "(--repeats)" in ended.err


def test_a_dump_that_was_changed_is_not_resumed_over(bench, invoke, only_run):
    bench("--repeats", "4", die_at=4)
    (only_run() / "launch-1" / "request-001" / "perf.json").write_text("{}")
    ended = invoke("bench", "--resume", only_run())
    assert ended.code == 5
    assert "was changed: its hash differs" in ended.err


def _edit(place, change):
    record = json.loads(place.read_text())
    change(record)
    place.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda record: record["requests"][0]["metrics"].update(denoise_ms=1.0), "does not follow from the requests"),
        (lambda record: record["workload"].update(steps=1), "changed since the run was started: the workload"),
        (lambda record: record["host"].update(cpu="another"), "changed since the run was started: the host"),
        (lambda record: record["weights"].update(sha256="0" * 64), "changed since the run was started: the weights"),
    ],
)
def test_a_partial_record_that_was_changed_is_not_resumed(bench, invoke, only_run, change, says):
    bench("--repeats", "4", die_at=4)
    _edit(only_run() / "run.partial.json", change)
    ended = invoke("bench", "--resume", only_run())
    assert ended.code == (5 if "requests" in says else 1)
    assert says in ended.err


def test_a_run_is_not_resumed_under_other_variables_or_without_its_log(bench, invoke, only_run):
    bench("--repeats", "4", die_at=4)
    ended = invoke("bench", "--resume", only_run(), env={"OMP_NUM_THREADS": "1"})
    assert (ended.code, "OMP_NUM_THREADS: not set against '1'" in ended.err) == (1, True)
    next(only_run().rglob("engine.log")).unlink()
    ended = invoke("bench", "--resume", only_run())
    assert (ended.code, "evidence of this run is gone: launch-1/engine.log" in ended.err) == (1, True)


def test_variables_of_a_partial_record_are_not_run(bench, invoke, only_run, home):
    bench("--repeats", "4", die_at=3)
    change(home, "replay", die_at=None)
    _edit(
        only_run() / "run.partial.json", lambda record: record["asked"].update(environment=[["LD_PRELOAD", "evil.so"]])
    )
    ended = invoke("bench", "--resume", only_run())
    assert ended.code == 1
    assert "LD_PRELOAD decides which code runs: it is not taken from a record" in ended.err


def test_precision_and_repeats_exclude_each_other(bench):
    assert "leave --repeats and --launches out" in bench("--repeats", "3", "--precision", "1%").err


# --- what it is for ---------------------------------------------------------------------------------------------------


def test_ten_repeats_are_one_record_with_ten_dumps_and_an_interval(bench, invoke, only_run):
    ended = bench("--repeats", "10", within=0.01)
    assert ended.code == 0, ended.err
    record = record_of(ended)
    assert schema.violations(record, "run-record") == []
    dumps = sorted(only_run().rglob("perf.json"))
    assert len(dumps) == len(record["requests"]) + 1 == 11
    assert record["launches"][0]["left_out"] == [0]
    assert dumps[0] == only_run() / "launch-1" / "request-000" / "perf.json"
    assert "left out: the first request of the launch" in ended.out
    assert invoke("validate", only_run(), *dumps).code == 0
    summary = record["timings"]["summary"]["denoise_ms"]
    assert summary["n"] == 10
    assert summary["interval"]["low"] < summary["median"] < summary["interval"]["high"]
    assert record["timings"]["outputs_identical"] is True
    assert len(record["launches"]) == 1
    assert "95 %" in ended.out
    assert "outputs: all identical" in ended.out


def test_launches_are_replicated_and_their_spread_is_told(bench):
    ended = bench("--launches", "3", "--repeats", "4", within=0.002, between=0.05)
    record = record_of(ended)
    assert [request["launch"] for request in record["requests"]] == [1] * 4 + [2] * 4 + [3] * 4
    assert record["timings"]["spread"]["launches"] == 3
    assert record["timings"]["spread"]["between_percent"] > record["timings"]["spread"]["within_percent"]
    assert "from launch to launch" in ended.out
    assert re.search(r"median of each launch \(4 requests each\): [\d.]+ ms, [\d.]+ ms, [\d.]+ ms\n", ended.out)


def test_a_precision_that_the_noise_seen_before_cannot_reach_is_refused_with_the_requests_it_takes(
    bench, invoke, model, monkeypatch
):
    monkeypatch.setattr("bench.record.disturbance.of", lambda record: ())
    assert bench("--repeats", "4", within=0.2).code == 0
    again = ("bench", "--model", "flux-tiny", "--engine", "replay", "--model-path", model())
    ended = invoke(*again, "--precision", "0.1%", "--max-repeats", "12")
    assert ended.code == 1
    needed = int(re.search(r"a precision of 0.1 % takes about ([\d,]+) requests here", ended.err)[1].replace(",", ""))
    assert needed > 1000
    assert f"--max-repeats {needed}" in ended.err


@pytest.mark.parametrize("size", [("--width", "100"), ("--height", "248")])
def test_a_size_that_cannot_be_delivered_is_refused_with_its_neighbours(bench, home, size):
    ended = bench(*size)
    assert ended.code == 1
    assert f"a {size[0][2:]} of {size[1]} is not possible" in ended.err
    assert {"100": "96 or 112", "248": "240 or 256"}[size[1]] in ended.err
    assert not (home / "runs").exists()


@pytest.mark.parametrize("words", [(), ("--dry-run",)])
def test_a_slip_is_refused_before_a_launch_and_in_a_dry_run(invoke, replay, model, home, tiny, words):
    engine = replay(**NATIVE)
    file = home / "environments" / f"engine-{engine}" / "site" / "sglang" / registry.PLATFORMS
    file.parent.mkdir(parents=True)
    file.write_text("class AttentionBackendEnum(enum.Enum):\n    FA = enum.auto()\n    TORCH_SDPA = enum.auto()\n")
    (home / "text.png").write_text("not a picture")
    for slip, says in {
        ("--width", "1000000"): "a width of 1,000,000 pixels is more than any model makes",
        ("--image", home / "no.png"): f"missing\n  where: {home / 'no.png'}\n  to do: name another file (--image)",
        ("--image", home / "text.png"): f"where: {home / 'text.png'}\n  to do: name another file (--image)",
        ("--attention-backend", "torch_spda"): "no attention backend 'torch_spda'\n  to do: did you mean torch_sdpa?",
        ("--attention-backend", "banana"): "to do: it has fa, fa3, fa4, torch_sdpa",
        ("--attention-backend", "FA3"): "no attention backend 'FA3'\n  to do: did you mean fa3?",
    }.items():
        ended = invoke("bench", "--model", "flux-tiny", "--engine", engine, "--model-path", model(), *slip, *words)
        assert (ended.code, ended.out) == (1, "")
        assert says in ended.err
    assert not (home / "runs").exists()
    for name in ("fa3", "TORCH_SDPA"):
        known = ("--model", "flux-tiny", "--engine", engine, "--model-path", model(), "--attention-backend", name)
        ended = invoke("bench", *known, "--dry-run")
        assert ended.code == 0, ended.err
    mine = home / "mine.toml"
    mine.write_text(tiny.read_text() + 'attention_backend = "_flash_3_hub"\n')
    of_mine = ("--preset-file", mine, "--model", "flux-tiny", "--engine", engine, "--dry-run")
    assert invoke("bench", *of_mine).code == 1
    assert invoke("reference", *of_mine).code == 0, "pipelines of diffusers know other names"


def test_precision_goes_on_until_it_is_known_or_says_that_it_is_not(bench):
    known = record_of(bench("--precision", "2%", within=0.005, engine="steady"))
    assert known["complete"]
    assert 10 <= len(known["requests"]) < 100
    ended = bench("--precision", "0.1%", "--max-repeats", "12", within=0.2, engine="noisy")
    assert ended.code == 9
    assert "after 12 requests of one launch, and 0.1 % was asked for" in ended.err
    unknown = record_of(ended)
    interval = unknown["timings"]["summary"]["total_ms"]["interval"]
    half = (interval["high"] - interval["low"]) / 2
    reached = 100 * half / unknown["timings"]["metrics"]["total_ms"]
    assert f"the median is known to {reached:.2g} % after" in ended.err
    assert len(unknown["requests"]) == 12
    assert "before the precision was reached" in unknown["stopped_because"]


@pytest.fixture
def ab(invoke, tiny):
    """Compare two arms by their denoise time."""
    return functools.partial(
        invoke, "ab", "--model", "flux-tiny", "--metric", "denoise", "--json", "--preset-file", tiny
    )


@pytest.mark.parametrize("look", [[], ["--dry-run"]])
def test_a_metric_of_a_server_is_refused_in_a_dry_run_too(invoke, replay, tiny, home, look):
    replay(name="old", **NATIVE)
    arms = ("--preset-file", tiny, "--engine", "old", "--candidate", "steps=5", "--metric", "service")
    ended = invoke("ab", "--model", "flux-tiny", *arms, *look)
    assert (ended.code, ended.out) == (1, ""), ended.err
    assert "`invoke loadtest --baseline A --candidate B` compares two servers" in ended.err
    assert not (home / "runs").exists()


@pytest.mark.parametrize(
    "arms",
    [
        ["--baseline", "old", "--candidate", "old"],
        ["--engine", "old", "--candidate", "old"],
        ["--engine", "old", "--candidate", "steps=4 seed=42"],
        ["--candidate", "engine=old"],
        ["--engine", "old", "--candidate", "LANG=C.UTF-8"],
    ],
)
def test_equal_arms_are_refused_however_they_are_said(ab, replay, home, monkeypatch, arms):
    replay(name="old", **NATIVE)
    monkeypatch.setenv("BENCH_ENGINE", "old")
    monkeypatch.setenv("LANG", "C.UTF-8")
    ended = ab(*arms)
    assert ended.code == 1
    assert "both arms are the same" in ended.err
    assert "--same" in ended.err
    assert not (home / "runs").exists()


@pytest.mark.parametrize(
    ("word", "meant"), [("step=8", "steps=8"), ("compil", "compile"), ("olt", "old"), ("qualty=high", "quality=high")]
)
def test_a_mistyped_word_of_an_arm_is_answered_with_the_one_that_was_meant(ab, replay, word, meant):
    replay(name="old", **NATIVE)
    ended = ab("--candidate", word)
    assert ended.code == 1
    assert f"unknown word in an arm: {word!r}" in ended.err
    assert f"did you mean {meant}?" in ended.err


@pytest.mark.parametrize(
    ("metric", "told"),
    [("totl", "did you mean total?"), ("Scheduler.reply", "or a stage's name such as DenoisingStage")],
)
def test_a_metric_that_nothing_has_is_refused_before_any_launch(invoke, replay, tiny, home, metric, told):
    replay(name="old", **NATIVE)
    common = ("--preset-file", tiny, "--model", "flux-tiny", "--engine", "old", "--metric", metric)
    for words in (("ab", *common, "--candidate", "steps=9"), ("calibrate", *common)):
        ended = invoke(*words)
        assert ended.code == 1
        assert f"no metric is called {metric!r}" in ended.err
        assert told in ended.err
    assert not (home / "runs").exists()


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (
            "quality=hihg",
            "quality= takes exact, lossless, extra-high or high, not 'hihg'\n  to do: did you mean high?",
        ),
        ("quality=", "quality= lacks its value"),
        ("attention-backend=", "attention-backend= lacks its value"),
        ("steps=0", "steps= takes a whole number of at least 1, not '0'"),
        ("steps=-6", "steps= takes a whole number of at least 1, not '-6'"),
        ("seed=-1", "seed= takes a whole number of at least 0, not '-1'"),
        ("seed=99999999999999999999", "seed= takes a whole number"),
        ("width=-1", "width= takes a whole number of at least 8, not '-1'"),
        ("steps=6,compile", "to do: the words of an arm are separated by spaces"),
        ("steps=6 steps=8", "steps=6 and steps=8 exclude each other"),
        ("compile eager", "compile and eager exclude each other"),
        ("old engine=new", "old and engine=new exclude each other"),
        ("A_B=1 A_B=2", "A_B=1 and A_B=2 exclude each other"),
        ("WIDTH=512", "did you mean width=512?"),
    ],
)
@pytest.mark.parametrize("look", [(), ("--dry-run",)])
def test_a_value_that_an_arm_does_not_take_is_refused_before_any_launch(ab, replay, home, spec, told, look):
    replay(name="old", **NATIVE)
    ended = ab("--baseline", "old", "--candidate", spec, *look)
    assert ended.code == 1
    assert told in ended.err
    assert "Traceback" not in ended.err
    assert not (home / "runs").exists()


@pytest.mark.parametrize(
    ("flag", "told"), [("--width=100", "use --width of this task"), ("--backend=diffusers", "the workbench pins it")]
)
def test_why_an_arm_is_refused_ends_with_the_reason(ab, replay, flag, told):
    replay(name="old", **NATIVE)
    ended = ab("--baseline", "old", "--candidate", f"old {flag}", "--dry-run")
    assert ended.code == 1
    assert told in ended.out
    assert "None" not in ended.out


def test_a_dry_run_of_two_arms_shows_both_sessions_and_starts_nothing(invoke, replay, tiny, home):
    replay(name="old", **NATIVE)
    ended = invoke("ab", "--preset-file", tiny, "--model", "flux-tiny", "--engine", "old", "--candidate",
                   "steps=9 OMP_NUM_THREADS=1", "--dry-run")  # fmt: skip
    assert ended.code == 0, ended.err
    assert "at most 8 pairs, 16 engine starts" in ended.err
    baseline, candidate = ended.out.split("# candidate")
    assert baseline.startswith("# baseline")
    assert ("num-inference-steps=9" in baseline, "num-inference-steps=9" in candidate) == (False, True)
    assert "session_worker.py" in candidate
    assert "OMP_NUM_THREADS=1" in candidate
    assert not (home / "runs").exists()


def test_a_dry_run_of_two_versions_shows_the_engine_of_each_and_what_a_quality_means(invoke, replay, tiny):
    old, new = replay(name="old", version="0.5.17"), replay(name="new", version="0.5.23")
    ended = invoke("ab", "--model", "flux-tiny", "--preset-file", tiny, "--baseline", old, "--candidate", new,
                   "--dry-run")  # fmt: skip
    assert ended.code == 0, ended.err
    baseline, candidate = ended.out.split("# candidate")
    assert ("v0.5.17" in baseline, "v0.5.23" in baseline) == (True, False)
    assert ("v0.5.17" in candidate, "v0.5.23" in candidate) == (False, True)
    assert "the default quality changed its meaning between sglang 0.5.17 and 0.5.23: exact against rounding" in (
        " ".join(ended.err.split())
    )


def test_how_long_pairs_take_is_known_from_an_earlier_run(invoke, replay, tiny, only_run, home, monkeypatch):
    """A run that was disturbed is the last resort."""
    monkeypatch.setattr("bench.record.disturbance.of", lambda record: ("busy",) * record["id"].startswith("2999"))
    replay(name="old", **NATIVE)
    common = ("--model", "flux-tiny", "--preset-file", tiny, "--engine", "old")
    assert invoke("bench", *common, "--repeats", "2").code == 0
    ended = invoke("ab", *common, "--candidate", "steps=9", "--dry-run")
    known = rf"about \d+ s(?: to \d+ s)? by run {only_run().name[-6:]}"
    record = json.loads((only_run() / "run.json").read_text())
    cut_off = copy.deepcopy(record["launches"])
    cut_off[0]["wall_s"] = None
    for name, change in (("profile", {"kind": "profile"}), ("bench", {"launches": cut_off}), ("busy", {})):
        later = home / "runs" / f"29991231T000000Z-{name}-flux-tiny-abcdef"
        later.mkdir()
        (later / "run.json").write_text(json.dumps(record | {"id": later.name} | change))
    assert re.search(rf"at most 8 pairs, 16 engine starts, {known}; it stops as soon as it is decided\n", ended.err)
    ended = invoke("ab", *common, "--candidate", "steps=9", "--dry-run", "--pairs", "3")
    assert re.search(rf"^3 pairs, 6 engine starts, {known}\n", ended.err), "the first decision is after the last"


@pytest.mark.parametrize(
    ("was_together", "together", "seconds"),
    [(True, True, (66, 66)), (False, False, (126, 126)), (False, True, (66, 126)), (True, False, (66, 126))],
)
def test_two_engines_that_start_together_take_one_start_at_least_and_two_at_most(was_together, together, seconds):
    past = forecast.Past(
        run="x", start_s=20, request_s=1, is_together=was_together, within_percent=None, disturbed=False
    )
    assert past.seconds_of_pairs(3, 1, together=together) == seconds


@pytest.mark.parametrize("look", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("word", "told"),
    [("engine=foo", "no built engine is called 'foo'"), ("model-path=/nowhere/to/be", "no such model folder")],
)
def test_what_is_wrong_with_an_arm_is_said_and_not_how_long_it_would_take(ab, replay, word, told, look):
    replay(name="old", **NATIVE)
    ended = ab("--baseline", "old", "--candidate", word, *look)
    assert ended.code == 1
    assert told in ended.err + ended.out
    assert "engine starts" not in ended.err


@pytest.mark.parametrize("mode", [(), ("--alternate",)], ids=["together", "one after the other"])
def test_a_slower_candidate_is_found_and_exits_7(ab, invoke, replay, mode, home, monkeypatch):
    monkeypatch.setattr("bench.record.disturbance.of", lambda record: ())
    replay(name="old", **NATIVE, within=0.005)
    replay(name="new", **NATIVE, within=0.005, factor=1.25, seed=7)
    ended = ab("--baseline", "old", "--candidate", "new steps=4", "--repeats", "2", *mode)
    assert ended.code == 7, ended.err
    document = json.loads(ended.out)
    assert schema.violations(document, "ab-record") == []
    assert document["comparison"]["verdict"] == "slower"
    assert document["comparison"]["shows_margin"]
    assert document["comparison"]["metric"] == "denoise time"
    assert document["comparison"]["effect"]["percent"] == pytest.approx(25, abs=3)
    assert len(document["pairs"]) == 3, "it stops when it is decided"
    run = next((home / "runs").iterdir())
    assert invoke("validate", run / "comparison.json", run / "baseline", run / "candidate").code == 0
    record = json.loads((run / "baseline" / "run.json").read_text())
    assert len(record["launches"]) == 3
    assert len(record["requests"]) == 6, "the first request of each start does not count"


def test_a_winner_under_disturbance_is_told_as_such_from_the_first_line_on(invoke, replay, tiny, monkeypatch):
    monkeypatch.setattr("bench.record.disturbance.of", lambda record: ("load average 8.0 on 2 cores",))
    replay(name="old", **NATIVE, within=0.005)
    replay(name="new", **NATIVE, within=0.005, factor=1.25, seed=7)
    common = ("--model", "flux-tiny", "--preset-file", tiny, "--metric", "denoise", "--repeats", "2")
    ended = invoke("ab", *common, "--baseline", "old", "--candidate", "new")
    assert ended.code == 7, ended.err
    told = " ".join(ended.out.split())
    assert "SLOWER (measured under disturbance: baseline, candidate): denoise time: observed +" in told
    assert "No size is claimed under disturbance" in told
    assert re.search(r"pair 1: denoise time \+[\d.]+ % so far \(measured under disturbance\);", ended.err)
    assert "at least" not in told
    assert re.search(r"error: slower: denoise time \+[\d.]+ %, under disturbance", ended.err)


@pytest.mark.parametrize("calibrated", [False, True])
def test_one_pair_names_a_winner_only_if_the_spread_between_launches_is_known(ab, invoke, replay, tiny, calibrated):
    replay(name="old", **NATIVE, within=0.002, between=0.003)
    replay(name="new", **NATIVE, within=0.002, between=0.003, factor=1.5, seed=7)
    if calibrated:
        known = ("--model", "flux-tiny", "--engine", "old", "--preset-file", tiny, "--metric", "denoise")
        assert invoke("calibrate", *known).code == 0
    ended = ab("--baseline", "old", "--candidate", "new", "--pairs", "1")
    assert ended.code == (7 if calibrated else 9), ended.err
    told = json.loads(ended.out)["comparison"]
    assert told["method"] == "one-pair"
    assert ("one pair of starts has no spread" in told["reason"].lower()) is not calibrated


def test_one_pair_shows_one_figure(ab, replay, invoke, home):
    """The median of its requests, as everywhere: the mean of its rounds is another figure."""
    replay(name="old", **NATIVE, within=0.05)
    replay(name="new", **NATIVE, within=0.05, seed=7)
    ended = ab("--baseline", "old", "--candidate", "new seed=7", "--pairs", "1")
    document = json.loads(ended.out)
    (pair,) = document["pairs"]
    expected = 100 * (statistics.median(pair["candidate"]) / statistics.median(pair["baseline"]) - 1)
    assert document["comparison"]["effect"]["percent"] == pytest.approx(expected)
    assert f"observed {expected:+.2f} %" in document["comparison"]["reason"]
    run = home / "runs" / document["id"]
    for shown in (invoke("compare", run, "--metric", "denoise").out, invoke("report", run, "--markdown").out):
        verdict = next(line for line in shown.splitlines() if "observed" in line)
        assert verdict.count(f"{expected:+.2f} %") == 1
        assert re.search(r"differs: .*seed: 42 against 7", shown)
        assert "only the" not in shown, "the flag behind a difference is not told as a second one"


@pytest.mark.parametrize("look", [[], ["--dry-run"]])
def test_two_pairs_are_refused_before_an_engine_starts(ab, replay, home, look):
    replay(name="old", **NATIVE)
    ended = ab("--baseline", "old", "--candidate", "old", "--same", "--pairs", "2", *look)
    assert ended.code == 1
    assert "2 pairs cannot decide: the first look is after 3" in ended.err
    assert not (home / "runs").exists()


def test_engines_that_load_for_the_time_to_load_do_not_load_together(invoke, replay, tiny, home):
    replay(name="old", **NATIVE)
    arms = ("--baseline", "old", "--candidate", "old", "--same", "--pairs", "1", "--repeats", "1", "--metric", "load")
    ended = invoke("ab", "--model", "flux-tiny", "--preset-file", tiny, "--json", *arms)
    assert "start one after the other" in ended.err
    assert json.loads(ended.out)["together"] is False
    records = [json.loads(path.read_text()) for path in home.glob("runs/*/*/run.json")]
    first, second = sorted(
        (launch["started"], launch["finished"]) for record in records for launch in record["launches"]
    )
    assert first[1] <= second[0]


def test_an_engine_that_waits_is_frozen_with_all_that_it_started(ab, replay):
    """A child of each, in a session of its own, spins: a core each unless it is stopped."""
    for name in ("old", "new"):
        replay(name=name, **NATIVE, within=0.002, spins=True)
    arms = ("--baseline", "old", "--candidate", "new", "--pairs", "1")
    ended = ab(*arms)
    assert ended.code == 9, ended.err
    (pair,) = json.loads(ended.out)["pairs"]
    assert all(share < 2 for share in pair["waiting_cpu_percent"].values()), pair


def test_a_frozen_engine_is_gone_with_the_task(replay, tiny, home):
    replay(name="old", **NATIVE, spins=True)
    replay(name="new", **NATIVE, spins=True, hang_at=2)
    arms = ("--baseline", "old", "--candidate", "new", "--preset-file", tiny)
    command = invoke_command("ab", "--model", "flux-tiny", *arms)
    task = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def is_frozen():
        return [process for process in psutil.process_iter() if _is_stopped(process, home / "runs")]

    wait_for_task(task, is_frozen, "no engine was frozen")
    os.kill(task.pid, signal.SIGKILL)
    task.wait()
    wait_until(lambda: not processes_like("", home / "runs"), "a process of an engine is still there")


def _is_stopped(process, runs):
    try:
        return process.status() == psutil.STATUS_STOPPED and process.environ().get("BENCH_RUNS") == str(runs)
    except psutil.Error:
        return False


def test_an_arm_that_falls_back_ends_the_comparison(ab, home, replay):
    replay(name="old", **NATIVE)
    replay(name="new", **NATIVE, fall_back_at=2)
    ended = ab("--baseline", "old", "--candidate", "new")
    assert ended.code == 4, ended.err
    (folder,) = (home / "runs").glob("*-ab-*")
    assert str(folder / "candidate") in ended.err, "whose log the line is of"
    assert ended.out == ""
    assert not processes_like("session_worker.py", home / "runs")


def test_times_of_an_arm_that_lacks_its_evidence_are_no_result(ab, home, replay):
    """What is missing is known when the engine has ended, and all pairs have been measured by then."""
    replay(name="old", **NATIVE)
    replay(name="new", **NATIVE, without="Warmup requests", factor=1.5)
    ended = ab("--baseline", "old", "--candidate", "new")
    assert ended.code == 5, ended.err
    assert ended.out == ""
    assert "Traceback" not in ended.err
    assert not list((home / "runs").glob("*/comparison.json"))


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("PYTHONPATH=0", "PYTHONPATH may not be set for one arm"),
        ("CUDA_VISIBLE_DEVICES=0", "CUDA_VISIBLE_DEVICES may not be set for one arm"),
        ("SGLANG_DIFFUSION_SYNC_STAGE_PROFILING=0", "SGLANG_DIFFUSION_SYNC_STAGE_PROFILING may not be set for one arm"),
        ("--profile", "a profiled run is never a timing"),
        ("--profile_all_stages", "a profiled run is never a timing"),
    ],
)
def test_an_arm_cannot_undo_what_is_pinned(home, ab, replay, word, says):
    replay(name="old", **NATIVE)
    ended = ab("--baseline", "old", "--candidate", f"old {word}")
    assert ended.code == 1
    assert says in ended.err
    assert not (home / "runs").exists()


@pytest.mark.parametrize("spec", ["steps=many", "colour=red", "'unclosed"])
def test_a_spec_that_means_nothing_is_said(ab, replay, spec):
    replay(name="old", **NATIVE)
    ended = ab("--baseline", "old", "--candidate", spec)
    assert ended.code == 1


# --- compare: upstream's blind spots ----------------------------------------------------------------------------------


@pytest.fixture
def measured(bench, home, replay):
    """Return a function that makes a record of launches whose denoise time has a factor."""

    def make(name, factor, launches="4"):
        ended = bench("--launches", launches, "--repeats", "2", engine=name, factor=factor, between=0.003, within=0.002)
        assert ended.code == 0, ended.err
        return record_path(ended)

    return make


def test_230_to_345_ms_is_slower_and_exits_7(invoke, measured, monkeypatch):
    monkeypatch.setattr("bench.record.disturbance.of", lambda record: ())
    before, after = measured("before", 230 / 200), measured("after", 345 / 200)
    ended = invoke("compare", before, after, "--metric", "denoise")
    assert ended.code == 7
    assert "SLOWER" in ended.out
    said = " ".join(ended.out.split())
    effect, low, high = (float(x) for x in re.findall(r"estimate ([\d.]+) %.*?\+([\d.]+) to \+([\d.]+) %", said)[0])
    assert low < effect < high
    assert effect == pytest.approx(50, abs=1.5)  # four launches of 0.3 % noise: 0.32 points is one standard error
    assert invoke("compare", after, before).code == 0
    pasted = invoke("compare", before, after, "--markdown").out
    assert "| denoise time |" in pasted
    assert "<details>" in pasted


def test_unlike_records_are_refused_and_the_field_is_named(invoke, bench, measured):
    before = measured("before", 1)
    other = bench("--repeats", "2", "--steps", "5", engine="other")
    ended = invoke("compare", before, record_path(other))
    assert ended.code == 1
    assert "not comparable: steps: 4 against 5" in ended.err


def dump(home, name, **changes):
    content = json.loads((LOGS / "cpu/native_0.5.17.json").read_text())
    content["steps"][4]["duration_ms"] = changes.pop("denoise", 230.0)
    content |= {"total_duration_ms": 500.0} | changes
    path = home / f"{name}.json"
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return path


def test_two_bare_dumps_are_told_what_one_sample_shows(invoke, home):
    ended = invoke("compare", dump(home, "a"), dump(home, "b", denoise=345.0))
    assert ended.code == 9
    assert "+50.0 %" in ended.out
    assert "One engine start against one does not show how much starts differ" in " ".join(ended.out.split())
    assert "unchanged" not in ended.out


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"total_duration_ms": None}, 6, "'total_duration_ms' is a required property"),
        ({"total_duration_ms": 0}, 6, "minimum of 0"),
        ({"meta": {"model": "another", "prompt": ["A cat"]}}, 1, "not comparable: model"),
        ({"denoise_steps_ms": []}, 1, "not comparable: denoise steps: 4 against 0"),
        ({"steps": [{"name": "DiffusersExecutionStage", "duration_ms": 5}]}, 1, "no native denoising stage"),
    ],
)
def test_a_dump_that_cannot_be_compared_is_an_error(invoke, home, changes, code, says):
    ended = invoke("compare", dump(home, "a"), dump(home, "b", **changes))
    assert ended.code == code
    assert says in ended.err
    assert ended.out == ""


def test_a_dump_and_a_record_are_not_compared(invoke, home, measured):
    ended = invoke("compare", dump(home, "a"), measured("before", 1, launches="1"))
    assert ended.code == 1
    assert "does not say where and how it was made" in ended.err


def test_one_record_is_compared_with_its_baseline(invoke, measured, monkeypatch):
    monkeypatch.setattr("bench.record.disturbance.of", lambda record: ())
    before, after = measured("before", 1), measured("after", 1.2)
    alone = invoke("compare", after)
    assert alone.code == 1
    assert "no baseline is named" in alone.err
    assert invoke("baseline.set", before).out == f"baseline: {before.parent.name}\n"
    assert invoke("baseline.set", before).out == f"baseline: {before.parent.name}\n"
    assert invoke("compare", after).code == 7
    name = before.parent.name
    assert invoke("baseline.set", after).out == f"baseline: {after.parent.name}, instead of {name}\n"
    assert invoke("baseline.set", before).code == 0
    assert before.parent.name in invoke("baseline.show").out
    shown = invoke("history", "--model", "flux-tiny", "--metric", "denoise").out
    assert "baseline" in shown
    assert float(re.search(r"\+(\d+\.\d+)", shown)[1]) == pytest.approx(20, abs=1.5)


def test_a_baseline_is_taken_back_also_of_a_run_that_is_gone(invoke, measured):
    run = measured("before", 1)
    folder = run.parent if run.is_file() else run
    for word in (folder, folder.name):
        not_one = invoke("baseline.unset", word)
        assert (not_one.code, "this run is not a baseline" in not_one.err) == (1, True)
        assert invoke("baseline.set", run).code == 0
        if word == folder.name:
            folder.rename(folder.with_name("elsewhere"))
        ended = invoke("baseline.unset", word)
        assert (ended.code, ended.out) == (0, f"no longer a baseline: {folder.name}\n"), ended.err
        assert "no baseline is named" in invoke("baseline.show").out


def test_the_last_run_is_the_same_one_for_set_and_unset(invoke, measured):
    run = measured("before", 1)
    folder = run.parent if run.is_file() else run
    assert invoke("baseline.set", "last").code == 0
    shutil.copytree(folder, folder.with_name("20990101T000000Z-profile-flux-tiny-00000a"))
    ended = invoke("baseline.unset", "last")
    assert (ended.code, ended.out) == (0, f"no longer a baseline: {folder.name}\n"), ended.err


def test_a_profile_is_no_baseline(invoke, home):
    run = home / "runs" / "20260101T000000Z-profile-flux-00ab12"
    shutil.copytree(ROOT / "docs" / "evidence" / "h200-0.5.23" / "profile", run)
    ended = invoke("baseline.set", "00ab12")
    assert ended.code == 1
    assert "cannot be a baseline" in ended.err


def test_a_baseline_has_to_count(invoke, bench, only_run):
    bench("--repeats", "3", fall_back_at=1)
    ended = invoke("baseline.set", only_run())
    assert ended.code == 1
    assert "cannot be a baseline" in ended.err
    nothing = invoke("history", "--model", "flux-tiny")
    assert nothing.code == 1
    assert "no complete record" in nothing.err


def test_calibration_is_kept_and_used(invoke, replay, tiny, home):
    name = replay(name="old", **NATIVE, between=0.02, within=0.001)
    arguments = ["--model", "flux-tiny", "--engine", name, "--preset-file", tiny]
    ended = invoke("calibrate", *arguments, "--launches", "5")
    assert ended.code == 0, ended.err
    assert "with --repeats 3" in " ".join(ended.out.split())
    record = json.loads(next((home / "runs").glob("*/run.json")).read_text())
    assert [launch["left_out"] for launch in record["launches"]] == [[0]] * 5
    assert len(record["requests"]) == 15
    listed = invoke("calibrate", "--list").out
    assert re.search(r"^[0-9a-f]{6}  flux-tiny, old, total: [\d.]+ % between 5 launches", listed)
    assert len(list((home / "cache").rglob("noise/*.json"))) == 1

    one = record_path(invoke("bench", *arguments, "--repeats", "2"))
    change(home, name, factor=1.5)
    other = record_path(invoke("bench", *arguments, "--repeats", "2"))
    compared = invoke("compare", one, other, "--json")
    assert compared.code == 7
    assert json.loads(compared.out)[0]["comparison"]["method"] == "calibrated"


def test_a_calibration_under_disturbance_is_marked_and_can_be_forgotten(invoke, replay, tiny, monkeypatch):
    monkeypatch.setattr("bench.record.disturbance.of", lambda record: ("load average 8.0 on 2 cores",))
    name = replay(name="old", **NATIVE, between=0.02)
    common = ("--model", "flux-tiny", "--engine", name, "--preset-file", tiny)
    ended = invoke("calibrate", *common, "--launches", "2", "--repeats", "2")
    (key,) = re.findall(r"invoke calibrate --forget ([0-9a-f]{6})", ended.out)
    assert "disturbed: load average 8.0" in invoke("calibrate", "--list").out
    runs = [record_path(invoke("bench", *common, "--repeats", "2")) for _ in range(2)]
    assert "the calibration was disturbed: load average 8.0" in " ".join(invoke("compare", *runs).out.split())
    wrong = invoke("calibrate", "--forget", "ffffff")
    assert (wrong.code, "no calibration begins with 'ffffff'" in wrong.err) == (1, True)
    assert "forgotten" in invoke("calibrate", "--forget", key).out
    assert "no calibration is kept" in invoke("calibrate", "--list").out


def test_the_spread_of_a_quiet_machine_is_kept_too(invoke, replay, tiny, home):
    """With this seed the launches differ by less than their requests do."""
    name = replay(name="old", **NATIVE, between=0, within=0.05, seed=5)
    ended = invoke("calibrate", "--model", "flux-tiny", "--engine", name, "--preset-file", tiny, "--launches", "2")
    assert ended.code == 0, ended.err
    assert len(list((home / "cache").rglob("noise/*.json"))) == 1
