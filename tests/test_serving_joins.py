"""Rows of the client beside the server's own log and counters: foreign traffic, changed workloads, fallbacks."""

from itertools import count

import pytest
from helpers import DATA
from stand_in_server import StandIn

from bench.serving import arrivals, client, joins, outputs, request, server
from bench.serving.client import Exchange
from bench.serving.outputs import Answer

CAPTURED = DATA / "serving"


def run(stand_in, number=12):
    trace = arrivals.Arrivals(kind="replay", duration_s=1, times_s=tuple(i * 0.002 for i in range(number)))
    asked = (request.ImageRequest(prompt="x", seed=i % 4, steps=2, width=32, height=32) for i in count())
    phase = client.run(client.send(stand_in.url, "load", trace, asked, limit_s=10))
    return [(exchange, outputs.read(exchange)) for exchange in phase.exchanges]


def test_each_row_has_one_pair_of_lines(tmp_path):
    with StandIn(log=tmp_path) as stand_in:
        answered = run(stand_in)
    joined = joins.join(answered, joins.read_request_log(tmp_path))
    assert joined.holds
    assert len(joined.pairs) == 12
    assert all(served.elapsed_s >= 0 for served in joined.pairs.values())


@pytest.mark.parametrize(
    ("fault", "field", "rows"),
    [({"silent": True}, "unlogged", (3,)), ({"steps": 50}, "changed", {3: "steps 50, asked for 2"})],
)
def test_a_row_that_the_log_does_not_bear_out_is_named(tmp_path, fault, field, rows):
    with StandIn(log=tmp_path, fault=lambda number, _: fault if number == 3 else None) as stand_in:
        answered = run(stand_in)
    joined = joins.join(answered, joins.read_request_log(tmp_path))
    assert getattr(joined, field) == rows
    assert not joined.holds


def test_somebody_elses_request_is_foreign_unless_it_may_be_a_failure_of_ours(tmp_path):
    with StandIn(log=tmp_path) as stand_in:
        answered = run(stand_in)
    log = joins.read_request_log(tmp_path)
    [stranger] = {answered[-1][1].server_id}
    assert joins.join(answered[:-1], log).foreign == (stranger,)
    assert joins.join(answered[:-1], log, own_failures=1).holds


def test_one_id_in_two_rows_is_noticed(tmp_path):
    with StandIn(log=tmp_path) as stand_in:
        answered = run(stand_in)
    twice = [*answered[:-1], (answered[-1][0], answered[0][1])]
    assert joins.join(twice, joins.read_request_log(tmp_path), own_failures=1).repeated == (answered[0][1].server_id,)


def test_the_captured_request_log_is_read(tmp_path):
    (tmp_path / "vm_0.log").write_bytes((CAPTURED / "requests.log").read_bytes() + b'[x] {"event": "request.fin')
    log = joins.read_request_log(tmp_path)
    assert len(log) == 30
    first = log["0ba98d8c-2ffb-4ffc-aba9-b7350506d2c4"]
    assert (first.seed, first.steps, first.width, first.height, first.outputs) == (0, 2, 128, 128, 1)
    assert first.elapsed_s == pytest.approx(0.413, abs=0.001)


def test_no_log_is_no_request(tmp_path):
    assert joins.read_request_log(tmp_path / "absent") == {}


def counters(name):
    return joins.read_counters((CAPTURED / f"{name}.prom").read_text())


def test_the_counters_of_a_captured_fallback_show_its_stage():
    grown = counters("awq_after").minus(counters("awq_before"))
    assert grown.stages == {"DiffusersExecutionStage": grown.posts}
    assert "DenoisingStage" not in grown.stages


def test_the_counters_of_a_captured_run_count_stages_and_steps():
    grown = counters("open60.after").minus(counters("open60.before"))
    assert grown.stages["DenoisingStage"] == grown.posts == grown.requests["success"] == 167
    assert grown.stages["DenoisingStep"] == 334
    assert (grown.queued, grown.running) == (0, 0)


def test_a_server_without_counters_has_none():
    with StandIn() as stand_in:
        assert server.counters(stand_in.url + "/nowhere") is None
        url = stand_in.url
    assert server.counters(url) is None


def test_ten_thousand_rows_are_joined_quickly_enough_to_be_tested():
    asked = request.ImageRequest(prompt="x", seed=1, steps=2, width=32, height=32)
    answered = [(Exchange(index=i, request=asked, intended_s=i), Answer(server_id=str(i))) for i in range(10_000)]
    log = {
        str(i): joins.Served(
            server_id=str(i), received=1, finished=1, received_unix_s=i, finished_unix_s=i + 1, seed=1, steps=2,
            width=32, height=32, outputs=1, frames=None, error=None,
        )
        for i in range(10_000)
    }  # fmt: skip
    assert joins.join(answered, log).holds
