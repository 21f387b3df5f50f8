"""What was measured over time, as a page: one trend for each family, with intervals, engines, hosts, change points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.compare.history import jumps
from bench.report import plots
from bench.report.figures import number
from bench.report.history import changes, disturbed, were_disturbed
from bench.report.page import Page, Sample
from bench.report.plots import Plot, axis, counted, rows, tips
from bench.report.tables import Table, columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.compare.history import Point
    from bench.compare.metric import Metric


def page(histories: Mapping[str, Sequence[Point]], metric: Metric, faults: Sequence[str] = ()) -> Page:
    """Return the page of presets with at least one point each; ``faults`` are records that could not be read."""
    every = [point for points in histories.values() for point in points]
    marked = [(model, point) for model, points in histories.items() for point in points if point.changed]
    blocks: list[Plot | Table] = []
    for model, points in histories.items():
        for index, family in enumerate(dict.fromkeys(point.family for point in points), 1):
            blocks += _family(f"{model}-{index}", model, [p for p in points if p.family == family], metric)
    return Page(
        kind="history",
        title=f"{', '.join(histories)}: {metric.title} over time",
        answer=_answer(marked, every),
        outcome=_outcome(every),
        warnings=(
            *(told for model, points in histories.items() if (told := disturbed(points, model))),
            *(f"left out: {fault}" for fault in faults),
            *_jumping(histories, metric),
        ),
        facts=_facts(every),
        blocks=tuple(blocks),
        documents={"points.json": [_values(model, point) for model, points in histories.items() for point in points]},
        data=_data(histories),
        samples=tuple(_samples(histories, metric)),
    )


def _outcome(points: Sequence[Point]) -> str:
    """Return what stands beside the numbers: the worst of how they were measured."""
    if any(point.outcome != "native" for point in points):
        return "degraded"
    return "disturbed" if any(point.disturbed for point in points) else "native"


def _answer(marked: Sequence[tuple[str, Point]], every: Sequence[Point]) -> str:
    count = len(every)
    if not marked and any(point.disturbed for point in every):
        return f"{were_disturbed(every)} measured under disturbance: no new level is claimed"
    if not marked:
        return f"No new level in {count} records" if count > 1 else "One record: no earlier level to compare it with"
    model, last = max(marked, key=lambda entry: entry[1].started)
    since = f"{last.started[:10]} ({model}, SGLang {last.engine}, run {last.id[-6:]})"
    doubt = ", which was measured under disturbance" if last.disturbed else ""
    levels = "1 new level" if len(marked) == 1 else f"{len(marked)} new levels"
    return f"{levels} in {count} records, {'' if len(marked) == 1 else 'the last '}since {since}{doubt}"


def _jumping(histories: Mapping[str, Sequence[Point]], metric: Metric) -> Iterator[str]:
    for model, points in histories.items():
        for known in jumps(points).values():
            low, high = number(known.low, metric.unit), number(known.high, metric.unit)
            yield f"{model} jumps between two levels: {known.low_count} records at {low}, {known.high_count} at {high}"


def _facts(points: Sequence[Point]) -> tuple[tuple[str, str], ...]:
    hosts = dict.fromkeys(point.host or "unknown" for point in points)
    return (
        ("records", f"{len(points)}, from {points[0].started[:10]} to {max(point.started for point in points)[:10]}"),
        ("engines", ", ".join(dict.fromkeys(point.engine for point in points))),
        ("hosts", ", ".join(hosts)),
        ("left out", "runs that do not count or are not complete, profiles, runs inside an A/B or a matrix"),
    )


def _family(name: str, model: str, points: Sequence[Point], metric: Metric) -> tuple[Plot, Table]:
    return _trend(name, model, points, metric), _table(model, points, metric)


def _trend(name: str, model: str, points: Sequence[Point], metric: Metric) -> Plot:
    values = [_drawn(model, place, point) for place, point in enumerate(points, 1)]
    across = counted("place", "record, in the order of time", len(values))
    down = axis("value", f"{metric.title}, {metric.unit}")
    changed = [value for value in values if value["changed"]]
    first, last = (number(points[place].value, metric.unit) for place in (0, -1))
    return Plot(
        name=f"trend-{name}",
        title=f"{model}: {points[0].workload}",
        caption="Medians with their intervals; a dashed line begins a new level. Colour is the engine, shape the host;"
        " what was measured under disturbance is pale.",
        alt=f"{metric.title} of {len(points)} records from {first} to {last}, {len(changed)} new levels.",
        view={
            "height": 240,
            "data": rows(values),
            "encoding": {"x": across},
            "layer": [
                {"mark": {"type": "line", "color": plots.DIM, "strokeWidth": 1}, "encoding": {"y": down}},
                {
                    "mark": {"type": "rule", "color": plots.DIM},
                    "encoding": {"y": axis("low", ""), "y2": {"field": "high"}},
                },
                *_changes(changed),
                {
                    "params": [plots.ZOOM],
                    "mark": {"type": "point", "size": 80},
                    "encoding": {
                        "y": down,
                        "color": {"field": "engine", "type": "nominal", "title": None},
                        "shape": {"field": "host", "type": "nominal", "title": None},
                        "opacity": {"condition": {"test": "datum.disturbed", "value": 0.4}, "value": 1},
                        "tooltip": tips(
                            when="started",
                            run="run",
                            engine="engine",
                            host="host",
                            outcome="verdict",
                            value=metric.unit,
                            low="from",
                            high="to",
                            mark="marks",
                        ),
                    },
                },
            ],
        },
    )


def _drawn(model: str, place: int, point: Point) -> dict[str, Any]:
    """Return what a plot shows of a point."""
    low, high = point.interval or (point.value, point.value)
    return {
        **_values(model, point),
        "place": place,
        "when": point.started[:16].replace("T", " "),
        "low": low,
        "high": high,
        "engine": f"SGLang {point.engine}",
        "host": f"host {point.host or 'unknown'}",
        "mark": ", ".join(_marks(point, None)) or "none",
        "begins": "new level, disturbed" if point.disturbed else "new level",
    }


def _changes(changed: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the layers that mark where a new level begins; none where none does."""
    if not changed:
        return []
    return [
        {"data": rows(changed), "mark": {"type": "rule", "strokeDash": [5, 4], "color": plots.INK}},
        {
            "data": rows(changed),
            "mark": {"type": "text", "align": "left", "dx": 4, "baseline": "top"},
            "encoding": {"y": {"value": 0}, "text": {"field": "begins"}},
        },
    ]


