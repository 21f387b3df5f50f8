"""A load test as a page: latency against the rate, latency over time, every check that the figures rest on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.record import phases
from bench.report import load, plots, run
from bench.report.page import Command, Commands, Page, Sample
from bench.report.plots import Plot, at, axis, rows, tips
from bench.report.tables import Table, columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Record = Mapping[str, Any]
    Rows = Sequence[Mapping[str, Any]]

PERCENTILES = ("p50_s", "p95_s", "p99_s")
PERCENTILE_NAMES = [name.removesuffix("_s") for name in PERCENTILES]
AT_A_RATE = "open loop"
SENT = {"poisson": AT_A_RATE, "closed": "closed loop", "replay": "trace"}
"""How the requests of a phase were sent, by its kind."""
MOST_SHOWN = 4000
"""Requests over time; of more every n-th is drawn, and all are in the CSV."""


def page(record: Record, requests: Rows) -> Page:
    """Return the page of a load test; ``requests`` are its rows."""
    voided = [check for check in record["checks"] if check["exit_code"]]
    counts = not voided and record["failure"] is None
    verdict = record["verdict"]
    version = "" if record["engine"] is None else f", SGLang {record['engine']['version']}"
    return Page(
        kind="load test",
        title=f"{record['asked']['model']} under load{version}",
        answer=_answer(record, voided),
        outcome="unattested" if verdict is None else verdict["outcome"],
        warnings=tuple(_warnings(record)),
        facts=tuple(_facts(record)),
        blocks=tuple(_blocks(record, requests, counts=counts)),
        documents={"load.json": record},
        data=_data(requests),
        samples=tuple(_samples(record)) if counts else (),
    )


def _answer(record: Record, voided: Sequence[Mapping[str, Any]]) -> str:
    if record["failure"] is not None:
        return f"No figure of this load test counts: {record['failure']['what']}."
    if voided:
        return f"No figure of this load test counts: {voided[0]['says']}."
    told = []
    if (highest := record["highest_rate"]) is not None and highest["held_hz"] is not None:
        told.append(
            f"{highest['held_hz']:.3g} requests a second were served within {load.milliseconds(record['slo_s'])}"
        )
    if (capacity := record["capacity_hz"]) is not None:
        told.append(f"the server's capacity is {capacity['value']:.3g} requests a second")
    asked = [phase for phase in _measured(record) if phase["name"] != "closed-1"] or _measured(record)
    loaded = [phase for phase in asked if phase["figures"]["p50_s"] is not None]
    if asked and not loaded:
        rate = asked[-1]["figures"]["offered_hz"]
        told.append(f"at {rate:.3g} a second too few requests were answered for a median")
    elif loaded:
        figures = loaded[-1]["figures"]
        slow = "" if figures["p95_s"] is None else f", the 95th percentile {load.milliseconds(figures['p95_s'])}"
        half = load.milliseconds(figures["p50_s"])
        told.append(f"at {figures['offered_hz']:.3g} a second the median latency is {half}{slow}")
    return "; ".join(told) or "No phase has enough answers for a figure."


def _measured(record: Record) -> list[Mapping[str, Any]]:
    return [phase for phase in record["phases"] if phases.is_load(phase["name"])]


def _warnings(record: Record) -> Iterator[str]:
    if record["verdict"] is None:
        yield "unattested: this server was not started here, so nothing proves which backend answered"
    else:
        for finding in record["verdict"]["findings"]:
            if finding["severity"] != "info":
                yield f"{finding['severity']}: {finding['means']} ({finding['id']}). To do: {finding['todo']}"
    for check in record["checks"]:
        if check["held"] is not True:
            yield f"check {check['number']}, {check['proves']}: {load.HELD[check['held']]}; {check['says']}"


def _facts(record: Record) -> Iterator[tuple[str, str]]:
    asked, workload = record["asked"], record["workload"]
    yield "run", record["id"]
    yield "started", record["started"][:19].replace("T", " ") + " UTC"
    steps = workload["steps"] or f"the server's default ({delivered_steps(record)})"
    yield "workload", f"{workload['width']}x{workload['height']}, {steps} steps, seed {workload['seed']}"
    if record["server"] is not None and record["server"]["ready_s"] is not None:
        yield "server", f"sglang {record['engine']['version']}, ready after {record['server']['ready_s']:.0f} s"
    yield "SLO", load.milliseconds(record["slo_s"])
    yield "arrivals", f"seed {asked['arrival_seed']}, open loop: latency counts from the intended time of a request"
    yield "batching", f"up to {asked['batching']}" if (asked["batching"] or 1) > 1 else "off"


def delivered_steps(record: Record) -> str:
    """Return how many denoise steps the server's log says that it ran, in words."""
    known = [launch["delivered"].get("infer_steps") for launch in record["launches"]]
    return f"{known[0]:g}" if known and known[0] is not None else "unknown"


