"""Whole load tests against a server that stands in: what is judged, what is recorded, what ends them."""

import json
import os
import signal
from dataclasses import replace

import pytest
from helpers import record_of
from stand_in_server import StandIn, picture

from bench import schema
from bench.errors import EngineFailed, FallbackDetected, Inconclusive, Interrupted, UsageError
from bench.fallback import media
from bench.record import store
from bench.serving import offline, outputs
from bench.serving import run as campaigns
from bench.serving.campaign import Campaign
from bench.serving.options import LoadOptions
from bench.serving.request import ImageRequest
from bench.serving.run import Remote

WORKLOAD = ImageRequest(prompt="a cat", seed=7, steps=2, width=32, height=32)


@pytest.fixture(name="loadtest")
def _loadtest(tmp_path):
    """Run a short campaign against a stand-in and return record, rows and error."""

    def go(workload=WORKLOAD, options=None, golden=None, **behaviour):
        log, directory = tmp_path / "log", tmp_path / "run"
        log.mkdir()
        directory.mkdir()
        given = LoadOptions(**{"duration_s": 1.0, "rate_hz": 40.0} | (options or {}))
        campaign = Campaign(options=given, workload=workload, started=store.now(), directory=directory)
        campaign.golden = golden or {}
        with StandIn(log=log, **{"service_s": 0.005} | behaviour) as server:
            target = Remote(url=server.url, request_log=log)
            campaigns.run(campaign, target)
            record, path, error = campaigns.finish(campaign, target, None)
        assert json.loads(path.read_text()) == record
        assert schema.violations(record, "load-record") == []
        rows = [json.loads(line) for line in (directory / "rows.jsonl").read_text().splitlines()]
        return record, rows, error

    return go


def held(record):
    return {check["id"]: check["held"] for check in record["checks"]}


def test_a_sound_server_passes_every_check_that_can_be_known_of_it(loadtest):
    record, rows, _ = loadtest()
    checks = held(record)
    assert [check["number"] for check in record["checks"]] == list(range(1, 14))
    assert {name for name, outcome in checks.items() if outcome is None} <= {
        "identity",
        "native",
        "machine",
        "consistency",
    }
    for name in ("workload", "outputs", "alone", "failures", "clocks", "percentiles"):
        assert checks[name] is True, record["checks"]
    assert [phase["name"] for phase in record["phases"]] == ["warm", "closed-1", "load"]
    assert sorted(row["index"] for row in rows) == list(range(len(rows)))
    assert record["slo_s"] > 0
    assert record["capacity_hz"]["value"] > 0
    assert record["server"] is None
    assert all(row["received_unix_s"] <= row["finished_unix_s"] for row in rows)


def test_rates_follow_the_capacity_of_this_very_run(loadtest):
    record, _, _ = loadtest(options={"rate_hz": None, "duration_s": 0.5})
    capacity = record["capacity_hz"]["value"]
    rates = {phase["name"]: phase["rate_hz"] for phase in record["phases"] if phase["kind"] == "poisson"}
    assert rates == pytest.approx({"30%": 0.3 * capacity, "60%": 0.6 * capacity, "90%": 0.9 * capacity})


def test_the_same_seed_sends_the_same_trace(loadtest, tmp_path):
    record, _, _ = loadtest()
    load = record["phases"][-1]
    from bench.serving import arrivals

    assert load["trace_sha256"] == arrivals.poisson(40.0, 1.0, 1).sha256
    assert load["figures"]["offered"] == len(arrivals.poisson(40.0, 1.0, 1).times_s)


def test_failures_stay_in_the_rows_and_in_the_denominator(loadtest):
    record, rows, _ = loadtest(fault=lambda number, _: {"status": 500} if number % 3 == 0 else None)
    failed = [row for row in rows if row["fault"]]
    assert len(failed) == pytest.approx(len(rows) / 3, abs=1)
    assert all("HTTP 500" in row["fault"] for row in failed)
    figures = record["phases"][-1]["figures"]
    assert figures["answered"] < figures["offered"]
    assert figures["goodput"] <= figures["answered"] / figures["offered"]
    assert held(record)["failures"] is True


def test_a_server_that_still_warms_up_when_it_counts_is_said_to(loadtest):
    options = {"duration_s": 4.0, "rate_hz": 5.0}
    record, _, _ = loadtest(options=options, fault=lambda number, _: {"slow_s": 1.0} if number in {3, 4} else None)
    warm_up = next(check for check in record["checks"] if check["id"] == "warm-up")
    assert warm_up["held"] is False
    assert warm_up["says"] == "the first 2 counted requests were still slower than the later ones"


@pytest.mark.parametrize(
    ("fault", "check", "kind"),
    [
        ({"size": "16x16"}, "outputs", FallbackDetected),
        ({"seed": 99}, "outputs", FallbackDetected),
        ({"steps": 50}, "workload", FallbackDetected),
    ],
    ids=["size", "picture", "steps"],
)
def test_another_workload_than_asked_is_no_number(loadtest, fault, check, kind):
    record, _, error = loadtest(fault=lambda number, _: fault if number == 20 else None)
    assert held(record)[check] is False
    assert isinstance(error, kind)


