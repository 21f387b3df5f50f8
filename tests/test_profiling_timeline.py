from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import InvalidDocument
from bench.profiling import timeline
from bench.profiling.analysis import Context, analyse
from bench.profiling.attribution import attribute
from bench.profiling.bottleneck import Unprofiled
from bench.profiling.cpu import self_us
from bench.profiling.reader import read
from tests.trace_writer import FLASH, NCCL, Script, kernel, launch, step, write


def analysed(tmp_path, script, context=None):
    return analyse([script.write(tmp_path / "x.json")], context)["traces"][0]["gpu"]


def three_steps(calls):
    script = Script()
    for number in (1, 2, 3):
        script.step(number, calls)
    return script


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=20))
def test_covered_time_is_the_number_of_moments_in_which_something_runs(spans):
    moments = {moment for start, length in spans for moment in range(start, start + length)}
    start = np.array([start for start, _ in spans], np.float64)
    end = start + np.array([length for _, length in spans], np.float64)
    assert timeline.covered_us(start, end) == len(moments)


@pytest.mark.parametrize(
    ("count", "chosen"), [(0, []), (1, [0]), (2, [0, 1]), (3, [1]), (4, [1, 2]), (6, [1, 2, 3, 4])]
)
def test_the_first_and_the_last_step_stand_for_nothing_if_there_are_others(count, chosen):
    assert list(timeline.representative(count)) == chosen


def test_a_gap_after_which_the_launch_returned_late_is_host_wait(tmp_path):
    events = [
        step(1, 0, 1000),
        launch(1, 10), kernel("a", 20, 10, 1),
        launch(2, 50), kernel("b", 55, 10, 2),  # returned at 52, a had ended at 30
        launch(3, 56), kernel("c", 70, 10, 3),  # returned at 58, b ended at 65: it was queued
    ]  # fmt: skip
    gpu = analyse([write(tmp_path / "x.json", events)])["traces"][0]["gpu"]
    assert gpu["window"]["host_wait_ms"] == pytest.approx(0.025)
    assert gpu["window"]["kernel_wait_ms"] == pytest.approx(0.005)
    assert gpu["window"]["idle_ms"] == pytest.approx(0.030)
    assert gpu["window"]["busy_ms"] == pytest.approx(0.030)


def test_time_on_two_streams_is_busy_once_and_the_rest_is_overlap(tmp_path):
    events = [step(1, 0, 1000), launch(1, 1), kernel("a", 10, 100, 1), launch(2, 4), kernel("b", 50, 100, 2, stream=9)]
    gpu = analyse([write(tmp_path / "x.json", events)])["traces"][0]["gpu"]
    assert gpu["window"]["busy_ms"] == pytest.approx(0.140)
    assert gpu["window"]["overlap_ms"] == pytest.approx(0.060)
    assert [stream["stream"] for stream in gpu["streams"]] == [7, 9]


def test_communication_is_exposed_where_nothing_else_runs(tmp_path):
    events = [step(1, 0, 1000), launch(1, 1), kernel("nvjet", 10, 100, 1)]
    events += [launch(2, 4), kernel(NCCL, 80, 70, 2, stream=9)]
    gpu = analyse([write(tmp_path / "x.json", events)])["traces"][0]["gpu"]
    assert gpu["steps"][0]["communication_ms"] == pytest.approx(0.070)
    assert gpu["steps"][0]["exposed_communication_ms"] == pytest.approx(0.040)
    assert gpu["verdict"]["bound_by"] == "communication"
    assert gpu["actions"][0]["title"] == "Communication that nothing hides"


def test_a_step_that_waits_for_the_host_is_bound_by_launches(tmp_path):
    script = three_steps(lambda each: [each.call("k", 2.0, lag=1.0) for _ in range(20)])
    without = Context(unprofiled=Unprofiled(step_ms=0.15, host_ahead=False))
    gpu = analysed(tmp_path, script, without)
    assert gpu["verdict"]["bound_by"] == "launches"
    assert gpu["actions"][0]["title"] == "GPU idle: gaps and waits for the host"
    gpu = analysed(tmp_path, script)
    assert gpu["verdict"]["bound_by"] == "memory", "under the profiler alone nobody knows"


