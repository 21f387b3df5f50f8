"""What the rules do when the truth is known; `pytest -s tests/test_measure_simulation.py` prints the table.

The model is that of the figures in the reference (measurement.md, "Comparing"): independent launches with a noise of
1 %, a drift that grows evenly over the session by 0, 3 or 6 % in all, and a true effect of 0 or 3 %. The reference says
that it compared 6 with 6 launches, but its figures are near those of 8 with 8, printed beside it: 6 with 6 raise fewer
false alarms in the order A...AB...B (56 % under 3 % drift, not 72 %) and find less in A-B-B-A (.88, not .995).
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from bench.stats.blocks import ABBA, BAAB, BLOCK, PAIR, Block, log_ratios, plan_orders
from rich.console import Console
from rich.table import Table
from scipy import stats

from bench.stats import permutation
from bench.stats.sequential import Plan, compare_blocks, decide
from bench.stats.spread import launch_spread
from bench.stats.summary import PRECISION_MINIMUM, known_well_enough, median_interval
from bench.stats.unpaired import HistoryNoise, compare_launches

NOISE = 0.01
ALPHA = 0.05
SESSIONS = 2000
ROWS = []


@pytest.fixture(scope="module", autouse=True)
def report():
    ROWS.clear()
    yield
    table = Table(
        "rule", "launches", "condition", "false alarms %", "power at +3 % in %", "reference", title="simulated"
    )
    for row in ROWS:
        table.add_row(*row)
    Console(width=150).print(table)


def rate(found):
    return float(np.mean(found))


def binomial(expected, count=SESSIONS):
    """Four standard errors: one assertion in 16,000 fails by chance, and the seeds are fixed anyway."""
    return 4 * math.sqrt(max(expected * (1 - expected), 1 / count) / count)


def shown(value, count=SESSIONS):
    return f"{value * 100:.1f} +- {binomial(value, count) / 2 * 100:.1f}"


def sessions(order, *, drift=0.0, effect=0.0, seed=0, count=SESSIONS, curve=None):
    """Durations of shape (count, launches); ``order`` one string, or one for each session."""
    orders = [order] * count if isinstance(order, str) else order
    candidate = np.array([[arm == "B" for arm in row] for row in orders])
    launches = candidate.shape[1]
    place = np.linspace(0, 1, launches) * drift if curve is None else curve(np.arange(launches))
    noise = np.random.default_rng(seed).normal(0, NOISE, candidate.shape)
    return 230 * (1 + effect * candidate) * (1 + place) * np.exp(noise), candidate


def mann_whitney(order, **conditions):
    durations, candidate = sessions(order, **conditions)
    mask = candidate[0]
    return stats.mannwhitneyu(durations[:, mask], durations[:, ~mask], axis=1, method="exact").pvalue < ALPHA


def as_blocks(row, orders=None):
    values = row.reshape(-1, 4)
    return [
        Block(values=tuple(part), order=order)
        for part, order in zip(values, orders or [ABBA] * len(values), strict=True)
    ]


def sign_flip(blocks, unit, **conditions):
    durations, _ = sessions(ABBA * blocks, **conditions)
    return np.array(
        [permutation.of_differences(log_ratios(as_blocks(row), unit)).p_two_sided() <= ALPHA for row in durations]
    )


def rule(plan, **conditions):
    durations, _ = sessions(ABBA * plan.max_blocks, **conditions)
    return [decide(as_blocks(row), plan).comparison for row in durations]


def won(comparisons):
    return np.array([found.verdict in {"faster", "slower"} for found in comparisons])


@pytest.mark.parametrize(
    ("launches", "drift", "expected", "reference"),
    [
        (6, 0, 0.041, "5.7 %"),
        (6, 0.03, 0.563, "71.8 %"),
        (6, 0.06, 0.952, "99.2 %"),
        (8, 0.03, 0.749, "71.8 %"),
        (8, 0.06, 0.998, "99.2 %"),
    ],
)
def test_all_of_one_arm_first_makes_winners_out_of_drift(launches, drift, expected, reference):
    """The reference's figures are nearer to 8 against 8 than to the 6 against 6 that it names."""
    alarms = rate(mann_whitney("A" * launches + "B" * launches, drift=drift))
    row = (f"all A, then all B; rank test, {launches} + {launches}", str(2 * launches))
    ROWS.append((*row, f"drift {drift:.0%}", shown(alarms), "-", reference))
    assert alarms == pytest.approx(expected, abs=binomial(expected))


