"""What the review of 22 November found wrong in the statements of version 1, and the row that shows what holds now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simulations.rates import Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of the table of rates, by its three names."""

    group: str
    case: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A statement, the rate at which it was wrong, and what is printed now; ``rows`` show the rate of that."""

    name: str
    statement: str
    before: str
    now: str
    rows: tuple[Row, ...] = ()


def _pairs(case: str, what: str = "wrong") -> Row:
    return Row(group="pairs of starts", case=case, what=what)


BARS = (
    ("A/A, both engines beside each other, 1 % between starts: wrong, at most 6 %",
     _pairs("A/A, starts differ by 1 %, no margin")),
    ("+1.5 %, 8 pairs at most, noise of a pair 1 %: found, at least 90 %",
     _pairs("+1.5 %, noise of a pair 1 %", "found")),
    ("+1.5 %, 8 pairs at most, noise of a request 1 %: found, at least 90 %",
     _pairs("+1.5 %, between / within starts 0 / 1 %", "found")),
    ("+1.5 %, 8 pairs at most, 1 % between starts (no bar: a pair then has a noise of 1.4 %): found",
     _pairs("+1.5 %, between / within starts 1 / 0.2 %", "found")),
)  # fmt: skip
"""What issue 12 asks of the rule."""

FINDINGS = (
    Finding(
        name="F1", statement="`ab`, engines beside each other: a winner between arms that are alike",
        before="39.2 ± 0.9 % wrong at 1 % between starts, 67.2 ± 0.9 at 2 %; 23.6 and 48.3 ± 0.9 where each engine"
        " wanders (AR .5, .9)",
        now="the unit is a pair of starts",
        rows=(
            _pairs("A/A, starts differ by 1 %, no margin"),
            _pairs("A/A, starts differ by 2 %, no margin"),
            _pairs("A/A, each engine wanders by itself, AR .9, no margin"),
        ),
    ),
    Finding(
        name="F2", statement="one pair: `calibrate` found X %, a smaller effect may be that of one launch",
        before="46 to 55 % of A/A sessions showed more than X",
        now="no winner, or an interval that holds the calibrated spread",
        rows=tuple(
            Row(group="one pair, calibrated", case=f"A/A, starts differ by {between} %", what="wrong")
            for between in ("0.3", "1", "2")
        ),
    ),
    Finding(
        name="F3", statement="`bench --launches`: 95 % interval of the median",
        before="covered 43 to 69 % (4 launches of 5)",
        now="t interval over launch medians, labelled “over L launches”",
        rows=tuple(
            Row(group="over launches", case=f"4 launches of 5, starts differ by {between} %",
                what="interval covers the truth")
            for between in ("0.3", "1")
        ),
    ),
    Finding(
        name="F4", statement="`bench --launches`: drifting, warm-up",
        before="33 to 41 % of steady runs called drifting (4 launches of 5), up to 37 % with warm-up",
        now="looked for within launches",
        rows=(
            Row(group="over launches", case="4 launches of 5, starts differ by 1 %",
                what="drift said of steady launches"),
            Row(group="over launches", case="3 launches of 10, starts differ by 1 %",
                what="warm-up said of steady launches"),
        ),
    ),
    Finding(
        name="F5", statement="`ab`: the candidate takes x % less time",
        before="the denoise time, unnamed: a change of the decoder could not be seen",
        now="the sentence names the metric; `--metric` chooses it",
    ),
    Finding(
        name="F6", statement="`history`: new level",
        before="22 % (t3) and 68 % (outliers) of stationary series of 30; never at a new engine version",
        now="tested at .001, from ten records, across versions",
        rows=(
            Row(group="history", case="30 records, Student's t, 3 degrees of freedom", what="false mark"),
            Row(group="history", case="30 records, 5 % of records 5 % slower", what="false mark"),
            Row(group="history", case="+20 % after 30 records, 10 more", what="seen"),
        ),
    ),
    Finding(
        name="F7", statement="`compare` of two days: a winner between arms that are alike",
        before="16 to 22 % wrong at 0.5 % between days",
        now="inconclusive, unless the spread between days is known",
        rows=(
            Row(group="compare", case="A/A, two days 0.5 % apart, spread unknown", what="wrong"),
            Row(group="compare", case="A/A, two days 0.5 % apart, spread known from 4", what="wrong"),
        ),
    ),
    Finding(
        name="F8", statement="the smallest showable effect (MDE) beside a winner",
        before="57 to 78 % of winners were smaller than that",
        now="gone; an open question gets a number of pairs with its range",
    ),
    Finding(
        name="F9", statement="a winner whose interval ends at zero",
        before="9 of 2,000 sessions of values in ticks of 1 to 4 %",
        now="an end within rounding of zero is zero",
        rows=(_pairs("A/A, ticks of 4 %, no margin"),),
    ),
    Finding(
        name="F10", statement="takes x %: reads as a claim of x",
        before="truth +1 %: 26 % (noise 1 %) and 93 % (2 %) of winners printed 1.5 % or more",
        now="the near end leads; “shows at least 1.5 %: yes” takes the whole interval",
        rows=tuple(
            Row(group="claims", case=f"+1 %, noise of a pair {noise} %", what="claims 1.5 % or more")
            for noise in ("1", "2")
        ),
    ),
    Finding(
        name="F11", statement="1.5 % needs about N units",
        before="N found it in 66 to 77 % of sessions, “same” in 39 to 56 %",
        now="N for the looks that are taken, with a range, and another N for “same”: 80 % is meant",
        rows=(
            Row(group="planning", case="+1.5 %, the planned number of pairs, noise of a pair 1 %", what="found"),
            Row(group="planning", case="A/A, the planned number of pairs, noise of a pair 1 %", what="same"),
        ),
    ),
    Finding(
        name="F12", statement="`calibrate`: no noise was kept",
        before="55 % of calibrations of the quietest machine",
        now="the spread of the launch medians is always kept",
        rows=(Row(group="calibrate", case="4 launches of 3 that do not differ", what="a spread is kept"),),
    ),
    Finding(
        name="F13", statement="orders as drawn, exact whatever the drift",
        before="one draw for ever; 6.8 ± 0.6 % wrong where noise comes in blocks",
        now="drawn for each session and balanced; a seed in the record; no claim of exactness",
        rows=(
            _pairs("A/A, the first turn of each pair 2 % slow, no margin"),
            _pairs("A/A, the engine started second 1 % slower, no margin"),
        ),
    ),
    Finding(
        name="F14", statement="compare.md: the same arm twice shows whether the idle neighbour disturbs",
        before="it cannot: what slows both alike cancels",
        now="gone; the engine that waits is frozen, and its CPU time is in the record",
    ),
    Finding(
        name="F15", statement="`--matrix`: a verdict from two launches of a cell",
        before="100 % inconclusive",
        now="three launches of a cell by default, no verdict from fewer",
        rows=(Row(group="compare", case="+1.5 %, 3 against 3 launches that differ by 0.3 %", what="found"),),
    ),
    Finding(
        name="F16", statement="the first request of each launch counts (`ab` by launches, `bench`)",
        before="with compile 12 % slower than those after it",
        now="left out of every launch that serves several; the record names it",
    ),
)  # fmt: skip


def _value(row: Row, rates: Sequence[Rate]) -> str:
    (rate,) = (rate for rate in rates if (rate.group, rate.case, rate.what) == (row.group, row.case, row.what))
    return f"{rate.percent:.1f} ± {rate.error:.1f} %"


def page(rates: Sequence[Rate]) -> str:
    """Return the bars of the issue and the findings of the review as two Markdown tables."""
    lines = ["## What was asked of the rule", "", "| | rate |", "|---|---:|"]
    lines += [f"| {bar} | {_value(row, rates)} |" for bar, row in BARS]
    lines += ["", "## The review's findings, before and now", ""]
    lines += ["| | statement | before | now | rate now: row below |", "|---|---|---|---|---|"]
    for finding in FINDINGS:
        told = "; ".join(f"{_value(row, rates)}: {row.case}, {row.what}" for row in finding.rows) or "no rate"
        lines.append(f"| {finding.name} | {finding.statement} | {finding.before} | {finding.now} | {told} |")
    return "\n".join(lines) + "\n"
