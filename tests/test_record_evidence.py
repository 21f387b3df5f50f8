"""Edited records and files: every reader judges again from the evidence, and says so where it is gone."""

import hashlib
import json
import os
import shutil

import pytest
from helpers import LOGS, NATIVE, record_of, record_path

from bench.run import consistency, request, timings

WARM_UP = "request-000"
"""The request before those that count: nothing rests on it."""
FALLBACK = "[11-22 09:46:02] Falling back to diffusers backend\n"


@pytest.fixture(name="run")
def _run(bench, only_run):
    """A run of two requests that counts."""
    ended = bench("--repeats", "2")
    assert ended.code == 0, ended.err
    return only_run()


def edit(run, change, name="run.json"):
    path = run / name
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def entry(path, run):
    content = path.read_bytes()
    name = path.relative_to(run).as_posix()
    return {"file": name, "sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}


def with_its_hash(run, path, record):
    """Let a record name a file as it is now, wherever it does."""
    new = entry(path, run)
    places = [*record["evidence"], *(launch["log"] for launch in record["launches"])]
    places += [request["perf_dump"] for request in record["requests"]]
    for place in places:
        if place["file"] == new["file"]:
            place.update(new)


def halve(record):
    for part in (record["timings"], *record["requests"]):
        part["metrics"] = {name: value and value / 2 for name, value in part["metrics"].items()}


def test_a_record_names_every_file_that_it_rests_on(bench, only_run):
    record = record_of(bench("--repeats", "2", "--stages"))
    run = only_run()
    kept = [path for path in run.rglob("*") if path.is_file() and path.name != "run.json" and WARM_UP not in path.parts]
    assert sorted(record["evidence"], key=str) == sorted((entry(path, run) for path in kept), key=str)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (halve, "metrics of request 1: the perf dump has different numbers"),
        (lambda record: record["timings"]["metrics"].update(total_ms=1.0), "timings.metrics does not follow"),
        (lambda record: record["requests"][0].update(steps_ms=[1.0] * 4), "steps_ms of request 1"),
        (lambda record: record["requests"].pop(), "does not follow from the requests"),
        (lambda record: record["evidence"].clear(), "is not in the list of evidence"),
        (lambda record: record["launches"][0]["delivered"].update(infer_steps=2), "something else was delivered"),
        (lambda record: record["evidence"].append({**record["evidence"][0], "file": "../x"}), "lies outside the run"),
    ],
)
def test_an_edited_record_is_refused_by_every_reader(run, invoke, change, says):
    edit(run, change)
    for words in (("validate", run), ("compare", run, run), ("baseline.set", run)):
        ended = invoke(*words)
        assert (ended.code, says in ended.err) == (5, True), ended.err


@pytest.mark.parametrize("name", ["perf.json", "engine.log", "output.png"])
def test_an_edited_file_is_refused_by_its_hash(run, invoke, name):
    path = next(path for path in run.rglob(name) if WARM_UP not in path.parts)
    path.write_bytes(path.read_bytes() + b" ")
    for words in (("validate", run), ("compare", run, run)):
        ended = invoke(*words)
        assert (ended.code, f"{path.relative_to(run)} was changed: its hash differs" in ended.err) == (5, True), (
            ended.err
        )


def test_a_log_that_tells_of_a_fallback_makes_the_record_invalid_whatever_it_says(run, invoke):
    log = next(run.rglob("engine.log"))
    log.write_text(log.read_text() + FALLBACK)
    edit(run, lambda record: with_its_hash(run, log, record))
    ended = invoke("compare", run, run)
    assert ended.code == 4
    assert "judged again by this workbench: launch 1 is invalid" in ended.err
    assert "and its record says native" in ended.err


def test_a_sign_that_only_a_newer_workbench_knows_is_no_edit(run, invoke):
    """Its files and figures agree; nothing shows who is right but the log itself."""
    log = next(run.rglob("engine.log"))
    log.write_text(log.read_text() + "[11-22 10:00:00] Could not merge layer blocks.0\n")
    edit(run, lambda record: with_its_hash(run, log, record))
    ended = invoke("validate", run)
    assert ended.code == 5
    assert "judged again by this workbench: launch 1 is degraded (lora.not_merged" in ended.err
    assert "edited" not in ended.err


def test_a_dump_with_times_that_the_log_does_not_give_is_refused(bench, invoke):
    run = record_path(bench()).parent
    dump = run / "perf.json"
    content = json.loads(dump.read_text())
    content["steps"] = [{**stage, "duration_ms": stage["duration_ms"] / 2} for stage in content["steps"]]
    content["denoise_steps_ms"] = [{**step, "duration_ms": 1.0} for step in content["denoise_steps_ms"]]
    dump.write_text(json.dumps(content))

    def follow(record):
        with_its_hash(run, dump, record)
        record["requests"][0] |= request.figures(content)
        medians = timings.timings(record["requests"], record["launches"], medians_only=True)
        record["timings"] |= {name: medians[name] for name in consistency.MEDIANS}

    edit(run, follow)
    ended = invoke("validate", run)
    assert (ended.code, "launch 1 is invalid (dump.log" in ended.err) == (6, True), ended.err


