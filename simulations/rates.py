"""The error rates of what the workbench prints, from simulated sessions: `nox -s simulate`.

Each row calls the product's own functions on data whose truth is known. ``run(1)`` is the large run; tests use a small
share of it. Seeds are fixed.
"""

# ruff: noqa: PLR2004 - a simulation is made of numbers

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.stats import comparison, levels, pairs, planning, sequential, spread, summary, trend, unpaired
from simulations import bisecting, findings

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.stats.samples import FloatArray

PAIRS = sequential.DEFAULT_MAX_PAIRS
REQUESTS = 4
EFFECT = math.log(1.015)
WINNERS = {comparison.FASTER, comparison.SLOWER}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A row of the table: ``hits`` of ``sessions``, and the limits in percent between which the rate has to lie."""

    group: str
    case: str
    what: str
    hits: int
    sessions: int
    low: float = 0.0
    high: float = 100.0

    @property
    def percent(self) -> float:
        """Return the rate in percent."""
        return 100 * self.hits / self.sessions

    @property
    def error(self) -> float:
        """Return one Monte-Carlo standard error in percentage points."""
        share = (self.hits + 1) / (self.sessions + 2)
        return 100 * math.sqrt(share * (1 - share) / self.sessions)

    @property
    def holds(self) -> bool:
        """Tell whether the rate lies within its limits, give or take three standard errors."""
        return self.low - 3 * self.error <= self.percent <= self.high + 3 * self.error


# --- noise of the requests of a session: shape (pairs, arms, requests), logs ------------------------------------------


def _normal(draw: np.random.Generator, sd: float = 0.01) -> FloatArray:
    return sd * draw.standard_normal((PAIRS, 2, REQUESTS))


def _student(draw: np.random.Generator, freedom: int) -> FloatArray:
    return 0.01 * draw.standard_t(freedom, (PAIRS, 2, REQUESTS))


def _outliers(draw: np.random.Generator) -> FloatArray:
    return np.asarray(_normal(draw, 0.005) + math.log(1.3) * (draw.random((PAIRS, 2, REQUESTS)) < 0.05))


def _clocks(draw: np.random.Generator, gap: float = 0.03) -> FloatArray:
    """Each start runs at one of two clocks."""
    return np.asarray(_normal(draw, 0.002) + gap * (draw.random((PAIRS, 2, 1)) < 0.5))


def _starts(draw: np.random.Generator, between: float, within: float = 0.002) -> FloatArray:
    return _normal(draw, within) + between * draw.standard_normal((PAIRS, 2, 1))


def _over_time(draw: np.random.Generator, course: FloatArray, noise: float = 0.005) -> FloatArray:
    """Return noise on a course of the machine, one value for each turn of the session, in the turns' real order."""
    values = _normal(draw, noise)
    place = 0
    for number, order in enumerate(pairs.plan_orders(PAIRS, seed=int(draw.integers(2**32)))):
        counts = {"A": 0, "B": 0}
        for letter in pairs.turns(order, REQUESTS):
            values[number, "AB".index(letter), counts[letter]] += course[place]
            counts[letter] += 1
            place += 1
    return values


def _second_slow(draw: np.random.Generator, slower: float = 0.01) -> FloatArray:
    """Return noise where the engine that is started second in a pair is slower."""
    values = _normal(draw, 0.002)
    for number, order in enumerate(pairs.plan_orders(PAIRS, seed=int(draw.integers(2**32)))):
        values[number, "AB".index(order[1])] += slower
    return values


def _each_wanders(draw: np.random.Generator, correlation: float) -> FloatArray:
    """Return noise where each start wanders by itself, from request to request."""
    courses = [_wander(draw, correlation, REQUESTS) for _ in range(2 * PAIRS)]
    return np.asarray(_normal(draw, 0.002) + np.reshape(courses, (PAIRS, 2, REQUESTS)))


def _ticks(draw: np.random.Generator, tick: float = 0.04) -> FloatArray:
    """Return durations that a coarse clock shows in few values."""
    return np.asarray(np.log(np.round(np.exp(_normal(draw, 0.02)) / tick) * tick))


TURNS = 2 * PAIRS * REQUESTS
SLOW_FIRST_TURNS: FloatArray = 0.02 * (np.arange(TURNS) % (2 * REQUESTS) == 0).astype(np.float64)


