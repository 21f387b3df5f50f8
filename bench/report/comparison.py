"""Comparisons for people: a verdict in one line, a table, and Markdown that can be pasted into a pull request."""

from __future__ import annotations

import re
import shlex
import statistics
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.markdown import Markdown

from bench import safe_text
from bench.record import comparable, disturbance, store
from bench.report import figures, next_step, quality, text
from bench.report.figures import number
from bench.report.run import instrument
from bench.run import metrics
from bench.safe_text import markdown as escaped
from bench.stats import levels
from bench.stats.comparison import DEFAULT_MARGIN_PERCENT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.console import Console

    from bench.compare.calibration import Kept
    from bench.stats.comparison import Planning
    from bench.stats.sequential import LaunchNoise
    from bench.stats.unpaired import DayNoise

UNKNOWN_SYNC = (
    "A perf dump does not say whether its stages were synchronised: unless they were, work of one stage may be charged"
    " to a later one."
)

IDLE_PERCENT = 2
"""An engine that uses more of a core than this while it waits disturbs the one that is measured."""

CLOCKS = (("request, client's wall clock", "wall_ms", "ms"), ("time to load", "load_s", "s"))
"""What a record has and a dump has not: title, key and unit."""


ROWS = {
    "total time": "end to end",
    "denoise time": "denoise",
    "wall-clock time of a request": CLOCKS[0][0],
    "time to load": CLOCKS[1][0],
    "peak memory": "peak memory, allocated",
}
"""The row of the table that a comparison's metric is in; any other metric is the time of a stage."""

SHORTEST_STAGE_MS = 1.0
"""Shorter stages are one row together: their changes are the clock's."""

LOCAL_PATH = re.compile(r"(?<![\w.:/~])/(?:[^\s'\"/:,;`]+/)+")
"""The folders of an absolute path, but not of an address."""


def show_arms(
    document: Mapping[str, Any],
    records: tuple[Mapping[str, Any], Mapping[str, Any]],
    path: Path,
    console: Console,
    *,
    as_source: bool = False,
) -> None:
    """Print the comparison of two arms, and what one would type next; the last line is its path.

    As source it is Markdown for a pull request and nothing else.
    """
    specs = [_spec(document["arms"][name]["spec"]) for name in ("baseline", "candidate")]
    heads = [f"baseline: {specs[0]}; candidate: {specs[1]}"]
    heads += [] if document["complete"] else [f"CUT OFF: {document['failure']['what']}"]
    heads += [f"differs: {'; '.join(document['differences'])}"] if document["differences"] else []
    notes = [document["why"], *arms_notes(document, records)]
    markdown = of_records(*records, document["comparison"], document["quality"], notes, heads=heads)
    show_markdown(markdown, console, as_source=as_source)
    if not as_source:
        text.line(console, f"next: {next_step.after_arms(document, records[0], path.parent)}")
        text.line(console, f"record: {path}")


