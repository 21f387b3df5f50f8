"""The text of a pull request under the headings of SGLang's own template, at most a screen long."""

from __future__ import annotations

import shlex
import statistics
from typing import TYPE_CHECKING, Any

from bench.report import quality
from bench.report.comparison import arms_launches
from bench.report.figures import NOT_CLAIMED, number
from bench.report.run_page import devices
from bench.safe_text import code, masked
from bench.safe_text import markdown as escaped
from bench.stats.comparison import is_disturbed
from bench.stats.comparison import limits as printed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Arms = tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]
    """The comparison, the baseline's record, the candidate's."""

SHOWN_CHANGES = 8
SHOWN_CHARACTERS = 12
"""Of a commit's hash."""


def text(subject: Mapping[str, Any], found: Mapping[str, Arms]) -> str:
    """Return the Markdown of a dossier: what was changed, by model whether outputs and times differ, and how.

    Folders of this machine are left out of it.
    """
    return masked("\n".join(_lines(subject, found)) + "\n")


def _lines(subject: Mapping[str, Any], found: Mapping[str, Arms]) -> Iterator[str]:
    first = next(iter(found.values()))
    margin = first[0]["comparison"]["margin_percent"]
    yield from ("## Motivation", "", "<!-- why -->", "", "## Modifications", "")
    yield from _changes(subject, first)
    yield from ("", "## Accuracy Tests", "", "| model | outputs |", "|---|---|")
    for model, (compared, _, _) in found.items():
        said = "; ".join(quality.notes(compared["quality"])).removeprefix("outputs: ")
        yield f"| {escaped(model)} | {escaped(said)} |"
    yield from ("", "## Benchmarking and Profiling", "")
    yield "| model | result | compared | effect (interval) | baseline | candidate | backend |"
    yield "|---|---|---|---:|---:|---:|---|"
    for model, arms in found.items():
        yield _row(model, *arms)
    reaches = [(model, compared["reach"]) for model, (compared, *_) in found.items() if compared.get("reach")]
    yield from ("", *(f"- {escaped(model)}: {escaped(reach['sentence'])}" for model, reach in reaches))
    ran = [(model, reach["kernels"]) for model, reach in reaches if reach.get("kernels")]
    yield from (f"- {escaped(model)}: {escaped(kernels['sentence'])}" for model, kernels in ran)
    if reaches:
        yield ""
    of = "Effect: mean over pairs; times: geometric means over the starts."
    yield f"By pairs of engine starts, margin {margin:g} %. {of}"
    yield f"Machine: {escaped(_machine(first[1]))}."
    commands = "\n".join(
        f"# {model}, {arm}\n{_command(record)}"
        for model, (_, *records) in found.items()
        for arm, record in zip(("baseline", "candidate"), records, strict=True)
    )
    yield from ("", "<details><summary>commands</summary>", "", *code(commands), "", "</details>", "")
    yield "`invoke evidence-check ARCHIVE` judges all of this again."


def _changes(subject: Mapping[str, Any], first: Arms) -> Iterator[str]:
    """Yield what differs between the two sides: revisions and files, or the engines of A/Bs measured earlier."""
    compared, *records = first
    sides = [_engine(record) for record in records]
    if subject["changes"] is None:
        differs = f"; differs: {'; '.join(compared['differences'])}" if compared["differences"] else ""
        yield escaped(f"{sides[0]} against {sides[1]}{differs}. Which files differ is not known.")
        return
    yield escaped(f"{subject['base']} ({sides[0]}) against {subject['head']} ({sides[1]}):")
    hidden = len(subject["changes"]) - SHOWN_CHANGES
    above = [f" {hidden} lines above are left out"] if hidden > 0 else []
    yield from ("", *code("\n".join([*above, *subject["changes"][-SHOWN_CHANGES:]]), language=""))


def _engine(record: Mapping[str, Any]) -> str:
    """Return what ran: the engine's version, or the commit of a checkout and whether it had further changes."""
    version, source = record["engine"]["version"], record["engine"]["source"]
    if source is None:
        return f"sglang {version}"
    more = ", uncommitted changes" if source["changes_sha256"] else ""
    return f"commit {source['commit'][:SHOWN_CHARACTERS]}{more}"


def _machine(record: Mapping[str, Any]) -> str:
    host, known = record["host"], record["engine"]["packages"]
    hardware = list(dict.fromkeys([devices(record), host["cpu"]]))
    driver = [f"driver {record['devices']['driver']}"] if record["devices"]["driver"] else []
    packages = [f"{name} {known[name]}" for name in ("torch", "diffusers") if name in known]
    return ", ".join([*hardware, *driver, host["system"], *packages])


def _command(record: Mapping[str, Any]) -> str:
    command = record["launches"][0]["command"]
    variables = (f"{name}={shlex.quote(value)}" for name, value in command["environment"].items())
    return " ".join([*variables, shlex.join(command["argv"])]).replace("\n", " ")


def _row(model: str, compared: Mapping[str, Any], baseline: Mapping[str, Any], candidate: Mapping[str, Any]) -> str:
    comparison = compared["comparison"]
    interval = comparison["interval"]
    limits = "no interval" if interval is None else printed(interval["low_percent"], interval["high_percent"])
    effect = f"{comparison['effect']['percent'] + 0.0:+.2f} % ({limits})"
    before, after = (
        number(statistics.geometric_mean(launches), compared["unit"]) for launches in arms_launches(compared)
    )
    cells = [
        escaped(model),
        f"**{comparison['verdict'].upper()}** in {len(compared['pairs'])} pairs",
        escaped(comparison["metric"]),
        f"{NOT_CLAIMED}: measured under disturbance" if is_disturbed(comparison) else effect,
        before,
        after,
        f"{baseline['verdict']['outcome']}, {candidate['verdict']['outcome']}",
    ]
    return f"| {' | '.join(cells)} |"
