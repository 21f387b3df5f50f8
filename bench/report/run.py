"""A run record on the terminal: verdict first, then the numbers that it lets count, and where the record is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from bench.report import quality, text, verdict
from bench.report.figures import number, percent
from bench.run import metrics
from bench.run.timings import PRIMARY
from bench.stats import levels

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rich.console import Console, RenderableType

SYNCHRONISED = "synchronised stages"


SENSIBLE_DRIFT_PERCENT = 50


def show(record: Mapping[str, Any], path: Path, console: Console, *, with_receipts: bool = False) -> None:
    """Print a run record, where its first output is, and what one would type next; the last line is its path."""
    console.print(Group(*_parts(record, with_receipts=with_receipts)))
    counts = record["timings"] is not None and record["requests"]
    if counts and record["requests"][0]["outputs"]:
        text.line(console, f"output: {path.parent / record['requests'][0]['outputs'][0]['file']}")
    if counts:
        text.line(console, f"next: {_next(record)}")
    text.line(console, f"record: {path}")


def _next(record: Mapping[str, Any]) -> str:
    """Return the command that a person would type after this run."""
    model = record["preset"]["key"]
    if not record["complete"]:
        return "invoke bench --resume last"
    if record["timings"]["requests"] == 1:
        return f"invoke bench --model {model} --repeats 10"
    if len(record["launches"]) == 1:
        return f"invoke bench --model {model} --repeats {record['timings']['requests']} --launches 3"
    return f"invoke history --model {model}"


def warnings(record: Mapping[str, Any]) -> list[str]:
    """Return what the preflight and the watch say about the machine: it does not change the verdict."""
    warned = [line for line in record["preflight"] if line["state"] == "warn"]
    seen = [line for line in record["verdict"]["findings"] if line["source"] == "device" and line["severity"] == "info"]
    lines = [f"warning: {line['id']}: {line['saw']}: {line['means']}" for line in warned]
    return [*lines, *(f"warning: {line['id']}: {line['text']}" for line in seen)]


def _parts(record: Mapping[str, Any], *, with_receipts: bool) -> list[RenderableType]:
    judged = verdict.parts(record["verdict"], with_receipts=with_receipts)
    parts: list[RenderableType] = [_headline(record), *judged]
    parts += [
        Text(
            f"stopped {number(launch['stopped']['after_s'], 's')} after the start, at that line;"
            f" no process of the engine was left {number(launch['stopped']['within_s'], 's')} later"
        )
        for launch in record["launches"]
        if launch["stopped"] and launch["verdict"]["outcome"] == "invalid"
    ]
    if record["timings"] is not None:
        parts += [Text(), _metrics(record), Text(), *_stages(record)]
        if record["timings"]["summary"] is not None:
            parts += [Text(), *(Text(line) for line in _session(record))]
        if record["fidelity"] is not None:
            parts += [Text(), *(Text(line) for line in quality.lines(record["fidelity"]))]
    if record["failure"] is not None and record["requests"]:
        parts += [Text(), Text(f"not complete: {record['failure']['what']}", style="yellow")]
    return [*parts, Text()]


def _headline(record: Mapping[str, Any]) -> RenderableType:
    workload, engine = record["workload"], record["engine"]
    size = f"{workload['width']}x{workload['height']}" if workload["width"] else "default size"
    steps = f"{workload['steps']} steps" if workload["steps"] else "default steps"
    devices = [device["name"] for device in record["devices"]["items"][: workload["gpus"]]] or [record["host"]["cpu"]]
    mode = "torch.compile" if workload["torch_compile"] else "CUDA graphs" if workload["cuda_graph"] else "eager"
    mode += f", quality {workload['quality']}" if workload["quality"] else ""
    table = text.facts()
    label = f" ({record['label']})" if record["label"] else ""
    table.add_row("model", Text(f"{record['preset']['key']}{label}: {size}, {steps}, seed {workload['seed']}"))
    table.add_row(
        "engine", Text(f"sglang {engine['version']} [{engine['name']}], {mode}, warm-up {workload['warmup']}")
    )
    table.add_row("device", Text(f"{record['devices']['kind']}: {', '.join(devices)}"))
    table.add_row("instrument", Text(instrument(record)))
    table.add_row("weights", Text(f"{record['weights']['kind']} ({record['weights']['model']})"))
    return table


def instrument(record: Mapping[str, Any]) -> str:
    """Return in words what the timings of a record were taken under that a user's run would not have."""
    names = {"stage_sync": SYNCHRONISED, "profiler": "a profiler can be attached"}
    return ", ".join(names[name] for name, on in record["instrument"].items() if on) or "none, as in a user's run"


def _flag(record: Mapping[str, Any]) -> str:
    """Return what is written beside every number of a run that is not plainly native."""
    outcome = record["verdict"]["outcome"]
    return "" if outcome == "native" else outcome