def _wander(draw: np.random.Generator, correlation: float, turns: int = TURNS) -> FloatArray:
    course = np.empty(turns)
    course[0] = draw.standard_normal()
    for place in range(1, turns):
        fresh = math.sqrt(1 - correlation**2) * draw.standard_normal()
        course[place] = correlation * course[place - 1] + fresh
    return 0.01 * course


RAMP: FloatArray = np.arange(TURNS) / (TURNS - 1.0)
SHAPES: dict[str, Callable[[np.random.Generator], FloatArray]] = {
    "normal 1 %": _normal,
    "normal 3 %": lambda draw: _normal(draw, 0.03),
    "Student's t, 3 degrees of freedom": lambda draw: _student(draw, 3),
    "Student's t, 2 degrees of freedom": lambda draw: _student(draw, 2),
    "5 % of requests take 30 % more": _outliers,
    "two clocks, 3 % apart": _clocks,
    "two clocks, 40 % apart": lambda draw: _clocks(draw, 0.4),
    "starts differ by 0.3 %": lambda draw: _starts(draw, 0.003),
    "starts differ by 1 %": lambda draw: _starts(draw, 0.01),
    "starts differ by 2 %": lambda draw: _starts(draw, 0.02),
    "linear ramp 3 %": lambda draw: _over_time(draw, 0.03 * RAMP),
    "quadratic ramp 3 %": lambda draw: _over_time(draw, 0.03 * np.asarray(RAMP * RAMP)),
    "step of 3 % in the middle": lambda draw: _over_time(draw, 0.03 * (RAMP > 0.5).astype(np.float64)),
    "machine wanders, AR .5": lambda draw: _over_time(draw, _wander(draw, 0.5)),
    "machine wanders, AR .9": lambda draw: _over_time(draw, _wander(draw, 0.9)),
    "each engine wanders by itself, AR .5": lambda draw: _each_wanders(draw, 0.5),
    "each engine wanders by itself, AR .9": lambda draw: _each_wanders(draw, 0.9),
    "the first turn of each pair 2 % slow": lambda draw: _over_time(draw, SLOW_FIRST_TURNS, 0.002),
    "the engine started second 1 % slower": _second_slow,
    "ticks of 4 %": _ticks,
}


def _session(values: FloatArray, effect: float, margin_percent: float) -> comparison.Comparison:
    ratios = [pairs.log_ratio(np.exp(baseline), np.exp(candidate + effect)) for baseline, candidate in values]
    return sequential.decide(ratios, sequential.Plan(margin_percent=margin_percent)).comparison


def _covers(told: comparison.Comparison, truth: float) -> bool:
    return told.interval is not None and told.interval.low_ratio <= math.exp(truth) <= told.interval.high_ratio


def of_pairs(share: float, draw: np.random.Generator) -> list[Rate]:
    """Return the rates of sessions of at most eight pairs of starts, four requests of each start."""
    rates = []
    sessions = max(60, int(2_000 * share))
    group = "pairs of starts"
    for name, shape in SHAPES.items():
        alike = [_session(shape(draw), 0.0, 0.0) for _ in range(sessions)]
        rates += [
            Rate(group=group, case=f"A/A, {name}, no margin", what="wrong", high=6.0, sessions=sessions,
                 hits=sum(told.verdict in WINNERS for told in alike)),
            Rate(group=group, case=f"A/A, {name}", what="interval covers the truth", low=93.0, sessions=sessions,
                 hits=sum(_covers(told, 0.0) for told in alike)),
        ]  # fmt: skip
    for name, sd, low in (("0.5 %", 0.005, 95.0), ("1 %", 0.01, 90.0), ("1.4 %", 0.014, 50.0), ("2 %", 0.02, 20.0)):
        told_ = []
        for _ in range(sessions):
            ratios = EFFECT + sd * draw.standard_normal(PAIRS)
            told_.append(sequential.decide(list(ratios), sequential.Plan()).comparison)
        rates += [
            Rate(group=group, case=f"+1.5 %, noise of a pair {name}", what="found", low=low, sessions=sessions,
                 hits=sum(told.verdict == comparison.SLOWER for told in told_)),
            Rate(group=group, case=f"+1.5 %, noise of a pair {name}", what="interval covers the truth", low=93.0,
                 sessions=sessions, hits=sum(_covers(told, EFFECT) for told in told_)),
            Rate(group=group, case=f"+1.5 %, noise of a pair {name}", what="claims 1.5 % or more", high=5.0,
                 sessions=sessions, hits=sum(told.shows_margin for told in told_)),
        ]  # fmt: skip
    for name, between, within in (("0 / 1 %", 0.0, 0.01), ("0.3 / 1 %", 0.003, 0.01), ("1 / 0.2 %", 0.01, 0.002)):
        told_ = [_session(_starts(draw, between, within), EFFECT, 1.5) for _ in range(sessions)]
        rates.append(
            Rate(group=group, case=f"+1.5 %, between / within starts {name}", what="found", sessions=sessions,
                 hits=sum(told.verdict == comparison.SLOWER for told in told_))
        )  # fmt: skip
    return rates


