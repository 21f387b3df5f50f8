"""A run record on the terminal: verdict first, then the numbers that it lets count, and where the record is."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.text import Text

from bench.record import store
from bench.report import next_step, quality, text, verdict
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
TWICE_PERCENT = 100
"""From here on a factor says more than a percentage."""

OF_THE_IMAGE = ("NVIDIA_", "CUDA_VERSION", "NCCL_VERSION")
"""Variables that a container's image sets and no engine reads: they are in the record, not in the command to copy."""

VALUES = re.compile(r"(; there are \d+): .*")
"""The medians of the launches at the end of a note: without a unit, and others for each metric."""

SHORTEST_STAGE_MS = 1.0
"""Shorter stages are one row together."""


def show(record: Mapping[str, Any], path: Path, console: Console, *, with_receipts: bool = False) -> None:
    """Print a run record, where its first output is, and what one would type next; the last line is its path."""
    console.print(Group(*_parts(record, with_receipts=with_receipts)))
    counts = record["timings"] is not None and record["requests"]
    if counts and record["requests"][0]["outputs"]:
        text.line(console, f"output: {path.parent / record['requests'][0]['outputs'][0]['file']}")
    if record["verdict"]["outcome"] == "invalid":
        text.line(console, f"next: {next_step.after_invalid(record, path)}")
    if counts:
        text.line(console, f"next: {next_step.after_bench(record, path.parent)}")
    text.line(console, f"record: {path}")


def command(launch: Mapping[str, Any]) -> str:
    """Return the command of a launch with its variables, as one would type it."""
    known = launch["command"]
    variables = [
        f"{name}={shlex.quote(value)}"
        for name, value in known["environment"].items()
        if not name.startswith(OF_THE_IMAGE)
    ]
    return " ".join([*variables, shlex.join(known["argv"])])


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
            f"stopped {number(launch['stopped']['after_s'], 's')} after the start, {_stopped_by(launch)};"
            f" no process of the engine was left {number(launch['stopped']['within_s'], 's')} later"
        )
        for launch in record["launches"]
        if launch["stopped"] and launch["verdict"]["outcome"] == "invalid"
    ]
    if record["timings"] is not None:
        parts += [Text(), _metrics(record), Text(), *_stages(record)]
        if record["timings"]["summary"] is not None:
            notes = _without_interval(record)
            parts += [Text(), *(Text(line) for line in [*notes, *_session(record)])]
        if record["fidelity"] is not None:
            parts += [Text(), *(Text(line) for line in quality.lines(record["fidelity"]))]
    if record["failure"] is not None and record["requests"]:
        parts += [Text(), Text(f"not complete: {record['failure']['what']}", style="yellow")]
    return [*parts, Text()]


def _stopped_by(launch: Mapping[str, Any]) -> str:
    """Return at what a launch was stopped: its time limit, or the decisive line of its log."""
    timed_out = any(finding["id"] == next_step.TIMED_OUT for finding in launch["verdict"]["findings"])
    return "at its time limit (--timeout)" if timed_out else "at that line"


def _headline(record: Mapping[str, Any]) -> RenderableType:
    workload, engine = record["workload"], record["engine"]
    size = f"{workload['width']}x{workload['height']}" if workload["width"] else "default size"
    steps = f"{workload['steps']} steps" if workload["steps"] else "default steps"
    devices = [device["name"] for device in record["devices"]["items"][: workload["gpus"]]] or [record["host"]["cpu"]]
    mode = "torch.compile" if workload["torch_compile"] else "CUDA graphs" if workload["cuda_graph"] else "eager"
    mode += f", quality {workload['quality']}" if workload["quality"] else ""
    backend = ", diffusers backend (a reference)" if record["kind"] == store.REFERENCE else ""
    table = text.facts()
    label = f" ({record['label']})" if record["label"] else ""
    table.add_row("model", Text(f"{record['preset']['key']}{label}: {size}, {steps}, seed {workload['seed']}"))
    table.add_row(
        "engine", Text(f"sglang {engine['version']} [{engine['name']}]{backend}, {mode}, warm-up {workload['warmup']}")
    )
    table.add_row("device", Text(f"{record['devices']['kind']}: {', '.join(devices)}"))
    table.add_row("instrument", Text(instrument(record)))
    table.add_row("weights", Text(f"{record['weights']['kind']} ({record['weights']['model']})"))
    return table


