"""Comparisons for people: a verdict in one line, a table, and Markdown that can be pasted into a pull request."""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markdown import Markdown

from bench import paths
from bench.compare import ab, calibration, history
from bench.compare import records as compare
from bench.errors import Inconclusive, ThresholdMissed
from bench.fidelity import score
from bench.report import quality, session
from bench.report.run import number
from bench.run import metrics
from bench.stats import comparison as verdict
from bench.stats import sequential

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.compare.records import Side
    from bench.run.options import Options

ONE_SAMPLE = (
    "One sample against one sample shows what two runs took, not that the next two would differ: nothing is known of"
    " the spread between launches. Measure with `invoke ab`, or keep this machine's noise: `invoke calibrate`."
)


def measure_ab(
    common: Options,
    specs: dict[str, str],
    planned: sequential.Plan,
    *,
    co_resident: bool,
    as_json: bool,
    require: str | None = None,
) -> None:
    """Measure two arms and print the comparison.

    Raises:
        ThresholdMissed: the candidate is slower, or its outputs are not as like the baseline's as is required.
        Inconclusive: the blocks do not decide.
        BenchError: an arm failed.
    """
    messages = Console(stderr=True, highlight=False)
    result = ab.measure(
        common,
        specs,
        planned,
        co_resident=co_resident,
        tell=lambda text: messages.print(text, markup=False),
        require=require,
    )
    if as_json:
        sys.stdout.write(json.dumps(result.document, indent=2, ensure_ascii=False) + "\n")
    else:
        records = result.records
        notes = [result.document["why"], f"spread between launches: {result.document['between_launch_spread']}"]
        notes += [f"differs on purpose: {line}" for line in result.document["differences"]]
        sides = (records[ab.BASELINE], records[ab.CANDIDATE])
        text = markdown(*sides, result.document["comparison"], result.document["quality"], notes)
        console = Console()
        console.print(Markdown(text))
        console.print(f"record: {result.path}", soft_wrap=True, highlight=False, markup=False)
    if result.error is not None:
        raise result.error
    _raise([{**result.document, "candidate": str(result.path)}])


def compare_files(files: Sequence[Path], *, as_json: bool, as_markdown: bool, require: str | None = None) -> None:
    """Compare the first file with each of the others and print it.

    Raises:
        ThresholdMissed: a candidate is slower, or its outputs are not as like the baseline's as is required.
        Inconclusive: one comparison does not decide, and none is slower.
        UsageError: unlike files, or one alone for which no baseline was named.
    """
    if len(files) == 1:
        files = [history.baseline_of(paths.runs(), files[0]), files[0]]
    baseline, *others = [compare.read(path) for path in files]
    documents: list[dict[str, Any]] = []
    for candidate in others:
        comparison = verdict.to_document(compare.compare(baseline, candidate))
        found = score.compared(compare.outputs(baseline, candidate), comparison["verdict"], require)
        names = {"baseline": baseline.name, "candidate": candidate.name}
        documents.append({**names, "comparison": comparison, "quality": found})
        if not as_json:
            _print_sides(baseline, candidate, documents[-1], as_markdown=as_markdown)
    if as_json:
        sys.stdout.write(json.dumps(documents, indent=2, ensure_ascii=False) + "\n")
    _raise(documents)


def _print_sides(baseline: Side, candidate: Side, compared: Mapping[str, Any], *, as_markdown: bool) -> None:
    comparison, found = compared["comparison"], compared["quality"]
    notes = [] if comparison["interval"] is not None else [ONE_SAMPLE]
    if baseline.is_dump:
        text = _table(_view(baseline.document), _view(candidate.document), comparison, found, notes)
    else:
        text = markdown(baseline.document, candidate.document, comparison, found, notes)
    if as_markdown:
        sys.stdout.write(text + "\n")
    else:
        Console().print(Markdown(text))


def _view(dump: Mapping[str, Any]) -> dict[str, Any]:
    """Return a bare dump's numbers in the form that a record has them."""
    stages = [
        {"name": step["name"], "ms": step["duration_ms"], "kind": metrics.stage_kind(step["name"])}
        for step in dump["steps"]
    ]
    return {"timings": {"metrics": metrics.compute(dump), "stages_ms": stages}, "outcome": "not judged"}


def _of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the table shows of a record."""
    return {"timings": record["timings"], "outcome": record["verdict"]["outcome"]}


def markdown(
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
    mde = comparison["mde_percent"]
    smallest = (
        "the smallest effect these samples could show is not known"
        if mde is None
        else (f"the smallest effect these samples could show is {mde:.2f} %")
    )
    warning = quality.warning(found)
    lines = [
        f"**{comparison['verdict'].upper()}**: {comparison['reason']}; {smallest}.",
        "",
        *([] if warning is None else [warning, ""]),
        "| | baseline | candidate | change |",
        "|---|---:|---:|---:|",
        f"| verdict | {baseline['outcome']} | {candidate['outcome']} | |",
    ]
    one, other = baseline["timings"]["metrics"], candidate["timings"]["metrics"]
    lines += [_row(metric.title, one[metric.key], other[metric.key], metric.unit) for metric in metrics.METRICS]
    stages = {stage["name"]: stage["ms"] for stage in candidate["timings"]["stages_ms"]}
    for stage in baseline["timings"]["stages_ms"]:
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
    change = "" if not one or other is None else f"{100 * (other / one - 1):+.1f} %"
    return f"| {name} | {number(one, unit)} | {number(other, unit)} | {change} |"


def _raise(documents: Sequence[Mapping[str, Any]]) -> None:
    """Raise what comparisons end with: a candidate that is slower, then one that misses its threshold, then doubt."""
    slower = [one for one in documents if one["comparison"]["exit_code"] == ThresholdMissed.exit_code]
    for one in slower:
        raise ThresholdMissed(_said(one["comparison"]), where=one["candidate"])
    for one in documents:
        if (missed := score.gate(one["quality"], one["candidate"])) is not None:
            raise missed
    for one in documents:
        if one["comparison"]["exit_code"] == Inconclusive.exit_code:
            raise Inconclusive(_said(one["comparison"]), where=one["candidate"])


def _said(comparison: Mapping[str, Any]) -> str:
    return f"{comparison['verdict']}: {comparison['reason']}"


def calibrate(options: Options) -> None:
    """Measure one arm over several launches, keep its noise, and print how many blocks a small effect needs here.

    Raises:
        BenchError: what a benchmark raises.
        Inconclusive: the spread between launches is too small to be seen beside the spread within.
    """
    record = session.run_and_show(options, as_json=False)
    console = Console(highlight=False)
    path = calibration.store(record)
    if path is None:
        note = (record["timings"]["spread"] or {"note": "no spread"})["note"]
        raise Inconclusive(f"no noise was kept: {note}", todo="more --launches, or fewer --repeats")
    noise = calibration.noise(record)
    assert noise is not None
    console.print(
        f"noise between launches: {noise.between_launch_percent:.2f} %, between the requests of one:"
        f" {noise.within_launch_percent:.2f} %"
    )
    for requests in sorted({1, options.repeats}):
        needed = calibration.blocks_for(noise, requests)
        wanted = f"{needed} A-B-B-A blocks" if needed is not None else "more blocks than anybody would measure"
        console.print(f"an effect of {calibration.EFFECT_PERCENT} % needs {wanted} with --repeats {requests}")
    console.print(f"kept: {path}", soft_wrap=True, markup=False)
