"""A night judged by the nights before it: synthetic records of 30 nights, in which the cause is known."""

import copy
import datetime as dt
import json
import random
import shlex
import shutil

import pytest
from helpers import NATIVE, record_path
from sweep_support import FIRST_CELL, document, sweep_of_one

from bench.record import store
from bench.run import consistency, timings
from bench.sweep.folder import Folder

PRESET = """
[{key}]
description = "measured every night"
model = "{model}"
modality = "image"
tags = ["night"]
prompt = "A futuristic cyberpunk city at night, neon lights reflecting on wet streets"
seed = 42
width = 256
height = 256
steps = 4
"""
CASES = ("steady", "regressed", "slow-host", "bimodal", "noisy", "hiccup", "moved", "young", "alone")
TONIGHT = 30
A, B = "a" * 64, "b" * 64
OLD, NEW = ({"commit": letter * 40, "changes_sha256": None} for letter in "12")


@pytest.fixture
def steady(tmp_path):
    path = tmp_path / "steady.toml"
    path.write_text(PRESET.format(key="steady", model="owner/steady"))
    return path


@pytest.fixture
def judged(invoke, steady, tmp_path):
    """Judge a night of the preset steady."""
    environment = {"HF_HOME": str(tmp_path / "hf")}
    return lambda *more: invoke("nightly", "--tag", "night", "--preset-file", steady, *more, env=environment)


@pytest.fixture
def presets(tmp_path, model):
    path = tmp_path / "night.toml"
    path.write_text("".join(PRESET.format(key=key, model=f"owner/{key}") for key in CASES))
    for key in CASES:
        folder = tmp_path / "hf" / "hub" / f"models--owner--{key}" / "snapshots" / "1"
        folder.mkdir(parents=True)
        (folder / "model_index.json").write_text("{}")
    return path


@pytest.fixture
def nights(bench, home):
    """Return a function that adds a record of a preset in a night: how long it takes, on which host, what is new."""
    path = record_path(bench("--repeats", "2"))
    original = json.loads(path.read_text())
    shutil.rmtree(path.parent)
    count = iter(range(1, 10_000))

    def add(preset, night, factor, *, host=A, source=OLD, steps=None, at=None, swept=True):
        number, record = next(count), copy.deepcopy(original)
        record["id"] = f"202601{night:02d}T{number:06d}Z-bench-{preset}-{number:06x}"
        record["started"] = record["finished"] = (
            at or f"2026-01-{night:02d}T03:{number // 60 % 60:02d}:{number % 60:02d}+00:00"
        )
        record["preset"]["key"] = preset
        record["host"]["identity"] = host
        record["engine"]["source"] = source
        record["workload"]["steps"] = steps or record["workload"]["steps"]
        for request in record["requests"]:
            request["metrics"]["total_ms"] *= factor
        medians = timings.timings(record["requests"], record["launches"], medians_only=True)
        record["timings"] |= {name: medians[name] for name in consistency.MEDIANS}
        sweep = Folder.of(f"nightly-2026-01-{night:02d}", home / "runs")
        if swept and not sweep.path.exists():
            sweep.prepare()
            sweep.begin(sweep.path.name, "local", "invoke nightly", [FIRST_CELL])
        folder = (sweep.of_cell(FIRST_CELL.id) / "1" / "runs" if swept else home / "runs") / record["id"]
        folder.mkdir(parents=True)
        (folder / store.RECORD).write_text(json.dumps(record))  # it is checked when it is read

    return add


@pytest.fixture
def history(nights):
    """Thirty nights of every case; what is measured again tonight comes behind the number itself."""
    draw = random.Random(11)
    for night in range(1, TONIGHT):
        for case in CASES:
            noise = draw.gauss(1, 0.05 if case == "noisy" else 0.004)
            level = 1.2 if case == "bimodal" and draw.random() < 0.4 else 1
            if case != "young" or night > TONIGHT - 4:
                nights(case, night, noise * level)
    tonight = {
        "steady": [(1.004, {})],
        "regressed": [(1.08, {"source": NEW}), (1.081, {"source": NEW}), (1.079, {"source": NEW, "host": B})],
        "slow-host": [(1.1, {"host": B}), (1.11, {"host": B}), (1.001, {"host": A})],
        "bimodal": [(1.2, {})],
        "noisy": [(1.08, {})],
        "hiccup": [(1.15, {}), (1.002, {})],
        "moved": [(1.5, {"steps": 8})],
        "young": [(1.3, {})],
        "alone": [(1.08, {"source": NEW}), (1.081, {"source": NEW})],
    }
    for case, records in tonight.items():
        for factor, changes in records:
            nights(case, TONIGHT, factor, **changes)