def _blocks(record: Record, requests: Rows, *, counts: bool) -> Iterator[Plot | Table | Commands]:
    if counts:
        if any(phase["figures"]["p50_s"] is not None for phase in _measured(record)):
            yield _by_rate(record)
        if any(row["done_s"] is not None for row in requests):
            yield _over_time(record, requests)
        yield Table(
            title="Phases",
            note="Latency from the intended time to the last byte; failures stay in goodput's denominator.",
            columns=columns(" | ".join(("phase", *(f">{title}" for title in load.PHASES[1:-1]), "flag"))),
            rows=tuple(load.phase_cells(phase) for phase in _measured(record)),
        )
        if record.get("batching") is not None:
            yield Table(
                title="Batching",
                note="Bursts of as many requests as the server may merge, against one request at a time.",
                columns=columns("what | seen"),
                rows=tuple(load.batching_rows(record["batching"])),
            )
    yield Table(
        title="Checks",
        note="What the figures rest on.",
        columns=columns(">check | proves | state | what was seen"),
        rows=tuple(
            (str(check["number"]), check["proves"], load.HELD[check["held"]], check["says"])
            for check in record["checks"]
        ),
    )
    for launch in record["launches"]:
        yield Commands(title="Commands", commands=(Command(title="server", text=run.command(launch)),))


def _sent(phase: Mapping[str, Any]) -> str:
    """Return in words how the requests of a phase were sent."""
    return phases.BURSTS if phase["name"] == phases.BURSTS else SENT[phase["kind"]]


def _points(record: Record) -> list[dict[str, Any]]:
    """Return each percentile of each phase that has enough answers for it."""
    return [
        {
            "rate": phase["figures"]["offered_hz"],
            "percentile": percentile,
            "latency": 1e3 * phase["figures"][name],
            "phase": phase["name"],
            "sent": _sent(phase),
            "flags": ", ".join(phase["figures"]["flags"]) or "none",
        }
        for phase in _measured(record)
        for name, percentile in zip(PERCENTILES, PERCENTILE_NAMES, strict=True)
        if phase["figures"][name] is not None
    ]


