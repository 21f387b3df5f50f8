"""What `compare`, `calibrate` and `history` tell of records, and `ab` of two versions."""

import copy
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from helpers import LOGS, NATIVE, ROOT, invoke_command, record_of, record_path
from rich.console import Console

from bench import safe_text, schema
from bench.compare import calibration
from bench.fidelity import pairs, score
from bench.options import declared
from bench.record import store
from bench.report import next_step
from bench.report import run as report
from bench.run import consistency, timings
from bench.run.options import Options
from bench.stats import comparison as stats
from bench.stats import sequential

GPU = ROOT / "docs" / "evidence" / "h200-0.5.23"

QUIET = "(?:when nothing else runs here: )?"
"""Where other work disturbed the machine that runs the tests."""


@pytest.fixture
def recorded(bench, home):
    """Return a function that adds records like a measured one, each with its own version, start and times."""
    path = record_path(bench("--repeats", "2"))
    original = json.loads(path.read_text())
    # what disturbs the machine that runs the tests
    original["preflight"] = []
    original["verdict"]["findings"] = [one for one in original["verdict"]["findings"] if one["source"] != "device"]
    shutil.rmtree(path.parent)

    def add(number, *, factor=1.0, **changes):
        record = copy.deepcopy(original)
        record["id"] = f"20260101T{number:06d}Z-bench-flux-tiny-{number:06x}"
        record["started"] = record["finished"] = f"2026-01-{1 + number // 24:02d}T{number % 24:02d}:00:00+00:00"
        for request in record["requests"]:
            request["metrics"]["total_ms"] *= factor
        for place, value in changes.items():
            *above, last = place.split("__")
            inner = record
            for name in above:
                inner = inner[int(name) if name.isdigit() else name]
            inner[last] = value
        medians = timings.timings(record["requests"], record["launches"], medians_only=True)
        record["timings"] |= {name: medians[name] for name in consistency.MEDIANS}
        folder = home / "runs" / record["id"]
        folder.mkdir(parents=True)
        return store.write(record, folder)

    return add


# --- instruments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"instrument__stage_sync": True}, "synchronised stages: off against on"),
        ({"instrument__profiler": True, "kind": "profile"}, "profiler: off against on"),
    ],
)
def test_times_taken_under_different_instruments_are_not_compared(invoke, recorded, change, named):
    ended = invoke("compare", recorded(1), recorded(2, **change))
    assert ended.code == 1
    assert named in ended.err


def test_two_presets_are_named_and_not_their_hashes(invoke, recorded):
    one, other = recorded(1), recorded(2, preset__key="sd3-tiny", preset__sha256="0" * 64)
    ended = invoke("compare", one, other)
    assert "not comparable: preset: flux-tiny against sd3-tiny" in ended.err
    assert "to do: name two runs of one preset" in ended.err
    ended = invoke("compare", one, recorded(3, preset__sha256="0" * 64))
    assert "preset: flux-tiny against flux-tiny (its content differs)" in ended.err


def test_a_side_is_called_by_its_folder_also_where_its_file_was_named(invoke):
    evidence = ROOT / "docs" / "evidence"
    ended = invoke("compare", evidence / "eager" / "run.json", evidence / "compile")
    assert "baseline: eager, flux-full-synthetic, sglang 0.5.17" in ended.out
    assert "candidate: compile, flux-full-synthetic, sglang 0.5.17" in ended.out


@pytest.mark.parametrize("form", [(), ("--markdown",)])
def test_an_arm_is_called_by_its_comparison(invoke, form):
    """Its own folder is called baseline: nobody is helped by `baseline: baseline`."""
    folder = ROOT / "docs" / "evidence" / "h200-0.5.23" / "aa"
    told = invoke("compare", folder / "baseline", folder / "candidate", *form).out
    assert "baseline: baseline of aa, flux-full-synthetic, sglang 0.5.23" in told
    assert "baseline: baseline," not in told


def test_the_times_of_two_profiles_are_compared(invoke, recorded):
    """They are those of the requests without the profiler."""
    profile = {"instrument__profiler": True, "kind": "profile"}
    ended = invoke("compare", recorded(1, **profile), recorded(2, **profile))
    assert ended.code == 9, ended.err
    assert "total time" in ended.out


def test_variables_that_may_explain_a_difference_are_named(invoke, bench, home):
    path = record_path(bench()).parent
    words = ("bench", "--model", "flux-tiny", "--engine", "replay", "--model-path", home / "models" / "FLUX.1-dev-tiny")
    other = record_path(invoke(*words, env={"OMP_NUM_THREADS": "1"})).parent
    for word in ("--markdown", "--json"):
        ended = invoke("compare", path, other, word)
        assert "environment: OMP_NUM_THREADS: not set against '1'" in ended.out + ended.err
    alike = record_path(invoke(*words)).parent
    assert "environment differs" not in invoke("compare", path, alike).out


def test_stages_come_from_a_launch_of_their_own_and_what_they_cost_is_told(bench, invoke):
    ended = bench("--repeats", "3", "--stages")
    assert ended.code == 0, ended.err
    shown = " ".join(ended.out.split())
    assert "instrument none, as in a user's run" in shown
    assert "synchronised stages, a launch of its own (3 requests)" in shown
    assert "synchronised stages add +0.00 % end to end, +0.00 % to denoising" in shown
    assert shown.index("request, client's wall clock") < shown.index("end to end") < shown.index("denoise ")
    record = record_of(ended)
    assert [launch["instrument"]["stage_sync"] for launch in record["launches"]] == [False, True]
    other = shutil.copytree(record_path(ended).parent, record_path(ended).parent.with_name("other"))
    (other / "run.json").write_text(json.dumps(record | {"id": "other"}))
    told = invoke("compare", record_path(ended), other, "--metric", "DecodingStage")
    assert "time of DecodingStage" in told.out


def test_without_synchronised_stages_there_is_no_stage_to_show_or_compare(bench, invoke):
    ended = bench("--repeats", "2")
    assert "DecodingStage" not in ended.out
    other = shutil.copytree(record_path(ended).parent, record_path(ended).parent.with_name("copy"))
    told = invoke("compare", record_path(ended), other, "--metric", "DecodingStage")
    assert told.code == 1
    assert "or a stage of a run with --stages" in told.err


