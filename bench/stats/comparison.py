"""The outcome of a comparison: faster, slower, same or inconclusive, with what it rests on.

The verdict can be read from the interval of the effect alone (the confidence-interval form of an equivalence test:
D. J. Schuirmann, J. Pharmacokinet. Biopharm. 15, 1987; repeated at several looks: C. Jennison and B. W. Turnbull,
"Sequential equivalence testing and repeated confidence intervals", Biometrics 49, 1993):

    wholly inside the margin         same, also where it leaves out "no effect": a difference nobody asked for
    leaves out "no effect"           faster or slower
    anything else                    inconclusive

Smaller is better in every metric: faster means that the candidate takes less time (or memory).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bench.errors import Inconclusive, ThresholdMissed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FASTER = "faster"
SLOWER = "slower"
SAME = "same"
INCONCLUSIVE = "inconclusive"
EXIT_CODES = {FASTER: 0, SAME: 0, SLOWER: ThresholdMissed.exit_code, INCONCLUSIVE: Inconclusive.exit_code}

SCHEMA = "urn:sglang-diffusion-workbench:comparison:2"
ALPHA = 0.05
POWER = 0.8
DEFAULT_MARGIN_PERCENT = 1.5
"""The smallest repeated end-to-end gain that SGLang's contributors may claim."""
UNCLAIMED = "no size is claimed under disturbance: measure again when nothing else runs here"
ROUNDING = 1e-12
"""An end of an interval nearer to zero than this is zero: a sum in another order must not name a winner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogInterval:
    """An interval of the log of candidate / baseline, at a confidence between 0 and 1."""

    low: float
    high: float
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectInterval:
    """Which candidate / baseline ratios agree with the samples, at a confidence between 0 and 1."""

    low_ratio: float
    high_ratio: float
    low_percent: float
    high_percent: float
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Planning:
    """How many units show an effect as small as the margin with a power of 80 %, for a question that is open.

    ``likely`` is for the noise that was seen, ``low`` and ``high`` for the ends of its 80 % interval: few samples know
    their own noise badly. ``for_same`` is how many show "same" where nothing differs. None: more than 2,000.
    """

    low: int | None
    likely: int | None
    high: int | None
    for_same: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One candidate against one baseline. What is not known is None.

    ``metric`` names what is compared. ``method`` is sequential-t (pairs of starts), one-pair, welch-t (unpaired
    launches), calibrated (the spread comes from earlier launches) or none. ``unit`` is what one difference is made of,
    pair or launch, and ``units`` how many there are. ``ratio`` is candidate / baseline. ``noise_percent`` is the
    standard deviation of one unit. ``shows_margin`` tells whether the whole interval lies beyond the margin, which is
    what a claim of that size takes; ``at_least_percent`` is the end of a winner's interval that is nearer to zero.
    What was measured under disturbance claims neither.
    """

    metric: str
    method: str
    unit: str
    units: int
    verdict: str
    reason: str
    ratio: float
    interval: EffectInterval | None
    margin_percent: float
    at_least_percent: float | None
    shows_margin: bool
    noise_percent: float | None
    planning: Planning | None
    baseline_launches: int
    candidate_launches: int

    @property
    def effect_percent(self) -> float:
        """Return the change of the baseline's value in percent: -3 where the candidate takes 3 % less."""
        return percent(self.ratio)

    @property
    def exit_code(self) -> int:
        """Return 0 for faster and same, 7 for slower, 9 for inconclusive."""
        return EXIT_CODES[self.verdict]


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """What a comparison rests on: see the fields of the same names of `Comparison`."""

    metric: str
    method: str
    unit: str
    units: int
    baseline_launches: int
    candidate_launches: int
    margin_percent: float = DEFAULT_MARGIN_PERCENT
    is_disturbed: bool = False
    """Whether other work, heat or clocks disturbed a side."""


def percent(ratio: float) -> float:
    """Return a ratio as a change in percent: 1.03 is +3."""
    return (ratio - 1) * 100


def log_as_percent(log_value: float | None) -> float | None:
    """Return a log ratio as a change in percent: 0.03 is 3.05; None stays None."""
    return None if log_value is None else math.expm1(log_value) * 100


def margin_log(margin_percent: float) -> float:
    """Return the margin as a log ratio. It reaches from 1 / (1 + margin) to 1 + margin, so both arms have the same."""
    return math.log1p(margin_percent / 100)


def classify(inside: LogInterval | None, margin_percent: float) -> str:
    """Return the verdict that an interval allows; no interval, no verdict but inconclusive."""
    if inside is None:
        return INCONCLUSIVE
    margin = margin_log(margin_percent)
    if -margin <= inside.low and inside.high <= margin:
        return SAME
    if inside.high < -ROUNDING:
        return FASTER
    return SLOWER if inside.low > ROUNDING else INCONCLUSIVE


