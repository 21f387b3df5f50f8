"""Two sides compared, as a page: the effect with its interval and margin, every pair, the outputs side by side."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.report import comparison as words
from bench.report import next_step, pictures, plots, quality, run_page
from bench.report.page import Page, Pictures, Sample
from bench.report.plots import Plot, at, axis, names, rows, tips
from bench.report.tables import Table, columns
from bench.run import metrics
from bench.stats.comparison import is_disturbed, limits
from bench.stats.pairs import log_ratio

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from bench.report.page import Block

    Record = Mapping[str, Any]

ARMS = ("baseline", "candidate")
CLOCKS = (("request, client's wall clock", "wall_s", 1000, "ms"), ("time to load", "load_s", 1, "s"))
"""Title, key in the record, factor and unit."""

UNDER = "; measured under disturbance: no size is claimed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What a page of a comparison is made of: both records with their folders, and what was concluded from them.

    ``arms`` are what the sides are called, and ``heads`` say in a line each what they are. ``launches`` are the values
    that were compared, one for each engine start. ``pairs`` are those of an A/B, each with the values of both arms'
    requests in ``unit``; records that were made apart have none. ``documents`` are embedded.
    """

    records: tuple[Record, Record]
    arms: tuple[str, str]
    heads: Sequence[str]
    launches: tuple[Sequence[float], Sequence[float]]
    directories: tuple[Path, Path]
    comparison: Mapping[str, Any]
    fidelity: Mapping[str, Any]
    notes: Sequence[str]
    metric: str
    unit: str
    pairs: Sequence[Mapping[str, Any]] = ()
    documents: Mapping[str, Any]
    cut_off: Sequence[str] = ()
    """A line where pairs are missing."""
    again: str | None = None
    """The command that measures both sides together."""


def of_arms(document: Mapping[str, Any], records: tuple[Record, Record], folder: Path) -> Page:
    """Return the page of what `invoke ab` left in a folder."""
    notes = [document["why"], *words.arms_notes(document, records)]
    notes += [f"differs: {line}" for line in document["differences"]]
    count, asked = len(document["pairs"]), {**records[0]["asked"], "output_dir": None}
    pairs = count if count == 1 else max(count, next_step.FEWEST_PAIRS)
    files = {f"{arm}/run.json": record for arm, record in zip(ARMS, records, strict=True)}
    return page(
        Compared(
            records=records,
            arms=_specs(document, records),
            heads=words.arms_heads(document, records),
            launches=words.arms_launches(document),
            directories=(folder / "baseline", folder / "candidate"),
            comparison=document["comparison"],
            fidelity=document["quality"],
            notes=notes,
            metric=document["metric"],
            unit=document["unit"],
            pairs=document["pairs"],
            documents={"comparison.json": document, **files},
            cut_off=words.cut_off(document, folder),
            again=next_step.ab(document, {**records[0], "asked": asked}, pairs),
        )
    )


def page(found: Compared) -> Page:
    """Return the page of a comparison."""
    baseline, candidate = found.records
    same = run_page.devices(baseline) == run_page.devices(candidate)
    where = run_page.devices(baseline) if same else f"{run_page.devices(baseline)} and {run_page.devices(candidate)}"
    return Page(
        kind="comparison",
        title=f"{baseline['preset']['key']} on {where}: {found.arms[1]} against {found.arms[0]}",
        answer=found.comparison["reason"],
        outcome=found.comparison["verdict"],
        warnings=_warnings(found),
        facts=_facts(found),
        notes=tuple(found.notes),
        blocks=tuple(_blocks(found)),
        documents=found.documents,
        data=_data(found),
        samples=_samples(found),
    )


def _specs(document: Mapping[str, Any], records: tuple[Record, Record]) -> tuple[str, str]:
    """Return what two arms are called: their own words, or their engines where those say nothing."""
    baseline, candidate = (document["arms"][name]["spec"] for name in ARMS)
    if baseline == candidate:
        return _engine(records[0]), _engine(records[1])
    return baseline or _engine(records[0]), candidate or _engine(records[1])


def _engine(record: Record) -> str:
    """Return the engine of a record in words."""
    source = record["engine"]["source"]
    return f"SGLang {record['engine']['version']}" + (f" at {source['commit'][:9]}" if source else "")