# --- versions ---------------------------------------------------------------------------------------------------------

MEANING = "the default quality changed its meaning between sglang 0.5.17 and 0.5.23"


def test_ab_of_two_versions_says_that_the_default_quality_changed_its_meaning(invoke, replay, tiny):
    for name, version in (("old", "0.5.17"), ("new", "0.5.23")):
        replay(name=name, version=version, **NATIVE, within=0.002)
    arms = ("--baseline", "old", "--candidate", "new", "--pairs", "1", "--repeats", "1")
    ended = invoke("ab", "--model", "flux-tiny", "--preset-file", tiny, *arms)
    assert ended.code == 9, ended.err
    shown = " ".join(ended.out.split())
    assert f"meaning of the quality: 'exact' against 'rounding' ({MEANING})" in shown
    assert re.search(r"took \d+ s, engine starts included", shown)


def test_a_stage_is_compared_with_both_arms_synchronised(invoke, replay, tiny, home):
    for name in ("old", "new"):
        replay(name=name, **NATIVE, within=0.002)
    arms = ("--baseline", "old", "--candidate", "new", "--pairs", "1", "--repeats", "1")
    ended = invoke("ab", "--model", "flux-tiny", "--preset-file", tiny, *arms, "--metric", "DenoisingStage")
    assert ended.code == 9, ended.err
    records = [store.read(path) for path in home.glob("runs/*/*/run.json")]
    assert [record["instrument"]["stage_sync"] for record in records] == [True, True]


def test_records_of_two_meanings_are_not_compared(invoke, recorded):
    old = recorded(1, engine__version="0.5.17", workload__quality_meaning="exact")
    ended = invoke("compare", old, recorded(2, engine__version="0.5.23", workload__quality_meaning="rounding"))
    assert ended.code == 1
    assert MEANING in ended.err


def test_the_history_keeps_workloads_apart(invoke, recorded):
    recorded(1, workload__steps=4)
    recorded(2, factor=0.5, workload__steps=2)
    ended = invoke("history", "--model", "flux-tiny")
    trends = [line for line in ended.out.splitlines() if "steps, total time: " in line]
    assert [line.partition(" steps")[0] for line in trends] == ["flux-tiny, 4", "flux-tiny, 2"], ended.out
    assert all(re.search(r" total time: [\d,.]+ ms$", line) for line in trends), "one point has no trend"
    assert "workload" in ended.out


UNLIKE = (
    ({"workload__seed": 7}, "seed 7", "seed 42"),
    ({"workload__warmup": "off"}, "warm-up off", "warm-up request"),
    ({"workload__attention_backend": "fa"}, "attention backend fa", "attention backend default"),
    ({"workload__torch_compile": True}, "torch.compile", "eager"),
    ({"workload__extra": ["--a", "--b"]}, "--a --b", "no flags"),
    ({"workload__prompt": "a cat, " * 9}, "prompt 234293", "prompt "),
    ({"workload__image": {"name": "a.png", "sha256": "0" * 64}}, "image ", "image default"),
    ({"preset__sha256": "0" * 64}, "preset ", "preset "),
    ({"methodology": 1}, "methodology 1", "methodology 2"),
)


def test_the_history_names_all_in_which_workloads_differ(invoke, recorded):
    recorded(0)
    for number, (changes, _, _) in enumerate(UNLIKE, 1):
        recorded(number, **changes)
    told = [point["workload"] for point in json.loads(invoke("history", "--model", "flux-tiny", "--json").out)]
    assert len(set(told)) == len(UNLIKE) + 1
    for words, (_, own, others) in zip(told[1:], UNLIKE, strict=True):
        assert own in words
        assert others in told[0]
    ended = invoke("history", "--model", "flux-tiny", env={"COLUMNS": "999"})
    heads = [line.partition(", total time: ")[0] for line in ended.out.splitlines() if ", total time: " in line]
    assert len(set(heads)) == len(UNLIKE) + 1
    rows = [line for line in ended.out.splitlines() if " native " in line]
    assert all(head.partition(", ")[2] in row for head, row in zip(heads, rows, strict=True))
    page = invoke("history", "--model", "flux-tiny", "--markdown").out
    assert all(safe_text.markdown(words) in page for words in told)


@pytest.mark.parametrize(("changes", "own", "others"), UNLIKE[:5])
def test_of_two_workloads_each_is_named_by_what_differs(invoke, recorded, changes, own, others):
    recorded(1)
    recorded(2, **changes)
    ended = invoke("history", "--model", "flux-tiny")
    heads = [line.partition(", total time: ")[0] for line in ended.out.splitlines() if ", total time: " in line]
    assert heads == [f"flux-tiny, {others}", f"flux-tiny, {own}"]


def test_of_files_that_are_gone_the_hashes_tell_and_stages_are_told_from_the_total(invoke):
    evidence = ROOT / "docs" / "evidence" / "h200-0.5.23"
    ended = invoke("compare", evidence / "bench", evidence / "again")
    assert re.search(r"pixels .*equal \(by hash\)", ended.out), ended.out
    assert "DenoisingStage, synchronised" in ended.out
    assert invoke("compare", evidence / "bench", evidence / "again", "--require", "lossless").code != 0


def test_a_slower_version_is_a_new_level_in_the_history(invoke, recorded):
    noise = np.random.default_rng(1).normal(0, 0.005, 16)
    for number in range(16):
        version = "0.5.19" if number < 8 else "0.5.21"
        recorded(number, factor=(1.0 if number < 8 else 1.2) * (1 + noise[number]), engine__version=version)
    ended = invoke("history", "--model", "flux-tiny")
    marked = [line for line in ended.out.splitlines() if "new level" in line]
    assert len(marked) == 1, ended.out
    assert "0.5.21" in marked[0]
    assert "engine" in marked[0]
    assert float(re.search(r"\+([\d.]+) %", marked[0])[1]) == pytest.approx(20, abs=2)


