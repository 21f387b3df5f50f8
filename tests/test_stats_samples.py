from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.errors import UsageError
from bench.stats.spread import launch_spread, step_summaries
from bench.stats.summary import (
    known_well_enough,
    median_interval,
    outliers,
    rank_interval,
    summarise,
    summarise_launches,
)
from bench.stats.trend import drift, drift_of_launches, warm_up

durations = st.floats(min_value=1e-3, max_value=1e6)
few_resamples = settings(max_examples=25)


def noisy(n, sd=0.01, seed=0, middle=230.0):
    return middle * np.exp(np.random.default_rng(seed).normal(0, sd, n))


BAD = [
    ([], "no samples"),
    ([230.0, math.nan], "sample 2 of 2 is missing or not a number"),
    ([230.0, None], "sample 2 of 2 is missing or not a number"),
    ([230.0, math.inf], "sample 2 of 2 is inf"),
    ([0.0, 230.0], "sample 1 of 2 is 0"),
    ([230.0, -1.0], "sample 2 of 2 is -1"),
    (["fast"], "not all numbers"),
    ([[230.0, 231.0]], "a flat list"),
]


@pytest.mark.parametrize(("samples", "message"), BAD)
@pytest.mark.parametrize("function", [summarise, median_interval, outliers, drift, warm_up])
def test_what_is_no_duration_is_refused(function, samples, message):
    with pytest.raises(UsageError, match=message):
        function(samples)


def test_one_sample_has_a_middle_and_nothing_else():
    found = summarise([230.0])
    assert (found.n, found.median, found.mean, found.minimum, found.maximum) == (1, 230, 230, 230, 230)
    unknown = (found.interval, found.p95, found.sd, found.mad, found.iqr, found.drift, found.warm_up)
    assert unknown == (None,) * 7
    assert found.interval_note == "a median's 95 % interval needs 6 samples; there are 1"


def test_equal_samples_fall_back_to_ranks_and_say_so():
    found = summarise([230.0] * 12)
    assert (found.interval.low, found.interval.high, found.interval.method) == (230, 230, "ranks")
    assert "all samples are equal" in found.interval.note
    assert (found.sd, found.mad, found.outliers) == (0, 0, ())
    assert (found.drift.tau, found.drift.p, found.drift.drifting) == (None, None, False)
    assert not found.warm_up.still_falling


def test_a_bootstrap_of_nearly_equal_samples_gives_an_interval_all_the_same():
    found, _ = median_interval([230.0] * 11 + [231.0])
    assert found.low == found.high == 230
    assert all(math.isfinite(end) for end in (found.low, found.high))


def test_the_interval_is_scipys_bca_and_the_same_each_time():
    samples = noisy(30)
    found, note = median_interval(samples)
    assert note is None
    assert found.method == "bca"
    assert median_interval(samples) == (found, None)
    reference = stats.bootstrap((samples,), np.median, method="BCa", rng=np.random.default_rng(5)).confidence_interval
    assert found.low == pytest.approx(reference.low, rel=2e-3)
    assert found.high == pytest.approx(reference.high, rel=2e-3)


def test_six_samples_are_the_fewest_with_an_interval():
    assert median_interval(noisy(5))[0] is None
    assert median_interval(noisy(6))[0] is not None


@pytest.mark.parametrize("n", [6, 7, 20, 1001])
def test_the_rank_interval_holds_what_it_says(n):
    low, high, confidence = rank_interval(np.arange(1.0, n + 1))
    outside = int(low) - 1
    assert high == n - outside
    assert confidence >= 0.95
    assert confidence == pytest.approx(1 - 2 * stats.binom.cdf(outside, n, 0.5))
    assert 1 - 2 * stats.binom.cdf(outside + 1, n, 0.5) < 0.95


def test_many_samples_use_ranks():
    found, _ = median_interval(noisy(5000))
    assert found.method == "ranks"
    assert "more than 2000" in found.note


def test_p95_needs_twenty_samples():
    assert summarise(noisy(19)).p95 is None
    samples = noisy(20)
    assert summarise(samples).p95 == pytest.approx(np.quantile(samples, 0.95))


