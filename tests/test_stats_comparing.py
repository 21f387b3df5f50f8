from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from bench import schema
from bench.errors import UsageError
from bench.stats import comparison, levels, pairs, planning, sequential
from bench.stats.sequential import LaunchNoise, Plan, decide, one_pair
from bench.stats.unpaired import Circumstances, DayNoise, compare_launches

BEFORE = [230.0, 231.0, 229.5, 230.4]
TIES = ((100, 100, 101, 99), (100, 100, 100, 101), (100, 100, 100, 101), (99, 100, 100, 100))
"""Values in ticks of 1 % that once were called faster at p = .125: the interval ended at exactly zero."""


# --- pairs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [[], [0.0], [None], [math.nan], [-230.0], [math.inf]])
def test_a_missing_or_zero_side_is_an_error_and_never_a_change_of_100_percent(bad):
    with pytest.raises(UsageError, match="baseline"):
        pairs.log_ratio(bad, BEFORE)
    with pytest.raises(UsageError, match="candidate"):
        compare_launches(BEFORE, bad, Circumstances())


@pytest.mark.parametrize("seed", range(5))
def test_orders_are_balanced_wherever_a_session_stops(seed):
    orders = pairs.plan_orders(9, seed=seed)
    for count in range(1, 10):
        assert abs(orders[:count].count("AB") - orders[:count].count("BA")) <= 1


def test_orders_are_drawn_and_repeat_with_their_seed():
    assert len({pairs.plan_orders(8, seed=seed) for seed in range(20)}) > 5
    assert pairs.plan_orders(8, seed=1) == pairs.plan_orders(8, seed=1)
    assert pairs.fresh_seed() != pairs.fresh_seed()


def test_a_drift_over_the_turns_of_a_pair_cancels():
    turns = pairs.turns("AB", 4)
    places = {arm: [place for place, letter in enumerate(turns) if letter == arm] for arm in "AB"}
    assert sum(places["A"]) == sum(places["B"])


def test_differences_that_follow_each_other_are_called_dependent():
    assert pairs.dependent(np.linspace(0, 1, 12) + 0.01 * np.arange(12) % 3)
    assert not pairs.dependent(np.array([0.1, -0.1] * 6))
    assert not pairs.dependent(np.zeros(12))


# --- sessions ---------------------------------------------------------------------------------------------------------


def test_values_in_ticks_that_tie_at_zero_name_no_winner():
    ratios = [math.log((row[1] + row[2]) / (row[0] + row[3])) for row in TIES]
    assert decide(ratios, Plan(max_pairs=4)).comparison.verdict in {"same", "inconclusive"}
    ended_at_zero = comparison.LogInterval(low=-0.02, high=-1e-17, confidence=0.95)
    assert comparison.classify(ended_at_zero, 1.5) == "inconclusive"


def test_two_pairs_decide_nothing():
    decision = decide([0.5, 0.51], Plan())
    assert (decision.stop, decision.comparison.interval) == (False, None)


def test_equal_pairs_have_no_known_spread():
    decision = decide([0.2] * 8, Plan())
    assert decision.comparison.verdict == "inconclusive"
    assert "the clock is too coarse" in decision.comparison.reason
    assert decision.comparison.planning is None


@pytest.mark.parametrize("sign", [1, -1])
def test_a_winner_leads_with_the_near_end_and_has_no_planning_figure(sign):
    told = decide([sign * value for value in (0.030, 0.031, 0.029, 0.0305)], Plan(metric="denoise time")).comparison
    word = "slower" if sign > 0 else "faster"
    assert told.reason.startswith(
        f"denoise time: {word} by at least {math.floor(100 * told.at_least_percent) / 100:.2f} % (estimate "
    )
    assert "). The estimate is likely too large: the session stopped early. " in told.reason
    assert told.reason.endswith(f"Shows at least 1.5 %: {'yes' if told.shows_margin else 'no'}")
    assert told.planning is None
    assert told.at_least_percent < abs(told.effect_percent)
    assert schema.violations(comparison.to_document(told), "comparison") == []


@pytest.mark.parametrize(("differences", "verdict"), [((-0.05, -0.051, -0.052), "faster"), ((0.001, 0.0, 0.0), "same")])
def test_under_disturbance_a_verdict_claims_no_size(differences, verdict):
    told = decide(differences, Plan(is_disturbed=True, margin_percent=3)).comparison
    assert (told.verdict, told.at_least_percent, told.shows_margin) == (verdict, None, False)
    assert "at least" not in told.reason
    assert told.reason.endswith("No size is claimed under disturbance: measure again when nothing else runs here")
    words = comparison.in_words(comparison.to_document(told))
    assert words.startswith(f"{verdict}: ")
    assert words.endswith(" %, under disturbance")
    assert schema.violations(comparison.to_document(told), "comparison") == []


