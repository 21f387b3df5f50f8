"""Two servers under the same load, as a page: the effect of each pair, then what each server held at each rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.report import load_comparison as words
from bench.report import plots
from bench.report.page import Page, Sample
from bench.report.plots import Plot, at, axis, counted, rows, tips
from bench.report.tables import Table, columns
from bench.stats.comparison import log_as_percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Document = Mapping[str, Any]


def page(document: Document, records: Mapping[str, Document]) -> Page:
    """Return the page of a comparison of two servers; ``records`` are the load records of its starts by their place."""
    arms, *told = words.lines(document)
    compared = document["comparison"]
    return Page(
        kind="two servers",
        title=f"{document['model']} served by two servers",
        answer=f"unloaded {compared['reason']}",
        outcome=compared["verdict"],
        warnings=() if document["failure"] is None else (f"cut off: {document['failure']['what']}",),
        facts=(("run", document["id"]), ("arms", arms)),
        notes=(*told[:1], document["why"]),
        blocks=(_pairs(document), _rates(document), _starts(document)),
        documents={"load-comparison.json": document, **records},
        data=_data(document),
        samples=tuple(_samples(document)),
    )


def _pairs(document: Document) -> Plot:
    values = [
        {"pair": number, "effect": log_as_percent(pair[key]), "of": name}
        for number, pair in enumerate(document["pairs"], 1)
        for name, key in (("service time", "service_log_ratio"), ("capacity", "capacity_log_ratio"))
    ]
    return Plot(
        name="pairs",
        title="Difference of each pair of starts",
        caption="Candidate against baseline: below zero the candidate takes less time. Capacity as time per request.",
        alt=f"Differences of {len(document['pairs'])} pairs of starts in percent.",
        view={
            "height": 200,
            "layer": [
                {
                    "data": rows(values),
                    "params": [plots.ZOOM],
                    "mark": {"type": "point", "size": 80},
                    "encoding": {
                        "x": counted("pair", "pair", len(document["pairs"])),
                        "y": axis("effect", "difference, %"),
                        "color": {"field": "of", "type": "nominal", "title": None},
                        "shape": {"field": "of", "type": "nominal", "title": None},
                        "tooltip": tips(pair="pair", effect="%", of="of"),
                    },
                },
                at(0, "no difference", channel="y"),
            ],
        },
    )


def _rates(document: Document) -> Table:
    return Table(
        title="The same rates for both",
        note=f"Highest rate within the SLO: {words.highest_rate(document)}. Medians over the pairs.",
        columns=columns(" | ".join(f">{title}" for title in words.RATES)),
        rows=tuple(words.rate_cells(document)),
    )


def _starts(document: Document) -> Table:
    return Table(
        title="Pairs of starts",
        note="Each start has a load record with the thirteen checks.",
        columns=columns(">pair | order | >service time | >time at capacity | verdicts"),
        rows=tuple(
            (
                str(number),
                pair["order"],
                _percent(pair["service_log_ratio"]),
                _percent(pair["capacity_log_ratio"]),
                ", ".join(pair[name]["verdict"] or "unattested" for name in words.ARMS),
            )
            for number, pair in enumerate(document["pairs"], 1)
        ),
    )


def _data(document: Document) -> tuple[tuple[object, ...], ...]:
    lines: list[tuple[object, ...]] = [("pair", "order", "place", "baseline_service_s", "candidate_service_s")]
    for number, pair in enumerate(document["pairs"], 1):
        both = zip(pair["baseline"]["service_s"], pair["candidate"]["service_s"], strict=True)
        lines += [(number, pair["order"], place, one, other) for place, (one, other) in enumerate(both)]
    return tuple(lines)


def _samples(document: Document) -> Iterator[Sample]:
    labels = {"model": document["model"], "run": document["id"], "verdict": document["comparison"]["verdict"]}
    yield Sample(name="served_time_ratio", value=document["comparison"]["effect"]["ratio"], labels=labels)
    for name in words.ARMS:
        if (rate_hz := document["highest_rate_hz"][name]) is not None:
            yield Sample(name="highest_rate_hertz", value=rate_hz, labels={**labels, "arm": name})


def _percent(ratio: float) -> str:
    return f"{log_as_percent(ratio):+.2f} %"