def instrument(record: Mapping[str, Any]) -> str:
    """Return in words what the timings of a record were taken under that a user's run would not have."""
    names = {"stage_sync": SYNCHRONISED, "profiler": "a profiler, off in every timed request"}
    return ", ".join(names[name] for name, on in record["instrument"].items() if on) or "none, as in a user's run"


def _flag(record: Mapping[str, Any]) -> str:
    """Return what is written beside every number of a run that is not plainly native."""
    outcome = record["verdict"]["outcome"]
    return "" if outcome == "native" else outcome


def _metrics(record: Mapping[str, Any]) -> RenderableType:
    timings = record["timings"]
    table = text.WholeWords.grid(padding=(0, text.GAP))
    for justify in ("left", "right", "left", "left"):
        table.add_column(justify=justify, style="bold" if justify == "right" else "")
    if timings["wall_s"] is not None:
        table.add_row("request, client's wall clock", number(1000 * timings["wall_s"], "ms"), "", _flag(record))
    for metric in metrics.shown(record["workload"]["steps"]):
        value = timings["metrics"][metric.key]
        summary = (timings["summary"] or {}).get(metric.key)
        known = interval(summary, metric.unit) if summary and summary["interval"] else ""
        table.add_row(metric.title, number(value, metric.unit), known, _flag(record) if value is not None else "")
    for title, key in (("time to load", "load_s"), ("time to the first answer", "first_answer_s")):
        if timings[key] is not None:
            table.add_row(title, number(timings[key], "s"), "", _flag(record))
    spread = timings["spread"]
    if spread is None or len(set(spread["requests"])) == 1:  # launches of a resumed run are not of one length
        table.add_row("whole launch, wall clock", number(timings["launch_s"], "s"), "", _flag(record))
    return table


def interval(summary: Mapping[str, Any], unit: str) -> str:
    """Return a median's interval in words."""
    interval = summary["interval"]
    low, high = number(interval["low"], "").strip(), number(interval["high"], unit)
    scope = interval.get("scope")  # records of version 1 do not say
    return f"{100 * interval['confidence']:.0f} %{f' {scope}' if scope else ''}: {low} to {high}"


def _without_interval(record: Mapping[str, Any]) -> list[str]:
    """Return which medians have no interval and what one needs, each reason once."""
    lacking: dict[str, list[str]] = {}
    for metric in metrics.shown(record["workload"]["steps"]):
        summary = record["timings"]["summary"].get(metric.key)
        if summary and summary["interval"] is None:
            reason = VALUES.sub(r"\1", summary["interval_note"])
            lacking.setdefault(reason, []).append(metric.title)
    if len(lacking) == 1:
        return [f"no intervals: {reason}" for reason in lacking]
    return [f"no interval for {'; '.join(titles)}: {reason}" for reason, titles in lacking.items()]


def _session(record: Mapping[str, Any]) -> list[str]:
    """Return what several requests tell beyond their medians, one line each."""
    timings, primary = record["timings"], record["timings"]["summary"][PRIMARY]
    lines = _served(record)
    if (spread := timings["spread"]) is not None:
        within = spread["within_percent"]
        several = f"{percent(spread['sd_percent'])}{f' ({note})' if (note := spread['note']) else ''}"
        told = "unknown from one launch; add --launches 3" if spread["launches"] == 1 else several
        spread_of = "standard deviation of the end-to-end time"
        lines.append(f"{spread_of}: within a launch {percent(within)}, from launch to launch {told}")
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
            lines.append(_warm_up(primary["warm_up"]))
    identical = timings["outputs_identical"]
    if identical is not None:
        lines.append("outputs: all identical" if identical else "outputs: NOT identical, although the seed is the same")
    return lines


