"""Load records of the real engine (0.5.23 and 0.5.17, two clients): judged again, compared, shown."""

import gzip
import json
import re
import shlex
import shutil
from dataclasses import replace
from functools import reduce
from operator import getitem
from pathlib import Path

import pytest
from helpers import DATA, ROOT, record_path

from bench import schema
from bench.compare import arms
from bench.compare import metric as metrics
from bench.engine import find
from bench.errors import FallbackDetected, RecordEdited, UsageError
from bench.record import store
from bench.report import next_step, pages
from bench.report import page as forms
from bench.run.options import Options
from bench.serving import records, review

LOADS = DATA / "serving" / "loads"
NEW, OLD = "20261128T190000Z-load-flux-tiny-000023", "20261128T180000Z-load-flux-tiny-000017"


@pytest.fixture(name="runs")
def _runs(home):
    shutil.copytree(LOADS, home / "runs", dirs_exist_ok=True)
    path = home / "runs" / OLD / "load.json"
    document = json.loads(path.read_text())
    # the default quality changed its meaning between these versions: as recorded they cannot be compared
    assert document["workload"]["quality_meaning"] == "exact"
    document["workload"]["quality_meaning"] = "rounding"
    path.write_text(json.dumps(document))
    return home / "runs"


@pytest.fixture(name="edit")
def _edit(runs):
    """Change a file of the newer run; ``hashed`` also puts the file's new hash into the record, as a forger would."""

    def go(name, change, *, hashed=True):
        path = runs / NEW / name
        path.write_bytes(change(path.read_bytes()))
        if hashed and name != "load.json":
            document = json.loads((runs / NEW / "load.json").read_text())
            entry = store.file_entry(path, runs / NEW)
            document["evidence"] = [entry if known["file"] == name else known for known in document["evidence"]]
            if name == "rows.jsonl":
                document["rows"] = entry
            else:
                document["launches"][0]["log"] = entry
            (runs / NEW / "load.json").write_text(json.dumps(document))
        return runs / NEW

    return go


def record(change):
    def of_bytes(content):
        document = json.loads(content)
        change(document)
        return json.dumps(document).encode()

    return of_bytes


def rows(change):
    def of_bytes(content):
        lines = [json.loads(line) for line in content.splitlines()]
        for line in lines:
            change(line)
        return b"".join(json.dumps(line).encode() + b"\n" for line in lines)

    return of_bytes


@pytest.mark.parametrize("name", [NEW, OLD])
def test_a_record_of_the_real_engine_holds_against_its_evidence(invoke, runs, name):
    assert review.read(runs / name).note() is None
    ended = invoke("validate", runs / name)
    assert ended.code == 0, ended.err
    assert ended.out == f"{runs / name}: valid load-record\n"


def test_a_file_with_another_content_is_named(edit):
    folder = edit("rows.jsonl", lambda content: content + b"\n", hashed=False)
    with pytest.raises(RecordEdited, match=r"rows\.jsonl was changed: its hash differs"):
        review.read(folder)


def faster(row):
    row["service_s"] = row["service_s"] and 0.5 * row["service_s"]


def late(document):
    document["phases"][-1]["figures"]["mean_s"] *= 0.5


def flipped(document):
    next(check for check in document["checks"] if check["id"] == "percentiles")["held"] = False


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("rows.jsonl", rows(faster), "give other figures"),
        ("load.json", record(lambda document: document["service_s"].update(value=0.1)), "another service_s"),
        ("rows.jsonl", rows(lambda row: row.update(done_s=row["done_s"] + 1)), "give other figures"),
        ("rows.jsonl", rows(lambda row: row.update(steps=3)), "check 'workload' is judged False"),
        ("rows.jsonl", rows(lambda row: row.pop("sent_s")), "a row is not one of a request"),
        ("load.json", record(late), "give other figures"),
        ("load.json", record(lambda document: document["capacity_hz"].update(value=99.0)), "another capacity_hz"),
        ("load.json", record(flipped), "check 'percentiles' is judged True"),
    ],
    ids=["service", "latency", "steps", "field", "figures", "median", "capacity", "check"],
)
def test_a_forged_record_is_named(edit, name, change, says, invoke):
    folder = edit(name, change)
    with pytest.raises(RecordEdited, match=says):
        review.read(folder)
    ended = invoke("validate", folder)
    assert ended.code != 0
    assert "record and evidence disagree" in ended.err


