"""Arrival traces and the client, against a server that stands in: nothing is dropped and nothing waits."""

import asyncio
import json
import os
import signal
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
from stand_in_server import StandIn
from virtual_time import Loop

from bench.errors import UsageError
from bench.serving import arrivals, client, outputs, queueing, request

WORKLOAD = {"prompt": "a cat", "steps": 2, "width": 32, "height": 32}


def requests(**fields):
    return (request.ImageRequest(**WORKLOAD | {"seed": number % 4} | fields) for number in count())


def load(server, trace, **settings):
    return client.run(client.send(server.url, "load", trace, requests(), **{"limit_s": 30} | settings))


def burst(number, apart_s=0.002):
    return arrivals.Arrivals(
        kind=arrivals.REPLAY, duration_s=number * apart_s, times_s=tuple(i * apart_s for i in range(number))
    )


def known_queue(utilisation, service_s, number):
    """Return Poisson arrivals whose mean wait in one queue is the one of M/D/1, and that wait in seconds.

    Chance alone moves the mean wait of one trace by far more than 5 %, so the first seed within 1 % is taken.
    """
    wait_s = utilisation * service_s / (2 * (1 - utilisation))

    def wait_of(trace):
        return queueing.lindley(trace.times_s, [service_s] * len(trace.times_s)).mean() - service_s

    rate_hz = utilisation / service_s
    traces = (arrivals.poisson(rate_hz, number / rate_hz, seed) for seed in count())
    return next(trace for trace in traces if wait_of(trace) == pytest.approx(wait_s, rel=0.01)), wait_s


@pytest.mark.parametrize("utilisation", [0.3, 0.6, 0.8])
def test_requests_wait_as_long_as_in_a_queue_of_known_length(utilisation, monkeypatch):
    """Pollaczek-Khinchine, M/D/1: W = rho s / (2 (1 - rho)). Real sockets, virtual time."""
    service_s = 0.02
    trace, wait_s = known_queue(utilisation, service_s, 600)
    with asyncio.Runner(loop_factory=Loop) as runner:
        loop = runner.get_loop()
        monkeypatch.setattr(client, "time", SimpleNamespace(time=loop.time, monotonic=loop.time))

        async def both():
            async with StandIn(service_s=service_s) as server:
                return await client.send(server.url, "load", trace, requests(), limit_s=1e6)

        phase = runner.run(both())
    assert len(phase.exchanges) == len(trace.times_s)
    latencies = [exchange.latency_s for exchange in phase.exchanges]
    assert np.mean(latencies) - service_s == pytest.approx(wait_s, rel=0.05)


def test_a_trace_depends_on_its_seed_and_nothing_else():
    first, again = arrivals.poisson(50, 20, 7), arrivals.poisson(50, 20, 7)
    assert first == again
    assert first.sha256 == again.sha256
    assert arrivals.poisson(50, 20, 8).sha256 != first.sha256
    assert list(first.times_s) == sorted(first.times_s)
    assert first.times_s[0] >= 0
    assert first.times_s[-1] < 20
    assert abs(len(first.times_s) - 1000) < 5 * 1000**0.5


@pytest.mark.parametrize(
    ("rate_hz", "duration_s", "says"),
    [
        (0, 1, "a rate is above zero"),
        (float("inf"), 1, "a rate is above zero"),
        (1, float("nan"), "a duration is above zero"),
        (1e6, 100, "arrivals in one phase"),
    ],
)
def test_a_load_that_cannot_be_is_refused(rate_hz, duration_s, says):
    with pytest.raises(UsageError, match=says):
        arrivals.poisson(rate_hz, duration_s, 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the trace is empty"),
        ("[]", "is a JSON object"),
        ("{", "not JSON"),
        ('{"seed": 1}', "has one of at_s or timestamp"),
        ('{"at_s": 1, "timestamp": 1}', "has one of at_s or timestamp"),
        ('{"at_s": -1}', "a number of 0 or more"),
        ('{"at_s": true}', "a number of 0 or more"),
        ('{"at_s": 2}\n{"at_s": 1}', "must ascend"),
        ('{"at_s": 1, "num_steps": 4}', "uses 50 steps"),
    ],
)
def test_a_trace_file_that_would_not_be_what_it_says_is_refused(tmp_path, text, says):
    path = tmp_path / "trace.jsonl"
    path.write_text(text)
    with pytest.raises(UsageError, match=says) as caught:
        arrivals.replay(path)
    assert str(path) in str(caught.value)