@pytest.mark.parametrize("others", [50, 28])
def test_steps_that_are_left_to_the_server_must_be_the_same_for_all(loadtest, others):
    record, _, error = loadtest(
        replace(WORKLOAD, steps=None), fault=lambda number, body: {"steps": others} if number == 20 else None
    )
    check = next(check for check in record["checks"] if check["id"] == "workload")
    assert record["workload"]["steps"] is None
    assert check["held"] is (others == 50), check
    assert isinstance(error, FallbackDetected) is (others != 50)
    assert "steps 28, most have 50" in check["says"] or others == 50


def test_the_fallback_shows_in_the_counters_alone(loadtest):
    record, rows, error = loadtest(stage="DiffusersExecutionStage")
    assert not any(row["fault"] for row in rows)
    assert held(record)["native"] is False
    assert isinstance(error, FallbackDetected)


def test_a_server_that_answers_nothing_right_is_a_failure(loadtest):
    record, _, error = loadtest(fault=lambda *_: {"status": 500})
    assert isinstance(error, EngineFailed)
    assert record["capacity_hz"] is None


def test_an_overload_ends_inconclusive_and_keeps_its_rows(loadtest):
    record, rows, error = loadtest(service_s=0.05, options={"rate_hz": 60.0})
    assert "saturated" in record["phases"][-1]["figures"]["flags"]
    assert isinstance(error, Inconclusive)
    assert len([row for row in rows if row["phase"] == "load"]) == record["phases"][-1]["figures"]["offered"]


@pytest.mark.parametrize(("seed", "holds"), [(WORKLOAD.seed, True), (99, False)])
def test_pictures_are_held_against_an_offline_runs(loadtest, seed, holds):
    pixels = media.look_at(picture(seed, WORKLOAD.width, WORKLOAD.height), is_video=False).pixels_sha256
    record, rows, error = loadtest(golden={outputs.asked(WORKLOAD): (pixels,)})
    check = next(check for check in record["checks"] if check["id"] == "outputs")
    assert check["held"] is holds
    assert isinstance(error, FallbackDetected) is not holds
    if holds:
        assert f"({sum(row['seed'] == WORKLOAD.seed for row in rows)} pictures)" in check["says"]


def test_an_offline_run_gives_its_picture_and_one_of_other_work_is_refused(bench, only_run):
    record = record_of(bench())
    asked = {name: record["workload"][name] for name in ("prompt", "seed", "steps", "width", "height")}
    request, version = ImageRequest(**asked), record["engine"]["version"]
    pixels = record["requests"][0]["outputs"][0]["pixels_sha256"]
    assert offline.pictures(only_run(), request, version) == {outputs.asked(request): (pixels,)}
    with pytest.raises(UsageError, match="the offline run has steps"):
        offline.pictures(only_run(), replace(request, steps=request.steps + 1), version)
    with pytest.raises(UsageError, match="is of sglang"):
        offline.pictures(only_run(), request, "0.0.1")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_load_test_that_is_ended_keeps_its_rows_and_is_partial(loadtest, number):
    record, rows, error = loadtest(fault=lambda index, _: os.kill(os.getpid(), number) if index == 20 else None)
    assert isinstance(error, Interrupted)
    assert record["complete"] is False
    assert record["failure"]["exit_code"] == 130
    assert len([row for row in rows if row["status"] == 200]) >= 20


@pytest.mark.parametrize("fields", [{"width": 100}, {"outputs": 11}])
def test_nothing_is_sent_for_a_workload_that_a_server_would_change(loadtest, fields):
    posts = []
    with pytest.raises(UsageError):
        loadtest(workload=replace(WORKLOAD, **fields), fault=lambda number, _: posts.append(number))
    assert posts == []


def test_a_trace_may_ask_for_other_work_line_by_line(loadtest, tmp_path):
    path = tmp_path / "trace.jsonl"
    path.write_text('{"at_s": 0, "seed": 3}\n{"at_s": 0.01, "num_inference_steps": 4, "size": "48x32"}\n')
    record, rows, _ = loadtest(options={"rate_hz": None, "trace": path})
    replayed = [row for row in rows if row["phase"] == "replay"]
    assert [(row["seed"], row["steps"], row["size"]) for row in replayed] == [(3, 2, "32x32"), (8, 4, "48x32")]
    assert held(record)["workload"] is True


def test_a_trace_with_a_size_that_a_server_would_change_is_refused(loadtest, tmp_path):
    path = tmp_path / "trace.jsonl"
    path.write_text('{"at_s": 0}\n{"at_s": 1, "width": 100}\n')
    with pytest.raises(UsageError, match="not a multiple of 16"):
        loadtest(options={"rate_hz": None, "trace": path})


NO_ADDRESSES = ("http://:1", "http://127.0.0.1:99999", "http://h:abc", "http://[::1", "http://bad..host/", "ftp://h")


@pytest.mark.parametrize(
    ("url", "code", "told"),
    [
        ("http://127.0.0.1:1", 3, "no server answers at http://127.0.0.1:1: connection refused\n  to do: start it, or"),
        ("127.0.0.1:1", 1, "'127.0.0.1:1' is not a server's address\n  to do: write http://HOST:PORT (--url)"),
        *((url, 1, f"{url!r} is not a server's address") for url in NO_ADDRESSES),
    ],
)
def test_where_no_server_answers_nothing_is_loaded(invoke, home, url, code, told):
    ended = invoke("loadtest", "--model", "flux-tiny", "--url", url)
    assert ended.code == code
    assert told in ended.err
    assert not list(home.glob("runs/*"))
