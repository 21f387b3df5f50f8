"""The text of a pull request under the headings of SGLang's own template, at most a screen long."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from bench.report import quality
from bench.report.figures import change, number
from bench.report.run_page import devices
from bench.run.timings import PRIMARY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Arms = tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]
    """The comparison, the baseline's record, the candidate's."""

SHOWN_CHANGES = 8


def text(subject: Mapping[str, Any], found: Mapping[str, Arms]) -> str:
    """Return the Markdown of a dossier: what was changed, by model whether outputs and times differ, and how."""
    return "\n".join(_lines(subject, found)) + "\n"


def _lines(subject: Mapping[str, Any], found: Mapping[str, Arms]) -> Iterator[str]:
    yield from ("## Motivation", "", "<!-- why -->", "", "## Modifications", "")
    yield f"`{subject['base']}` against `{subject['head']}`:"
    changes = subject["changes"]
    yield from ("", "```", *(changes[-SHOWN_CHANGES:] or ["nothing is known of the changes"]), "```", "")
    yield from ("## Accuracy Tests", "", "| model | outputs |", "|---|---|")
    for model, (compared, _, _) in found.items():
        yield f"| {model} | {'; '.join(quality.notes(compared['quality']))} |"
    yield from ("", "## Benchmarking and Profiling", "")
    yield "| model | result | effect (interval) | baseline | candidate | change | backend |"
    yield "|---|---|---:|---:|---:|---:|---|"
    for model, arms in found.items():
        yield _row(model, *arms)
    for compared, baseline, _ in list(found.values())[:1]:
        engine, host = baseline["engine"], baseline["host"]
        known = engine["packages"]
        packages = ", ".join(f"{name} {known[name]}" for name in ("torch", "diffusers") if name in known)
        margin = compared["comparison"]["margin_percent"]
        yield from ("", f"Pairs of engine starts, margin {margin:g} %, medians of all requests end to end.")
        driver = baseline["devices"]["driver"] or "none"
        yield f"Machine: {devices(baseline)}, driver {driver}, {host['cpu']}, {host['system']}; {packages}."
    yield from ("", "<details><summary>commands</summary>", "", "```sh")
    for model, (_, baseline, candidate) in found.items():
        for arm, record in (("baseline", baseline), ("candidate", candidate)):
            yield f"# {model}, {arm}"
            command = record["launches"][0]["command"]
            variables = (f"{name}={shlex.quote(value)}" for name, value in command["environment"].items())
            yield " ".join([*variables, shlex.join(command["argv"])])
    yield from ("```", "", "</details>", "", "`invoke evidence-check ARCHIVE` judges all of this again.")


def _row(model: str, compared: Mapping[str, Any], baseline: Mapping[str, Any], candidate: Mapping[str, Any]) -> str:
    comparison = compared["comparison"]
    interval = comparison["interval"]
    limits = "no interval"
    if interval is not None:
        limits = f"{interval['low_percent']:+.2f} to {interval['high_percent']:+.2f} %"
    before, after = (record["timings"]["metrics"][PRIMARY] for record in (baseline, candidate))
    backend = f"{baseline['verdict']['outcome']}, {candidate['verdict']['outcome']}"
    effect = f"{comparison['effect']['percent']:+.2f} % ({limits})"
    times = f"{number(before, 'ms')} | {number(after, 'ms')} | {change(before, after)}"
    result = f"**{comparison['verdict'].upper()}** in {len(compared['pairs'])} pairs"
    return f"| {model} | {result} | {effect} | {times} | {backend} |"