def test_a_record_of_today_has_no_rates_of_the_earlier_formula(edit):
    folder = edit("load.json", record(lambda document: document.update(started="2026-11-30T08:00:00+00:00")))
    with pytest.raises(RecordEdited, match="give other figures"):
        review.read(folder)


def halved(*names):
    def change(document):
        for name in names[:-1]:
            document = document[name]
        document[names[-1]] = type(document[names[-1]])(document[names[-1]] / 2)

    return change


def later_trace(document):
    document["profiled"]["traces"][0]["sha256"] = "0" * 64


def longer(document):
    document["batching"]["batched"]["lone_latency_s"] = 1.0


SERVED = ROOT / "docs" / "evidence" / "h200-0.5.23-served"


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("profile", halved("profiled", "in_flight_when_sent"), "another in_flight_when_sent"),
        ("profile", halved("profiled", "in_flight_when_answered"), "another in_flight_when_answered"),
        ("profile", halved("profiled", "request"), "its trace is of request 9"),
        ("profile", halved("profiled", "steps"), "its trace is not of 2 steps"),
        ("profile", later_trace, "not among its evidence"),
        ("load", halved("batching", "batched", "throughput_hz"), "of the bursts, batched"),
        ("load", longer, "of the bursts, batched"),
        ("load", halved("batching", "unbatched", "mean_latency_s"), "of the bursts, unbatched"),
    ],
)
def test_what_a_record_says_of_a_trace_and_of_bursts_follows_from_its_rows(tmp_path, name, change, says):
    folder = tmp_path / name
    shutil.copytree(SERVED / name, folder)
    review.read(folder)
    path = folder / "load.json"
    path.write_bytes(record(change)(path.read_bytes()))
    with pytest.raises(RecordEdited, match=says):
        review.read(folder)


def test_a_record_whose_log_tells_of_a_fallback_is_refused(edit):
    log = gzip.decompress((DATA / "serving" / "awq23.log.gz").read_bytes())
    told = b"".join(line for line in log.splitlines(keepends=True) if b"alling back" in line)
    folder = edit("engine.log", lambda content: content + told)
    with pytest.raises(FallbackDetected, match="judged again"):
        review.read(folder)


def test_without_its_files_a_record_rests_on_itself(runs):
    (runs / NEW / "rows.jsonl").unlink()
    assert "numbers taken from the record alone: rows.jsonl is gone" in review.read(runs / NEW).note()


# --- compared and in a trend ------------------------------------------------------------------------------------------


def test_one_start_of_each_decides_nothing_and_says_what_does(invoke, runs):
    ended = invoke("compare", runs / OLD, runs / NEW)
    assert ended.code == 9, ended.err
    baseline, candidate, verdict = ended.out.splitlines()[:3]
    assert re.fullmatch(r"baseline: [0-9a-f]{6}, flux-tiny, sglang 0\.5\.17, [-\d]+ [\d:]+, one start", baseline)
    assert re.fullmatch(r"candidate: [0-9a-f]{6}, flux-tiny, sglang 0\.5\.23, [-\d]+ [\d:]+, one start", candidate)
    assert verdict.startswith("INCONCLUSIVE")
    assert "unloaded service time" in ended.out
    assert "sglang 0.5.17 against 0.5.23" in ended.out
    for of_one_run in ("SGLANG_PERF_LOG_DIR", "--port=", "--served-model-name", "--log-requests-target"):
        assert of_one_run not in ended.out
    assert "inconclusive" in ended.err
    assert re.search(
        r"^next: .*invoke loadtest --model flux-tiny --baseline '.*' --candidate '.*' --duration 40$",
        ended.out,
        re.MULTILINE,
    )


FLAGS = ["--vae-tiling", "true", "--fast"]
SHARED = "steps=4 seed=42 width=256 height=256"