@pytest.mark.parametrize(
    ("blocks", "drift", "expected", "reference"),
    [(3, 0.03, 0.911, ".98"), (3, 0.06, 0.408, ".77"), (4, 0.03, 0.993, ".98"), (4, 0.06, 0.812, ".77")],
)
def test_an_abba_session_that_is_pooled_wastes_its_pairing(blocks, drift, expected, reference):
    alarms = rate(mann_whitney(ABBA * blocks, drift=drift))
    power = rate(mann_whitney(ABBA * blocks, drift=drift, effect=0.03))
    ROWS.append(
        ("ABBA, pooled rank test", str(4 * blocks), f"drift {drift:.0%}", shown(alarms), shown(power), reference)
    )
    assert alarms < 0.02
    assert power == pytest.approx(expected, abs=binomial(expected))


@pytest.mark.parametrize("drift", [0, 0.03, 0.06])
@pytest.mark.parametrize(("blocks", "most", "power_least"), [(3, 2 / 64, 0.8), (4, 12 / 256, 0.97)])
def test_abba_blocks_as_pairs_keep_alpha_and_find_three_percent(blocks, most, power_least, drift):
    """Six signs have p = 2/64, 4/64, ..., so p < .05 is 3.1 % of them and not 5; eight have 12/256 = 4.7 %."""
    alarms = rate(sign_flip(blocks, PAIR, drift=drift))
    power = rate(sign_flip(blocks, PAIR, drift=drift, effect=0.03))
    reference = {0: "5.0 %, .995", 0.03: "5.5 %, .995", 0.06: "3.5 %, .995"}[drift]
    row = (f"ABBA, sign-flip of {2 * blocks} pairs", str(4 * blocks), f"drift {drift:.0%}")
    ROWS.append((*row, shown(alarms), shown(power), reference))
    assert alarms <= most + binomial(most)
    assert drift or alarms == pytest.approx(most, abs=binomial(most))
    assert power > power_least


def test_three_whole_blocks_can_never_name_a_winner_and_six_can():
    assert not sign_flip(3, BLOCK, effect=0.2, count=50).any()
    for drift in (0, 0.06):
        alarms, power = rate(sign_flip(6, BLOCK, drift=drift)), rate(sign_flip(6, BLOCK, drift=drift, effect=0.03))
        ROWS.append(("ABBA, sign-flip of 6 blocks", "24", f"drift {drift:.0%}", shown(alarms), shown(power), "-"))
        assert alarms == pytest.approx(2 / 64, abs=binomial(2 / 64))
        assert power > 0.98


@pytest.mark.parametrize("drift", [0, 0.03, 0.06])
@pytest.mark.parametrize("plan", [Plan(max_blocks=6), Plan(max_blocks=12, unit=BLOCK)], ids=["pairs", "blocks"])
def test_the_sequential_rule_keeps_alpha_over_all_looks_and_finds_three_percent(plan, drift):
    count = 500
    still = rule(plan, drift=drift, count=count)
    moved = rule(plan, drift=drift, effect=0.03, count=count, seed=1)
    alarms, power = rate(won(still)), rate(won(moved))
    used = np.mean([4 * found.blocks for found in moved])
    ROWS.append((
        f"sequential rule, {plan.unit}s", f"{used:.1f} of {4 * plan.max_blocks}", f"drift {drift:.0%}",
        shown(alarms, count), shown(power, count), "3.5-5.5 %, .995",
    ))  # fmt: skip
    assert alarms <= ALPHA + binomial(ALPHA, count)
    assert power > 0.98
    assert all(found.verdict != "faster" for found in moved)