def test_disturbed_records_are_marked_in_the_history_and_on_its_page(invoke, recorded, home):
    busy = [{"id": "gpu.idle", "state": "warn", "saw": "pid 4321 on GPU 0", "means": "m", "todo": "t"}]
    noise = np.random.default_rng(1).normal(0, 0.005, 16)
    for number in range(16):
        disturbed = busy if number in (8, 12) else []
        recorded(number, factor=(1.0 if number < 8 else 1.2) * (1 + noise[number]), preflight=disturbed)
    ended = invoke("history", "--model", "flux-tiny", "--plot")
    rows = [line for line in ended.out.splitlines() if " native " in line]
    told = "new level, disturbed|disturbed|not claimed"
    marks = {place: found for place, row in enumerate(rows) if (found := re.findall(told, row))}
    assert marks == {8: ["not claimed", "new level, disturbed"], 12: ["not claimed", "disturbed"]}
    assert float(re.search(r"([+-][\d.]+) %", rows[9])[1]) == pytest.approx(20, abs=3), "since the last undisturbed one"
    told = " ".join(ended.out.split())
    assert (
        "2 of 16 records were measured under disturbance (pid 4321 on GPU 0): no size of a change is claimed there"
        in " ".join(told.split())
    )
    narrow = invoke("history", "--model", "flux-tiny", env={"COLUMNS": "60", "FORCE_COLOR": "1"}).out
    assert max(len(line) for line in re.sub(r"\x1b\[[0-9;]*m", "", narrow).splitlines()) <= 60
    points = json.loads(invoke("history", "--model", "flux-tiny", "--json").out)
    assert [point["disturbed"] for point in points][7:9] == [[], ["pid 4321 on GPU 0"]]
    page = (home / "runs" / "history-flux-tiny.html").read_text()
    assert "1 new level in 16 records" in page
    assert "which was measured under disturbance" in page
    assert "2 of 16 records of flux-tiny were measured under disturbance" in page
    source = invoke("history", "--model", "flux-tiny", "--markdown").out
    assert source == invoke("report", "--model", "flux-tiny", "--markdown").out
    assert [line.count("not claimed") for line in source.splitlines() if "| native |" in line].count(1) == 2
    both = invoke("history", "--model", "flux-tiny", "--markdown", "--json")
    assert (both.code, both.out) == (1, "")


@pytest.mark.parametrize(
    ("disturbed", "told"),
    [
        ((0, 1, 2), "All 3 records were measured under disturbance: no new level is claimed."),
        ((1,), "1 of 3 records was measured under disturbance: no new level is claimed."),
        ((), "No new level in 3 records."),
    ],
)
def test_without_a_new_level_the_history_says_whether_one_could_have_been_seen(invoke, recorded, disturbed, told):
    busy = [{"id": "gpu.idle", "state": "warn", "saw": "pid 4321 on GPU 0", "means": "m", "todo": "t"}]
    for number in range(3):
        recorded(number, preflight=busy if number in disturbed else [])
    assert f"**: {told}\n" in invoke("report", "--model", "flux-tiny", "--markdown").out


def test_the_only_record_of_a_history_is_not_counted(invoke, recorded):
    busy = [{"id": "gpu.idle", "state": "warn", "saw": "pid 4321 on GPU 0", "means": "m", "todo": "t"}]
    recorded(1, preflight=busy)
    shown = invoke("history", "--model", "flux-tiny").out
    assert "the only record was measured under disturbance (pid 4321 on GPU 0)\n" in shown


CAP = {"power cap": 47}


@pytest.mark.parametrize(
    ("limits", "bracket", "disturbed"),
    [
        ((CAP, CAP), " (power cap)", False),
        ((CAP, CAP), "", True),  # the launch with the cap is another one
        (({}, {}), "", True),
        (({}, CAP), " (power cap)", True),  # set between the two
    ],
)
def test_a_card_at_its_own_power_limit_is_no_disturbance(recorded, limits, bracket, disturbed, invoke):
    runs = [recorded(number) for number in (1, 2)]
    path = runs[1]
    seen = {"index": 0, "samples": 98, "working_mhz": [1350, 1980], "hottest_c": 58, "slowdowns": {}}
    baseline = json.loads(runs[0].read_text())
    baseline["launches"][0]["gpus_during"] = [seen | {"limits": limits[0]}]
    runs[0].write_text(json.dumps(baseline))
    record = json.loads(path.read_text())
    text = f"GPU 0: 1350 to 1980 MHz under load{bracket}"
    record["verdict"]["findings"].append(
        {
            "id": "gpu.clock_drop", "category": "device", "severity": "info", "source": "device", "text": text,
            "means": "the clock changed", "todo": "compare with interleaved repeats", "line": None, "at_s": None,
            "component": None, "exit_code": 4, "count": 1,
        }
    )  # fmt: skip
    record["launches"][0]["gpus_during"] = [seen | {"limits": limits[1]}]
    path.write_text(json.dumps(record))
    told = invoke("compare", *runs).out
    assert ("measured under disturbance: candidate" in told) is disturbed
    assert f"{'clocks' if bracket else 'disturbed'}, candidate: {text}" in told
    said = "disturbed, candidate: its clocks were limited (power cap), the other side's were not"
    assert (said in " ".join(told.split())) is (limits[0] != limits[1])


def test_a_record_that_has_not_changed_is_not_read_again(invoke, recorded, monkeypatch):
    first, second = recorded(1), recorded(2)
    shown = invoke("history", "--model", "flux-tiny").out
    read = []
    monkeypatch.setattr(store, "read", lambda path, reads=store.read: read.append(path) or reads(path))
    assert invoke("history", "--model", "flux-tiny").out == shown
    assert read == []
    second.write_text(second.read_text().replace("0.5.23", "0.5.24"))
    third = recorded(3)
    third.write_text("{")
    ended = invoke("history", "--model", "flux-tiny")
    assert read == [second, third]
    assert "0.5.24" in ended.out
    assert f"left out: {third}: not JSON" in ended.err
    shutil.rmtree(first.parent)
    assert invoke("history", "--model", "flux-tiny").out.count(" native ") == 1


