from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import schema
from bench.errors import Inconclusive, ThresholdMissed, UsageError
from bench.stats import comparison, permutation
from bench.stats.blocks import BAAB, BLOCK, PAIR, Block, log_ratios
from bench.stats.sequential import Plan, compare_blocks, decide, planned_looks, spent

OTHER = {"faster": "slower", "slower": "faster", "same": "same", "inconclusive": "inconclusive"}


def session(count, effect=0.0, noise=0.01, seed=0):
    rng = np.random.default_rng(seed)
    candidate = np.array([1, 1 + effect, 1 + effect, 1])
    return [Block(values=tuple(230 * candidate * np.exp(rng.normal(0, noise, 4)))) for _ in range(count)]


def exchanged(blocks):
    return [replace(block, order=BAAB) for block in blocks]


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan(max_blocks=0), "at least 1 block"),
        (Plan(alpha=0), "alpha"),
        (Plan(power=1.5), "power"),
        (Plan(margin_percent=math.nan), "margin"),
        (Plan(spending=0), "spending"),
        (Plan(unit="launch"), "'launch'"),
        (Plan(looks=()), "rising"),
        (Plan(looks=(4, 4, 8)), "rising"),
        (Plan(looks=(0, 8)), "rising"),
        (Plan(looks=(4, 6)), "the last look is after the last block, 8, not 6"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(plan, message):
    with pytest.raises(UsageError, match=message):
        decide(session(4), plan)


def test_no_block_and_too_many_are_refused():
    with pytest.raises(UsageError, match="no block"):
        decide([], Plan())
    with pytest.raises(UsageError, match="no block"):
        compare_blocks([])
    with pytest.raises(UsageError, match="9 blocks where 8 were planned"):
        decide(session(9), Plan())


@pytest.mark.parametrize(
    ("plan", "looks"),
    [
        (Plan(), (4, 5, 6, 7, 8)),
        (Plan(max_blocks=3), (3,)),
        (Plan(max_blocks=2), (2,)),
        (Plan(max_blocks=12, unit=BLOCK), (7, 8, 9, 10, 11, 12)),
        (Plan(max_blocks=40, unit=BLOCK), (8, 12, 15, 19, 22, 26, 29, 33, 36, 40)),
        (Plan(looks=(2, 8)), (2, 8)),
    ],
)
def test_looks_start_where_something_can_be_decided(plan, looks):
    assert planned_looks(plan) == looks


@pytest.mark.parametrize("unit", [PAIR, BLOCK])
def test_too_few_blocks_decide_nothing_however_large_the_effect(unit):
    found = compare_blocks(session(2, effect=0.5), unit=unit)
    assert (found.verdict, found.exit_code) == ("inconclusive", 9)
    assert (found.interval, found.p_needed, found.mde_percent) == (None, None, None)
    assert "exclude nothing" in found.reason
    assert found.effect_percent == pytest.approx(50, abs=3)


@pytest.mark.parametrize(
    ("effect", "expected", "code"), [(0.03, "slower", 7), (-0.03, "faster", 0), (0.2, "slower", 7), (-0.2, "faster", 0)]
)
def test_an_effect_is_found_with_its_size(effect, expected, code):
    decision = decide(session(8, effect=effect), Plan())
    found = decision.comparison
    assert decision.stop
    assert (found.verdict, found.exit_code) == (expected, code)
    assert found.interval.low_percent <= effect * 100 <= found.interval.high_percent
    assert found.p <= found.p_needed
    assert "decided at look 1 of 5, after 4 of 8 blocks; 4 later blocks are not used" in decision.why
    assert (found.blocks, found.differences, found.baseline_launches, found.candidate_launches) == (4, 8, 8, 8)


def test_quiet_arms_that_are_alike_are_the_same():
    found = decide(session(4, noise=0.002), Plan()).comparison
    assert (found.verdict, found.exit_code) == ("same", 0)
    assert "inside the margin of 1.5 %" in found.reason


def test_a_real_difference_inside_the_margin_is_the_same_and_is_told():
    found = decide(session(4, effect=0.005, noise=0.001), Plan()).comparison
    assert found.verdict == "same"
    assert found.interval.low_ratio > 1
    assert "there is a difference, but" in found.reason


def test_without_a_margin_nothing_is_the_same():
    found = compare_blocks(session(6, noise=0.002), margin_percent=0)
    assert found.verdict == "inconclusive"
    assert found.needed is None


def test_noise_is_inconclusive_and_says_what_would_decide():
    decision = decide(session(8, noise=0.05, seed=3), Plan())
    assert (decision.stop, decision.next_look) == (True, None)
    assert decision.why == "all 8 blocks are measured and the question is open"
    found = decision.comparison
    assert (found.verdict, found.exit_code) == ("inconclusive", Inconclusive.exit_code)
    assert found.mde_percent > 3
    assert found.needed > 8
    assert f"1.5 % needs about {found.needed} blocks" in found.reason


def test_an_undecided_session_goes_on():
    first = decide(session(3, effect=0.2), Plan())
    assert (first.stop, first.next_look) == (False, 4)
    second = decide(session(5, noise=0.05, seed=3), Plan())
    assert (second.stop, second.next_look) == (False, 6)
    assert second.why == "not decided after 5 blocks; the next look is after 6"


@pytest.mark.parametrize("unit", [PAIR, BLOCK])
def test_identical_durations_are_the_same(unit):
    found = decide([Block(values=(230, 230, 230, 230))] * 8, Plan(unit=unit)).comparison
    assert (found.verdict, found.p, found.noise_percent) == ("same", 1, 0)
    assert found.mde_percent is None  # so few samples cannot know that there is no noise


def test_the_same_difference_each_time_is_found():
    found = decide([Block(values=(230, 345, 345, 230))] * 4, Plan()).comparison
    assert (found.verdict, found.exit_code) == ("slower", ThresholdMissed.exit_code)
    assert found.ratio == pytest.approx(1.5)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(min_value=1, max_value=8),
    st.floats(min_value=-0.05, max_value=0.05),
    st.floats(min_value=0.0005, max_value=0.03),
    st.integers(min_value=0, max_value=1000),
    st.sampled_from([PAIR, BLOCK]),
)
def test_exchanging_the_arms_mirrors_everything(count, effect, noise, seed, unit):
    blocks = session(count, effect, noise, seed)
    one, other = decide(blocks, Plan(unit=unit)), decide(exchanged(blocks), Plan(unit=unit))
    assert other.comparison.verdict == OTHER[one.comparison.verdict]
    assert other.comparison.ratio == pytest.approx(1 / one.comparison.ratio)
    assert other.comparison.p == pytest.approx(one.comparison.p)
    assert (other.stop, other.next_look) == (one.stop, one.next_look)
    if one.comparison.interval is not None:
        assert other.comparison.interval.low_ratio == pytest.approx(1 / one.comparison.interval.high_ratio)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(min_value=1, max_value=8),
    st.floats(min_value=-0.05, max_value=0.05),
    st.floats(min_value=0.0005, max_value=0.03),
    st.integers(min_value=0, max_value=1000),
    st.sampled_from([Plan(), Plan(unit=BLOCK, alpha=0.2), Plan(spending=3), Plan(looks=(3, 8)), Plan(max_blocks=20)]),
)
def test_verdict_interval_and_p_never_contradict_each_other(count, effect, noise, seed, plan):
    found = decide(session(count, effect, noise, seed), plan).comparison
    if found.interval is None:
        assert found.verdict == "inconclusive"
        return
    assert (found.p <= found.p_needed) == (not found.interval.low_ratio <= 1 <= found.interval.high_ratio)
    if found.verdict in {"faster", "slower"}:
        assert found.p <= found.p_needed
    assert found.p_needed <= plan.alpha * (1 + 1e-9)