def _warnings(found: Compared) -> tuple[str, ...]:
    different = quality.warning(found.fidelity)
    lines = [*found.cut_off, *([] if different is None else [different])]
    for arm, record in zip(ARMS, found.records, strict=True):
        lines += [f"{arm}: {line}" for line in run_page.warnings(record)]
    return tuple(lines)


def _facts(found: Compared) -> tuple[tuple[str, str], ...]:
    compared = found.comparison
    baseline, candidate = (dict(run_page.facts(record)) for record in found.records)
    heads = (head.partition(": ") for head in found.heads)
    listed = [
        *((name, told) for name, _, told in heads),
        ("compared", compared["metric"]),
        ("margin", f"{compared['margin_percent']:g} %: an effect inside it is called same"),
    ]
    if compared["interval"] is not None:
        interval = compared["interval"]
        ends = limits(interval["low_percent"], interval["high_percent"])
        told = f"{compared['effect']['percent']:+.2f} %, {100 * interval['confidence']:.3g} % interval {ends}"
        listed.append(("effect", f"{told}{UNDER if is_disturbed(compared) else ''}"))
    for name, value in baseline.items():
        other = candidate.get(name, "none")
        if (value, other) == ARMS:  # what the folders of an A/B's records are called
            continue
        listed.append((name, value if value == other else f"baseline {value}; candidate {other}"))
    return tuple(listed)


def _blocks(found: Compared) -> Iterator[Block]:
    if found.comparison["effect"] is not None:
        yield _forest(found)
    if found.pairs:
        yield _pairs(found)
    yield _numbers(found)
    shown = {}
    for arm, record, directory in zip(ARMS, found.records, found.directories, strict=True):
        if (picture := pictures.output(record, directory)) is not None:
            shown[arm] = picture
    said = "; ".join(quality.notes(found.fidelity))
    note = said if shown else f"Not shown: the files are not here. {said}"
    yield Pictures(title="Outputs", note=note, pictures=pictures.side_by_side(shown))
    yield run_page.commands(dict(zip(ARMS, found.records, strict=True)), found.again)


def _percent(log: float) -> float:
    return 100 * math.expm1(log)


def _forest(found: Compared) -> Plot:
    compared = found.comparison
    margin, effect, interval = compared["margin_percent"], compared["effect"]["percent"], compared["interval"]
    whole = {"what": "effect", "percent": effect, "kind": "effect with its interval"}
    if interval is not None:
        whole |= {"low": interval["low_percent"], "high": interval["high_percent"]}
    values = [whole]
    for index, pair in enumerate(found.pairs, 1):
        percent = _percent(log_ratio(pair["baseline"], pair["candidate"]))
        values.append({"what": f"pair {index}", "percent": percent, "kind": "one pair"})
    for value in values:
        value["shown"] = f"{value['percent']:+.2f} %"
    under = UNDER if is_disturbed(compared) else ""
    span = "" if interval is None else f", interval {limits(interval['low_percent'], interval['high_percent'])}"
    mark = {"shape": {"field": "kind", "legend": None}, "color": {"field": "kind", "legend": None}}
    down = names("what")
    return Plot(
        name="effect",
        title="Effect",
        caption=f"Change of {compared['metric']}; left of 0 the candidate is faster."
        f" Shaded: the margin, ±{margin:g} %{under}.",
        alt=f"Effect {effect:+.2f} %{span}{under}, margin {margin:g} %, and {len(found.pairs)} single pairs.",
        view={
            "height": 30 * len(values),
            "layer": [
                {
                    "data": rows([{"low": -margin, "high": margin}]),
                    "mark": {"type": "rect", "color": plots.DIM, "opacity": 0.18},
                    "encoding": {"x": axis("low", "change of the candidate, %"), "x2": {"field": "high"}},
                },
                at(0, ""),
                {
                    "data": rows(values[:1] if interval is not None else []),
                    "mark": {"type": "rule", "strokeWidth": 3, "color": plots.BASELINE},
                    "encoding": {"y": down, "x": axis("low", ""), "x2": {"field": "high"}},
                },
                {
                    "data": rows(values),
                    "params": [plots.ZOOM],
                    "mark": {"type": "point", "size": 90},
                    "encoding": {
                        "y": down,
                        "x": axis("percent", "change of the candidate, %"),
                        "tooltip": tips(what="", shown="change"),
                        **mark,
                    },
                },
            ],
        },
    )