def arms_notes(document: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return how two arms were measured, one sentence each."""
    notes = [
        f"pairs: {len(document['pairs'])}, {_how(document)}",
        f"took {_wall_minutes(records):.1f} minutes, engine starts included",
    ]
    if document.get("reach"):
        notes.append(document["reach"]["sentence"])
    if (busiest := _busiest_percent(document)) > IDLE_PERCENT:
        notes.append(f"an engine that waited used up to {busiest:.0f} % of a core: it could not be frozen")
    for name in document["arms"]:
        notes += two_levels(name, [statistics.median(pair[name]) for pair in document["pairs"]], document["unit"])
    return notes


def _spec(words: str) -> str:
    return words or "as the options say"


def two_levels(name: str, launches: Sequence[float], unit: str) -> list[str]:
    """Return a line where the launches of one side jump between two levels; their mean is then of neither."""
    jumping = levels.two_levels(launches)
    if jumping is None:
        return []
    low, high = number(jumping.low, unit), number(jumping.high, unit)
    return [f"two levels: of the {name}'s launches {jumping.low_count} lie at {low}, {jumping.high_count} at {high}"]


def _busiest_percent(document: Mapping[str, Any]) -> float:
    """Return the largest share of a core, in percent, that an engine used in a pair while it waited."""
    used = [share for pair in document["pairs"] for share in pair.get("waiting_cpu_percent", {}).values()]
    return max((share for share in used if share is not None), default=0.0)


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
        text.write(masked(markdown))
    else:  # how both were run is folded on a page; here the record has it
        with console.capture() as captured:
            console.print(Markdown(markdown.partition("\n<details>")[0]))
        # rich pads lines to the width, and sets a table apart by two blank lines
        lines = [line.rstrip() for line in captured.get().splitlines()]
        for line, above in zip(lines, ["", *lines], strict=False):
            if line or above:
                console.file.write(f"{line}\n")


def masked(markdown: str) -> str:
    """Return a text without the folders of this machine: of a local path only the last part is left."""
    return LOCAL_PATH.sub(".../", markdown)


def show_noise(noise: LaunchNoise, pairs: Mapping[int, Planning | None], console: Console) -> None:
    """Print a machine's noise and, by requests of a start, how many pairs an effect needs."""
    within = "unknown" if noise.within_percent is None else f"{noise.within_percent:.2f} %"
    console.print(
        f"noise: {noise.sd_percent:.2f} % from launch to launch (over {noise.launches} launches),"
        f" {within} between the requests of one"
    )
    for requests, needed in pairs.items():
        if needed is None:
            console.print("the clock is too coarse to show a spread: the number of pairs cannot be estimated")
            continue
        likely, low, high = (
            "over 2000" if count is None else str(count) for count in (needed.likely, needed.low, needed.high)
        )
        console.print(
            f"an effect of {DEFAULT_MARGIN_PERCENT:g} % needs about {likely} pairs ({low} to {high}, because"
            f" {noise.launches} launches give a rough estimate) with --repeats {requests}"
        )


def show_kept(kept: Sequence[Kept], console: Console, *, forgotten: bool = False) -> None:
    """Print the spreads that are kept (or were just forgotten), one line each."""
    for known in kept:
        disturbed = f", disturbed: {'; '.join(known.disturbed)}" if known.disturbed else ""
        noise = f"{known.sd_percent:.2f} % between {known.launches} launches"
        key = f"{'forgotten: ' if forgotten else ''}{known.cell[:6]}"
        text.line(
            console, f"{key}  {known.preset}, {known.engine}, {known.metric}: {noise} ({known.record}){disturbed}"
        )
    if not kept:
        text.line(console, "nothing is kept; `invoke calibrate` measures this machine's noise")


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
        "arm": store.REFERENCE if record["kind"] == store.REFERENCE else None,
        "timings": timings["metrics"] | clocks,
        "stages_ms": times,
        "steps": record["workload"]["steps"],
        "outcome": record["verdict"]["outcome"],
        "instrument": instrument(record),
    }


def of_records(
    baseline: Mapping[str, Any],
    candidate: Mapping[str, Any],
    comparison: Mapping[str, Any],
    found: Mapping[str, Any],
    notes: Sequence[str],
    *,
    heads: Sequence[str] = (),
) -> str:
    """Return a comparison of two records as Markdown.

    First ``heads`` and everything that differs, then verdict, table, quality (``found``), and how each was run.
    """
    other = comparable.circumstances(baseline, candidate)
    also = "also differs" if heads else "differs"
    heads = [*heads, *([f"{also}: {'; '.join(other)}"] if other else [])]
    sides = {"baseline": baseline, "candidate": candidate}
    disturbed = disturbance.between([baseline], [candidate])
    limited = {name: phrases for name, record in sides.items() if (phrases := disturbance.limits(record))}
    notes = [
        *(f"disturbed, {name}: {'; '.join(phrases)}" for name, phrases in disturbed.items()),
        *(f"clocks, {name}: {'; '.join(phrases)}" for name, phrases in limited.items()),
        *notes,
    ]
    table = _table(_of(baseline), _of(candidate), comparison, found, notes, disturbed=", ".join(disturbed))
    lines = [*(line for head in heads for line in (escaped(head), "")), table, ""]
    lines += ["<details><summary>how both were run</summary>", ""]
    for name, record in (("baseline", baseline), ("candidate", candidate)):
        engine, launch = record["engine"], record["launches"][0]
        source = "" if engine["source"] is None else f", commit {engine['source']['commit'][:12]}"
        devices = [device["name"] for device in record["devices"]["items"]] or [record["host"]["cpu"]]
        weights = record["weights"]["kind"]
        head = f"{name}: {record['id']}, sglang {engine['version']}{source}, {', '.join(devices)}, weights {weights}"
        variables = [f"{key}={shlex.quote(value)}" for key, value in launch["command"]["environment"].items()]
        command = " ".join([*variables, shlex.join(launch["command"]["argv"])])
        lines += [escaped(head), "", *safe_text.code(command.replace("\n", " ")), ""]
    return "\n".join([*lines, "</details>"])


