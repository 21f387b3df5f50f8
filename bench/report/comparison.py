"""Comparisons for people: both sides, a verdict in one line and a table; or Markdown for a pull request."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import safe_text
from bench.record import campaign, comparable, disturbance, names, store
from bench.report import figures, next_step, quality, run, text
from bench.report.figures import NOT_CLAIMED, duration, number
from bench.report.verdict import reasons
from bench.run import metrics
from bench.safe_text import markdown as escaped
from bench.stats import levels
from bench.stats.comparison import DEFAULT_MARGIN_PERCENT, is_disturbed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from bench.compare.calibration import Kept
    from bench.stats.comparison import Planning
    from bench.stats.sequential import LaunchNoise
    from bench.stats.unpaired import DayNoise

UNKNOWN_SYNC = (
    "A perf dump does not say whether its stages were synchronised: unless they were, time of one stage may be charged"
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
"""What a report of one run calls a comparison's metric; any other metric is the time of a stage."""

TITLES = {row: metric for metric, row in ROWS.items()}
"""A comparison calls a row as its headline and ``--metric`` do."""

SHORTEST_STAGE_MS = 1.0
"""Shorter stages are one row together: their changes are the clock's."""

SIDES = ("baseline", "candidate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A comparison in words. ``heads`` come first; ``details`` is Markdown that the terminal leaves out."""

    heads: Sequence[str]
    verdict: str
    disturbed: str
    """Which sides were disturbed, empty if none was."""
    reason: str
    warning: str | None
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: Sequence[str]
    details: Sequence[str] = ()


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
    heads = arms_heads(document, records)
    heads += cut_off(document, path.parent)
    heads += [f"differs: {'; '.join(document['differences'])}"] if document["differences"] else []
    notes = [document["why"], *arms_notes(document, records)]
    told = of_records(records, document["comparison"], document["quality"], arms_launches(document), heads, notes)
    show(told, console, as_source=as_source)
    if not as_source:
        text.line(console, f"next: {next_step.after_arms(document, records[0], path.parent)}")
        text.line(console, f"record: {path}")


def cut_off(document: Mapping[str, Any], folder: Path) -> list[str]:
    """Return a line for a comparison of two arms that is not complete, none for one that is."""
    if document["complete"]:
        return []
    told = document["failure"]["what"]
    if campaign.is_going_on(folder):
        return [f"STILL RUNNING: this is what it had when it was cut off: {told}"]
    return [f"CUT OFF: {told}"]


def arms_heads(document: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each arm: its words, what it ran, and when."""
    specs = (document["arms"][name]["spec"] or "default" for name in SIDES)
    return [f"{name}: {spec}, {_ran(record)}" for name, spec, record in zip(SIDES, specs, records, strict=True)]


def arms_launches(document: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Return what each start of either arm came to, in the unit of the metric."""
    baseline, candidate = ([statistics.median(pair[name]) for pair in document["pairs"]] for name in SIDES)
    return baseline, candidate


def called(record: Mapping[str, Any], place: Path) -> str:
    """Return what a person calls a record: its label, and its six digits or its folder; an arm by its comparison."""
    folder = (place if place.is_dir() else place.parent).resolve()
    if folder.name in SIDES and record["label"] is None:
        return f"{folder.name} of {Path(names.called(folder.parent)).name}"
    name = Path(names.called(folder)).name
    return f"{record['label']} ({name})" if record["label"] not in {None, name} else name


def heads(records: Sequence[Mapping[str, Any]], places: Sequence[Path]) -> list[str]:
    """Return a line for each of two records: what it is called, what it ran, and when."""
    known = zip(SIDES, records, places, strict=True)
    return [f"{name}: {called(record, place)}, {_ran(record)}" for name, record, place in known]


def _ran(record: Mapping[str, Any]) -> str:
    engine = record["engine"]
    source = "" if engine["source"] is None else f" at {engine['source']['commit'][:9]}"
    backend = " (diffusers backend)" if record["kind"] == store.REFERENCE else ""
    return f"{record['preset']['key']}, sglang {engine['version']}{source}{backend}, {_minute(record['started'])}"


def _minute(moment: str) -> str:
    return moment[:16].replace("T", " ")


def arms_notes(document: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return how two arms were measured, one sentence each."""
    notes = [
        f"pairs: {len(document['pairs'])}, {_how(document)}",
        f"took {duration(_wall_s(records))}, engine starts included",
    ]
    if document.get("reach"):
        notes.append(document["reach"]["sentence"])
    if (busiest := _busiest_percent(document)) > IDLE_PERCENT:
        notes.append(f"a waiting engine used up to {busiest:.0f} % of a core: it could not be frozen")
    for name, launches in zip(SIDES, arms_launches(document), strict=True):
        notes += two_levels(name, launches, document["unit"])
    return notes


def two_levels(name: str, launches: Sequence[float], unit: str) -> list[str]:
    """Return a line where the launches of one side jump between two levels; their mean is then of neither."""
    jumping = levels.two_levels(launches)
    if jumping is None:
        return []
    low, high = number(jumping.low, unit), number(jumping.high, unit)
    return [f"two levels: {jumping.low_count} of the {name}'s launches are at {low}, {jumping.high_count} at {high}"]


def _busiest_percent(document: Mapping[str, Any]) -> float:
    """Return the largest share of a core, in percent, that an engine used in a pair while it waited."""
    used = [share for pair in document["pairs"] for share in pair.get("waiting_cpu_percent", {}).values()]
    return max((share for share in used if share is not None), default=0.0)


def _wall_s(records: Sequence[Mapping[str, Any]]) -> float:
    """Return the seconds from the first start of a pair to its last end, of all pairs together."""
    return sum(
        (
            max(datetime.fromisoformat(launch["finished"]) for launch in pair)
            - min(datetime.fromisoformat(launch["started"]) for launch in pair)
        ).total_seconds()
        for pair in zip(*(record["launches"] for record in records), strict=False)
    )


def _how(document: Mapping[str, Any]) -> str:
    started = "both engines at once" if document["together"] else "one engine after the other"
    each = document["requests_per_start"]
    requests = "1 request" if each == 1 else f"{each} requests"
    return f"{started}, {requests} per start, order drawn with seed {document['seed']}"


def show(told: Told, console: Console, *, as_source: bool = False) -> None:
    """Print a comparison, laid out for the terminal or as the source of Markdown."""
    if as_source:
        text.write(safe_text.masked(_markdown(told)))
        return
    for head in told.heads:
        text.line(console, head)
    text.line(console, "")
    text.line(console, f"{_under(told)}: {told.reason}.", head=told.verdict, style="bold")
    if told.warning is not None:
        text.line(console, "")
        text.line(console, told.warning)
    text.line(console, "")
    table = text.table(*told.columns, right=told.columns[1:])
    for row in told.rows:
        table.add_row(*row)
    console.print(table)
    text.line(console, "")
    for note in told.notes:
        text.line(console, f"  - {note}")


def _under(told: Told) -> str:
    return f" (measured under disturbance: {told.disturbed})" if told.disturbed else ""


def _markdown(told: Told) -> str:
    """Return a comparison as Markdown."""
    lines = [line for head in told.heads for line in (escaped(head), "")]
    lines += [f"**{told.verdict}**{_under(told)}: {escaped(told.reason)}.", ""]
    if told.warning is not None:
        head, _, rest = told.warning.partition(": ")
        lines += [f"**{head}**: {escaped(rest)}", ""]
    lines += [_row(told.columns), "|---|---:|---:|---:|"]
    lines += [_row((escaped(title), *cells)) for title, *cells in told.rows]
    return "\n".join([*lines, "", *(f"- {escaped(note)}" for note in told.notes), "", *told.details])


def _row(cells: Sequence[str]) -> str:
    return f"|{'|'.join(f' {cell} ' if cell else ' ' for cell in cells)}|"


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
        text.line(console, "no calibration is kept; `invoke calibrate` measures this machine's noise")


def show_days(known: DayNoise, console: Console) -> None:
    """Print the spread between records of several days or hosts."""
    console.print(f"noise: {known.sd_percent:.2f} % from record to record (over {known.records} records)")


def of_dumps(
    dumps: tuple[Mapping[str, Any], Mapping[str, Any]],
    places: tuple[Path, Path],
    comparison: Mapping[str, Any],
    found: Mapping[str, Any],
    launches: tuple[Sequence[float], Sequence[float]],
) -> Told:
    """Return a comparison of two bare perf dumps; ``found`` is what is known of their outputs."""
    known = [
        f"{place.name}, {dump['meta']['model']}, engine unknown, {_minute(dump['timestamp'])}"
        for dump, place in zip(dumps, places, strict=True)
    ]
    return Told(
        heads=[f"{name}: {told}" for name, told in zip(SIDES, known, strict=True)],
        verdict=comparison["verdict"].upper(),
        disturbed="",
        reason=comparison["reason"],
        warning=quality.warning(found),
        columns=("", *SIDES, "change"),
        rows=_rows(_view(dumps[0]), _view(dumps[1]), comparison, found, launches),
        notes=[*quality.notes(found), UNKNOWN_SYNC],
    )


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
        "of_stages": ", synchronised" if stages else "",
        "steps": record["workload"]["steps"],
        "outcome": record["verdict"]["outcome"],
        "instrument": run.instrument(record),
    }


def of_records(
    records: tuple[Mapping[str, Any], Mapping[str, Any]],
    comparison: Mapping[str, Any],
    found: Mapping[str, Any],
    launches: tuple[Sequence[float], Sequence[float]],
    heads: Sequence[str],
    notes: Sequence[str] = (),
) -> Told:
    """Return a comparison of two records.

    ``launches`` are the values that were compared, one for each engine start; ``found`` is what is known of the
    outputs.
    """
    other = comparable.circumstances(*records)
    also = "also differs" if any(head.startswith("differs: ") for head in heads) else "differs"
    disturbed = disturbance.between(*([record] for record in records))
    by_name = dict(zip(SIDES, records, strict=True))
    shown = [_of(record) for record in records]
    return Told(
        heads=[*heads, *([f"{also}: {'; '.join(other)}"] if other else [])],
        verdict=comparison["verdict"].upper(),
        disturbed=", ".join(disturbed),
        reason=comparison["reason"],
        warning=quality.warning(found),
        columns=("", *(view["arm"] or name for name, view in zip(SIDES, shown, strict=True)), "change"),
        rows=_rows(shown[0], shown[1], comparison, found, launches),
        notes=[
            *averaged(comparison, launches),
            *([f"instrument: {shown[0]['instrument']}"] if shown[0]["instrument"] == shown[1]["instrument"] else []),
            *(f"{name}, {reason}" for name, record in by_name.items() for reason in reasons(record["verdict"])),
            *quality.notes(found),
            *(f"disturbed, {name}: {'; '.join(phrases)}" for name, phrases in disturbed.items()),
            *(
                f"clocks, {name}: {'; '.join(known)}"
                for name, record in by_name.items()
                if (known := disturbance.limits(record))
            ),
            *notes,
        ],
        details=_details(by_name),
    )


def _details(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return how both sides were run, as Markdown that is folded."""
    lines = ["<details><summary>how both were run</summary>", ""]
    for name, record in records.items():
        engine, launch = record["engine"], record["launches"][0]
        source = "" if engine["source"] is None else f", commit {engine['source']['commit'][:12]}"
        devices = [device["name"] for device in record["devices"]["items"]] or [record["host"]["cpu"]]
        identity = [] if record["id"] == name else [record["id"]]  # an arm of an A/B is called baseline or candidate
        made = [*identity, f"sglang {engine['version']}{source}", *devices, f"weights {record['weights']['kind']}"]
        command = run.command(launch)
        lines += [escaped(f"{name}: {', '.join(made)}"), "", *safe_text.code(command.replace("\n", " ")), ""]
    return [*lines, "</details>"]


def _rows(
    baseline: Mapping[str, Any],
    candidate: Mapping[str, Any],
    comparison: Mapping[str, Any],
    found: Mapping[str, Any],
    launches: tuple[Sequence[float], Sequence[float]],
) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("verdict", baseline["outcome"], candidate["outcome"], "")]
    if baseline.get("instrument") != candidate.get("instrument"):
        rows.append(("instrument", baseline["instrument"], candidate["instrument"], ""))
    one, other = baseline["timings"], candidate["timings"]
    clocks = [*CLOCKS, *((metric.title, metric.key, metric.unit) for metric in metrics.shown(baseline.get("steps")))]
    known = [(title, one[key], other.get(key), unit) for title, key, unit in clocks if key in one]
    known = [row for row in known if row[1:3] != (None, None)]
    rows += [changed(*row, comparison, launches) for row in known]
    # of a launch of its own, whose stages do not add up to the total time of the others
    synchronised = baseline.get("of_stages") or candidate.get("of_stages") or ""
    for stage in _stages(baseline["stages_ms"], candidate["stages_ms"]):
        title, *cells = changed(*stage, comparison, launches)
        rows.append((f"{title}{synchronised}", *cells))
    return [*rows, ("pixels", *map(quality.short, found["between"]["pixels_sha256"]), _same(found["between"]))]


def _same(between: Mapping[str, Any]) -> str:
    """Return whether the pixels of both sides are equal; of files that are gone the hashes tell, but prove nothing."""
    one, other = between["pixels_sha256"]
    by_hash = between["identical"] is None and between["pairs"] == 1 and one is not None and one == other
    return {True: "equal", False: "not equal", None: "equal (by hash)" if by_hash else "not known"}[
        between["identical"]
    ]


def changed(
    title: str,
    one: float | None,
    other: float | None,
    unit: str,
    comparison: Mapping[str, Any],
    launches: tuple[Sequence[float], Sequence[float]],
) -> tuple[str, str, str, str]:
    """Return a row of figures and their change.

    In the row of the metric that was compared stand the figures whose ratio is the effect in the headline. Under
    disturbance no row has the size of a change.
    """
    change = figures.change(one, other)
    if is_decided := title == decided_row(comparison):
        one, other = (statistics.geometric_mean(side) for side in launches)
        change = f"{comparison['effect']['percent'] + 0.0:+.2f} %"
    if is_disturbed(comparison):
        change = NOT_CLAIMED if is_decided else ""
    return TITLES.get(title, title), number(one, unit), number(other, unit), change


def averaged(comparison: Mapping[str, Any], launches: tuple[Sequence[float], Sequence[float]]) -> list[str]:
    """Return a line that says what the figures are of, where those that were compared are of several starts."""
    if max(map(len, launches)) == 1:
        return []
    row = decided_row(comparison)
    decided = f"{TITLES.get(row, row)}: geometric means over the engine starts"
    return [f"{decided}; the other rows: medians over all requests (time to load: over the starts)"]


def decided_row(comparison: Mapping[str, Any]) -> str:
    """Return what a report of one run calls the metric that was compared."""
    metric: str = comparison["metric"]
    return ROWS.get(metric, metric.removeprefix("time of "))


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
