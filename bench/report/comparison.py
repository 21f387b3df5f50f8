"""Comparisons for people: a verdict in one line, a table, and Markdown that can be pasted into a pull request."""

from __future__ import annotations

import shlex
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.markdown import Markdown

from bench.report import quality, text
from bench.report.figures import change, number
from bench.report.run import instrument
from bench.run import metrics
from bench.stats.comparison import DEFAULT_MARGIN_PERCENT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.console import Console

    from bench.stats.comparison import Planning
    from bench.stats.sequential import LaunchNoise
    from bench.stats.unpaired import DayNoise

ONE_SAMPLE = (
    "One sample against one sample shows what two runs took, not that the next two would differ: nothing is known of"
    " the spread between launches. Measure with `invoke ab`, or keep this machine's noise: `invoke calibrate`."
)

UNKNOWN_SYNC = (
    "A perf dump does not say whether its stages were synchronised: unless they were, work of one stage may be charged"
    " to a later one."
)

CLOCKS = (("request, client's wall clock", "wall_ms", "ms"), ("time to load", "load_s", "s"))
"""What a record has and a dump has not: title, key and unit."""


def show_arms(
    document: Mapping[str, Any],
    records: tuple[Mapping[str, Any], Mapping[str, Any]],
    path: Path,
    console: Console,
    *,
    as_source: bool = False,
) -> None:
    """Print the comparison of two arms; the last line is its path, unless it is Markdown for a pull request."""
    notes = [] if document["complete"] else [f"PARTIAL: {document['failure']['what']}; this is said of the pairs done"]
    notes += [document["why"], f"pairs: {len(document['pairs'])}, {_how(document)}"]
    notes += [f"took {_wall_minutes(records):.1f} minutes of wall time, engine starts and all"]
    notes += [f"differs: {line}" for line in document["differences"]]
    show_markdown(
        of_records(*records, document["comparison"], document["quality"], notes), console, as_source=as_source
    )
    if not as_source:
        text.line(console, f"record: {path}")


def _wall_minutes(records: Sequence[Mapping[str, Any]]) -> float:
    """Return the minutes from the first start of either arm to the last end."""
    began = min(datetime.fromisoformat(record["started"]) for record in records)
    ended = max(datetime.fromisoformat(record["finished"]) for record in records)
    return (ended - began).total_seconds() / 60


def _how(document: Mapping[str, Any]) -> str:
    started = "both engines at once" if document["together"] else "one engine after the other"
    return f"{started}, {document['requests_per_start']} requests of each start, orders from seed {document['seed']}"


def show_markdown(markdown: str, console: Console, *, as_source: bool = False) -> None:
    """Print Markdown, laid out for the terminal or as its source."""
    if as_source:
        sys.stdout.write(markdown + "\n")
    else:
        console.print(Markdown(markdown))


def show_noise(noise: LaunchNoise, pairs: Mapping[int, Planning | None], console: Console) -> None:
    """Print a machine's noise and, by requests of a start, how many pairs an effect needs."""
    within = "unknown" if noise.within_percent is None else f"{noise.within_percent:.2f} %"
    console.print(
        f"noise: {noise.sd_percent:.2f} % from launch to launch (over {noise.launches} launches),"
        f" {within} between the requests of one"
    )
    for requests, needed in pairs.items():
        if needed is None:
            console.print("the clock is too coarse to show a spread: no number of pairs can be told")
            continue
        likely, low, high = (
            "over 2000" if count is None else str(count) for count in (needed.likely, needed.low, needed.high)
        )
        console.print(
            f"an effect of {DEFAULT_MARGIN_PERCENT:g} % needs about {likely} pairs ({low} to {high}, by how well"
            f" {noise.launches} launches know the noise) with --repeats {requests}"
        )


def show_days(known: DayNoise, console: Console) -> None:
    """Print the spread between records of several days or hosts."""
    console.print(f"noise: {known.sd_percent:.2f} % from record to record (over {known.records} records)")


def of_dumps(
    baseline: Mapping[str, Any],
    candidate: Mapping[str, Any],
    comparison: Mapping[str, Any],
    found: Mapping[str, Any],
    notes: Sequence[str],
) -> str:
    """Return a comparison of two bare perf dumps as Markdown."""
    return _table(_view(baseline), _view(candidate), comparison, found, notes)