def _by_rate(record: Record) -> Plot:
    values = _points(record)
    slo = [] if record["slo_s"] is None else [at(1e3 * record["slo_s"], "SLO", channel="y", below=True)]
    rates = [value["rate"] for value in values]
    at_a_rate = [value for value in values if value["sent"] == AT_A_RATE]
    others = [value for value in values if value["sent"] != AT_A_RATE]
    position = {
        "x": axis("rate", "offered requests a second", zero=True),
        "y": axis("latency", "latency, ms", zero=True),
    }
    known = [name for name in PERCENTILE_NAMES if any(value["percentile"] == name for value in values)]
    by_percentile = {
        channel: {"field": "percentile", "type": "nominal", "title": None, "scale": {"domain": known}}
        for channel in ("color", "shape")
    }
    shown = {
        **by_percentile,
        "tooltip": tips(phase="phase", sent="sent", percentile="percentile", rate="rate", latency="ms", flags="flags"),
    }
    return Plot(
        name="rate",
        title="Latency against the offered rate",
        caption="Each phase once for each percentile that it has enough answers for. Filled, on a line: an open loop"
        " at that rate. Hollow: closed loops, bursts and traces. Dashed: the SLO.",
        alt=f"Latency percentiles at {min(rates):.3g} to {max(rates):.3g} requests a second;"
        f" {len({value['phase'] for value in at_a_rate})} open-loop rates on a line.",
        view={
            "height": 260,
            "layer": [
                {
                    "data": rows(at_a_rate),
                    "mark": {"type": "line", "strokeWidth": 1, "color": plots.DIM},
                    "encoding": {**position, "detail": {"field": "percentile"}},
                },
                {
                    "data": rows(at_a_rate),
                    "params": [plots.ZOOM],
                    "encoding": {**position, **shown},
                    "mark": {"type": "point", "size": 90},
                },
                {
                    "data": rows(others),
                    "encoding": {**position, **shown},
                    "mark": {"type": "point", "size": 90, "filled": False},
                },
                *slo,
            ],
        },
    )


def _over_time(record: Record, requests: Rows) -> Plot:
    begins = {phase["name"]: phase["started_unix_s"] for phase in record["phases"]}
    start = min(begins.values())
    done = [row for row in requests if row["done_s"] is not None]
    every = max(1, len(done) // MOST_SHOWN)
    values = [
        {
            "at": begins[row["phase"]] - start + row["intended_s"],
            "latency": 1e3 * (row["done_s"] - row["intended_s"]),
            "phase": row["phase"],
            "request": row["index"],
            "answer": "failed" if row["fault"] else "as asked",
            "fault": row["fault"] or "",
        }
        for row in done[::every]
    ]
    failed = sum(row["fault"] is not None for row in requests)
    return Plot(
        name="time",
        title="Latency over time",
        caption="One mark for each request at its intended time; a diamond failed.",
        alt=f"Latency of {len(done)} requests in {len(begins)} phases over time; {failed} requests failed.",
        view={
            "height": 240,
            "data": rows(values),
            "params": [plots.ZOOM],
            "mark": {"type": "point", "size": 30, "opacity": 0.7},
            "encoding": {
                "x": axis("at", "seconds from the first phase"),
                "y": axis("latency", "latency, ms", zero=True),
                "color": {"field": "phase", "type": "nominal", "sort": None, "title": None},
                "shape": {
                    "field": "answer",
                    "type": "nominal",
                    "title": None,
                    "scale": {"domain": ["as asked", "failed"]},
                },
                "tooltip": tips(request="request", phase="phase", at="s", latency="ms", answer="answer", fault="fault"),
            },
        },
    )


def _data(requests: Rows) -> tuple[tuple[object, ...], ...]:
    if not requests:
        return ()
    titles = tuple(requests[0])
    return (
        titles,
        *(
            tuple(row[title] if not isinstance(row[title], list) else " ".join(row[title]) for title in titles)
            for row in requests
        ),
    )


def _samples(record: Record) -> Iterator[Sample]:
    verdict = "unattested" if record["verdict"] is None else record["verdict"]["outcome"]
    common = {"model": record["asked"]["model"], "run": record["id"], "verdict": verdict}
    for phase in _measured(record):
        for name in PERCENTILES:
            if phase["figures"][name] is not None:
                labels = {**common, "phase": phase["name"], "percentile": name.removesuffix("_s")}
                yield Sample(name="latency_seconds", value=phase["figures"][name], labels=labels)
        if phase["figures"]["goodput"] is not None:
            yield Sample(
                name="goodput_ratio", value=phase["figures"]["goodput"], labels={**common, "phase": phase["name"]}
            )