def of_one_pair(share: float, draw: np.random.Generator) -> list[Rate]:
    """Return how often one pair of alike starts names a winner, with the spread of four calibrated launches."""
    rates = []
    sessions = max(60, int(2_000 * share))
    for between in (0.001, 0.003, 0.01, 0.02):
        wrong = 0
        for _ in range(sessions):
            earlier = between * draw.standard_normal(4) + 0.002 * draw.standard_normal((4, 4)).mean(axis=1)
            noise = sequential.LaunchNoise(
                sd_percent=100 * math.expm1(float(earlier.std(ddof=1))), launches=4, requests=4
            )
            values = np.exp(0.002 * draw.standard_normal((2, 4)) + between * draw.standard_normal((2, 1)))
            rounds = [pairs.log_ratio([before], [after]) for before, after in zip(*values, strict=True)]
            told = sequential.one_pair(pairs.log_ratio(*values), rounds, sequential.Plan(margin_percent=0), noise)
            wrong += told.verdict in WINNERS
        rates.append(
            Rate(group="one pair, calibrated", case=f"A/A, starts differ by {100 * between:g} %", what="wrong",
                 high=6.0, hits=wrong, sessions=sessions)
        )  # fmt: skip
    return rates


def of_launches(share: float, draw: np.random.Generator) -> list[Rate]:
    """Return coverage of the intervals of a benchmark, and its flags, over launches and within one."""
    rates = []
    sessions = max(40, int(600 * share))
    for launches, requests in ((3, 10), (4, 5), (10, 2)):
        for between in (0.003, 0.01):
            covers = drifting = warm = 0
            for _ in range(sessions):
                shape = (launches, requests)
                values = np.exp(0.002 * draw.standard_normal(shape) + between * draw.standard_normal((launches, 1)))
                medians = [float(np.median(launch)) for launch in values]
                known = trend.drift_of_launches(list(values))
                drifting += known is not None and known.drifting
                warming = trend.warm_up_of_launches(list(values))
                warm += warming is not None and warming.still_falling
                ends = summary.launch_interval(medians)[0]
                covers += ends is not None and ends.low <= 1 <= ends.high
            case = f"{launches} launches of {requests}, starts differ by {100 * between:g} %"
            rates += [
                Rate(group="over launches", case=case, what="interval covers the truth", low=93.0, hits=covers,
                     sessions=sessions),
                Rate(group="over launches", case=case, what="drift said of steady launches", high=6.0, hits=drifting,
                     sessions=sessions),
                Rate(group="over launches", case=case, what="warm-up said of steady launches", high=6.0, hits=warm,
                     sessions=sessions),
            ]  # fmt: skip
    return rates


