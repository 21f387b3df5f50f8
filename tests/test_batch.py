"""Several presets in one go: one failure never stops the rest, and the exit code says whether all were native."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from helpers import NATIVE, ROOT, invoke_command, wait_for_task

from bench import schema

PRESET = """
[{key}]
description = "one of several"
model = "{model}"
modality = "image"
tags = ["mine"]
prompt = "A futuristic cyberpunk city at night, neon lights reflecting on wet streets"
seed = 42
width = 256
height = 256
steps = 4
{more}
"""


@pytest.fixture
def batch(invoke, replay, home, tmp_path):
    """Run `invoke bench` over presets of this test's own; the hub's cache has all their models."""

    def run(*arguments, keys=("one", "two"), spoilt=(), scenario=None, **more):
        path = tmp_path / "mine.toml"
        path.write_text("".join(PRESET.format(key=k, model=f"owner/{k}", more=more.get(k, "")) for k in keys))
        for key in keys:
            folder = tmp_path / "hf" / "hub" / f"models--owner--{key}" / "snapshots" / "1"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "model_index.json").write_text("{}")
        engine = replay(**(scenario or NATIVE))
        return invoke(
            "bench", "--preset-file", path, "--engine", engine, *arguments, env={"HF_HOME": str(tmp_path / "hf")}
        )

    return run


def summary_of(home):
    (path,) = (home / "runs").glob("*-batch-*/summary.json")
    return json.loads(path.read_text())


def test_all_native_is_exit_code_0_and_one_table(batch, home):
    ended = batch("--tag", "mine")
    assert ended.code == 0, ended.out + ended.err
    summary = summary_of(home)
    assert schema.violations(summary, "batch-summary") == []
    assert [(row["preset"], row["outcome"]) for row in summary["rows"]] == [("one", "native"), ("two", "native")]
    assert "2 of 2 native" in ended.out
    # a machine that others use is proposed the run again
    again = "when nothing else runs here: invoke bench --model"
    assert re.search(f"next: (?:invoke history --model one|{again} )", ended.out)
    assert ended.out.splitlines()[-1].startswith("summary: ")
    for row in summary["rows"]:
        assert json.loads(Path(row["record"]).read_text())["timings"]["metrics"]["denoise_ms"] == row["denoise_ms"]


def test_one_that_is_refused_does_not_stop_the_rest(batch, home):
    """The second asks for GPUs that a CPU has not; the first and third run."""
    ended = batch("--model", "one,two,three", keys=("one", "two", "three"), two="gpus = 64")
    assert ended.code == 10
    rows = summary_of(home)["rows"]
    assert [row["outcome"] for row in rows] == ["native", "refused", "native"]
    assert rows[1]["exit_code"] == 10
    assert rows[1]["todo"]
    assert rows[1]["record"] is None
    assert "1 of 3 presets do not count" in ended.err


def test_a_flag_that_a_version_lacks_refuses_one_row(batch, home):
    ended = batch("--tag", "mine", scenario=NATIVE | {"version": "0.5.17"}, one='residency = { dit = "resident" }')
    assert ended.code == 1
    first, second = summary_of(home)["rows"]
    assert "does not know --component-residency" in first["reason"]
    assert second["outcome"] == "native"


def test_a_fallback_is_the_gravest_end_and_has_no_number(batch, home):
    ended = batch("--tag", "mine", scenario={"log": "cpu/awq_sglang.log"}, one="gpus = 64")
    assert ended.code == 4
    refused, invalid = summary_of(home)["rows"]
    assert (refused["outcome"], invalid["outcome"]) == ("refused", "invalid")
    assert invalid["denoise_ms"] is None
    assert invalid["reason"].startswith("diffusers.")
    assert " ms" not in ended.out


def test_json_holds_the_summary_and_nothing_else(batch, home):
    ended = batch("--model", "one,two", "--json")
    assert json.loads(ended.out) == summary_of(home)


def test_a_summary_is_a_document_that_validates(batch, invoke, home):
    batch("--tag", "mine")
    (path,) = (home / "runs").glob("*-batch-*/summary.json")
    assert invoke("validate", path).out == f"{path}: valid batch-summary\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--model", "one,tow"), "no model is called 'tow'"),
        (("--model", ","), "--model takes one or more names separated by commas"),
        (("--tag", "mien"), "no tag is called 'mien'"),
        (("--tag", "mine", "--all"), "--all and --tag exclude each other"),
        (("--tag", "mine", "--model", "sd3"), "--model, --tag and --all exclude each other"),
        (("--tag", "mine", "--model-path", "/x"), "--model-path is for one preset, and 2 were named"),
        (("--tag", "mine", "--resume", "last"), "--resume takes its presets from the run"),
        (("--model", "one,one"), "--model names one twice"),
        (("--model", "one", "--max-repeats", "5"), "--max-repeats bounds --precision, which is not asked for"),
    ],
)
def test_a_mistake_is_said_before_anything_runs(batch, home, arguments, says):
    ended = batch(*arguments)
    assert ended.code == 1
    assert says in ended.err
    assert not (home / "runs").exists()


def test_an_engine_that_is_not_there_is_refused_once(invoke, home):
    ended = invoke("bench", "--all", "--engine", "nosuch")
    assert ended.code == 1
    assert ended.err.count("no built engine is called 'nosuch'") == 1
    assert not (home / "runs").exists()


def test_a_dry_run_of_many_prints_each_command(batch, home):
    ended = batch("--tag", "mine", "--dry-run")
    assert ended.code == 0
    assert [line for line in ended.out.splitlines() if line.startswith("# ")] == ["# one", "# two"]
    assert not (home / "runs").exists()


def test_a_dry_run_that_is_refused_stops_no_other(batch):
    ended = batch("--tag", "mine", "--dry-run", scenario={"version": "0.5.17"}, one='residency = { dit = "resident" }')
    assert ended.code == 1
    assert "# refused: one\n#   sglang 0.5.17 does not know --component-residency; sglang 0.5.18" in ended.out
    assert "--model-path=owner/two" in ended.out
    assert "1 of 2 runs refused" in ended.err


def test_an_interrupt_leaves_a_summary_that_says_what_did_not_run(batch, replay, home, tmp_path):
    batch("--tag", "mine", "--dry-run")
    engine = replay(name="slow", lines=["loading"], linger_s=60, image=False)
    command = invoke_command("bench", "--preset-file", tmp_path / "mine.toml", "--engine", engine, "--tag", "mine")
    task = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"HF_HOME": str(tmp_path / "hf")},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for_task(
        task,
        lambda: any("loading" in log.read_text() for log in home.glob("runs/*-bench-*/engine.log")),
        "the engine has not started to load",
    )
    task.send_signal(signal.SIGTERM)
    _, said = task.communicate(timeout=300)
    assert task.returncode == 130
    assert "kept: 0 presets" in said
    assert re.search(r"`invoke bench --resume [0-9a-f]{6}` goes on", said)
    assert [(row["preset"], row["outcome"]) for row in summary_of(home)["rows"]] == [
        ("one", "not run"), ("two", "not run"),
    ]  # fmt: skip


def test_a_degraded_run_counts_in_a_batch_as_everywhere():
    from bench.sweep import batch

    def ends(*rows):
        error = batch.error_of({"rows": [{"outcome": outcome, "exit_code": code} for outcome, code in rows]}, Path())
        return 0 if error is None else error.exit_code

    assert ends(("degraded", 0), ("native", 0)) == 0
    assert ends(("degraded", 0), ("refused", 10)) == 10
    assert ends(("degraded", 7), ("native", 0)) == 7
    assert ends(("degraded", 0), ("invalid", 5), ("invalid", 4)) == 4
