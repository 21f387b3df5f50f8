"""The queue's arithmetic: Lindley against the known formula, captured runs, and what is said of a phase."""

import json

import numpy as np
import pytest
from helpers import DATA

from bench.serving import arrivals, queueing
from bench.serving.queueing import Observed, Row


def rows_of(trace, service_s, late_s=0.0):
    times = list(trace.times_s)
    done = np.asarray(times) + queueing.lindley(times, [service_s] * len(times))
    return [
        Row(intended_s=at, sent_s=at + late_s, done_s=float(end) + late_s, service_s=service_s)
        for at, end in zip(times, done, strict=True)
    ]


@pytest.mark.parametrize("utilisation", [0.3, 0.6, 0.8])
def test_waiting_in_simulated_time_is_that_of_m_d_1(utilisation):
    """Pollaczek-Khinchine for a constant service time s: W = rho s / (2 (1 - rho))."""
    service_s = 0.02
    waits = []
    for seed in range(4):
        trace = arrivals.poisson(utilisation / service_s, 250_000 * service_s, seed)
        waits.append(queueing.lindley(trace.times_s, [service_s] * len(trace.times_s)).mean() - service_s)
    assert np.mean(waits) == pytest.approx(utilisation * service_s / (2 * (1 - utilisation)), rel=0.05)


def test_requests_at_once_wait_for_each_other():
    assert queueing.lindley([0, 0, 0, 10], [1, 2, 3, 4]) == pytest.approx([1, 3, 6, 4])
    assert queueing.lindley([0, 0], [1, 1], overhead_s=0.5) == pytest.approx([1.5, 3])


def captured(name):
    lines = [json.loads(line) for line in (DATA / "serving" / f"{name}.jsonl").read_text().splitlines()]
    return [Row(intended_s=row[0], sent_s=row[1], done_s=row[2], service_s=row[3]) for row in lines]


@pytest.mark.parametrize("name", ["open30", "open60", "open120", "overtaken"])
def test_captured_runs_are_explained(name):
    prediction = queueing.predict(captured(name))
    assert prediction.explained, prediction


def test_who_was_served_after_somebody_who_came_later_was_overtaken():
    """Those that came while the engine served one request do not wait in the order in which they came."""
    assert queueing.overtaken(captured("overtaken")) == 6
    assert queueing.overtaken(rows_of(arrivals.poisson(8, 60, 3), 0.1)) == 0
    assert queueing.overtaken([]) == 0


def test_foreign_traffic_is_not_explained():
    """A foreign request before each measured one doubles the wait that the measured rows can account for."""
    trace = arrivals.poisson(8, 60, 3)
    own = rows_of(trace, 0.1)
    assert queueing.predict(own).explained
    times = sorted([*trace.times_s, *(time + 0.001 for time in trace.times_s)])
    done = dict(zip(times, np.asarray(times) + queueing.lindley(times, [0.1] * len(times)), strict=True))
    disturbed = [
        Row(intended_s=row.intended_s, sent_s=row.sent_s, done_s=float(done[row.intended_s]), service_s=0.1)
        for row in own
    ]
    assert queueing.predict(disturbed).explained is False


@pytest.mark.parametrize(("number", "known"), [(5, ()), (6, (50,)), (43, (50,)), (44, (50, 90)), (458, (50, 90, 95))])
def test_a_percentile_is_shown_only_where_it_was_earned(number, known):
    given = [rank for rank in queueing.EARNED if queueing.percentile([1.0] * number, rank) is not None]
    assert tuple(given) == known


def observed(rows, **fields):
    last = max((row.done_s for row in rows), default=1.0)
    return Observed(
        **{
            "duration_s": 60.0,
            "ended_s": max(last, 60.0),
            "offered": len(rows),
            "lateness_s": [row.sent_s - row.intended_s for row in rows],
            "rows": rows,
        }
        | fields
    )


def test_a_stable_phase_is_ok():
    level = queueing.level(observed(rows_of(arrivals.poisson(5, 60, 1), 0.1)), slo_s=1)
    assert level.flags == (queueing.OK,)
    assert level.utilisation == pytest.approx(level.offered / 60 * 0.1)
    assert level.goodput == 1
    assert level.p95_s is not None
    assert level.p99_s is None


def test_an_overload_is_saturated():
    level = queueing.level(observed(rows_of(arrivals.poisson(12, 60, 1), 0.1)), slo_s=1)
    assert queueing.SATURATED in level.flags
    assert level.slope > 0.1
    assert level.backlog > 50
    assert level.achieved_hz == pytest.approx(10, rel=0.02)
    assert level.achieved_hz < level.offered_hz


@pytest.mark.parametrize(("ended_s", "open_loop", "rate_hz"), [(55.0, True, 0.5), (55.0, False, 30 / 55)])
def test_no_more_is_achieved_than_was_offered(ended_s, open_loop, rate_hz):
    """A phase is over with its last answer, before or after the time in which requests were due."""
    rows = [Row(intended_s=at, sent_s=at, done_s=at + 0.1, service_s=0.1) for at in np.linspace(0, 54.9, 30)]
    level = queueing.level(observed(rows, ended_s=ended_s, open_loop=open_loop), slo_s=1)
    assert level.offered_hz == level.achieved_hz == pytest.approx(rate_hz)


def test_a_late_generator_voids_the_phase():
    rows = rows_of(arrivals.poisson(5, 60, 1), 0.1, late_s=0.011)
    assert queueing.GENERATOR_LATE in queueing.level(observed(rows), slo_s=1).flags


def test_failures_are_misses_and_never_leave_the_denominator():
    rows = rows_of(arrivals.poisson(5, 60, 1), 0.1)
    level = queueing.level(observed(rows[: len(rows) // 2], offered=len(rows)), slo_s=10)
    assert level.goodput == pytest.approx(0.5, abs=0.01)
    assert level.offered == len(rows)


def test_a_phase_without_an_answer_has_no_numbers():
    level = queueing.level(observed([], offered=20, lateness_s=[0.0] * 20), slo_s=1)
    assert (level.p50_s, level.mean_s, level.utilisation, level.queue_share) == (None, None, None, None)
    assert level.goodput == 0
    assert level.flags == (queueing.TOO_FEW,)


def test_capacity_counts_what_a_request_costs_beyond_its_service():
    busy = [Row(intended_s=0, sent_s=0, done_s=0.11 * (i + 1), service_s=0.1) for i in range(40)]
    capacity = queueing.capacity_hz(busy)
    assert capacity.value == pytest.approx(1 / 0.11)
    assert capacity.low <= capacity.value <= capacity.high


def test_the_highest_rate_is_found_by_bisection():
    asked = []

    def holds(rate_hz):
        asked.append(rate_hz)
        return rate_hz <= 3.7

    held, missed = queueing.highest_rate(holds, 1, 8)
    assert held <= 3.7 < missed
    assert (missed - held) / missed <= 0.05
    assert len(asked) < 12
    assert queueing.highest_rate(lambda _: False, 1, 8) == (None, 1)
    assert queueing.highest_rate(lambda _: True, 1, 8) == (8, None)