def test_an_outlier_is_marked_and_stays_in_every_figure():
    samples = [*noisy(12), 460.0]
    found = summarise(samples)
    assert [(outlier.index, outlier.value, outlier.side, outlier.severe) for outlier in found.outliers] == [
        (12, 460.0, "high", True)
    ]
    assert (found.n, found.maximum, found.mean) == (13, 460, pytest.approx(np.mean(samples)))


@few_resamples
@given(st.lists(durations, min_size=2, max_size=20), st.floats(min_value=1e-3, max_value=1e9))
def test_adding_a_sample_never_loses_one(samples, further):
    before, after = summarise(samples), summarise([*samples, further])
    assert after.n == before.n + 1
    assert after.maximum == max(before.maximum, further)
    assert after.minimum == min(before.minimum, further)
    assert after.mean == pytest.approx(np.mean([*samples, further]))


@few_resamples
@given(st.lists(durations, min_size=6, max_size=20), st.sampled_from([2.0**-10, 0.5, 4.0, 1024.0]))
def test_another_unit_changes_the_unit_only(samples, factor):
    one, other = summarise(samples), summarise([sample * factor for sample in samples])
    assert other.median == pytest.approx(one.median * factor)
    assert other.interval.low == pytest.approx(one.interval.low * factor)
    assert other.interval.high == pytest.approx(one.interval.high * factor)
    assert [outlier.index for outlier in other.outliers] == [outlier.index for outlier in one.outliers]
    assert (other.drift.p, other.drift.drifting) == (one.drift.p, one.drift.drifting)


@few_resamples
@given(st.lists(durations, min_size=6, max_size=20))
def test_the_interval_lies_inside_the_samples(samples):
    found, _ = median_interval(samples)
    assert min(samples) * (1 - 1e-12) <= found.low <= found.high <= max(samples) * (1 + 1e-12)


def test_a_trend_is_found_with_its_size():
    found = drift(noisy(30, sd=0.003) * np.linspace(1, 1.03, 30))
    assert found.drifting
    assert found.session_percent == pytest.approx(3, abs=0.4)


def test_a_steady_session_does_not_drift_more_often_than_one_in_twenty():
    alarms = sum(drift(noisy(12, seed=seed)).drifting for seed in range(400))
    assert alarms <= 32  # 20 expected, standard deviation 4.4


def test_four_samples_cannot_show_a_trend():
    assert drift([1.0, 2.0, 3.0, 4.0]) is None
    assert drift([1.0, 2.0, 3.0, 4.0, 5.0]).drifting


def test_one_outlier_does_not_move_the_slope():
    samples = np.linspace(100, 109, 10)
    samples[9] = 500
    assert drift(samples).slope == pytest.approx(1)


def test_the_slope_of_many_samples_is_taken_from_neighbours():
    assert drift(np.linspace(100, 200, 5001)).slope == pytest.approx(100 / 5000)


def test_first_requests_that_still_fall_are_counted():
    found = warm_up([260, 244, 236, 230.1, 229.9, 230.2, 230.0, 229.8, 230.1, 230.0, 229.9, 230.2])
    assert (found.falling, found.still_falling) == (3, True)
    assert found.first_excess_percent == pytest.approx(13.04, abs=0.02)


def test_a_slow_request_in_the_middle_is_no_warm_up():
    assert not warm_up([230, 230.1, 260, 230.2, 229.9, 230, 230.1, 229.8]).still_falling


def test_a_steady_session_seldom_looks_like_a_warm_up():
    assert sum(warm_up(noisy(10, seed=seed)).still_falling for seed in range(1000)) <= 22  # 10 expected


def test_warm_up_needs_eight_samples():
    assert warm_up([260.0, *[230.0] * 6]) is None
    assert warm_up([260.0, *[230.0] * 7]).falling == 1


def test_precision_is_reached_by_a_narrow_interval_only():
    assert known_well_enough(noisy(10, sd=0.05), 0.01) is None
    assert "1.00% is wanted" in known_well_enough(noisy(10, sd=0.002), 0.01)