def test_a_broken_arm_of_an_old_comparison_is_no_fault_of_the_history(invoke, recorded):
    whole = recorded(1)
    arm = whole.parent.parent / "20261101T000000Z-ab-flux-tiny-0a0b0c" / "baseline" / "run.json"
    arm.parent.mkdir(parents=True)
    arm.write_text(json.dumps(json.loads(whole.read_text()) | {"id": "baseline", "launches": "none"}))
    ended = invoke("history", "--model", "flux-tiny")
    assert (ended.code, ended.err) == (0, "")


def test_a_long_history_shows_its_end_and_what_is_marked(invoke, recorded, monkeypatch):
    monkeypatch.setattr("bench.report.history.SHOWN_RECORDS", 4)
    noise = np.random.default_rng(1).normal(0, 0.005, 24)
    for number in range(24):
        recorded(number, factor=(1.0 if number < 12 else 1.2) * (1 + noise[number]))
    ended = invoke("history", "--model", "flux-tiny")
    rows = [line.split()[-1] for line in ended.out.splitlines() if " native " in line]
    assert rows == [f"{number:06x}" for number in (12, 20, 21, 22, 23)]
    assert "24 records: the last 4, earlier baselines and new levels; --json has all" in ended.out
    assert len(json.loads(invoke("history", "--model", "flux-tiny", "--json").out)) == 24


@pytest.mark.parametrize(
    "content",
    ["[]", "null", '{"metrics": null}', '{"metrics": [1]}', '{"metrics": {"total": []}}', "not JSON", "[" * 100_000]
    + [
        json.dumps(
            {"metrics": {"total": {"sd_percent": 1.0, "within_percent": 0.5, "launches": 4, "requests": 2} | bad}}
        )
        for bad in ({"sd_percent": None}, {"sd_percent": "1"}, {"launches": 1}, {"within_percent": []})
    ],
)
def test_a_broken_file_of_noise_is_as_if_nothing_was_calibrated(recorded, home, monkeypatch, content):
    record = store.read(recorded(1))
    path = calibration._file(record)
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert calibration.noise(record) is None
    assert calibration._keep(path, "total", {"sd_percent": 1.0, "within_percent": None, "launches": 4, "requests": 2})
    assert calibration.noise(record).sd_percent == 1.0


def test_a_fifo_of_noise_is_not_waited_for(recorded, home):
    record = store.read(recorded(1))
    path = calibration._file(record)
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    assert calibration.noise(record) is None


def test_profiles_are_no_part_of_the_history(invoke, recorded):
    recorded(1)
    recorded(2, factor=9.0, kind="profile", instrument__profiler=True)
    shown = invoke("history", "--model", "flux-tiny", "--metric", "total").out
    assert shown.count(" native ") == 1


def test_history_shows_the_metric_that_is_asked_for(invoke, recorded):
    recorded(1, launches__0__load_s=12.5)
    shown = invoke("history", "--model", "flux-tiny", "--metric", "load").out
    assert "time to load" in shown
    assert "12.50 s" in shown
    ended = invoke("history", "--model", "flux-tiny", "--metric", "NoStage")
    assert (ended.code, "that counts has the metric NoStage" in ended.err) == (1, True)
    assert "--metric takes total, denoise, wall, load, peak-memory" in ended.err


def test_a_file_that_is_no_record_is_not_compared(invoke):
    for words in (("README.md",), ("README.md", "README.md")):
        ended = invoke("compare", *words)
        assert ended.code == 1
        assert "this file is not JSON, as a record is\n  where: README.md\n  to do: a run is called last" in ended.err


def test_a_mistyped_label_is_answered_with_the_one_that_was_meant(invoke, recorded):
    first, _ = recorded(1, label="before"), recorded(30, label="after")
    for words, meant in ((("befor", "after"), "before"), ((first, "aftre"), "after")):
        ended = invoke("compare", *words)
        assert ended.code == 1
        assert f"did you mean {meant}?" in ended.err
    assert "a run is called last" in invoke("compare", "nothing", "after").err


def test_the_history_is_filtered_and_written_as_json(invoke, recorded):
    recorded(1, label="before")
    recorded(30, label="after", engine__version="0.5.21")
    points = json.loads(invoke("history", "--model", "flux-tiny", "--json").out)
    assert [(point["label"], point["unit"]) for point in points] == [("before", "ms"), ("after", "ms")]
    for words, label in (
        (("--since", "2026-01-02"), "after"), (("--version", "0.5.23"), "before"), (("--label", "after"), "after"),
    ):  # fmt: skip
        (point,) = json.loads(invoke("history", "--model", "flux-tiny", "--json", *words).out)
        assert point["label"] == label


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--label", "nobody"), "the only record of flux-tiny has another label, version or day"),
        (("--version", "9.9"), "leave --label, --version and --since out to see them"),
        (("--since", "yesterday"), "--since takes a day such as 2026-11-24, not 'yesterday'"),
        (("--since", "2026-13-45"), "--since takes a day such as 2026-11-24, not '2026-13-45'"),
    ],
)
def test_a_filter_that_leaves_nothing_is_named(invoke, recorded, words, told):
    recorded(1)
    ended = invoke("history", "--model", "flux-tiny", *words)
    assert ended.code == 1
    assert told in " ".join(ended.err.split())


def test_a_history_without_a_record_names_the_presets_that_have_some(invoke, recorded):
    recorded(1)
    ended = invoke("history")
    assert ended.code == 1
    assert "`invoke history --model flux-tiny`; there are records of flux-tiny" in ended.err


# --- hosts and days ---------------------------------------------------------------------------------------------------


def test_records_of_other_days_decide_only_if_the_spread_between_days_is_known(invoke, recorded):
    days = [recorded(24 * day, factor=factor) for day, factor in enumerate((1.0, 1.003, 0.998, 1.001))]
    slower = recorded(24 * 9, factor=1.5)
    unknown = invoke("compare", days[0], slower)
    assert unknown.code == 9
    assert "measured apart" in unknown.out
    ended = invoke("calibrate", *(word for path in days for word in ("--hosts", path)))
    assert ended.code == 0, ended.err
    assert "from record to record (over 4 records)" in ended.out
    assert "measured apart" not in invoke("compare", days[0], slower).out