def test_less_than_the_margin_is_no_claim_of_the_margin():
    """In logs 1.49 % less is as far from zero as 1.51 % more, which would read: at least 1.49 %, so at least 1.5 %."""
    inside = comparison.LogInterval(low=-0.03, high=math.log(1 - 0.0149), confidence=0.95)
    basis = comparison.Basis(
        metric="total time", method="none", unit="pair", units=3, baseline_launches=3, candidate_launches=3
    )
    told = comparison.conclude(basis, -0.02, inside)
    assert (told.verdict, told.shows_margin) == ("faster", False)
    assert "at least 1.49 %" in told.reason


@pytest.mark.parametrize(
    ("ends", "printed"),
    [
        ((-2.8341, -1.4977), "-2.84 to -1.49 %"),
        ((1.4977, 2.8341), "+1.49 to +2.84 %"),
        ((-2.0, -0.00004), "-2.00 to -0.00004 %"),
        ((-0.5, 0.0), "-0.50 to +0.00 %"),
        ((-0.0, 1.5), "+0.00 to +1.50 %"),
    ],
)
def test_a_printed_interval_holds_what_was_computed(ends, printed):
    """Rounded to the nearest, the first would read: at least 1.50 %, shows at least 1.5 %: no."""
    assert comparison.limits(*ends) == printed


def test_an_open_session_says_how_many_pairs_it_takes_with_a_range():
    told = decide([0.02, -0.02, 0.03, -0.01, 0.0, 0.025, -0.03, 0.01], Plan()).comparison
    assert told.verdict == "inconclusive"
    assert told.planning.low < told.planning.likely < told.planning.high
    assert "show an effect of 1.5 % in 8 of 10 sessions" in told.reason
    assert schema.violations(comparison.to_document(told), "comparison") == []


def test_pairs_after_the_deciding_look_are_not_used():
    values = [0.030, 0.031, 0.029, 0.0305]
    first = next(count for count in range(3, 5) if decide(values[:count], Plan()).stop)
    assert decide([*values, -0.5], Plan()).comparison == decide(values[:first], Plan()).comparison


def test_more_pairs_than_planned_are_refused():
    with pytest.raises(UsageError, match="9 pairs"):
        decide([0.1] * 9, Plan())


def test_the_looks_spend_no_more_than_five_percent():
    levels_ = sequential.levels(8)
    assert min(levels_) == 3
    assert max(levels_.values()) < comparison.ALPHA < sum(levels_.values())


def test_planning_agrees_with_the_t_test():
    assert planning.needed(math.log1p(0.03), 0.02, groups=1) == 6  # G*Power: n = 6 for d = 1.478, two-sided, 80 %
    assert planning.needed(1e-6, 1.0, groups=1) is None


# --- one pair ---------------------------------------------------------------------------------------------------------

ROUNDS = (0.02, 0.021, 0.019, 0.0205)
EFFECT = 0.0203
"""The log ratio of the medians, which is not the mean of the rounds."""


def test_one_pair_alone_names_no_winner():
    told = one_pair(EFFECT, ROUNDS, Plan(), None)
    assert (told.verdict, told.exit_code) == ("inconclusive", 9)
    first, second, _ = told.reason.split(". ")
    assert first == "total time: observed +2.05 %, and its spread is unknown"
    assert second.startswith("The requests of these two starts alone give a 95 % interval of +1.9")


@pytest.mark.parametrize(("sd", "verdict"), [(0.1, "slower"), (1.0, "inconclusive")])
def test_one_pair_holds_the_spread_between_launches(sd, verdict):
    told = one_pair(EFFECT, ROUNDS, Plan(), LaunchNoise(sd_percent=sd, launches=8, requests=4))
    assert told.verdict == verdict


def test_fewer_requests_than_were_calibrated_add_their_noise():
    noise = LaunchNoise(sd_percent=0.5, launches=4, requests=4, within_percent=1.0)
    assert noise.sd_of_launch(8) == noise.sd_of_launch(4) < noise.sd_of_launch(1)


# --- launches measured apart ------------------------------------------------------------------------------------------