@pytest.mark.parametrize("plan", [Plan(max_blocks=6), Plan(spending=2), Plan(max_blocks=16, unit=BLOCK)])
def test_of_all_sign_vectors_no_more_than_alpha_ever_name_a_winner(plan):
    """The promise itself, by enumeration: every sign vector of one session goes through the whole rule."""
    plan = replace(plan, margin_percent=0, looks=(*planned_looks(plan)[:2], plan.max_blocks))
    blocks = session(plan.max_blocks, seed=5)
    differences = np.abs(log_ratios(blocks, plan.unit))
    per_block = differences.size // len(blocks)
    size = 2**differences.size
    rejected = np.zeros(size, dtype=bool)
    for look in planned_looks(plan):
        used = differences[: per_block * look]
        sums = np.abs(permutation.signed_sums(differences, used.size))
        found = decide(blocks[:look], plan)
        assert (found.comparison.blocks, found.comparison.verdict) == (look, "inconclusive")
        level = found.comparison.p_needed
        one_look = np.sort(np.abs(permutation.signed_sums(used, used.size)))
        p = 1 - np.searchsorted(one_look, sums - 1e-12) / one_look.size
        rejected |= p <= level + 1e-12
        assert rejected.mean() <= spent(plan, look) + 1e-12
    assert 0.8 * plan.alpha < rejected.mean() <= plan.alpha + 1e-12


def test_sessions_beyond_the_exact_limit_are_decided_alike(monkeypatch):
    plan = Plan(max_blocks=8)
    sessions = [session(8, effect, seed=seed) for seed in range(15) for effect in (0.0, 0.012)]
    exact = [decide(blocks, plan).comparison for blocks in sessions]
    monkeypatch.setattr(permutation, "EXACT_DIFFERENCES", 11)
    drawn = [decide(blocks, plan).comparison for blocks in sessions]
    agreed = [pair for pair in zip(exact, drawn, strict=True) if pair[0].blocks == pair[1].blocks]
    assert len(agreed) >= 28
    assert all(one.verdict == other.verdict for one, other in agreed)
    assert all(other.p == pytest.approx(one.p, abs=0.01) for one, other in agreed)


@pytest.mark.parametrize(
    "blocks", [session(2), session(4, 0.03), session(4, -0.03), session(4, noise=0.002), session(8, noise=0.05)]
)
def test_every_comparison_keeps_its_schema(blocks):
    document = json.loads(json.dumps(comparison.to_document(decide(blocks, Plan()).comparison), allow_nan=False))
    assert schema.violations(document, "comparison") == []
    assert document["effect"]["percent"] == pytest.approx((document["effect"]["ratio"] - 1) * 100)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"exit_code": 0}, "$.exit_code"),
        ({"verdict": "faster"}, "$.e"),
        ({"verdict": "unchanged"}, "$.verdict"),
        ({"interval": None}, "$.interval"),
        ({"p": 1.5}, "$.p"),
        ({"mde_percent": 0}, "$.mde_percent"),
        ({"schema": "urn:sglang-diffusion-workbench:comparison:2"}, "$.schema"),
        ({"surprise": 1}, "$"),
    ],
)
def test_a_comparison_that_contradicts_itself_breaks_the_schema(change, where):
    document = comparison.to_document(decide(session(4, 0.03), Plan()).comparison) | change
    assert any(line.startswith(where) for line in schema.violations(document, "comparison"))


def test_exit_codes_are_those_of_the_errors():
    assert comparison.EXIT_CODES == {"faster": 0, "same": 0, "slower": 7, "inconclusive": 9}