def test_the_sequential_rule_uses_all_of_alpha_where_nothing_can_be_the_same():
    count = 600
    alarms = rate(won(rule(Plan(max_blocks=6, margin_percent=0), count=count, seed=6)))
    ROWS.append(("sequential rule, pairs, no margin", "24", "drift 0%", shown(alarms, count), "-", "-"))
    assert alarms == pytest.approx(ALPHA, abs=binomial(ALPHA, count))


def test_the_naive_peek_after_each_block_is_what_the_rule_prevents():
    durations, _ = sessions(ABBA * 8, count=500)
    peeks = np.array(
        [
            [compare_blocks(as_blocks(row[: 4 * look]), margin_percent=0).p <= ALPHA for look in range(3, 9)]
            for row in durations
        ]
    )
    alarms = rate(peeks.any(axis=1))
    ROWS.append(
        ("ABBA pairs, a peek at p <= .05 after each block", "12 to 32", "drift 0%", shown(alarms, 500), "-", "-")
    )
    assert alarms > 0.08


def test_same_is_seldom_said_of_an_effect_as_large_as_the_margin():
    count = 500
    found = rule(Plan(), effect=0.015, count=count, seed=2)
    wrongly = rate([comparison.verdict == "same" for comparison in found])
    ROWS.append(
        ("sequential rule: same, though the effect is 1.5 %", "up to 32", "drift 0%", shown(wrongly, count), "-", "-")
    )
    assert wrongly <= ALPHA / 2 + binomial(ALPHA / 2, count)
    beyond = rule(Plan(), effect=0.02, count=count, seed=3)
    assert rate([comparison.verdict == "same" for comparison in beyond]) < 0.01


def test_the_repeated_interval_covers_the_truth():
    covered = [
        found.interval.low_ratio <= 1.01 <= found.interval.high_ratio
        for found in rule(Plan(), effect=0.01, count=500, seed=4)
        if found.interval is not None
    ]
    assert rate(covered) >= 1 - ALPHA - binomial(ALPHA, 500)


def test_blocks_that_each_begin_cold_need_drawn_orders():
    """After a pause the first launch of each block is 2 % slower: with A-B-B-A throughout that is always a baseline."""

    def cold(place):
        return 0.02 * (place % 4 == 0)

    count = 500
    drawn = [plan_orders(6, seed=seed) for seed in range(count)]
    durations, _ = sessions(ABBA * 6, curve=cold, count=count)
    mixed, _ = sessions(["".join(orders) for orders in drawn], curve=cold, count=count)

    def alarms(rows, orders, unit):
        p = [
            permutation.of_differences(log_ratios(as_blocks(row, order), unit)).p_two_sided()
            for row, order in zip(rows, orders, strict=True)
        ]
        return rate(np.array(p) <= ALPHA)

    for unit in (BLOCK, PAIR):
        always, draws = alarms(durations, [None] * count, unit), alarms(mixed, drawn, unit)
        ROWS.append((f"sign-flip of {unit}s, all A-B-B-A", "24", "blocks begin cold", shown(always, count), "-", "-"))
        ROWS.append((f"sign-flip of {unit}s, orders drawn", "24", "blocks begin cold", shown(draws, count), "-", "-"))
        assert always > 0.3
        assert draws <= ALPHA + binomial(ALPHA, count)
    assert {order for orders in drawn for order in orders} == {ABBA, BAAB}