def test_a_run_that_is_called_native_against_its_own_finding_is_refused(bench, run, invoke, home):
    fell_back = record_of(bench("--repeats", "3", fall_back_at=2, engine="other"))
    finding = fell_back["launches"][0]["verdict"]["findings"][0]
    edit(run, lambda record: record["launches"][0]["verdict"]["findings"].append(finding))
    ended = invoke("validate", run)
    assert (ended.code, "launch 1 is called native, against its own findings" in ended.err) == (5, True)


def test_missing_evidence_is_said_once(run, invoke):
    before = invoke("compare", run, run)
    for log in run.rglob("engine.log"):
        log.unlink()
    ended = invoke("compare", run, run)
    assert ended.code == before.code
    assert "alone" not in before.err + before.out
    assert ended.err.count("numbers taken from the record alone: launch-1/engine.log is gone") == 1
    assert "numbers taken from the record alone" in invoke("validate", run).out


def test_missing_outputs_leave_the_numbers_proven(run, invoke):
    next(path for path in run.rglob("output.png") if WARM_UP not in path.parts).unlink()
    ended = invoke("validate", run)
    assert (ended.code, "is gone" in ended.out, "alone" in ended.out) == (0, True, False)


def test_a_contradiction_is_left_out_of_the_history(run, invoke):
    copy = run.with_name(run.name[:-6] + "abcdef")
    shutil.copytree(run, copy)
    edit(copy, lambda record: record["timings"]["metrics"].update(total_ms=1.0))
    ended = invoke("history", "--model", "flux-tiny")
    assert ended.code == 0
    assert f"left out: {copy / 'run.json'}: the record contradicts itself" in ended.err


def test_attest_holds_a_log_against_the_record_beside_it(run, invoke):
    log = next(run.rglob("engine.log"))
    log.write_text(log.read_text() + "one more line\n")
    ended = invoke("attest", "--log", log)
    assert (ended.code, "launch-1/engine.log was changed: its hash differs" in ended.err) == (5, True)


def test_a_single_launch_is_judged_again_too(bench, invoke):
    run = record_path(bench()).parent
    assert invoke("validate", run).out == f"{run}: valid run-record\n"
    (run / "engine.log").write_bytes((LOGS / "cpu" / "warmup_request.log").read_bytes() + FALLBACK.encode())
    edit(run, lambda record: with_its_hash(run, run / "engine.log", record))
    assert invoke("validate", run).code == 4


def test_the_pairs_of_an_ab_are_those_of_its_records(invoke, replay, model, home):
    replay(name="old", **NATIVE)
    arm = f"old model-path={model()}"
    invoke(
        "ab", "--model", "flux-tiny", "--baseline", arm, "--candidate", arm, "--same", "--pairs", "3", "--repeats", "1"
    )
    folder = next((home / "runs").glob("*/comparison.json")).parent
    edit(folder, lambda document: document["pairs"][0].update(candidate=[1.0]), "comparison.json")
    ended = invoke("compare", folder)
    assert (ended.code, "the pairs of the candidate are not its record's requests" in ended.err) == (5, True), ended.err


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record["launches"][0].update(started="yesterday"),
        lambda record: record["launches"][0].update(finished="2026-01-01"),
        lambda record: record["requests"][0].update(perf_dump=None),
        lambda record: record["evidence"].append(None),
        lambda record: record["timings"]["metrics"].update(total_ms="fast"),
        lambda record: record.update(code=[]),
    ],
    ids=["no moment", "no zone", "no dump", "no file", "no number", "no object"],
)
def test_a_record_of_wrong_types_is_a_clean_error(run, invoke, change):
    edit(run, change)
    for words in (("validate", run), ("compare", run, run)):
        ended = invoke(*words)
        assert (ended.code, str(run) in ended.err) == (1, True), ended.err


def test_a_fifo_is_not_waited_for(home, invoke):
    run = home / "runs" / "20260101T000000Z-bench-flux-tiny-mine-abcdef"
    run.mkdir(parents=True)
    os.mkfifo(run / "run.json")
    os.mkfifo(home / "mine.toml")
    for words in (("validate", run), ("validate", "mine"), ("compare", run, run), ("validate", home / "mine.toml")):
        assert invoke(*words).code == 1


def test_a_huge_or_evil_preset_is_a_clean_error(home, invoke):
    path = home / "mine.toml"
    for content in ("[mine]\nsteps = '4'\n", "mine = 4\n", "[mine]\nmodel = []\n", "x" * (2 << 20), "a=" + "[" * 5000):
        path.write_text(content)
        ended = invoke("validate", path)
        assert (ended.code, str(path) in ended.err) == (1, True), ended.err