def _view(dump: Mapping[str, Any]) -> dict[str, Any]:
    """Return a bare dump's numbers in the form that a record has them."""
    stages = [
        {"name": step["name"], "ms": step["duration_ms"], "kind": metrics.stage_kind(step["name"])}
        for step in dump["steps"]
    ]
    return {"timings": metrics.compute(dump), "stages_ms": stages, "outcome": "not judged"}


def _of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the table shows of a record; its stages only if they were synchronised."""
    timings, stages = record["timings"], record["stages"]
    times = stages["stages_ms"] if stages else timings["stages_ms"] if record["instrument"]["stage_sync"] else []
    wall_ms = None if timings["wall_s"] is None else 1000 * timings["wall_s"]
    clocks = {"wall_ms": wall_ms, "load_s": timings["load_s"]}
    return {
        "timings": timings["metrics"] | clocks,
        "stages_ms": times,
        "outcome": record["verdict"]["outcome"],
        "instrument": instrument(record),
    }


def of_records(
    baseline: Mapping[str, Any],
    candidate: Mapping[str, Any],
    comparison: Mapping[str, Any],
    found: Mapping[str, Any],
    notes: Sequence[str],
) -> str:
    """Return a comparison of two records as Markdown: verdict, table, quality (``found``), how each was run."""
    lines = [_table(_of(baseline), _of(candidate), comparison, found, notes), ""]
    lines += ["<details><summary>how both were run</summary>", ""]
    for name, record in (("baseline", baseline), ("candidate", candidate)):
        engine, launch = record["engine"], record["launches"][0]
        source = "" if engine["source"] is None else f", commit {engine['source']['commit'][:12]}"
        devices = [device["name"] for device in record["devices"]["items"]] or [record["host"]["cpu"]]
        weights = record["weights"]["kind"]
        head = f"{name}: {record['id']}, sglang {engine['version']}{source}, {', '.join(devices)}, weights {weights}"
        command = " ".join(shlex.quote(word) for word in launch["command"]["argv"])
        lines += [head, "", "```sh", command, "```", ""]
    return "\n".join([*lines, "</details>"])


def _table(
    baseline: Mapping[str, Any],
    candidate: Mapping[str, Any],
    comparison: Mapping[str, Any],
    found: Mapping[str, Any],
    notes: Sequence[str],
) -> str:
    warning = quality.warning(found)
    lines = [
        f"**{comparison['verdict'].upper()}**: {comparison['reason']}.",
        "",
        *([] if warning is None else [warning, ""]),
        "| | baseline | candidate | change |",
        "|---|---:|---:|---:|",
        f"| verdict | {baseline['outcome']} | {candidate['outcome']} | |",
    ]
    if "instrument" in baseline:
        lines.append(f"| instrument | {baseline['instrument']} | {candidate['instrument']} | |")
    one, other = baseline["timings"], candidate["timings"]
    rows = [*CLOCKS, *((metric.title, metric.key, metric.unit) for metric in metrics.METRICS)]
    lines += [_row(title, one[key], other[key], unit) for title, key, unit in rows if key in one]
    stages = {stage["name"]: stage["ms"] for stage in candidate["stages_ms"]}
    for stage in baseline["stages_ms"]:
        if stage["kind"] != "transport":
            lines.append(_row(stage["name"], stage["ms"], stages.pop(stage["name"], None), "ms"))
    lines += [
        _row(name, None, value, "ms") for name, value in stages.items() if metrics.stage_kind(name) != "transport"
    ]
    one, other = map(quality.short, found["between"]["pixels_sha256"])
    same = {True: "equal", False: "not equal", None: "not known"}[found["between"]["identical"]]
    lines.append(f"| pixels | {one} | {other} | {same} |")
    return "\n".join([*lines, "", *(f"- {note}" for note in [*quality.notes(found), *notes])])


def _row(name: str, one: float | None, other: float | None, unit: str) -> str:
    return f"| {name} | {number(one, unit)} | {number(other, unit)} | {change(one, other)} |"