def test_a_trace_of_milliseconds_is_replayed_in_seconds(tmp_path):
    path = tmp_path / "mooncake.jsonl"
    path.write_text('{"timestamp": 500, "seed": 3}\n\n{"timestamp": 1500}\n')
    trace = arrivals.replay(path)
    assert trace.times_s == (0.5, 1.5)
    assert trace.fields == ({"seed": 3}, {})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"width": 100}, "100 pixels is not a multiple of 16"),
        ({"height": 250}, "250 pixels is not a multiple of 16"),
        ({"outputs": 11}, "11 outputs"),
        ({"outputs": 0}, "0 outputs"),
        ({"steps": 0}, "refuses 0 denoise steps"),
        ({"seed": -1}, "refuses seed -1"),
    ],
)
def test_what_a_server_would_change_in_silence_is_refused(fields, says):
    with pytest.raises(UsageError, match=says):
        request.refuse(next(requests(**fields)), "here")


@pytest.mark.parametrize("name", ["num_steps", "num_inference_step", "extra_body", "stream"])
def test_a_field_that_the_server_ignores_is_refused(name):
    with pytest.raises(UsageError, match="without a word"):
        request.refuse_unknown_fields({"prompt": "x", name: 4}, "here")


def test_what_is_sent_is_known_to_the_server():
    body = json.loads(next(requests(guidance=3.5, negative_prompt="ugly")).body())
    request.refuse_unknown_fields(body, "here")
    assert body["size"] == "32x32"
    assert body["num_inference_steps"] == 2


def test_a_third_of_failures_stays_in_the_rows():
    with StandIn(fault=lambda number, _: {"status": 500} if number % 3 == 0 else None) as server:
        phase = load(server, burst(30))
    answers = [outputs.read(exchange) for exchange in phase.exchanges]
    assert len(answers) == 30
    assert sum(answer.fault is None for answer in answers) == 20
    assert all("HTTP 500: Internal Server Error" in answer.fault for answer in answers if answer.fault)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"raw": b"<html>"}, "not JSON"),
        ({"raw": b"[]"}, "not a JSON object"),
        ({"raw": b'{"id": "x", "data": []}'}, "0 pictures, asked for 1"),
        ({"raw": b'{"id": "x", "data": [{"url": "/x"}]}'}, "no picture in the answer"),
        ({"raw": b'{"id": "x", "data": [{"b64_json": "AAAA"}]}'}, "does not decode"),
        ({"raw": b'{"id": "x", "data": [{"b64_json": "?"}]}'}, "no picture in the answer"),
        ({"raw": b'{"id": "x", "data": [7]}'}, "no picture in the answer"),
        ({"size": "16x32"}, "16x32, asked for 32x32"),
    ],
)
def test_an_answer_with_status_200_may_still_be_a_miss(fault, says):
    with StandIn(fault=lambda number, _: fault) as server:
        phase = load(server, burst(2))
    for exchange in phase.exchanges:
        assert exchange.status == 200
        assert says in outputs.read(exchange).fault


