from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import schema
from bench.errors import UsageError
from bench.stats import comparison
from bench.stats.unpaired import HistoryNoise, compare_launches, launches_needed, smallest_p

OTHER = {"faster": "slower", "slower": "faster", "same": "same", "inconclusive": "inconclusive"}
BEFORE = [230.0, 231.0, 229.5, 230.4]


@pytest.mark.parametrize("bad", [[], [0.0], [230.0, 0.0], [None], [math.nan], [-230.0], [math.inf]])
def test_a_missing_or_zero_side_is_an_error_and_never_a_change_of_100_percent(bad):
    with pytest.raises(UsageError, match="baseline"):
        compare_launches(bad, BEFORE)
    with pytest.raises(UsageError, match="candidate"):
        compare_launches(BEFORE, bad)


@pytest.mark.parametrize(
    "history",
    [
        HistoryNoise(between_launch_percent=0),
        HistoryNoise(between_launch_percent=-1),
        HistoryNoise(between_launch_percent=math.nan),
        HistoryNoise(between_launch_percent=1, launches=1),
    ],
)
def test_noise_that_is_none_is_refused(history):
    with pytest.raises(UsageError, match="noise"):
        compare_launches([230.0], [345.0], history=history)


def test_one_against_one_is_inconclusive_and_says_what_it_shows():
    found = compare_launches([230.0], [345.0])
    assert (found.verdict, found.exit_code, found.method) == ("inconclusive", 9, "none")
    assert found.reason.startswith("1 against 1 launches show +50.00 % and nothing about the spread")
    assert (found.p, found.interval, found.noise_percent, found.mde_percent, found.needed) == (None,) * 5
    assert found.effect_percent == pytest.approx(50)


@pytest.mark.parametrize("launches", [None, 10])
def test_230_to_345_ms_is_slower_where_the_noise_is_known(launches):
    found = compare_launches([230.0], [345.0], history=HistoryNoise(between_launch_percent=2, launches=launches))
    assert (found.verdict, found.exit_code, found.method) == ("slower", 7, "history-noise")
    assert "from earlier launches" in found.reason


def test_230_to_345_ms_is_slower_with_four_launches_each():
    found = compare_launches(BEFORE, [value * 1.5 for value in BEFORE])
    assert (found.verdict, found.exit_code, found.method) == ("slower", 7, "permutation")
    assert found.p == pytest.approx(2 / 70)
    assert "measured apart" in found.reason


def test_noise_from_few_launches_decides_less():
    known = compare_launches([230.0], [237.0], history=HistoryNoise(between_launch_percent=1))
    guessed = compare_launches([230.0], [237.0], history=HistoryNoise(between_launch_percent=1, launches=3))
    assert (known.verdict, guessed.verdict) == ("slower", "inconclusive")
    assert guessed.interval.high_ratio > known.interval.high_ratio


def test_history_can_show_that_nothing_changed():
    assert compare_launches([230.0], [230.1], history=HistoryNoise(between_launch_percent=0.3)).verdict == "same"


def test_three_against_three_can_never_be_significant():
    assert smallest_p(3, 3) == pytest.approx(0.1)
    found = compare_launches(BEFORE[:3], [300.0, 301.0, 302.0])
    assert (found.verdict, found.p) == ("inconclusive", pytest.approx(0.1))
    assert "can never reach p <= 0.05 (at best 0.1)" in found.reason


def test_one_against_many_needs_forty():
    assert smallest_p(1, 38) > 0.05 >= smallest_p(1, 39)


def test_equal_launches_are_the_same():
    found = compare_launches([230.0] * 4, [230.0] * 4)
    assert (found.verdict, found.p, found.mde_percent) == ("same", 1, None)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(min_value=100, max_value=110), min_size=1, max_size=6),
    st.lists(st.floats(min_value=95, max_value=110), min_size=1, max_size=6),
    st.sampled_from([None, HistoryNoise(between_launch_percent=0.5, launches=8)]),
    st.floats(min_value=0.001, max_value=1000),
)
def test_arms_mirror_units_do_not_matter_and_the_schema_holds(one, other, history, factor):
    found = compare_launches(one, other, history=history)
    mirrored = compare_launches(other, one, history=history)
    scaled = compare_launches([x * factor for x in one], [x * factor for x in other], history=history)
    assert mirrored.verdict == OTHER[found.verdict] == OTHER[scaled.verdict]
    assert mirrored.ratio == pytest.approx(1 / found.ratio)
    assert scaled.ratio == pytest.approx(found.ratio)
    assert schema.violations(comparison.to_document(found), "comparison") == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(min_value=100, max_value=200), min_size=4, max_size=6), st.integers(min_value=0, max_value=5))
def test_a_change_of_half_is_never_called_the_same(launches, seed):
    candidate = np.random.default_rng(seed).permutation(launches) * 1.5
    assert compare_launches(launches, candidate).verdict in {"slower", "inconclusive"}


def test_launches_needed_are_the_fewest():
    assert launches_needed(1.5, 0.01) == 9
    assert launches_needed(50, 0.01) == 4
    assert launches_needed(1.5, None) is None
    assert launches_needed(0.001, 0.5) is None
    with pytest.raises(UsageError, match="above 0 %"):
        launches_needed(0, 0.01)