def loads(changes):
    """Return a load test and another one like it with these changes."""
    one = json.loads((LOADS / NEW / "load.json").read_text())
    other = json.loads(json.dumps(one))
    for place, value in changes.items():
        for document in (one, other)[place.startswith("candidate.") :]:
            *above, last = place.removeprefix("candidate.").split(".")
            reduce(getitem, above, document)[last] = value
    other["launches"][0]["command"]["environment"] |= other.pop("variables", {})
    one.pop("variables", None)
    return one, other


@pytest.mark.parametrize(
    ("changes", "own", "differ"),
    [
        ({}, "", False),
        ({"candidate.workload.attention_backend": "fa"}, "attention-backend=fa", True),
        ({"candidate.variables": {"SGLANG_X": "a b"}}, "SGLANG_X=a b", True),
        ({"candidate.workload.quality": "high"}, "quality=high", True),
        ({"candidate.workload.extra": FLAGS}, "--vae-tiling=true --fast", True),
        ({"candidate.weights.model": "a/b"}, "model-path=a/b", True),
        (
            {"asked.rate_hz": 0.5, "asked.slo_s": 3.0, "asked.duration_s": 9.0},
            "--rate 0.5 --slo 3.0 --duration 9",
            False,
        ),
    ],
)
def test_after_two_load_tests_each_arm_serves_what_its_side_did(monkeypatch, changes, own, differ):
    one, other = loads(changes)
    comparison = {"verdict": "inconclusive", "reason": ""}
    words = shlex.split(next_step.after_loads(one, (Path(), other), comparison))
    monkeypatch.setattr(find, "built", lambda: ["sglang-0.5.23"])
    specs = [words[words.index(f"--{side}") + 1] for side in ("baseline", "candidate")]
    baseline, candidate = (arms.options_of(spec, Options(model="flux-tiny")) for spec in specs)
    assert ("--same" in words, specs[0] != specs[1], baseline != candidate) == (not differ, differ, differ)
    assert all(spec.startswith("sglang-0.5.23 ") and set(SHARED.split()) <= set(spec.split()) for spec in specs)
    assert own in " ".join(shlex.split(specs[1]) if differ else words)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"asked.batching": 4, "workload.extra": FLAGS},
            "once for each side, within an hour: {load} --batching 4 {last} -- --vae-tiling true --fast",
        ),
        (
            {"asked.batching": 4, "candidate.workload.attention_backend": "fa"},
            "{load} --batching 4 {last} && {load} --batching 4 {last} --attention-backend fa",
        ),
        (
            {"candidate.engine.version": "0.5.24"},
            "once for each side, within an hour: {load} --batching 1 {last}",
        ),
    ],
    ids=["merging", "merging and another backend", "another version under one name"],
)
def test_what_two_arms_cannot_differ_in_is_loaded_once_for_each_side(changes, told):
    one, other = loads(changes)
    load = "invoke loadtest --model flux-tiny --engine sglang-0.5.23 --duration 40"
    last = "--arrival-seed 1 --steps 4 --seed 42 --width 256 --height 256"
    step = next_step.after_loads(one, (Path(), other), {"verdict": "inconclusive", "reason": ""})
    assert step == told.format(load=load, last=last)


@pytest.mark.parametrize("metric", ["service", "capacity"])
def test_load_tests_are_compared_by_their_metrics_as_json(invoke, runs, metric):
    ended = invoke("compare", runs / OLD, runs / NEW, "--metric", metric, "--json")
    (document,) = json.loads(ended.out)
    old, new = (metrics.named(metric).of_record(schema.read(runs / name / "load.json")) for name in (OLD, NEW))
    ratio = new / old
    assert document["comparison"]["effect"]["ratio"] == pytest.approx(ratio)


def of_nobody(document):
    for name in ("engine", "server", "verdict"):
        document[name] = None
    document["launches"] = []


def voided(document):
    document["checks"][4]["exit_code"] = 9


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (record(of_nobody), "somebody else's server"),
        (record(voided), "does not count"),
        (record(lambda document: document.update(complete=False)), "cut off"),
        (record(lambda document: document["preset"].update(sha256="0" * 64)), "not comparable: preset"),
        (record(lambda document: document["weights"].update(sha256="0" * 64)), "not comparable: weights"),
        (record(lambda document: document["host"].update(cores=64)), "not comparable: CPU cores"),
        (record(lambda document: document["workload"].update(guidance=9.0)), "not comparable: guidance"),
    ],
)
def test_what_cannot_be_compared_is_refused(invoke, runs, edit, change, says):
    folder = edit("load.json", change)
    ended = invoke("compare", runs / OLD, folder)
    assert ended.code == 1, ended.out + ended.err
    assert says in ended.err


