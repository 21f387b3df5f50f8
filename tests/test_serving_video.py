"""Videos through the jobs API, on a stand-in server: no video family of a native engine runs on a CPU."""

import json

import pytest
from stand_in_server import StandIn

from bench import schema
from bench.errors import FallbackDetected, UsageError
from bench.record import store
from bench.run import plan
from bench.run.options import Options
from bench.serving import local, review
from bench.serving import run as campaigns
from bench.serving.campaign import Campaign
from bench.serving.options import LoadOptions
from bench.serving.request import VIDEOS, VideoRequest
from bench.serving.run import Remote

WORKLOAD = VideoRequest(prompt="a cat", seed=7, steps=2, width=32, height=32, frames=5)


@pytest.fixture(name="loadtest")
def _loadtest(tmp_path):
    def go(**behaviour):
        log = tmp_path / "requests"
        log.mkdir()
        options = LoadOptions(duration_s=1.0, rate_hz=10.0)
        campaign = Campaign(options=options, workload=WORKLOAD, started=store.now(), directory=tmp_path)
        with StandIn(log=log, service_s=0.02, **behaviour) as server:
            target = Remote(url=server.url, request_log=log)
            campaigns.run(campaign, target)
            record, _, error = campaigns.finish(campaign, target, None)
        assert schema.violations(record, "load-record") == []
        return record, [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()], error

    return go


def held(record, name):
    return next(check for check in record["checks"] if check["id"] == name)


def test_every_video_is_fetched_decoded_and_joined(loadtest, tmp_path):
    record, rows, _ = loadtest()
    assert all(row["fault"] is None and len(row["pixels_sha256"]) == 1 for row in rows)
    assert len({row["pixels_sha256"][0] for row in rows}) == len({row["seed"] for row in rows}) > 1
    for name in ("workload", "outputs", "alone", "failures"):
        assert held(record, name)["held"] is True, record["checks"]
    # a job is done some time after it was taken, and its end is heard at most a poll later
    assert all(row["done_s"] - row["sent_s"] >= row["service_s"] for row in rows)
    assert review.read(tmp_path).gone == ()


@pytest.mark.parametrize(
    ("fault", "check", "says"),
    [
        ({"frames": 4}, "outputs", "a video of 4 frames, asked for 5"),
        ({"seed": 99}, "outputs", "pictures differ"),
        ({"logged": 81}, "workload", "frames 81, asked for 5"),
    ],
)
def test_another_video_than_asked_is_no_number(loadtest, fault, check, says):
    record, _, error = loadtest(fault=lambda number, _: fault if number == 9 else None)
    assert held(record, check)["held"] is False
    assert says in held(record, check)["says"]
    assert isinstance(error, FallbackDetected)


def test_a_job_that_fails_is_a_miss(loadtest):
    record, rows, _ = loadtest(fault=lambda number, _: {"failed": True} if number % 3 == 0 else None)
    failed = [row for row in rows if row["fault"]]
    assert len(failed) == pytest.approx(len(rows) / 3, abs=1)
    assert all("the job failed" in row["fault"] and "no memory" in row["fault"] for row in failed)
    assert record["phases"][-1]["figures"]["goodput"] < 1


def test_a_video_preset_becomes_a_job():
    request = local.request_of(plan.workload(Options(model="wan21-t2v-1.3b")))
    assert (request.path, request.width, request.frames) == (VIDEOS, 832, 81)
    assert json.loads(request.body())["num_frames"] == 81


def test_a_video_from_an_image_is_refused():
    with pytest.raises(UsageError, match="video from an image"):
        local.request_of(plan.workload(Options(model="wan21-i2v-14b-480p")))
