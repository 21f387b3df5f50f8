"""Load tests that are cut off: what was measured is in the record at once, can be read, and is never measured again."""

import json
import signal

import helpers
import pytest
from helpers import ROOT
from stand_in_server import StandIn

from bench import schema
from bench.record import phases
from bench.serving import review
from bench.serving import run as campaigns

TRACE = '{"at_s": 0}\n{"at_s": 0.1, "num_inference_steps": 3}\n{"at_s": 0.2}\n'
"""The second request hangs in the starts of `server` that say so."""


@pytest.fixture
def server(replay, home, model):
    """Make a server that stands in and hangs in some of its starts; return the file by which it says that it does."""

    def make(*hang_in, name="served"):
        hung = home / name / "hung"
        hung.parent.mkdir()
        replay(
            name=name,
            serves=str(ROOT / "tests" / "stand_in_server.py"),
            service_s=0.02,
            hang_in=hang_in,
            hung=str(hung),
        )
        return hung

    return make


@pytest.fixture
def words(home, model):
    trace = home / "trace.jsonl"
    trace.write_text(TRACE)
    return ("loadtest", "--model", "flux-tiny", "--engine", "served", "--model-path", model(), "--duration", "1",
            "--trace", trace)  # fmt: skip


def started(home, name="served"):
    """Return how many starts the server has had."""
    return (home / name / "launches").stat().st_size


@pytest.fixture
def cut_off(home):
    """Start a load test, send it a signal when a request hangs, and return its folder, exit code and messages."""

    def folder():
        (found,) = (home / "runs").glob("*-load-*")
        return found

    def run(number, hung, *arguments, meanwhile=lambda task, folder: None):
        code, err = helpers.cut_off(number, hung, home, *arguments, meanwhile=lambda task: meanwhile(task, folder()))
        hung.unlink()
        return folder(), code, err

    return run


def names(record):
    return [phase["name"] for phase in record["phases"]]


def held(record):
    return {check["id"]: check["held"] for check in record["checks"]}


# --- unhappy first ----------------------------------------------------------------------------------------------------


def test_what_is_going_on_or_has_changed_is_not_resumed(server, words, cut_off, invoke, home, monkeypatch):
    def refused(says, *arguments):
        ended = invoke("loadtest", "--resume", folders[0], *arguments)
        assert ended.code != 0
        assert says in ended.err
        assert (started(home), (folders[0] / "campaign.json").exists()) == (1, True)

    def going_on(task, folder):
        folders.append(folder)
        refused(f"this run is still in progress (process {task.pid})")

    folders = []
    cut_off(signal.SIGKILL, server(1), *words, meanwhile=going_on)
    refused("keeps its load and its design", "--rate", "3")
    refused("--dry-run cannot show them", "--dry-run")
    refused("one server was loaded, not two", "--candidate", "steps=3")
    with monkeypatch.context() as context:
        context.setenv("OMP_NUM_THREADS", "7")
        refused("OMP_NUM_THREADS")
    rows, log = folders[0] / "rows.jsonl", folders[0] / "engine.log"
    before = rows.read_text()
    rows.write_text(before.replace('"service_s":0.02', '"service_s":0.01'))
    refused("rows.jsonl was changed: its hash differs")
    rows.write_text(before)
    log.unlink()
    refused("evidence of this run is gone: engine.log")


def test_a_server_that_never_got_ready_leaves_nothing_to_go_on_with(replay, words, invoke, home):
    replay(name="served", log="cpu/awq_sglang.log", linger_s=600)
    assert invoke(*words).code == 4
    (folder,) = (home / "runs").iterdir()
    assert "nothing to resume" in invoke("loadtest", "--resume", folder).err


# --- what was paid for ------------------------------------------------------------------------------------------------


def check_marked(folder, invoke, kept):
    """Hold a record that was cut off against its rows, and what readers say of it."""
    record = json.loads((folder / "load.json").read_text())
    assert schema.violations(record, "load-record") == []
    assert names(record) == kept
    assert (record["complete"], record["failure"]["exit_code"]) == (False, 130)
    assert record["capacity_hz"]["value"] > 0
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert {row["phase"] for row in rows} == set(kept)
    ended = invoke("validate", folder)
    assert ended.code == 0, ended.err
    assert invoke("report", folder).code == 0
    assert "No figure of this load test counts: interrupted" in (folder / "report.html").read_text()
    (folder / "report.html").unlink()
    return record


