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
    """Print one row for each preset."""
    table = text.table("preset", "size", "steps", "GPUs", "weights", "what", right=("steps", "GPUs"))
    for key, preset in presets.items():
        size = f"{preset.width}x{preset.height}" if preset.width else "default"
        if preset.frames:
            size += f"x{preset.frames}"
        gated = ", gated" if preset.gated else ""
        table.add_row(
            key, size, str(preset.steps or "default"), str(preset.gpus), preset.weights, preset.description + gated
        )
    console.print(table)


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
