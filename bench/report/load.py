"""A load test for the terminal: what was measured, then the checks that it rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.record import disturbance, phases
from bench.report import run, text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rich.console import Console
    from rich.table import Table

HELD = {True: "held", False: "NOT HELD", None: "unknown"}


def show(record: Mapping[str, Any], path: Path, console: Console, next_step: str) -> None:
    """Print a load record and what one would type next; no figure is printed of one that does not count."""
    verdict = record["verdict"]
    under = " (measured under disturbance)" if disturbance.of_load(record) else ""
    text.line(console, f"verdict  {'UNATTESTED' if verdict is None else verdict['outcome'].upper()}{under}")
    if record["server"] is not None and record["server"]["ready_s"] is not None:
        text.line(
            console, f"server   sglang {record['engine']['version']}, ready after {record['server']['ready_s']:.0f} s"
        )
    for line in warnings(record):
        text.line(console, line)
    voided = [check for check in record["checks"] if check["exit_code"]]
    if not voided and record["failure"] is None:
        _figures(record, console)
    text.line(console, "")
    console.print(_checks(record))
    text.line(console, f"next: {next_step}")
    text.line(console, f"record: {path}")


def warnings(record: Mapping[str, Any]) -> list[str]:
    """Return what is said of the machine: by the checks before, the watch meanwhile, and the check of each phase."""
    during = disturbance.shared(record)
    return [*(run.warnings(record) if record["verdict"] else ()), *(f"warning: machine: {says}" for says in during)]


def _figures(record: Mapping[str, Any], console: Console) -> None:
    for phase in record["phases"]:
        figures = phase["figures"]
        if phase["name"] == "closed-1" and figures["p50_s"] is not None:
            text.line(
                console, f"unloaded  p50 {milliseconds(figures['p50_s'])}, mean {milliseconds(figures['mean_s'])}"
            )
    if (capacity := record["capacity_hz"]) is not None:
        known = "" if capacity["low"] is None else f" ({capacity['low']:.3g} to {_number(capacity['high'])})"
        text.line(console, f"capacity  {capacity['value']:.3g}/s{known}")
    if record["slo_s"] is not None:
        text.line(console, f"SLO       {milliseconds(record['slo_s'])}")
    if (batching := record.get("batching")) is not None:
        show_batching(batching, console)
    text.line(console, "")
    console.print(_phases(record))
    if (highest := record["highest_rate"]) is not None:
        held = "none held" if highest["held_hz"] is None else f"{highest['held_hz']:.3g}/s"
        text.line(console, f"highest rate within the SLO: {held}; missed at {_number(highest['missed_hz'])}/s")


def show_batching(batching: Mapping[str, Any], console: Console) -> None:
    """Print whether requests were merged, and what that changed against one request at a time."""
    first, *others = batching_rows(batching)
    text.line(console, f"batching  {': '.join(first)}")
    for name, told in others:
        text.line(console, f"  {name}: {told}")


def batching_rows(batching: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is known of merging as rows of a name and what was seen; the first says whether it engaged."""
    rows = [(f"up to {batching['most']}", batching["receipt"] or "the log cannot be seen")]
    if batching["sizes"] is not None:
        sizes = ", ".join(f"{count} of {size}" for size, count in batching["sizes"].items())
        merged = f"{share(batching['merged_share'])} of the bursts' requests" + (f", batches: {sizes}" if sizes else "")
        rows.append(("merged", merged))
    batched, unbatched = batching["batched"], batching["unbatched"]
    if batched is not None and unbatched is not None:
        throughput = _change(unbatched["throughput_hz"], batched["throughput_hz"])
        latency = _change(unbatched["mean_latency_s"], batched["mean_latency_s"])
        rates = f"{unbatched['throughput_hz']:.3g}/s to {batched['throughput_hz']:.3g}/s"
        times = f"{milliseconds(unbatched['mean_latency_s'])} to {milliseconds(batched['mean_latency_s'])}"
        changed = f"throughput {throughput} ({rates}), mean latency {latency} ({times})"
        rows.append(("against a server of this run that merges nothing, one start of each, same bursts", changed))
        # a record started before 30 November 2026 may have none
        before, after = unbatched.get("lone_latency_s"), batched.get("lone_latency_s")
        if before is not None and after is not None:
            times = f"{milliseconds(before)} to {milliseconds(after)}"
            rows.append(("a lone request, nothing to merge it with", f"latency {_change(before, after)} ({times})"))
    elif batched is not None:
        rows.append(("what merging changed", "unknown: no server that merges nothing was measured beside it"))
    far = ""
    if batching["differing"] and batching["worst_psnr_db"] is not None:
        far = f", by up to {batching['max_levels']} of 255 (PSNR {batching['worst_psnr_db']:.1f} dB)"
    differing = f"{batching['differing']} of {batching['compared']} differ from those of a lone request{far}"
    return [*rows, ("pictures", differing)]


def _change(before: float, after: float) -> str:
    changed = round(100 * (after / before - 1))
    return f"{changed:+d} %" if changed else "0 %"


PHASES = ("phase", "offered/s", "achieved/s", "utilisation", "p50", "p95", "p99", "queue", "goodput", "failed", "flag")
"""The columns of the phases' table."""


def phase_cells(phase: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a phase's row below `PHASES`."""
    figures = phase["figures"]
    return (
        phase["name"],
        _number(figures["offered_hz"]),
        _number(figures["achieved_hz"]),
        share(figures["utilisation"]),
        *(milliseconds(figures[name]) for name in ("p50_s", "p95_s", "p99_s")),
        share(figures["queue_share"]),
        share(figures["goodput"]),
        str(figures["offered"] - figures["answered"]),
        ", ".join(figures["flags"]),
    )


def _phases(record: Mapping[str, Any]) -> Table:
    table = text.table(*PHASES, right=PHASES[1:-1])
    for phase in record["phases"]:
        if phases.is_load(phase["name"]):
            table.add_row(*phase_cells(phase))
    return table


def _checks(record: Mapping[str, Any]) -> Table:
    table = text.table("", "check", "", "what was seen", right=("",))
    for check in record["checks"]:
        table.add_row(str(check["number"]), check["proves"], HELD[check["held"]], check["says"])
    return table


def milliseconds(seconds: float | None) -> str:
    """Return a time in whole milliseconds, a dash for an unknown one."""
    return "-" if seconds is None else f"{seconds * 1e3:.0f} ms"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def share(value: float | None) -> str:
    """Return a share as a whole percentage, a dash for an unknown one."""
    return "-" if value is None else f"{100 * value:.0f} %"
