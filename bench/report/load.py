"""A load test for the terminal: what was measured, then the checks that it rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.report import text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rich.console import Console
    from rich.table import Table

HELD = {True: "held", False: "NOT HELD", None: "unknown"}


def show(record: Mapping[str, Any], path: Path, console: Console, next_step: str) -> None:
    """Print a load record and what one would type next; no figure is printed of one that does not count."""
    verdict = record["verdict"]
    text.line(console, f"verdict  {'UNATTESTED' if verdict is None else verdict['outcome'].upper()}")
    if record["server"] is not None and record["server"]["ready_s"] is not None:
        text.line(
            console, f"server   sglang {record['server']['version']}, ready after {record['server']['ready_s']:.0f} s"
        )
    voided = [check for check in record["checks"] if check["exit_code"]]
    if not voided and record["failure"] is None:
        _figures(record, console)
    text.line(console, "")
    console.print(_checks(record))
    text.line(console, f"next: {next_step}")
    text.line(console, f"record: {path}")


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
    text.line(console, f"batching  up to {batching['most']}: {batching['receipt'] or 'the log cannot be seen'}")
    if batching["sizes"] is not None:
        sizes = ", ".join(f"{count} of {size}" for size, count in batching["sizes"].items())
        merged = f"{batching['merged_share']:.0%} of the bursts' requests" + (f", batches: {sizes}" if sizes else "")
        text.line(console, f"  merged    {merged}")
    if batching["throughput_change"] is not None:
        latency = f"mean latency {batching['mean_latency_change']:+.0%}"
        text.line(console, f"  against one at a time: throughput {batching['throughput_change']:+.0%}, {latency}")
    far = ""
    if batching["differing"] and batching["worst_psnr_db"] is not None:
        far = f", by up to {batching['max_levels']} of 255 (PSNR {batching['worst_psnr_db']:.1f} dB)"
    says = f"{batching['differing']} of {batching['compared']} differ from those of a lone request{far}"
    text.line(console, f"  pictures  {says}")


PHASES = ("phase", "offered/s", "achieved/s", "utilisation", "p50", "p95", "p99", "queue", "goodput", "failed", "flag")
"""The columns of the phases' table."""


def phase_cells(phase: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a phase's row below `PHASES`."""
    figures = phase["figures"]
    return (
        phase["name"],
        _number(figures["offered_hz"]),
        _number(figures["achieved_hz"]),
        _share(figures["utilisation"]),
        *(milliseconds(figures[name]) for name in ("p50_s", "p95_s", "p99_s")),
        _share(figures["queue_share"]),
        _share(figures["goodput"]),
        str(figures["offered"] - figures["answered"]),
        ", ".join(figures["flags"]),
    )


def _phases(record: Mapping[str, Any]) -> Table:
    table = text.table(*PHASES, right=PHASES[1:-1])
    for phase in record["phases"]:
        if phase["name"] != "warm":
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


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