def test_another_seeds_picture_is_noticed_against_the_rest_and_against_a_golden():
    with StandIn(fault=lambda number, _: {"seed": 9} if number == 5 else None) as server:
        phase = load(server, burst(16))
    answered = [(exchange, outputs.read(exchange)) for exchange in phase.exchanges]
    [difference] = outputs.differences(answered)
    assert difference.index == 5
    assert difference.seed == 1
    assert not difference.within_batching
    golden = {outputs.asked(answered[0][0].request): answered[5][1].pixels_sha256}
    against = outputs.differences(answered, golden, "the offline output")
    assert {item.index for item in against} == {0, 4, 5, 8, 12}
    assert {item.against for item in against} == {"the offline output", "the other answers to this request"}


def test_a_server_that_dies_leaves_every_row():
    with StandIn(service_s=0.01, fault=lambda number, _: {"die": True} if number == 3 else None) as server:
        phase = load(server, burst(40, apart_s=0.01))
    faults = [outputs.read(exchange).fault for exchange in phase.exchanges]
    assert len(faults) == 40
    assert faults[:3] == [None] * 3
    assert all(faults[4:])
    assert all(exchange.latency_s is None for exchange in phase.exchanges[4:])


def test_requests_due_after_the_end_of_a_server_are_kept_as_unsent():
    alive = iter([True] * 5 + [False] * 100)
    with StandIn() as server:
        phase = load(server, burst(20), alive=lambda: next(alive))
    assert [exchange.sent_s is None for exchange in phase.exchanges] == [False] * 5 + [True] * 15
    assert phase.exchanges[-1].error == client.UNSENT


def test_what_is_unanswered_at_the_limit_is_kept():
    with StandIn(fault=lambda number, _: {"stall_s": 60} if number == 2 else None) as server:
        phase = load(server, burst(5, apart_s=0.2), limit_s=3)
    assert [exchange.status for exchange in phase.exchanges] == [200, 200, None, None, None]
    assert {exchange.error for exchange in phase.exchanges[2:]} == {client.UNANSWERED}


def test_a_stall_shows_in_the_latency_of_everyone_who_came_in_it():
    """Coordinated omission: a client that waits for answers sends nothing in a stall and so sees one slow request."""
    with StandIn(fault=lambda number, _: {"stall_s": 2} if number == 100 else None) as server:
        phase = load(server, burst(500, apart_s=0.004))
    latencies = sorted(exchange.latency_s for exchange in phase.exchanges)
    assert latencies[int(0.99 * len(latencies))] > 1.9
    assert sum(latency > 1 for latency in latencies) > 200


def test_a_closed_loop_has_as_many_requests_on_the_way_as_clients():
    with StandIn(service_s=0.01) as server:
        phase = load(server, arrivals.closed(3, 0.5))
    events = sorted(event for row in phase.exchanges for event in ((row.sent_s, 1), (row.done_s, -1)))
    on_the_way = most = 0
    for _, change in events:
        on_the_way += change
        most = max(most, on_the_way)
    assert most == 3
    assert all(exchange.status == 200 for exchange in phase.exchanges)


def test_a_closed_loop_against_nobody_ends_and_keeps_its_rows():
    with StandIn() as server:
        url = server.url
    phase = client.run(client.send(url, "load", arrivals.closed(2, 0.5), requests(), limit_s=5))
    assert phase.exchanges
    assert all("ClientConnectorError" in exchange.error for exchange in phase.exchanges)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_ends_a_phase_keeps_what_was_answered_and_names_the_rest(number):
    before = signal.getsignal(signal.SIGTERM)
    sent = []

    def end(*_):
        if server.finished and not sent:  # once the first answer has left, however slow the machine is
            sent.append(number)
            os.kill(os.getpid(), number)

    with StandIn(service_s=0.01, fault=end) as server:
        phase = load(server, burst(400, apart_s=0.01))
    assert phase.interrupted
    assert len(phase.exchanges) == 400
    assert sent == [number]
    assert phase.exchanges[-1].error in (client.UNFINISHED_SEND, client.UNANSWERED)
    assert signal.getsignal(signal.SIGTERM) == before