def _table(
    baseline: Mapping[str, Any],
    candidate: Mapping[str, Any],
    comparison: Mapping[str, Any],
    found: Mapping[str, Any],
    notes: Sequence[str],
    *,
    disturbed: str = "",
) -> str:
    warning = quality.warning(found)
    under = f" (measured under disturbance: {disturbed})" if disturbed else ""
    lines = [
        f"**{comparison['verdict'].upper()}**{under}: {escaped(comparison['reason'])}.",
        "",
        *([] if warning is None else [warning, ""]),
        f"| | {baseline.get('arm') or 'baseline'} | {candidate.get('arm') or 'candidate'} | change |",
        "|---|---:|---:|---:|",
        f"| verdict | {escaped(baseline['outcome'])} | {escaped(candidate['outcome'])} | |",
    ]
    if "instrument" in baseline:
        lines.append(f"| instrument | {escaped(baseline['instrument'])} | {escaped(candidate['instrument'])} | |")
    one, other = baseline["timings"], candidate["timings"]
    rows = [*CLOCKS, *((metric.title, metric.key, metric.unit) for metric in metrics.shown(baseline.get("steps")))]
    known = [(title, one[key], other.get(key), unit) for title, key, unit in rows if key in one]
    known = [row for row in known if row[1:3] != (None, None)]
    known += _stages(baseline["stages_ms"], candidate["stages_ms"])
    decided, effect = decided_row(comparison), estimate(comparison)
    lines += [_row(*row, change=effect if row[0] == decided else None) for row in known]
    one, other = map(quality.short, found["between"]["pixels_sha256"])
    same = {True: "equal", False: "not equal", None: "not known"}[found["between"]["identical"]]
    lines.append(f"| pixels | {one} | {other} | {same} |")
    return "\n".join([*lines, "", *(f"- {escaped(note)}" for note in [*quality.notes(found), *notes])])


def decided_row(comparison: Mapping[str, Any]) -> str:
    """Return the title of the row whose metric was compared."""
    metric: str = comparison["metric"]
    return ROWS.get(metric, metric.removeprefix("time of "))


def estimate(comparison: Mapping[str, Any]) -> str:
    """Return the effect in words: what stands in the row of the metric that was compared."""
    return f"{comparison['effect']['percent'] + 0.0:+.2f} % (estimate)"


def _stages(
    baseline: Sequence[Mapping[str, Any]], candidate: Sequence[Mapping[str, Any]]
) -> list[tuple[str, float | None, float | None, str]]:
    """Return the rows of the stages, those below a millisecond on both sides as one."""
    sides: list[dict[str, float]] = [
        {stage["name"]: stage["ms"] for stage in stages if metrics.stage_kind(stage["name"]) != "transport"}
        for stages in (baseline, candidate)
    ]
    names = list(dict.fromkeys(name for side in sides for name in side))
    short = [name for name in names if max(side.get(name, 0.0) for side in sides) < SHORTEST_STAGE_MS]
    rows = [(name, sides[0].get(name), sides[1].get(name), "ms") for name in names if name not in short]
    if short:
        sums = [sum(side[name] for name in short if name in side) if side else None for side in sides]
        rows.append((f"{len(short)} stages below {SHORTEST_STAGE_MS:g} ms each", sums[0], sums[1], "ms"))
    return rows


def _row(name: str, one: float | None, other: float | None, unit: str, *, change: str | None) -> str:
    told = figures.change(one, other) if change is None else change
    return f"| {escaped(name)} | {number(one, unit)} | {number(other, unit)} | {told} |"