def test_each_night_of_a_known_cause_is_named_rightly(invoke, presets, history):
    judged = ("nightly", "--tag", "night", "--preset-file", presets, "--night", f"2026-01-{TONIGHT}")
    ended = invoke(*judged)
    assert ended.code == 7, ended.err
    lines = dict(line.split(": ", 1) for line in ended.out.splitlines() if ": " in line)
    kinds = {preset: line.partition(":")[0] for preset, line in lines.items()}
    assert kinds == {
        "regressed": "commit", "slow-host": "machine", "bimodal": "two levels", "moved": "workload",
        "young": "too little data", "alone": "too little data",
    }  # fmt: skip
    assert f"the engine changed from {NATIVE_VERSION} 111111111 to {NATIVE_VERSION} 222222222" in lines["regressed"]
    assert "on host bbbbbb only: another host is as fast as ever" in lines["slow-host"]
    assert "no other host was tried" in lines["alone"]
    assert all("; next: invoke " in line for line in lines.values())
    steps = {preset: shlex.split(line.rpartition("; next: ")[2])[1:] for preset, line in lines.items()}
    assert steps["bimodal"] == ["calibrate", "--model", "bimodal", f"--preset-file={presets}"]
    assert steps["slow-host"] == ["doctor"]
    for preset in ("moved", "young", "regressed"):
        assert invoke(*steps[preset]).code in (0, 7, 9)
    assert "slower than in the nights before: regressed, slow-host" in ended.err
    found = json.loads(invoke(*judged, "--json").out)
    assert {one["preset"]: one["kind"] for one in found} == kinds


NATIVE_VERSION = "0.5.23"


def test_an_ordinary_night_says_nothing_and_ends_with_0(judged, nights):
    for night in range(1, TONIGHT + 1):
        nights("steady", night, 1 + night % 3 / 1000)
    ended = judged("--night", f"2026-01-{TONIGHT}")
    assert ended.code == 0, ended.err
    assert ended.out == f"1 of 1 presets judged, 0 findings, night of 2026-01-{TONIGHT}\n"


def test_a_step_of_some_nights_ago_is_the_present_level(judged, nights):
    """What became slower a week ago was told then; tonight it is as it was yesterday."""
    for night in range(1, TONIGHT + 1):
        nights("steady", night, (1.1 if night > 20 else 1) + night % 3 / 1000)
    ended = judged("--night", f"2026-01-{TONIGHT}")
    assert ended.code == 0, ended.out


@pytest.mark.usefixtures("presets")
def test_a_night_measures_its_presets(judged, replay, home):
    ended = judged("--repeats", "1", "--engine", replay("0.5.23", "other", **NATIVE))
    assert ended.code == 9, ended.out + ended.err
    assert "steady: too little data: 0 comparable nights before" in ended.out
    (folder,) = (home / "runs").glob("sweep-nightly-*")
    assert len(list(folder.glob("cells/*/result.json"))) == 1


def test_a_night_that_this_machine_cannot_measure_is_refused_once_before_anything_starts(judged, replay, home):
    ended = judged("--engine", replay())
    assert (ended.code, ended.out) == (10, "")
    assert ended.err.startswith("error: no GPUs visible; the presets tagged night need 1\n  to do: ")
    assert "--on slurm" in ended.err
    assert not (home / "runs").exists()


@pytest.mark.usefixtures("presets")
def test_a_night_that_is_not_finished_is_gone_on_with_on_any_day(invoke, replay, steady, home, tmp_path, monkeypatch):
    engine = replay("0.5.23", "other", **NATIVE | {"log": "cpu/awq_sglang.log"})
    words = ("--tag", "night", "--preset-file", steady, "--repeats", "1", "--engine", engine, "--metric", "wall")
    environment = {"HF_HOME": str(tmp_path / "hf")}
    ended = invoke("nightly", *words, env=environment)
    assert ended.code != 0
    (folder,) = (home / "runs").glob("sweep-nightly-*")
    day = folder.name.removeprefix("sweep-nightly-")
    goes_on = shlex.join(["invoke", "nightly", *map(str, words), f"--resume={day}"])
    assert f"`{goes_on}` with --retry-failed measures them again" in ended.err
    shown = invoke("sweep-status", folder).out
    assert f"next: {goes_on} --retry-failed\n" in shown, shown
    later = store.now() + dt.timedelta(days=1)
    monkeypatch.setattr(store, "now", lambda: later)
    ended = invoke(*shlex.split(goes_on)[1:], "--retry-failed", env=environment)
    assert f", night of {day}\n" in ended.out
    assert list((home / "runs").glob("sweep-nightly-*")) == [folder]
    assert len(list(folder.glob("cells/*/[0-9]*"))) == 2
    assert f"next: {goes_on} --retry-failed\n" in invoke("sweep-status", folder).out