def test_one_against_one_is_inconclusive_and_says_what_it_shows():
    told = compare_launches([230.0], [345.0], Circumstances())
    assert (told.verdict, told.exit_code, told.method, told.interval) == ("inconclusive", 9, "none", None)
    assert "+50.00 %" in told.reason


def test_two_launches_each_decide_nothing_without_calibration():
    told = compare_launches([100.0, 100.1], [150.0, 150.1], Circumstances())
    assert told.verdict == "inconclusive"
    noise = LaunchNoise(sd_percent=0.5, launches=6)
    assert compare_launches([100.0, 100.1], [150.0, 150.1], Circumstances(noise=noise)).method == "calibrated"


def test_230_to_345_ms_is_slower_with_four_launches_each():
    told = compare_launches(BEFORE, [value * 1.5 for value in BEFORE], Circumstances())
    assert (told.verdict, told.exit_code, told.method) == ("slower", 7, "welch-t")
    assert schema.violations(comparison.to_document(told), "comparison") == []


@pytest.mark.parametrize(("days", "verdict"), [(None, "inconclusive"), (DayNoise(sd_percent=0.5, records=5), "slower")])
def test_other_days_decide_only_if_their_spread_is_known(days, verdict):
    known = Circumstances(apart="24.0 hours", days=days)
    told = compare_launches(BEFORE, [value * 1.5 for value in BEFORE], known)
    assert told.verdict == verdict
    assert ("The two were measured apart (24.0 hours)" in told.reason) is (days is None)


# --- levels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([100, 101, 99, 100, 110, 111, 109, 110], []),
        ([100, 101, 99, 100, 101, 100, 110, 111, 109, 110, 111, 110], [6]),
        ([100.0] * 12, []),
        ([100.0] * 6 + [120.0] * 6, [6]),
        ([100, 101, 99, 100, 101, 100, 99, 101, 100, 99, 130, 100, 101, 99], []),
    ],
    ids=["too few", "a step", "all equal", "a step of equal values", "one outlier"],
)
def test_a_new_level_is_found_and_noise_is_not(values, expected):
    assert levels.change_points(values) == expected


def test_no_other_partition_of_a_series_costs_less():
    """All partitions of twelve values into segments of three and more are looked at."""
    draw = np.random.default_rng(5)
    for penalty in (0.01, 0.1, 1.0):
        values = draw.normal(0, 0.1, 12) + np.repeat(draw.normal(0, 0.5, 4), 3)
        partitions = [
            places
            for count in range(4)
            for places in itertools.combinations(range(1, 12), count)
            if min(np.diff([0, *places, 12])) >= 3
        ]
        costs = {
            places: sum(segment.var() * segment.size for segment in np.split(values, places)) + penalty * len(places)
            for places in partitions
        }
        assert tuple(levels._partition(values, penalty)) == min(costs, key=costs.get)


def test_the_p_of_a_change_is_that_of_welchs_test():
    values = np.random.default_rng(6).normal(0, 1, 30)
    values[12:] += 1.0
    residuals = values - np.repeat([values[:12].mean(), values[12:].mean()], [12, 18])
    correlation = max(0.0, float((residuals[1:] * residuals[:-1]).sum() / (residuals**2).sum()))
    deviations = [
        math.sqrt(side.var(ddof=1) * (1 + correlation) / (1 - correlation)) for side in (values[:12], values[12:])
    ]
    expected = stats.ttest_ind_from_stats(
        values[:12].mean(), deviations[0], 12, values[12:].mean(), deviations[1], 18, equal_var=False
    )
    assert levels._p_values(values, [12], 0.0)[0] == pytest.approx(expected.pvalue)


@pytest.mark.timeout(120)
def test_five_thousand_records_are_searched_for_levels():
    """It takes a tenth of a second; a search in Python took minutes."""
    values = [100 + 0.1 * (place % 3) + (20 if place >= 3000 else 0) for place in range(5000)]
    assert levels.change_points(values) == [3000]


def test_launches_at_two_levels_are_named():
    told = levels.two_levels([9.15, 5.78, 9.2, 5.8, 9.1, 5.75])
    assert (told.low_count, told.high_count) == (3, 3)
    assert (told.low, told.high) == (5.78, 9.15)


@pytest.mark.parametrize("values", [[100.0], [100, 101, 99, 100, 102], [100, 100, 100, 150], [100.0] * 6])
def test_one_level_is_not_two(values):
    assert levels.two_levels(values) is None
