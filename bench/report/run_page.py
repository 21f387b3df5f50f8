"""A run record as a page: what it took, whether that may be believed, each request, each step, each stage."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import TYPE_CHECKING, Any

from bench.report import next_step, pictures, plots, quality, run
from bench.report.figures import number
from bench.report.page import Command, Commands, Page, Pictures, Sample
from bench.report.plots import Plot, at, axis, counted, names, rows, tips, upto
from bench.report.tables import Table, columns
from bench.run import metrics
from bench.run.timings import PRIMARY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from bench.report.page import Block

    Record = Mapping[str, Any]


BOX = "; the box holds the middle half, its line is the median"


def page(record: Record, directory: Path) -> Page:
    """Return the page of a run; ``directory`` is where its outputs are."""
    timings = record["timings"]
    return Page(
        kind="benchmark",
        title=title(record),
        answer=_answer(record),
        outcome=record["verdict"]["outcome"],
        warnings=warnings(record),
        facts=facts(record),
        blocks=tuple(_blocks(record, directory)),
        documents={"run.json": record},
        data=() if timings is None else _data(record),
        samples=() if timings is None else samples(record),
    )


def title(record: Record) -> str:
    """Return what a person calls a run: model, device, engine, size."""
    workload = record["workload"]
    size = f", {workload['width']}x{workload['height']}" if workload["width"] else ""
    steps = f", {workload['steps']} steps" if workload["steps"] else ""
    return f"{record['preset']['key']} on {devices(record)}, SGLang {record['engine']['version']}{size}{steps}"


def devices(record: Record) -> str:
    """Return the devices of a record in words, the CPU where it used no other."""
    found = [device["name"] for device in record["devices"]["items"][: record["workload"]["gpus"]]]
    if not found:
        return str(record["host"]["cpu"])
    return found[0] if len(found) == 1 else f"{len(found)} x {found[0]}"


def _answer(record: Record) -> str:
    timings = record["timings"]
    if timings is None:
        decided = next((f["means"] for f in record["verdict"]["findings"] if f["severity"] == "invalid"), None)
        return f"No timings are reported: {decided or 'a required piece of evidence is missing'}."
    summary = (timings["summary"] or {}).get(PRIMARY)
    interval = summary and summary["interval"]
    requests = timings["requests"]
    launches = len({request["launch"] for request in record["requests"]})
    of = f"median of {requests} requests{f' of {launches} launches' if launches > 1 else ''}"
    known = "one request: its spread is unknown" if requests == 1 else f"{of}, no interval"
    if interval:
        low, high = number(interval["low"], "ms"), number(interval["high"], "ms")
        known = f"{of}, {100 * interval['confidence']:.0f} % interval {low} to {high}"
    takes = f"request takes {number(timings['metrics'][PRIMARY], 'ms')} from end to end ({known})."
    return f"A {takes}" if record["complete"] else f"The run was cut off. Until then a {takes}"


def warnings(record: Record) -> tuple[str, ...]:
    """Return everything that stands between a reader and the numbers of a record: degradations first.

    What a launch could not show because its time was over is not listed.
    """
    timed_out = any(finding["id"] == next_step.TIMED_OUT for finding in record["verdict"]["findings"])
    found = [
        f"{finding['severity']}: {finding['means']} ({finding['id']}). To do: {finding['todo']}"
        for finding in record["verdict"]["findings"]
        if finding["severity"] != "info" and not (timed_out and finding["id"].startswith("evidence."))
    ]
    if record["failure"] is not None:
        found.append(f"not complete: {record['failure']['what']}")
    elif not record["complete"]:
        found.append("not complete: it was cut off; `invoke bench --resume` goes on with it")
    return (*dict.fromkeys(found), *(line.removeprefix("warning: ") for line in run.warnings(record)))


def facts(record: Record) -> tuple[tuple[str, str], ...]:
    """Return what was run, on what, under what, as names and values."""
    engine, workload, evidence = record["engine"], record["workload"], record["verdict"]["evidence"]
    source = "" if engine["source"] is None else f", commit {engine['source']['commit'][:12]}"
    mode = "torch.compile" if workload["torch_compile"] else "CUDA graphs" if workload["cuda_graph"] else "eager"
    held = sum(proof["holds"] for proof in evidence)
    label = [("label", record["label"])] if record["label"] else []
    return (
        ("verdict", f"{record['verdict']['outcome']}, {held} of {len(evidence)} required pieces of evidence"),
        ("run", record["id"]),
        *label,
        ("started", record["started"][:19].replace("T", " ") + " UTC"),
        ("engine", f"sglang {engine['version']} [{engine['name']}]{source}, {mode}"),
        ("quality", workload["quality"] or "the engine's default"),
        ("device", f"{devices(record)}, driver {record['devices']['driver'] or 'none'}"),
        ("host", f"{record['host']['cpu']}, {record['host']['system']}"),
        ("instrument", run.instrument(record)),
        ("warm-up", workload["warmup"]),
        ("weights", f"{record['weights']['kind']} ({record['weights']['model']})"),
        ("seed", str(workload["seed"])),
    )


def _blocks(record: Record, directory: Path) -> Iterator[Block]:
    if record["timings"] is not None:
        yield _numbers(record)
        yield from _plots(record)
        if (picture := pictures.output(record, directory)) is not None:
            shown = pictures.side_by_side({f"output of request {record['requests'][0]['index']}": picture})
            yield Pictures(title="Output", note="the first request's", pictures=shown)
        yield _launches(record)
        yield _requests(record)
    yield _evidence(record["verdict"])
    if record["fidelity"] is not None:
        lines = (line.partition(": ") for line in quality.lines(record["fidelity"]))
        cells = tuple((name, said) for name, _, said in lines)
        yield Table(title="Fidelity", note="of the outputs", columns=columns("what | seen"), rows=cells)
    yield commands({"launch": record})


def flagged(record: Record, caption: str) -> str:
    """Return a caption with the verdict before it unless the run is plainly native."""
    outcome = record["verdict"]["outcome"]
    return caption if outcome == "native" else f"{outcome.capitalize()} run. {caption}"


def _numbers(record: Record) -> Table:
    timings, outcome = record["timings"], record["verdict"]["outcome"]
    cells = []
    if timings["wall_s"] is not None:
        cells.append(("request, client's wall clock", number(1000 * timings["wall_s"], "ms"), "", outcome))
    for metric in metrics.shown(record["workload"]["steps"]):
        value, summary = timings["metrics"][metric.key], (timings["summary"] or {}).get(metric.key)
        known = run.interval(summary, metric.unit) if summary and summary["interval"] else "no interval"
        cells.append((metric.title, number(value, metric.unit), "" if value is None else known, outcome))
    requests = timings["requests"]
    over = "One request" if requests == 1 else f"Medians over {requests} requests"
    apart = "" if (told := run.by_launch(timings)) is None else f" {told[0].upper()}{told[1:]}."
    note = f"{over}; instrument: {run.instrument(record)}.{apart}"
    return Table(title="Numbers", note=note, columns=columns("what | >median | interval | verdict"), rows=tuple(cells))


def _launches(record: Record) -> Table:
    """Return the launches that served the requests that count."""
    served = Counter(request["launch"] for request in record["requests"])
    cells = tuple(
        (
            str(launch["index"]),
            str(served[launch["index"]]),
            *(number(launch[key], "s") for key in ("load_s", "first_answer_s", "wall_s")),
        )
        for launch in record["launches"]
        if launch["index"] in served
    )
    titles = columns(">launch | >requests that count | >time to load | >time to the first answer | >start to end")
    return Table(title="Launches", note="Engine starts, by the wall clock.", columns=titles, rows=cells)


def _plots(record: Record) -> Iterator[Plot]:
    yield _strip(record)
    if record["timings"]["steps_ms"]:
        yield _steps(record)
    if (stages := _stages(record)) is not None:
        yield stages
    if record["timings"]["metrics"]["peak_reserved_mib"] is not None:
        yield _memory(record)


def _strip(record: Record) -> Plot:
    values = [
        {"launch": f"launch {request['launch']}", "request": request["index"], "ms": request["metrics"][PRIMARY]}
        for request in record["requests"]
    ]
    known = [value["ms"] for value in values if value["ms"] is not None]
    launches = Counter(value["launch"] for value in values)
    boxed = [value for value in values if launches[value["launch"]] > 1]
    box = {"mark": {"type": "boxplot", "extent": "min-max", "color": plots.BASELINE, "size": 30}, "data": rows(boxed)}
    across, down = axis("ms", "end-to-end time, ms"), names("launch", scale={"domain": list(launches)})
    return Plot(
        name="requests",
        title="Every request",
        caption=flagged(record, f"One dot for each request{BOX if boxed else ''}."),
        alt=f"End-to-end time of {len(known)} requests, {number(min(known), 'ms')} to {number(max(known), 'ms')}.",
        view={
            "height": 56 * len(launches),
            "data": rows(values),
            "encoding": {"x": across, "y": down},
            "layer": [
                *([box] if boxed else []),
                {
                    "params": [plots.ZOOM],
                    "transform": [{"calculate": "(datum.request * 0.618) % 1 - 0.5", "as": "apart"}],
                    "mark": {"type": "point", "color": plots.BASELINE, "opacity": 0.8},
                    "encoding": {
                        "yOffset": {"field": "apart", "type": "quantitative", "scale": {"domain": [-0.8, 0.8]}},
                        "tooltip": tips(request="request", launch="launch", ms="ms"),
                    },
                },
            ],
        },
    )


def _steps(record: Record) -> Plot:
    values = [
        {"step": step["index"] + 1, "median": step["median"], "low": step["minimum"], "high": step["maximum"]}
        for step in record["timings"]["steps_ms"]
    ]
    medians = [value["median"] for value in values]
    across = counted("step", "denoise step", len(values))
    return Plot(
        name="steps",
        title="Every denoise step",
        caption=flagged(record, "Median over the requests; the band runs from the fastest to the slowest request."),
        alt=f"{len(values)} denoise steps, medians {number(min(medians), 'ms')} to {number(max(medians), 'ms')}.",
        view={
            "height": 220,
            "data": rows(values),
            "encoding": {"x": across},
            "layer": [
                {
                    "mark": {"type": "area", "color": plots.BASELINE, "opacity": 0.25},
                    "encoding": {"y": axis("low", "ms per step"), "y2": {"field": "high"}},
                },
                {
                    "params": [plots.ZOOM],
                    "mark": {"type": "line", "color": plots.BASELINE, "point": {"color": plots.BASELINE, "size": 25}},
                    "encoding": {
                        "y": axis("median", "ms per step"),
                        "tooltip": tips(step="step", median="median, ms", low="fastest, ms", high="slowest, ms"),
                    },
                },
            ],
        },
    )


def _stages(record: Record) -> Plot | None:
    """Return the bars of synchronised stages; None where no launch synchronised them: such times lie."""
    timed = record["stages"] or (record["timings"] if record["instrument"]["stage_sync"] else None)
    if timed is None:
        return None
    values = [
        {"stage": stage["name"], "ms": stage["ms"], "shown": number(stage["ms"], "ms")}
        for stage in timed["stages_ms"]
        if stage["kind"] != "transport"
    ]
    longest = max(values, key=lambda value: value["ms"])
    return Plot(
        name="stages",
        title="Stages",
        caption=flagged(record, f"Instrument: {run.SYNCHRONISED}; each stage waits for its device."),
        alt=f"Time of {len(values)} stages; the longest is {longest['stage']} with {longest['shown']}.",
        view={
            "height": 26 * len(values),
            "data": rows(values),
            "encoding": {"y": names("stage"), "x": upto(longest["ms"], axis("ms", "ms"))},
            "layer": [
                {
                    "mark": {"type": "bar", "color": plots.BASELINE},
                    "encoding": {"tooltip": tips(stage="stage", ms="ms")},
                },
                {"mark": {"type": "text", "align": "left", "dx": 5}, "encoding": {"text": {"field": "shown"}}},
            ],
        },
    )


def _memory(record: Record) -> Plot:
    found = record["timings"]["metrics"]
    values = [
        {"what": what, "mib": found[key], "shown": number(found[key], "MiB")}
        for what, key in (("peak allocated", "peak_allocated_mib"), ("peak reserved", "peak_reserved_mib"))
        if found[key] is not None
    ]
    limit = [device["memory_bytes"] / 2**20 for device in record["devices"]["items"][:1]]
    across = upto(max(limit or [value["mib"] for value in values]), axis("mib", "MiB"))
    room = f" of {number(limit[0], 'MiB')}" if limit else ""
    return Plot(
        name="memory",
        title="Memory",
        caption=flagged(
            record, f"The engine's own peaks, medians over the requests{'; dashed: the device' if limit else ''}."
        ),
        alt="; ".join(f"{value['what']} {value['shown']}{room}" for value in values) + ".",
        view={
            "height": 30 * len(values),
            "layer": [
                {
                    "data": rows(values),
                    "encoding": {"y": names("what"), "x": across},
                    "layer": [
                        {"mark": {"type": "bar", "color": plots.BASELINE}},
                        {"mark": {"type": "text", "align": "left", "dx": 5}, "encoding": {"text": {"field": "shown"}}},
                    ],
                },
                *([at(limit[0], "")] if limit else []),
            ],
        },
    )


def _requests(record: Record) -> Table:
    outcome, shown = record["verdict"]["outcome"], metrics.shown(record["workload"]["steps"])
    cells = tuple(
        (
            str(request["index"]),
            str(request["launch"]),
            *(number(request["metrics"][metric.key], metric.unit) for metric in shown),
            outcome,
        )
        for request in record["requests"]
    )
    wide = " | ".join(f">{metric.title}" for metric in shown)
    titles = columns(f">request | >launch | {wide} | verdict")
    return Table(title="Requests", note="Every request that counts.", columns=titles, rows=cells)


def _evidence(verdict: Mapping[str, Any]) -> Table:
    cells = tuple(
        (
            proof["proves"],
            "holds" if proof["holds"] else "MISSING",
            "-" if proof["line"] is None else str(proof["line"]),
        )
        for proof in verdict["evidence"]
    )
    note = f"What the launch had to show for its verdict, {verdict['outcome']}."
    return Table(title="Evidence", note=note, columns=columns("evidence | state | >log line"), rows=cells)


def commands(records: Mapping[str, Record], together: str | None = None) -> Commands:
    """Return the commands of launches by the name of their run; ``together`` is one that measures all of them."""
    listed = []
    for name, record in records.items():
        listed += [Command(title=name, text=run.command(launch)) for launch in record["launches"][:1]]
        if together is None:
            listed.append(Command(title=f"{name}: with this workbench", text=_again(record)))
    if together is not None:
        listed.append(Command(title="both: with this workbench", text=together))
    return Commands(title="Commands", commands=tuple(listed))


def _again(record: Record) -> str:
    asked = record["asked"]
    words = ["invoke", "bench", "--model", record["preset"]["key"], "--engine", record["engine"]["name"]]
    for name in ("steps", "seed", "width", "height", "quality", "repeats", "launches"):
        if asked.get(name) is not None:
            words += [f"--{name}", str(asked[name])]
    extra = [] if not asked.get("extra") else ["--", *asked["extra"]]
    flags = [f"--{name.replace('_', '-')}" for name in ("torch_compile", "cuda_graph") if asked.get(name)]
    variables = [f"{name}={shlex.quote(value)}" for name, value in asked.get("environment") or ()]
    return " ".join([*variables, shlex.join([*words, *flags, *extra])])


def _data(record: Record) -> tuple[tuple[object, ...], ...]:
    keys = [metric.key for metric in metrics.METRICS]
    outcome = record["verdict"]["outcome"]
    return (
        ("run", "verdict", "launch", "request", "wall_s", *keys),
        *(
            (
                record["id"],
                outcome,
                request["launch"],
                request["index"],
                request["wall_s"],
                *map(request["metrics"].get, keys),
            )
            for request in record["requests"]
        ),
    )


def samples(record: Record) -> tuple[Sample, ...]:
    """Return the medians of a record that counts, for a dashboard."""
    labels = {
        "model": record["preset"]["key"],
        "engine": str(record["engine"]["version"]),
        "device": devices(record),
        "verdict": record["verdict"]["outcome"],
        "run": record["id"],
    }
    found = []
    for metric in metrics.shown(record["workload"]["steps"]):
        value = record["timings"]["metrics"][metric.key]
        if value is not None:
            base, unit, factor = (metric.key.removesuffix("_ms"), "seconds", 1e-3)
            if metric.unit == "MiB":
                base, unit, factor = (metric.key.removesuffix("_mib"), "bytes", 2.0**20)
            found.append(Sample(name=f"{base}_{unit}", value=value * factor, labels=labels))
    return tuple(found)