def test_precision_waits_for_ten_samples():
    assert known_well_enough([230.0] * 9, 0.01) is None
    assert "the median of 10 samples is known to 0 %" in known_well_enough([230.0] * 10, 0.01)


@pytest.mark.parametrize("precision", [0, -0.01, 1, 5, math.nan])
def test_an_impossible_precision_is_refused(precision):
    with pytest.raises(UsageError, match="1 %"):
        known_well_enough([230.0] * 8, precision)


def test_spread_is_told_apart_by_level():
    rng = np.random.default_rng(3)
    launches = [230 * np.exp(rng.normal(0, 0.02)) * np.exp(rng.normal(0, 0.003, 10)) for _ in range(200)]
    found = launch_spread(launches)
    assert found.between_percent == pytest.approx(2, rel=0.12)
    assert found.within_percent == pytest.approx(0.3, rel=0.05)
    assert found.note is None
    assert (found.launches, found.requests[0]) == (200, 10)


def test_a_spread_that_is_not_seen_is_not_zero():
    alternating = [[229.0, 231.0, 230.0], [231.0, 229.0, 230.0]]
    assert launch_spread(alternating).between_sd is None
    assert "no more than" in launch_spread(alternating).note
    one = launch_spread([[230.0, 231.0]])
    assert (one.between_sd, one.within_sd) == (None, pytest.approx(0.7071, abs=1e-3))
    assert "one launch" in one.note
    single = launch_spread([[230.0], [232.0], [231.0]])
    assert (single.within_sd, single.between_sd) == (None, pytest.approx(1.0))
    assert "holds that between requests" in single.note


def test_a_launch_without_samples_is_named():
    with pytest.raises(UsageError, match="launch 2: no samples"):
        launch_spread([[230.0], []])
    with pytest.raises(UsageError, match="no launch"):
        launch_spread([])


def test_each_step_is_summarised():
    found = step_summaries([[20.0, 10.0, 10.0], [22.0, 10.0, 11.0], [21.0, 10.0, 12.0]])
    assert [(step.index, step.n, step.median) for step in found] == [(0, 3, 21), (1, 3, 10), (2, 3, 11)]
    assert [(step.mad, step.p95) for step in found] == [(1, None), (0, None), (1, None)]
    assert step_summaries([[20.0]])[0].mad is None


def test_requests_with_other_steps_are_refused():
    with pytest.raises(UsageError, match="request 2 has 1 denoise steps where request 1 has 2"):
        step_summaries([[1.0, 2.0], [1.0]])
    with pytest.raises(UsageError, match="steps of request 2: sample 2 of 2 is 0"):
        step_summaries([[1.0, 2.0], [1.0, 0.0]])
    with pytest.raises(UsageError, match="no request"):
        step_summaries([])


def test_launches_that_differ_are_no_drift():
    steady = [
        [100.0, 100.2, 99.9, 100.1, 99.8],
        [105.0, 105.2, 104.9, 105.1, 104.8],
        [110.0, 110.2, 109.9, 110.1, 109.8],
    ]
    assert drift([value for launch in steady for value in launch]).drifting
    assert not drift_of_launches(steady).drifting
    assert drift_of_launches([sorted(launch) for launch in steady]).drifting


def test_the_interval_of_several_launches_is_that_of_their_medians():
    told = summarise_launches([[100.0, 100.1, 99.9], [102.0, 102.1, 101.9], [104.0, 104.1, 103.9]])
    assert (told.interval.method, told.interval.scope) == ("t", "over 3 launches")
    assert told.interval.low < 99
    assert told.interval.high > 105


def test_two_launches_show_their_medians_and_no_interval():
    told = summarise_launches([[100.0] * 5, [102.0] * 5])
    assert told.interval is None
    assert "100 and 102" in told.interval_note


def test_one_launch_speaks_of_itself_alone():
    assert summarise_launches([[100.0 + step for step in range(8)]]).interval.scope == "of this launch alone"