@pytest.mark.parametrize(
    ("number", "starts", "cut"),
    [(signal.SIGKILL, (1, 2), []), (signal.SIGINT, (1,), ["replay-cut-off"])],
    ids=["killed in two starts", "interrupted"],
)
def test_a_load_test_goes_on_with_the_phases_that_are_missing(
    server, words, cut_off, invoke, home, number, starts, cut
):
    hung = server(*starts)
    folder, code, err = cut_off(number, hung, *words)
    before, rows = check_marked(folder, invoke, ["warm", "closed-1", *cut]), (folder / "rows.jsonl").read_bytes()
    if number == signal.SIGINT:
        assert (code, f"`invoke loadtest --resume {folder.name[-6:]}` goes on" in err) == (130, True)
    for start in starts[1:]:
        assert cut_off(number, hung, "loadtest", "--resume", folder)[0] == folder
        check_marked(folder, invoke, ["warm", "closed-1", *cut, f"warm-{start}"])
    ended = invoke("loadtest", "--resume", folder, "--json")
    assert ended.code in (0, 9), ended.err
    record = json.loads(ended.out)
    assert record == json.loads((folder / "load.json").read_text())
    assert record["complete"]
    warm = [f"warm-{start + 1}" for start in starts]
    assert names(record) == ["warm", "closed-1", *cut, *warm, "replay"]
    assert record["phases"][: len(before["phases"])] == before["phases"]
    assert (folder / "rows.jsonl").read_bytes().startswith(rows)
    assert [launch["index"] for launch in record["launches"]] == list(range(1, started(home) + 1))
    assert started(home) == len(starts) + 1
    checks = held(record)
    assert (checks["workload"], checks["alone"], checks["failures"]) == (True, True, True), record["checks"]
    assert not (folder / "campaign.json").exists()
    review.read(folder)
    assert "nothing to resume" in invoke("loadtest", "--resume", folder).err


def test_a_start_that_was_interrupted_before_its_warm_up_takes_no_log_of_another(
    server, words, cut_off, invoke, home, monkeypatch
):
    def interrupted(_):
        raise KeyboardInterrupt

    folder, *_ = cut_off(signal.SIGKILL, server(1), *words)
    with monkeypatch.context() as context:
        context.setattr(campaigns, "_wait_until_idle", interrupted)
        ended = invoke("loadtest", "--resume", folder)
    assert ended.code == 130, ended.err
    assert f"next: invoke loadtest --resume {folder.name[-6:]}\n" in ended.out
    check_marked(folder, invoke, ["warm", "closed-1"])
    ended = invoke("loadtest", "--resume", folder, "--json")
    assert ended.code in (0, 9), ended.err
    record = json.loads(ended.out)
    assert names(record) == ["warm", "closed-1", "warm-3", "replay"]
    assert len(record["launches"]) == started(home) == 3
    checks = held(record)
    assert (checks["workload"], checks["alone"]) == (True, True), record["checks"]
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert all(row["finished_unix_s"] for row in rows)
    review.read(folder)


def test_of_somebody_elses_server_what_was_measured_is_kept(home, words, cut_off, invoke, tmp_path):
    hung = tmp_path / "hung"

    def fault(_, body):
        if body["num_inference_steps"] != 3:
            return None
        hung.touch()
        return {"stall_s": 600}

    with StandIn(service_s=0.02, fault=fault) as remote:
        folder, *_ = cut_off(signal.SIGKILL, hung, *words, "--url", remote.url)
        record = json.loads((folder / "load.json").read_text())
        assert names(record) == ["warm", "closed-1"]
        review.read(folder)
        assert "this cannot be resumed: interrupted" in invoke("loadtest", "--resume", folder).err
        remote._loop.call_soon_threadsafe(remote._over.set)


def test_a_phase_that_was_cut_off_twice_has_two_names():
    assert phases.cut_off("30%", ["warm"]) == "30%-cut-off"
    assert phases.cut_off("30%", ["warm", "30%-cut-off", "60%-cut-off"]) == "30%-cut-off-2"
    told = {name: phases.is_load(name) for name in ("warm", "warm-2", "warm-cut-off", "30%-cut-off-2", "30%", "warmer")}
    assert [name for name, counts in told.items() if counts] == ["30%", "warmer"]
