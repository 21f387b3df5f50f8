from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bench.errors import UsageError
from bench.stats import permutation
from bench.stats.blocks import (
    BAAB,
    BLOCK,
    PAIR,
    Block,
    blocks_needed,
    log_ratios,
    minimum_detectable_log,
    plan_orders,
    smallest_p,
)

differences = st.lists(st.floats(min_value=-1, max_value=1).map(lambda x: round(x, 6)), min_size=2, max_size=9)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -3.0, None])
def test_a_launch_without_a_duration_is_refused(bad):
    with pytest.raises(UsageError, match="block 2: sample 3 of 4"):
        log_ratios([Block(values=(1, 1, 1, 1)), Block(values=(1, 1, bad, 1))], BLOCK)


def test_what_is_no_block_is_refused():
    with pytest.raises(UsageError, match="no block"):
        log_ratios([], BLOCK)
    with pytest.raises(UsageError, match="'AABB'"):
        log_ratios([Block(values=(1, 1, 1, 1), order="AABB")], BLOCK)
    with pytest.raises(UsageError, match="3 launches"):
        log_ratios([Block(values=(1, 1, 1))], BLOCK)
    with pytest.raises(UsageError, match="'launch'"):
        log_ratios([Block(values=(1, 1, 1, 1))], "launch")


def test_a_block_cancels_a_linear_drift_exactly():
    drifting = tuple(value * factor for value, factor in zip((100, 110, 120, 130), (1, 2, 2, 1), strict=True))
    assert log_ratios([Block(values=drifting)], BLOCK) == pytest.approx(math.log(2))


def test_pairs_are_the_halves_and_mirrored_blocks_are_read_backwards():
    ratios = log_ratios([Block(values=(1, 2, 6, 2)), Block(values=(2, 1, 2, 6), order=BAAB)], PAIR)
    assert np.exp(ratios) == pytest.approx([2, 3, 2, 3])


@given(
    st.lists(st.tuples(*[st.floats(min_value=0.01, max_value=1e5)] * 4), min_size=1, max_size=6),
    st.floats(min_value=0.01, max_value=100),
    st.sampled_from([BLOCK, PAIR]),
)
def test_ratios_know_no_unit_and_mirror_with_the_arms(rows, factor, unit):
    found = log_ratios([Block(values=row) for row in rows], unit)
    scaled = log_ratios([Block(values=tuple(value * factor for value in row)) for row in rows], unit)
    exchanged = log_ratios([Block(values=row, order=BAAB) for row in rows], unit)
    assert scaled == pytest.approx(found, abs=1e-9)
    assert exchanged == pytest.approx(-found, abs=1e-9)


def test_orders_are_drawn_evenly_and_again_the_same():
    drawn = plan_orders(1000, seed=7)
    assert drawn == plan_orders(1000, seed=7)
    assert 440 < drawn.count(BAAB) < 560
    assert plan_orders(0, seed=7) == ()


def exact_p(sums, seen):
    """Twice the smaller tail in whole numbers: scipy lets rounding decide ties."""
    return min(1, 2 * min(sum(x >= seen for x in sums), sum(x <= seen for x in sums)) / len(sums))


@settings(deadline=None)
@given(differences)
def test_p_counts_all_sign_vectors_with_their_ties(values):
    whole = [round(value * 1e6) for value in values]
    signs = itertools.product((1, -1), repeat=len(whole))
    sums = [sum(sign * value for sign, value in zip(row, whole, strict=True)) for row in signs]
    assert permutation.of_differences(np.array(values)).p_two_sided() == pytest.approx(exact_p(sums, sum(whole)))


@settings(deadline=None, max_examples=40)
@given(differences, differences)
def test_the_unpaired_p_counts_all_splits_with_their_ties(one, other):
    one, other = one[:5], other[:5]
    whole = [round(value * 1e6) for value in one + other]
    sums = [sum(chosen) for chosen in itertools.combinations(whole, len(other))]
    expected = exact_p(sums, sum(whole[len(one) :]))
    assert permutation.of_two_groups(np.array(one), np.array(other)).p_two_sided() == pytest.approx(expected)


def test_without_ties_both_are_scipys_permutation_tests():
    rng = np.random.default_rng(8)
    first, second = rng.normal(0, 1, 7), rng.normal(1, 1, 6)
    paired = stats.permutation_test((first,), np.mean, permutation_type="samples", n_resamples=math.inf)
    assert permutation.of_differences(first).p_two_sided() == pytest.approx(paired.pvalue)
    unpaired = stats.permutation_test((second, first), lambda x, y: np.mean(x) - np.mean(y), n_resamples=math.inf)
    assert permutation.of_two_groups(first, second).p_two_sided() == pytest.approx(unpaired.pvalue)