def test_two_records_do_not_know_the_spread_between_days(invoke, recorded):
    ended = invoke("calibrate", "--hosts", recorded(1), "--hosts", recorded(30))
    assert ended.code == 1
    assert "at least 3 records" in ended.err


def test_records_of_two_versions_are_no_measure_of_a_day(invoke, recorded):
    paths = [recorded(24 * day, engine__version=f"0.5.{19 + 2 * (day > 1)}") for day in range(3)]
    ended = invoke("calibrate", *(word for path in paths for word in ("--hosts", path)))
    assert ended.code == 1
    assert "different workloads, devices or versions" in ended.err


# --- words of before --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("word", "told"), [(("--co-resident",), "leave it out"), (("--blocks", "6"), "--pairs: arms")])
def test_a_word_of_before_names_the_present_one(invoke, word, told):
    ended = invoke("ab", "--model", "flux-tiny", *word)
    assert ended.code == 1
    assert told in ended.err


# --- launches ---------------------------------------------------------------------------------------------------------


def test_an_interval_says_what_it_holds_of(bench):
    one = bench("--repeats", "8", within=0.01, engine="one")
    assert "95 % of this launch alone: " in " ".join(one.out.split())
    three = bench("--launches", "3", "--repeats", "2", within=0.01, between=0.01, engine="three")
    assert "95 % over 3 launches: " in " ".join(three.out.split())


def test_medians_without_an_interval_are_told_once_with_what_one_needs(bench):
    two = bench("--launches", "2", "--repeats", "2", within=0.01, between=0.01, engine="two").out
    told = " ".join(two.split())
    assert told.count("no interval") == 1
    assert "no intervals: an interval over launches needs 3; there are 2 " in told
    few = " ".join(bench("--repeats", "4", within=0.01, engine="few").out.split())
    assert few.count("no interval") == 1
    assert "no intervals: a median's 95 % interval needs 6 samples; there are 4 " in few


def test_launches_that_jump_between_two_levels_are_named(bench):
    record = record_of(bench("--launches", "4", "--repeats", "2"))
    medians = [5780.0, 9150.0, 5800.0, 9200.0]
    record["timings"]["spread"] |= {"medians": medians}
    console = Console(file=io.StringIO(), width=200)
    report.show(record, Path("run.json"), console)
    assert "two levels: 2 launches at 5,790.0 ms, 2 at 9,175.0 ms" in console.file.getvalue()


def test_compare_names_two_levels_of_a_side(invoke, bench, home):
    path = record_path(bench("--launches", "4", "--repeats", "1"))
    record = json.loads(path.read_text())
    for request, total_ms in zip(record["requests"], (5780.0, 9150.0, 5800.0, 9200.0), strict=True):
        request["metrics"]["total_ms"] = total_ms
    medians = timings.timings(record["requests"], record["launches"], medians_only=True)
    record["timings"] |= {name: medians[name] for name in consistency.MEDIANS}
    folder = path.parent.with_name("20260101T000001Z-bench-flux-tiny-000001")
    folder.mkdir()  # without the evidence, which would contradict these times
    ended = invoke("compare", path, store.write(record | {"id": folder.name}, folder))
    shown = " ".join(ended.out.split())
    assert "two levels: 2 of the candidate's launches are at 5,790.0 ms, 2 at 9,175.0 ms" in shown


# --- the folder of two arms -------------------------------------------------------------------------------------------


@pytest.fixture
def arms(recorded, tmp_path):
    """The folder of two arms whose outputs cannot be compared, decided by the total time."""
    folder = tmp_path / "arms"
    values = {}
    for number, name in enumerate(("baseline", "candidate"), 1):
        path = recorded(number, workload__seed=number)
        values[name] = [request["metrics"]["total_ms"] for request in store.read(path)["requests"]]
        shutil.copytree(path.parent, folder / name)
    compared = stats.to_document(sequential.decide([-0.05, -0.051, -0.052], sequential.Plan()).comparison)
    outputs = score.compared(pairs.Between(unknown="none"), compared["verdict"], None)
    document = {
        "schema": "ab-record", "schema_version": 2, "methodology": store.METHODOLOGY, "id": "arms", "complete": True,
        "failure": None, "together": True, "seed": 1, "requests_per_start": 1, "metric": "total", "unit": "ms",
        "arms": {name: {"spec": "", "record": f"{name}/run.json"} for name in ("baseline", "candidate")},
        "differences": [], "pairs": [{"order": "AB", **values}], "why": "decided",
        "comparison": compared, "quality": outputs,
    }  # fmt: skip
    schema.write(document, "ab-record", folder / "comparison.json")
    return folder


def test_a_threshold_asked_for_later_is_held_against_the_arms(invoke, arms):
    assert invoke("compare", arms).code == 0
    gated = invoke("compare", arms, "--require", "lossless")
    assert gated.code == 7
    assert "not lossless" in gated.err


def test_arms_are_not_shown_as_if_another_metric_had_decided(invoke, arms):
    ended = invoke("compare", arms, "--metric", "wall")
    assert ended.code == 1
    assert "were compared by total, not by wall" in ended.err


@pytest.mark.parametrize("verb", ["compare", "attest", "report"])
def test_a_comparison_of_version_1_is_refused_with_what_judges_its_runs(invoke, verb):
    ended = invoke(verb, "docs/evidence/ab")
    assert ended.code == 1
    assert "comparisons of version 1 cannot be judged or shown any more" in ended.err
    advice = re.search(r"`invoke (attest .*)` judges its two runs; `invoke ab` compares anew", ended.err)[1]
    assert invoke(*advice.split()).out.count("run: degraded") == 2


def test_the_file_of_a_comparison_stands_for_its_folder(invoke):
    assert invoke("compare", GPU / "ab" / "comparison.json") == invoke("compare", GPU / "ab")