def _served(record: Mapping[str, Any]) -> list[str]:
    """Return how many requests which launches served, and what each launch gave."""
    timings = record["timings"]
    serving = {request["launch"] for request in record["requests"]}  # not those for stages or kernels
    launches = len(serving)
    lines = [f"{timings['requests']} requests, {launches} launch{'' if launches == 1 else 'es'}"]
    if record["stopped_because"] and "were asked for" not in record["stopped_because"]:
        lines[0] += f"; {record['stopped_because']}"
    if (medians := by_launch(timings)) is not None:
        lines.append(medians)
    if any(launch["left_out"] for launch in record["launches"] if launch["index"] in serving):
        lines.append(f"left out: the first request of {'the' if launches == 1 else 'each'} launch")
    return lines


def by_launch(timings: Mapping[str, Any]) -> str | None:
    """Return what each launch gave to the median of all requests; None if there was only one, or none is known.

    A run that was cut off and resumed has launches with different numbers of requests.
    """
    spread = timings["spread"]
    if spread is None or spread["launches"] == 1:
        return None
    counts = spread["requests"]
    each = f" ({counts[0]} request{'' if counts[0] == 1 else 's'} each)" if len(set(counts)) == 1 else ""
    medians = [
        number(median, "ms") + ("" if each else f" (of {count})")
        for median, count in zip(spread["medians"], counts, strict=True)
    ]
    return f"end to end, median of each launch{each}: {', '.join(medians)}"


def _warm_up(seen: Mapping[str, Any]) -> str:
    """Return how many requests at the start were slower, and by how much the first was."""
    excess, count = seen["first_excess_percent"], seen["falling"]
    longer = f"{excess:.1f} % longer than" if excess < TWICE_PERCENT else f"{1 + excess / 100:.0f} times as long as"
    slow = f"; the first {count} were slower" if count > 1 else ""
    return f"warm-up: the first request took {longer} the rest{slow}"


def _drift(percent: float) -> str:
    """Return how requests drifted; a line through times that halved or doubled has no meaningful percentage."""
    if abs(percent) < SENSIBLE_DRIFT_PERCENT:
        return f"drifting: {percent:+.1f} % from first to last request"
    return f"requests got much {'slower' if percent > 0 else 'faster'} during the session: it was not steady"


def _stages(record: Mapping[str, Any]) -> list[RenderableType]:
    """Return the stage table of synchronised stages and what they cost; without any, how to get one."""
    stages = record["stages"]
    if stages is not None:
        lines = [Text(f"{SYNCHRONISED}, a launch of its own ({stages['requests']} requests)"), _table(stages)]
        return [*lines, *(Text(line) for line in _costs(record["instrument_cost_percent"]))]
    if record["instrument"]["stage_sync"]:
        return [Text(SYNCHRONISED), _table(record["timings"])]
    if record["kind"] == store.REFERENCE:
        return [Text("stages: the diffusers backend has only one", style="dim")]
    return [Text("stages: not timed; --stages adds a launch whose stages are synchronised", style="dim")]


def _table(timed: Mapping[str, Any]) -> RenderableType:
    table = text.table("stage", "time", "of total", right=("time", "of total"))
    total = timed["metrics"]["total_ms"]
    stages = [(stage["name"], stage["ms"]) for stage in timed["stages_ms"] if stage["kind"] != "transport"]
    short = [ms for _, ms in stages if ms < SHORTEST_STAGE_MS]
    rows = [(name, ms) for name, ms in stages if ms >= SHORTEST_STAGE_MS]
    rows += [(f"{len(short)} below {SHORTEST_STAGE_MS:g} ms each", sum(short))] if short else []
    for name, ms in rows:
        table.add_row(name, number(ms, "ms"), f"{100 * ms / total:.1f} %")
    return table


def _costs(cost: Mapping[str, Any] | None) -> list[str]:
    """Return what synchronised stages add, in one line; none where it is unknown."""
    titles = {"total_ms": "end to end", "denoise_ms": "to denoising"}
    known = {title: cost[key] for key, title in titles.items() if cost and cost[key] is not None}
    if not known:
        return []
    told = ", ".join(f"{cost_percent + 0.0:+.2f} % {title}" for title, cost_percent in known.items())
    if min(known.values()) < 0:
        return [f"synchronised stages: {told}: the launches differ by more than the instrument can cost"]
    return [f"synchronised stages add {told}; the difference between two launches is in it"]