def test_versions_whose_default_quality_differs_are_not_compared(invoke, runs):
    ended = invoke("compare", LOADS / OLD, runs / NEW)
    assert ended.code == 1
    assert "changed its meaning between sglang 0.5.17 and 0.5.23" in ended.err


def test_a_load_test_is_not_compared_with_a_benchmark(invoke, runs, bench, only_run):
    bench()
    benchmark = next(path for path in runs.iterdir() if (path / "run.json").exists())
    ended = invoke("compare", benchmark, runs / NEW)
    assert ended.code == 1
    assert "a load test cannot be compared with another kind of run" in ended.err


def test_the_last_is_the_last_that_can_be_compared_with_the_first(invoke, runs, bench):
    servers = runs / "20261129T190000Z-load-ab-flux-tiny-0000ab"
    servers.mkdir()
    (servers / "load-comparison.json").touch()

    def compared(*words):
        (document,) = json.loads(invoke("compare", *words, "--json").out)
        return [document[side].rpartition("/")[2] for side in ("baseline", "candidate")]

    assert compared("last~1", "last") == [OLD, NEW]
    assert record_path(bench()).is_file()
    assert compared(runs / OLD, "last") == compared(OLD, "last") == [OLD, NEW]
    ended = invoke("compare", "last", "last~1")
    assert "last~1 reaches too far back" in ended.err


@pytest.mark.parametrize("metric", ["service", "capacity"])
def test_a_trend_has_the_load_tests_of_a_preset(invoke, runs, metric):
    ended = invoke("history", "--model", "flux-tiny", "--metric", metric, "--json")
    assert ended.code == 0, ended.err
    points = json.loads(ended.out)
    assert {point["engine"] for point in points} == {"0.5.17", "0.5.23"}
    assert all(point["value"] > 0 and point["unit"] == "ms" for point in points)
    assert len({point["family"] for point in points}) == 1


def test_a_trend_of_benchmarks_has_no_load_tests(invoke, runs):
    ended = invoke("history", "--model", "flux-tiny")
    assert ended.code == 1
    assert "no complete record" in ended.err


# --- pages ------------------------------------------------------------------------------------------------------------


def test_a_page_of_a_load_test_is_judged_again_by_its_own_evidence(invoke, runs):
    ended = invoke("report", runs / NEW)
    assert ended.code == 0, ended.err
    ended = invoke("attest", runs / NEW / "report.html")
    assert ended.code == 0, ended.err
    assert "load test: native" in ended.out


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"complete": False, "failure": {"exit_code": 130, "what": "interrupted"}}, 130, "cut off: interrupted"),
        ({"complete": False}, 130, "cut off, or still running"),
    ],
)
def test_a_load_test_that_was_cut_off_is_told_and_ends_as_it_did(invoke, edit, change, code, says):
    folder = edit("load.json", record(lambda document: document.update(change)))
    ended = invoke("attest", folder)
    assert (ended.code, ended.out) == (code, f"{folder}: load test: native; {says}\n"), ended.err


def test_a_load_test_whose_check_failed_ends_with_its_code(invoke, edit):
    ended = invoke("attest", edit("load.json", record(voided)))
    assert ended.code == 9, ended.err
    assert "missing proof that" in ended.out


def test_a_page_whose_rows_were_edited_is_named(invoke, runs, tmp_path):
    page = pages.of(runs / NEW)
    evidence = {**page.evidence, "rows.jsonl": page.evidence["rows.jsonl"] + b" "}
    forms.write(replace(page, evidence=evidence), tmp_path / "page.html")
    ended = invoke("attest", tmp_path / "page.html")
    assert ended.code != 0
    assert "rows.jsonl was changed: its hash differs" in ended.err


def test_a_comparison_of_records_refuses_unknown_words(runs):
    with pytest.raises(UsageError, match="service or capacity"):
        records.read(runs / NEW, "DenoisingStage")