@pytest.mark.parametrize("verb", ["ab", "calibrate"])
def test_a_metric_of_servers_is_refused_before_anything_is_measured(invoke, verb, home):
    ended = invoke(verb, "--metric", "service")
    assert ended.code == 1
    assert (
        "service is a metric of servers under load\n  to do: `invoke loadtest --baseline A --candidate B`" in ended.err
    )
    assert not (home / "runs").exists()
    helped = " ".join(invoke(verb, "--help").out.split())
    assert "service" not in helped


def test_stages_of_a_bare_dump_carry_their_doubt(invoke, tmp_path):
    dump = "docs/evidence/eager/perf.json"
    other = json.loads((ROOT / dump).read_text())
    (tmp_path / "other.json").write_text(json.dumps(other | {"total_duration_ms": other["total_duration_ms"] + 1}))
    ended = invoke("compare", dump, tmp_path / "other.json")
    assert "does not say whether its stages were synchronised" in " ".join(ended.out.split())


# --- what a reader is told --------------------------------------------------------------------------------------------


def test_what_differs_and_what_disturbed_stand_before_the_numbers(invoke, recorded):
    busy = [{"id": "gpu.idle", "state": "warn", "saw": "pid 4321 on GPU 0", "means": "m", "todo": "t"}]
    slower = recorded(
        2, factor=1.5, preflight=busy, verdict__findings=[], devices__driver="999.1", engine__packages__torch="9.9"
    )
    ended = invoke("compare", recorded(1, preflight=[], verdict__findings=[]), slower)
    shown = " ".join(ended.out.split())
    assert "driver unknown against 999.1" in shown
    assert "torch 2.11.0 against 9.9" in shown
    assert shown.index("torch 2.11.0 against 9.9") < shown.index("INCONCLUSIVE (measured under disturbance: candidate)")
    assert "disturbed, candidate: pid 4321 on GPU 0" in shown


def test_two_records_that_decide_nothing_end_with_the_command_that_would(invoke, recorded):
    ended = invoke("compare", recorded(1), recorded(2, factor=1.5))
    assert ended.code == 9
    (told,) = [line for line in ended.out.splitlines() if line.startswith("next: ")]
    assert re.fullmatch(
        r"next: once for each side, within an hour: invoke bench --model flux-tiny .*--repeats 3 --launches 3",
        told,
    )


def test_two_records_that_were_disturbed_are_proposed_again_for_each_side(invoke, recorded):
    busy = [{"id": "gpu.idle", "state": "warn", "saw": "pid 4321 on GPU 0", "means": "m", "todo": "t"}]
    shown = invoke("compare", recorded(1), recorded(2, factor=1.5, preflight=busy)).out
    assert re.search(r"^next: once for each side, when nothing else runs here: invoke bench .*", shown, re.MULTILINE)


def test_a_record_is_not_compared_with_itself(invoke, recorded, home):
    path = recorded(1)
    dump = LOGS / "cpu/native_0.5.17.json"
    shutil.copytree(path.parent, home / "copy")
    shutil.copy(dump, home / "copy.json")
    for words in ((path, path.parent), ("last", path), (path, home / "copy"), (dump, dump), (dump, home / "copy.json")):
        ended = invoke("compare", *words)
        assert ended.code == 1
        assert "the same record twice" in ended.err


def test_the_last_record_is_the_last_that_can_be_compared(invoke, recorded, home):
    first, second = recorded(1), recorded(2, factor=1.5)
    for kind in ("profile", "ab"):
        folder = home / "runs" / f"20270101T000000Z-{kind}-flux-tiny-00000a"
        folder.mkdir()
        shutil.copy(second, folder)
        (folder / "comparison.json").touch()
    ended = invoke("compare", "last~1", "last", "--json")
    assert ended.code == 9, ended.err
    (compared,) = json.loads(ended.out)
    assert [Path(compared[side]) for side in ("baseline", "candidate")] == [first.parent, second.parent]


def test_two_records_of_other_flags_end_with_both_arms_in_pairs(invoke, recorded):
    ended = invoke("compare", recorded(1), recorded(2, factor=1.5, asked__extra=["--vae-tiling=true"]))
    (told,) = [line for line in ended.out.splitlines() if line.startswith("next: ")]
    assert re.fullmatch(r"next: invoke ab --model flux-tiny .*--baseline '.*' --candidate '.*--vae-tiling=true'", told)


def test_a_run_is_proposed_again_with_the_flags_and_the_counts_that_were_typed(invoke, bench):
    ended = bench("--launches", "2", "--repeats", "4", "--seed", "7", "--", "--vae-tiling=true")
    (told,) = [line for line in ended.out.splitlines() if line.startswith("next: ")]
    assert re.fullmatch(
        rf"next: {QUIET}invoke bench --model flux-tiny .*--seed 7 .*--repeats 4 --launches 3 -- --vae-tiling=true", told
    )
    ended = bench("--repeats", "4", engine="few")
    assert re.search(rf"^next: {QUIET}invoke bench .* --repeats 10$", ended.out, re.MULTILINE), (
        "4 give a median no interval"
    )


def test_every_option_of_a_run_is_proposed_again_or_left_out_on_purpose():
    left_out = {
        *("model", "label", "timeout_s", "repeats", "launches", "precision", "max_repeats", "stages", "prove_kernels"),
        *("check_accuracy", "require", "update_golden"),
    }
    options = {known.path[-1]: known for known in declared(Options)}
    assert {*next_step.TYPED, *next_step.SWITCHES, *left_out} == set(options)
    for name, (value, typed) in next_step.SWITCHES.items():
        assert any(
            (f"--{known.name}", known.sets) == (typed, value) for known in declared(Options) if known.path[-1] == name
        )


NOISY = [0.02, -0.02, 0.03, -0.01, 0.0, 0.025, -0.03, 0.01]