@settings(deadline=None)
@given(differences, st.sampled_from([0.01, 0.05, 0.1, 0.3]))
def test_the_interval_leaves_out_exactly_what_the_test_rejects(values, level):
    array = np.array(values)
    inside = permutation.of_differences(array).interval(level)
    if inside is None:
        assert smallest_p(array.size) > level
        return
    low, high, confidence = inside
    assert confidence >= 1 - level
    for effect in (low - 1e-3, low + 1e-6, (low + high) / 2, high - 1e-6, high + 1e-3):
        kept = permutation.of_differences(array - effect).p_two_sided() > level
        assert kept == (low <= effect <= high) or high - low < 1e-5


def test_the_widest_interval_of_six_is_their_range():
    assert permutation.of_differences(np.array([1.0, 2, 3, 4, 5, 6])).interval(0.05) == (1, 6, 1 - 2 / 64)
    assert permutation.of_differences(np.array([1.0, 2, 3, 4, 5])).interval(0.05) is None


def test_drawn_sign_vectors_agree_with_all_of_them(monkeypatch):
    array = np.random.default_rng(2).normal(0.4, 1, 14)
    exact = permutation.of_differences(array)
    monkeypatch.setattr(permutation, "EXACT_DIFFERENCES", 10)
    drawn = permutation.of_differences(array)
    assert drawn.pieces <= 2 * permutation.DRAWN
    assert drawn.p_two_sided() == pytest.approx(exact.p_two_sided(), abs=0.01)
    assert drawn.interval(0.05)[:2] == pytest.approx(exact.interval(0.05)[:2], abs=0.05)


def test_a_drawn_p_is_never_zero():
    assert 0 < permutation.of_differences(np.full(30, 0.2)).p_two_sided() < 0.001


def test_no_difference_at_all_is_no_evidence():
    values = permutation.of_differences(np.zeros(8))
    assert values.p_two_sided() == 1
    assert values.interval(0.05)[:2] == (0, 0)


def test_many_unpaired_launches_are_drawn(monkeypatch):
    rng = np.random.default_rng(4)
    first, second = rng.normal(0, 1, 7), rng.normal(1, 1, 7)
    exact = permutation.of_two_groups(first, second)
    monkeypatch.setattr(permutation, "EXACT_SPLITS", 100)
    assert permutation.of_two_groups(first, second).p_two_sided() == pytest.approx(exact.p_two_sided(), abs=0.01)


@pytest.mark.parametrize(("count", "level"), [(6, 0.05), (7, 0.05), (8, 0.05), (8, 0.02), (10, 0.05), (12, 0.02)])
def test_the_minimum_detectable_effect_has_its_power(count, level):
    effect = minimum_detectable_log(count, 0.01, level=level, power=0.8)
    sessions = np.random.default_rng(count).normal(effect, 0.01, (600, count))
    found = np.mean([permutation.of_differences(session).p_two_sided() <= level for session in sessions])
    assert found == pytest.approx(0.8, abs=0.08)


def test_what_cannot_be_found_has_no_size():
    assert minimum_detectable_log(5, 0.01, level=0.05, power=0.8) is None
    assert minimum_detectable_log(8, None, level=0.05, power=0.8) is None
    assert minimum_detectable_log(8, 0.0, level=0.05, power=0.8) is None


def test_blocks_needed_are_the_fewest_that_find_the_effect():
    noise = 0.01 * math.sqrt(2)
    pairs, blocks = blocks_needed(1.5, noise, unit=PAIR), blocks_needed(1.5, 0.01, unit=BLOCK)
    assert (pairs, blocks) == (5, 7)
    for unit, count, sd in ((PAIR, 2 * pairs, noise), (BLOCK, blocks, 0.01)):
        per_block = 2 if unit == PAIR else 1
        enough = minimum_detectable_log(count, sd, level=0.05, power=0.8)
        too_few = minimum_detectable_log(count - per_block, sd, level=0.05, power=0.8)
        assert enough <= math.log(1.015)
        assert too_few is None or too_few > math.log(1.015)
    assert blocks_needed(20, 0.01, unit=PAIR) == 3
    assert blocks_needed(20, 0.01, unit=BLOCK) == 6


def test_blocks_needed_says_nothing_where_it_cannot():
    assert blocks_needed(1.5, None, unit=PAIR) is None
    assert blocks_needed(0.001, 0.5, unit=PAIR) is None
    for arguments in ({"unit": "launch"}, {"unit": PAIR, "level": 0}, {"unit": PAIR, "power": 1}):
        with pytest.raises(UsageError):
            blocks_needed(1.5, 0.01, **arguments)
    with pytest.raises(UsageError, match="above 0 %"):
        blocks_needed(0, 0.01, unit=PAIR)