def _marks(point: Point, before: Point | None) -> list[str]:
    found = ["new level"] if point.changed else []
    found += ["engine changed"] if before is not None and before.engine != point.engine else []
    found += ["host changed"] if before is not None and before.host != point.host else []
    found += ["disturbed"] if point.disturbed else []
    return [*found, "baseline"] if point.is_baseline else found


def _table(model: str, points: Sequence[Point], metric: Metric) -> Table:
    cells, before = [], None
    for point, since in zip(points, changes(points), strict=True):
        interval = "none" if point.interval is None else " to ".join(number(end, metric.unit) for end in point.interval)
        cells.append(
            (
                point.started[:16].replace("T", " "),
                point.id[-6:],
                point.engine,
                point.host or "unknown",
                point.outcome,
                str(point.requests),
                number(point.value, metric.unit),
                interval,
                since,
                ", ".join(_marks(point, before)),
            )
        )
        before = point
    titles = columns(f"started | run | engine | host | verdict | >n | >{metric.name} | interval | >change | marks")
    return Table(title=f"Records of {model}", note=points[0].workload, columns=titles, rows=tuple(cells))


def _values(model: str, point: Point) -> dict[str, Any]:
    return {
        "model": model,
        "run": point.id,
        "started": point.started,
        "family": point.family,
        "engine": point.engine,
        "host": point.host,
        "outcome": point.outcome,
        "requests": point.requests,
        "value": point.value,
        "interval": None if point.interval is None else list(point.interval),
        "disturbed": "; ".join(point.disturbed),
        "changed": point.changed,
        "baseline": point.is_baseline,
    }


def _data(histories: Mapping[str, Sequence[Point]]) -> tuple[tuple[object, ...], ...]:
    found = [_values(model, point) for model, points in histories.items() for point in points]
    spread = [
        {**entry, "low": (entry["interval"] or [None])[0], "high": (entry["interval"] or [None])[-1]} for entry in found
    ]
    titles = [title for title in spread[0] if title != "interval"]
    return (tuple(titles), *(tuple(entry[title] for title in titles) for entry in spread))


def _samples(histories: Mapping[str, Sequence[Point]], metric: Metric) -> Iterator[Sample]:
    units = {"ms": ("seconds", 1e-3), "s": ("seconds", 1.0), "MiB": ("bytes", 2.0**20)}
    unit, factor = units[metric.unit]
    for model, points in histories.items():
        for point in {point.family: point for point in points}.values():  # the last of each family
            labels = {
                "model": model,
                "family": point.family,
                "engine": point.engine,
                "verdict": point.outcome,
                "run": point.id,
            }
            yield Sample(name=f"last_{metric.name.replace('-', '_')}_{unit}", value=point.value * factor, labels=labels)