def test_requests_counted_as_if_they_were_launches_make_winners():
    """Two launches of each arm with five requests each: noise of 1 % between launches, 0.3 % within them."""
    rng = np.random.default_rng(9)
    launches = rng.normal(0, NOISE, (SESSIONS, 4, 1)) + rng.normal(0, 0.003, (SESSIONS, 4, 5))
    pooled = stats.mannwhitneyu(
        launches[:, :2].reshape(SESSIONS, 10), launches[:, 2:].reshape(SESSIONS, 10), axis=1, method="exact"
    )
    alarms = rate(pooled.pvalue < ALPHA)
    ROWS.append(("requests pooled as if independent, rank test", "2 + 2", "5 requests each", shown(alarms), "-", "-"))
    assert alarms > 0.3
    medians = 230 * np.exp(np.median(launches, axis=2))
    assert all(compare_launches(row[:2], row[2:]).verdict == "inconclusive" for row in medians[:50])


def test_unpaired_launches_keep_alpha_without_drift():
    rng = np.random.default_rng(10)
    durations = 230 * np.exp(rng.normal(0, NOISE, (SESSIONS, 10)))
    still = rate(won([compare_launches(row[:5], row[5:]) for row in durations]))
    moved = rate(won([compare_launches(row[:5], row[5:] * 1.03) for row in durations]))
    ROWS.append(("unpaired launches, permutation", "5 + 5", "drift 0%", shown(still), shown(moved), "-"))
    assert still == pytest.approx(12 / 252, abs=binomial(ALPHA))
    assert moved > 0.9


@pytest.mark.parametrize(("between", "within"), [(0.003, 0.02), (0.02, 0.003), (0.01, 0.01)])
@pytest.mark.parametrize("requests", [1, 3])
def test_a_calibrated_noise_names_no_winner_where_there_is_none(between, within, requests):
    """Calibrate as the task does (four launches of three requests), then one launch against one of the same arm."""
    rng = np.random.default_rng((14, requests, round(1e4 * between)))

    def launch(count):
        return 230 * np.exp(rng.normal(0, between) + rng.normal(0, within, count))

    found = []
    while len(found) < 400:
        spread = launch_spread([launch(3) for _ in range(4)])
        if spread.between_percent is None:
            continue  # nothing is kept
        known = HistoryNoise(
            between_launch_percent=spread.between_percent, within_launch_percent=spread.within_percent, launches=4
        )
        sides = [[float(np.median(launch(requests)))] for _ in "AA"]
        found.append(compare_launches(*sides, history=known, requests=(requests, requests)))
    alarms = rate(won(found))
    row = f"calibrated, noise {between:.1%} between and {within:.1%} within", f"1 + 1 of {requests}"
    ROWS.append((*row, "drift 0%", shown(alarms, len(found)), "-", "-"))
    assert alarms <= ALPHA + binomial(ALPHA, len(found))


def test_the_median_interval_covers_the_median():
    rng = np.random.default_rng(11)
    for n in (8, 20):
        count = 400
        intervals = [median_interval(230 * np.exp(rng.normal(0, NOISE, n)))[0] for _ in range(count)]
        covered = rate([found.low <= 230 <= found.high for found in intervals])
        ROWS.append(
            (f"95 % interval of the median, {n} samples, misses it", "1", "-", shown(1 - covered, count), "-", "-")
        )
        assert covered > 0.88


def test_stopping_at_a_wanted_precision_costs_some_of_its_confidence():
    count = 120
    missed = []
    for seed in range(count):
        samples = 230 * np.exp(np.random.default_rng((12, seed)).normal(0, NOISE, 60))
        n = next(n for n in range(PRECISION_MINIMUM, 61) if n == 60 or known_well_enough(samples[:n], 0.005).reached)
        interval, _ = median_interval(samples[:n])
        missed.append(not interval.low <= 230 <= interval.high)
    ROWS.append(
        ("95 % interval when --precision 0.5 % stops, misses it", "1", "-", shown(rate(missed), count), "-", "-")
    )
    assert rate(missed) == pytest.approx(0.12, abs=binomial(0.12, count))