def conclude(
    basis: Basis,
    effect: float,
    inside: LogInterval | None,
    *,
    noise: float | None = None,
    planning: Planning | None = None,
    remarks: tuple[str, ...] = (),
    caution: str | None = None,
    early: bool = False,
) -> Comparison:
    """Return the comparison that an effect (a log ratio) and its interval mean.

    The reason is sentences: first what is compared with its size and interval, then what that rests on. ``caution``
    allows no verdict. ``early`` says that the session stopped before its last look. A planning figure stays only where
    the question is open.
    """
    verdict = INCONCLUSIVE if caution is not None else classify(inside, basis.margin_percent)
    ratio = math.exp(effect)
    interval = _effect_interval(inside)
    won = verdict in {FASTER, SLOWER} and not basis.is_disturbed
    nearer = None if inside is None or not won else inside.high if verdict == FASTER else inside.low
    at_least = None if nearer is None else abs(percent(math.exp(nearer)))
    beyond = at_least is not None and at_least >= basis.margin_percent
    told = [_sentence(basis, verdict, ratio, interval), *([] if caution is None else [caution]), *remarks]
    if won and early:
        told.append("the estimate is likely too large: the session stopped early")
    if won:
        told.append(f"shows at least {basis.margin_percent:g} %: {'yes' if beyond else 'no'}")
    if basis.is_disturbed:
        told.append(UNCLAIMED)
    open_question = verdict == INCONCLUSIVE
    if open_question and planning is not None and not basis.is_disturbed:  # else the noise is not this machine's own
        told += _planned(planning, basis)
    return Comparison(
        metric=basis.metric,
        method=basis.method,
        unit=basis.unit,
        units=basis.units,
        verdict=verdict,
        reason=sentences(*told),
        ratio=ratio,
        interval=interval,
        margin_percent=basis.margin_percent,
        at_least_percent=at_least,
        shows_margin=beyond,
        noise_percent=log_as_percent(noise),
        planning=planning if open_question else None,
        baseline_launches=basis.baseline_launches,
        candidate_launches=basis.candidate_launches,
    )


def sentences(first: str, *others: str) -> str:
    """Return what is said one after the other; the last sentence has no full stop, as a text may go on there."""
    return ". ".join([first, *(f"{other[0].upper()}{other[1:]}" for other in others)])


def _effect_interval(inside: LogInterval | None) -> EffectInterval | None:
    if inside is None:
        return None
    low, high = math.exp(inside.low), math.exp(inside.high)
    return EffectInterval(
        low_ratio=low,
        high_ratio=high,
        low_percent=percent(low),
        high_percent=percent(high),
        confidence=inside.confidence,
    )


def _sentence(basis: Basis, verdict: str, ratio: float, interval: EffectInterval | None) -> str:
    seen = f"{basis.metric}: observed {percent(ratio):+.2f} %"
    if interval is None:
        return f"{seen}, and its spread is unknown"
    between = f"{100 * interval.confidence:.3g} % interval {limits(interval.low_percent, interval.high_percent)}"
    if verdict == SAME:
        return f"{basis.metric}: the whole {between} lies inside the margin of {basis.margin_percent:g} %"
    if verdict == INCONCLUSIVE or basis.is_disturbed:
        return f"{seen}, {between}"
    near = (
        _outwards(interval.high_percent, math.ceil)
        if verdict == FASTER
        else _outwards(interval.low_percent, math.floor)
    )
    return f"{basis.metric}: {verdict} by at least {near[1:]} % (estimate {abs(percent(ratio)):.2f} %; {between})"


def limits(low_percent: float, high_percent: float) -> str:
    """Return the ends of an interval as they are printed: rounded outwards, so that they hold what was computed.

    An end near zero that is not zero keeps the digits that show it: "faster" never stands beside an interval to 0.
    """
    return f"{_outwards(low_percent, math.floor)} to {_outwards(high_percent, math.ceil)} %"


def _outwards(value: float, away: Callable[[float], int]) -> str:
    exact = round(value, 12)
    digits = next((digits for digits in range(2, 12) if exact == 0 or away(exact * 10**digits) != 0), 12)
    return f"{away(round(exact * 10**digits, 6)) / 10**digits + 0.0:+.{digits}f}"


def _planned(planning: Planning, basis: Basis) -> list[str]:
    unit = {"pair": "pairs", "launch": "launches of each arm"}[basis.unit]

    def number(value: int | None) -> str:
        return "over 2000" if value is None else str(value)

    if planning.low is None:
        return [f"with this noise an effect of {basis.margin_percent:g} % takes over 2000 {unit}"]
    about = "" if planning.likely is None else "about "
    rough = f"{number(planning.low)} to {number(planning.high)}: so few samples give a rough estimate"
    shows = f"show an effect of {basis.margin_percent:g} % in 8 of 10 sessions ({rough})"
    return [
        f"{about}{number(planning.likely)} {unit} {shows}",
        f"showing that nothing differs takes {number(planning.for_same)} {unit}",
    ]


def to_document(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison as a document that conforms to ``schemas/comparison.json``."""
    fields = asdict(comparison)
    ratio = fields.pop("ratio")
    return {
        "schema": SCHEMA,
        **fields,
        "exit_code": comparison.exit_code,
        "effect": {"ratio": ratio, "percent": comparison.effect_percent},
    }


def is_disturbed(document: Mapping[str, Any]) -> bool:
    """Tell whether such a document claims no size of its effect, because a side was measured under disturbance."""
    return UNCLAIMED in str(document["reason"]).lower()


def in_words(document: Mapping[str, Any]) -> str:
    """Return the outcome of such a document in a few words: the report has the whole sentence."""
    under = ", under disturbance" if is_disturbed(document) else ""
    return f"{document['verdict']}: {document['metric']} {document['effect']['percent']:+.2f} %{under}"