def test_a_slow_step_is_marked_and_does_not_move_the_figures(tmp_path):
    script = Script()
    for number, duration in enumerate((10, 10, 10, 14, 10, 10), 1):
        script.step(number, lambda each, duration=duration: each.call(FLASH, duration).call(FLASH, duration))
    gpu = analysed(tmp_path, script)
    assert [one["label"] for one in gpu["steps"] if one["outlier"]] == ["4"]
    assert gpu["median_step"]["busy_ms"] == pytest.approx(0.020)
    assert gpu["steps"][3]["busy_ratio"] == pytest.approx(1.4)
    assert [one["role"] for one in gpu["steps"]] == ["first", *["counted"] * 4, "last"]


def test_the_waterfall_adds_up_to_the_step(tmp_path):
    dims = [[3072], [4096, 3072], [3072, 3072]]
    gpu = analysed(
        tmp_path,
        three_steps(
            lambda each: each.call("nvjet", 130, "aten::addmm", dims).call(FLASH, 30, gap=3).call("cat", 5, gap=7)
        ),
    )
    assert sum(bar["ms"] for bar in gpu["waterfall"]) == pytest.approx(gpu["median_step"]["ms"])
    assert next(bar for bar in gpu["waterfall"] if bar["label"] == "GEMM floor")["ms"] == pytest.approx(
        0.0979, rel=0.01
    )


def test_few_steps_are_said_to_be_few(tmp_path):
    script = Script().step(1, lambda each: each.call("k"))
    warnings = analyse([script.write(tmp_path / "x.json")])["traces"][0]["warnings"]
    assert any("too few for a median" in warning for warning in warnings)


def test_events_that_nothing_in_the_trace_launched_are_refused(tmp_path):
    path = write(tmp_path / "x.json", [step(1, 0, 10), kernel("k", 1, 1, 1)])
    with pytest.raises(InvalidDocument, match="none of the 1 GPU events was launched inside a step"):
        analyse([path])


def test_an_event_of_no_duration_is_no_trouble(tmp_path):
    events = [step(1, 0, 10), launch(1, 1), kernel("k", 2, 0, 1), launch(2, 3), kernel("k", 2, 0, 2)]
    gpu = analyse([write(tmp_path / "x.json", [*events, launch(3, 4), kernel("k", 6, 1, 3)])])["traces"][0]["gpu"]
    assert gpu["window"]["busy_ms"] == pytest.approx(0.001)


def test_launches_whose_event_was_lost_are_reported(tmp_path):
    events = [step(1, 0, 100), launch(1, 1), kernel("k", 2, 1, 1), launch(2, 10), launch(3, 20)]
    warnings = analyse([write(tmp_path / "x.json", events)])["traces"][0]["warnings"]
    assert any("2 launches inside the steps have no GPU event" in warning for warning in warnings)


def test_synchronisations_are_counted_and_warned_of(tmp_path):
    def calls(each):
        each.call("k", 50)
        each.events.append(launch(1000 + each.number, each.cpu_us, name="cudaDeviceSynchronize"))

    document = analyse([three_steps(calls).write(tmp_path / "x.json")])["traces"][0]
    assert document["gpu"]["median_step"]["synchronisations"] == 1
    assert any("SYNC_STAGE_PROFILING" in warning for warning in document["warnings"])


def test_gaps_know_the_step_they_lead_to(tmp_path):
    attribution = attribute(read(three_steps(lambda each: each.call("k").call("k")).write(tmp_path / "x.json")))
    gaps = timeline.gaps(attribution)
    assert gaps.step.tolist() == [0, 1, 1, 2, 2]
    assert gaps.between.tolist() == [False, True, False, True, False]


def test_own_time_is_without_what_is_called():
    start = np.array([0.0, 10.0, 12.0, 50.0, 0.0])
    duration = np.array([100.0, 30.0, 5.0, 10.0, 70.0])
    thread = np.array([1, 1, 1, 1, 2], np.uint32)
    assert self_us(start, duration, thread).tolist() == [60.0, 25.0, 5.0, 10.0, 70.0]