def _metrics(record: Mapping[str, Any]) -> RenderableType:
    timings = record["timings"]
    table = Table.grid(padding=(0, 2))
    for justify in ("left", "right", "left", "left"):
        table.add_column(justify=justify, style="bold" if justify == "right" else "")
    if timings["wall_s"] is not None:
        table.add_row("request, client's wall clock", number(1000 * timings["wall_s"], "ms"), "", _flag(record))
    for metric in metrics.METRICS:
        value = timings["metrics"][metric.key]
        summary = (timings["summary"] or {}).get(metric.key)
        interval = _interval(summary, metric.unit) if summary else ""
        table.add_row(metric.title, number(value, metric.unit), interval, _flag(record) if value is not None else "")
    for title, key in (("time to load", "load_s"), ("time to the first answer", "first_answer_s")):
        if timings[key] is not None:
            table.add_row(title, number(timings[key], "s"), "", _flag(record))
    table.add_row("whole launch, wall clock", number(timings["launch_s"], "s"), "", _flag(record))
    return table


def _interval(summary: Mapping[str, Any], unit: str) -> str:
    """Return a median's interval in words, or why it is missing."""
    interval = summary["interval"]
    if interval is None:
        return f"no interval: {summary['interval_note']}"
    low, high = number(interval["low"], unit), number(interval["high"], unit)
    scope = interval.get("scope")  # records of version 1 do not say
    return f"{100 * interval['confidence']:.0f} %{f' {scope}' if scope else ''}: {low} to {high}"


def _session(record: Mapping[str, Any]) -> list[str]:
    """Return what several requests tell beyond their medians, one line each."""
    timings, primary = record["timings"], record["timings"]["summary"][PRIMARY]
    launches = len(record["launches"])
    lines = [f"{timings['requests']} requests, {launches} launch{'' if launches == 1 else 'es'}"]
    if record["stopped_because"]:
        lines[0] += f"; {record['stopped_because']}"
    if (spread := timings["spread"]) is not None:
        within, between = spread["within_percent"], spread["between_percent"]
        note = f" ({spread['note']})" if spread["note"] else ""
        lines.append(
            f"spread of the end-to-end time: within launches {percent(within)}, between {percent(between)}{note}"
        )
        if (jumping := levels.two_levels(spread["medians"])) is not None:
            low, high = number(jumping.low, "ms"), number(jumping.high, "ms")
            lines.append(f"two levels: {jumping.low_count} launches at {low}, {jumping.high_count} at {high}")
    if primary is not None:
        if primary["outliers"]:
            places = ", ".join(f"#{outlier['index'] + 1}" for outlier in primary["outliers"])
            lines.append(f"outliers, kept: request {places}")
        if primary["drift"] and primary["drift"]["drifting"]:
            lines.append(_drift(primary["drift"]["session_percent"]))
        if primary["warm_up"] and primary["warm_up"]["falling"]:
            lines.append(
                f"warm-up: the first {primary['warm_up']['falling']} request(s) were slower, the first by"
                f" {primary['warm_up']['first_excess_percent']:.1f} %"
            )
    identical = timings["outputs_identical"]
    if identical is not None:
        lines.append("outputs: all identical" if identical else "outputs: NOT identical, though the seed is one")
    return lines


def _drift(percent: float) -> str:
    """Return how requests drifted; a line through times that halved or doubled has no meaningful percentage."""
    if abs(percent) < SENSIBLE_DRIFT_PERCENT:
        return f"drifting: {percent:+.1f} % from first to last request"
    return f"requests got much {'slower' if percent > 0 else 'faster'} during the session: these are not one state"


def _stages(record: Mapping[str, Any]) -> list[RenderableType]:
    """Return the stage table of synchronised stages and what they cost; without any, how to get one."""
    stages = record["stages"]
    if stages is not None:
        lines = [Text(f"{SYNCHRONISED}, a launch of its own ({stages['requests']} requests)"), _table(stages)]
        return [*lines, *(Text(line) for line in _costs(record["instrument_cost_percent"]))]
    if record["instrument"]["stage_sync"]:
        return [Text(SYNCHRONISED), _table(record["timings"])]
    return [Text("stages: not timed; --stages adds a launch whose stages are synchronised", style="dim")]


def _table(timed: Mapping[str, Any]) -> RenderableType:
    table = text.table("stage", "time", "of total", right=("time", "of total"))
    total = timed["metrics"]["total_ms"]
    for stage in timed["stages_ms"]:
        if stage["kind"] != "transport":
            table.add_row(stage["name"], number(stage["ms"], "ms"), f"{100 * stage['ms'] / total:.1f} %")
    return table


def _costs(cost: Mapping[str, Any] | None) -> list[str]:
    """Return what synchronised stages add, in one line; none where it is unknown."""
    titles = {"total_ms": "end to end", "denoise_ms": "to denoising"}
    known = {title: cost[key] for key, title in titles.items() if cost and cost[key] is not None}
    if not known:
        return []
    told = ", ".join(f"{cost_percent:+.2f} % {title}" for title, cost_percent in known.items())
    if min(known.values()) < 0:
        return [f"synchronised stages: {told}: the launches differ by more than the instrument can cost"]
    return [f"synchronised stages add {told}; it holds what two launches differ by"]
