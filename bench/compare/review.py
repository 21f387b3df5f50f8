"""Judge again what a folder says was measured: a run by its evidence, a comparison by its arms and its pairs."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.compare import ab, records
from bench.errors import UsageError
from bench.record import documents, names
from bench.run import evidence
from bench.stats import pairs, sequential
from bench.stats.comparison import FASTER, SLOWER

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.run.evidence import Reviewed


LOWEST_CONFIDENCE = 0.95 - 1e-9
PERCENTAGE = re.compile(r"([+-]?\d+(?:\.\d+)?)(?: to ([+-]?\d+(?:\.\d+)?))?\s*%")
OF_EARLIER = re.compile(r"these two starts .*? %[.;]|(?:with|holds) the spread of .*? launches")
"""What the sentence of one pair says of its requests, or of another run: its log ratio does not tell of it."""


def folder(place: Path, *, of_page: bool = False) -> list[str]:
    """Return what was judged, one line each; ``of_page``: the folder has what a page held.

    Raises:
        RecordEdited: something in the folder was edited.
        InvalidDocument: a document does not conform to its schema.
        UsageError: the folder holds neither a run nor a comparison.
    """
    if (place / ab.DOCUMENT).is_file():
        document = documents.arms(place)
        reviewed = records.of_arms(document, place)
        ratios = [pairs.log_ratio(pair[ab.BASELINE], pair[ab.CANDIDATE]) for pair in document["pairs"]]
        evidence.refuse(wrong(document["comparison"], ratios), place / ab.DOCUMENT)
        verdict = document["comparison"]["verdict"]
        arms = [
            _told(arm, known, of_page=of_page) for arm, known in zip((ab.BASELINE, ab.CANDIDATE), reviewed, strict=True)
        ]
        return [*arms, f"comparison: {verdict}, {len(document['pairs'])} pairs"]
    if any((place / name).is_file() for name in names.RECORDS):
        return [_told("run", evidence.read(place), of_page=of_page)]
    raise UsageError("this folder holds neither a run nor a comparison", where=place)


def _told(name: str, reviewed: Reviewed, *, of_page: bool) -> str:
    note = reviewed.note(of_page=of_page)
    return f"{name}: {reviewed.record['verdict']['outcome']}{'' if note is None else f'; {note}'}"


def wrong(compared: Mapping[str, Any], effects: list[float]) -> list[str]:
    """Return what a comparison says that the log ratios of its pairs do not give."""
    effect = 100 * math.expm1(sum(effects) / len(effects))
    found = []
    if len(effects) > 1 and not math.isclose(effect, compared["effect"]["percent"], rel_tol=1e-6, abs_tol=1e-9):
        found.append(f"its pairs give {effect:+.2f} %, it says {compared['effect']['percent']:+.2f} %")
    interval, margin = compared["interval"], compared["margin_percent"]
    if interval is not None and len(effects) > 1:
        found += _wrong_interval(effects, interval)
    if interval is not None:
        low, high = interval["low_percent"], interval["high_percent"]
        allowed = {
            "faster": high < 0,
            "slower": low > 0,
            "same": low > -margin * (1 + 1e-9) and high < margin * (1 + 1e-9),
            "inconclusive": True,
        }
        if not (low <= compared["effect"]["percent"] <= high and allowed[compared["verdict"]]):
            found.append(f"it is called {compared['verdict']} against its own interval")
    return [*found, *_wrong_claims(compared)]


def _wrong_claims(compared: Mapping[str, Any]) -> list[str]:
    """Return which size a comparison claims that its effect and its interval do not give.

    Sentences of earlier versions have other words, so the numbers are compared. An end is rounded outwards.
    """
    effect, interval, margin = compared["effect"]["percent"], compared["interval"], compared["margin_percent"]
    ends = [] if interval is None else [interval["low_percent"], interval["high_percent"]]
    said, shows = compared.get("at_least_percent"), compared.get("shows_margin")
    found = []
    nearer = {FASTER: ends[1:], SLOWER: ends[:1]}.get(compared["verdict"], [])
    if said is not None and not any(math.isclose(said, abs(end), rel_tol=1e-6, abs_tol=1e-9) for end in nearer):
        found.append(f"its interval does not give at least {said:.2f} %")
    if shows is not None and shows != (said is not None and said >= margin):
        found.append(f"it says {'that' if shows else 'not that'} it shows its margin of {margin:g} %")
    exact = [margin, *([] if interval is None else [100 * interval["confidence"]])]
    for number in (one for both in PERCENTAGE.findall(OF_EARLIER.sub("", compared["reason"])) for one in both if one):
        unit = 10.0 ** -len(number.partition(".")[2])
        value, size = float(number), abs if number[0] not in "+-" else float
        rounded = [effect, *exact] if number[0] not in "+-" else [effect]
        if not (
            any(abs(value - size(known)) <= 0.5 * unit + 1e-9 for known in rounded)
            or (unit < 0.1 and any(abs(value - size(end)) <= unit for end in ends))  # noqa: PLR2004 - two digits
        ):
            found.append(f"its sentence says {number} %, which is neither its effect nor an end of its interval")
    return found


def _wrong_interval(effects: list[float], interval: Mapping[str, Any]) -> list[str]:
    """Return what an interval says that the pairs do not give at its own confidence."""
    again = sequential.interval(np.asarray(effects), 1 - interval["confidence"])
    said = (interval["low_percent"], interval["high_percent"])
    ends = None if again is None else tuple(100 * math.expm1(end) for end in (again.low, again.high))
    if ends is None or not all(
        math.isclose(*both, rel_tol=1e-6, abs_tol=1e-9) for both in zip(ends, said, strict=True)
    ):
        return ["its pairs give another interval"]
    if interval["confidence"] < LOWEST_CONFIDENCE:
        return ["its confidence is below that of any look"]
    return []