def test_a_night_without_presets_is_refused(invoke, home):
    ended = invoke("nightly", "--tag", "nope", "--night", "2026-01-01")
    assert ended.code == 1
    assert "no tag is called 'nope'" in ended.err


def ten_nights(nights, **more):
    for night in range(20, TONIGHT):
        nights("steady", night, 1 + night % 3 / 1000, **more)


@pytest.mark.parametrize("day", ["yesterday", "2026-02-30", "20260130x"])
def test_a_night_that_is_no_day_is_refused(judged, day):
    for name in ("--night", "--resume"):
        ended = judged(name, day)
        assert ended.code == 1
        assert f"{name} takes a day, not {day!r}" in ended.err


def test_a_night_is_judged_or_gone_on_with(judged):
    ended = judged("--night", "2026-01-30", "--resume", "2026-01-30")
    assert (ended.code, "one of them" in ended.err) == (1, True)


@pytest.mark.parametrize(
    ("begun", "says"),
    [
        (False, "no night of 2026-01-30 was begun"),
        (True, "the engine, the presets or the options are not those of the night of 2026-01-30 any more"),
    ],
)
def test_todays_numbers_are_not_filed_under_another_night(judged, replay, home, begun, says):
    """The night that was begun has another cell than the engine of today gives it."""
    folder = Folder.of("nightly-2026-01-30", home / "runs")
    before = sweep_of_one(folder.path)[1] if begun else None
    ended = judged("--resume", "2026-01-30", "--engine", replay())
    assert (ended.code, says in ended.err) == (1, True), ended.err
    assert (document(folder.path) if folder.path.exists() else None) == before


def test_a_metric_that_is_none_is_refused(judged, nights):
    ten_nights(nights)
    ended = judged("--night", "2026-01-29", "--metric", "nonsense")
    assert ended.code == 1
    assert "--metric takes total, denoise or wall" in ended.err


def test_a_night_that_measured_nothing_is_not_green(judged, nights):
    ten_nights(nights)
    nights("steady", TONIGHT, 1.5, swept=False)  # by hand
    ended = judged("--night", f"2026-01-{TONIGHT}")
    assert ended.code == 9
    assert "steady: not measured: this night has no record of it that counts; next: invoke history" in ended.out
    assert "0 of 1 presets judged, 1 finding," in ended.out


def test_a_night_goes_on_past_midnight(judged, nights):
    ten_nights(nights)
    for minute in (10, 40):
        nights("steady", TONIGHT, 1.5, source=OLD, at=f"2026-01-31T00:{minute}:00+00:00")
    ended = judged("--night", f"2026-01-{TONIGHT}")
    assert ended.code == 7, ended.out + ended.err
    assert "steady: machine: " in ended.out


@pytest.mark.parametrize("other", [{"steps": 8}, {"source": NEW}])
def test_another_workload_or_engine_in_between_hides_no_regression(judged, nights, other):
    ten_nights(nights)
    for factor, more in ((1.5, {}), (1.5, {}), (0.5, other)):
        nights("steady", TONIGHT, factor, **more)
    ended = judged("--night", f"2026-01-{TONIGHT}")
    assert ended.code == 7, ended.out + ended.err
    assert "steady: machine: " in ended.out


def test_what_was_measured_once_is_not_the_machine(judged, nights):
    ten_nights(nights)
    nights("steady", TONIGHT, 1.5)
    ended = judged("--night", f"2026-01-{TONIGHT}")
    assert ended.code == 9, ended.out + ended.err
    assert "steady: too little data: " in ended.out
    assert "it was not measured again on its host" in ended.out


def test_many_runs_of_a_day_are_one_night(judged, nights):
    for _ in range(8):
        nights("steady", TONIGHT - 1, 1)
    for _ in range(2):
        nights("steady", TONIGHT, 1.5)
    ended = judged("--night", f"2026-01-{TONIGHT}")
    assert ended.code == 9, ended.out + ended.err
    assert "1 comparable nights before, and 5 are needed" in ended.out


@pytest.mark.usefixtures("presets")
def test_what_the_planner_refuses_is_a_finding(judged, replay, steady):
    odd = "hf_abcdefghijklmnop"  # a name that looks like a token, with which no cell can be run
    steady.write_text(steady.read_text() + PRESET.format(key=odd, model="owner/odd"))
    ended = judged("--repeats", "1", "--engine", replay("0.5.23", "other", **NATIVE))
    assert ended.code != 0
    assert ": refused: a secret stands in its words" in ended.out, ended.out + ended.err
    assert "0 of 2 presets judged, 2 findings" in ended.out
