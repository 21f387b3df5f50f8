"""The list of presets on the terminal, and where upstream's differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.report import text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.console import Console

    from bench.catalog.presets import Preset
    from bench.upstream.preset_diff import Difference


def show(presets: Mapping[str, Preset], console: Console) -> None:
    """Print one line for each preset; what does not fit on a terminal is cut at the right, never the key."""
    width = max(map(len, presets), default=0)
    for key, preset in presets.items():
        size = f"{preset.width}x{preset.height}" if preset.width else "default"
        size += f"x{preset.frames}" if preset.frames else ""
        steps = f"{preset.steps or 'default'} steps"
        gpus = f"{preset.gpus} GPU{'' if preset.gpus == 1 else 's'}"
        gated = ", gated" if preset.gated else ""
        what = f"{preset.weights}, {preset.description}{gated} [{', '.join(preset.tags)}]"
        line = f"{key:<{width}}  {size:<13}  {steps:<13}  {gpus:<6}  {what}"
        text.line(console, line[: console.width] if console.is_terminal else line)


def show_receipts(wanted: Sequence[Mapping[str, str]], console: Console) -> None:
    """Print the optional features whose engagement a run of a preset will show or miss."""
    if not wanted:
        text.line(console, "receipts: none, it asks for no optional feature")
    for receipt in wanted:
        text.line(console, f"receipt {receipt['id']}: {receipt['asked']} ({receipt['feature']})")


def show_differences(read: Mapping[str, Path], differences: Sequence[Difference], console: Console) -> None:
    """Print which files were read and one row for each difference."""
    for name, path in read.items():
        text.line(console, f"{name}: {path}")
    if not differences:
        console.print("no difference")
    for difference in differences:
        values = f"ours {_short(difference.ours)}, upstream {_short(difference.upstream)}"
        where = difference.key if difference.field is None else f"{difference.key} {difference.field}"
        text.line(console, f"{difference.kind:<8} {where}: {values}")


def _short(value: object) -> str:
    return "-" if value is None else str(value)