def of_claims(share: float, draw: np.random.Generator) -> list[Rate]:
    """Return how often a smaller effect is claimed to reach the margin, and what the planned number of pairs finds."""
    rates = []
    sessions = max(60, int(2_000 * share))
    for noise in (0.01, 0.02):
        claimed = 0
        for _ in range(sessions):
            ratios = list(math.log(1.01) + noise * draw.standard_normal(PAIRS))
            claimed += sequential.decide(ratios, sequential.Plan()).comparison.shows_margin
        rates.append(
            Rate(group="claims", case=f"+1 %, noise of a pair {100 * noise:g} %", what="claims 1.5 % or more", high=5.0,
                 hits=claimed, sessions=sessions)
        )  # fmt: skip
    for noise in (0.01, 0.014, 0.02):
        # as if the noise were known exactly: the range beside the figure is for what a session does not know of it
        known = planning.plan(1.5, noise, 10_000, groups=1)
        assert known is not None
        assert known.likely is not None
        assert known.for_same is not None
        found = same = 0
        for _ in range(sessions):
            ratios = list(EFFECT + noise * draw.standard_normal(known.likely))
            found += sequential.decide(ratios, sequential.Plan(max_pairs=known.likely)).comparison.verdict in WINNERS
            ratios = list(noise * draw.standard_normal(known.for_same))
            told = sequential.decide(ratios, sequential.Plan(max_pairs=known.for_same)).comparison
            same += told.verdict == comparison.SAME
        case = f"the planned number of pairs, noise of a pair {100 * noise:g} %"
        rates += [
            Rate(group="planning", case=f"+1.5 %, {case}", what="found", low=74.0, hits=found, sessions=sessions),
            Rate(group="planning", case=f"A/A, {case}", what="same", low=74.0, hits=same, sessions=sessions),
        ]  # fmt: skip
    return rates


def of_precision(share: float, draw: np.random.Generator) -> list[Rate]:
    """Return how often the interval at which --precision stops misses the true median: requests of 1 % noise."""
    rates = []
    sessions = max(20, int(400 * share))
    for precision in (0.01, 0.005):
        missed = 0
        for _ in range(sessions):
            values = np.exp(0.01 * draw.standard_normal(100))
            count = 10
            while count < 100 and summary.known_well_enough(values[:count], precision) is None:
                count += 1
            ends = summary.median_interval(values[:count])[0]
            missed += ends is None or not ends.low <= 1 <= ends.high
        rates.append(
            Rate(group="--precision", case=f"{100 * precision:g} %, noise 1 %", what="interval misses the median",
                 high=13.0, hits=missed, sessions=sessions)
        )  # fmt: skip
    return rates


def of_unpaired(share: float, draw: np.random.Generator) -> list[Rate]:
    """Return the rates of `compare`: launches measured apart, on one day and on two."""
    rates = []
    sessions = max(60, int(2_000 * share))

    def rate(case: str, what: str, hits: int, **limits: float) -> None:
        rates.append(Rate(group="compare", case=case, what=what, hits=hits, sessions=sessions, **limits))

    for before, after in ((3, 3), (4, 4), (3, 10), (10, 3)):
        wrong = found = 0
        for _ in range(sessions):
            one, other = np.exp(0.003 * draw.standard_normal(before)), np.exp(0.003 * draw.standard_normal(after))
            known = unpaired.Circumstances()
            wrong += unpaired.compare_launches(one, other, known, 0.0).verdict in WINNERS
            found += unpaired.compare_launches(one, other * 1.015, known).verdict == comparison.SLOWER
        rate(f"A/A, {before} against {after} launches that differ by 0.3 %", "wrong", wrong, high=7.0)
        rate(f"+1.5 %, {before} against {after} launches that differ by 0.3 %", "found", found)
    for calibrated in (False, True):
        wrong = 0
        for _ in range(sessions):
            first, second, *earlier = 0.005 * draw.standard_normal(6)
            one, other = (np.exp(day + 0.003 * draw.standard_normal(4)) for day in (first, second))
            sd = 100 * math.expm1(float(np.std(earlier, ddof=1)))
            days = unpaired.DayNoise(sd_percent=sd, records=4) if calibrated else None
            known = unpaired.Circumstances(apart="24 hours", days=days)
            wrong += unpaired.compare_launches(one, other, known, 0.0).verdict in WINNERS
        rate(f"A/A, two days 0.5 % apart, spread {'known from 4' if calibrated else 'unknown'}", "wrong", wrong, high=6)
    return rates


