"""What every form of a profile report shows: facts, verdict, actions, warnings and tables, as text.

The terminal, Markdown and HTML forms lay the same view out. Nothing is computed here: figures are only written.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from bench.report import profile_plots, profile_tables
from bench.report.figures import figure, number
from bench.report.page import Page, Todo

if TYPE_CHECKING:
    from collections.abc import Mapping

SHOWN_ACTIONS = NAMED_OPERATORS = 3
ASKED = ("preset", "model", "workload", "quality")
"""The facts of a capture that say what was asked for."""
NEED_A_GPU = "what to do first, fast paths, floors, roofline and idle gaps: they need GPU events"


def view(document: Mapping[str, Any]) -> Page:
    """Return the page of a profile report: of its slowest rank's trace."""
    ranks = document["ranks"]
    index = ranks["slowest"] if ranks and ranks["slowest"] is not None else 0
    context, trace = document["context"], document["traces"][index]
    gpu = trace["gpu"]
    tables = profile_tables.of_gpu(gpu) if gpu else profile_tables.of_cpu(trace["cpu"])
    if ranks:
        tables = (profile_tables.ranks(ranks), *tables)
    drawn = profile_plots.of_gpu(gpu) if gpu else profile_plots.of_cpu(trace["cpu"])
    return Page(
        kind="profile",
        title=_title(context, trace),
        answer=gpu["verdict"]["sentence"] if gpu else _of_cpu(trace["cpu"]),
        outcome=gpu["verdict"]["bound_by"] if gpu else "CPU",
        todos=tuple(_todo(action, gpu, context) for action in gpu["actions"][:SHOWN_ACTIONS]) if gpu else (),
        warnings=(*context.get("warnings", ()), *trace["warnings"]),
        facts=tuple(_facts(context, trace)),
        blocks=(*drawn, *tables),
        data=_data(gpu),
    )


def _title(context: Mapping[str, Any], trace: Mapping[str, Any]) -> str:
    """Return what was profiled: the preset of a run, else the model that the trace names, else the file."""
    about = context["about"] or {}
    name = about.get("preset") or trace["model"]
    if not name:
        return f"Profile of {PurePath(trace['source']['path']).name}"
    device = f" on {trace['device']['name']}" if trace["device"] else " on the CPU" if trace["cpu"] else ""
    version = f", SGLang {context['engine_version']}" if context["engine_version"] else ""
    workload = f", {about['workload']}" if "workload" in about else ""
    return f"Profile of {name}{device}{version}{workload}"


def _of_cpu(cpu: Mapping[str, Any]) -> str:
    """Return the operators that take most of the time of a trace without GPU events."""
    time_of = profile_plots.cpu_time_of(cpu)
    total = sum(time_of.values())
    most = list(time_of)[:NAMED_OPERATORS] if total else []
    shares = [f"{name} {100 * time_of[name] / total:.0f} %" for name in most]
    if not shares:
        return "neither GPU events nor operators"
    return f"no GPU events, only operators on the CPU: {', '.join(shares)} of their time"


def _data(gpu: Mapping[str, Any] | None) -> tuple[tuple[object, ...], ...]:
    """Return the time of each category in each step."""
    if not gpu:
        return ()
    steps = [f"step_{step['label']}_ms" for step in gpu["steps"]]
    return (("category", "ms", *steps), *((c["id"], c["ms"], *c["by_step_ms"]) for c in gpu["categories"]))


def _todo(action: Mapping[str, Any], gpu: Mapping[str, Any], context: Mapping[str, Any]) -> Todo:
    saving_ms, steps = action["saving_ms"], context.get("steps")
    request = f"; {number(steps * saving_ms / 1e3, 's')} a request" if steps else ""
    return Todo(
        saving=f"{saving_ms:.1f} ms ({100 * saving_ms / gpu['judged_step']['ms']:.1f} %{request})",
        title=action["title"],
        state=action["state"],
        todo=action["todo"] + (f" (try: --candidate {action['arm']})" if action["arm"] else ""),
        evidence=action["evidence"],
    )


def _facts(context: Mapping[str, Any], trace: Mapping[str, Any]) -> list[tuple[str, str]]:
    source, device, gpu = trace["source"], trace["device"], trace["gpu"]
    about = [(str(name), str(value)) for name, value in (context["about"] or {}).items()]
    asked = [fact for fact in about if fact[0] in ASKED]
    found = [*asked, ("family", trace["model"] or "not known")]
    found.append(("SGLang", context["engine_version"] or "version not known"))
    if (quality := context["quality"]) and "quality" not in (context["about"] or {}):
        found.append(("quality", quality if about else f"not known, taken for {quality}, the engine's default"))
    if device:
        found.append(("device", f"{device['name']} (compute capability {device['compute_capability']})"))
    if source["rank"] is not None:
        found.append(("rank", f"{source['rank']} of {source['world_size']}"))
    if source["captured"]:
        found.append(("captured", source["captured"][:19].replace("T", " ") + " UTC"))
    size = f"{source['events']:,} events, {source['file_bytes'] / 1e6:.3g} MB"
    found.append(("file", f"{source['path']} ({size})"))
    found += _gpu_facts(context, trace, gpu) if gpu else [("left out", NEED_A_GPU)]
    return found + [fact for fact in about if fact not in asked]


def _ceilings(limits: Mapping[str, Any]) -> str:
    """Return what the trace is held against, and what that rests on."""
    known = [
        f"{what} {rate:.4g} {unit} ({basis})"
        for what, rate, unit, basis in (
            (limits["data_type"], limits["tflops"], "TFLOP/s", limits["tflops_basis"]),
            ("memory", limits["tb_s"], "TB/s", limits["tb_s_basis"]),
        )
        if rate
    ]
    return ", ".join(known) or "not known: invoke probe measures them"


def _gpu_facts(context: Mapping[str, Any], trace: Mapping[str, Any], gpu: Mapping[str, Any]) -> list[tuple[str, str]]:
    window, coverage, median = gpu["window"], trace["coverage"], gpu["median_step"]
    traced = f"all {len(gpu['steps'])} steps" if gpu["steps"] else "the whole trace"
    taken = f"the median of {median['of']} of {len(gpu['steps'])} steps" if median["of"] else traced
    without = f", {context['unprofiled_step_ms']:.1f} ms without" if context["unprofiled_step_ms"] else ""
    idle = f"host wait {window['host_wait_ms']:.1f} ms, kernel wait {window['kernel_wait_ms']:.1f} ms"
    busy = f"busy {window['busy_ms']:.1f} of {window['span_ms']:.1f} ms of {traced}"
    busy += f", idle {window['idle_percent']:.1f} % ({idle})"
    known = ", ".join(f"{name} {coverage[f'{name}_percent']:.1f} %" for name in ("operator", "module", "category"))
    found = [
        ("figures", f"of a step, {taken}; steps by {trace['steps_found_by']}"),
        ("step", f"{median['ms']:.1f} ms with the profiler{without}"),
        ("ceilings", _ceilings(gpu["ceilings"])),
        ("GPU", f"{busy}, overlap {window['overlap_percent']:.1f} %"),
        ("attributed", f"{known} of the events"),
    ]
    if window["communication_ms"]:
        exposed = figure(window["exposed_communication_ms"])
        found.append(("communication", f"{figure(window['communication_ms'])} ms, {exposed} ms exposed"))
    return found