@pytest.mark.parametrize(
    ("noise", "is_disturbed", "told"),
    [
        (0.8, False, r"invoke ab --model flux-tiny .*--pairs \d+ --same"),
        (
            10,
            False,
            r"nothing to run: an effect of 1.5 % takes about \d+ pairs here, 60 show one of about [\d.]+ %; .*",
        ),
        (
            100,
            False,
            r"nothing to run: an effect of 1.5 % takes over 2000 pairs here; a quieter machine would decide it",
        ),
        (10, True, r"when nothing else runs here: invoke ab --model flux-tiny .*--pairs 3 --same"),
    ],
    ids=["some pairs", "too many pairs", "thousands", "disturbed"],
)
def test_what_is_proposed_after_open_pairs_decides(invoke, arms, noise, is_disturbed, told):
    document = json.loads((arms / "comparison.json").read_text())
    plan = sequential.Plan(is_disturbed=is_disturbed)
    open_pairs = sequential.decide([noise * value for value in NOISY], plan).comparison
    document["comparison"] = stats.to_document(open_pairs)
    schema.write(document, "ab-record", arms / "comparison.json", replace=True)
    ended = invoke("compare", arms)
    assert ended.code == 9
    (line,) = [line for line in ended.out.splitlines() if line.startswith("next: ")]
    assert re.fullmatch(f"next: {told}", line), line
    if "--pairs" in line and not is_disturbed:
        assert 3 <= int(line.split()[-2]) <= 60
    assert ("show an effect of 1.5 %" in " ".join(ended.out.split())) == (noise < 100 and not is_disturbed)


@pytest.mark.parametrize(
    ("pairs", "change", "told"),
    [
        (60, {}, "nothing to run: 60 pairs left it open; a quieter machine would decide it"),
        (60, {"planning": None}, "nothing to run: 60 pairs left it open; a quieter machine would decide it"),
        (
            4,
            {"reason": "no changed line ran: the arms ran the same code; total time"},
            "nothing to run: this workload reaches no changed line; one that does would decide it",
        ),
    ],
)
def test_more_pairs_are_proposed_only_where_they_may_decide(arms, pairs, change, told):
    document = json.loads((arms / "comparison.json").read_text())
    baseline = json.loads((arms / "baseline" / "run.json").read_text())
    planning = {"low": 5, "likely": 12, "high": 40, "for_same": 12}
    document["comparison"] |= {"verdict": "inconclusive", "reason": "total time", "planning": planning} | change
    document |= {"pairs": document["pairs"][:1] * pairs, "reach": {"means": "no changed line ran"}}
    assert next_step.after_arms(document, baseline, arms) == told


def test_a_precision_that_too_few_requests_cannot_reach_is_asked_for_with_more(recorded):
    record = json.loads(recorded(1).read_text())
    record["asked"] |= {"precision": 0.5, "max_repeats": 7}
    record["timings"]["requests"] = 7
    assert next_step.after_bench(record, Path()).endswith("--precision 50% --max-repeats 10")


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (0.02, "--precision 2% --max-repeats 50"),
        (0.04, "--precision 4% --max-repeats 13"),
        (0.045, "--precision 4.5% --max-repeats 10"),
        (0.0001, "nothing to run: 0.01 % takes over 1000 requests here; 1000 reach about 0.45 %; FEWER"),
    ],
)
def test_a_precision_is_proposed_only_where_it_may_be_reached(recorded, wanted, told):
    record = json.loads(recorded(1).read_text())
    record["asked"] |= {"precision": wanted, "max_repeats": 8}
    median = record["timings"]["metrics"]["total_ms"]
    record["timings"] |= {
        "requests": 8,
        "summary": {"total_ms": {"interval": {"low": 0.95 * median, "high": 1.05 * median}}},
    }
    assert next_step.after_bench(record, Path()).endswith(told.replace("FEWER", "a quieter machine would need fewer"))


@pytest.mark.parametrize(
    ("repeats", "launches", "wanted"),
    [(1, 1, "--repeats 10"), (10, 1, "--repeats 10 --launches 3"), (10, 3, "--repeats 10 --launches 3")],
)
def test_a_run_that_was_disturbed_is_proposed_again_when_nothing_else_runs(recorded, repeats, launches, wanted):
    busy = [{"id": "gpu.idle", "state": "warn", "saw": "pid 4321 on GPU 0", "means": "m", "todo": "t"}]
    record = json.loads(recorded(1, preflight=busy).read_text())
    record["asked"] |= {"repeats": repeats, "launches": launches}
    told = next_step.after_bench(record, Path())
    assert told.startswith("when nothing else runs here: invoke bench --model flux-tiny ")
    assert told.endswith(wanted)


QUIET_LOAD = {"preflight": [], "verdict": None, "checks": []}


@pytest.mark.parametrize(
    ("proposed", "told"),
    [
        ("quality=high", "--baseline 'compile --vae-tiling=true' --candidate 'compile --vae-tiling=true quality=high'"),
        (None, "--torch-compile -- --vae-tiling=true"),
    ],
)
def test_after_a_served_profile_both_servers_are_what_was_asked_for(proposed, told):
    asked = Options(model="flux", torch_compile=True, extra=("--vae-tiling=true",))
    assert next_step.after_served_profile(QUIET_LOAD, asked, proposed) == f"invoke loadtest --model flux {told}"
    shared = {"held": False, "id": "machine", "says": "others used up to 40 % of the processors"}
    disturbed = QUIET_LOAD | {"checks": [shared]}
    told = f"when nothing else runs here: invoke loadtest --model flux {told}"
    assert next_step.after_served_profile(disturbed, asked, proposed) == told


@pytest.mark.parametrize("apart", [False, True], ids=["one log", "two streams"])
def test_a_verdict_is_told_once_where_both_streams_are_read_together(arms, apart):
    document = json.loads((arms / "comparison.json").read_text())
    slower = sequential.decide([0.05, 0.051, 0.052], sequential.Plan()).comparison
    document["comparison"] = stats.to_document(slower)
    schema.write(document, "ab-record", arms / "comparison.json", replace=True)
    ended = subprocess.run(
        invoke_command("compare", arms), cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False,
        stderr=subprocess.PIPE if apart else subprocess.STDOUT,
    )  # fmt: skip
    assert ended.returncode == 7
    assert ended.stdout.lower().count("slower") == 2, "the verdict and its sentence"
    if apart:  # a gate in CI looks for it there
        assert "error: slower: total time +5.23 %" in ended.stderr