def _pairs(found: Compared) -> Plot:
    values = [
        {"pair": index, "arm": arm, "request": place, "value": value}
        for index, pair in enumerate(found.pairs, 1)
        for arm in ARMS
        for place, value in enumerate(pair[arm], 1)
    ]
    by_arm = {
        channel: {"field": "arm", "type": "nominal", "title": None, "scale": {"domain": list(ARMS)}}
        for channel in ("color", "shape")
    }
    across = {"field": "pair", "type": "ordinal", "title": "pair of engine starts", "axis": {"labelAngle": 0}}
    shift = {"field": "arm", "sort": list(ARMS)}
    metric = found.comparison["metric"]
    down = axis("value", f"{metric}, {found.unit}")
    return Plot(
        name="pairs",
        title="Every request of every pair",
        caption="Compare within a pair: what slowed the machine slowed both of its arms. The bar is the median.",
        alt=f"{metric} of {len(values)} requests in {len(found.pairs)} pairs, by arm.",
        view={
            "height": 260,
            "data": rows(values),
            "encoding": {"x": across, "xOffset": shift, "y": down},
            "layer": [
                {
                    "mark": {"type": "point", "opacity": 0.75},
                    "encoding": {
                        **by_arm,
                        "tooltip": tips(arm="arm", pair="pair", request="request", value=found.unit),
                    },
                },
                {
                    "mark": {"type": "tick", "thickness": 2, "color": plots.INK},
                    "encoding": {
                        "y": {**down, "aggregate": "median"},
                        "detail": shift,
                    },
                },
            ],
        },
    )


def _numbers(found: Compared) -> Table:
    one, other = found.records
    timings = (one["timings"], other["timings"])
    cells = [("verdict", one["verdict"]["outcome"], other["verdict"]["outcome"], "")]
    for title, key, factor, unit in CLOCKS:
        before, after = (None if known[key] is None else factor * known[key] for known in timings)
        cells.append(words.changed(title, before, after, unit, found.comparison, found.launches))
    for metric in metrics.shown(one["workload"]["steps"]):
        before, after = (known["metrics"][metric.key] for known in timings)
        cells.append(words.changed(metric.title, before, after, metric.unit, found.comparison, found.launches))
    figures = next(iter(words.averaged(found.comparison, found.launches)), "medians over all requests")
    figures = figures[0].upper() + figures[1:]
    return Table(
        title="Numbers",
        note=f"{figures}. Only the compared metric is tested; the others are described.",
        columns=columns("what | >baseline | >candidate | >change"),
        rows=tuple(cells),
    )


def _data(found: Compared) -> tuple[tuple[object, ...], ...]:
    if found.pairs:
        listed = [
            (index, pair["order"], arm, place, value)
            for index, pair in enumerate(found.pairs, 1)
            for arm in ARMS
            for place, value in enumerate(pair[arm], 1)
        ]
        return (("pair", "order", "arm", "request", f"{found.metric}_{found.unit}"), *listed)
    keys = [metric.key for metric in metrics.METRICS]
    listed = [
        (arm, request["launch"], request["index"], *map(request["metrics"].get, keys))
        for arm, record in zip(ARMS, found.records, strict=True)
        for request in record["requests"]
    ]
    return (("arm", "launch", "request", *keys), *listed)


def _samples(found: Compared) -> tuple[Sample, ...]:
    one, other = found.records
    labels = {
        "model": one["preset"]["key"],
        "metric": found.metric,
        "baseline": one["id"],
        "candidate": other["id"],
        "verdict": found.comparison["verdict"],
    }
    effect, interval = found.comparison["effect"], found.comparison["interval"]
    known = [] if effect is None else [("change_ratio", effect["ratio"])]
    if interval is not None:
        known += [("change_low_ratio", interval["low_ratio"]), ("change_high_ratio", interval["high_ratio"])]
    return tuple(Sample(name=name, value=value, labels=labels) for name, value in known)