def of_series(share: float, draw: np.random.Generator) -> list[Rate]:
    """Return the rates of `history`: marks in series without a change, and changes that are seen."""
    rates = []
    sessions = max(20, int(300 * share))
    series: dict[str, Callable[[int], FloatArray]] = {
        "normal": lambda size: 0.005 * draw.standard_normal(size),
        "Student's t, 3 degrees of freedom": lambda size: 0.005 * draw.standard_t(3, size),
        "5 % of records 5 % slower": lambda size: (
            0.005 * draw.standard_normal(size) + 0.05 * (draw.random(size) < 0.05)
        ),
        "two nodes 2 % apart": lambda size: 0.005 * draw.standard_normal(size) + 0.02 * (draw.random(size) < 0.5),
        "ticks of 1 %": lambda size: np.log(np.round(np.exp(0.002 * draw.standard_normal(size) + 0.004) / 0.01) * 0.01),
    }
    for name, make in series.items():
        for size in (10, 30, 100):
            marked = sum(bool(levels.change_points(list(100 * np.exp(make(size))))) for _ in range(sessions))
            rates.append(
                Rate(
                    group="history",
                    case=f"{size} records, {name}",
                    what="false mark",
                    high=6.0,
                    hits=marked,
                    sessions=sessions,
                )
            )
    for step in (0.02, 0.2):
        seen = 0
        for _ in range(sessions):
            values = 0.005 * draw.standard_normal(40) + step * (np.arange(40) >= 30)
            seen += bool(levels.change_points(list(100 * np.exp(values))))
        rates.append(
            Rate(group="history", case=f"+{100 * step:g} % after 30 records, 10 more", what="seen", low=90.0, hits=seen,
                 sessions=sessions)
        )  # fmt: skip
    return rates


def of_calibrations(share: float, draw: np.random.Generator) -> list[Rate]:
    """Return how often `calibrate` keeps the spread of launches that do not differ."""
    sessions = max(60, int(2_000 * share))
    kept = sum(
        spread.launch_spread(list(np.exp(0.002 * draw.standard_normal((4, 3))))).sd_percent is not None
        for _ in range(sessions)
    )
    return [
        Rate(group="calibrate", case="4 launches of 3 that do not differ", what="a spread is kept", low=100.0,
             hits=kept, sessions=sessions)
    ]  # fmt: skip


def of_bisections(share: float, _: np.random.Generator) -> list[Rate]:
    """Return how often `bisect` names a wrong commit; its own seed lets the page show the same sessions."""
    return [
        Rate(group="bisect", case=f"+{bisecting.EFFECT_PERCENT:g} %, launches differ by {row.noise_percent:g} %",
             what="wrong commit named", high=5.0, hits=row.wrong, sessions=row.sessions)
        for row in bisecting.rows(share)
        if row.method == "invoke bisect"
    ]  # fmt: skip


PARTS = (
    of_pairs, of_one_pair, of_launches, of_unpaired, of_series, of_claims, of_precision, of_calibrations, of_bisections,
)  # fmt: skip


def run(share: float = 1.0) -> list[Rate]:
    """Return every row; ``share`` scales the number of sessions."""
    return [rate for number, part in enumerate(PARTS) for rate in part(share, np.random.default_rng(number))]


def table(rates: list[Rate]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| | case | | % of sessions |", "|---|---|---|---:|"]
    lines += [f"| {rate.group} | {rate.case} | {rate.what} | {rate.percent:.1f} ± {rate.error:.1f} |" for rate in rates]
    return "\n".join(lines) + "\n"


HEAD = """# Simulated rates

Sessions whose truth is known, decided by the workbench's own code. `nox -s simulate` writes this page; ± is one
Monte-Carlo standard error. "Before" is what `ab`, `compare`, `bench` and `history` printed at methodology version 1, as
a statistician's review measured it.

"""


def main() -> int:
    """Print the table, write it to the file that the first argument names, and return 1 if a limit is passed."""
    share = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    rates = run(share)
    text = table(rates)
    sys.stdout.write(text)
    if len(sys.argv) > 1:
        bisections = bisecting.page(bisecting.rows(share))
        page = f"{HEAD}{findings.page(rates)}\n{bisections}\n## All rates\n\n{text}"
        Path(sys.argv[1]).write_text(page, encoding="utf-8")
    broken = [rate for rate in rates if not rate.holds]
    for rate in broken:
        sys.stderr.write(f"outside its limits: {rate.group}, {rate.case}: {rate.what} {rate.percent:.1f} %\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