def test_a_record_that_did_not_end_as_planned_is_not_called_complete(invoke):
    ended = invoke("bench", "--resume", ROOT / "docs" / "evidence" / "caught")
    assert ended.code == 1
    assert "this cannot be resumed: " in ended.err
    assert "to do: the same command again measures anew" in " ".join(ended.err.split())


@pytest.mark.parametrize("words", [("compare", "last~1", "last"), ("ab", "--model", "flux-tiny", "--same")])
def test_two_forms_on_stdout_are_refused(invoke, home, words):
    ended = invoke(*words, "--markdown", "--json")
    assert (ended.code, ended.out) == (1, "")
    assert "--json and --markdown exclude each other: both go to stdout" in ended.err
    assert not (home / "runs").exists()


def test_a_picture_is_not_taken_for_a_record(invoke, recorded, tmp_path):
    picture = tmp_path / "output.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    ended = invoke("compare", recorded(1), picture)
    assert (ended.code, ended.out) == (1, "")
    assert f"error: not JSON: it is not text\n  where: {picture}" in ended.err


def test_a_metric_that_no_record_has_is_named_as_a_stage(invoke, recorded):
    recorded(1)
    ended = invoke("history", "--model", "flux-tiny", "--metric", "totl")
    assert ended.code == 1
    assert "no complete record of flux-tiny that counts has the metric totl" in ended.err
    assert "did you mean --metric total?" in ended.err


def test_markdown_has_no_folder_of_this_machine(invoke, recorded, home):
    ended = invoke("compare", recorded(1), recorded(2), "--markdown")
    assert str(home) not in ended.out
    assert ".../FLUX.1-dev-tiny" in ended.out
    assert "next: " not in ended.out


@pytest.mark.parametrize("name", ["aa", "ab", "try"])
def test_the_row_that_is_decided_has_the_effect_of_the_headline(invoke, name):
    known = json.loads((GPU / name / "comparison.json").read_text())["comparison"]["effect"]
    shown = invoke("compare", GPU / name).out
    (row,) = [line for line in shown.splitlines() if line.startswith("total time ")]
    before, after, change = (float(figure.replace(",", "")) for figure in re.findall(r"[+-]?[\d,]+\.\d+", row))
    assert change == pytest.approx(known["percent"], abs=0.005)
    assert after / before == pytest.approx(known["ratio"], abs=1e-4), "what stands beside it gives the same"
    assert "total time: geometric means over the engine starts; the other rows: medians over all requests" in shown


def test_one_launch_has_the_median_that_its_own_report_shows(invoke, recorded):
    shown = invoke("compare", recorded(1), recorded(2, factor=1.5)).out
    assert re.search(r"^total time +[\d,.]+ ms +[\d,.]+ ms +\+50\.00 %$", shown, re.MULTILINE)
    assert "observed +50.00 %" in shown
    assert "geometric" not in shown


@pytest.mark.parametrize("form", [(), ("--markdown",), ("--html",)])
def test_under_disturbance_no_figure_of_the_table_has_a_size_that_could_be_quoted(invoke, recorded, form):
    busy = [{"id": "gpu.idle", "state": "warn", "saw": "pid 4321 on GPU 0", "means": "m", "todo": "t"}]
    place = recorded(2, factor=1.5, preflight=busy)
    ended = invoke("compare", recorded(1), place, *form)
    shown = ended.out
    if form == ("--html",):
        page = Path(ended.err.partition("page: ")[2].splitlines()[0]).read_text()
        shown = page[page.index("Numbers") : page.index("Outputs")]
    (row,) = re.findall(r".*total time[ <].*ms.*", shown) if form != ("--html",) else [shown]
    assert "not claimed" in row
    assert not re.search(r"[+-][\d.]+ %", row)
    rest = shown[shown.index(row) :]
    assert not re.search(r"[+-][\d.]+ %", rest.partition("</table>")[0]), "nor of any other row"


def test_both_sides_are_named_before_anything_else(invoke, recorded, arms):
    first, second = recorded(11, label="before"), recorded(12, engine__version="0.5.24")
    when = "2026-01-01"
    wanted = [
        f"baseline: before (00000b), flux-tiny, sglang 0.5.23, {when} 11:00",
        f"candidate: 00000c, flux-tiny, sglang 0.5.24, {when} 12:00",
    ]
    assert invoke("compare", first.parent, "last").out.splitlines()[:2] == wanted
    source = invoke("compare", first, second, "--markdown").out.splitlines()
    assert [source[0], source[2]] == wanted
    written = invoke("compare", first, second, "--html").err.partition("page: ")[2].splitlines()[0]
    page = Path(written).read_text()
    assert "00000c against before (00000b)" in page
    assert wanted[0].removeprefix("baseline: ") in page
    assert invoke("compare", arms).out.splitlines()[:2] == [
        f"{name}: default, flux-tiny, sglang 0.5.23, {when} 0{hour}:00"
        for hour, name in enumerate(("baseline", "candidate"), 1)
    ]


@pytest.mark.parametrize("form", [(), ("--markdown",)])
def test_a_degraded_side_stands_with_its_reason(invoke, form):
    shown = invoke("compare", GPU / "try", *form).out
    assert (
        "candidate, degraded: bcg.not_validated: it has not been verified that this model's outputs stay right under"
        " CUDA graphs (log line 4)"
    ) in shown
    assert "baseline, degraded" not in shown


@pytest.mark.parametrize("name", ["ab", "try"])
def test_a_comparison_breaks_no_word_and_no_command_on_a_narrow_terminal(invoke, name):
    wide = invoke("compare", GPU / name).out
    narrow = invoke("compare", GPU / name, env={"COLUMNS": "80", "FORCE_COLOR": "1"}).out
    plain = re.sub(r"\x1b\[[0-9;]*m", "", narrow)
    assert set(wide.split()) == set(plain.split())
    assert next(line for line in wide.splitlines() if line.startswith("next: ")) in plain.splitlines()
    assert not [line for line in plain.splitlines() if len(line) > 80 and not line.startswith("next: ")]
    assert not [line for line in plain.splitlines() if line.startswith("%")]
