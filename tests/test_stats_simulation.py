"""A small share of `nox -s simulate`: no printed rate is further off than its Monte-Carlo error allows."""

import functools

import numpy as np
import pytest

from simulations import bisecting, findings, rates


@functools.cache
def small(number):
    return rates.PARTS[number](0.03, np.random.default_rng(number))


@pytest.mark.parametrize("number", range(len(rates.PARTS)), ids=[part.__name__ for part in rates.PARTS])
def test_every_rate_lies_within_its_limits(number):
    rows = small(number)
    broken = [f"{row.case}: {row.what} {row.percent:.1f} %" for row in rows if not row.holds]
    assert rows
    assert broken == []


def test_every_finding_of_the_review_has_its_row():
    rows = [row for number in range(len(rates.PARTS)) for row in small(number)]
    page = findings.page(rows)
    assert [f"| F{number} |" in page for number in range(1, 17)] == [True] * 16
    assert page.count(" ± ") >= len(findings.BARS) + sum(len(finding.rows) for finding in findings.FINDINGS)


def test_a_rate_that_is_far_off_is_reported():
    row = rates.Rate(group="", case="", what="wrong", hits=40, sessions=100, high=6.0)
    assert not row.holds
    assert "40.0 ± " in rates.table([row])


def test_rates_of_bisections_stand_with_their_sessions_and_their_error():
    row = bisecting.Row(noise_percent=1.0, method="m", right=93, wrong=0, sessions=100, launches=60.0)
    page = bisecting.page((row,))
    assert "100 sessions a row" in page
    assert "| 93.0 ± 2.7 % | 0.0 ± 1.0 % | 7.0 ± 2.7 % |" in page
