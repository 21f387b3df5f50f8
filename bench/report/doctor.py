"""The preflight on the terminal: each line's state, what it means, what to do; and which presets run here."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console

from bench.catalog import presets
from bench.engine import command, find
from bench.errors import BenchError, PreflightFailed
from bench.machine import gpus
from bench.preflight import checks, model
from bench.preflight.state import FAIL, OK, UNKNOWN, WARN
from bench.run import plan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.preflight.state import CheckResult, MachineState
    from bench.run.options import Options

STYLES = {OK: "green", WARN: "yellow", FAIL: "bold red", UNKNOWN: "dim"}


def examine(options: Options, *, one_model: bool, as_json: bool) -> None:
    """Check the machine, for one preset or in general, and print every line.

    Raises:
        PreflightFailed: a check for the preset failed, or the machine has no engine.
        UsageError: an unknown model or engine.
    """
    workload = plan.workload(options) if one_model else None
    try:
        engine = find.find(options.engine)
    except BenchError:
        if options.engine is not None:
            raise
        engine = None
    if engine is None or workload is None:
        environment: Mapping[str, str] = find.interpreter_environment()
    else:
        environment = command.launch_environment(engine, workload)
    machine = gpus.visible(gpus.machine(), environment.get(gpus.VISIBLE))
    situation = checks.gather(engine, workload, environment, machine, options.output_dir)
    lines = checks.run(situation)
    can, cannot = ([], {}) if one_model else _runnable(situation)
    if as_json:
        document: dict[str, Any] = {"model": options.model if one_model else None, "lines": [*map(asdict, lines)]}
        if not one_model:
            document |= {"can_run": can, "cannot_run": cannot}
        print(json.dumps(document, indent=2, ensure_ascii=False))  # noqa: T201 - it is for a program
    else:
        show(lines)
        if not one_model:
            _show_runnable(can, cannot)
    failed = [line.id for line in lines if line.state == FAIL]
    if failed:
        raise PreflightFailed(f"{len(failed)} of {len(lines)} checks failed: {', '.join(failed)}")


def show(lines: Sequence[CheckResult]) -> None:
    """Print lines; what is well takes one, what is not also says what it means and what to do."""
    console = Console()
    for line in lines:
        console.print(f"[{STYLES[line.state]}]{line.state:<8}[/]", end="")
        console.print(f"{line.id}: {line.saw}", markup=False, highlight=False, soft_wrap=True)
        for title, text in (("means", line.means), ("to do", line.todo)):
            if text is not None:
                console.print(f"          {title}: {text}", markup=False, highlight=False, soft_wrap=True)


def _runnable(situation: MachineState) -> tuple[list[str], dict[str, str]]:
    """Return the presets that this machine's accelerators are enough for, and for each other one the reason."""
    there = len(situation.machine.devices) or max((vendor.count or 0 for vendor in situation.vendors), default=0)
    can, cannot = [], {}
    for key, preset in presets.built_in().items():
        if there >= preset.gpus or (there == 0 and preset.gpus == 1 and model.runs_on_cpu(preset.tags)):
            can.append(key)
        else:
            cannot[key] = f"needs {preset.gpus} GPU{'s' if preset.gpus > 1 else ''}"
    return can, cannot


def _show_runnable(can: Sequence[str], cannot: Mapping[str, str]) -> None:
    console = Console()
    console.print(f"\ncan run here ({len(can)}): {', '.join(can) or 'nothing'}", highlight=False, markup=False)
    for reason, count in Counter(cannot.values()).most_common():
        keys = ", ".join(key for key, why in cannot.items() if why == reason)
        console.print(f"cannot, {reason} ({count}): {keys}", highlight=False, markup=False)
